"""The console command `remctl-headless`: from words to a job, and from its end to an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remctl.jobs.headless import _lock, _logging, _options
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.jobs.headless._failures import failure
from remctl.jobs.headless._options import PROGRAM, Options
from remctl.jobs.headless._progress import Progress
from remctl.jobs.headless._signals import Signals

if TYPE_CHECKING:
    from remctl.jobs.client import Job

logger = logging.getLogger(__name__)


def command(words: Sequence[str], progress: Progress, signals: Signals) -> Code:
    """Do what a command line says; return the exit code.

    Args:
        words: those after the program's name.
        progress: where it is noted how far it has come.
        signals: which may end it.
    """
    try:
        options = _options.parsed(words)
        if isinstance(options, str):
            _write(1, options)
            return Code.OK
    except Exception as error:
        refused = failure(error, submitted=False)
        if _options.speaks(words, terminal=os.isatty(2)):
            _complain(refused)
        return refused.code
    with _logging.logging_to(options.verbosity, options.syslog):
        try:
            _work(options, progress, signals)
            signals.settle(Code.OK)
        except BaseException as error:
            failed = _ended(error, progress, signals)
            signals.settle(failed.code)
            logger.error("%s", failed)  # noqa: TRY400  # the text says all
            if failed.code is Code.UNEXPECTED:
                logger.debug("it was raised here:\n%s", "".join(traceback.format_tb(error.__traceback__)))
            if not options.verbosity and not options.quiet and os.isatty(2):
                _complain(failed)
            return failed.code
    return Code.OK


def _work(options: Options, progress: Progress, signals: Signals) -> None:
    from remctl.jobs.headless import _running, _secret  # here, since the libraries that they need may be missing

    async def cancellable() -> Job:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with signals.cancelling(lambda: loop.call_soon_threadsafe(task.cancel)):
            return await _running.work(options, progress, lock, password)

    with _lock.held(options) as lock:
        password = None
        if options.user is not None and options.secret is not None and _secret.missing(options.secret):
            password = _secret.ask(options.user)
        asyncio.run(cancellable())


def _ended(error: BaseException, progress: Progress, signals: Signals) -> HeadlessError:
    """What a run has ended with."""
    if signals.number is not None:
        goes_on = "" if progress.job is None else f"; job {progress.job.id} goes on"
        return HeadlessError(f"ended by {signals.name}{goes_on}", code=signals.code, job=progress.job)
    if isinstance(error, Exception):
        return failure(error, submitted=progress.submitted, job=progress.job)
    return HeadlessError(f"ended by {type(error).__name__}", code=signals.code, job=progress.job)


# What is said


def _complain(error: HeadlessError) -> None:
    with contextlib.suppress(OSError):  # there is nobody left to tell
        _write(2, f"{PROGRAM}: {error}\n")


def _write(number: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(number, data) :]
