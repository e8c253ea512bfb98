"""Calls that may block, on threads that can be left behind.

The loop's own executor would do, but its threads are few, shared with the program, and waited for when the program
ends: a KDC that does not answer would hold all three up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

from remctl.exceptions import RemctlError

T = TypeVar("T")

Job = Callable[[], Callable[[], object]]
"""Does the work, and returns what tells of it."""

WAITING: Final = 0.03
"""Seconds after which a call is taken to wait for something, rather than to compute."""

IDLE: Final = 10
"""Seconds after which a thread without work ends."""


_all: WeakSet[Threads] = WeakSet()


def _forget_all() -> None:
    for threads in _all:
        threads.forget()


os.register_at_fork(after_in_child=_forget_all)


class _Outbox:
    """What threads have for an event loop, which is woken once for all that has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    def put(self, call: Callable[[], None]) -> None:
        """Have a function called in the event loop; on any thread."""
        self._calls.append(call)
        loop = self._loop()
        if loop is not None and not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._woken = False  # before the look for calls, so that none is overlooked
        while self._calls:
            self._calls.popleft()()


_outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Outbox] = WeakKeyDictionary()


def _outbox_of(loop: asyncio.AbstractEventLoop) -> _Outbox:
    found = _outboxes.get(loop)
    if found is None:
        found = _outboxes[loop] = _Outbox(loop)
    return found


class Threads:
    """Daemon threads that take calls in order; started when they are needed, ended when they are not.

    Threads that compute hold each other up, and the event loop with them, since one at a time runs Python; threads that
    wait for the network do not.  A call that has not returned after `WAITING` seconds counts as one that waits.

    Args:
        limit: calls at the same time; the others wait for their turn, within the time limits of those who made them.
        computing: how many of them may compute.
    """

    def __init__(self, limit: int, computing: int = 4) -> None:
        self._limit = limit
        self._computing = computing
        self.forget()
        _all.add(self)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function on one of the threads and return what it returns.

        Cancelling this is safe: a call that has not begun is dropped, one that has is left to its end, unheard.
        """
        return await self.submit(function, *arguments)

    def submit(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Have a function called on one of the threads; cancelling the future is safe, as it is with `run`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        tell = _outbox_of(loop).put

        def deliver(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only if T is

        def job() -> Callable[[], object]:
            if future.cancelled():
                return lambda: None
            try:
                result = function(*arguments)
            except StopIteration as error:  # which no future takes
                return partial(tell, partial(deliver, None, RuntimeError(f"{function!r} raised {error!r}")))
            except BaseException as error:
                return partial(tell, partial(deliver, None, error))
            return partial(tell, partial(deliver, result, None))

        self._put(job, loop)
        return future

    def forget(self) -> None:
        """Begin anew; in a forked child, which has none of its parent's threads."""
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._count = 0
        self._begun: dict[_Worker, float] = {}  # when
        self._watching: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def _put(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._idle:
                self._idle.pop().give(job)
                return
            self._waiting.append(job)
            try:
                self._grow()
            except RuntimeError as error:
                if not self._count:  # else one of the others will come to it
                    self._waiting.pop()
                    raise RemctlError(f"no thread could be started: {error}") from None
            if loop not in self._watching:
                self._watching.add(loop)
                loop.call_later(WAITING, self._watch, loop)

    def _grow(self) -> None:
        """Start threads for the calls that wait for their turn, if so many may compute."""
        now = time.monotonic()
        computing = sum(now - begun < WAITING for begun in list(self._begun.values()))
        beginning = self._count - len(self._idle) - len(self._begun)
        while beginning < len(self._waiting) and self._count < self._limit and computing + beginning < self._computing:
            threading.Thread(target=self._work, name="remctl", daemon=True).start()
            self._count += 1
            beginning += 1

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """As long as calls wait for their turn, see whether those before them only wait, too."""
        with self._lock:
            if not self._waiting:
                self._watching.discard(loop)
                return
            with contextlib.suppress(RuntimeError):  # no thread could be started; those that are there will do
                self._grow()
        loop.call_later(WAITING, self._watch, loop)

    def _work(self) -> None:
        worker = _Worker()
        tell: Callable[[], object] | None = None
        while True:
            job = self._next(worker)
            if tell is not None:
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    tell()
                tell = None
            if job is None and (job := self._rest(worker)) is None:
                return
            self._begun[worker] = time.monotonic()
            tell = job()
            job = None  # and what it refers to is let go, while the thread waits
            del self._begun[worker]

    def _next(self, worker: _Worker) -> Job | None:
        """Take the job that waits longest; if there is none, the worker is idle from here on."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(worker)
            return None

    def _rest(self, worker: _Worker) -> Job | None:
        """Wait for a job; None when there has been none for so long that the thread may end."""
        if not worker.wait(IDLE):
            with self._lock:
                if worker in self._idle:
                    self._idle.remove(worker)
                    self._count -= 1
                    return None
            worker.wait(-1)  # it was given one at that very moment
        return worker.take()


class _Worker:
    """A thread that waits for a job, and is woken for it alone."""

    def __init__(self) -> None:
        self._woken = threading.Lock()
        self._woken.acquire()
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        """Wake it with a job."""
        self._job = job
        self._woken.release()

    def wait(self, timeout: float) -> bool:
        """Wait for a job so many seconds, or for ever if it is -1; return whether there is one."""
        return self._woken.acquire(timeout=timeout)

    def take(self) -> Job | None:
        """Return the job."""
        job, self._job = self._job, None
        return job


network: Final = Threads(32)
"""For calls that may wait for a KDC or a name service."""

local: Final = Threads(4)
"""For calls that read or write files, and must not wait behind those."""
