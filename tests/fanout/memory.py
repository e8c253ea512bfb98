"""A transport without a network, and an event loop whose time passes at once, for tests of what the engine decides."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

from remctl.exceptions import RemctlConnectionError, RemctlError
from remctl.fanout import HostResult
from remctl.fanout._options import check
from remctl.fanout._visit import Visit
from remctl.fanout.aio import Run

P = ParamSpec("P")

Deed = int | Exception | Callable[[Visit], Awaitable[int]]
"""What a host does: an exit status, an error before the command is sent, or a coroutine function after connecting."""


class Memory:
    """A transport: every host exits with 0 unless it is told to do something else.

    Args:
        deeds: what hosts do, by name: one thing, or a list of what they do one time after the other.
        pause: seconds that connecting takes, and running.
    """

    def __init__(self, deeds: dict[str, Deed | list[Deed]] | None = None, *, pause: float = 0.0) -> None:
        self._deeds = {name: each if isinstance(each, list) else [each] for name, each in (deeds or {}).items()}
        self._pause = pause
        self.visits: list[str] = []
        """Whom it was at, in order."""
        self.sent: list[str] = []
        """To whom it sent the command, in order."""
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        """When it began with each host."""
        self.now: Counter[str] = Counter()
        """How many visits are in work, connecting and running."""
        self.most: Counter[str] = Counter()

    async def __call__(self, visit: Visit) -> None:
        """Make a visit."""
        name = visit.target.host.name
        deeds = self._deeds.get(name, [0])
        deed = deeds.pop(0) if len(deeds) > 1 else deeds[0]
        self.visits.append(name)
        self.times[name].append(asyncio.get_running_loop().time())
        with self._counted("work"):
            with self._counted("connecting"):
                await asyncio.sleep(self._pause)
                if isinstance(deed, Exception):
                    raise deed
            await visit.connected(4373)
            with self._counted("running"):
                visit.sending()
                self.sent.append(name)
                if callable(deed):
                    visit.status = await deed(visit)
                else:
                    await asyncio.sleep(self._pause)
                    visit.status = deed

    def _counted(self, what: str) -> _Counted:
        return _Counted(self, what)


class _Counted:
    def __init__(self, memory: Memory, what: str) -> None:
        self._memory = memory
        self._what = what

    def __enter__(self) -> None:
        self._memory.now[self._what] += 1
        self._memory.most[self._what] = max(self._memory.most[self._what], self._memory.now[self._what])

    def __exit__(self, *_: object) -> None:
        self._memory.now[self._what] -= 1


def refused() -> RemctlError:
    """Make the error of a host that refuses connections."""
    return RemctlConnectionError("cannot connect: Connection refused", errno=111)


def run(hosts: Any, memory: Memory | None = None, **arguments: Any) -> Run:
    """Make a run over a transport in memory."""
    return Run(*check(hosts, arguments.pop("command", ["x"]), arguments), memory or Memory())  # type: ignore[arg-type]


async def all_of(run: Run) -> list[HostResult]:
    """Return all results."""
    async with run:
        return [result async for result in run]


def states(results: list[HostResult]) -> dict[str, str]:
    """Return what became of each host."""
    return {result.host: str(result.state) for result in results}


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: time goes on instead."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, and let the time pass."""
        assert timeout is not None, "the run waits for something that never comes"
        self.passed += max(timeout, 0.0)
        return super().select(0)


class TimelessLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        """Return the seconds that have passed, as far as the loop is concerned."""
        return 1000.0 + self._passing.passed


def timeless(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop in which waiting takes no time, and which is empty afterwards."""

    @functools.wraps(test)
    def call(*arguments: P.args, **named: P.kwargs) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            await test(*arguments, **named)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(debug=False, loop_factory=TimelessLoop) as runner:
            runner.run(main())
        assert not complaints

    return call
