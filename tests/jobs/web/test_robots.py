"""Jobs for robots over HTTP: the whole life of a job, what is said twice or gets lost, and who is refused."""

from __future__ import annotations

import json
import logging
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.generation.case import Case
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from jobs.attempts import LIMIT
from jobs.postgres import Postgres
from jobs.runners import until
from jobs.web.robots import SECRET, SHA, Agent, RobotSite, authorization
from jobs.web.served import ADA, Served
from remctl.jobs.states import IllegalMoveError, JobState, Move, Reason, RobotStatus
from remctl.jobs.store import Job, Order, StaleAttemptError
from remctl.jobs.store._attempts import Attempts
from remctl.jobs.store._robots import Robots
from remctl.jobs.store._schema import attempts
from remctl.jobs.web import _robots, _robots_sweeping
from remctl.jobs.web._limits import FAILURES, WINDOW
from remctl.jobs.web._robots import BODY
from remctl.jobs.web._robots_sweeping import SET, Sweeping

NOBODY: Final = "00000000-0000-4000-8000-000000000000"

HEARTBEAT: Final = "/api/robot/heartbeat"
CONSUME: Final = "/api/robot/consumeNextJob"
UPDATE: Final = "/api/job/update"
CALLS: Final = [("POST", HEARTBEAT), ("POST", CONSUME), ("PUT", UPDATE)]

CODES: Final = {HEARTBEAT: "HeartbeatErrorCode", CONSUME: "ConsumeJobErrorCode", UPDATE: "ErrorCode"}

FIELDS: Final = {
    HEARTBEAT: {"HeartbeatErrorCode", "ErrorText", "HasNewJob"},
    CONSUME: {"ConsumeJobErrorCode", "ErrorText", "Job", "ProcessVersion", "Task", " Task "},
    UPDATE: {"ErrorCode", "ErrorText", "Status"},
}

Agents = Callable[..., Agent]


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RobotSite]:
    """Give a folder for a server; on both databases where `url` is used, too."""
    both = "url" in request.fixturenames
    made = RobotSite(tmp_path / "site", request.getfixturevalue("url") if both else f"sqlite:///{tmp_path}/jobs.db")
    yield made
    made.close()


@pytest.fixture
def served(site: RobotSite) -> Iterator[Served]:
    """Give a running server."""
    with Served(site.service) as started:
        yield started


@pytest.fixture
def agent_of(served: Served) -> Iterator[Agents]:
    """Give a function that makes the agent of a GUID."""
    with ExitStack() as stack:

        def making(guid: str, **options: Any) -> Agent:
            made = Agent(served.url, guid, **options)
            stack.callback(made.close)
            return made

        yield making


@pytest.fixture
def agent(agent_of: Agents, site: RobotSite) -> Agent:
    """Give the agent of the robot."""
    return agent_of(site.robot.guid)


def refused(response: httpx.Response, status: int, code: int) -> str:
    """See that an answer is a refusal with all fields that the call has; return its text."""
    found = response.json()
    path = response.request.url.path
    assert (response.status_code, found[CODES[path]]) == (status, code)
    assert set(found) == FIELDS[path]
    if path == CONSUME:
        assert {found[name] for name in ("Job", "ProcessVersion", "Task", " Task ")} == {"{}"}
    text: str = found["ErrorText"]
    assert text
    return text


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the project has logged."""
    return "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("remctl"))


@pytest.mark.usefixtures("url")
class TestJob:
    def test_lives_as_the_example_has_it(self, agent: Agent, site: RobotSite, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        assert agent.heard() == (0, 0)
        job = site.order()
        assert agent.heard() == (0, 1)
        found = agent.consume()
        assert (found["ConsumeJobErrorCode"], found["ErrorText"]) == (0, "")
        assert json.loads(found["Job"]) == {"GUID": job.guid, "Name": "work", "Status": 1}
        assert json.loads(found["ProcessVersion"]) == {"Name": "work", "Version": SHA, "Language": "python"}
        assert json.loads(found["Task"]) == {"city": "Göteborg", "key": SECRET} == json.loads(found[" Task "])
        assert agent.update(job.guid, 8) == (200, 0, 8)
        assert agent.heard(3, job.guid) == (0, 0)
        assert site.store.robots.get(agent.guid).status is RobotStatus.WORKING
        assert agent.update(job.guid, 4) == (200, 0, 4)
        assert agent.heard() == (0, 0)
        ended = site.store.jobs.get(job.id)
        assert (ended.state, ended.reason) == (JobState.SUCCESS, Reason.EXIT)
        assert site.store.robots.get(agent.guid).machine == "pc7"
        assert SECRET not in logged(caplog)
        assert agent.guid not in logged(caplog)

    @pytest.mark.parametrize("state", [JobState.SUCCESS, JobState.FAILED, JobState.STOPPED, JobState.ABORTED])
    def test_ends_as_its_robot_says_however_often(self, agent: Agent, site: RobotSite, state: JobState) -> None:
        job = site.order()
        agent.begin()
        for _ in range(2):
            assert agent.update(job.guid, state) == (200, 0, state)
        others = {JobState.SUCCESS, JobState.FAILED, JobState.IN_PROGRESS} - {state}
        for other in others:
            assert agent.update(job.guid, other) == (409, 409, state)
        assert site.state(job) is state

    def test_of_a_pool_is_never_given_to_two_robots(self, agent_of: Agents, site: RobotSite) -> None:
        agents = [agent_of(site.store.robots.add(f"N{number}", pool="night").guid) for number in range(4)]
        wanted = {site.order(pool="night").guid for _ in range(12)}
        got: list[str] = []

        def work(agent: Agent) -> None:
            while (found := agent.consume())["ConsumeJobErrorCode"] == 0:
                job = json.loads(found["Job"])["GUID"]
                assert agent.update(job, 8) == (200, 0, 8)
                got.append(job)
                assert agent.update(job, 4) == (200, 0, 4)

        threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert sorted(got) == sorted(wanted)


ORDERS: Final = [
    (Move.STOP, 20, JobState.STOPPED, JobState.STOPPING),
    (Move.ABORT, 10, JobState.ABORTED, JobState.ABORTING),
]


@pytest.mark.parametrize(("move", "code", "end", "meanwhile"), ORDERS)
class TestStopAndAbort:
    def test_before_it_is_taken_ends_it(
        self, agent: Agent, site: RobotSite, move: Any, code: int, end: JobState, meanwhile: JobState
    ) -> None:
        job = site.order()
        assert site.store.jobs.ask(job.id, move, ADA).state is end
        assert agent.heard() == (0, 0)
        assert agent.consume()["ConsumeJobErrorCode"] == 102

    def test_between_taking_and_beginning_keeps_it_from_that(
        self, agent: Agent, site: RobotSite, move: Any, code: int, end: JobState, meanwhile: JobState
    ) -> None:
        job = site.order()
        agent.take()
        site.store.jobs.ask(job.id, move, ADA)
        assert agent.update(job.guid, 8) == (409, 409, meanwhile)
        assert agent.heard(3, job.guid) == (code, 0)
        assert agent.update(job.guid, end) == (200, 0, end)

    def test_of_a_job_whose_robot_does_not_know_of_it_gives_the_next_one(
        self, agent: Agent, site: RobotSite, move: Any, code: int, end: JobState, meanwhile: JobState
    ) -> None:
        job, other = site.order(), site.order()
        agent.take()
        site.store.jobs.ask(job.id, move, ADA)
        assert agent.heard() == (code, 1)
        assert agent.take() == other.guid
        assert site.state(job) is end

    @pytest.mark.parametrize("truth", ["asked", JobState.SUCCESS, JobState.FAILED])
    def test_while_it_runs_is_told_and_how_it_ends_in_truth_counts(
        self, agent: Agent, site: RobotSite, move: Any, code: int, end: JobState, meanwhile: JobState, truth: Any
    ) -> None:
        job = site.order()
        agent.begin()
        site.store.jobs.ask(job.id, move, ADA)
        for _ in range(2):
            assert agent.heard(3, job.guid.upper()) == (code, 0)
        assert agent.update(job.guid, meanwhile) == (200, 0, meanwhile)
        said = end if truth == "asked" else truth
        assert agent.update(job.guid, said) == (200, 0, said)
        assert agent.heard() == (0, 0)
        assert site.state(job) is said

    def test_after_its_end_changes_nothing(
        self, agent: Agent, site: RobotSite, move: Any, code: int, end: JobState, meanwhile: JobState
    ) -> None:
        job = site.order()
        agent.begin()
        agent.update(job.guid, 4)
        assert agent.heard(3, job.guid) == (10, 0)
        assert agent.update(job.guid, meanwhile) == (409, 409, 4)


class TestLoss:
    """What a robot has said has come through, and it does not know it; or it has not."""

    def test_of_the_answer_to_a_heartbeat_costs_nothing(self, agent: Agent, site: RobotSite) -> None:
        site.order()
        assert agent.heard() == agent.heard() == (0, 1)

    def test_of_the_answer_with_a_job_has_it_given_again(self, agent: Agent, site: RobotSite) -> None:
        site.order()
        other = site.order()
        first = agent.consume()
        assert agent.heard() == (0, 1)
        assert agent.consume() == first
        agent.update(json.loads(first["Job"])["GUID"], 8)
        assert agent.consume()["ConsumeJobErrorCode"] == 102
        assert site.state(other) is JobState.PENDING

    def test_of_the_answer_to_an_update_lets_it_be_said_again(self, agent: Agent, site: RobotSite) -> None:
        job = site.order()
        agent.take()
        assert [agent.update(job.guid, 8) for _ in range(2)] == [(200, 0, 8)] * 2
        assert [agent.update(job.guid, 5) for _ in range(2)] == [(200, 0, 5)] * 2
        assert len(site.store.jobs.events(job.id)) == 3

    def test_of_the_update_itself_is_made_good_by_a_heartbeat(self, agent: Agent, site: RobotSite) -> None:
        job = site.order()
        agent.take()
        assert agent.heard(3, job.guid) == (0, 0)
        assert site.state(job) is JobState.IN_PROGRESS

    def test_of_a_robots_job_has_it_kill_what_it_runs(self, agent: Agent, site: RobotSite) -> None:
        job = site.order()
        agent.begin()
        site.overdue()
        site.store.attempts.sweep()
        assert agent.heard(3, job.guid) == (10, 0)
        assert agent.update(job.guid, 4) == (409, 409, 5)

    def test_of_a_job_that_another_robot_has_begun_meanwhile_does_not_begin_it_twice(
        self, agent: Agent, agent_of: Agents, site: RobotSite
    ) -> None:
        job = site.order(pool="night")
        agent.take()
        site.overdue()
        site.store.attempts.sweep()
        other = agent_of(site.store.robots.add("C3", pool="night").guid)
        assert other.begin() == job.guid
        assert agent.update(job.guid, 8) == (409, 409, 8)
        assert agent.heard(3, job.guid) == (10, 0)
        assert agent.update(job.guid, 3) == (409, 409, 8)
        assert other.update(job.guid, 4) == (200, 0, 4)

    def test_of_one_job_and_begin_of_another_is_told_apart(self, agent: Agent, site: RobotSite) -> None:
        lost, job = site.order(), site.order()
        agent.begin()
        site.overdue()
        site.store.attempts.sweep()
        agent.begin()
        assert agent.heard(3, lost.guid) == (10, 0)
        assert agent.heard(3, job.guid) == agent.heard(3) == (0, 0)

    def test_of_the_answer_to_an_end_that_became_another_one_lets_it_be_said_again(
        self, agent: Agent, site: RobotSite
    ) -> None:
        job = site.order()
        agent.begin()
        site.store.attempts.report(job.id, success=False, text="no room")
        assert [agent.update(job.guid, 4) for _ in range(2)] == [(200, 0, 5)] * 2

    def test_of_the_answer_to_an_end_after_which_the_job_waits_again_lets_it_be_said_again(
        self, agent: Agent, site: RobotSite
    ) -> None:
        (job,) = site.store.jobs.submit_all([Order("work", {}, ADA, robot=site.robot.id)])
        agent.begin()
        agent.update(job.guid, 5)
        site.store.jobs.retry(job.id, ADA)
        assert agent.update(job.guid, 5) == (200, 0, 1)
        assert agent.update(job.guid, 8) == (409, 409, 1)
        assert agent.begin() == job.guid

    @pytest.mark.parametrize("says", ["update", "heartbeat"])
    def test_of_the_answer_to_a_beginning_that_is_under_way_still_lets_it_be_said_again(
        self, agent: Agent, site: RobotSite, monkeypatch: pytest.MonkeyPatch, says: str
    ) -> None:
        job = site.order()
        agent.take()
        start = Attempts.start

        def twice(attempts: Attempts, *begun: Any) -> None:
            start(attempts, *begun)
            start(attempts, *begun)

        monkeypatch.setattr(Attempts, "start", twice)
        if says == "update":
            assert agent.update(job.guid, 8) == (200, 0, 8)
        else:
            assert agent.heard(3, job.guid) == (0, 0)

    def test_in_a_race_with_another_connection_is_harmless(
        self, agent: Agent, site: RobotSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = site.order()
        agent.begin()
        update = Robots.update
        said: list[JobState] = []

        def late(robots: Robots, guid: str, job: str, state: JobState, lease: float) -> Job:
            found = update(robots, guid, job, state, lease)
            said.append(state)
            if len(said) == 1:
                raise StaleAttemptError("attempt 1 has ended")
            return found

        monkeypatch.setattr(Robots, "update", late)
        assert agent.update(job.guid, 4) == (200, 0, 4)
        assert len(said) == 2

    def test_of_the_update_is_not_made_good_where_somebody_stops_the_job_meanwhile(
        self, agent: Agent, site: RobotSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = site.order()
        agent.take()
        update = Robots.update

        def stopped(robots: Robots, *said: Any) -> Job:
            site.store.jobs.ask(job.id, Move.STOP, ADA)
            return update(robots, *said)

        monkeypatch.setattr(Robots, "update", stopped)
        assert agent.heard(3, job.guid) == (20, 0)

    def test_of_a_job_that_was_stopped_and_runs_again_meanwhile_is_harmless(
        self, agent: Agent, site: RobotSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = site.order()
        agent.take()
        site.store.jobs.ask(job.id, Move.STOP, ADA)
        update = Robots.update

        def late(robots: Robots, *said: Any) -> Job:
            update(robots, *said)
            raise IllegalMoveError(JobState.PENDING, Move.STOP)

        monkeypatch.setattr(Robots, "update", late)
        assert agent.consume()["ConsumeJobErrorCode"] == 102
        assert site.state(job) is JobState.STOPPED


class TestRobot:
    @pytest.mark.parametrize("change", [{"enabled": False}, {"licensed": False}])
    def test_that_may_not_work_gets_no_job(self, agent: Agent, site: RobotSite, change: dict[str, bool]) -> None:
        job = site.order()
        site.store.robots.change(agent.guid, **change)
        assert agent.heard() == (0, 0)
        assert agent.consume()["ConsumeJobErrorCode"] == 102
        assert site.state(job) is JobState.PENDING

    def test_is_known_by_its_guid_in_any_case_and_with_a_colon(self, agent_of: Agents, site: RobotSite) -> None:
        for guid in (site.robot.guid.upper(), f"{site.robot.guid}:"):
            agent = agent_of(guid)
            agent.guid = guid.removesuffix(":")
            assert agent.heard() == (0, 0)

    def test_without_a_guid_is_refused(self, served: Served) -> None:
        for header in (
            None,
            "",
            "Basic",
            "Basic !!!",
            "Basic /w==",
            "Basic cm9ib3Q=",
            "Bearer " + authorization(NOBODY)["Authorization"].partition(" ")[2],
            authorization(f"{NOBODY}:x")["Authorization"],
            authorization(f"{{{NOBODY}}}")["Authorization"],
        ):
            headers = {} if header is None else {"Authorization": header}
            for method, path in CALLS:
                response = httpx.request(method, served.url + path, headers=headers, data={"Status": 2})
                assert "GUID" in refused(response, 401, 101)
                assert response.headers["www-authenticate"].startswith("Basic ")

    def test_that_nobody_knows_is_refused(
        self, agent_of: Agents, site: RobotSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        stranger = agent_of(NOBODY)
        job = site.order()
        data = {"RobotGUID": NOBODY, "Status": 2, "guid": job.guid, "status": 4}
        for (method, path), status in zip(CALLS, (200, 200, 403), strict=True):
            text = refused(stranger.client.request(method, path, data=data), status, 101)
            assert text == "there is no robot with this GUID"
        assert f"127.0.0.1 {HEARTBEAT}: there is no robot with this GUID" in logged(caplog)
        assert NOBODY not in logged(caplog)

    def test_with_the_guid_of_another_one_is_refused(
        self, agent: Agent, site: RobotSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = site.store.robots.add("C3")
        for method, path in CALLS:
            response = agent.client.request(method, path, data={"RobotGUID": other.guid, "Status": 2})
            assert "RobotGUID is not the GUID" in refused(response, 403, 101)
            assert other.guid not in response.text
        assert other.guid not in logged(caplog)

    def test_that_guesses_is_held_up_and_others_on_its_address_are_not(
        self, agent: Agent, agent_of: Agents, caplog: pytest.LogCaptureFixture
    ) -> None:
        stranger = agent_of(NOBODY)
        for _ in range(FAILURES):
            refused(stranger.beat(), 200, 101)
        lines = len(_warnings(caplog))
        response = stranger.beat()
        refused(response, 429, 101)
        assert 0 < int(response.headers["retry-after"]) <= WINDOW
        assert len(_warnings(caplog)) == lines
        assert agent.heard() == (0, 0)

    def test_that_has_nothing_to_do_holds_no_connection(self, agent: Agent, site: RobotSite) -> None:
        assert agent.beat().headers["connection"] == "close"
        site.order()
        assert "connection" not in agent.beat().headers

    def test_does_not_hear_of_jobs_of_others(self, agent: Agent, agent_of: Agents, site: RobotSite) -> None:
        job = site.order(site.store.robots.add("C3"))
        assert agent.consume()["ConsumeJobErrorCode"] == 102
        for guid in (job.guid, NOBODY, "x"):
            assert agent.update(guid, 4) == (404, 404, None)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


class TestFields:
    def test_of_a_heartbeat_that_are_wrong_are_named(self, agent: Agent, site: RobotSite) -> None:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"Status": ""}, "Status must be one of 0, 1, 2, 3, and is ''"),
            ({"Status": "4"}, "Status must be one of 0, 1, 2, 3, and is '4'"),
            ({"Status": "\N{SUPERSCRIPT TWO}"}, "Status must be one of"),
            ({"JobType": "2"}, "JobType must be one of 1, and is '2'"),
            ({"Machine": "x" * 256}, "Machine must be text of 255 characters at the most, .* and is 'xxx"),
            ({"Machine": "a\0b"}, r"Machine must be text .* and is 'a\\x00b'"),
            ({"IP": "x" * 65}, "IP must be text of 64 characters at the most"),
            ({"MAC": "x" * 65}, "MAC must be"),
            ({"JobGUID": "x" * 256}, "JobGUID must be"),
            ({"JobName": "\n"}, "JobName must be"),
            ({"Status": ["2", "3"]}, r"Status must be .*, and is \['2', '3'\]"),
            ({"JobGUID": ["a", "b", "c"]}, "JobGUID must be"),
        ]
        for fields, complaint in wrong:
            assert re.match(complaint, refused(agent.beat(**fields), 400, 400))
        assert site.store.robots.get(agent.guid).seen_at is None

    def test_of_the_others_that_are_wrong_are_named(self, agent: Agent) -> None:
        for method, path, data, complaint in (
            ("POST", CONSUME, {"Status": "x"}, "Status must be"),
            ("PUT", UPDATE, {"status": "8"}, "guid is missing"),
            ("PUT", UPDATE, {"guid": NOBODY}, "status must be"),
            ("PUT", UPDATE, {"guid": NOBODY, "status": "9"}, "status must be one of 0, .*, 8, and is '9'"),
            ("PUT", UPDATE, {"guid": "x" * 300, "status": "8"}, "guid must be"),
        ):
            assert re.match(complaint, refused(agent.client.request(method, path, data=data), 400, 400))

    @pytest.mark.parametrize("state", [0, 1, 2, 6])
    def test_that_say_what_no_robot_decides_are_refused(self, agent: Agent, site: RobotSite, state: int) -> None:
        job = site.order()
        agent.begin()
        assert agent.update(job.guid, state) == (409, 409, 8)
        assert site.state(job) is JobState.IN_PROGRESS

    def test_may_be_json_or_in_parts(self, agent: Agent) -> None:
        for body in (
            {"json": {"Status": 2}},
            {"json": {"Status": "2", "more": [{}]}},
            {"files": {"Status": (None, "2")}},
        ):
            response = agent.client.post(HEARTBEAT, **body)
            assert response.json()["HeartbeatErrorCode"] == 0, body
        assert agent.client.post(CONSUME).json()["ConsumeJobErrorCode"] == 102

    def test_that_cannot_be_read_are_refused(self, agent: Agent) -> None:
        for kind, body, status in (
            ("text/plain", b"Status=2", 415),
            ("", b"Status=2", 415),
            ("application/x-www-form-urlencoded", b"Status=2&Machine=%ff", 400),
            ("application/x-www-form-urlencoded", b"\xff", 400),
            ("application/x-www-form-urlencoded", b"a=1&" * 101, 400),
            ("application/json", b"[]", 400),
            ("application/json", b"{", 400),
            ("application/json", b'{"x":' + b"[" * 60000, 400),
            ("application/json", b'{"Status":true}', 400),
            ("application/json", b'{"Status":2,"Machine":7}', 400),
            ("application/json", b'{"Status":2,"Machine":"\\ud800"}', 400),
            ("multipart/form-data", b"x", 400),
            ("multipart/form-data; boundary=x", b"y", 400),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="Status"; filename="f"\r\n\r\n2\r\n--x--\r\n',
                400,
            ),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="Status"\r\n\r\n\xff\r\n--x--\r\n',
                400,
            ),
            ("application/json", b" " * (BODY + 1), 413),
        ):
            headers = {"Content-Type": kind} if kind else {}
            refused(agent.client.post(HEARTBEAT, content=body, headers=headers), status, status)

    def test_that_are_compressed_are_refused(self, agent: Agent) -> None:
        refused(agent.client.post(HEARTBEAT, content=b"x", headers={"Content-Encoding": "gzip"}), 415, 415)

    def test_by_another_method_are_refused(self, agent: Agent) -> None:
        for method, path in CALLS:
            for other in {"GET", "POST", "PUT", "DELETE", "OPTIONS"} - {method}:
                response = agent.client.request(other, path)
                refused(response, 405, 405)
                assert response.headers["allow"] == method

    @settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        call=st.sampled_from(CALLS),
        kind=st.sampled_from(
            ["application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x"]
        ),
        body=st.binary(max_size=200)
        | st.dictionaries(
            st.sampled_from(["Status", "RobotGUID", "Machine", "JobGUID", "IP", "guid", "status"]),
            st.text(max_size=20) | st.integers() | st.none() | st.lists(st.none()),
        ).map(lambda fields: json.dumps(fields).encode()),
    )
    def test_of_any_kind_get_an_answer(self, agent: Agent, call: tuple[str, str], kind: str, body: bytes) -> None:
        method, path = call
        response = agent.client.request(method, path, content=body, headers={"Content-Type": kind})
        assert response.status_code in (200, 400, 403, 404, 429)
        assert set(response.json()) == FIELDS[path]


class TestSweeping:
    @pytest.mark.usefixtures("url")
    def test_is_done_where_nobody_calls(
        self, site: RobotSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(_robots, "Sweeping", lambda store, _: Sweeping(store, 0))
        monkeypatch.setattr(_robots_sweeping, "EVERY", 0.05)
        with Served(site.service):
            for _ in range(2):
                job = begun(site)
                line = f"job {job.id} is FAILED: nothing was heard of it in time"
                until(lambda: line in caplog.text)  # noqa: B023  # it is called at once
                assert (site.state(job), site.store.jobs.get(job.id).reason) == (JobState.FAILED, Reason.LOST)

    @pytest.mark.parametrize(("lease", "seconds"), [(30, 60), (3600, 3600)])
    def test_gives_robots_the_lease_of_runners_where_that_is_longer(
        self, tmp_path: Path, lease: int, seconds: int
    ) -> None:
        site = RobotSite(tmp_path / "site", f"sqlite:///{tmp_path}/jobs.db", lease=lease)
        site.order()
        with Served(site.service) as served:
            agent = Agent(served.url, site.robot.guid)
            for speak in (agent.take, agent.begin, lambda: agent.heard(3)):
                site.overdue()
                speak()
                with site.store.database.read() as connection:
                    (over,) = connection.scalars(select(attempts.c.lease_until))
                assert seconds - LIMIT < over - site.store.database.clock() <= seconds
            agent.close()
        site.close()

    def test_is_not_done_before_robots_could_be_heard(
        self, site: RobotSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        now, ahead = 1000.0, 0.0
        monkeypatch.setattr(site.store.database, "clock", lambda: now + ahead)
        sweeping = Sweeping(site.store, 60, lambda: now)
        job = begun(site)

        def swept(seconds: float) -> bool:
            """Whether a job whose lease is over is lost so many seconds later."""
            nonlocal now, job
            now += seconds
            sweeping.sweep()
            if lost := site.state(job).final:
                job = begun(site)
            return lost

        assert [swept(0), swept(59), swept(1), swept(1)] == [False, False, True, True]
        sweeping.wait()
        assert [swept(59), swept(1)] == [False, True]
        ahead = SET + 1
        assert [swept(0), swept(59), swept(1)] == [False, False, True]
        assert f"the clock of the store was set by {SET + 1:+.1f} s" in caplog.text

    def test_waits_after_a_call_found_the_database_away(self, site: RobotSite, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[bool] = []
        monkeypatch.setattr(Sweeping, "wait", lambda _: waited.append(True))
        monkeypatch.setattr(Sweeping, "sweep", lambda _: None)
        monkeypatch.setattr(Robots, "heard", failing(OperationalError("SELECT", {}, Exception("away"))))
        with Served(site.service) as served:
            agent = Agent(served.url, site.robot.guid)
            waited.clear()
            refused(agent.beat(), 503, 503)
            agent.close()
        assert waited == [True]

    @pytest.mark.parametrize(
        ("error", "traced"), [(OperationalError("SELECT", {}, Exception("away")), False), (ValueError("away"), True)]
    )
    def test_that_fails_waits_and_goes_on(
        self,
        site: RobotSite,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        error: Exception,
        traced: bool,
    ) -> None:
        waited: list[bool] = []
        monkeypatch.setattr(Sweeping, "wait", lambda _: waited.append(True))
        monkeypatch.setattr(Sweeping, "sweep", failing(error))
        monkeypatch.setattr(_robots_sweeping, "EVERY", 0.01)
        with Served(site.service):
            until(lambda: len(waited) > 3)
        complaint = next(each for each in caplog.records if "robots are gone" in each.getMessage())
        assert complaint.getMessage() == "cannot look for jobs whose robots are gone: away"
        assert bool(complaint.exc_info) == traced

    def test_that_is_under_way_is_waited_for_when_the_server_stops(
        self, site: RobotSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def slow(_: object) -> None:
            began.set()
            assert go_on.wait(LIMIT)
            ended.set()

        monkeypatch.setattr(Sweeping, "sweep", slow)
        with Served(site.service) as served:
            assert began.wait(LIMIT)
            served.ask_to_stop()
            threading.Timer(0.2, go_on.set).start()
        assert ended.is_set()


def failing(error: Exception) -> Callable[..., None]:
    """Return what raises an error, whatever it is called with."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def begun(site: RobotSite) -> Job:
    """Return a job that the robot has begun, and whose lease is over."""
    job = site.order()
    assert site.store.robots.claim(site.robot.guid, 60)
    site.store.robots.update(site.robot.guid, job.guid, JobState.IN_PROGRESS, 60)
    site.overdue()
    return job


class TestTls:
    def test_is_spoken(self, site: RobotSite) -> None:
        command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out pem -days 2"
        arguments = [*command.split(), "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(["openssl", *arguments], check=True, cwd=site.settings.folder, capture_output=True)
        site.serve_as(port=0, certificate="pem", key="key")
        job = site.order()
        with Served(site.service) as served:
            trusting = ssl.create_default_context(cafile=site.settings.folder / "pem")
            agent = Agent(served.url, site.robot.guid, verify=trusting)
            assert served.url.startswith("https://")
            assert agent.begin() == job.guid
            agent.close()


class TestDatabase:
    def test_that_is_away_is_waited_for(self, own: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        site = RobotSite(tmp_path / "site", own.new_database())
        job = site.order()
        with Served(site.service) as served:
            agent = Agent(served.url, site.robot.guid)
            agent.begin()
            own.stop()
            try:
                data = {"Status": 3, "guid": job.guid, "status": 4}
                for method, path in CALLS:
                    response = agent.client.request(method, path, data=data)
                    assert refused(response, 503, 503) == "the database is away"
                    assert int(response.headers["retry-after"]) > 0
            finally:
                own.start()
            assert f"POST {HEARTBEAT}: the database: " in logged(caplog)
            assert agent.guid not in caplog.text
            assert agent.heard(3, job.guid) == (0, 0)
            assert agent.update(job.guid, 4) == (200, 0, 4)
            agent.close()
        site.close()


class TestDescription:
    def test_is_served_to_everybody(self, served: Served) -> None:
        found = httpx.get(f"{served.url}/api/robot/openapi.json").json()
        assert found["openapi"] == "3.1.0"
        assert set(found["paths"]) == {path for _, path in CALLS}

    @pytest.mark.parametrize(("method", "path"), CALLS)
    @pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    def test_is_true(self, served: Served, site: RobotSite, method: str, path: str, mode: GenerationMode) -> None:
        site.order()
        schema = schemathesis.openapi.from_url(f"{served.url}/api/robot/openapi.json")

        @settings(
            max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        def asked(case: Case[Any]) -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body.pop("RobotGUID", None)
            case.call_and_validate(headers=authorization(site.robot.guid))

        asked()
