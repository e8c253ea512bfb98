"""The run of a command line, on a thread of its own: what shows its results may wait for a pager or a slow terminal.

The event loop of the run is never kept waiting by whoever shows what comes, unless output has piled up in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self

from remctl.aio import run_many
from remctl.cli._journal import Journal
from remctl.cli._targets import label
from remctl.fanout import Arguments, Host, HostResult
from remctl.types import Stream

PILE: Final = 64 * 1024 * 1024
"""Bytes of output that may wait to be shown before the run is kept waiting."""

PIECES: Final = 100_000
"""Pieces of it, and results, likewise."""

PAUSE: Final = 0.05
"""Seconds after which the run looks whether there is room for further results."""

_logger: Final = logging.getLogger("remctl")


class Output(NamedTuple):
    """A piece of output of a host."""

    host: str
    stream: Stream
    data: bytes


class Said(NamedTuple):
    """Something that the package has logged."""

    text: str


Item = Output | HostResult | Said


class Pending(NamedTuple):
    """The hosts that are in work, those first that have been for the longest time."""

    connecting: list[str]
    running: list[str]


class Work:
    """A run under way, and a context manager, whose end cuts it.

    Args:
        hosts: whom to visit; in all that comes they have the names that `label` gives.
        command: what to run.
        arguments: the arguments of the run.
        journal: where is noted with which hosts it was begun; None notes nothing.

    Raises:
        TypeError, ValueError: an argument makes no sense; nothing was sent.
    """

    error: BaseException | None
    """What ended the run, when it has ended: there is no ticket, for example; None if nothing did."""

    def __init__(
        self, hosts: Sequence[Host], command: Iterable[bytes], arguments: Arguments, journal: Journal | None
    ) -> None:
        self.error = None
        self._names = [label(host) for host in hosts]
        self._journal = journal
        hooks = Arguments(on_output=self._output, before_send=None if journal is None else self._begin)
        self._run = run_many(hosts, command, **(arguments | hooks))
        self._pile = _Pile()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pyremctl", daemon=True)
        self._handlers: list[logging.Handler] = []

    # For the thread that shows what comes

    def take(self, seconds: float) -> list[Item] | None:
        """Return what has come, after a wait of so many seconds at the most; None at the end."""
        return self._pile.take(seconds)

    def stop(self, reason: str) -> None:
        """Send no further command; may be called in a signal handler."""
        self._tell(partial(self._run.stop, reason))

    def cancel(self, reason: str) -> None:
        """Send no further command, and cut what is under way; may be called in a signal handler."""
        self._tell(partial(self._run.cancel, reason))

    @property
    def stopped(self) -> str | None:
        """What kept hosts from the command: see `Progress.stopped`."""
        return self._run.progress.stopped

    def pending(self) -> Pending:
        """Return the hosts that are in work now."""
        pending = Pending([], [])
        for host, sent in self._run.under_way:
            (pending.running if sent else pending.connecting).append(label(host))
        return pending

    def __enter__(self) -> Self:
        self._handlers, _logger.handlers = _logger.handlers, [_Heard(self._pile)]
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pile.drop()
        self.cancel("pyremctl ends")
        self._thread.join()
        _logger.handlers = self._handlers

    def _tell(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(call)

    # In the thread of the run

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        self._ready.set()
        self._pile.end()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        async with self._run as run:
            while results := await run.results():
                for result in results:
                    self._pile.put(
                        replace(result, host=self._names[result.index]), len(result.stdout) + len(result.stderr)
                    )
                while self._pile.full:
                    await asyncio.sleep(PAUSE)

    async def _begin(self, host: Host) -> None:
        assert self._journal is not None
        await self._journal.begin(label(host))

    def _output(self, host: Host, stream: Stream, data: bytes) -> None:
        self._pile.put(Output(label(host), stream, data), len(data), wait=True)


class _Pile:
    """What has come and was not shown yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._size = 0
        self._ended = self._dropped = False

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should come."""
        return not self._dropped and (self._size > PILE or len(self._items) > PIECES)

    def put(self, item: Item, size: int = 0, *, wait: bool = False) -> None:
        """Put something on it, if need be when there is room again."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not self.full)
            if self._dropped:
                return
            self._items.append(item)
            self._size += size
            if len(self._items) == 1:
                self._changed.notify_all()

    def take(self, seconds: float) -> list[Item] | None:
        """Take all of it, after a wait of so many seconds at the most; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended, seconds)
            if self._ended and not self._items:
                return None
            full = self.full
            items, self._items, self._size = self._items, [], 0
            if full:
                self._changed.notify_all()
            return items

    def end(self) -> None:
        """Note that nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Note that nobody takes anything any more."""
        with self._changed:
            self._dropped = True
            self._changed.notify_all()


class _Heard(logging.Handler):
    """Has what the package logs shown among the rest."""

    def __init__(self, pile: _Pile) -> None:
        super().__init__()
        self._pile = pile

    def emit(self, record: logging.LogRecord) -> None:
        """Put it there."""
        self._pile.put(Said(record.getMessage()))
