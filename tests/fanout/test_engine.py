"""What the engine decides: who is begun with when, how often, when it stops, and what becomes of each host."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
import tracemalloc
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from aio.running import CancelledAt, asynchronous, until

import remctl
import remctl.aio
from fanout.memory import Memory, all_of, refused, run, states, timeless
from remctl import Stream
from remctl.fanout import Host, HostState, Timings
from remctl.fanout._collecting import BACKLOG, BACKLOG_SIZE
from remctl.fanout._visit import Visit
from remctl.fanout.aio import Run
from remctl.security import Credentials
from remctl.testing import Sandbox


def names(number: int) -> list[str]:
    return [f"h{each}" for each in range(number)]


def lost() -> Exception:
    return remctl.RemctlConnectionError("the connection was lost", sent=True)


async def forever(visit: Visit) -> int:
    await asyncio.Event().wait()
    raise AssertionError


async def long(visit: Visit) -> int:
    await asyncio.sleep(3600)
    return 0


async def talk(visit: Visit) -> int:
    visit.output(Stream.STDOUT, b"one ")
    visit.output(Stream.STDERR, b"warning")
    await asyncio.sleep(0)
    visit.output(Stream.STDOUT, b"two")
    return 3


class TestResults:
    @timeless
    async def test_of_a_host_hold_what_it_gave_back(self) -> None:
        (result,) = await all_of(run([Host("a", 99)], Memory({"a": talk}, pause=2.0)))
        assert (result.host, result.port, result.index) == ("a", 4373, 0)
        assert (result.state, result.status, result.error) == (HostState.NONZERO, 3, None)
        assert (result.stdout, result.stderr) == (b"one two", b"warning")
        assert (result.stdout_size, result.stderr_size, result.truncated) == (7, 7, False)
        assert result.timings == Timings(2.0, 0.0)
        assert not result.may_be_running

    @timeless
    async def test_come_as_hosts_end(self) -> None:
        results = await all_of(run(["slow", "fast"], Memory({"slow": long})))
        assert [result.host for result in results] == ["fast", "slow"]

    @timeless
    async def test_come_in_order_if_that_is_asked_for(self) -> None:
        memory = Memory({"h0": long, "h7": refused()})
        results = await all_of(run([*names(20), "h3"], memory, ordered=True))
        assert [result.index for result in results] == list(range(21))
        assert results[20].state == "skipped"

    @timeless
    async def test_output_is_kept_to_a_limit_and_counted_beyond_it(self) -> None:
        (result,) = await all_of(run(["a"], Memory({"a": talk}), max_output=5))
        assert (result.stdout, result.stderr) == (b"one t", b"warni")
        assert (result.stdout_size, result.stderr_size, result.truncated) == (7, 7, True)
        (result,) = await all_of(run(["a"], Memory({"a": talk}), max_output=0))
        assert (result.stdout, result.stdout_size) == (b"", 7)

    @timeless
    async def test_no_hosts_are_no_results(self) -> None:
        assert await all_of(run([])) == []

    @timeless
    async def test_a_command_of_its_own_is_each_hosts(self) -> None:
        said: list[list[bytes]] = []

        async def note(visit: Visit) -> int:
            said.append(visit.target.command.words)
            return 0

        memory = Memory({"a": note, "b": note})
        await all_of(run([Host("a", command=["own", 5]), "b"], memory, command=["run's"]))
        assert said == [[b"own", b"5"], [b"run's"]]

    @timeless
    async def test_keep_no_stack_with_all_that_is_in_it(self) -> None:
        def fail() -> None:
            try:
                raise OSError("the cause")
            except OSError as error:
                raise remctl.RemctlConnectionError("lost", sent=True) from error

        async def lose(visit: Visit) -> int:
            try:
                fail()
            except remctl.RemctlError as error:
                raise error from error.__cause__
            return 0

        (result,) = await all_of(run(["a"], Memory({"a": lose})))
        assert result.error is not None
        assert isinstance(result.error.__cause__, OSError)
        assert result.error.__traceback__ is result.error.__cause__.__traceback__ is None

    @timeless
    async def test_a_fault_of_ours_is_one_hosts_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        async def fault(visit: Visit) -> int:
            raise KeyError("bug")

        async def late(visit: Visit) -> int:
            visit.status = 7
            raise ValueError("late bug")

        memory = Memory({"a": KeyError("bug"), "b": fault, "c": late})
        before, after, ended, good = await all_of(run(["a", "b", "c", "d"], memory, ordered=True))
        assert (before.state, before.may_be_running) == (HostState.REFUSED, False)
        assert (after.state, after.may_be_running, after.status) == (HostState.LOST, True, None)
        assert "internal failure: KeyError('bug')" in str(after.error)
        assert (ended.state, ended.status, ended.error) == (HostState.NONZERO, 7, None)
        assert good.ok
        assert "KeyError" in caplog.text
        assert "late bug" in caplog.text


class TestLimits:
    @timeless
    async def test_are_kept_and_used(self) -> None:
        memory = Memory(dict.fromkeys(names(100), long), pause=1.0)
        await all_of(run(names(100), memory, running=7, sockets=10, handshakes=4))
        assert memory.most == {"work": 10, "connecting": 4, "running": 7}

    @timeless
    async def test_of_sockets_are_those_of_running_commands_unless_it_is_said(self) -> None:
        memory = Memory(pause=1.0)
        await all_of(run(names(100), memory, running=7))
        assert memory.most == {"work": 7, "connecting": 7, "running": 7}

    @timeless
    async def test_starts_are_spread_over_the_second(self) -> None:
        memory = Memory()
        await all_of(run(names(100), memory, starts=10))
        begun = sorted(when for times in memory.times.values() for when in times)
        assert begun[-1] - begun[0] == pytest.approx(9.9, abs=0.2)
        assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(begun[1:]))

    @timeless
    async def test_hosts_are_taken_only_when_they_are_begun_with(self) -> None:
        taken = []

        def hosts() -> Iterator[str]:
            for name in names(1000):
                taken.append(name)
                yield name

        memory = Memory()
        async with run(hosts(), memory, running=5) as running:
            await anext(running)
            assert len(taken) <= 12

    @asynchronous
    async def test_a_consumer_that_takes_nothing_holds_the_run(self) -> None:
        memory = Memory()
        async with run(names(3 * BACKLOG), memory) as running:
            await anext(running)
            await until(lambda: len(memory.visits) > BACKLOG and not memory.now["work"])
            await asyncio.sleep(0.01)
            assert len(memory.visits) <= BACKLOG + 64
            assert len([result async for result in running]) == 3 * BACKLOG - 1

    @timeless
    async def test_much_output_that_nobody_takes_holds_the_run_too(self) -> None:
        size = BACKLOG_SIZE // 8

        async def much(visit: Visit) -> int:
            visit.output(Stream.STDOUT, bytes(size))
            return 0

        memory = Memory(dict.fromkeys(names(40), much))
        async with run(names(40), memory, running=2, max_output=size) as running:
            await anext(running)
            await asyncio.sleep(60)
            assert len(memory.visits) <= 11
            assert len([result async for result in running]) == 39

    @timeless
    async def test_a_straggler_holds_an_ordered_run_and_not_for_ever(self) -> None:
        memory = Memory({"h0": [refused(), refused(), long]})
        results = await all_of(run(names(3 * BACKLOG), memory, ordered=True, retries=2))
        assert [result.index for result in results] == list(range(3 * BACKLOG))
        assert memory.times["h1500"] > memory.times["h0"][-1:]

    def test_memory_does_not_grow_with_the_number_of_hosts(self) -> None:
        number = 20_000

        async def words(visit: Visit) -> int:
            visit.output(Stream.STDOUT, b"x" * 1000)
            return 0

        class Wordy(Memory):
            async def __call__(self, visit: Visit) -> None:
                await visit.connected(4373)
                visit.sending()
                visit.status = await words(visit)

        async def main() -> tuple[int, int]:
            tracemalloc.start(1)
            count = 0
            async with run((f"h{each}" for each in range(number)), Wordy(), duplicates=True) as running:
                async for _ in running:
                    count += 1
                    if count % 500 == 0:
                        await asyncio.sleep(0.001)  # which lets results pile up
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return count, most

        count, most = asyncio.run(main(), debug=False)
        assert count == number
        assert most < 8_000_000


class TestRetries:
    @timeless
    async def test_are_made_where_the_command_cannot_have_started(self) -> None:
        dns = remctl.RemctlConnectionError("unknown host: no such name")
        late = remctl.RemctlTimeoutError("late")
        memory = Memory({"a": [refused(), 0], "b": [dns, 0], "c": [late, 0], "d": [lost(), 0], "e": 5})
        results = await all_of(run(["a", "b", "c", "d", "e"], memory, ordered=True))
        assert states(results) == {"a": "ok", "b": "ok", "c": "ok", "d": "lost-after-send", "e": "nonzero"}
        assert [[attempt.state for attempt in result.attempts] for result in results] == [
            ["refused"],
            ["dns"],
            ["connect-timeout"],
            [],
            [],
        ]
        assert memory.visits.count("d") == memory.visits.count("e") == 1

    @timeless
    async def test_are_made_for_other_states_if_they_are_named(self) -> None:
        memory = Memory({"a": [lost(), 0], "b": [5, 5, 0], "c": refused()})
        retry_on = {HostState.LOST, HostState.NONZERO}
        results = await all_of(run(["a", "b", "c"], memory, ordered=True, retries=5, retry_on=retry_on))
        assert states(results) == {"a": "ok", "b": "ok", "c": "refused"}
        assert Counter(memory.visits) == {"a": 2, "b": 3, "c": 1}

    @timeless
    async def test_do_not_hide_that_the_command_may_be_running_since_an_earlier_one(self) -> None:
        denied = remctl.RemctlCommandError("no", sent=True)
        memory = Memory({"a": [lost(), refused()], "b": [lost(), 0], "c": [denied, 0], "d": [5, 0]})
        retry_on = {HostState.LOST, HostState.DENIED, HostState.NONZERO}
        results = await all_of(run(["a", "b", "c", "d"], memory, ordered=True, retry_on=retry_on))
        assert states(results) == {"a": "refused", "b": "ok", "c": "ok", "d": "ok"}
        assert [result.may_be_running for result in results] == [True, True, False, False]

    @timeless
    async def test_wait_longer_each_time_and_hold_no_place(self) -> None:
        memory = Memory({"down": refused()}, pause=0.001)
        results = await all_of(run(["down", *names(500)], memory, running=1, retries=4, backoff=1.0))
        begun = memory.times["down"]
        waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
        assert len(waits) == 4
        assert all(0.5 * 2**n <= wait <= 1.5 * 2**n + 0.1 for n, wait in enumerate(waits))
        assert memory.times["h100"][0] < begun[1]
        assert results[-1].host == "down"
        assert len(results[-1].attempts) == 4

    @timeless
    async def test_are_not_made_if_it_is_said(self) -> None:
        memory = Memory({"a": refused()})
        (result,) = await all_of(run(["a"], memory, retries=0))
        assert (result.attempts, memory.visits) == ((), ["a"])

    @timeless
    async def test_may_be_very_many(self) -> None:
        memory = Memory({"a": refused()})
        (result,) = await all_of(run(["a"], memory, retries=1100))
        assert len(result.attempts) == 1100

    @timeless
    async def test_of_very_many_hosts_end_with_the_run(self) -> None:
        memory = Memory(dict.fromkeys(names(5000), refused()))
        async with run([*names(5000), "last"], memory, retries=5, backoff=60.0) as running:
            waiting = asyncio.ensure_future(anext(running))
            await waiting
            assert running.progress.waiting == 5000
            running.stop()
            results = [await waiting, *[result async for result in running]]
        assert Counter(result.state for result in results) == {"refused": 5000, "ok": 1}

    @timeless
    async def test_that_would_come_after_the_deadline_are_not_waited_for(self) -> None:
        memory = Memory({"a": refused()})
        begun = asyncio.get_running_loop().time()
        (result,) = await all_of(run(["a"], memory, retries=9, backoff=30.0, deadline=10.0))
        assert asyncio.get_running_loop().time() - begun < 1
        assert result.state == "refused"


class TestStopRules:
    @pytest.mark.parametrize("most", [1, 10, 50])
    @timeless
    async def test_after_so_many_failures_nothing_is_begun(self, most: int) -> None:
        begun: list[int] = []

        class Counting(Memory):
            def __call__(self, visit: Visit) -> Coroutine[Any, Any, None]:
                begun.append(running.progress.states[HostState.NONZERO])
                return super().__call__(visit)

        memory = Counting(dict.fromkeys(names(1000), 1), pause=0.01)
        running = run(names(1000), memory, max_fail=most)
        results = await all_of(running)
        assert len(results) == 1000
        assert max(begun) < most
        failed = [result for result in results if result.state == "nonzero"]
        assert most <= len(failed) == len(memory.sent) <= most + 63
        left = [result for result in results if result.state == "skipped"]
        assert len(left) + len(failed) == 1000
        assert f"the command was not sent: {most} failed" in str(left[0].error)

    @timeless
    async def test_a_percentage_is_of_all_hosts(self) -> None:
        memory = Memory(dict.fromkeys(names(50), refused()))
        results = await all_of(run(names(50), memory, max_fail="10%", running=1, retries=0))
        assert Counter(result.state for result in results) == {"refused": 5, "skipped": 45}

    @timeless
    async def test_hosts_that_wait_for_another_attempt_keep_their_last_state(self) -> None:
        memory = Memory({"a": refused(), "b": 1}, pause=0.01)
        results = await all_of(run(["a", "b", "c"], memory, running=2, max_fail=1, backoff=100.0))
        assert states(results) == {"a": "refused", "b": "nonzero", "c": "ok"}
        assert memory.visits == ["a", "b", "c"]

    @timeless
    async def test_hosts_that_are_tried_again_fail_only_at_the_end(self) -> None:
        memory = Memory({"h0": [refused(), 0], "h1": [refused(), 0]})
        results = await all_of(run(names(50), memory, max_fail=1))
        assert {result.state for result in results} == {"ok"}

    @timeless
    async def test_a_canary_goes_first(self) -> None:
        memory = Memory({"h0": long})
        assert {result.state for result in await all_of(run(names(50), memory, canary=3))} == {"ok"}
        assert min(memory.times[name][0] for name in names(50)[3:]) >= memory.times["h0"][0] + 3600

    @timeless
    async def test_a_canary_that_fails_is_the_end(self) -> None:
        memory = Memory({"h1": 7})
        results = await all_of(run(names(50), memory, canary=3))
        assert Counter(result.state for result in results) == {"ok": 2, "nonzero": 1, "skipped": 47}
        assert sum("the canary h1 failed: nonzero" in str(result.error) for result in results) == 47

    @timeless
    async def test_a_canary_may_be_all(self) -> None:
        assert len(await all_of(run(names(2), canary=3))) == 2

    @timeless
    async def test_batches_come_one_after_the_other_with_a_pause(self) -> None:
        memory = Memory(pause=1.0)
        begun = asyncio.get_running_loop().time()
        await all_of(run(names(25), memory, canary=2, batch=10, pause=60.0))
        starts = sorted(round(times[0] - begun) for times in memory.times.values())
        assert Counter(starts) == {0: 2, 62: 10, 124: 10, 186: 3}
        assert asyncio.get_running_loop().time() - begun == pytest.approx(188, abs=1)

    @timeless
    async def test_stop_lets_what_is_under_way_end(self) -> None:
        memory = Memory(pause=1.0)
        async with run(names(100), memory, running=10, sockets=20, handshakes=10) as running:
            results = [await anext(running)]
            running.stop()
            results += [result async for result in running]
        sent = len(memory.sent)
        assert sent < 50
        assert Counter(result.state for result in results) == {"ok": sent, "skipped": 100 - sent}
        assert all("stop() was called" in str(result.error) for result in results if result.state == "skipped")

    @timeless
    async def test_after_a_stop_no_command_is_sent_to_hosts_that_are_connected(self) -> None:
        memory = Memory(dict.fromkeys(names(64), 1), pause=1.0)
        results = await all_of(run(names(64), memory, running=4, sockets=64, handshakes=64, max_fail=1))
        assert memory.most["work"] == 64
        assert len(memory.sent) == 4
        assert Counter(str(result.state) for result in results) == {"nonzero": 4, "skipped": 60}
        assert "the command was not sent: 1 failed" in str(results[-1].error)

    @timeless
    async def test_a_host_that_was_tried_before_a_stop_keeps_what_it_came_to(self) -> None:
        memory = Memory({"a": [5, 0], "b": long}, pause=1.0)
        async with run(["a", "b"], memory, running=2, backoff=1.0, retry_on=["nonzero"]) as running:
            waiting = asyncio.ensure_future(anext(running))
            await until(lambda: memory.visits.count("a") == 2)
            running.stop()
            result = await waiting
        assert (result.state, result.status, result.attempts) == ("nonzero", 5, ())
        assert memory.sent.count("a") == 1

    @timeless
    async def test_stop_before_the_beginning_begins_nothing(self) -> None:
        memory = Memory()
        running = run(names(3000), memory)
        running.stop()
        assert {result.state for result in await all_of(running)} == {HostState.SKIPPED}
        assert memory.visits == []

    @timeless
    async def test_the_deadline_cuts_what_is_under_way(self) -> None:
        memory = Memory({"h0": long, "h1": long, "h2": 0}, pause=10.0)
        results = await all_of(run(names(5), memory, running=3, handshakes=1, deadline=25.0, ordered=True))
        assert states(results) == {
            "h0": "timeout",
            "h1": "timeout",
            "h2": "connect-timeout",
            "h3": "skipped",
            "h4": "skipped",
        }
        assert [result.may_be_running for result in results] == [True, True, False, False, False]
        assert all("the run's deadline of 25 s" in str(result.error) for result in results)
        assert isinstance(results[0].error, remctl.RemctlTimeoutError)
        with pytest.raises(remctl.RemctlTimeoutError, match="may still be running"):
            results[0].check()


class TestHosts:
    @timeless
    async def test_named_twice_are_visited_once(self) -> None:
        memory = Memory()
        results = await all_of(run(["a", "b", "A.", "a:99"], memory, running=1))
        assert [(result.host, str(result.state)) for result in results] == [
            ("a", "ok"),
            ("b", "ok"),
            ("A.", "skipped"),
            ("a", "ok"),
        ]
        assert "the run has this host already" in str(results[2].error)
        memory = Memory()
        await all_of(run(["a", "b", "a"], memory, duplicates=True))
        assert memory.visits == ["a", "b", "a"]

    @pytest.mark.parametrize("named", [7, "", "a:b", Host("a", port=-1), Host("a", command="x")])
    @timeless
    async def test_that_make_no_sense_are_an_error_when_the_others_have_ended(self, named: Any) -> None:
        running = run(["a", "b", named, "c"], Memory({"a": long}))
        assert [(await anext(running)).host for _ in range(2)] == ["b", "a"]
        with pytest.raises((TypeError, ValueError)):
            await anext(running)
        with pytest.raises(StopAsyncIteration):
            await anext(running)

    @timeless
    async def test_whose_iterable_raises_are_an_error_when_the_others_have_ended(self) -> None:
        def hosts() -> Iterator[str]:
            yield from names(100)
            raise OSError("the list cannot be read on")

        running = run(hosts(), ordered=True)
        assert [(await anext(running)).index for _ in range(100)] == list(range(100))
        with pytest.raises(OSError, match="cannot be read on"):
            await anext(running)


class TestBeginning:
    @pytest.mark.parametrize("way", ["deadline", "stop", "cancel"])
    @asynchronous
    async def test_is_not_waited_for_longer_than_the_run(self, way: str, silent_kdc: object, box: Sandbox) -> None:
        credentials = Credentials.from_keytab(box.keytab, box.principal)
        deadline = 0.2 if way == "deadline" else None
        begun = time.monotonic()
        async with remctl.aio.run_many(["a", "b"], ["x"], credentials=credentials, deadline=deadline) as running:
            waiting = asyncio.ensure_future(anext(running))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            if deadline is None:
                getattr(running, way)()
            results = [await waiting, *[result async for result in running]]
        assert time.monotonic() - begun < 1.5
        assert [(result.state, result.attempts) for result in results] == [("skipped", ())] * 2

    @asynchronous
    async def test_may_be_left(self, silent_kdc: object, box: Sandbox) -> None:
        credentials = Credentials.from_keytab(box.keytab, box.principal)
        async with remctl.aio.run_many(["a"], ["x"], credentials=credentials) as running:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(running)


class TestCallback:
    @timeless
    async def test_gets_output_as_it_comes(self) -> None:
        got: list[tuple[str, Stream, bytes]] = []
        memory = Memory({"a": talk})
        await all_of(run(["a"], memory, on_output=lambda host, stream, data: got.append((host.name, stream, data))))
        assert got == [
            ("a", Stream.STDOUT, b"one "),
            ("a", Stream.STDERR, b"warning"),
            ("a", Stream.STDOUT, b"two"),
        ]

    @timeless
    async def test_that_raises_is_one_hosts_error(self) -> None:
        calls: Counter[str] = Counter()

        def fail(host: Host, stream: Stream, data: bytes) -> None:
            calls[host.name] += 1
            if host.name == "h3":
                raise OSError("disk full")

        memory = Memory(dict.fromkeys(names(10), talk))
        results = await all_of(run(names(10), memory, on_output=fail, ordered=True))
        assert all(result.status == 3 and result.stdout == b"one two" for result in results)
        assert [result.host for result in results if result.error] == ["h3"]
        with pytest.raises(remctl.RemctlError, match="on_output raised OSError"):
            results[3].check()
        assert calls == {**dict.fromkeys(names(10), 3), "h3": 1}

    @pytest.mark.parametrize("method", ["stop", "cancel"])
    @timeless
    async def test_may_stop_the_run(self, method: str) -> None:
        memory = Memory(dict.fromkeys(names(50), talk))
        runs: list[Run] = []
        running = run(names(50), memory, running=2, on_output=lambda *_: getattr(runs[0], method)())
        runs.append(running)
        states = Counter(str(result.state) for result in await all_of(running))
        assert states == ({"nonzero": 1, "skipped": 49} if method == "stop" else {"cancelled": 2, "skipped": 48})


class TestCancelling:
    @timeless
    async def test_says_to_which_hosts_the_command_was_sent(self) -> None:
        memory = Memory({"h0": long, "h1": long}, pause=1.0)
        async with run(names(5), memory, running=2, sockets=4, handshakes=2) as running:
            waiting = asyncio.ensure_future(anext(running))
            await asyncio.sleep(1.5)
            running.cancel()
            results = [await waiting, *[result async for result in running]]
        found = {result.host: (str(result.state), result.may_be_running) for result in results}
        assert found == {
            "h0": ("cancelled", True),
            "h1": ("cancelled", True),
            "h2": ("cancelled", False),
            "h3": ("cancelled", False),
            "h4": ("skipped", False),
        }
        assert all(result.status is None for result in results)
        assert not memory.now.total()

    @pytest.mark.parametrize("number", range(1, 12))
    @asynchronous
    async def test_the_consumer_anywhere_leaves_nothing(self, number: int) -> None:
        memory = Memory({"h3": refused()})

        async def consume() -> None:
            async with run(names(10), memory, running=2, backoff=0.001) as running:
                async for _ in running:
                    await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.ensure_future(_waited(CancelledAt(consume(), number)))
        assert not memory.now.total()

    @pytest.mark.parametrize("number", range(1, 8))
    @asynchronous
    async def test_the_run_at_any_step_of_a_visit_gives_each_host_its_result(self, number: int) -> None:
        steps = 0

        class Stepped(Memory):
            async def __call__(self, visit: Visit) -> None:
                await Cancelling(super().__call__(visit))

        class Cancelling:
            def __init__(self, coroutine: Any) -> None:
                self._steps = coroutine.__await__()

            def __await__(self) -> Any:
                nonlocal steps
                error: BaseException | None = None
                while True:
                    try:
                        waited = next(self._steps) if error is None else self._steps.throw(error)
                    except StopIteration:
                        return
                    error = None
                    steps += 1
                    if steps == number:
                        running.cancel()
                    try:
                        yield waited
                    except BaseException as raised:
                        error = raised

        memory = Stepped({"h1": talk})
        async with run(names(6), memory, running=2, sockets=3) as running:
            results = [result async for result in running]
        assert sorted(result.host for result in results) == names(6)
        assert "cancelled" in states(results).values()
        assert not memory.now.total()

    @asynchronous
    async def test_by_leaving_early_leaves_nothing(self) -> None:
        memory = Memory(dict.fromkeys(names(10), forever))
        async with run([*names(10), "good"], memory, running=11) as running:
            assert (await anext(running)).host == "good"
        assert not memory.now.total()
        assert [result async for result in running] == []

    @asynchronous
    async def test_by_dropping_the_run_warns_and_leaves_nothing(self) -> None:
        memory = Memory(dict.fromkeys(names(10), forever))

        async def consume() -> None:
            async for _ in run([*names(10), "good"], memory):
                break
            gc.collect()

        with pytest.warns(ResourceWarning, match="use `async with`"):
            await consume()
        await until(lambda: not memory.now.total() and len(asyncio.all_tasks()) == 1)

    @asynchronous
    async def test_at_the_end_of_the_loop_is_quiet(self) -> None:
        running = run(names(3), Memory())
        assert len([result async for result in running]) == 3
        await running.aclose()
        running.stop()
        running.cancel()
        assert [result async for result in running] == []


async def _waited(awaitable: CancelledAt[None]) -> None:
    await awaitable


class TestManners:
    @timeless
    async def test_progress_says_how_far_it_is(self) -> None:
        memory = Memory({"h0": refused(), "h1": long})
        async with run(names(5), memory, running=1, backoff=100.0) as running:
            assert (running.progress.done, running.progress.total) == (0, 5)
            waiting = asyncio.ensure_future(anext(running))
            await asyncio.sleep(10)
            progress = running.progress
            assert (progress.done, progress.working, progress.waiting, progress.total) == (0, 1, 1, 5)
            await waiting
            rest = [result async for result in running]
            assert len(rest) == 4
            progress = running.progress
            assert (progress.done, progress.working, progress.waiting) == (5, 0, 0)
            assert progress.states[HostState.OK] == 4
            assert progress.states[HostState.REFUSED] == 1
        assert run((name for name in names(5)), memory).progress.total is None

    @asynchronous
    async def test_the_time_of_day_may_jump(self, monkeypatch: pytest.MonkeyPatch) -> None:
        offsets = iter(range(0, 10**9, 3600))
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + next(offsets))
        memory = Memory({"h0": [refused(), 0]}, pause=0.01)
        results = await all_of(run(names(20), memory, deadline=30.0, starts=500, batch=10, pause=0.01, backoff=0.01))
        assert {result.state for result in results} == {"ok"}

    @asynchronous
    async def test_two_tasks_cannot_wait_for_a_result_at_once(self) -> None:
        memory = Memory({"a": forever})
        async with run(["a"], memory) as running:
            first = asyncio.ensure_future(anext(running))
            await until(lambda: memory.now["running"])
            with pytest.raises(RuntimeError, match="another task waits"):
                await anext(running)
            with pytest.raises(RuntimeError, match="another task waits"):
                await running.results()
            running.cancel()
            assert (await first).state == "cancelled"

    def test_a_run_belongs_to_its_loop(self) -> None:
        memory = Memory({"a": long})
        running = run(["a", "b"], memory)

        async def first() -> None:
            await anext(running)

        async def second() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await anext(running)

        with asyncio.Runner() as one, asyncio.Runner() as other:
            one.run(first())
            other.run(second())
            one.run(running.aclose())
