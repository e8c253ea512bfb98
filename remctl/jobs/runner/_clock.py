"""The store's clock, as a runner sees it."""

from __future__ import annotations

import logging
import math
import time

logger = logging.getLogger(__name__)


class Clock:
    """Sees whether the store's clock was set: others have had no time then to say that they live."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._offset: float | None = None
        self._trusted = -math.inf

    def goes_on(self, now: float) -> bool:
        """Return whether leases that are over by the store's clock are over in truth."""
        moment = time.monotonic()
        before, self._offset = self._offset, now - moment
        if before is not None and abs(self._offset - before) > self._lease / 8:
            logger.warning("the clock of the store was set by %+.1f s", self._offset - before)
            self._trusted = moment + self._lease
        return moment >= self._trusted
