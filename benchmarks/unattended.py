"""The jobs: how many can be submitted and claimed, with how much history, and how soon one begins.

procrastinate has the same PostgreSQL.  Claimers are threads here and tasks there, all in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import procrastinate
from goals import Goal
from installed import COMMAND, New, daemon, databases, new_folder, new_store
from jobs.web.pages import opened
from sqlalchemy import text

from remctl.jobs.client import Client
from remctl.jobs.store import Order, Store, Taker, new_bid
from remctl.testing import Sandbox

NAMES: Final = ("jobs-throughput", "jobs-history", "jobs-latency", "jobs-page")

CLAIMERS: Final = 50
SUBMITTERS: Final = 8
OWNER: Final = "ada@EXAMPLE.ORG"

FINISHED: Final = """
INSERT INTO jobs (
    guid, script_id, sha256, parameters, owner, rank, state, reason, created_at, due_at, started_at, ended_at, attempts,
    losses, exit_status
)
SELECT 'old-' || n, 1, '', '{}', 'user' || (n % 100) || '@EXAMPLE.ORG', 0, 4, 'exit', n, n, n, n, 1, 0, 0 FROM
"""
SERIES: Final = {
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)",
    "postgresql": "generate_series(1, {count}) AS s(n)",
}


class Unattended:
    """One run of these benchmarks.

    Args:
        box: the running sandbox.
        quick: whether to do about a tenth of everything.
    """

    def __init__(self, box: Sandbox, quick: bool) -> None:
        self._box = box
        self._quick = quick
        self.results: dict[str, Any] = {}
        self.goals: list[Goal] = []

    def run(self, name: str) -> None:
        """Measure one of `NAMES`, print it, and add it to the results."""
        measure: dict[str, Callable[[New], object]] = {
            "jobs-throughput": self._throughput,
            "jobs-history": self._history,
            "jobs-latency": self._latency,
            "jobs-page": self._page,
        }
        with databases() as new:
            self.results[name] = measure[name](new)
        sys.stdout.flush()

    # Submitted and claimed

    def _throughput(self, new: New) -> dict[str, Any]:
        count = 1_000 if self._quick else 10_000
        rounds = 1 if self._quick else 3
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for batch in (1, 10):
                for kind in ("sqlite", "postgresql"):
                    found.setdefault(f"{kind} {batch}", []).append(_ours(new[kind](), count, batch))
                other = asyncio.run(_procrastinate(new["postgresql"](), count, batch))
                found.setdefault(f"procrastinate {batch}", []).append(other)
        print(
            f"\nJobs submitted by {SUBMITTERS} and claimed by {CLAIMERS}: jobs/s, median of {rounds} rounds of {count}"
            " (the number is that of jobs in a call; procrastinate claims one at a time)"
        )
        rates: dict[str, dict[str, float]] = {}
        for who, times in found.items():
            submit, claim = (median(column) for column in zip(*times, strict=True))
            both = median(sum(each) for each in times)
            rates[who] = {"submit": count / submit, "claim": count / claim, "both": count / both}
            print(
                "  {:17} submit {submit:8.0f}  claim {claim:8.0f}  submitted and claimed {both:8.0f}".format(
                    who, **rates[who]
                )
            )
        for batch in (1, 10):
            ours, theirs = rates[f"postgresql {batch}"], rates[f"procrastinate {batch}"]
            for kind, goal in (("sqlite", 500), ("postgresql", 1000)):
                title = f"submitted and claimed, {batch} in a call, {kind}"
                self.goals.append(Goal(title, rates[f"{kind} {batch}"]["both"], goal, True, "/s"))
            for what in ("submit", "claim"):
                title = f"{what}, {batch} in a call, ours / procrastinate"
                self.goals.append(Goal(title, ours[what] / theirs[what], 1.0, True, "x"))
        return {"rates": rates, "seconds": found}

    # With history

    def _history(self, new: New) -> dict[str, Any]:
        count = 100_000 if self._quick else 1_000_000
        claims = 100 if self._quick else 400
        print(f"\nA claim with {count} finished jobs in the table, against none: median of {claims}")
        found: dict[str, Any] = {}
        for kind in ("sqlite", "postgresql"):
            empty, full = new_store(new[kind]()), new_store(new[kind]())
            _fill(full, kind, count)
            times: dict[str, list[float]] = {"empty": [], "full": []}
            for _ in range(claims):
                for name, store in (("empty", empty), ("full", full)):
                    store.jobs.submit("bench", {}, OWNER)
                    begin = time.perf_counter()
                    assert store.attempts.claim(Taker("bench", "bench"), [new_bid()], 60)
                    times[name].append(time.perf_counter() - begin)
            ratio = median(times["full"]) / median(times["empty"])
            print(
                f"  {kind:10} {median(times['empty']) * 1e3:.2f} ms, with history {median(times['full']) * 1e3:.2f} ms:"
                f" {ratio:.2f} times as long"
            )
            self.goals.append(Goal(f"claim with {count} finished jobs, {kind}", ratio, 2, False, "x"))
            found[kind] = {"empty": times["empty"], "full": times["full"], "ratio": ratio}
            empty.close()
            full.close()
        return found

    # From a submission to the script

    def _latency(self, new: New) -> dict[str, Any]:  # noqa: ARG002  # SQLite in a folder
        count = 10 if self._quick else 50
        with tempfile.TemporaryDirectory() as place, _daemons(self._box, Path(place)) as port:
            times = []
            with Client("127.0.0.1", port, self._box.principal) as client:
                for _ in range(count):
                    begin = time.time()
                    job = client.submit("clock")
                    client.wait(job.id)
                    times.append(float(client.output(job.id).stdout) - begin)
        print(
            f"\nFrom a submission over remctl to the first line of the script: median of {count}"
            f"\n  {median(times) * 1e3:.1f} ms ({min(times) * 1e3:.1f} to {max(times) * 1e3:.1f})"
        )
        self.goals.append(Goal("from submission to the script", median(times) * 1e3, 100, False, "ms"))
        return {"seconds": times}

    # The page

    def _page(self, new: New) -> dict[str, Any]:
        count = 10_000 if self._quick else 100_000
        rounds = 10 if self._quick else 50
        print(f"\nThe page of the history, with {count} jobs: median of {rounds}")
        found: dict[str, Any] = {}
        for kind in ("sqlite", "postgresql"):
            with tempfile.TemporaryDirectory() as place, opened(self._box, Path(place), new[kind]()) as pages:
                pages.site.install("true", name="bench")
                _fill(pages.site.store, kind, count)
                with pages.client(pages.people.olga) as browser:
                    for path in ("/jobs", f"/jobs?before={count // 2}", "/jobs?state=failed"):
                        times = []
                        for _ in range(rounds):
                            begin = time.perf_counter()
                            assert browser.get(path).status_code == 200
                            times.append(time.perf_counter() - begin)
                        found[f"{kind} {path}"] = times
                        print(f"  {kind:10} {path:20} {median(times) * 1e3:.1f} ms")
                        title = f"page {path} with {count} jobs, {kind}"
                        self.goals.append(Goal(title, median(times) * 1e3, 200, False, "ms"))
        return found


@contextlib.contextmanager
def _daemons(box: Sandbox, place: Path) -> Iterator[int]:
    """Have `remctl-jobs up` work, with the script `clock`; gives the port of its remctl server."""
    door = {"listen": "127.0.0.1", "port": 0, "keytab": box.keytab}
    config = new_folder(place, {"server": {"port": 0}, "remctl": door})
    script = place / "clock.sh"
    script.write_text('# /// job\n# description = "Tell the time."\n# ///\necho $EPOCHREALTIME\n')
    install = [*COMMAND, "--config", str(config), "script", "install", str(script)]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    with daemon(config, "up", r"serving on 127\.0\.0\.1 port (\d+)\n(?:.*\n)*.*ready") as (_, port):
        yield int(port)


def _ours(url: str, count: int, batch: int) -> tuple[float, float]:
    """Return the seconds for submitting and for claiming."""
    store = new_store(url)

    def submit() -> None:
        for _ in range(count // SUBMITTERS // batch):
            store.jobs.submit_all([Order("bench", {}, OWNER)] * batch)

    claimed: list[int] = []

    def claim() -> None:
        me = Taker(threading.current_thread().name, threading.current_thread().name)
        while found := store.attempts.claim(me, [new_bid() for _ in range(batch)], 600):
            claimed.extend(each.job.id for each in found)

    times = _seconds(submit, SUBMITTERS), _seconds(claim, CLAIMERS)
    assert len(claimed) == len(set(claimed)) == count // SUBMITTERS // batch * batch * SUBMITTERS
    store.close()
    return times


async def _procrastinate(url: str, count: int, batch: int) -> tuple[float, float]:
    """Return the same for procrastinate, with a pool of as many connections."""
    conninfo = url.replace("postgresql+psycopg", "postgresql")
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo, min_size=15, max_size=15))

    @app.task(name="bench")  # type: ignore[untyped-decorator]
    async def task() -> None:
        pass

    async def submit() -> None:
        for _ in range(count // SUBMITTERS // batch):
            if batch == 1:
                await task.defer_async()
            else:
                await task.batch_defer_async(*({} for _ in range(batch)))

    claimed: list[int] = []

    async def claim() -> None:
        worker = await app.job_manager.register_worker()
        while job := await app.job_manager.fetch_job(queues=None, worker_id=worker):
            claimed.append(job.id or 0)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        times = []
        for work, workers in ((submit, SUBMITTERS), (claim, CLAIMERS)):
            begin = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(workers)))
            times.append(time.perf_counter() - begin)
    assert len(claimed) == len(set(claimed)) == count // SUBMITTERS // batch * batch * SUBMITTERS
    return times[0], times[1]


def _seconds(work: Callable[[], None], count: int) -> float:
    threads = [threading.Thread(target=work) for _ in range(count)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def _fill(store: Store, kind: str, count: int) -> None:
    with store.database.write() as connection:
        connection.execute(text(FINISHED + SERIES[kind].format(count=count)))
    with store.database.single() as connection:
        connection.exec_driver_sql("ANALYZE")
