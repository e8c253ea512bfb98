"""Dealing with jobs whose robots are gone, also where no runner works that would do so."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from remctl.jobs.store import Store

logger = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two sweeps, at the least."""

SET: Final = 5.0
"""Seconds by which the store's clock has to be set until it counts."""


class Sweeping:
    """Sweeps the attempts now and then; any number of threads may use it.

    Robots have to be given time to be heard: after the start of the server, and after the database was away or its
    clock was set, nothing is swept for a while.

    Args:
        store: the job store.
        patience: seconds of that while.
        clock: gives seconds.
    """

    def __init__(self, store: Store, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._next = -math.inf
        self._offset: float | None = None
        self.wait()

    def wait(self) -> None:
        """Give everybody time: robots could not be heard."""
        with self._lock:
            self._trusted = self._clock() + self._patience

    def go_on(self) -> None:
        """Sweep, if it is time to."""
        with self._lock:
            moment = self._clock()
            if moment < self._next:
                return
            self._next = moment + EVERY
            before, self._offset = self._offset, self._store.database.clock() - moment
            if before is not None and abs(self._offset - before) > SET:
                logger.warning("the clock of the store was set by %+.1f s", self._offset - before)
                self._trusted = moment + self._patience
            if moment < self._trusted:
                return
        for job in self._store.attempts.sweep():
            logger.warning(
                "job %d is %s: nothing was heard of it in time", job.id, job.state.name, extra={"job": job.id}
            )
