"""What `remctl-headless` does, as a call for programs."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from remctl.jobs.headless import _lock, _options
from remctl.jobs.headless._failures import failure
from remctl.jobs.headless._progress import Progress

if TYPE_CHECKING:
    from remctl.jobs.client import Job


def run(
    service: str,
    *,
    module: str | None = None,
    py_file: str | os.PathLike[str] | None = None,
    py_code: str | None = None,
    timeout: float | None = None,
    user: str | None = None,
    auth_type: str | None = None,
    secret: str | os.PathLike[str] | None = None,
    individual_parameters: str | None = None,
    principal: str | None = None,
    lock: bool | str | os.PathLike[str] = False,
) -> Job:
    """Submit a job on a server, and perhaps wait for its end; return the job as it was last heard of.

        >>> remctl.jobs.headless.run("jobs.example.org", module="nightly", timeout=3600).state
        <JobState.SUCCESS: 4>

    Args:
        service: the server, as HOST or HOST:PORT, an IPv6 address in brackets.
        module: the installed script to run, or in whose setting to run code.
        py_file: a file of Python to run.
        py_code: Python to run; one of these three has to be given, and not both of the last two.
        timeout: seconds to wait for the job's end, -1 without limit; None does not wait.
        user: the principal whose job it is, with or without realm; None is that of the default ticket cache.
        auth_type: "osuser" takes the default ticket cache, "challenge" gets tickets of its own with the key in
            `secret`; None is "challenge" if there is a secret, and else "osuser".
        secret: the secret file, a keytab; nobody is asked for a password if it is missing.
        individual_parameters: what the job is told, unchanged; None is nothing.
        principal: the server's principal; None is host/HOST.
        lock: whether to start nothing while an earlier run of the same job goes on; a path is the lock's file.

    Raises:
        HeadlessError: it did not end well; `code` says how, and `job` is the job, if there is one.
        RuntimeError: an event loop runs in this thread, which would stand still.

    The login has 20 seconds.  Any number of threads may call it.
    """
    _check_thread()
    progress = Progress()
    try:
        options = _options.checked(
            service=service,
            module=module,
            py_file=py_file,
            py_code=py_code,
            timeout=timeout,
            user=user,
            auth_type=auth_type,
            secret=secret,
            individual_parameters=individual_parameters,
            principal=principal,
            lock=lock,
        )
        from remctl.jobs.headless import _running  # here, since the libraries that it needs may be missing

        with _lock.held(options) as held:
            return asyncio.run(_running.work(options, progress, held))
    except Exception as error:
        raise failure(error, submitted=progress.submitted, job=progress.job) from error.__cause__


def _check_thread() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("an event loop runs in this thread: call it with asyncio.to_thread()")
