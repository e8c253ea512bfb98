"""The runner: what is told of its jobs when it dies, is halted, or cannot reach the store."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter

import pytest
from sqlalchemy import select, text

from jobs.attempts import lives
from jobs.postgres import Postgres
from jobs.runners import AGAIN, DEAF, WAIT, MakeSite, Site, halted, killed, process, until, working
from remctl.jobs.states import JobState, Reason
from remctl.jobs.store import Taker, new_bid
from remctl.jobs.store._schema import attempts


class TestKilled:
    @pytest.mark.parametrize("moment", ["after_claim", "after_spawn"])
    def test_before_the_script_begins_and_it_runs_once(self, site: Site, moment: str) -> None:
        site.install("echo >> $ran")
        job = site.submit()
        killed(site, moment)
        assert site.store.jobs.get(job).state is JobState.PENDING
        assert site.lines() == []
        with process(site):
            assert site.over(job).state is JobState.SUCCESS
        assert len(site.lines()) == 1
        assert [each.reason for each in site.attempts(job)] == [Reason.NOT_STARTED, Reason.EXIT]

    @pytest.mark.parametrize(
        ("header", "state", "reason"), [((), JobState.FAILED, Reason.LOST), (AGAIN, JobState.SUCCESS, Reason.EXIT)]
    )
    def test_when_it_may_begin_and_it_is_lost(
        self, site: Site, header: tuple[str, ...], state: JobState, reason: Reason
    ) -> None:
        site.install("echo >> $ran", *header)
        job = site.submit()
        killed(site, "after_start")
        with process(site):
            found = site.over(job)
        assert (found.state, found.reason) == (state, reason)
        assert len(site.lines()) == len(header) // 2

    def test_while_the_script_runs_and_it_is_lost(self, site: Site) -> None:
        site.install(DEAF)
        job = site.submit()
        with process(site):
            (pid,) = site.begun()
        with process(site):
            found = site.over(job)
            assert not lives(int(pid))
        assert (found.state, found.reason) == (JobState.FAILED, Reason.LOST)
        assert len(site.lines()) == 1

    def test_when_the_script_has_ended_and_its_end_is_known(self, site: Site) -> None:
        site.install("echo >> $ran; echo out")
        job = site.submit()
        killed(site, "before_finish")
        assert site.store.jobs.get(job).state is JobState.IN_PROGRESS
        with process(site):
            found = site.over(job)
        assert (found.state, found.reason, found.exit_status) == (JobState.SUCCESS, Reason.EXIT, 0)
        assert site.attempt(job).stdout_tail == b"out\n"
        assert len(site.lines()) == 1

    def test_and_the_end_is_damaged(self, site: Site) -> None:
        site.install("echo >> $ran")
        job = site.submit()
        killed(site, "before_finish")
        (ending,) = site.settings.attempts.glob("*/kept/ending.json")
        ending.write_text("{}")
        with working(site):
            found = site.over(job, 5)
        assert (found.state, found.reason) == (JobState.FAILED, Reason.LOST)

    def test_by_each_attempt_of_a_job_that_is_given_up(self, site: Site) -> None:
        site.install("echo >> $ran; kill -9 $(< ${ran%/*}/pid); exec sleep 60", *AGAIN)
        job = site.submit()
        for _ in range(2):
            with process(site, "after_start:stop") as runner:
                halted(runner)
                (site.settings.folder / "pid").write_text(str(runner.pid))
                runner.send_signal(signal.SIGCONT)
                assert runner.wait(20) == -signal.SIGKILL
        with process(site):
            found = site.over(job)
        assert (found.state, found.reason, found.attempts) == (JobState.FAILED, Reason.CRASHES, 2)
        assert len(site.lines()) == 2


class TestTakenOver:
    def test_a_runner_that_was_halted_kills_its_copy_and_writes_nothing(self, make: MakeSite, url: str) -> None:
        one, two = pair(make, url)
        job = one.submit()
        with process(one) as runner:
            (pid,) = one.begun()
            with one.store.database.write():  # so that it holds no lock for ever
                runner.send_signal(signal.SIGSTOP)
                halted(runner)
            with working(two):
                one.begun(2)
                runner.send_signal(signal.SIGCONT)
                until(lambda: not lives(int(pid)))
                one.open()
                found = one.over(job)
            runner.send_signal(signal.SIGTERM)
            assert runner.wait(20) == 0
        assert found == one.store.jobs.get(job)
        assert (found.state, found.reason) == (JobState.SUCCESS, Reason.EXIT)
        results = [(each.runner, each.reason, each.exit_status) for each in one.attempts(job)]
        assert results == [("one", Reason.LOST, None), ("two", Reason.EXIT, 0)]
        assert len(one.lines()) == 2

    def test_a_script_that_was_about_to_begin_does_not(self, make: MakeSite, url: str) -> None:
        one, two = pair(make, url)
        one.open()
        job = one.submit()
        with process(one, "after_start:stop") as runner:
            halted(runner)
            with working(two):
                assert one.over(job).state is JobState.SUCCESS
            runner.send_signal(signal.SIGTERM)
            runner.send_signal(signal.SIGCONT)
            assert runner.wait(20) == 0
        assert len(one.lines()) == 1

    def test_signs_of_life_go_on_while_another_one_is_held(self, make: MakeSite, postgres: Postgres) -> None:
        one, two = pair(make, postgres.new_database(), concurrency=1)
        job = two.submit()
        with working(two):
            one.begun()
            one.submit()
            (held,) = one.store.attempts.claim(Taker("three", "3"), [new_bid()], 1)
            with one.store.database.write() as connection:  # as somebody does who is halted in the middle of a write
                connection.execute(select(attempts).where(attempts.c.id == held.attempt).with_for_update())
                first = two.attempt(job).lease_until
                until(lambda: two.attempt(job).lease_until > first + 2, 5)
            one.open()
            assert two.over(job).state is JobState.SUCCESS

    def test_nothing_is_taken_from_a_runner_of_the_same_name_that_lives(self, make: MakeSite) -> None:
        one, two = make("one", name="same"), make("two", name="same")
        one.install(WAIT)
        one.share(two.install("true", name="other"))
        job = one.submit()
        with working(one):
            one.begun()
            with working(two):
                two.over(two.submit("other"))
                one.open()
                assert one.over(job).state is JobState.SUCCESS


def pair(make: MakeSite, url: str, **runner: int) -> tuple[Site, Site]:
    """Make two folders on one database with a short lease and a script that may run again."""
    one, two = (make(folder, url, lease=2, grace=0.2, **runner) for folder in ("one", "two"))
    two.share(one.install(WAIT, *AGAIN))
    return one, two


class TestStoreAway:
    def test_the_end_is_written_when_it_is_back(self, make: MakeSite, own: Postgres) -> None:
        site = make(url=own.new_database(), lease=1, poll=1)
        site.install(f"{WAIT}; echo out")
        job = site.submit()
        with working(site):
            site.begun()
            own.stop()
            site.open()
            until(lambda: list(site.settings.attempts.glob("*/kept/ending.json")))
            away = time.monotonic()
            until(lambda: time.monotonic() > away + 1.5)  # longer than the lease
            own.start()
            found = site.over(job)
        assert (found.state, found.reason, found.attempts) == (JobState.SUCCESS, Reason.EXIT, 1)
        assert site.attempt(job).stdout_tail == b"out\n"
        assert len(site.lines()) == 1

    def test_for_longer_than_the_lease_scripts_are_killed_and_lost(self, make: MakeSite, own: Postgres) -> None:
        site = make(url=own.new_database(), lease=1)
        site.install(DEAF)
        job = site.submit()
        with working(site):
            (pid,) = site.begun()
            own.stop()
            until(lambda: not lives(int(pid)), 5)
            own.start()
            found = site.over(job)
        assert (found.state, found.reason) == (JobState.FAILED, Reason.LOST)  # nobody has asked for it

    @pytest.mark.parametrize("moment", ["after_claim", "after_spawn"])
    def test_before_the_script_begins_and_it_runs_once(self, make: MakeSite, own: Postgres, moment: str) -> None:
        site = make(url=own.new_database())
        site.install("echo >> $ran")
        job = site.submit()
        with process(site, f"{moment}:stop") as runner:
            halted(runner)
            own.stop()
            runner.send_signal(signal.SIGCONT)
            until(lambda: runner.poll() is not None or "is not begun" in site.log.read_text())
            own.start()
            assert runner.poll() is None, site.log.read_text()
            assert site.over(job).state is JobState.SUCCESS
        assert len(site.lines()) == 1

    def test_without_an_answer_for_longer_than_the_lease_scripts_are_killed(self, make: MakeSite, url: str) -> None:
        site = make(url=url, lease=1)
        site.install(DEAF)
        site.submit()
        with working(site):
            (pid,) = site.begun()
            with site.store.database.write() as connection:
                if not site.store.database.sqlite:
                    connection.execute(text("LOCK TABLE attempts"))
                until(lambda: not lives(int(pid)), 5)

    def test_at_any_moment_nothing_is_doubled(self, make: MakeSite, postgres: Postgres) -> None:
        site = make(url=postgres.new_database(), lease=2, concurrency=2)
        site.install("echo $JOB_ID >> $ran", *AGAIN)
        jobs = [site.submit() for _ in range(20)]
        cut = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with working(site):
            deadline = time.monotonic() + 20
            while not all(site.store.jobs.get(job).state.final for job in jobs):
                assert time.monotonic() < deadline
                with contextlib.suppress(AssertionError):
                    until(lambda: False, 0.1)
                with site.store.database.write() as connection:
                    connection.execute(cut)
        counts = Counter(site.lines())
        assert max(counts.values()) == 1
        for job in map(site.store.jobs.get, jobs):
            assert (job.state is JobState.SUCCESS) == bool(counts[str(job.id)]), job
