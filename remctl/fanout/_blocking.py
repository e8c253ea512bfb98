"""A run for programs that block: `remctl.run_many` makes it.

The run itself is the one of asyncio, in an event loop on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from remctl._face import Word
from remctl.exceptions import RemctlError
from remctl.fanout import aio
from remctl.fanout._collecting import Progress
from remctl.fanout._options import Arguments, check
from remctl.fanout._results import HostResult

__all__ = ["Run"]


class Run(Iterator[HostResult]):
    """A command on many hosts, under way: an iterator over what became of each, and a context manager.

    It begins when the first result is asked for.  The end of `with`, and an exception such as Ctrl-C in the wait for a
    result, cut what is under way, and return when nothing of it is left; a run that is dropped without is cut too, with
    a `ResourceWarning`.  Its methods may be called in any thread; `stop` and `cancel` in signal handlers as well.
    """

    def __init__(self, run: aio.Run) -> None:
        self._run = run
        self._thread: _LoopThread | None = None
        self._taken: deque[HostResult] = deque()
        self._lock = threading.Lock()
        self._over = False
        self._pid = os.getpid()

    # Results

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> HostResult:
        if os.getpid() != self._pid:
            raise RemctlError(f"the run belongs to process {self._pid}")
        with self._lock:
            if not self._taken and not self._over:
                try:
                    self._taken.extend(self._await())
                except BaseException:
                    self.close()
                    raise
                if not self._taken:
                    self.close()
            if not self._taken:
                raise StopIteration
            return self._taken.popleft()

    def _await(self) -> list[HostResult]:
        if self._thread is None:
            self._thread = _LoopThread(self._run)
        return self._thread.results()

    # How far it is, and how it ends

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._run.progress

    def stop(self) -> None:
        """Begin with no further host: what is under way comes to its end, the others are SKIPPED."""
        self._tell(self._run.stop)

    def cancel(self) -> None:
        """Begin with no further host, and cut what is under way.

        Those hosts are CANCELLED; `may_be_running` says to which the command was sent.  The results are still there to
        be taken.
        """
        self._tell(self._run.cancel)

    def close(self) -> None:
        """Cut what is under way, and wait until nothing of it is left; results that were not taken are lost."""
        if os.getpid() != self._pid:
            return
        self._over = True
        self._taken.clear()
        if self._thread is not None:
            self._thread.end()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._over or self._thread is None or os.getpid() != self._pid:
            return
        warnings.warn("a run on many hosts was dropped before its end: use `with`", ResourceWarning, 2, self)
        self._thread.end()

    def _tell(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            call()
        else:
            self._thread.tell(call)


class _LoopThread:
    """The event loop and the thread of a run.

    The thread is a daemon: a program that ends with a run under way is not held up by it.
    """

    def __init__(self, run: aio.Run) -> None:
        self._run = run
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="remctl run", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise RemctlError(f"no thread could be started: {error}") from None

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._started.set_result(None)
        async with self._run:
            await self._end.wait()

    def results(self) -> list[HostResult]:
        """Wait for results."""
        self._started.result()
        future = asyncio.run_coroutine_threadsafe(self._run.results(), self._loop)
        return future.result()

    def tell(self, call: Callable[[], object]) -> None:
        """Have a function called in the loop, unless that has ended."""
        self._started.result()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def end(self) -> None:
        """Have the run cut, and the thread end."""
        self.tell(self._end.set)

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join()


def run_many(hosts: object, command: Iterable[Word] | None, arguments: Arguments) -> Run:
    """Make a run; see `remctl.run_many`."""
    return Run(aio.Run(*check(hosts, command, arguments)))
