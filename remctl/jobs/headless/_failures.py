"""What went wrong, as the error that carries its exit code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from remctl import _kerberos
from remctl._arguments import printable
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlConnectionError,
    RemctlError,
    RemctlProtocolError,
    RemctlTimeoutError,
)
from remctl.jobs.client import (
    Job,
    JobDeniedError,
    JobError,
    JobParameterError,
    JobTimeoutError,
    NoSuchScriptError,
)
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.jobs.states import JobState, Reason
from remctl.types import ErrorCode

EXTRA: Final = "pip install 'remctl-cffi[headless]'"

_ENDED: Final = (Reason.LOST, Reason.CRASHES)

_LONG: Final = 8
"""Characters of a text that is hidden wherever it stands; shorter ones may be a part of any word."""


def failure(error: Exception, *, submitted: bool, job: Job | None = None, hidden: Iterable[str] = ()) -> HeadlessError:
    """Return what is raised for an error.

    Args:
        error: what was raised below.
        submitted: whether the job may have been submitted.
        job: the job as it was last heard of; None if nothing was heard of one.
        hidden: texts that may be secret, which a server that complains about them shows.
    """
    if isinstance(error, HeadlessError):
        error.job = error.job or job
        return error
    code = _code(error, submitted)
    if isinstance(error, JobTimeoutError) and job is not None and error.state is not None:
        job = job._replace(state=error.state)
    if isinstance(error, RemctlError):
        evidence: dict[str, Any] = {
            name: getattr(error, name) for name in ("host", "port", "principal", "command", "sent", "hint")
        }
        return HeadlessError(_without(error.reason, hidden), code=code, job=job, **evidence)
    if isinstance(error, ImportError):
        *_, first = _chain(error)
        return HeadlessError(f"a library is missing: {first}", code=code, job=job, hint=EXTRA)
    text = f"{type(error).__name__}: {_without(str(error), hidden)}".rstrip(": ")
    return HeadlessError(text, code=code, job=job)


def checked(job: Job) -> Job:
    """Return a job that is over, if it ended well.

    Raises:
        HeadlessError: it did not.
    """
    if job.state is JobState.SUCCESS:
        return job
    gone = job.state in (JobState.STOPPED, JobState.ABORTED) or job.reason in _ENDED
    raise HeadlessError(f"job {job.id} is {ending(job)}", code=Code.ENDED if gone else Code.SERVER, job=job)


def ending(job: Job) -> str:
    """Return how a job stands, in words: Failed (exit 3)."""
    number = job.exit_status if job.reason is Reason.EXIT else job.signal if job.reason is Reason.SIGNAL else None
    reason = " ".join(str(each) for each in (job.reason, number) if each is not None)
    return job.state.name.title() + (f" ({reason})" if reason else "")


def reached(error: BaseException) -> bool:
    """Return whether a command may have reached the server before its connection was lost, or the one before that."""
    return any(isinstance(each, RemctlError) and each.sent for each in _chain(error))


def _code(error: Exception, submitted: bool) -> Code:
    away = Code.ENDED if submitted else Code.CONNECTION
    match error:
        case NoSuchScriptError() | JobParameterError(parameter="module"):
            return Code.NO_MODULE
        case JobParameterError():
            return Code.PARAMETER
        case JobDeniedError() | RemctlCommandError(code=ErrorCode.ACCESS):
            return Code.AUTHENTICATION
        case JobTimeoutError():
            return Code.TIMEOUT
        case RemctlCommandError(code=ErrorCode.UNKNOWN_COMMAND):
            return Code.NO_MODULE
        case RemctlAuthenticationError():
            return away if _kerberos.unreachable(error) else Code.AUTHENTICATION
        case RemctlConnectionError() | RemctlTimeoutError():
            return away
        case JobError() | RemctlCommandError():
            return Code.SERVER
        case RemctlProtocolError():
            return Code.SERVER if submitted else Code.CONNECTION
    return Code.UNEXPECTED


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without(text: str, hidden: Iterable[str]) -> str:
    """A text in which others, as far as servers show them, which is in quotes, are left out."""
    for each in hidden:
        data = each.encode("utf-8", "surrogatepass")
        for shown in (each, printable(data, None), printable(data)):
            text = text.replace(f"'{shown}'", "'...'")
            if len(shown) >= _LONG:
                text = text.replace(shown, "...")
    return text
