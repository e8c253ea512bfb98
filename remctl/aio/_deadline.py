"""The end of a call's patience, on the event loop's clock."""

from __future__ import annotations

import asyncio


class Deadline:
    """One call's time limit.

    Args:
        limit: seconds for the whole call, counted from now; None is without limit.
    """

    __slots__ = ("limit", "when")

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.when = None if limit is None else asyncio.get_running_loop().time() + limit

    def remaining(self) -> float | None:
        """Return the seconds left: 0 once the limit has passed, None without limit."""
        return None if self.when is None else max(0.0, self.when - asyncio.get_running_loop().time())
