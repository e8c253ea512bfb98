"""Taking turns when very many connections want something at the same moment.

Handshakes that begin together stay together: hundreds of them would be worked on in one round of the event loop, and
hold up everything else in the program for as long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

AT_ONCE: Final = 8
"""Connections that get on with their handshakes in one round of the loop: a few milliseconds' work."""


async def turn() -> None:
    """Go on at once if few have done so in this round of the event loop, and else in one of the next, in order."""
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = _Turns()
    await turns.turn(loop)


class _Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._left = AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._left == AT_ONCE and not self._waiting:
            loop.call_soon(self._next_round, loop)
        if self._left:
            self._left -= 1
        else:
            future = loop.create_future()
            self._waiting.append(future)
            await future

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = AT_ONCE
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():  # cancelled
                future.set_result(None)
                self._left -= 1
        if self._left < AT_ONCE:
            loop.call_soon(self._next_round, loop)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
