"""What the network, kills and other agents do to an agent: each job runs once, and its end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import remctl.jobs.robot
from jobs.attempts import LIMIT, children_of, watched
from jobs.robot.doubles import GUID, Orchestrator, Relay
from jobs.robot.sites import Site
from jobs.runners import until
from remctl.jobs.robot._errors import OccupiedError, UnreachableError
from remctl.jobs.states import JobState

S = JobState

WAITS = "say('on'); wait()"


class TestRelay:
    @pytest.mark.parametrize("kind", ["heartbeat2", "consume", "update8", "heartbeat3", "final"])
    @pytest.mark.parametrize("harm", Relay.HARMS)
    def test_harm_to_one_message(self, here: Site, orchestrator: Orchestrator, kind: str, harm: str) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        with (
            Relay(orchestrator, kind, harm, delay=0.6) as relay,
            here.working(relay.url, interval=0.1, timeout=0.3),
        ):
            here.begun()
            if kind == "heartbeat3":
                assert relay.done.wait(LIMIT)
                seen = orchestrator.count("heartbeat3")
                until(lambda: orchestrator.count("heartbeat3") > seen)
            here.open()
        assert relay.done.is_set()
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]
        assert here.lines() == ["on"]
        assert here.states() == []


class TestAway:
    def test_without_patience_it_is_over_at_once(self, here: Site) -> None:
        with Orchestrator() as gone:
            pass
        with pytest.raises(UnreachableError, match="/api/robot/heartbeat"):
            here.work(gone.url, patience=0)

    def test_the_script_goes_on_and_its_end_is_told_later(self, here: Site) -> None:
        here.install(WAITS)
        with ExitStack() as stack:
            first = stack.enter_context(Orchestrator())
            job = first.add("work")
            with here.working(first.url, interval=0.1) as agent:
                here.begun()
                stack.close()
                here.open()
                until(lambda: agent._pace._failures >= 2)
                with Orchestrator(first.port) as second:
                    second.jobs = first.jobs
                    until(lambda: second.count("heartbeat2"))
                    assert second.kinds() == ["final", "heartbeat2"]
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]

    def test_several_starts_later_it_is_told_once_and_before_anything_new(
        self, here: Site, orchestrator: Orchestrator
    ) -> None:
        here.install("say('ran')")
        first = orchestrator.add("work")
        orchestrator.instead = lambda message: (502, b"<html>") if message.kind == "final" else None
        for _ in range(3):
            with pytest.raises(UnreachableError):
                here.work(orchestrator.url, patience=0.1)
        orchestrator.instead = lambda _: None
        second = orchestrator.add("work")
        seen = len(orchestrator.messages)
        here.work(orchestrator.url, interval=2)
        assert orchestrator.kinds()[seen:] == ["final", "heartbeat2", "consume", "update8", "final", "heartbeat2"]
        assert first.moves == second.moves == [S.IN_PROGRESS, S.SUCCESS]
        assert here.lines() == ["ran", "ran"]


class TestKills:
    @pytest.mark.parametrize("moment", ["after_consume", "after_take", "before_start", "before_report", "after_report"])
    def test_killed_at_a_moment_the_next_start_ends_what_was_begun(
        self, here: Site, orchestrator: Orchestrator, moment: str
    ) -> None:
        here.install("say('ran')")
        job = orchestrator.add("work")
        assert here.ended(orchestrator.url, failpoint=moment) == -signal.SIGKILL
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]
        assert here.lines() == ["ran"]
        assert here.states() == []

    def test_killed_while_the_script_runs_it_has_failed(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say(os.getpid()); wait()")
        job = orchestrator.add("work")
        process = here.process(orchestrator.url)
        here.begun()
        with watched(int(here.lines()[0])) as over:
            process.kill()
            process.wait()
            here.work(orchestrator.url)
            over()
        assert job.moves == [S.IN_PROGRESS, S.FAILED]
        assert len(here.lines()) == 1

    def test_killed_as_the_script_begins_its_end_counts(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("signal.signal(signal.SIGTERM, signal.SIG_IGN); say('on'); wait()")
        job = orchestrator.add("work")
        assert here.ended(orchestrator.url, "--grace", "0", failpoint="after_start") == -signal.SIGKILL
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, S.FAILED]

    def test_killed_with_its_keeper_nobody_knows_and_it_has_failed(
        self, here: Site, orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
    ) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        process = here.process(orchestrator.url)
        here.begun()
        (keeper,) = children_of(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        process.kill()
        process.wait()
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, S.FAILED]
        assert "nobody knows" in caplog.text

    def test_a_keeper_that_is_killed_alone(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say(os.getppid()); wait()")
        job = orchestrator.add("work")
        with here.working(orchestrator.url):
            here.begun()
            os.kill(int(here.lines()[0]), signal.SIGKILL)
        assert job.moves == [S.IN_PROGRESS, S.FAILED]

    def test_a_signal_ends_it_in_peace(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        process = here.process(orchestrator.url, "--grace", "5")
        here.begun()
        process.terminate()
        assert process.wait(LIMIT) == 7
        assert job.moves == [S.IN_PROGRESS, S.STOPPED]
        assert GUID not in here.log.read_text()


class TestAlone:
    def test_a_second_agent_in_a_folder_is_refused(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install(WAITS)
        orchestrator.add("work")
        with here.working(orchestrator.url):
            here.begun()
            assert here.ended(orchestrator.url) == 6
            with pytest.raises(OccupiedError):
                here.work(orchestrator.url)
            here.open()

    def test_the_guid_is_in_no_argument_of_what_runs(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install(WAITS)
        orchestrator.add("work")
        process = here.process(orchestrator.url)
        here.begun()
        (keeper,) = children_of(process.pid)
        (script,) = children_of(keeper)
        for pid in (process.pid, keeper, script):
            assert GUID.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in (keeper, script):
            assert GUID.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        here.open()
        assert process.wait(LIMIT) == 0
        kept = [path for path in here.state.rglob("*") if path.is_file()]
        assert not [path for path in kept if GUID.encode() in path.read_bytes()]
        assert GUID not in here.log.read_text()


def test_run_by_its_path_it_needs_nothing_that_was_built(here: Site, orchestrator: Orchestrator) -> None:
    here.install("say('ran')")
    job = orchestrator.add("work")
    code = (
        "import runpy, sys\n"
        "for name in ('_remctl', 'cffi', '_cffi_backend', 'sqlalchemy', 'msgspec', 'starlette'):\n"
        "    sys.modules[name] = None\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
    )
    folder = str(Path(remctl.jobs.robot.__file__).parent)
    options = ["--orchestrator", orchestrator.url, "--scripts", str(here.scripts), "--state", str(here.state)]
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, folder, *options], env={"REMCTL_ROBOT_GUID": GUID}, check=True
    )
    assert job.moves == [S.IN_PROGRESS, S.SUCCESS]
