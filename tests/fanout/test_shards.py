"""Runs on an executor's workers: threads and processes of ours, and executors that fail."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from aio.running import asynchronous, until
from serving import Gate, ServerThread

import remctl
from fanout.memory import all_of, timeless
from remctl.fanout import Host, HostResult, HostState
from remctl.fanout._shards import GRACE, OUT, End
from remctl.testing import Sandbox

Serving = Callable[..., ServerThread]


def addresses(number: int) -> list[str]:
    return [f"127.0.{1 + each // 250}.{1 + each % 250}" for each in range(number)]


def found(hosts: list[Any]) -> list[HostResult]:
    """What a shard would give back: hosts whose names begin with "bad" have failed."""
    return [
        HostResult(
            each.host.name,
            HostState.NONZERO if each.host.name.startswith("bad") else HostState.OK,
            int(each.host.name.startswith("bad")),
            index=each.index,
        )
        for each in hosts
    ]


class Manual(Executor):
    """Takes shards, and does with them what a test says."""

    def __init__(self, answer: Callable[[list[Any], Any], list[HostResult]] | None = None) -> None:
        self.shards: list[tuple[list[Any], Any, Future[Any]]] = []
        self._answer = answer

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        targets, options = arguments
        future: Future[Any] = Future()
        self.shards.append((targets, options, future))
        if self._answer is not None:
            try:
                future.set_result(self._answer(targets, options))
            except Exception as error:
                future.set_exception(error)
        return future

    def finish(self, number: int) -> None:
        """Let a shard come back."""
        targets, _, future = self.shards[number]
        future.set_result(found(targets))


def answering() -> Manual:
    return Manual(lambda targets, _: found(targets))


class TestWorkers:
    @pytest.mark.parametrize("kind", ["threads", "processes"])
    def test_visit_the_hosts(self, kind: str, everywhere: Serving, box: Sandbox) -> None:
        server = everywhere()
        executor: Executor = (
            ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
        )
        hosts: list[str | Host] = [
            *addresses(60),
            Host("127.0.9.9", command=["example", "status", 3]),
            "no-such-host.invalid",
        ]
        with executor:
            run = remctl.run_many(
                (host for host in hosts),
                ["example", "echo", "x"],
                port=server.port,
                principal=box.principal,
                executor=executor,
                shard=20,
                ordered=True,
                backoff=0.01,
            )
            results = list(run)
        assert [result.index for result in results] == list(range(62))
        assert {(result.state, result.stdout) for result in results[:60]} == {(HostState.OK, b"x\n")}
        assert (results[60].state, results[60].status) == ("nonzero", 3)
        assert results[61].state == "dns"
        assert [attempt.state for attempt in results[61].attempts] == ["dns"]
        assert run.progress.done == 62

    @asynchronous
    async def test_without_a_ticket_have_sent_nothing(self, box: Sandbox) -> None:
        with ThreadPoolExecutor(1) as executor:
            run = remctl.aio.run_many(["a", "b"], ["x"], ccache="/nowhere", executor=executor)
            results = await all_of(run)
        assert [(result.state, result.may_be_running) for result in results] == [("auth", False)] * 2

    @asynchronous
    async def test_that_a_run_leaves_alone_are_not_waited_for(self, everywhere: Serving, box: Sandbox) -> None:
        gate = Gate()
        server = everywhere(gate)
        with ThreadPoolExecutor(1) as executor:
            run = remctl.aio.run_many(
                addresses(5), ["x"], port=server.port, principal=box.principal, executor=executor, shard=2
            )
            async with run:
                waiting = asyncio.ensure_future(anext(run))
                await until(gate.begun.is_set)
                run.cancel()
                first = await waiting
                rest = [result async for result in run]
            gate.open(server)
        states = Counter(str(result.state) for result in [first, *rest])
        assert states == {"cancelled": 2, "skipped": 3}
        assert all(result.may_be_running is (result.state == "cancelled") for result in [first, *rest])

    def test_get_everything_by_pickle(self) -> None:
        error = remctl.RemctlTimeoutError("late", timeout=3.0, sent=True, host="a", stdout=b"x")
        result = HostResult("a", HostState.TIMEOUT, error=error, stdout=b"x", may_be_running=True)
        again = pickle.loads(pickle.dumps(result))
        assert str(again.error) == str(error)
        assert again.error.sent
        assert (again.host, again.state, again.stdout, again.may_be_running) == ("a", HostState.TIMEOUT, b"x", True)


class TestShards:
    @timeless
    async def test_are_handed_out_a_few_at_a_time(self) -> None:
        taken: list[int] = []

        def hosts() -> Any:
            for number in range(10_000):
                taken.append(number)
                yield f"h{number}"

        executor = Manual()
        async with remctl.aio.run_many(hosts(), ["x"], executor=executor, shard=10) as run:
            waiting = asyncio.ensure_future(anext(run))
            while not executor.shards:
                await asyncio.sleep(0)
            assert len(executor.shards) == OUT
            assert len(taken) == OUT * 10 + 1
            assert run.progress.working == OUT * 10
            executor.finish(3)
            assert (await waiting).host == "h30"
            assert len(executor.shards) == OUT + 1

    @timeless
    async def test_hold_each_host_once(self) -> None:
        executor = answering()
        results = await all_of(remctl.aio.run_many(["a", "A", "b"], ["x"], executor=executor, ordered=True))
        assert [str(result.state) for result in results] == ["ok", "skipped", "ok"]

    @timeless
    async def test_are_no_more_after_so_many_failures(self) -> None:
        executor = answering()
        hosts = ["bad" + str(number) for number in range(10_000)]
        results = await all_of(remctl.aio.run_many(hosts, ["x"], executor=executor, shard=10, max_fail=15))
        assert len(results) == 10_000
        assert len(executor.shards) <= OUT + 2
        assert executor.shards[0][1].max_fail == 15
        assert Counter(result.state for result in results)[HostState.SKIPPED] == 10_000 - 10 * len(executor.shards)

    @timeless
    async def test_begin_with_the_canary(self) -> None:
        executor = Manual()
        hosts = [*(f"h{number}" for number in range(3)), "bad", *(f"g{number}" for number in range(96))]
        async with remctl.aio.run_many(hosts, ["x"], executor=executor, shard=10, canary=4) as run:
            waiting = asyncio.ensure_future(anext(run))
            while not executor.shards:
                await asyncio.sleep(0)
            assert [len(targets) for targets, _, _ in executor.shards] == [4]
            assert executor.shards[0][1].max_fail == 1
            executor.finish(0)
            results = [await waiting, *[result async for result in run]]
        assert Counter(str(result.state) for result in results) == {"ok": 3, "nonzero": 1, "skipped": 96}

    @timeless
    async def test_come_in_batches(self) -> None:
        begun = asyncio.get_running_loop().time()
        executor = answering()
        hosts = [f"h{number}" for number in range(50)]
        await all_of(remctl.aio.run_many(hosts, ["x"], executor=executor, shard=10, batch=25, pause=60.0))
        assert [len(targets) for targets, _, _ in executor.shards] == [10, 10, 5, 10, 10, 5]
        assert asyncio.get_running_loop().time() - begun == pytest.approx(60, abs=1)

    @timeless
    async def test_know_how_long_they_have(self) -> None:
        executor = Manual()
        begun = asyncio.get_running_loop().time()
        run = remctl.aio.run_many([f"h{n}" for n in range(1000)], ["x"], executor=executor, shard=10, deadline=30.0)
        results = await all_of(run)
        assert executor.shards[0][1].deadline == 30.0
        assert asyncio.get_running_loop().time() - begun == pytest.approx(30 + GRACE, abs=1)
        assert Counter(str(result.state) for result in results) == {
            "timeout": OUT * 10,
            "skipped": 1000 - OUT * 10,
        }
        assert results[-1].state == "timeout"
        assert results[-1].may_be_running

    def test_that_begin_after_the_end_of_the_run_send_nothing(self, box: Sandbox) -> None:
        """Python's own executors are told to leave them; others may come to them late."""

        def visit_late(function: Any, /, *arguments: Any, end: End, name: str) -> list[HostResult]:
            results: list[HostResult] = function(*arguments, end=end._replace(when=end.when - 60), name=name)
            return results

        class Late(ThreadPoolExecutor):
            def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
                return super().submit(visit_late, function, *arguments, **named)

        with Late(1) as executor:
            arguments: dict[str, Any] = {"port": box.port, "principal": box.principal, "deadline": 60.0}
            run = remctl.run_many(["localhost"], ["example", "hello"], executor=executor, **arguments)
            (result,) = run
        assert not result.ok
        assert not result.may_be_running

    def test_know_the_end_of_the_run_on_this_machine_alone(self) -> None:
        soon, gone = End.after(5.0), End.after(-5.0)
        assert soon is not None
        assert gone is not None
        assert 4 < soon.left() <= 5
        assert gone.left() > 0
        assert End.after(None) is None
        assert End("another", time.monotonic()).left() == math.inf
        assert End("", time.monotonic()).left() == math.inf

    @timeless
    async def test_that_wait_in_an_executor_of_pythons_are_taken_back_by_stop(self) -> None:
        release = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            executor.submit(release.wait)
            run = remctl.aio.run_many([f"h{n}" for n in range(50)], ["x"], executor=executor, shard=10)
            async with run:
                run.stop()
                assert {result.state async for result in run} == {HostState.SKIPPED}
            async with remctl.aio.run_many(["a"], ["x"], executor=executor, shard=10) as run:
                waiting = asyncio.ensure_future(anext(run))
                while not run.progress.working:
                    await asyncio.sleep(0)
                run.stop()
                assert (await waiting).state == "skipped"
            release.set()

    @timeless
    async def test_whose_results_nobody_takes_hold_the_run(self) -> None:
        executor = answering()
        async with remctl.aio.run_many((f"h{n}" for n in range(20_000)), ["x"], executor=executor, shard=10) as run:
            await anext(run)
            await asyncio.sleep(60)
            assert len(executor.shards) <= 100 + OUT
            assert len([result async for result in run]) == 19_999


class TestFaults:
    @timeless
    async def test_of_a_worker_leave_open_what_ran(self) -> None:
        def fail(targets: Any, options: Any) -> Any:
            raise MemoryError("killed")

        results = await all_of(remctl.aio.run_many(["a", "b"], ["x"], executor=Manual(fail)))
        assert [(result.state, result.may_be_running) for result in results] == [("lost-after-send", True)] * 2
        assert "the executor gave nothing back: MemoryError('killed') (a); the command may" in str(results[0].error)
        assert results[1].error is not None
        assert results[1].error.host == "b"

    @timeless
    async def test_of_an_executor_that_cancels_leave_open_what_ran(self) -> None:
        executor = Manual()
        async with remctl.aio.run_many(["a"], ["x"], executor=executor) as run:
            waiting = asyncio.ensure_future(anext(run))
            while not executor.shards:
                await asyncio.sleep(0)
            executor.shards[0][2].cancel()
            assert (await waiting).may_be_running

    @timeless
    async def test_of_an_executor_that_takes_nothing_are_raised_at_the_end(self) -> None:
        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        run = remctl.aio.run_many(["a", "b"], ["x"], executor=executor)
        for _ in range(2):
            result = await anext(run)
            assert (result.state, "the executor takes nothing" in str(result.error)) == ("skipped", True)
        with pytest.raises(RuntimeError, match="shutdown"):
            await anext(run)

    @pytest.mark.parametrize("name", ["on_output", "credentials"])
    def test_of_the_caller_are_seen_at_once(self, name: str) -> None:
        from remctl.security import Credentials

        value = print if name == "on_output" else Credentials.default()
        with pytest.raises(ValueError, match=f"{name} cannot be taken to an executor's workers"):
            remctl.run_many(["a"], ["x"], executor=Manual(), **{name: value})  # type: ignore[arg-type]
