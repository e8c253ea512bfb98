"""Taking turns when very many connections want something at the same moment."""

from __future__ import annotations

import asyncio

from aio.running import asynchronous
from remctl.aio._turns import AT_ONCE, turn


async def rounds(order: list[int], number: int) -> None:
    """Take a turn, and note it."""
    await turn()
    order.append(number)


class TestTurn:
    @asynchronous
    async def test_does_not_wait_when_few_want_one(self) -> None:
        order: list[int] = []
        for number in range(AT_ONCE):
            coroutine = rounds(order, number)
            try:
                coroutine.send(None)
            except StopIteration:
                continue
            raise AssertionError(f"{number} waits")
        assert order == list(range(AT_ONCE))

    @asynchronous
    async def test_comes_to_so_many_in_each_round_of_the_loop_in_order(self) -> None:
        order: list[int] = []
        tasks = [asyncio.ensure_future(rounds(order, number)) for number in range(3 * AT_ONCE + 1)]
        sizes = []
        while len(order) < len(tasks):
            before = len(order)
            await asyncio.sleep(0)
            sizes.append(len(order) - before)
        assert max(sizes) == AT_ONCE
        assert order == list(range(len(tasks)))
        await asyncio.gather(*tasks)

    @asynchronous
    async def test_passes_over_who_was_cancelled(self) -> None:
        order: list[int] = []
        tasks = [asyncio.ensure_future(rounds(order, number)) for number in range(2 * AT_ONCE)]
        await asyncio.sleep(0)
        for task in tasks[AT_ONCE:-1]:
            task.cancel()
        await asyncio.wait(tasks)
        assert order == [*range(AT_ONCE), 2 * AT_ONCE - 1]

    @asynchronous
    async def test_newcomers_do_not_overtake(self) -> None:
        order: list[int] = []
        first = [asyncio.ensure_future(rounds(order, number)) for number in range(2 * AT_ONCE)]
        await asyncio.sleep(0)
        last = asyncio.ensure_future(rounds(order, 2 * AT_ONCE))
        await asyncio.wait([*first, last])
        assert order == list(range(2 * AT_ONCE + 1))
