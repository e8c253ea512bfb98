"""Robots: very many at one server, with jobs; how soon it answers, whether every job is done once, where it tops out.

The server is `remctl-jobs serve` in a process of its own, the robots are in another one (robots_worker.py), and jobs
are submitted by this one to a pool that all robots are of.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from types import TracebackType
from typing import Any, Final, Self

import psutil
from goals import Goal
from installed import daemon, databases, new_folder, new_store
from robots_worker import INTERVAL
from sqlalchemy import func, select

from remctl.jobs.states import JobState
from remctl.jobs.store import Order, Store
from remctl.jobs.store._schema import jobs

NAMES: Final = ("jobs-robots",)

WORKER: Final = str(Path(__file__).with_name("robots_worker.py"))
POOL: Final = "bench"
ORDER: Final = Order("bench", {}, "ada@EXAMPLE.ORG", pool=POOL)

ROBOTS: Final = 1_000
RATES: Final = (100, 200, 400, 800, 1600)
"""Jobs per second: the first one is to be held, and the others are tried as long as they are."""

OFFERED: Final = 1.05
"""How many times as many are submitted, so that none too few are handed out because of what is on its way."""

LATENCY: Final = 100.0
"""Milliseconds within which 99 of 100 heartbeats are to be answered."""

RISE: Final = 4.0
"""Seconds that a rate lasts before it is measured, in which what is prepared once is prepared."""

FIRST: Final = 30.0
"""Seconds for which the first rate is measured."""

STEP: Final = 10.0
"""Seconds for which each other one is."""

TICK: Final = 0.1
"""Seconds between two submissions."""

PATIENCE: Final = 60.0
"""Seconds after which a job that has not ended is lost."""


class Robots:
    """One run of this benchmark.

    Args:
        quick: whether to do it with a tenth of the robots in a tenth of the time; they are ten times as fast then, and
            the server has as much to do.
    """

    def __init__(self, quick: bool) -> None:
        self._pace = 0.1 if quick else 1.0
        self._count = round(ROBOTS * self._pace)
        self.results: dict[str, Any] = {}
        self.goals: list[Goal] = []

    def run(self, name: str) -> None:
        """Measure one of `NAMES`, print it, and add it to the results."""
        with databases() as new:
            self.results[name] = {kind: self._measure(kind, make()) for kind, make in new.items()}

    def _measure(self, kind: str, url: str) -> dict[str, Any]:
        interval = INTERVAL * self._pace
        print(f"\n{self._count} robots with a heartbeat every {interval:g} s and jobs, {kind}")
        store = new_store(url)
        guids = [store.robots.add(f"robot {number}", pool=POOL).guid for number in range(self._count)]
        submitted: list[str] = []
        steps: dict[int, dict[str, Any]] = {}
        with _server(url) as (server, port), _Fleet(port, self._pace, guids) as fleet:
            time.sleep(interval)  # in which all are heard
            for rate in RATES:
                with _submitting(store, rate * OFFERED, submitted):
                    time.sleep(RISE)
                    steps[rate] = _measured(fleet, server, (STEP if steps else FIRST) * self._pace)
                print(_line(rate, steps[rate]), flush=True)
                if not _held(rate, steps[rate]):
                    break
            lost = _lost(store, submitted)
            doubled = len(fleet.doubled() | _repeated(store))
        store.close()
        held = max((rate for rate in steps if _held(rate, steps[rate])), default=0)
        print(f"  {held} jobs/s were held; of {len(submitted)} jobs {lost} were lost, and {doubled} were had twice")
        title, first = f"{self._count} robots, {kind}", steps[RATES[0]]
        self.goals += [
            Goal(f"{title}: heartbeat, 99 of 100 in", first["p99"], LATENCY, False, "ms"),
            Goal(f"{title}: jobs handed out", first["rate"], RATES[0], True, "/s"),
            Goal(f"{title}: jobs lost or had twice", lost + doubled, 0, False, ""),
        ]
        return {"steps": steps, "held": held, "submitted": len(submitted), "lost": lost, "doubled": doubled}


def _measured(fleet: _Fleet, server: int, seconds: float) -> dict[str, Any]:
    process = psutil.Process(server)
    before = sum(process.cpu_times()[:2])
    found = fleet.measured(seconds)
    cuts = quantiles(found["beats"], n=100)
    return {
        "rate": found["given"] / found["seconds"],
        "p50": cuts[49],
        "p99": cuts[98],
        "longest": max(found["beats"]),
        "server": (sum(process.cpu_times()[:2]) - before) / found["seconds"],
        **found,
    }


def _held(rate: int, step: Mapping[str, Any]) -> bool:
    return bool(step["rate"] >= rate and step["p99"] < LATENCY)


def _line(rate: int, step: Mapping[str, Any]) -> str:
    return (
        f"  {rate:4} jobs/s"
        ": {rate:6.1f} handed out; heartbeats {p50:.1f} ms, 99 of 100 in {p99:.1f}, all in {longest:.1f};"
        " {refused} requests refused; cores: server {server:.2f}, robots {robots:.2f}"
    ).format(**step)


# What it is made of


@contextlib.contextmanager
def _server(url: str) -> Iterator[tuple[int, int]]:
    """Have a server work; gives its pid and its port."""
    with tempfile.TemporaryDirectory() as place:
        config = new_folder(Path(place), {"server": {"port": 0}}, database=url)
        with daemon(config, "serve", r"serving http://127\.0\.0\.1:(\d+)\n(?:.*\n)*.*ready") as (pid, port):
            yield pid, int(port)


class _Fleet:
    """The process with the robots, which ends with a `with`."""

    def __init__(self, port: int, pace: float, guids: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, WORKER, str(port), str(pace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell(json.dumps(guids))

    def measured(self, seconds: float) -> dict[str, Any]:
        """Return what the robots see in so many seconds."""
        self._tell("begin")
        self._heard()
        time.sleep(seconds)
        self._tell("end")
        return self._heard()

    def doubled(self) -> set[str]:
        """Return the jobs that robots have taken, or begun, more than once."""
        self._tell("jobs")
        found = self._heard()
        return {job for counts in found.values() for job, count in counts.items() if count > 1}

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the robots have ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()


@contextlib.contextmanager
def _submitting(store: Store, rate: float, submitted: list[str]) -> Iterator[None]:
    """Submit so many jobs per second while the `with` lasts."""
    over = threading.Event()

    def submit() -> None:
        begin = time.monotonic()
        done = 0
        while not over.wait(TICK):
            due = int((time.monotonic() - begin) * rate) - done
            submitted.extend(job.guid for job in store.jobs.submit_all([ORDER] * due))
            done += due

    with ThreadPoolExecutor(1) as executor:
        submitting = executor.submit(submit)
        try:
            yield
        finally:
            over.set()
        submitting.result()


def _lost(store: Store, submitted: Sequence[str]) -> int:
    """Wait until all jobs have ended; return how many have not, or not with success."""
    deadline = time.monotonic() + PATIENCE
    counted = select(func.count()).select_from(jobs)
    while True:
        with store.database.read() as connection:
            unfinished = connection.execute(counted.where(jobs.c.ended_at.is_(None))).scalar_one()
            if not unfinished or time.monotonic() > deadline:
                return len(submitted) - connection.execute(counted.where(jobs.c.state == JobState.SUCCESS)).scalar_one()
        time.sleep(TICK)


def _repeated(store: Store) -> set[str]:
    """Return the jobs that were handed out more than once."""
    with store.database.read() as connection:
        return set(connection.scalars(select(jobs.c.guid).where(jobs.c.attempts > 1)))
