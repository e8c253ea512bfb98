"""A run for asyncio: `remctl.aio.run_many` makes it."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Protocol, Self

from remctl._face import Word
from remctl.exceptions import RemctlError
from remctl.fanout._attempt import RemctlTransport, credentials_of
from remctl.fanout._collecting import Progress, Results
from remctl.fanout._engine import Engine
from remctl.fanout._hosts import Hosts
from remctl.fanout._options import Arguments, Options, check
from remctl.fanout._results import HostResult
from remctl.fanout._shards import Shards
from remctl.fanout._tickets import Tickets
from remctl.fanout._visit import Transport

__all__ = ["Run"]


class Work(Protocol):
    """What does the work of a run: the engine, or an executor's workers."""

    results: Results

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def cancel(self) -> None: ...
    async def close(self) -> None: ...
    @property
    def progress(self) -> Progress: ...


class Run(AsyncIterator[HostResult]):
    """A command on many hosts, under way: an asynchronous iterator over what became of each, and a context manager.

    It begins when the first result is asked for.  The end of `async with`, and cancelling the wait for a result, cut
    what is under way, and return when nothing of it is left; a run that is dropped without is cut too, with a
    `ResourceWarning`.  It belongs to the event loop that it was begun in.
    """

    def __init__(self, hosts: Hosts, options: Options, transport: Transport | None = None) -> None:
        self._options = options
        self._tickets: Tickets | None = None
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._work: Work
        if options.executor is not None:
            self._work = Shards(hosts, hosts.total, options)
            return
        if transport is None:
            self._tickets = Tickets(credentials_of(options))
            transport = RemctlTransport(options, self._tickets.lease)
        self._work = Engine(hosts, hosts.total, options, transport)

    # Results

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HostResult:
        if not self._over:
            self._check()
            try:
                await self._begin()
                if (result := await self._work.results.take()) is not None:
                    return result
            except BaseException:
                await self.aclose()
                raise
            await self.aclose()
        raise StopAsyncIteration

    async def results(self) -> list[HostResult]:
        """Wait until there are results, and return all that are there; an empty list at the end.

        Raises, and may be cancelled, as the iterator.
        """
        if self._over:
            return []
        self._check()
        try:
            await self._begin()
            results = await self._work.results.take_all()
        except BaseException:
            await self.aclose()
            raise
        if not results:
            await self.aclose()
        return results

    # How far it is, and how it ends

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._work.progress

    def stop(self) -> None:
        """Begin with no further host: what is under way comes to its end, the others are SKIPPED."""
        self._work.stop()

    def cancel(self) -> None:
        """Begin with no further host, and cut what is under way.

        Those hosts are CANCELLED; `may_be_running` says to which the command was sent.  The results are still there to
        be taken.
        """
        self._work.cancel()

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

    async def _begin(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            if self._tickets is not None:
                await self._tickets.check(self._options.deadline)
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
