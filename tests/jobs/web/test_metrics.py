"""The numbers at `/metrics`, as Prometheus reads them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.postgres import Postgres
from jobs.runners import ADA, Site, working
from jobs.web.served import Served
from remctl.jobs.service import Service
from remctl.jobs.states import Move
from remctl.jobs.web import _metrics

LABELS: Final = ("script", "state", "reason", "machine")

Numbers = dict[tuple[str, ...], float]

Serve = Callable[..., httpx.Client]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_metrics, "LAG", 0.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a folder with a store."""
    made = Site(tmp_path / "one", f"sqlite:///{tmp_path}/jobs.db", lease=2)
    yield made
    made.close()


@pytest.fixture
def serve(site: Site) -> Iterator[Serve]:
    """Give a function that starts a server, on the folder unless it gets another one, and makes a client of it."""
    with ExitStack() as stack:

        def serving(other: Site | None = None) -> httpx.Client:
            chosen = other or site
            server = msgspec.structs.replace(chosen.settings.server, port=0)
            served = stack.enter_context(Served(Service(chosen.settings._replace(server=server), chosen.store)))
            return stack.enter_context(httpx.Client(base_url=served.url))

        yield serving


def numbers(client: httpx.Client) -> Numbers:
    """Ask; return each number by its name and the values of its labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples]
    return {(each.name, *(each.labels[key] for key in LABELS if key in each.labels)): each.value for each in samples}


def test_an_empty_store_answers_with_nothing_but_zeros(site: Site, serve: Serve) -> None:
    found = numbers(serve())
    assert found["remctl_jobs_up",] == 1
    assert found["remctl_jobs_waiting_seconds",] == 0
    states = ("created", "pending", "in_progress", "stopping", "aborting")
    assert {key: found[key] for key in found if key[0] == "remctl_jobs_open"} == {
        ("remctl_jobs_open", state): 0 for state in states
    }
    assert not [key for key in found if key[0].startswith(("remctl_jobs_ended", "remctl_jobs_run"))]
    assert found["process_resident_memory_bytes",] > 1e6


def test_jobs_that_wait_are_counted_and_the_oldest_has_an_age(site: Site, serve: Serve) -> None:
    site.install("true")
    site.submit()
    site.submit()
    client = serve()
    found = numbers(client)
    assert found["remctl_jobs_open", "pending"] == 2
    assert 0 < found["remctl_jobs_waiting_seconds",] < 60


def test_ends_are_counted_from_the_beginning_of_the_server_and_never_twice(site: Site, serve: Serve) -> None:
    site.install("exit 3", name="bad")
    site.install("sleep 0.2", name="good")
    with working(site):
        site.over(site.submit("good"))
        client = serve()
        before = numbers(client)
        for name in ("good", "good", "bad"):
            site.over(site.submit(name))
    for _ in range(2):
        found = numbers(client)
        assert found["remctl_jobs_ended_total", "good", "success", "exit"] == 2
        assert found["remctl_jobs_ended_total", "bad", "failed", "exit"] == 1
        assert 0.4 < found["remctl_jobs_run_seconds_total", "good", "success", "exit"] < 10
    assert ("remctl_jobs_ended_total", "good", "success", "exit") not in before
    job = site.submit("bad")
    site.store.jobs.ask(job, Move.ABORT, ADA)
    found = numbers(client)
    assert found["remctl_jobs_ended_total", "bad", "aborted", "aborted"] == 1
    assert found["remctl_jobs_ended_total", "good", "success", "exit"] == 2


def test_an_end_counts_only_when_every_earlier_one_must_be_there(site: Site, serve: Serve) -> None:
    site.install("true")
    collector = _metrics.Jobs(site.store, lag=3600)
    site.store.jobs.ask(site.submit(), Move.ABORT, ADA)
    ended = [metric for metric in collector.collect() if metric.name == "remctl_jobs_ended"]
    assert ended[0].samples == []


def test_machines_have_the_time_since_they_were_heard_of(site: Site, serve: Serve) -> None:
    site.store.machines.add("named", "192.0.2.1", False)
    site.store.machines.seen("working", "192.0.2.2")
    found = numbers(serve())
    assert 0 <= found["remctl_jobs_machine_seen_seconds", "working"] < 60
    assert ("remctl_jobs_machine_seen_seconds", "named") not in found


def test_a_database_that_is_away_is_a_number_and_no_error(
    own: Postgres, tmp_path: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path / "one", own.new_database())
    try:
        site.install("true")
        client = serve(site)
        site.store.jobs.ask(site.submit(), Move.ABORT, ADA)
        counted = ("remctl_jobs_ended_total", "work", "aborted", "aborted")
        assert numbers(client)[counted] == 1
        own.stop()
        try:
            found = numbers(client)
        finally:
            own.start()
        assert found["remctl_jobs_up",] == 0
        assert found[counted] == 1
        assert ("remctl_jobs_waiting_seconds",) not in found
        assert "the store cannot be asked for numbers: " in caplog.text
        assert numbers(client)["remctl_jobs_up",] == 1
    finally:
        site.close()


def test_a_store_that_does_not_answer_takes_one_thread_alone(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go = threading.Semaphore(0), threading.Event()
    at_once = []

    def waiting() -> float:
        at_once.append(threading.get_ident())
        asked.release()
        go.wait(20)
        at_once.pop()
        return float(len(at_once))

    monkeypatch.setattr(site.store.jobs, "waiting", waiting)
    found: list[Numbers] = []
    client = serve()
    threads = [threading.Thread(target=lambda: found.append(numbers(client))) for _ in range(3)]
    for thread in threads:
        thread.start()
    asked.acquire()
    go.set()
    for thread in threads:
        thread.join()
    assert [each["remctl_jobs_waiting_seconds",] for each in found] == [0, 0, 0]


def test_the_answer_is_in_the_format_that_is_asked_for(site: Site, serve: Serve) -> None:
    client = serve()
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=")
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_it_is_not_there_where_nobody_wants_it(site: Site, serve: Serve) -> None:
    server = msgspec.structs.replace(site.settings.server, metrics=False)
    assert _metrics.routes(Service(site.settings._replace(server=server), site.store)) == []


def test_the_page_has_every_name(site: Site) -> None:
    page = (Path(__file__).parents[3] / "docs" / "jobs-operations.md").read_text()
    rows = set(re.findall(r"^\| `(remctl_\w+)` \|", page, re.MULTILINE))
    counters = {"remctl_jobs_ended", "remctl_jobs_run_seconds"}
    names = {metric.name for metric in _metrics.Jobs(site.store, 0).collect()}
    assert rows == {f"{name}_total" if name in counters else name for name in names}
