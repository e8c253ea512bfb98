"""Numbers for Prometheus, at `/metrics`: what the store says when it is asked, and what this process takes.

While the database is away, `remctl_jobs_up` is 0, and what only the database knows is left out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from remctl.jobs.service import Service
from remctl.jobs.store import Store, reason_of

logger = logging.getLogger(__name__)

LAG: Final = 10.0
"""Seconds after which ends of jobs are counted: a transaction may write an earlier time than one that is seen first."""


def routes(service: Service) -> list[BaseRoute]:
    """Return what is served."""
    if not service.settings.server.metrics:
        return []
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Jobs(service.store, LAG))
    ProcessCollector(registry=registry)
    one = asyncio.Lock()  # at a time: a database that does not answer takes one thread, and not all of them

    async def metrics(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        async with one:
            body = await run_in_threadpool(encode, registry)
        return Response(body, headers={"Content-Type": kind})

    return [Route("/metrics", metrics)]


class Jobs(Collector):
    """Asks the store; one thread at a time.

    Args:
        store: whom it asks.
        lag: seconds after which ends of jobs are counted.
    """

    def __init__(self, store: Store, lag: float) -> None:
        self._store = store
        self._lag = lag
        self._counted = time.time()  # up to this time, by the store's clock
        self._ended: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._took: defaultdict[tuple[str, str, str], float] = defaultdict(float)

    def collect(self) -> Iterator[Metric]:
        """Give the numbers."""
        try:
            found = list(self._ask())
            up = 1
        except (DBAPIError, NoConnectionError) as error:
            logger.warning("the store cannot be asked for numbers: %s", reason_of(error))
            found, up = [], 0
        yield GaugeMetricFamily("remctl_jobs_up", "Whether the job store answers.", value=up)
        yield from found
        yield from self._counters()

    def _ask(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("remctl_jobs_open", "Jobs that are not over, by state.", labels=["state"])
        for state, count in self._store.jobs.open().items():
            states.add_metric([state.name.lower()], count)
        yield states
        yield GaugeMetricFamily(
            "remctl_jobs_waiting_seconds",
            "For how long the oldest job that is due has waited to be taken; 0 if there is none.",
            value=self._store.jobs.waiting(),
        )
        now = self._store.database.clock()
        seen = GaugeMetricFamily(
            "remctl_jobs_machine_seen_seconds", "How long ago the runner of a machine was heard of.", labels=["machine"]
        )
        for machine in self._store.machines.all():
            if machine.seen_at is not None:
                seen.add_metric([machine.name], max(0.0, now - machine.seen_at))
        yield seen
        self._count(now - self._lag)

    def _count(self, until: float) -> None:
        """Add what has ended since the last time."""
        if until <= self._counted:
            return
        for script, state, reason, count, took in self._store.jobs.ended(self._counted, until):
            key = (script, state.name.lower(), str(reason))
            self._ended[key] += count
            self._took[key] += took
        self._counted = until

    def _counters(self) -> Iterator[Metric]:
        labels = ["script", "state", "reason"]
        ended = CounterMetricFamily(
            "remctl_jobs_ended", "Jobs that are over, since this server has started.", labels=labels
        )
        took = CounterMetricFamily("remctl_jobs_run_seconds", "How long their scripts ran, in all.", labels=labels)
        for key, count in self._ended.items():
            ended.add_metric(key, count)
            took.add_metric(key, self._took[key])
        yield from (ended, took)
