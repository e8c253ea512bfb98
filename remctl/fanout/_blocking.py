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
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from remctl._face import Word
from remctl.exceptions import RemctlError
from remctl.fanout import aio
from remctl.fanout._collecting import Progress
from remctl.fanout._engine import CANCELLED, STOPPED
from remctl.fanout._hosts import Host
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
        self._thread = _LoopThread(run)
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
            taken = self._taken
            if not (taken or self._over):
                try:
                    taken.extend(self._thread.results())
                except BaseException:
                    self.close()
                    raise
                if not taken:
                    self.close()
            if self._over:
                raise StopIteration
            return taken.popleft()

    # How far it is, and how it ends

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._run.progress

    @property
    def under_way(self) -> list[tuple[Host, bool]]:
        """The hosts in work now, and whether the command was sent, those first that have been for the longest time.

        To the workers of an executor the command may have been sent.
        """
        return self._run.under_way

    def stop(self, reason: str = STOPPED) -> None:
        """Send no further command: those that were sent come to their end, the other hosts are SKIPPED.

        Args:
            reason: what the errors of these say; the first reason stands.
        """
        self._thread.tell(partial(self._run.stop, reason))

    def cancel(self, reason: str = CANCELLED) -> None:
        """Send no further command, and cut what is under way.

        Those hosts are CANCELLED; `may_be_running` says to which the command was sent.  The results are still there to
        be taken.

        Args:
            reason: what the errors of these, and of those that are SKIPPED, say.
        """
        self._thread.tell(partial(self._run.cancel, reason))

    def close(self) -> None:
        """Cut what is under way, and wait until nothing of it is left; results that were not taken are lost."""
        if os.getpid() != self._pid:
            return
        self._thread.end()
        self._over = True
        self._taken = deque()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._over or not self._thread.begun or os.getpid() != self._pid:
            return
        warnings.warn("a run on many hosts was dropped before its end: use `with`", ResourceWarning, 2, self)
        self._thread.end()


class _LoopThread:
    """The event loop and the thread of a run.

    The thread is a daemon: a program that ends with a run under way is not held up by it.

    There is no lock, which a signal handler could wait for while what it interrupts holds it.  Instead, whoever has
    something for the other side puts it there first, and looks whether the other side is there only then.
    """

    def __init__(self, run: aio.Run) -> None:
        self._run = run
        self._calls: deque[Callable[[], object]] = deque()
        self._answers: SimpleQueue[list[HostResult] | Exception | None] = SimpleQueue()
        self._answering: asyncio.Task[None] | None = None
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    # For the other threads

    @property
    def begun(self) -> bool:
        """Whether there is a thread, or was one."""
        return self._thread is not None

    def results(self) -> list[HostResult]:
        """Wait for results, and return all that are there; an empty list at the end.  One thread at a time."""
        if self._thread is None:
            self._begin()
        self.tell(self._ask)
        answer = self._answers.get()
        if answer is None:
            self._answers.put(None)
            if self._error is not None:
                raise self._error
            return []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(self, call: Callable[[], object]) -> None:
        """Have a function called in the loop, as soon as there is one; never, when it has ended."""
        self._calls.append(call)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._call)

    def end(self) -> None:
        """Have the run cut, and the thread end."""
        self.tell(self._end.set)

    def join(self) -> None:
        """Wait for the thread, unless this is it."""
        if self._thread is not None and self._thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):  # Ctrl-C came while it was started: it ends by itself
                self._thread.join()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._work, name="remctl run", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            raise RemctlError(f"no thread could be started: {error}") from None

    # In the thread

    def _work(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as error:  # who asks for results gets it
            self._error = error
            if self._loop is None and isinstance(error, OSError):
                self._error = RemctlError(
                    f"no event loop could be made: {error.strerror}",
                    hint="see to it that descriptors are free: ulimit -n",
                )
        self._answers.put(None)

    async def _main(self) -> None:
        async with self._run:
            self._loop = asyncio.get_running_loop()
            self._call()
            await self._end.wait()

    def _call(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _ask(self) -> None:
        self._answering = asyncio.ensure_future(self._answer())

    async def _answer(self) -> None:
        try:
            self._answers.put(await self._run.results())
        except Exception as error:
            self._answers.put(error)


def run_many(hosts: object, command: Iterable[Word] | None, arguments: Arguments) -> Run:
    """Make a run; see `remctl.run_many`."""
    return Run(aio.Run(*check(hosts, command, arguments)))
