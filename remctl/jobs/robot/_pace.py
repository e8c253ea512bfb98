"""How soon an agent asks again: later each time, and not all robots at the same moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from remctl.jobs.robot._errors import NotNowError, UnreachableError

FIRST: Final = 1.0
"""Seconds after the first failure."""

MOST: Final = 60.0
"""Seconds between two tries, at the most."""


class Pace:
    """Counts failures and looks for work that were in vain.

    Args:
        interval: seconds between two signs of life, and between the first looks for work.
        patience: seconds after which failures are no longer put up with; None: never.
        clock: seconds that only go forward.
    """

    def __init__(self, interval: float, patience: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._patience = patience
        self._clock = clock
        self._first = min(FIRST, interval)
        self._failures = self._looks = 0
        self._since: float | None = None

    def failed(self, error: NotNowError) -> float:
        """Return the seconds after which to try again.

        Raises:
            UnreachableError: it has failed for so long that there is no point in it.
        """
        now = self._clock()
        self._since = now if self._since is None else self._since
        self._failures += 1
        if self._patience is not None and now - self._since >= self._patience:
            raise UnreachableError(
                f"no use of the orchestrator for {now - self._since:.0f} s: {error.reason}",
                hint="what has to be told is kept, and told by the next start",
            ) from error
        return _spread(min(MOST, self._first * 2.0 ** min(self._failures - 1, 30)))

    def worked(self) -> None:
        """Forget the failures: something has got on."""
        self._failures = 0
        self._since = None

    def idle(self) -> float:
        """Return the seconds after which to look for work again."""
        self._looks += 1
        return max(
            self._interval, _spread(min(max(MOST, self._interval), self._interval * 1.5 ** min(self._looks, 30)))
        )

    def busy(self) -> None:
        """Look often again: there was work."""
        self._looks = 0


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1)  # noqa: S311  # nobody gains by guessing it
