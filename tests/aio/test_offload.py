"""Calls that may block, on threads that can be left behind."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

import remctl
from aio.running import LIMIT, asynchronous, until
from remctl.aio import Remctl, _offload
from remctl.aio._offload import Threads
from remctl.testing import Sandbox

T = TypeVar("T")

ServerArguments = tuple[str, int, str]

PROMPT = 0.7
"""Seconds by which a call may outlive its time limit, when many do."""


class TestThreads:
    @asynchronous
    async def test_returns_and_raises_what_the_call_does(self, threads: Threads) -> None:
        assert await threads.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 7, 0)

    @asynchronous
    async def test_an_iterator_that_has_ended_is_an_error_too(self, threads: Threads) -> None:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await threads.run(next, iter(()))

    @asynchronous
    async def test_does_not_block_the_loop(self, threads: Threads) -> None:
        gate = threading.Event()
        call = asyncio.ensure_future(threads.run(gate.wait, 20))
        await asyncio.sleep(0)
        assert not call.done()
        gate.set()
        assert await call

    @asynchronous
    async def test_uses_a_thread_again(self, threads: Threads) -> None:
        names = {await threads.run(threading.get_ident) for _ in range(20)}
        assert len(names) <= 2  # the one before may not be back yet

    @asynchronous
    async def test_has_so_many_threads_and_the_others_wait_in_order(self, threads: Threads) -> None:
        gate = threading.Event()
        order: list[int] = []
        held = [asyncio.ensure_future(threads.run(gate.wait, 20)) for _ in range(threads._limit)]
        waiting = [asyncio.ensure_future(threads.run(order.append, number)) for number in range(10)]
        await until(lambda: threads._count == threads._limit)
        assert order == []
        gate.set()
        await asyncio.gather(*held, *waiting)
        assert sorted(order) == list(range(10))
        assert threads._count == threads._limit

    @asynchronous
    async def test_lets_few_compute_and_more_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_offload, "WAITING", 3600)
        threads, gate = Threads(6, computing=2), threading.Event()
        calls = [asyncio.ensure_future(threads.run(gate.wait, 20)) for _ in range(6)]
        await until(lambda: len(threads._begun) == 2)
        threads._watch(asyncio.get_running_loop())
        assert threads._count == 2  # as long as those two may be computing
        monkeypatch.setattr(_offload, "WAITING", 0)
        threads._watch(asyncio.get_running_loop())
        await until(lambda: len(threads._begun) == 6)
        gate.set()
        assert await asyncio.gather(*calls) == [True] * 6

    @asynchronous
    async def test_a_call_that_is_cancelled_before_its_turn_is_not_made(self, threads: Threads) -> None:
        gate = threading.Event()
        made: list[int] = []
        held = [asyncio.ensure_future(threads.run(gate.wait, 20)) for _ in range(threads._limit)]
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(threads.run(made.append, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.set()
        await asyncio.gather(*held)
        await threads.run(made.append, 2)
        assert made == [2]

    @asynchronous
    async def test_a_call_that_is_cancelled_in_the_middle_is_left_to_its_end(self, threads: Threads) -> None:
        begun, gate, ended = threading.Event(), threading.Event(), threading.Event()

        def call() -> None:
            begun.set()
            gate.wait(20)
            ended.set()
            raise ZeroDivisionError

        waiting = asyncio.ensure_future(threads.run(call))
        await until(begun.is_set)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        gate.set()
        await until(ended.is_set)

    def test_a_call_that_outlives_its_loop_harms_nobody(self, threads: Threads) -> None:
        gate = threading.Event()

        async def leave() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await threads.run(gate.wait, 20)

        asyncio.run(leave())
        gate.set()
        assert asyncio.run(threads.run(divmod, 7, 2)) == (3, 1)

    @asynchronous
    async def test_threads_without_work_end(self, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_offload, "IDLE", 0.05)
        await asyncio.gather(*(threads.run(divmod, number, 2) for number in range(5)))
        await until(lambda: threads._count == 0)
        assert await threads.run(divmod, 7, 2) == (3, 1)

    @asynchronous
    async def test_a_forked_child_has_threads_of_its_own(self, threads: Threads) -> None:
        await threads.run(divmod, 7, 2)
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(asyncio.run(threads.run(divmod, 7, 2))[0])
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

    @asynchronous
    async def test_without_a_thread_to_be_had_is_an_error_of_this_package(
        self, threads: Threads, monkeypatch: pytest.MonkeyPatch, server: ServerArguments
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        session = Remctl(timeout=20)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(remctl.RemctlError, match="thread"):
                await session.open(*server)
            assert not session.opened
        assert threads._count == 0
        await session.open(*server)
        assert (await session.run(["example", "hello"])).status == 0
        await session.close()


class TestThreadsUnderLoad:
    """Many calls from several loops at once; each has its own threads in the tests, for the races to show."""

    def test_serve_two_loops_at_once(self, threads: Threads) -> None:
        async def call(number: int) -> int:
            return sum([await threads.run(operator.add, number, 1) for _ in range(10)])

        async def main() -> list[int]:
            async with asyncio.timeout(LIMIT):
                return await asyncio.gather(*map(call, range(300)))

        expected = [10 * (number + 1) for number in range(300)]
        assert in_loops(main, main) == [expected] * 2
        assert not threads._waiting
        assert not threads._begun
        assert threads._count <= threads._limit

    @asynchronous
    async def test_no_call_waits_behind_one_that_is_blocked_while_there_may_be_more(self, threads: Threads) -> None:
        for blocked in range(threads._limit):
            gate = threading.Event()
            held = [asyncio.ensure_future(threads.run(gate.wait, 20)) for _ in range(blocked)]
            for number in range(100):
                async with asyncio.timeout(5):
                    assert await threads.run(operator.add, number, 1) == number + 1
            assert not any(call.done() for call in held)
            gate.set()
            await asyncio.gather(*held)

    @asynchronous
    async def test_no_call_waits_behind_one_that_comes_later_and_blocks(self, threads: Threads) -> None:
        for _ in range(50):
            gate = threading.Event()
            held, calls = [], []
            for _ in range(3):
                held.append(threads.submit(gate.wait, 20))
                calls.append(threads.submit(divmod, 7, 2))
            async with asyncio.timeout(5):
                assert await asyncio.gather(*calls) == [(3, 1)] * 3
            gate.set()
            await asyncio.gather(*held)

    def test_no_call_waits_for_a_loop_that_has_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads, gate = Threads(3, computing=1), threading.Event()

        async def leave() -> None:
            calls = [threads.submit(gate.wait, 20), threads.submit(gate.wait, 20)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()

        async def call() -> tuple[int, int]:
            async with asyncio.timeout(5):
                return await threads.run(divmod, 7, 2)

        asyncio.run(leave())
        assert asyncio.run(call()) == (3, 1)
        gate.set()

    def test_none_is_lost_when_threads_end_at_that_moment(
        self, threads: Threads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_offload, "IDLE", 0.001)

        async def main() -> int:
            async with asyncio.timeout(LIMIT):
                for number in range(500):
                    await asyncio.gather(*(threads.run(divmod, 7, 2) for _ in range(number % 4)))
                    await asyncio.sleep(number % 5 / 2000)  # about as long as threads wait
                await until(lambda: threads._count == 0)
                return 500

        assert in_loops(main, main) == [500, 500]
        assert (len(threads._waiting), threads._count) == (0, 0)

    @asynchronous
    async def test_are_new_in_a_child_forked_while_they_are_busy(self, threads: Threads) -> None:
        gate = threading.Event()
        held = [asyncio.ensure_future(threads.run(gate.wait, 20)) for _ in range(threads._limit + 3)]
        await until(lambda: len(threads._begun) == threads._limit)
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(asyncio.run(threads.run(divmod, 7, 2))[0])
                finally:
                    os._exit(99)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        gate.set()
        assert await asyncio.gather(*held) == [True] * len(held)

    @asynchronous
    async def test_calls_that_are_cancelled_in_great_number_leave_nothing_behind(self, threads: Threads) -> None:
        gate = threading.Event()
        held = [asyncio.ensure_future(threads.run(gate.wait, 20)) for _ in range(threads._limit)]
        calls = [threads.submit(divmod, 7, 2) for _ in range(3000)]
        for call in calls:
            call.cancel()
        gate.set()
        await asyncio.gather(*held)
        assert await threads.run(divmod, 7, 2) == (3, 1)
        await until(lambda: not threads._waiting and len(threads._idle) == threads._count)

    def test_hold_no_loop_that_has_ended(self, threads: Threads) -> None:
        async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
            await threads.run(int)
            return weakref.ref(asyncio.get_running_loop())

        loop = asyncio.run(main())
        asyncio.run(until(lambda: gc.collect() >= 0 and loop() is None))

    def test_are_freed_with_whoever_used_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_offload, "IDLE", 0.01)
        before = set(threading.enumerate())

        async def use() -> weakref.ref[Threads]:
            threads = Threads(2)
            assert await threads.run(divmod, 7, 2) == (3, 1)
            await until(lambda: threads._count == 0)
            return weakref.ref(threads)

        reference = asyncio.run(use())
        asyncio.run(until(lambda: not any(each.name == "remctl" for each in set(threading.enumerate()) - before)))
        gc.collect()
        assert reference() is None


def in_loops(*mains: Callable[[], Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutine functions at the same time, each in a loop on a thread of its own."""
    with ThreadPoolExecutor(len(mains)) as pool:
        return [running.result() for running in [pool.submit(asyncio.run, main()) for main in mains]]


class TestSilentKdc:
    @asynchronous
    async def test_ends_with_the_time_limit_and_blocks_nobody(
        self, server: ServerArguments, silent_kdc: object, fresh_cache: str
    ) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        opening = asyncio.ensure_future(remctl.aio.remctl(*server, ["x"], ccache=fresh_cache, timeout=0.5))
        pauses = []
        while not opening.done():
            before = loop.time()
            await asyncio.sleep(0.01)
            pauses.append(loop.time() - before)
        assert isinstance(opening.exception(), remctl.RemctlTimeoutError)
        assert "opening the connection" in str(opening.exception())
        assert loop.time() - begin < 0.5 + PROMPT
        assert max(pauses) < 0.3

    @asynchronous
    async def test_keeps_others_up_no_longer_than_their_time_limits(
        self, server: ServerArguments, silent_kdc: object, threads: Threads, fresh_cache: str
    ) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        calls = (remctl.aio.remctl(*server, ["x"], ccache=fresh_cache, timeout=0.5) for _ in range(threads._limit + 8))
        others = (remctl.aio.remctl(*server, ["example", "hello"], timeout=0.5) for _ in range(3))
        outcomes = await asyncio.gather(*calls, *others, return_exceptions=True)
        assert loop.time() - begin < 0.5 + PROMPT
        stuck = outcomes[: threads._limit + 8]
        assert {type(outcome) for outcome in stuck} == {remctl.RemctlTimeoutError}
        assert threads._count == threads._limit


@pytest.fixture
def fresh_cache(box: Sandbox) -> str:
    """Give a cache that has no ticket for the server yet, so that the KDC is asked."""
    name = f"fresh{os.urandom(4).hex()}"
    return box.kinit(box.add_principal(name))
