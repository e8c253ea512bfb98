"""How the blocking face waits: for sockets, for locks, and for C calls that cannot be interrupted.

Every wait of a call goes through one `Waiter`, which ends it when the time limit passes or another thread closes the
session.  All waiting happens in Python, where signal handlers run and so Ctrl-C works; a C call that may block runs on
a thread of its own, an `Offload`, which the caller can leave behind.
"""

from __future__ import annotations

import _thread
import math
import select
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, Protocol, TypeVar

T = TypeVar("T")

SLICE: Final = 0.1
"""Seconds between two looks at whether another thread has closed the session."""

READABLE: Final = select.POLLIN | getattr(select, "POLLRDHUP", 0)
"""Something to read, or (where the system can tell) the other side has said its last."""


class Lock(Protocol):
    """What `threading` calls a lock, re-entrant or not."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...


class Expired(Exception):
    """The time limit of the call passed.  Not a TimeoutError, which a signal handler of the program may raise."""


class Cancelled(Exception):
    """Another thread has closed the session that this call was waiting on."""


class Waiter:
    """One call's patience.

    Args:
        limit: seconds for the whole call, counted from now; None is without limit.
    """

    __slots__ = ("_end", "cancelled", "limit")

    cancelled: Callable[[], bool]
    """Says whether another thread has closed the session; set by the connection that the call works on."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._end = None if limit is None else time.monotonic() + limit
        self.cancelled = _never

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
            pause = min(self._pause(), math.inf if (left := mine.remaining()) is None else left)
            if ready := poller.poll(math.ceil(pause * 1000)):
                return dict(ready)
            if left == 0:
                return {}

    def acquire(self, lock: Lock) -> None:
        """Take a lock; raises as `poll` does."""
        while not lock.acquire(timeout=self._pause()):
            pass

    def _pause(self) -> float:
        if self.cancelled():
            raise Cancelled
        left = self.remaining()
        if left == 0:
            raise Expired
        return SLICE if left is None else min(SLICE, left)


def _never() -> bool:
    return False


class Offload(Generic[T]):
    """A call on a thread of its own, which can be left behind.

    Args:
        call: what to do there.
        dispose: called on that thread at the end, if nobody is waiting for the result any more.
    """

    def __init__(self, call: Callable[[], T], dispose: Callable[[], object]) -> None:
        self._call = call
        self._dispose = dispose
        self._error: BaseException | None = None
        self._mutex = _thread.allocate_lock()
        self._finished = _thread.allocate_lock()
        self._finished.acquire()
        self._running = False
        self._abandoned = False

    def start(self) -> None:
        self._running = True
        try:
            _thread.start_new_thread(self._run, ())
        except BaseException:
            self._running = False
            raise

    def join(self, waiter: Waiter) -> T:
        """Wait for the call and return its result, or raise what it raised; raises as `Waiter.poll` does."""
        waiter.acquire(self._finished)
        if self._error is not None:
            raise self._error
        return self._result

    def abandon(self) -> bool:
        """Stop caring about the call.  Says whether it goes on, and so will dispose of its things itself."""
        with self._mutex:
            self._abandoned = self._running
            return self._running

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error
        with self._mutex:
            self._running = False
            abandoned = self._abandoned
        self._finished.release()
        if abandoned:
            self._dispose()


def offload(call: Callable[[], T], waiter: Waiter) -> T:
    """Run a call that owns nothing on a thread, and wait for its result; raises as `Offload.join` does."""
    job = Offload(call, _nothing)
    job.start()
    return job.join(waiter)


def _nothing() -> None:
    pass
