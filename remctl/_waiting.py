"""How the blocking face waits: for sockets, for locks, and for C calls that cannot be interrupted.

Every wait of a call goes through one `Waiter`, which ends it when the time limit passes or another thread closes the
session.  All waiting happens in Python, where signal handlers run and so Ctrl-C works; a C call that may block runs on
a thread of its own, which the caller can leave behind (see src_c/job.c).
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from remctl._libremctl import ffi, lib
from remctl.exceptions import RemctlError

if TYPE_CHECKING:
    from remctl._libremctl import CData

SLICE: Final = 0.1
"""Seconds between two looks at whether another thread has closed the session."""

HANGUP: Final[int] = getattr(select, "POLLRDHUP", select.POLLHUP)
"""The other side has said its last (where the system can tell)."""

READABLE: Final = select.POLLIN | HANGUP
"""Something to read, or the other side has said its last."""


class Lock(Protocol):
    """What `threading` calls a lock, re-entrant or not."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...


class Closable(Protocol):
    """What another thread may close while a call waits."""

    closing: bool


class Expired(Exception):
    """The time limit of the call passed.  Not a TimeoutError, which a signal handler of the program may raise."""


class Cancelled(Exception):
    """Another thread has closed the session that this call was waiting on."""


class Waiter:
    """One call's patience.

    Args:
        limit: seconds for the whole call, counted from now; None is without limit.
    """

    __slots__ = ("_end", "limit", "watched")

    watched: Closable | None
    """What the call works on, and another thread may close."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._end = None if limit is None else time.monotonic() + limit
        self.watched = None

    def remaining(self) -> float | None:
        """Return the seconds left: 0 once the limit has passed, None without limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def poll(self, events: Mapping[int, int], limit: float | None = None) -> dict[int, int]:
        """Wait until a descriptor is ready, and return what is, by descriptor.

        Args:
            events: what to wait for, by descriptor, in the constants of the `select` module.
            limit: seconds for this wait alone, after which nothing is returned; None leaves only the call's own limit.

        Raises:
            Expired: the call's limit passed.
            Cancelled: the session was closed from another thread.
        """
        poller = select.poll()
        for descriptor, wanted in events.items():
            poller.register(descriptor, wanted)
        mine = Waiter(limit)
        while True:
            pause = min(self.pause(), math.inf if (left := mine.remaining()) is None else left)
            if ready := poller.poll(math.ceil(pause * 1000)):
                return dict(ready)
            if left == 0:
                return {}

    def acquire(self, lock: Lock) -> None:
        """Take a lock; raises as `poll` does."""
        while not lock.acquire(timeout=self.pause()):
            pass

    def pause(self) -> float:
        """Return the seconds to wait before the next look; raises as `poll` does."""
        if self.watched is not None and self.watched.closing:
            raise Cancelled
        if self._end is None:
            return SLICE
        left = self._end - time.monotonic()
        if left <= 0:
            raise Expired
        return min(SLICE, left)

    def milliseconds(self) -> int:
        """Return the same in whole milliseconds."""
        return math.ceil(self.pause() * 1000)


def wait_for(job: CData, waiter: Waiter) -> CData:
    """Wait for a C call that blocks, on a thread of its own, and return the C struct with its results.

    Args:
        job: what one of the C functions `job_*` returned.
        waiter: the call's patience.

    The job has to be left in any case, with `session_leave` or `job_leave`.

    Raises:
        RemctlError: the system gave no thread or no descriptor.
        Expired, Cancelled: see `Waiter.poll`.
    """
    check_job(job)
    waiter.poll({job.finished: select.POLLIN})
    return job


def succeeded(session: CData, job: CData, waiter: Waiter) -> bool:
    """Wait as `wait_for` does, leave the session's job, and say what the call answered."""
    okay = bool(wait_for(job, waiter).okay)
    lib.session_leave(session)
    return okay


def check_job(job: CData) -> None:
    """Raise if a job could not be started."""
    if not job:
        raise RemctlError(f"no thread could be started: {os.strerror(ffi.errno)}")
