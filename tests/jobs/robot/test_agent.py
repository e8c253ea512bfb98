"""The algorithm, step by step, against an orchestrator that knows the interface alone."""

from __future__ import annotations

import json
import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.robot.doubles import GUID, Message, Orchestrator, ok
from jobs.robot.sites import Site
from jobs.runners import until
from remctl.jobs.robot import _agent
from remctl.jobs.robot._errors import CredentialsError, LeavingError, UnknownRobotError, UnreachableError
from remctl.jobs.states import JobState

S = JobState

WAITS = "say('on'); wait()"

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('on'); wait()"


class TestSteps:
    def test_no_job_is_the_end(self, here: Site, orchestrator: Orchestrator) -> None:
        here.work(orchestrator.url)
        (message,) = orchestrator.messages
        assert message.kind == "heartbeat2"
        assert message.form["RobotGUID"] == GUID
        assert message.form["IP"] in ("127.0.0.1", "::1")
        assert message.form["Machine"]
        assert (message.form["JobGUID"], message.form["JobName"], message.form["JobType"]) == ("", "", "1")

    def test_a_job_from_its_beginning_to_its_end(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say('ran')")
        job = orchestrator.add("work")
        here.work(orchestrator.url, interval=10)
        assert orchestrator.kinds() == ["heartbeat2", "consume", "update8", "final", "heartbeat2"]
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]
        assert here.lines() == ["ran"]
        assert here.states() == []

    def test_signs_of_life_say_what_runs_and_come_no_sooner_than_they_should(
        self, here: Site, orchestrator: Orchestrator
    ) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        with here.working(orchestrator.url, interval=0.2):
            until(lambda: orchestrator.count("heartbeat3") >= 3)
            here.open()
        beats = [each for each in orchestrator.messages if each.kind.startswith("heartbeat")][:-1]
        assert {each.form["JobGUID"] for each in beats[1:]} == {job.guid}
        assert {each.form["JobName"] for each in beats[1:]} == {"work"}
        assert all(later.at - sooner.at > 0.19 for sooner, later in pairwise(beats))

    @pytest.mark.parametrize(("body", "state"), [("", S.SUCCESS), ("sys.exit(3)", S.FAILED), ("1 / 0", S.FAILED)])
    def test_the_exit_status_decides(self, here: Site, orchestrator: Orchestrator, body: str, state: S) -> None:
        here.install(body)
        job = orchestrator.add("work")
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, state]

    def test_all_jobs_in_their_order(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say(os.environ['JOB_PARAM_N'])")
        for number in range(4):
            orchestrator.add("work", {"n": number})
        here.work(orchestrator.url)
        assert here.lines() == ["0", "1", "2", "3"]

    @pytest.mark.parametrize("name", ["absent", "../work", "", "nul", "a/b"])
    def test_a_script_that_is_not_there_fails_and_says_why(
        self, here: Site, orchestrator: Orchestrator, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        job = orchestrator.add(name)
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, S.FAILED]
        assert "script" in caplog.text

    def test_a_job_that_is_tried_again_runs_again(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say('ran'); sys.exit(1)")
        job = orchestrator.add("work")
        here.work(orchestrator.url)
        job.state = S.PENDING
        here.work(orchestrator.url)
        assert here.lines() == ["ran", "ran"]

    def test_what_runs_too_long_fails(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        here.work(orchestrator.url, run_time=0.2)
        assert job.moves == [S.IN_PROGRESS, S.FAILED]

    def test_only_the_last_runs_are_kept(
        self, here: Site, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("remctl.jobs.robot._spool.KEPT", 2)
        here.install("print('hello')")
        for _ in range(4):
            orchestrator.add("work")
        here.work(orchestrator.url)
        assert [path.name for path in sorted((here.state / "runs").iterdir())] == ["0000000003", "0000000004"]

    def test_forever_waits_longer_each_time_and_takes_what_comes(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say('ran')")
        with pytest.raises(LeavingError), here.working(orchestrator.url, forever=True, patience=None) as agent:
            until(lambda: orchestrator.count("heartbeat2") >= 4)
            orchestrator.add("work")
            here.begun()
            until(lambda: orchestrator.count("final"))
            agent.leave()
        beats = [each.at for each in orchestrator.messages if each.kind == "heartbeat2"]
        assert all(later - sooner > 0.045 for sooner, later in pairwise(beats[:4]))


class TestEnvironment:
    def test_the_task_is_there_and_the_guid_is_not(
        self, here: Site, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REMCTL_ROBOT_GUID", GUID)
        monkeypatch.setenv("SECRET", "x")
        here.install(
            "file = os.environ['JOB_PARAMETERS']\n"
            "mode = os.stat(file).st_mode & 0o777\n"
            "say(json.dumps({'env': dict(os.environ), 'file': json.load(open(file)), 'mode': mode, 'argv': sys.argv}))"
        )
        task = {"name": "Ada", "n": 1.5, "yes": True, "no one": "x", "list": [1], "gone": None, "nul": "a\0b", "é": "x"}
        job = orchestrator.add("work", {**task, "big": "x" * 40_000})
        here.work(orchestrator.url)
        found = json.loads(here.lines()[0])
        assert found["file"] == {**task, "big": "x" * 40_000}
        assert found["mode"] == 0o600
        env = found["env"]
        assert {name for name in env if name.startswith("JOB_PARAM_")} == {
            "JOB_PARAM_NAME",
            "JOB_PARAM_N",
            "JOB_PARAM_YES",
        }
        assert (env["JOB_PARAM_NAME"], env["JOB_PARAM_N"], env["JOB_PARAM_YES"]) == ("Ada", "1.5", "true")
        assert (env["JOB_GUID"], env["JOB_NAME"]) == (job.guid, "work")
        assert "SECRET" not in env
        assert GUID not in here.lines()[0]
        assert not os.path.exists(env["JOB_PARAMETERS"])

    @pytest.mark.parametrize("task", [None, "null", {}])
    def test_no_task_is_none(self, here: Site, orchestrator: Orchestrator, task: Any) -> None:
        here.install("say(os.environ['JOB_TASK'] + open(os.environ['JOB_PARAMETERS']).read())")
        orchestrator.add("work", task)
        here.work(orchestrator.url)
        assert here.lines() == ["{}{}" if task == {} else '"null""null"' if task else "null{}"]


def when(orchestrator: Orchestrator, kind: str, want: S, *, count: int = 1) -> None:
    """Have the only job ended as soon as a message has come."""
    left = [count]

    def before(message: Message) -> None:
        if message.kind == kind:
            left[0] -= 1
            if left[0] == 0:
                orchestrator.want(want)

    orchestrator.before = before


COMMANDS = {"stop": (S.STOPPING, S.STOPPED), "abort": (S.ABORTING, S.ABORTED)}


class TestCommands:
    """The moments at which somebody may want a job ended; each of them has one end."""

    @pytest.mark.parametrize("command", COMMANDS)
    def test_idle_there_is_nothing_to_end(self, here: Site, orchestrator: Orchestrator, command: str) -> None:
        code = {"stop": 20, "abort": 10}[command]
        orchestrator.instead = lambda message: (
            ok(HeartbeatErrorCode=code, HasNewJob=int(not job.moves)) if message.kind == "heartbeat2" else None
        )
        here.install("say('ran')")
        job = orchestrator.add("work")
        here.work(orchestrator.url, interval=10)
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]

    @pytest.mark.parametrize("command", COMMANDS)
    def test_claiming_it_does_not_begin(self, here: Site, orchestrator: Orchestrator, command: str) -> None:
        state, end = COMMANDS[command]
        when(orchestrator, "update8", state)  # between the taking and what is told after it
        here.install("say('ran')")
        job = orchestrator.add("work")
        here.work(orchestrator.url)
        assert job.moves == [end]
        assert here.lines() == []
        assert orchestrator.count("heartbeat3") == 1

    @pytest.mark.parametrize("command", COMMANDS)
    def test_starting_the_first_sign_of_life_tells(self, here: Site, orchestrator: Orchestrator, command: str) -> None:
        state, end = COMMANDS[command]
        when(orchestrator, "heartbeat3", state)
        here.install(DEAF if command == "abort" else WAITS)
        job = orchestrator.add("work")
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, end]

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("body", [WAITS, DEAF])
    def test_running_it_ends(self, here: Site, orchestrator: Orchestrator, command: str, body: str) -> None:
        state, end = COMMANDS[command]
        here.install(body)
        job = orchestrator.add("work")
        with here.working(orchestrator.url):
            here.begun()
            orchestrator.want(state)
        assert job.moves == [S.IN_PROGRESS, end]

    @pytest.mark.parametrize("command", COMMANDS)
    def test_reporting_the_truth_is_told(self, here: Site, orchestrator: Orchestrator, command: str) -> None:
        when(orchestrator, "final", COMMANDS[command][0])
        here.install("say('ran')")
        job = orchestrator.add("work")
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]

    def test_a_stop_that_takes_too_long_may_become_an_abort(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("signal.signal(signal.SIGTERM, lambda *_: say('asked')); say('on'); wait()")
        job = orchestrator.add("work")
        with here.working(orchestrator.url, grace=60):
            here.begun()
            orchestrator.want(S.STOPPING)
            until(lambda: "asked" in here.lines())
            orchestrator.want(S.ABORTING)
        assert job.moves == [S.IN_PROGRESS, S.ABORTED]

    def test_a_script_may_end_in_peace(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("signal.signal(signal.SIGTERM, lambda *_: (say('tidy'), sys.exit(0))); say('on'); wait()")
        job = orchestrator.add("work")
        with here.working(orchestrator.url, grace=60):
            here.begun()
            orchestrator.want(S.STOPPING)
        assert job.moves == [S.IN_PROGRESS, S.STOPPED]
        assert here.lines() == ["on", "tidy"]


class TestRefusals:
    def test_a_robot_that_is_not_known(self, here: Site, orchestrator: Orchestrator) -> None:
        orchestrator.instead = lambda _: ok(HeartbeatErrorCode=101, ErrorText=f"no robot {GUID}", HasNewJob=0)
        with pytest.raises(UnknownRobotError):
            here.work(orchestrator.url)

    def test_a_robot_that_is_not_let_in(self, here: Site, orchestrator: Orchestrator) -> None:
        orchestrator.instead = lambda _: (401, b"<html>")
        with pytest.raises(CredentialsError):
            here.work(orchestrator.url)

    @pytest.mark.parametrize("status", [404, 409, 410])
    def test_an_end_that_is_not_taken_is_kept_and_holds_up_nothing(
        self, here: Site, orchestrator: Orchestrator, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        here.install("say('ran')")
        first, second = orchestrator.add("work"), orchestrator.add("work")
        orchestrator.instead = lambda message: (
            (status, b"") if message.kind == "final" and message.form["guid"] == first.guid else None
        )
        here.work(orchestrator.url)
        assert second.moves == [S.IN_PROGRESS, S.SUCCESS]
        assert here.states() == ["refused/0000000001.json"]
        assert "does not take" in caplog.text

    def test_a_job_that_may_not_begin_does_not_run(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say('ran')")
        orchestrator.add("work")
        orchestrator.instead = lambda message: (409, b"") if message.kind == "update8" else None
        here.work(orchestrator.url)
        assert here.lines() == []
        assert orchestrator.count("final") == 1

    def test_a_new_job_that_is_never_handed_out_is_not_asked_for_without_end(
        self, here: Site, orchestrator: Orchestrator
    ) -> None:
        orchestrator.instead = lambda message: (
            ok(HeartbeatErrorCode=0, HasNewJob=1) if message.kind == "heartbeat2" else None
        )
        with pytest.raises(UnreachableError):
            here.work(orchestrator.url, patience=0.3)
        assert orchestrator.count("consume") < 10

    def test_a_robot_that_is_forgotten_while_its_script_runs_lets_it_end(
        self, here: Site, orchestrator: Orchestrator
    ) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        orchestrator.instead = lambda message: ok(HeartbeatErrorCode=101) if message.kind == "heartbeat3" else None
        with here.working(orchestrator.url):
            until(lambda: orchestrator.count("heartbeat3") >= 2)
            here.open()
        assert job.moves == [S.IN_PROGRESS, S.SUCCESS]


class TestLeaving:
    def test_the_script_is_stopped_and_that_is_told(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        with pytest.raises(LeavingError), here.working(orchestrator.url, interval=60) as agent:
            here.begun()
            agent.leave()
        assert job.moves == [S.IN_PROGRESS, S.STOPPED]
        assert orchestrator.count("heartbeat2") == 1

    def test_asked_again_it_kills(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install(DEAF)
        job = orchestrator.add("work")
        with pytest.raises(LeavingError), here.working(orchestrator.url, grace=60) as agent:
            here.begun()
            agent.leave()
            agent.leave()
        assert job.moves == [S.IN_PROGRESS, S.STOPPED]

    def test_before_the_script_runs_it_does_not(
        self, here: Site, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here.install("say('ran')")
        job = orchestrator.add("work")
        with here.agent(orchestrator.url) as agent, pytest.raises(LeavingError):
            monkeypatch.setattr(_agent, "reached", lambda name: agent.leave() if name == "before_start" else None)
            agent.run()
        assert job.moves == [S.IN_PROGRESS, S.STOPPED]
        assert here.lines() == []

    def test_what_cannot_be_told_within_the_grace_is_told_by_the_next(
        self, here: Site, orchestrator: Orchestrator
    ) -> None:
        here.install(WAITS)
        job = orchestrator.add("work")
        away = threading.Event()
        orchestrator.instead = lambda message: (503, b"") if away.is_set() else None
        with pytest.raises(LeavingError), here.working(orchestrator.url, grace=0.3) as agent:
            here.begun()
            away.set()
            agent.leave()
        assert here.states() == ["results/0000000001.json"]
        away.clear()
        here.work(orchestrator.url)
        assert job.moves == [S.IN_PROGRESS, S.STOPPED]
        assert here.states() == []


def test_a_state_folder_that_was_damaged_is_put_aside(
    here: Site, orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    here.work(orchestrator.url)
    (here.state / "job.json").write_text("{")
    Path(here.state / "results" / "0000000007.json").write_text("[]")
    here.work(orchestrator.url)
    assert sorted(here.states()) == ["refused/0000000007.json", "refused/job.json"]
    assert caplog.text.count("damaged") == 2
