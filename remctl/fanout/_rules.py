"""When a run begins with no further host: `max_fail`, a canary that failed, the end of a batch."""

from __future__ import annotations

import math

from remctl.fanout._results import HostResult, HostState


class Rules:
    """The stop rules of a run.

    Args:
        max_fail: so many failures stop it; None is any number.
        canary: so many hosts come first, and only if all of them are OK do the others; None is no canary.
        batch: so many hosts at a time; None is all.
        pause: seconds between the batches.
    """

    stopped: str | None
    """Why no further host is begun with; None while they are."""
    rule: str | None
    """What that is due to, in a word; see `Progress.stopped`."""
    left: float
    """How many hosts of this batch have not been begun with."""
    resume: float
    """When this batch may begin."""

    def __init__(self, *, max_fail: int | None, canary: int | None, batch: int | None, pause: float) -> None:
        self.stopped = None
        self.rule = None
        self.left = canary or batch or math.inf
        self.resume = 0.0
        self._max_fail = max_fail
        self._failures = 0
        self._canary = canary is not None
        self._batch = batch or math.inf
        self._pause = pause

    def stop(self, rule: str, reason: str) -> None:
        """Begin with no further host; the first reason stands."""
        if self.stopped is None:
            self.rule, self.stopped = rule, reason

    def next_batch(self, now: float) -> None:
        """Note that a batch is over."""
        self._canary = False
        self.left = self._batch
        self.resume = now + self._pause

    @property
    def failures_left(self) -> int | None:
        """How many more failures stop it; None is any number."""
        if self._canary:
            return 1
        return None if self._max_fail is None else max(1, self._max_fail - self._failures)

    def note(self, result: HostResult) -> None:
        """Note what became of a host."""
        if result.state in (HostState.OK, HostState.SKIPPED):
            return
        self._failures += 1
        if self._canary:
            self.stop("canary", f"the canary {result.host} failed: {result.state}")
        elif self._max_fail is not None and self._failures >= self._max_fail:
            self.stop("max_fail", f"{self._failures} failed, which is as many as max_fail allows")
