"""A run for asyncio: `remctl.aio.run_many` makes it."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

from remctl._face import Word
from remctl.exceptions import RemctlError
from remctl.fanout._attempt import RemctlTransport, credentials_of
from remctl.fanout._collecting import Progress, Results
from remctl.fanout._engine import CANCELLED, STOPPED, Engine
from remctl.fanout._hosts import Host, Hosts
from remctl.fanout._options import Arguments, Options, check
from remctl.fanout._results import HostResult
from remctl.fanout._shards import Shards
from remctl.fanout._tickets import Tickets
from remctl.fanout._visit import Transport

__all__ = ["Run"]

T = TypeVar("T")


class Work(Protocol):
    """What does the work of a run: the engine, or an executor's workers."""

    results: Results

    def start(self) -> None: ...
    def stop(self, reason: str = ...) -> None: ...
    def cancel(self, reason: str = ...) -> None: ...
    async def close(self) -> None: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def under_way(self) -> list[tuple[Host, bool]]: ...


class Run(AsyncIterator[HostResult]):
    """A command on many hosts, under way: an asynchronous iterator over what became of each, and a context manager.

    It begins when the first result is asked for.  The end of `async with`, and cancelling the wait for a result, cut
    what is under way, and return when nothing of it is left; a run that is dropped without is cut too, with a
    `ResourceWarning`.  It belongs to the event loop that it was begun in.
    """

    def __init__(self, hosts: Hosts, options: Options, transport: Transport | None = None) -> None:
        self._tickets: Tickets | None = None
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._work: Work
        if options.executor is not None:
            self._work = Shards(hosts, hosts.total, options)
            return
        before = None
        if transport is None:
            self._tickets = Tickets(credentials_of(options))
            transport = RemctlTransport(options, self._tickets.lease)
            before = partial(self._tickets.check, options.deadline)
        self._work = Engine(hosts, hosts.total, options, transport, before)

    # Results

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HostResult:
        result = await self._take(self._work.results.take)
        if result is None:
            raise StopAsyncIteration
        return result

    async def results(self) -> list[HostResult]:
        """Wait until there are results, and return all that are there; an empty list at the end.

        Raises, and may be cancelled, as the iterator.
        """
        return await self._take(self._work.results.take_all) or []

    async def _take(self, take: Callable[[], Awaitable[T | None]]) -> T | None:
        if self._over:
            return None
        self._check()
        try:
            self._begin()
            taken = await take()
        except BaseException:
            await self.aclose()
            raise
        if not taken:
            await self.aclose()
        return taken

    # How far it is, and how it ends

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._work.progress

    @property
    def under_way(self) -> list[tuple[Host, bool]]:
        """The hosts in work now, and whether the command was sent, those first that have been for the longest time.

        To the workers of an executor the command may have been sent.
        """
        return self._work.under_way

    def stop(self, reason: str = STOPPED) -> None:
        """Send no further command: those that were sent come to their end, the other hosts are SKIPPED.

        Args:
            reason: what the errors of these say; the first reason stands.
        """
        self._work.stop(reason)

    def cancel(self, reason: str = CANCELLED) -> None:
        """Send no further command, and cut what is under way.

        Those hosts are CANCELLED; `may_be_running` says to which the command was sent.  The results are still there to
        be taken.

        Args:
            reason: what the errors of these, and of those that are SKIPPED, say.
        """
        self._work.cancel(reason)

    async def aclose(self) -> None:
        """Cut what is under way, and wait until nothing of it is left; results that were not taken are lost."""
        self._over = True
        try:
            await self._work.close()
        finally:
            if self._tickets is not None:
                await self._tickets.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is None or self._over or os.getpid() != self._pid or self._loop.is_closed():
            return
        warnings.warn("a run on many hosts was dropped before its end: use `async with`", ResourceWarning, 2, self)
        self._loop.call_soon_threadsafe(_abandon, self._work, self._tickets)

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise RemctlError(f"the run belongs to process {self._pid}")
        if self._loop not in (None, asyncio.get_running_loop()):
            raise RuntimeError("the run belongs to another event loop")
        if self._work.results.awaited:
            raise RuntimeError("another task waits for the next result of this run")

    def _begin(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._work.start()


def run_many(hosts: object, command: Iterable[Word] | None, arguments: Arguments) -> Run:
    """Make a run; see `remctl.aio.run_many`."""
    return Run(*check(hosts, command, arguments))


_abandoned: set[asyncio.Task[None]] = set()


def _abandon(work: Work, tickets: Tickets | None) -> None:
    """End what nobody holds any more; in the event loop."""

    async def end() -> None:
        await work.close()
        if tickets is not None:
            await tickets.close()

    task = asyncio.get_running_loop().create_task(end())
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)
