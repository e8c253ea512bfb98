"""What the caller has a say in: before a command is sent, why a run is stopped, and who is in work."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from aio.running import until

import remctl
from fanout.memory import Memory, all_of, refused, run, states, timeless
from remctl.fanout import Host, HostState, Run


class TestBeforeSend:
    @timeless
    async def test_is_awaited_with_the_host_after_connecting_and_before_the_command_is_sent(self) -> None:
        memory = Memory(pause=1.0)
        seen: list[tuple[Host, list[str]]] = []

        async def before(host: Host) -> None:
            await asyncio.sleep(5)
            seen.append((host, list(memory.sent)))

        (result,) = await all_of(run([Host("a", 99)], memory, before_send=before))
        assert seen == [(Host("a", 99), [])]
        assert result.ok
        assert result.timings.running == 1.0

    @timeless
    async def test_is_awaited_again_at_each_attempt_that_gets_so_far(self) -> None:
        seen: list[str] = []

        async def before(host: Host) -> None:
            seen.append(host.name)

        memory = Memory({"a": [3, 0], "b": [refused(), 0]})
        await all_of(run(["a", "b"], memory, before_send=before, retry_on=[HostState.NONZERO, HostState.REFUSED]))
        assert sorted(seen) == ["a", "a", "b"]

    @timeless
    async def test_keeps_a_host_from_the_command_if_it_raises(self) -> None:
        async def before(host: Host) -> None:
            if host.name == "b":
                raise OSError(28, "No space left on device")
            if host.name == "c":
                raise remctl.RemctlError("the journal is full")

        memory = Memory()
        results = {result.host: result for result in await all_of(run(["a", "b", "c"], memory, before_send=before))}
        assert {host: str(result.state) for host, result in results.items()} == {
            "a": "ok",
            "b": "skipped",
            "c": "skipped",
        }
        assert memory.sent == ["a"]
        assert memory.visits == ["a", "b", "c"]  # nothing is tried again
        error = results["b"].error
        assert error is not None
        assert "the command was not sent: before_send raised OSError(28" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert "the command was not sent: the journal is full" in str(results["c"].error)
        assert not any(result.may_be_running for result in results.values())

    @timeless
    async def test_may_be_cancelled(self) -> None:
        async def before(host: Host) -> None:
            await asyncio.Event().wait()

        memory = Memory()
        async with run(["a"], memory, before_send=before) as running:
            waiting = asyncio.ensure_future(anext(running))
            await until(lambda: memory.visits)
            running.cancel()
            result = await waiting
        assert (result.state, result.may_be_running) == (HostState.CANCELLED, False)

    def test_cannot_be_taken_to_the_workers_of_an_executor(self) -> None:
        async def before(host: Host) -> None:
            raise AssertionError

        with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="before_send cannot be taken"):
            remctl.run_many(["a"], ["x"], before_send=before, executor=executor)


class TestReasons:
    @timeless
    async def test_of_who_stops_a_run_are_in_the_errors_of_those_that_are_skipped(self) -> None:
        async with run(["a", "b"], Memory(), running=1) as running:
            await anext(running)
            running.stop("the disk is full")
            running.stop("another reason")
            result = await anext(running)
            assert running.progress.stopped == "stop"
        assert result.state is HostState.SKIPPED
        assert "the command was not sent: the disk is full" in str(result.error)

    @timeless
    async def test_of_who_cancels_it_are_in_those_that_are_cut(self) -> None:
        memory = Memory(pause=10)
        async with run(["a", "b"], memory, running=1) as running:
            waiting = asyncio.ensure_future(anext(running))
            await until(lambda: memory.sent)
            running.cancel("it is late")
            assert running.progress.stopped == "cancel"
            results = [await waiting, *[result async for result in running]]
        assert states(results) == {"a": "cancelled", "b": "skipped"}
        assert all("it is late" in str(result.error) for result in results)


class TestProgress:
    @timeless
    async def test_says_which_rule_has_stopped_the_run(self) -> None:
        for arguments, rule in (
            ({"max_fail": 1}, "max_fail"),
            ({"canary": 1}, "canary"),
            ({"deadline": 0.5}, "deadline"),
            ({}, None),
        ):
            running = run(["a", "b"], Memory({"a": 1}, pause=1.0), running=1, **arguments)
            assert running.progress.stopped is None
            await all_of(running)
            assert running.progress.stopped == rule

    @timeless
    async def test_of_who_is_in_work_tells_those_with_the_command_apart(self) -> None:
        async def forever(_: object) -> int:
            await asyncio.Event().wait()
            return 0

        memory = Memory({"a": forever})
        async with run(["a", "b", "c"], memory, running=1, sockets=2) as running:
            waiting = asyncio.ensure_future(running.results())
            await until(lambda: memory.sent)
            assert running.under_way == [(Host("a"), True), (Host("b"), False)]
            running.cancel()
            await waiting
        assert running.under_way == []


def test_the_blocking_face_has_them_too() -> None:
    seen: list[str] = []

    async def before(host: Host) -> None:
        seen.append(host.name)

    with Run(run(["a", "b"], Memory(pause=0.01), running=1, before_send=before)) as running:
        assert next(running).host == "a"
        running.stop("it is late")
        assert "it is late" in str(next(running).error)
        assert running.progress.stopped == "stop"
        assert running.under_way == []
    assert seen == ["a"]
