"""The steps of a check, and how they wait."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


class Verdict(enum.StrEnum):
    """What came of a step."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should look at it."""
    FAILED = "FAILED"
    SKIPPED = "skipped"
    """It was not tried, for want of one before it."""
    UNSEEN = "unseen"
    """It could not be looked at from here."""


class Step(NamedTuple):
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    text: str
    """What was found, in one line."""
    hint: str | None = None
    """What to do."""
    reason: str | None = None
    """For programs: what Kerberos refused for, one of `remctl.fanout`'s `AuthReason`."""


def ok(name: str, text: str) -> Step:
    """All is well."""
    return Step(name, Verdict.OK, text)


def warning(name: str, text: str, hint: str) -> Step:
    """It works."""
    return Step(name, Verdict.WARNING, text, hint)


def failed(name: str, text: str, hint: str | None, reason: str | None = None) -> Step:
    """It does not work."""
    return Step(name, Verdict.FAILED, text, hint, reason)


def skipped(name: str, text: str) -> Step:
    """Nothing was looked at."""
    return Step(name, Verdict.SKIPPED, text)


def brief(reason: str) -> str:
    """Return what Kerberos says, without what GSS-API says before it about every failure."""
    for general in _GENERAL:
        reason = reason.rpartition(general)[2]
    return reason


_GENERAL: Final = (
    "Minor code may provide more information, ",
    "No credentials were supplied, or the credentials were unavailable or inaccessible, ",
)

LATE: Final = TimeoutError
"""What `within` raises when the time is over."""


def within(limit: float, call: Callable[[], T]) -> T:
    """Return what a call that cannot be interrupted returns.

    Args:
        limit: seconds, after which the call is left behind on its thread, and `LATE` raised.
        call: which must not raise a TimeoutError itself.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(limit)
