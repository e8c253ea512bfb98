"""Agents and the server together: jobs from being submitted to their end, as the store has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from jobs.attempts import lives
from jobs.robot.together import WAITS, Both, Relay, both
from jobs.runners import until
from jobs.web.robots import SECRET
from jobs.web.served import ADA, Served
from remctl.jobs.robot._errors import LeavingError, UnknownRobotError
from remctl.jobs.states import IllegalMoveError, JobState, Move, Reason, RobotStatus
from remctl.jobs.store import Order, Output, StoreError

S = JobState


COMMANDS: Final = [(Move.STOP, S.STOPPED), (Move.ABORT, S.ABORTED)]

TREE: Final = "child = subprocess.Popen(['sleep', '60']); say(os.getpid()); say(child.pid); wait()"
"""A script of two processes, which say who they are."""

DEAF: Final = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {TREE}"


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


@pytest.mark.usefixtures("url")
class TestJob:
    def test_that_ends_well(self, site: Both, served: Served) -> None:
        site.here.install("print('hello'); say('ran')")
        job = site.order()
        site.here.work(served.url)
        ended = site.store.jobs.get(job.id)
        assert (ended.state, ended.reason, ended.exit_status) == (S.SUCCESS, Reason.EXIT, 0)
        assert site.store.jobs.output(job.id) == Output()  # which the interface has no words for
        assert [each.move for each in site.store.jobs.events(job.id)] == [Move.QUEUE, Move.START, Move.SUCCEED]
        assert site.here.lines() == ["ran"]
        robot = site.store.robots.get(site.robot.guid)
        assert (robot.status, robot.job) == (RobotStatus.READY, None)
        assert robot.machine

    @pytest.mark.parametrize("body", ["sys.exit(3)", "os.kill(os.getpid(), 9)", None])
    def test_that_fails_or_has_no_script(self, site: Both, served: Served, body: str | None) -> None:
        if body is not None:
            site.here.install(body)
        job = site.order()
        site.here.work(served.url)
        ended = site.store.jobs.get(job.id)
        assert (ended.state, ended.reason, ended.exit_status) == (S.FAILED, Reason.REPORT, None)

    def test_brings_its_parameters_and_its_secrets(self, site: Both, served: Served) -> None:
        site.here.install(
            "say(json.dumps([dict(os.environ), json.load(open(os.environ['JOB_PARAMETERS']))], sort_keys=True))"
        )
        given = {"city": "Göteborg 東京 \N{ROCKET}", "n": 3, "rate": 0.1, "yes": True}
        secrets = {"key": SECRET, "wort": "пароль\n"}
        (job,) = site.store.jobs.submit_all([Order("work", given, ADA, secrets, site.robot.id)])
        site.here.work(served.url)
        env, file = json.loads(site.here.lines()[0])
        assert file == json.loads(env["JOB_TASK"]) == {**given, **secrets}
        named = {name.removeprefix("JOB_PARAM_"): env[name] for name in env if name.startswith("JOB_PARAM_")}
        texts = {"N": "3", "RATE": "0.1", "YES": "true"}
        assert named == {"CITY": given["city"], "KEY": SECRET, "WORT": secrets["wort"], **texts}
        assert (env["JOB_GUID"], env["JOB_NAME"]) == (job.guid, "work")
        assert site.state(job) is S.SUCCESS

    def test_of_a_pool_runs_once_whoever_takes_it(self, site: Both, served: Served) -> None:
        robots = [site.here, site.other()]
        jobs = [site.order(pool="night") for _ in range(20)]
        with ExitStack() as stack:
            for robot in robots:
                robot.install("say(os.environ['JOB_GUID'])")
                stack.enter_context(robot.working(served.url))
        ran = [line for robot in robots for line in robot.lines()]
        assert sorted(ran) == sorted(job.guid for job in jobs)
        assert {site.ended(job) for job in jobs} == {(S.SUCCESS, 1)}

    def test_is_taken_by_an_agent_that_waits_for_one(self, site: Both, served: Served) -> None:
        site.here.install("say('ran')")
        with pytest.raises(LeavingError), site.here.working(served.url, forever=True, patience=None) as agent:
            until(lambda: site.store.robots.get(site.robot.guid).seen_at)
            job = site.order()
            until(lambda: site.state(job).final)
            agent.leave()
        assert site.ended(job) == (S.SUCCESS, 1)

    def test_that_does_not_heed_a_stop_may_be_aborted(self, site: Both, served: Served) -> None:
        site.here.install(DEAF)
        job = site.order()
        with Relay(served.port) as relay, site.here.working(relay.url, grace=60):
            site.here.begun()
            site.store.jobs.ask(job.id, Move.STOP, ADA)
            until(lambda: any(b'"HeartbeatErrorCode":20' in each.answer for each in relay.passed))
            site.store.jobs.ask(job.id, Move.ABORT, ADA)
        assert site.ended(job) == (S.ABORTED, 1)


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(("move", "end"), COMMANDS)
class TestStopAndAbort:
    def test_before_anybody_has_heard_of_the_job(self, site: Both, served: Served, move: Move, end: S) -> None:
        site.here.install("say('ran')")
        job = site.order()
        site.store.jobs.ask(job.id, move, ADA)
        site.here.work(served.url)
        assert (site.ended(job), site.here.lines()) == ((end, 0), [])

    @pytest.mark.parametrize(("moment", "attempts"), [("heartbeat2", 0), ("consume", 1)])
    def test_before_it_begins_keeps_it_from_that(
        self, site: Both, served: Served, move: Move, end: S, moment: str, attempts: int
    ) -> None:
        site.here.install("say('ran')")
        job, other = site.order(), site.order()
        with Relay(served.port) as relay:
            relay.after = once(moment, lambda: site.store.jobs.ask(job.id, move, ADA))
            site.here.work(relay.url)
        assert site.ended(job) == (end, attempts)
        assert site.ended(other) == (S.SUCCESS, 1)
        assert site.here.lines() == ["ran"]

    def test_of_a_job_whose_answer_was_lost_ends_it_and_gives_none(
        self, site: Both, served: Served, move: Move, end: S
    ) -> None:
        site.here.install("say('ran')")
        job = site.order()
        with Relay(served.port, "consume", "reply lost") as relay:
            relay.after = once("consume", lambda: site.store.jobs.ask(job.id, move, ADA))
            site.here.work(relay.url)
        assert (site.ended(job), site.here.lines()) == ((end, 1), [])

    @pytest.mark.parametrize(("moment", "body"), [("update8", TREE), ("heartbeat3", TREE), ("heartbeat3", DEAF)])
    def test_while_it_runs_ends_all_of_its_processes(
        self, site: Both, served: Served, move: Move, end: S, moment: str, body: str
    ) -> None:
        site.here.install(body)
        job = site.order()
        with Relay(served.port) as relay:
            relay.after = once(moment, lambda: site.store.jobs.ask(job.id, move, ADA))
            site.here.work(relay.url)
        assert site.ended(job) == (end, 1)
        assert not [pid for pid in site.here.lines() if lives(int(pid))]

    @pytest.mark.parametrize("body", ["say('ran')", "sys.exit(1)"])
    def test_as_it_ends_changes_nothing(self, site: Both, served: Served, move: Move, end: S, body: str) -> None:
        site.here.install(body)
        job = site.order()
        with Relay(served.port) as relay:
            relay.before = once("final", lambda: site.store.jobs.ask(job.id, move, ADA))
            site.here.work(relay.url)
        assert site.ended(job) == (S.FAILED if "exit" in body else S.SUCCESS, 1)
        with pytest.raises(IllegalMoveError):
            site.store.jobs.ask(job.id, move, ADA)


def once(kind: str, do: Callable[[], object]) -> Callable[[str], None]:
    """Return what is called with each message, and does something at the first one of a kind."""
    left = [do]

    def call(message: str) -> None:
        if message == kind and left:
            left.pop()()

    return call


class TestRobot:
    def test_that_nobody_knows(self, site: Both, served: Served) -> None:
        job = site.order(pool="day")
        site.here.guid = "00000000-0000-4000-8000-000000000000"
        assert site.here.ended(served.url) == 4
        assert "knows no robot of this GUID: there is no robot with this GUID" in site.here.log.read_text()
        assert site.here.guid not in site.here.log.read_text()
        site.here.guid = "no GUID"
        with pytest.raises(UnknownRobotError, match="the header Authorization must have the GUID"):
            site.here.work(served.url)
        assert site.ended(job) == (S.PENDING, 0)

    @pytest.mark.parametrize("change", [{"enabled": False}, {"licensed": False}])
    def test_that_may_not_work_leaves_the_job_alone(self, site: Both, served: Served, change: dict[str, bool]) -> None:
        site.here.install("say('ran')")
        job = site.order()
        site.store.robots.change(site.robot.guid, **change)
        site.here.work(served.url)
        assert (site.ended(job), site.here.lines()) == ((S.PENDING, 0), [])
        robot = site.store.robots.get(site.robot.guid)
        assert robot.status is RobotStatus.UNLICENSED
        assert robot.seen_at
        site.store.robots.change(site.robot.guid, **dict.fromkeys(change, True))
        site.here.work(served.url)
        assert site.ended(job) == (S.SUCCESS, 1)

    @pytest.mark.parametrize("change", [{"enabled": False}, {"licensed": False}])
    @pytest.mark.parametrize("moment", ["consume", "heartbeat3"])
    def test_that_is_turned_off_meanwhile_does_its_job_and_no_other(
        self, site: Both, served: Served, change: dict[str, bool], moment: str
    ) -> None:
        site.here.install(WAITS)
        job, other = site.order(), site.order()
        with Relay(served.port) as relay:
            relay.after = once(moment, lambda: site.store.robots.change(site.robot.guid, **change))
            with site.here.working(relay.url):
                until(lambda: len(relay.statuses("heartbeat3")) > 2)
                site.here.open()
        assert site.ended(job) == (S.SUCCESS, 1)
        assert site.ended(other) == (S.PENDING, 0)

    @pytest.mark.parametrize("pool", [None, "night"])
    def test_that_is_at_work_cannot_be_removed(self, site: Both, served: Served, pool: str | None) -> None:
        site.here.install(WAITS)
        job = site.order(pool=pool)
        with site.here.working(served.url):
            site.here.begun()
            with pytest.raises(StoreError, match=f"the robot R2 has job {job.id}: turn it off"):
                site.store.robots.remove(site.robot.guid)
            site.here.open()
        assert site.ended(job) == (S.SUCCESS, 1)
        if pool is not None:
            site.store.robots.remove(site.robot.guid)
            with pytest.raises(UnknownRobotError):
                site.here.work(served.url)


class TestTls:
    @pytest.fixture
    def secure(self, site: Both) -> Iterator[Served]:
        """Give a server with a certificate of its own making."""
        command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out pem -days 2"
        arguments = [*command.split(), "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(["openssl", *arguments], check=True, cwd=site.settings.folder, capture_output=True)
        site.serve_as(port=0, certificate="pem", key="key")
        with Served(site.service) as started:
            yield started

    @pytest.mark.parametrize(("option", "status"), [("--ca", 0), ("--insecure", 0), (None, 3)])
    def test_is_spoken_with_whom_is_trusted_alone(
        self, site: Both, secure: Served, option: str | None, status: int
    ) -> None:
        site.here.install("say('ran')")
        job = site.order()
        more: dict[Any, list[str]] = {"--ca": ["--ca", str(site.settings.folder / "pem")], None: []}
        assert site.here.ended(secure.url, "--patience", "0", *more.get(option, [str(option)])) == status
        assert site.ended(job) == ((S.PENDING, 0) if status else (S.SUCCESS, 1))
        log = site.here.log.read_text()
        assert ("certificate verify failed" in log) == bool(status)
        assert ("--ca" in log) == bool(status)
        assert ("WARNING remctl.jobs.robot._cli: INSECURE" in log) == (option == "--insecure")
