"""Tickets for very many hosts from a real KDC: what each costs, with few hosts and with many.

Those of `remctl.fanout` are to cost the same however many there are.  Beside them is what grows: one ticket cache for
all hosts, in memory or in a file, each with as many hosts as it can bear.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from statistics import mean
from typing import Any, Final

from goals import Goal

from remctl.aio._offload import network
from remctl.fanout._tickets import Tickets
from remctl.security import Credentials, InitiatorContext
from remctl.testing import Sandbox

Lease = Callable[[], AbstractAsyncContextManager[Credentials]]
"""Gives credentials for one handshake."""

NAMES: Final = ("fanout-tickets",)

HOSTS: Final = {"fanout": (500, 8_000), "memory": (500, 2_000), "file": (250, 1_000)}
"""How many hosts there are, few and many."""

ROUNDS: Final = {"fanout": 3, "memory": 1, "file": 1}
"""The best of so many counts: what else the machine does only makes it slower."""

RUNNING: Final = 32
"""Handshakes at the same time."""

LEASES: Final = 10_000

RISE: Final = 1.3
"""How many times as much a ticket may cost with many hosts as with few."""

LEASE: Final = 50.0
"""Microseconds that a lease may cost, besides what the KDC does."""


class ManyTickets:
    """One run of this benchmark.

    Args:
        quick: whether to do it with a tenth of the hosts.
    """

    def __init__(self, quick: bool) -> None:
        self._part = 10 if quick else 1
        self.results: dict[str, Any] = {}
        self.goals: list[Goal] = []

    def run(self, name: str) -> None:
        """Measure one of `NAMES`, print it, and add it to the results."""
        print(f"\nTickets from a KDC, {RUNNING} handshakes at once: ms per host")
        with Sandbox() as box:
            principals = [f"host/ticket-{number}" for number in range(max(itertools.chain(*HOSTS.values())))]
            _add(box, principals)
            found: dict[str, Any] = {}
            for kind, counts in HOSTS.items():
                few, many = (count // self._part for count in counts)
                found[kind] = costs = _costs(box, kind, principals[:few], principals[:many])
                rise = costs[many] / costs[few]
                print(f"  {kind:7}", *(f"{count:5,} hosts: {cost:6.3f}" for count, cost in costs.items()), end="")
                print(f"  ({rise:.2f} x)", flush=True)
                if kind == "fanout":
                    title = f"tickets for {many:,} hosts, each, against {few:,}"
                    self.goals.append(Goal(title, rise, RISE, False, "x"))
            found["lease"] = asyncio.run(_lease_alone())
        print(f"  a lease alone: {found['lease']:.1f} us")
        self.goals.append(Goal("tickets: a lease, besides the KDC", found["lease"], LEASE, False, "us"))
        self.results[name] = found


def _costs(box: Sandbox, kind: str, few: Sequence[str], many: Sequence[str]) -> dict[int, float]:
    """Return what each ticket costs with few and with many hosts; of the few there are runs until they are as many."""
    found: dict[int, list[float]] = {len(few): [], len(many): []}
    for _ in range(ROUNDS[kind]):
        runs = [asyncio.run(_cost(box, kind, few)) for _ in range(len(many) // len(few))]
        found[len(few)].append(mean(runs))
        found[len(many)].append(asyncio.run(_cost(box, kind, many)))
    return {count: min(costs) for count, costs in found.items()}


async def _cost(box: Sandbox, kind: str, principals: Sequence[str]) -> float:
    """Return the milliseconds that each of so many tickets takes."""
    hosts = iter(principals)
    async with _LEASES[kind](box) as lease:

        async def work() -> None:
            for host in hosts:
                async with lease() as credentials:
                    await network.run(_step, credentials, host)

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(RUNNING)))
        return (time.perf_counter() - begin) / len(principals) * 1e3


def _step(credentials: Credentials, host: str) -> None:
    """Do as much of a handshake as the KDC has to do with."""
    InitiatorContext("localhost", host, credentials).step(None)


async def _lease_alone() -> float:
    """Return the microseconds that a lease takes with which nothing is done."""
    async with Tickets(Credentials.default()) as tickets:
        await tickets.check()
        begin = time.perf_counter()
        for _ in range(LEASES):
            async with tickets.lease():
                pass
        return (time.perf_counter() - begin) / LEASES * 1e6


@contextlib.asynccontextmanager
async def _fanout(_: Sandbox) -> AsyncIterator[Lease]:
    async with Tickets(Credentials.default()) as tickets:
        yield tickets.lease


@contextlib.asynccontextmanager
async def _memory(_: Sandbox) -> AsyncIterator[Lease]:
    async with Tickets(Credentials.default(), leases=10**9) as tickets:
        yield tickets.lease


@contextlib.asynccontextmanager
async def _file(box: Sandbox) -> AsyncIterator[Lease]:
    copy = shutil.copy(box.ccache, f"{box.ccache}-copy")
    yield lambda: contextlib.nullcontext(Credentials.from_ccache(copy))


_LEASES: Final = {"fanout": _fanout, "memory": _memory, "file": _file}


def _add(box: Sandbox, principals: Sequence[str]) -> None:
    """Add principals to the realm, by one process."""
    commands = "".join(f"addprinc -randkey {principal}\n" for principal in principals)
    subprocess.run(["kadmin.local"], input=commands, text=True, env=box.env, check=True, capture_output=True)
