"""Agents and the server together, with something between them or with one of them dying: each job runs once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.attempts import LIMIT, watched
from jobs.robot.together import HARMS, KINDS, WAITS, Both, Relay, both, sweep_soon
from jobs.runners import until
from jobs.web.served import Served
from remctl.jobs.robot import _spool
from remctl.jobs.robot._errors import LeavingError, UnknownRobotError
from remctl.jobs.states import JobState, Reason, RobotStatus

S = JobState


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    """Give folders for a server and agents."""
    with both(request, tmp_path) as made:
        yield made


@pytest.fixture
def served(site: Both) -> Iterator[Served]:
    """Give a running server."""
    with Served(site.service) as started:
        yield started


class TestHarm:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("harm", HARMS)
    def test_to_one_message_changes_nothing(self, site: Both, served: Served, kind: str, harm: str) -> None:
        site.here.install(WAITS)
        job = site.order()
        with Relay(served.port, kind, harm) as relay, site.here.working(relay.url, timeout=0.4):
            site.here.begun()
            if kind == "heartbeat3":
                assert relay.harmed.wait(LIMIT)
                seen = len(relay.statuses(kind))
                until(lambda: len(relay.statuses(kind)) > seen)
            site.here.open()
        assert relay.harmed.is_set()
        assert site.ended(job) == (S.SUCCESS, 1)
        assert site.here.lines() == ["on"]
        assert site.here.states() == []
        assert {each.status for each in relay.passed if each.kind == kind} <= {200, 409}
        assert relay.statuses("final")[0] == 200

    @pytest.mark.parametrize("kind", KINDS)
    def test_by_a_copy_that_comes_when_all_is_over_changes_nothing(self, site: Both, served: Served, kind: str) -> None:
        site.here.install(WAITS)
        job = site.order()
        with Relay(served.port) as relay:
            with site.here.working(relay.url):
                until(lambda: relay.statuses("heartbeat3"))
                site.here.open()
            other = site.order()
            relay.again(kind)
            site.here.work(relay.url)
        assert (site.ended(job), site.ended(other)) == ((S.SUCCESS, 1), (S.SUCCESS, 1))
        assert site.here.lines() == ["on", "on"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_by_a_copy_that_comes_while_the_next_job_runs_changes_nothing(
        self, site: Both, served: Served, kind: str
    ) -> None:
        site.here.install("say(os.environ['JOB_GUID']); wait()")
        jobs = [site.order() for _ in range(2)]
        with Relay(served.port) as relay, site.here.working(relay.url):
            until(lambda: relay.statuses("heartbeat3"))
            site.here.open()
            until(lambda: relay.statuses("final"))
            (site.here.folder / "gate").unlink(missing_ok=True)
            until(lambda: len(site.here.lines()) == 2)
            relay.again(kind)
            site.here.open()
        assert [site.ended(job) for job in jobs] == [(S.SUCCESS, 1)] * 2
        assert site.here.lines() == [job.guid for job in jobs]


@pytest.mark.usefixtures("url")
class TestRestart:
    def test_of_the_server_while_a_script_runs(self, site: Both) -> None:
        site.here.install(WAITS)
        job = site.order()
        with ExitStack() as servers:
            served = servers.enter_context(Served(site.service))
            with site.here.working(served.url) as agent:
                site.here.begun()
                servers.close()
                site.here.open()
                until(lambda: agent._pace._failures)  # its end could not be told
                site.serve_as(port=served.port)
                servers.enter_context(Served(site.service))
        assert site.ended(job) == (S.SUCCESS, 1)
        assert site.here.lines() == ["on"]

    def test_as_another_server_of_the_same_store(self, site: Both, served: Served) -> None:
        site.here.install(WAITS)
        job = site.order()
        with Served(site.service) as other, Relay(served.port) as relay, site.here.working(relay.url):
            site.here.begun()
            relay.to = other.port
            seen = len(relay.statuses("heartbeat3"))
            until(lambda: len(relay.statuses("heartbeat3")) > seen + 1)
            site.here.open()
        assert site.ended(job) == (S.SUCCESS, 1)


class TestKill:
    def test_while_the_script_runs_is_told_by_the_next_one(self, site: Both, served: Served) -> None:
        site.here.install("say(os.getpid()); wait()")
        job = site.order()
        process = site.here.process(served.url)
        site.here.begun()
        with watched(int(site.here.lines()[0])) as over:
            process.kill()
            process.wait()
            over()
        assert site.ended(job) == (S.IN_PROGRESS, 1)
        site.here.work(served.url)
        ended = site.store.jobs.get(job.id)
        assert (ended.state, ended.reason, ended.attempts) == (S.FAILED, Reason.REPORT, 1)
        assert len(site.here.lines()) == 1

    @pytest.mark.parametrize("moment", ["after_consume", "after_take", "before_start", "before_report", "after_report"])
    def test_at_a_moment_leaves_the_job_to_the_next_one(self, site: Both, served: Served, moment: str) -> None:
        site.here.install("say('ran')")
        job = site.order()
        assert site.here.ended(served.url, failpoint=moment) == -signal.SIGKILL
        site.here.work(served.url)
        assert site.ended(job) == (S.SUCCESS, 1)
        assert site.here.lines() == ["ran"]
        assert site.here.states() == []

    def test_after_the_answer_to_the_end_was_lost_has_it_told_twice(self, site: Both, served: Served) -> None:
        site.here.install("say('ran')")
        job = site.order()
        with Relay(served.port) as relay:
            process = site.here.process(relay.url)
            relay.after = lambda kind: process.kill() if kind == "final" else None
            assert process.wait(LIMIT) == -signal.SIGKILL
            assert (site.state(job), site.here.states()) == (S.SUCCESS, ["results/0000000001.json"])
            relay.after = lambda _: None
            site.here.work(relay.url)
            assert relay.statuses("final") == [200, 200]
        assert site.ended(job) == (S.SUCCESS, 1)
        assert site.here.lines() == ["ran"]
        assert site.here.states() == []

    def test_with_its_memory_lost_costs_one_job_and_no_more(
        self, site: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        sweep_soon(monkeypatch)
        site.here.install(WAITS)
        job, other = site.order(), site.order()
        with Served(site.service) as served:
            process = site.here.process(served.url)
            site.here.begun()
            process.kill()
            process.wait()
            file = site.here.state / "job.json"
            file.write_text(file.read_text()[:10])
            site.here.open()
            site.here.work(served.url)  # the server believes that it is at work, and gives it nothing
            assert f"{file} is damaged, and put aside as {site.here.state / 'refused' / 'job.json'}" in caplog.text
            assert (site.ended(job), site.ended(other)) == ((S.IN_PROGRESS, 1), (S.PENDING, 0))
            site.overdue()
            until(lambda: site.state(job).final)
            site.here.work(served.url)
        assert (site.ended(job), site.store.jobs.get(job.id).reason) == ((S.FAILED, 1), Reason.LOST)
        assert site.ended(other) == (S.SUCCESS, 1)


@pytest.mark.usefixtures("url")
class TestGone:
    def test_for_good_its_job_is_lost(self, site: Both, monkeypatch: pytest.MonkeyPatch) -> None:
        sweep_soon(monkeypatch)
        site.here.install(WAITS)
        job = site.order()
        with Served(site.service) as served:
            process = site.here.process(served.url)
            site.here.begun()
            process.kill()
            process.wait()
            site.gone()
            until(lambda: site.state(job).final)
        ended = site.store.jobs.get(job.id)
        assert (ended.state, ended.reason, ended.attempts) == (S.FAILED, Reason.LOST, 1)
        assert site.store.robots.get(site.robot.guid).status is RobotStatus.DISCONNECTED

    def test_for_good_another_one_of_the_pool_does_its_job(
        self, site: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        sweep_soon(monkeypatch)
        site.may_run_again()
        other = site.other()
        site.here.install(WAITS)
        other.install("say('ran')")
        job = site.order(pool="night")
        with Served(site.service) as served:
            process = site.here.process(served.url)
            site.here.begun()
            process.kill()
            process.wait()
            site.gone()
            until(lambda: site.state(job) is S.PENDING)
            other.work(served.url)
            assert site.ended(job) == (S.SUCCESS, 2)
            site.here.work(served.url)  # after all
        assert "does not take that job" in caplog.text
        assert site.here.states() == ["refused/0000000001.json"]
        assert site.ended(job) == (S.SUCCESS, 2)
        assert other.lines() == ["ran"]

    def test_for_a_while_it_kills_what_it_runs_when_it_is_back(
        self, site: Both, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep_soon(monkeypatch)
        site.may_run_again()
        other = site.other()
        site.here.install("say(os.getpid()); wait()")
        other.install(WAITS)
        job = site.order(pool="night")
        with Served(site.service) as served, Relay(served.port) as relay:
            with site.here.working(relay.url):
                site.here.begun()
                relay.away = lambda _: True
                site.gone()
                until(lambda: site.state(job) is S.PENDING)
                with watched(int(site.here.lines()[0])) as over, other.working(served.url):
                    other.begun()
                    relay.away = lambda _: False
                    over()
                    other.open()
            assert relay.statuses("final") == [409]
        assert site.ended(job) == (S.SUCCESS, 2)
        assert site.here.states() == ["refused/0000000001.json"]

    def test_before_it_begins_it_does_not_begin_what_another_one_has(
        self, site: Both, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep_soon(monkeypatch)
        other = site.other()
        site.here.install("say('twice')")
        other.install(WAITS)
        job = site.order(pool="night")
        with Served(site.service) as served, Relay(served.port) as relay:
            relay.away = lambda kind: kind == "update8"
            with site.here.working(relay.url):
                until(lambda: relay.statuses("consume"))
                site.gone()
                until(lambda: site.store.robots.get(site.robot.guid).job is None)
                with other.working(served.url):
                    other.begun()
                    relay.away = lambda _: False
                    until(lambda: relay.statuses("final"))
                    other.open()
            assert (relay.statuses("update8"), relay.statuses("final")) == ([409], [409])
        assert site.ended(job) == (S.SUCCESS, 2)
        assert (site.here.lines(), other.lines()) == ([], ["on"])

    def test_and_removed_it_is_told_so(self, site: Both, monkeypatch: pytest.MonkeyPatch) -> None:
        sweep_soon(monkeypatch)
        site.here.install(WAITS)
        job = site.order(pool="night")
        with (
            Served(site.service) as served,
            Relay(served.port) as relay,
            pytest.raises(UnknownRobotError),
            site.here.working(relay.url),
        ):
            site.here.begun()
            relay.away = lambda _: True
            site.gone()
            until(lambda: site.state(job).final)
            site.store.robots.remove(site.robot.guid)
            seen = len(relay.statuses("heartbeat3"))
            relay.away = lambda _: False
            until(lambda: len(relay.statuses("heartbeat3")) > seen)
            site.here.open()
        assert site.ended(job) == (S.FAILED, 1)
        assert site.here.states() == ["refused/0000000001.json"]


class TestDisk:
    def test_that_is_full_leaves_the_job_to_others(self, site: Both, served: Served, small_disk: Path) -> None:
        site.here.state = small_disk / "state"
        site.here.install("say('ran')")
        other = site.other()
        other.install("say('ran')")
        job = site.order(pool="night")
        assert site.here.ended(served.url) == 1
        assert f"{site.here.state}: No space left on device" in site.here.log.read_text()
        assert site.ended(job) == (S.PENDING, 0)
        other.work(served.url)
        assert (site.ended(job), site.here.lines()) == ((S.SUCCESS, 1), [])

    def test_that_is_full_is_waited_for(
        self,
        site: Both,
        served: Served,
        small_disk: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        site.here.state = small_disk / "state"
        site.here.install("say('ran')")
        job = site.order()
        line = f"no job is taken: {site.here.state}: No space left on device"
        with pytest.raises(LeavingError), site.here.working(served.url, forever=True, patience=None) as agent:
            until(lambda: caplog.text.count(line) > 1)
            assert site.ended(job) == (S.PENDING, 0)
            monkeypatch.setattr(_spool, "ROOM", 1000)
            until(lambda: site.state(job).final)
            agent.leave()
        assert site.ended(job) == (S.SUCCESS, 1)
        assert {record.levelno for record in caplog.records if record.getMessage() == line} == {logging.ERROR}
