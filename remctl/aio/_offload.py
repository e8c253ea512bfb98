"""Calls that may block, on threads that can be left behind.

The loop's own executor would do, but its threads are few, shared with the program, and waited for when the program
ends: a KDC that does not answer would hold all three up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from remctl.exceptions import RemctlError

T = TypeVar("T")

IDLE: Final = 10
"""Seconds after which a thread without work ends."""


class Threads:
    """Daemon threads that take calls in order; started when they are needed, ended when they are not.

    Args:
        limit: calls at the same time; the others wait for their turn, within the time limits of those who made them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function on one of the threads and return what it returns.

        Cancelling this is safe: a call that has not begun is dropped, one that has is left to its end, unheard.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only if T is

        def job() -> None:
            if future.cancelled():
                return
            result, error = None, None
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(deliver, result, error)
            del result, error  # an error refers to this frame

        self._put(job)
        return await future

    def _forget(self) -> None:
        """Begin anew; in a forked child, which has none of its parent's threads."""
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle = 0
        self._count = 0

    def _put(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
            elif self._count < self._limit:
                try:
                    threading.Thread(target=self._work, name="remctl", daemon=True).start()
                except RuntimeError as error:
                    if not self._count:  # else one of the others will come to it
                        self._jobs.remove(job)
                        raise RemctlError(f"no thread could be started: {error}") from None
                else:
                    self._count += 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()
            del job  # and what it refers to, while the thread waits

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs, IDLE)
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._count -= 1
            return None


network: Final = Threads(32)
"""For calls that may wait for a KDC or a name service."""

local: Final = Threads(4)
"""For calls that compute, and read or write files; few, since those who compute hold each other up."""
