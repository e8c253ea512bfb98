"""Dealing with jobs whose robots are gone, also where no runner works that would do so, and no other robot calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.concurrency import run_in_threadpool

from remctl.jobs.store import AWAY, Store, reason_of

logger = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two sweeps."""

SET: Final = 5.0
"""Seconds by which the store's clock has to be set until it counts."""


class Sweeping:
    """Sweeps the attempts every few seconds.

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
        self._offset: float | None = None
        self.wait()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Sweep, on a thread, for an `async with`: while an application lasts."""
        ending = asyncio.Event()
        task = asyncio.create_task(self._go_on(ending), name="remctl-jobs-sweeping")
        try:
            yield
        finally:
            ending.set()
            await task  # and not cancelled: its thread would go on, with a store that is closed

    def wait(self) -> None:
        """Give everybody time: robots could not be heard."""
        self._trusted = self._clock() + self._patience

    def sweep(self) -> None:
        """Sweep, if everybody has had time."""
        moment = self._clock()
        before, self._offset = self._offset, self._store.database.clock() - moment
        if before is not None and abs(self._offset - before) > SET:
            logger.warning("the clock of the store was set by %+.1f s", self._offset - before)
            self.wait()
        if moment < self._trusted:
            return
        for job in self._store.attempts.sweep():
            logger.warning(
                "job %d is %s: nothing was heard of it in time", job.id, job.state.name, extra={"job": job.id}
            )

    async def _go_on(self, ending: asyncio.Event) -> None:
        while not ending.is_set():
            await run_in_threadpool(self._try)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await ending.wait()

    def _try(self) -> None:
        try:
            self.sweep()
        except Exception as error:  # the next time may be better, and nobody else would go on
            self.wait()
            known = isinstance(error, AWAY)
            logger.warning("cannot look for jobs whose robots are gone: %s", reason_of(error), exc_info=not known)
