"""The runner where the machine, the clock or other jobs make it hard."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

import remctl
from jobs.attempts import LIMIT, Attempts, children_of
from jobs.postgres import Postgres
from jobs.runners import ADA, WAIT, MakeSite, Site, process, until, working
from remctl.jobs.attempt import Attempt
from remctl.jobs.runner import Runner, _runner
from remctl.jobs.runner._clock import Clock
from remctl.jobs.states import JobState, Move, Reason
from remctl.jobs.store import Ended, Job, Order

SECRET = ("[parameters.token]", 'type = "secret"')


class TestSignsOfLife:
    def test_go_on_while_the_runner_is_busy_with_something_else(
        self, make: MakeSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = make("one", lease=2), make("two", lease=2)
        one.install(WAIT)
        two.share(one.settings.scripts / "work.sh")
        busy, enough = threading.Event(), threading.Event()
        job = one.submit()
        with working(one):
            one.begun()

            def verify(*_: object) -> bytes:
                busy.set()
                assert enough.wait(LIMIT)
                return b"true"

            monkeypatch.setattr(_runner, "verify", verify)
            other = one.submit()
            until(busy.is_set)
            first = one.attempt(job).lease_until
            until(lambda: one.attempt(job).lease_until > first + 4)  # which is twice the lease
            assert two.store.attempts.sweep() == []
            monkeypatch.undo()
            enough.set()
            one.open()
            assert one.over(job).state is JobState.SUCCESS
            assert one.over(other).state is JobState.SUCCESS
        assert [attempt.reason for attempt in one.attempts(job)] == [Reason.EXIT]
        # What was claimed and took longer than a lease to begin does not begin: somebody else might have had it.
        assert [attempt.reason for attempt in one.attempts(other)] == [Reason.NOT_STARTED, Reason.EXIT]
        assert len(one.lines()) == 2


class TestClocks:
    def test_of_runners_do_not_count(self, make: MakeSite, postgres: Postgres) -> None:
        url = postgres.new_database()
        sites = [make(name, url, lease=4, concurrency=2) for name in ("early", "late")]
        script = sites[0].install(WAIT)
        sites[1].share(script)
        made = [sites[0].submit() for _ in range(4)]
        with process(sites[0], clock="-10m"), process(sites[1], clock="+10m"):
            sites[0].begun(4)
            first = sites[0].attempt(made[0]).lease_until
            until(lambda: sites[0].attempt(made[0]).lease_until > first + 5)
            sites[0].open()
            for job in made:
                found = sites[0].over(job)
                assert found.state is JobState.SUCCESS
                assert found.started_at is not None
                assert found.ended_at is not None
                assert 0 < found.ended_at - found.started_at < 60
        assert {sites[0].attempt(job).runner for job in made} == {"early", "late"}
        assert len(sites[0].lines()) == 4

    def test_that_are_set_give_the_others_time_to_say_that_they_live(self, monkeypatch: pytest.MonkeyPatch) -> None:
        moment = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: moment)
        clock = Clock(lease=60)
        assert clock.goes_on(5000)
        moment += 15
        assert clock.goes_on(5016)
        moment += 15
        assert not clock.goes_on(8631)  # an hour later
        moment += 45
        assert not clock.goes_on(8676)
        moment += 15
        assert clock.goes_on(8691)
        assert not clock.goes_on(5091)  # and back again

    def test_that_are_set_lose_no_job(self, make: MakeSite) -> None:
        """With SQLite the store's clock is the machine's, and each program sees the step at a moment of its own."""
        one, two = make("one", lease=4), make("two", lease=4)
        one.install(WAIT)
        two.share(one.settings.scripts / "work.sh")
        steps = one.settings.folder / "clock"
        steps.write_text("+0\n")
        with process(one, clock=steps) as runner:
            job = one.submit()
            one.begun()
            with process(two, clock=steps):
                known = until(lambda: [machine.seen_at for machine in one.store.machines.all()])
                assert known
                steps.write_text("+1h\n")
                until(lambda: one.attempt(job).lease_until > time.time() + 3000)
                one.open()
                assert one.over(job).state is JobState.SUCCESS
            runner.send_signal(signal.SIGTERM)
            assert runner.wait(LIMIT) == 0
        assert len(one.lines()) == 1


class TestAStoreThatRefuses:
    def test_to_show_output_does_not_end_what_runs(
        self, make: MakeSite, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = make(url=postgres.new_database(), lease=3)
        site.install(f"echo one; {WAIT}")
        refused = threading.Event()

        def show(*_: object) -> None:
            refused.set()
            raise OperationalError("UPDATE", {}, Exception("no"))

        job = site.submit()
        with working(site) as runner:
            monkeypatch.setattr(runner._store.attempts, "show", show)
            until(refused.is_set)
            first = site.attempt(job).lease_until
            until(lambda: site.attempt(job).lease_until > first + 3)
            site.open()
            assert site.over(job).state is JobState.SUCCESS

    def test_one_end_takes_the_others(self, make: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
        site = make(concurrency=2)
        site.install(f"{WAIT}; echo too much")
        one, two = site.submit(), site.submit()
        with working(site) as runner:
            site.begun(2)
            settle = runner._store.attempts.settle

            def settling(attempt: int, ended: Ended) -> Job:
                if ended.output.stdout:
                    raise DataError("UPDATE", {}, Exception("too long"))
                return settle(attempt, ended)

            monkeypatch.setattr(runner._store.attempts, "settle", settling)
            site.open()
            assert site.over(one).state is site.over(two).state is JobState.SUCCESS

    @pytest.mark.parametrize(
        "error", [PoolTimeoutError("no connection is free"), OSError(errno.EMFILE, "no descriptor")]
    )
    def test_for_a_moment_is_asked_again(self, site: Site, error: Exception) -> None:
        site.install("true")
        with working(site) as runner:
            failures = {"beat": [error], "claim": [error], "start": [error], "settle": [error]}
            for name, left in failures.items():
                setattr(runner._store.attempts, name, _failing(getattr(runner._store.attempts, name), left))
            job = site.submit()
            assert site.over(job).state in (JobState.SUCCESS, JobState.FAILED)
            assert site.over(site.submit()).state is JobState.SUCCESS

    def test_signs_of_life_for_long_does_not_end_what_is_taken_afterwards(
        self, make: MakeSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = make(lease=2)
        site.install("true")
        with working(site) as runner:
            away = OperationalError("UPDATE", {}, Exception("away"))
            monkeypatch.setattr(runner._store.attempts, "beat", _failing(runner._store.attempts.beat, [away] * 1000))
            until(lambda: runner._heard < time.monotonic() - 2)
            assert site.over(site.submit()).state is JobState.SUCCESS

    def test_in_a_way_that_nobody_has_thought_of_ends_the_runner(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner = Runner(site.settings, site.store)
        failing = _failing(runner._store.attempts.beat, [ZeroDivisionError()])
        monkeypatch.setattr(runner._store.attempts, "beat", failing)
        with pytest.raises(ZeroDivisionError):
            runner.run()


def _failing(call: Callable[..., Any], failures: list[Any]) -> Callable[..., Any]:
    def failing(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return call(*arguments, **options)

    return failing


class TestAKeeperThatIsStuck:
    def test_does_not_hold_up_whoever_speaks_to_it(self, tmp_path: Path) -> None:
        with Attempts(tmp_path) as attempts:
            attempt = attempts.begin("sleep 300")
            os.kill(attempt.keeper, signal.SIGSTOP)
            try:
                for _ in range(2000):
                    attempt.stop()
                    attempt.abort()
            finally:
                os.kill(attempt.keeper, signal.SIGCONT)


class TestExhaustion:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
    def test_of_the_machine_is_no_fault_of_jobs(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(_runner, "PAUSE", 0.3)
        prepare = Attempt.prepare
        failures = [OSError(number, os.strerror(number))]

        def preparing(*arguments: Any, **options: Any) -> Attempt:
            if failures:
                raise failures.pop()
            return prepare(*arguments, **options)

        monkeypatch.setattr(Attempt, "prepare", preparing)
        site.install("true")
        job = site.submit()
        with working(site):
            assert site.over(job).state is JobState.SUCCESS
        first, second = site.attempts(job)
        assert (first.reason, second.reason) == (Reason.NOT_STARTED, Reason.EXIT)
        assert f"job {job} is not begun, nor any other for 0.3 s" in caplog.text

    def test_of_a_disk_leaves_the_job_to_be_run_later(self, site: Site, small_disk: Path) -> None:
        site.settings.attempts.symlink_to(small_disk)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"\0" * 400_000)
        site.install("true")
        job = site.submit()
        with process(site):
            until(lambda: f"job {job} is not begun, nor any other" in site.log.read_text())
            filler.unlink()
            assert site.over(job).state is JobState.SUCCESS


class TestSecrets:
    def test_are_seen_by_nobody_else(self, site: Site) -> None:
        canary = "canary-5f0c7a0e"
        body = f"grep -q {canary[:6]} $JOB_PARAMETERS && echo $$ >> $ran; until [ -e $gate ]; do sleep 0.02; done"
        site.install(body, *SECRET)
        values = {"token": canary}
        order = Order("work", {}, ADA, secrets=values)
        with process(site):
            (job,) = site.store.jobs.submit_all([order])
            site.begun()
            for each in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    if each.name == str(os.getpid()):
                        continue
                    try:
                        assert canary.encode() not in (each / name).read_bytes()
                    except (FileNotFoundError, ProcessLookupError, PermissionError):
                        continue
            site.open()
            assert site.over(job.id).state is JobState.SUCCESS
        site.store.close()
        for file in site.settings.folder.parent.glob("jobs.db*"):
            assert canary.encode() not in file.read_bytes(), file
        assert canary not in site.log.read_text()


class TestUnderCron:
    def test_it_works_with_nothing_around_it(self, site: Site) -> None:
        site.install("printf '%s\\n' \"$JOB_PARAM_PATH\" $LANG", "[parameters.path]", 'type = "text"')
        job = site.submit(path="/é€")
        program = site.settings.folder / "program.py"
        with process(site):
            pass  # it has written the program
        package = Path(remctl.__file__).parents[1]
        words = f"env -i PYTHONPATH={package} {sys.executable} {program} {site.file} <&- >&- 2>&-"
        started = subprocess.Popen(["/bin/sh", "-c", f"exec {words}"], cwd="/")
        try:
            assert site.over(job).state is JobState.SUCCESS
            assert site.store.jobs.output(job).stdout.decode() == "/é€\nC.UTF-8\n"
            started.send_signal(signal.SIGTERM)
            assert started.wait(LIMIT) == 0
        finally:
            started.kill()
            started.wait()


class TestManyJobs:
    def test_leave_no_processes_behind(self, make: MakeSite) -> None:
        site = make(concurrency=8)
        site.install("(sleep 300 &) ; (exit 0) & (exec sleep 300 >/dev/null 2>&1 </dev/null &)")
        before = set(children_of(os.getpid()))
        for _ in range(40):
            site.submit()
        with working(site):
            until(lambda: not site.store.jobs.open()[JobState.PENDING], 40)
            until(lambda: not any(site.store.jobs.open().values()), 40)
            until(lambda: set(children_of(os.getpid())) <= before)

    def test_of_one_user_leave_room_for_those_of_others(self, make: MakeSite) -> None:
        site = make(concurrency=4, per_user=2)
        site.install(WAIT)
        site.install("true", name="quick")
        for _ in range(6):
            site.submit()
        with working(site):
            site.begun(2)
            job = site.store.jobs.submit("quick", {}, "bob@EXAMPLE.ORG")
            assert site.over(job.id).state is JobState.SUCCESS
            assert site.store.jobs.open()[JobState.IN_PROGRESS] == 2
            site.open()
            until(lambda: not any(site.store.jobs.open().values()))

    def test_that_wait_for_a_script_do_not_hold_up_others(self, make: MakeSite) -> None:
        site = make(concurrency=2)
        site.install(WAIT, "concurrency = 1")
        site.install("true", name="quick")
        for _ in range(50):
            site.submit()
        with working(site):
            site.begun()
            assert site.over(site.submit("quick")).state is JobState.SUCCESS
            for job in site.store.jobs.listed(states=[JobState.PENDING], limit=100):
                site.store.jobs.ask(job.id, Move.ABORT, ADA)
            site.open()


class TestHouse:
    def test_says_which_machine_it_is_on(self, site: Site) -> None:
        with working(site):
            (machine,) = until(site.store.machines.all)
        assert machine.name == socket.gethostname()
        assert machine.address
        assert not machine.certified
