"""Runs with options, hosts, faults and moments that nobody has thought of, against the few rules that always hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import remctl
from fanout.memory import TimelessLoop, run
from remctl import Stream
from remctl.fanout import NOT_STARTED, HostResult, HostState, _engine
from remctl.fanout._engine import POSTPONED
from remctl.fanout._visit import Visit
from remctl.fanout.aio import Run

TRIABLE = sorted(set(HostState) - {HostState.OK, HostState.CANCELLED, HostState.SKIPPED})

SECONDS = st.sampled_from([0.0, 0.01, 0.3, 2.0, 50.0])


Make = Callable[[], Exception]


@dataclass
class Deed:
    """What an attempt at a host does: how long it takes to connect and to run, and how each of the two ends."""

    connecting: float
    running: float
    connect_error: Make | None
    run_error: Make | None
    status: int
    output: bytes


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing logged of the many faults of ours."""
    monkeypatch.setattr(_engine.logger, "disabled", True)


def connection(text: str, number: int | None = None) -> remctl.RemctlError:
    return remctl.RemctlConnectionError(text, errno=number)


CONNECT_FAULTS: list[Make] = [
    lambda: connection("cannot connect: Connection refused", 111),
    lambda: connection("unknown host: no such name"),
    lambda: connection("cannot connect: Too many open files", 24),
    lambda: connection("the server has closed the connection", 104),
    lambda: remctl.RemctlTimeoutError("late"),
    lambda: remctl.RemctlAuthenticationError("no"),
    lambda: remctl.RemctlProtocolError("no remctl server"),
    lambda: remctl.RemctlError("no thread could be started"),
    lambda: KeyError("a fault of ours"),
]

RUN_FAULTS: list[Make] = [
    lambda: remctl.RemctlConnectionError("lost", sent=True),
    lambda: remctl.RemctlTimeoutError("late", sent=True),
    lambda: remctl.RemctlCommandError("denied", sent=True),
    lambda: remctl.RemctlProtocolError("nonsense", sent=True),
    lambda: ValueError("a fault of ours"),
]


def one_of(faults: list[Make]) -> st.SearchStrategy[Make | None]:
    return st.one_of(st.none(), st.none(), st.sampled_from(faults))


DEEDS = st.builds(
    Deed,
    connecting=SECONDS,
    running=SECONDS,
    connect_error=one_of(CONNECT_FAULTS),
    run_error=one_of(RUN_FAULTS),
    status=st.sampled_from([0, 0, 0, 1, 255]),
    output=st.sampled_from([b"", b"words", b"x" * 50]),
)

OPTIONS = st.fixed_dictionaries(
    {"retries": st.integers(0, 3)},
    optional={
        "running": st.integers(1, 8),
        "sockets": st.integers(1, 12),
        "handshakes": st.integers(1, 8),
        "starts": st.sampled_from([0.5, 10.0, 1000.0]),
        "deadline": st.sampled_from([0.005, 1.0, 30.0]),
        "retry_on": st.sets(st.sampled_from(TRIABLE)),
        "backoff": st.sampled_from([0.0, 0.1, 40.0]),
        "max_fail": st.integers(1, 5),
        "canary": st.integers(1, 4),
        "batch": st.integers(1, 6),
        "pause": st.sampled_from([0.0, 5.0]),
        "ordered": st.booleans(),
        "max_output": st.sampled_from([0, 7, 1000]),
    },
)

MOMENTS = st.one_of(st.none(), st.tuples(st.sampled_from(["stop", "cancel", "leave"]), st.integers(0, 20), SECONDS))
"""What the caller does besides taking results, after how many of them, and how many seconds before it goes on."""


@dataclass
class World:
    """Does what the deeds say, and keeps an account of it."""

    deeds: list[list[Deed]]
    options: dict[str, Any]
    run: Run | None = None
    began: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)
    """To whom a command was sent after a stop rule, or before the canary."""

    def may_send(self, index: int) -> bool:
        """Whether a command may be sent to a host now."""
        assert self.run is not None
        progress = self.run.progress
        good = progress.states[HostState.OK]
        failed = progress.done - good - progress.states[HostState.SKIPPED]
        canary: int = self.options.get("canary", 0)
        max_fail: int = self.options.get("max_fail", failed + 1)
        if progress.stopped is not None or failed >= max_fail:
            return False
        return index < canary or good >= canary

    async def __call__(self, visit: Visit) -> None:
        """Make an attempt."""
        name = visit.target.host.name
        deeds = self.deeds[visit.target.index % len(self.deeds)]
        deed = deeds[self.began[name] % len(deeds)]
        self.began[name] += 1
        self.open["work"] += 1
        try:
            await asyncio.sleep(deed.connecting)
            if deed.connect_error is not None:
                raise deed.connect_error()
            await visit.connected(4373)
            visit.sending()
            self.sent[name] += 1
            if not self.may_send(visit.target.index):
                self.late.append(name)
            visit.output(Stream.STDOUT, deed.output)
            await asyncio.sleep(deed.running)
            if deed.run_error is not None:
                raise deed.run_error()
            visit.status = deed.status
        finally:
            self.open["work"] -= 1


async def take(running: Run, moment: tuple[str, int, float] | None) -> list[HostResult]:
    """Take the results, and do what the caller does at some moment."""
    results: list[HostResult] = []
    deed, after, pause = moment or ("", -1, 0.0)
    async with running:
        if after == 0 and deed:
            asyncio.get_running_loop().call_later(pause, act, running, deed)
        async for result in running:
            results.append(result)
            if deed and len(results) == after:
                await asyncio.sleep(pause)
                act(running, deed)
                if deed == "leave":
                    break
    return results


def act(running: Run, deed: str) -> None:
    if deed in ("stop", "cancel"):
        getattr(running, deed)()


async def visit_all(hosts: list[str], world: World, options: dict[str, Any], moment: Any) -> list[HostResult]:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    running = world.run = run(hosts, world, **options)  # type: ignore[arg-type]
    begun = asyncio.get_running_loop().time()
    results = await take(running, moment)
    if moment is None and "deadline" in options:
        assert asyncio.get_running_loop().time() - begun <= options["deadline"] + 0.01
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not complaints
    assert not world.open["work"]
    assert not running.progress.working
    return results


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 25), st.lists(st.lists(DEEDS, min_size=1, max_size=3), min_size=1, max_size=6), OPTIONS, MOMENTS)
@pytest.mark.usefixtures("quiet")
def test_the_rules_hold(number: int, deeds: list[list[Deed]], options: dict[str, Any], moment: Any) -> None:
    hosts = [f"h{each}" for each in range(number)]
    world = World(deeds, options)
    with asyncio.Runner(debug=False, loop_factory=TimelessLoop) as runner:
        results = runner.run(visit_all(hosts, world, options, moment))
    if moment is None or moment[0] != "leave":
        assert sorted(result.index for result in results) == list(range(number))
    assert len({result.index for result in results}) == len(results)
    if options.get("ordered"):
        assert [result.index for result in results] == list(range(len(results)))
    assert not world.late
    for result in results:
        check(result, world, options)
    check_stops(results, options)


def check(result: HostResult, world: World, options: dict[str, Any]) -> None:
    """What holds for each host by itself."""
    name, state = result.host, result.state
    retry_on = options.get("retry_on", NOT_STARTED)
    assert result.host == f"h{result.index}"
    assert len(result.attempts) <= options["retries"]
    assert all(attempt.state in retry_on for attempt in result.attempts)
    assert result.stdout_size <= 50
    assert len(result.stdout) == min(result.stdout_size, options.get("max_output", 1000))
    assert (result.status is None) is (state not in (HostState.OK, HostState.NONZERO))
    assert (state is HostState.OK) is (result.status == 0)
    assert (result.error is None) is (result.status is not None)
    # A command is sent once more only after a state that the caller has named.
    sent = [each for each in result.attempts if each.error is None or each.error.sent]
    answered = result.status is not None or (result.error is not None and result.error.sent)
    assert world.sent[name] == len(sent) + answered
    assert world.began[name] <= 1 + options["retries"] + POSTPONED
    if not retry_on & {HostState.LOST, HostState.TIMEOUT, HostState.NONZERO, HostState.DENIED}:
        assert world.sent[name] <= 1
    open_ends = [each.state for each in sent if each.error is not None and each.state is not HostState.DENIED]
    unknown = answered and result.status is None and state is not HostState.DENIED
    assert result.may_be_running is bool(open_ends or unknown)
    if not world.sent[name]:
        assert state not in (HostState.OK, HostState.NONZERO, HostState.LOST, HostState.TIMEOUT, HostState.DENIED)
    if state is HostState.SKIPPED:
        assert world.sent[name] == 0


def check_stops(results: list[HostResult], options: dict[str, Any]) -> None:
    """What holds for all of them together."""
    failed = [result for result in results if result.state not in (HostState.OK, HostState.SKIPPED)]
    skipped = [result for result in results if result.state is HostState.SKIPPED]
    for result in skipped:
        reason = str(result.error)
        assert "the command was not sent: " in reason
        if "max_fail" in reason:
            assert len(failed) >= options["max_fail"]
        if "the canary" in reason:
            assert min(result.index for result in failed) < options["canary"]
