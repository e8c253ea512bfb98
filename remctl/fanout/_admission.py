"""How many hosts a run has in work, and how fast it begins with them; less where machine or servers have enough.

The engine asks before it begins with a host, and says what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
from pathlib import Path
from typing import Final

from remctl.fanout._visit import Visit

DESCRIPTORS: Final = 4
"""Descriptors that a host in the handshake may need: its socket, and those of the name service, the KDC, a file."""

SUSPICIOUS: Final = 0.25
"""The share of handshakes that servers end early from which on this is put down to their number."""

MEMORY: Final = 32
"""How many handshakes that share is of, roughly: the last ones."""

CATCH_UP: Final = 0.05
"""Seconds for which the rate of starts makes up, when the event loop is late."""


class Limit:
    """A number that is lowered when it shows to be too high, and grows again when it has been kept for some time."""

    __slots__ = ("_ceiling", "_row", "now")

    def __init__(self, ceiling: int) -> None:
        self.now = self._ceiling = ceiling
        self._row = 0

    @property
    def lowered(self) -> bool:
        """Whether it is lower than it was asked to be."""
        return self.now < self._ceiling

    def lower(self, number: int) -> None:
        """Lower it to a number, at least 1."""
        self.now = max(1, min(self.now, number))
        self._row = 0

    def kept(self) -> None:
        """Note a success; after a row of them it grows by one."""
        if self.lowered:
            self._row += 1
            if self._row >= self.now:
                self.now += 1
                self._row = 0


class Admission:
    """See the module.

    Args:
        sockets: hosts in work at the same time.
        handshakes: hosts that are being connected to, at the same time.
        running: commands that run at the same time.
        starts: hosts to begin with per second; None is as many as there are.
    """

    def __init__(self, *, sockets: int, handshakes: int, running: int, starts: float | None) -> None:
        self.sockets = Limit(sockets)
        self.handshakes = Limit(handshakes)
        self.working = 0
        self.handshaking = 0
        self._interval = 0.0 if starts is None else 1 / starts
        self._next = 0.0
        self._turns = asyncio.Semaphore(running)
        self._running: set[Visit] = set()
        self._ended_early = 0.0
        self._lowered = 0.0
        self._short = -math.inf

    def fit(self, free: int | None) -> None:
        """Stay within the descriptors that this process may still open; None is any number."""
        if free is None or free >= self.sockets.now + (DESCRIPTORS - 1) * self.handshakes.now:
            return
        handshakes = max(1, min(self.handshakes.now, free // (2 * DESCRIPTORS)))
        sockets = max(1, min(self.sockets.now, free - (DESCRIPTORS - 1) * handshakes))
        self.handshakes, self.sockets = Limit(handshakes), Limit(sockets)

    def room(self) -> bool:
        """Whether one more host may be in work."""
        return self.working < self.sockets.now and self.handshaking < self.handshakes.now

    def due(self) -> float:
        """Return the time from which on the next host may be begun with."""
        return self._next

    def begin(self, now: float) -> None:
        """Note that a host is begun with."""
        self.working += 1
        self.handshaking += 1
        if self._interval:
            self._next = max(self._next, now - CATCH_UP) + self._interval

    def connected(self) -> None:
        """Note that a host is connected."""
        self.handshaking -= 1
        self.sockets.kept()
        self.handshakes.kept()
        self._ended_early -= self._ended_early / MEMORY

    async def turn(self, visit: Visit) -> None:
        """Wait until one more command may run."""
        await self._turns.acquire()
        self._running.add(visit)

    def end(self, visit: Visit) -> None:
        """Note that a host is not in work any more."""
        self.working -= 1
        if visit.opened is None:
            self.handshaking -= 1
        if visit in self._running:
            self._running.remove(visit)
            self._turns.release()

    def short(self, now: float) -> bool:
        """Note that this machine had too little for a host, after its end; return whether less can be done at a time.

        Where nothing else is in work, doing less would free nothing.
        """
        self._short = now
        self.sockets.lower(self.working)
        self.handshakes.lower(self.handshaking)
        return self.working > 0

    def was_short(self, visit: Visit) -> bool:
        """Whether this machine had too little for a host while a visit to another one went on, or has still."""
        return visit.begun <= self._short or self.sockets.lowered

    def scarce(self) -> bool:
        """Whether there are so few descriptors left that there may have been too few a moment ago."""
        free = free_descriptors()
        return free is not None and free < DESCRIPTORS * (self.handshaking + 1)

    def ended_early(self, visit: Visit, now: float) -> bool:
        """Note that a server ended a handshake, after its end; return whether so many at a time were the reason.

        Some servers end what they do not like.  Only if many do, it is taken for a matter of how many there are.
        """
        self._ended_early += (1 - self._ended_early) / MEMORY
        if self._ended_early > SUSPICIOUS and self.handshaking and visit.begun >= self._lowered:
            self.handshakes.lower(self.handshakes.now // 2)
            self._lowered = now
        return self.handshakes.lowered


def free_descriptors() -> int | None:
    """Return how many descriptors this process may still open; None if that is not known, or without limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError):
        return None if limit == resource.RLIM_INFINITY else limit - len(list(Path("/proc/self/fd").iterdir()))
    return None
