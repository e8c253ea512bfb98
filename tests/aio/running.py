"""How the tests of the asyncio face run: each on a loop of its own, in debug mode, that is empty afterwards."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIMIT: Final = 20
"""Seconds after which a test hangs."""


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a coroutine function a test; it fails if it leaves a task behind, or an error that nobody has seen."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(LIMIT):
                await test(*arguments, **named)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others

        asyncio.run(main(), debug=True)
        assert not complaints

    return run


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    while not condition():
        await asyncio.sleep(0.001)


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


class CancelledAt(Awaitable[T]):
    """Waits for a coroutine, and has its task cancelled when it waits for the so-many-th time.

    Args:
        coroutine: what to wait for.
        number: which of its waits, from 1.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], number: int) -> None:
        self._steps = coroutine.__await__()
        self._number = number

    def __await__(self) -> Generator[Any, Any, T]:
        """Pass on what the coroutine waits for."""
        error: BaseException | None = None
        waits = 0
        while True:
            try:
                waited = next(self._steps) if error is None else self._steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            waits += 1
            if waits == self._number:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            error = None
            try:
                yield waited
            except BaseException as raised:
                error = raised
