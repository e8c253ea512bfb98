"""The headless client: submits a job where no user is there, as a program that cron starts, or as a call.

    >>> remctl.jobs.headless.run("jobs.example.org", module="nightly", timeout=3600).state
    <JobState.SUCCESS: 4>

Needs the extra `headless`.  Each module has one subject:

    _codes     the exit codes, and the error that carries one
    _options   from the words of a command line to checked values
    _secret    whose tickets are used; the secret file
    _key       the key in it
    _kdc       whether a KDC has answered
    _running   the login, the submission, and the wait for the job's end
    _failures  from what went wrong to its exit code
    _lock      one run of a job at a time
    _logging   what is said of what is done
    _signals   signals that end the program
    _progress  how far it has come
    _program   the console command, which puts all of these together
    _guard     the process round it
    _call      the same for programs
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from remctl.jobs.headless._call import run
    from remctl.jobs.headless._codes import Code, HeadlessError

__all__ = ["Code", "HeadlessError", "main", "run"]


def main() -> NoReturn:
    """Do what the process's command line says, and end the process with a code of `Code`."""
    try:
        from remctl.jobs.headless._guard import main as guarded

        guarded()
    finally:  # not even that can be imported
        os._exit(5)


def __getattr__(name: str) -> object:
    if name == "run":
        from remctl.jobs.headless._call import run

        return run
    if name in ("Code", "HeadlessError"):
        from remctl.jobs.headless import _codes

        return getattr(_codes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
