"""The end of a call's patience."""

from __future__ import annotations

import asyncio

from aio.running import asynchronous
from remctl.aio._deadline import Deadline


@asynchronous
async def test_counts_down_and_stops_at_zero() -> None:
    deadline = Deadline(0.02)
    left = deadline.remaining()
    assert left is not None
    assert 0 < left <= 0.02
    await asyncio.sleep(0.03)
    assert deadline.remaining() == 0
    assert deadline.limit == 0.02


@asynchronous
async def test_may_have_no_end() -> None:
    deadline = Deadline(None)
    assert deadline.remaining() is None
    assert deadline.when is None
