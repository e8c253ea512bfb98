"""Between whoever makes results and whoever takes them: order, counts, and how many may wait to be taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from remctl.fanout._results import HostResult, HostState

BACKLOG: Final = 1000
"""Results that may wait to be taken before no further host is begun with."""

BACKLOG_SIZE: Final = 64 * 1024 * 1024
"""Bytes of output that may wait likewise."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    states: Mapping[HostState, int]
    """How many hosts have come to each state; all states are there."""
    working: int
    """Hosts that are in work now."""
    waiting: int
    """Hosts that wait for their next attempt."""
    total: int | None
    """How many hosts there are; None if the run cannot know."""
    stopped: str | None = None
    """What keeps further hosts from being begun with: "max_fail", "canary", "deadline", "stop", "cancel", or an
    "executor" that takes nothing any more; None if nothing does."""

    @property
    def done(self) -> int:
        """How many hosts have come to an end."""
        return sum(self.states.values())


class Results:
    """Results on their way to the consumer.

    Args:
        ordered: whether they are handed out in the order of the hosts.
        room: called when there is room for results again, after there was none.
    """

    failures: int
    """Hosts that were begun with and are not OK."""

    def __init__(self, *, ordered: bool, room: Callable[[], None]) -> None:
        self.states = dict.fromkeys(HostState, 0)
        self.failures = 0
        self._ready: deque[HostResult] = deque()
        self._held: dict[int, HostResult] | None = {} if ordered else None
        self._next = 0
        self._size = 0
        self._room = room
        self._ended = False
        self._error: BaseException | None = None
        self._consumer: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether so many wait that no further host may be begun with."""
        return len(self._ready) + len(self._held or ()) >= BACKLOG or self._size >= BACKLOG_SIZE

    @property
    def ended(self) -> bool:
        """Whether there will be no more of them."""
        return self._ended

    @property
    def awaited(self) -> bool:
        """Whether a task waits for the next one; it must be the only one."""
        return self._consumer is not None

    def put(self, result: HostResult) -> None:
        """Take a result."""
        self.states[result.state] += 1
        if result.state not in (HostState.OK, HostState.SKIPPED):
            self.failures += 1
        self._size += len(result.stdout) + len(result.stderr)
        if self._held is None:
            self._ready.append(result)
        else:
            self._held[result.index] = result
            while (following := self._held.pop(self._next, None)) is not None:
                self._ready.append(following)
                self._next += 1
        if self._ready:
            self._wake()

    def end(self, error: BaseException | None) -> None:
        """Note that there will be no more of them; an error is raised when the last one has been taken."""
        self._ended = True
        self._error = error
        self._wake()

    async def take(self) -> HostResult | None:
        """Wait for the next result and return it; None at the end."""
        if not await self._some():
            return None
        full = self.full
        result = self._ready.popleft()
        self._size -= len(result.stdout) + len(result.stderr)
        if full and not self.full:
            self._room()
        return result

    async def take_all(self) -> list[HostResult]:
        """Wait until there are results, and return all that are there; an empty list at the end."""
        if not await self._some():
            return []
        full = self.full
        results = list(self._ready)
        self._ready.clear()
        self._size -= sum(len(result.stdout) + len(result.stderr) for result in results)
        if full:
            self._room()
        return results

    async def _some(self) -> bool:
        while not self._ready:
            if self._ended:
                if (error := self._error) is not None:
                    self._error = None
                    raise error
                return False
            self._consumer = asyncio.get_running_loop().create_future()
            try:
                await self._consumer
            finally:
                self._consumer = None
        return True

    def _wake(self) -> None:
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)
