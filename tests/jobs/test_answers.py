"""What goes over the wire between the command `job` and its clients, and what clients make of it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import remctl.jobs
from remctl.exceptions import RemctlConnectionError, RemctlError
from remctl.jobs import _answers, _json, store
from remctl.jobs._answers import (
    AliveEvent,
    EndEvent,
    Fault,
    GapEvent,
    History,
    Job,
    JobEvent,
    Machine,
    Output,
    OutputEvent,
    Robot,
    Said,
    Script,
    StateEvent,
    TimeoutEvent,
)
from remctl.jobs._json import Unreadable
from remctl.jobs.client import _asking
from remctl.jobs.client._asking import Following
from remctl.jobs.states import JobState, Reason, RobotStatus
from remctl.types import Result

JOB = Job(
    7, "guid", "greet", {"name": "Ada"}, "ada", JobState.SUCCESS, Reason.EXIT, None, 0, 1, 0, None, None, 1.5, 2.5, 3.5
)

TEXTS = st.text(max_size=40)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = TEXTS | st.integers() | FINITE | st.booleans()


@st.composite
def rows(draw: st.DrawFn, kind: Any) -> Any:
    """Give a row of any kind."""
    return draw(st.builds(kind, **{name: strategy(hint) for name, hint in _json._hints(kind).items()}))


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    if hint == Mapping[str, Any]:
        return st.dictionaries(TEXTS, VALUES, max_size=3)
    if hint == Mapping[str, Mapping[str, Any]]:
        return st.dictionaries(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=3), max_size=3)
    if hint is float:
        return FINITE
    if hint == float | None:
        return st.none() | FINITE
    return st.from_type(hint)


class TestRows:
    @given(rows(Job))
    def test_jobs_come_back_as_they_were(self, job: Job) -> None:
        assert _json.read(Job, _json.written(job)) == job

    @given(st.lists(rows(Script), max_size=3))
    def test_scripts_come_back_as_they_were(self, scripts: list[Script]) -> None:
        assert _json.read(list[Script], _json.written(scripts)) == scripts

    @given(st.lists(rows(Robot), max_size=3))
    def test_robots_come_back_as_they_were(self, robots: list[Robot]) -> None:
        assert _json.read(list[Robot], _json.written(robots)) == robots

    @given(st.builds(History, st.lists(rows(_answers.Attempt), max_size=2), st.lists(rows(_answers.Event), max_size=2)))
    def test_histories_come_back_as_they_were(self, history: History) -> None:
        assert _json.read(History, _json.written(history)) == history

    @given(rows(StateEvent) | rows(OutputEvent) | rows(GapEvent) | st.builds(EndEvent, rows(Job)))
    def test_events_come_back_as_they_were(self, event: Said) -> None:
        line = _json.written_event(event)
        assert line.count(b"\n") == 1
        assert _json.read_event(line) == event

    @given(rows(Fault))
    def test_faults_come_back_as_they_were(self, fault: Fault) -> None:
        assert _json.read_fault(_json.written_fault(fault)) == fault

    def test_of_the_store_have_the_same_names(self) -> None:
        assert Job._fields == store.Job._fields
        assert Machine._fields == store.Machine._fields
        assert Output._fields == store.Output._fields
        assert set(Robot._fields) == set(store.Robot._fields) - {"id", "guid", "licensed", "enabled"}
        assert _answers.Event._fields == store.Event._fields

    def test_states_have_names_in_any_case(self) -> None:
        assert [_answers.state_named(_answers.shown(state).lower()) for state in JobState] == list(JobState)
        with pytest.raises(ValueError, match=r"one of Created, Pending, .*In_Progress"):
            _answers.state_named("running")


class TestReading:
    def test_passes_over_what_a_later_version_adds(self) -> None:
        found = json.loads(_json.written(JOB)) | {"colour": "red"}
        assert _json.read(Job, json.dumps(found).encode()) == JOB
        assert _json.read_event(b'{"event":"weather","is":"fine"}') is None

    def test_does_without_what_an_earlier_version_does_not_say(self) -> None:
        found = json.loads(_json.written(JOB))
        del found["robot"], found["pool"]
        assert _json.read(Job, json.dumps(found).encode()) == JOB

    def test_of_a_robot_that_does_what_nobody_knows_is_refused(self) -> None:
        found = json.loads(_json.written(Robot("R2", None, RobotStatus.READY, None, None, None)))
        assert found["status"] == "Ready"
        with pytest.raises(Unreadable, match="status: it is no RobotStatus"):
            _json.read(Robot, json.dumps(found | {"status": "Dancing"}).encode())

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"id": "7"}, "the answer: id: int expected, not str"),
            ({"id": True}, "the answer: id: int expected, not bool"),
            ({"state": "Sleeping"}, "the answer: state: it is no JobState"),
            ({"reason": "hunger"}, "the answer: reason: it is no Reason"),
            ({"created_at": None}, "the answer: created_at: float expected, not NoneType"),
            ({"parameters": []}, "the answer: parameters: dict expected, not list"),
        ],
        ids=str,
    )
    def test_says_what_is_wrong_and_where(self, change: dict[str, Any], complaint: str) -> None:
        found = json.loads(_json.written(JOB)) | change
        with pytest.raises(Unreadable, match=complaint):
            _json.read(Job, json.dumps(found).encode())

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (b"", "it is no JSON"),
            (b"\xff", "it is no JSON"),
            (b"[" * 100_000, "it is no JSON"),
            (b'{"id": NaN}', "NaN is no number"),
            (b'{"id": 1, "id": 2}', "a name is there twice"),
            (b'{"id": 1}', "the answer: guid is missing"),
            (b"[]", "dict expected, not list"),
        ],
    )
    def test_refuses_what_is_none(self, data: bytes, complaint: str) -> None:
        with pytest.raises(Unreadable, match=complaint):
            _json.read(Job, data)

    @pytest.mark.parametrize(
        "data",
        [
            b'{"event":"output","attempt":1,"stream":"stdin","offset":0,"data":""}',
            b'{"event":"output","attempt":1,"stream":"stdout","offset":0,"data":"?"}',
            b'{"event":7}',
            b"{}",
            b"7",
        ],
    )
    def test_refuses_an_event_that_is_none(self, data: bytes) -> None:
        with pytest.raises(Unreadable):
            _json.read_event(data)

    @given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=5), st.integers(1, 9))
    def test_puts_lines_together_from_pieces_of_any_size(self, lines: list[bytes], size: int) -> None:
        data = b"".join(line + b"\n" for line in lines)
        taker = _json.Lines()
        found = [line for at in range(0, len(data), size) for line in taker.take(data[at : at + size])]
        assert found == lines

    def test_takes_no_line_without_an_end(self) -> None:
        with pytest.raises(Unreadable, match="longer than"):
            _json.Lines().take(b"x" * (_json.MAX_LINE + 1))


class TestParameters:
    @given(st.dictionaries(TEXTS, TEXTS, max_size=4))
    def test_that_are_text_come_back_as_they_were(self, values: dict[str, str]) -> None:
        assert _json.read_parameters(_json.written_parameters(values)) == values

    def test_are_sent_as_a_person_writes_them(self) -> None:
        sent = _json.written_parameters({"a": True, "b": 5, "c": 2.5, "d": "x"})
        assert _json.read_parameters(sent) == {"a": "true", "b": "5", "c": "2.5", "d": "x"}

    def test_may_be_written_as_values_of_json(self) -> None:
        assert _json.read_parameters(b'{"a": false, "b": 5, "c": 1e3}') == {"a": "false", "b": "5", "c": "1000.0"}

    @pytest.mark.parametrize(
        "data",
        [
            b"[]",
            b"swordfish",
            b'{"a": ["swordfish"]}',
            b'{"a": null}',
            b'{"a": 1e999}',
            b" " * (_json.MAX_PARAMETERS + 1),
        ],
    )
    def test_of_another_kind_are_refused_and_not_shown(self, data: bytes) -> None:
        with pytest.raises(Unreadable) as caught:
            _json.read_parameters(data)
        assert "swordfish" not in str(caught.value)

    @pytest.mark.parametrize("parameters", [{"a": None}, {"a": ["swordfish"]}, {7: "a"}, {"a": float("nan")}, "a=b"])
    def test_that_cannot_be_sent_are_refused_before(self, parameters: Any) -> None:
        with pytest.raises((TypeError, ValueError)) as caught:
            _asking.submit("greet", parameters, 0, 0, None)
        assert "swordfish" not in str(caught.value)


class TestAsking:
    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: _asking.script(""),
            lambda: _asking.job(0),
            lambda: _asking.job(1.5),
            lambda: _asking.job(True),
            lambda: _asking.job(""),
            lambda: _asking.submit("greet", {}, 0, 0, None, "R2", "night"),
            lambda: _asking.submit("greet", {}, 0, 0, None, ""),
            lambda: _asking.submit("greet", {}, 0, 0, None, None, ""),
            lambda: _asking.submit("greet", {}, 101, 0, None),
            lambda: _asking.submit("greet", {}, 0, -1, None),
            lambda: _asking.submit("greet", {}, 0, "1", None),
            lambda: _asking.submit("greet", {}, 0, float("nan"), None),
            lambda: _asking.submit("greet", {}, 0, 0, "mine"),
            lambda: _asking.jobs(None, [99], None, None, 50),  # type: ignore[list-item]
            lambda: _asking.jobs(None, [], None, None, 1001),
            lambda: _asking.jobs("", [], None, None, 50),
            lambda: Following(7, -1, output=True, patience=1, host="h"),
        ],
    )
    def test_checks_arguments(self, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            wrong()

    def test_keeps_parameters_out_of_all_words_but_the_last(self) -> None:
        *words, last = _asking.submit("greet", {"password": "swordfish"}, 0, 0, None).words
        assert "swordfish" not in str(words)
        assert b"swordfish" in bytes(str(last), "utf-8")

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("no-such-job", _asking.NoSuchJobError),
            ("no-such-script", _asking.NoSuchScriptError),
            ("denied", _asking.JobDeniedError),
            ("parameter", _asking.JobParameterError),
            ("state", _asking.JobStateError),
            ("unavailable", _asking.JobsUnavailableError),
            ("something new", _asking.JobError),
        ],
    )
    def test_makes_typed_errors_of_faults(self, kind: str, expected: type[_asking.JobError]) -> None:
        said = _json.written_fault(Fault(kind, "because", "name"))
        with pytest.raises(RemctlError) as caught:
            _asking.job(7).answer(Result(said, b"job status: because\n", 1), "host")
        error = caught.value
        assert type(error) is expected
        assert (error.reason, error.host, error.command) == ("because", "host", "job status")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (expected, str(error), vars(error))

    def test_takes_the_last_line_where_no_fault_is_told(self) -> None:
        with pytest.raises(_asking.JobError, match=r"exit status 64: job status: too many \(command 'job status' on h"):
            _asking.job(7).answer(Result(b"", b"first\njob status: too many\n", 64), "h")
        with pytest.raises(_asking.JobsUnavailableError):
            _asking.job(7).answer(Result(b"", b"", 75), "h")

    def test_says_that_an_answer_cannot_be_understood(self) -> None:
        with pytest.raises(_asking.JobAnswerError, match=r"the answer cannot be understood: it is no JSON.*version"):
            _asking.job(7).answer(Result(b"hello\n", b"", 0), "h")

    def test_collects_output_and_what_is_not_kept(self) -> None:
        events: list[Said] = [
            GapEvent(1, "stdout", 0, 3),
            OutputEvent(1, "stdout", 3, b"ab"),
            OutputEvent(1, "stdout", 5, b"\0\n"),
            OutputEvent(1, "stderr", 0, b"e"),
            GapEvent(1, "stderr", 1, 9),
        ]
        said = b"".join(_json.written_event(event) for event in events)
        assert _asking.output(7).answer(Result(said, b"", 0), "h") == Output(b"ab\0\n", b"e", 7, 10)


def following(timeout: float | None = None, patience: float | None = 60) -> Following:
    return Following(7, timeout, output=True, patience=patience, host="h")


def heard(one: Following, *events: Said) -> list[JobEvent]:
    one.begin()
    return list(one.take(b"".join(_json.written_event(event) for event in events)))


RUNS = StateEvent(JobState.IN_PROGRESS, 1)


class TestFollowing:
    def test_leaves_out_what_was_heard_before_the_connection_was_lost(self) -> None:
        one = following()
        assert heard(one, RUNS, OutputEvent(1, "stdout", 0, b"abc")) == [RUNS, OutputEvent(1, "stdout", 0, b"abc")]
        assert heard(one, RUNS, OutputEvent(1, "stdout", 0, b"abcde"), OutputEvent(1, "stderr", 0, b"x")) == [
            OutputEvent(1, "stdout", 3, b"de"),
            OutputEvent(1, "stderr", 0, b"x"),
        ]
        assert heard(one, GapEvent(1, "stdout", 0, 7), OutputEvent(1, "stdout", 7, b"h")) == [
            GapEvent(1, "stdout", 5, 2),
            OutputEvent(1, "stdout", 7, b"h"),
        ]

    def test_begins_anew_with_each_attempt(self) -> None:
        one = following()
        heard(one, RUNS, OutputEvent(1, "stdout", 0, b"abc"))
        again = StateEvent(JobState.IN_PROGRESS, 2)
        assert heard(one, again, OutputEvent(2, "stdout", 0, b"a")) == [again, OutputEvent(2, "stdout", 0, b"a")]

    def test_is_over_with_the_end(self) -> None:
        one = following()
        assert heard(one, AliveEvent(), EndEvent(JOB)) == [EndEvent(JOB)]
        one.end(0)
        assert one.over

    def test_forgets_half_a_line_of_a_lost_connection(self) -> None:
        one = following()
        assert list(one.take(_json.written_event(RUNS)[:9])) == []
        assert heard(one, RUNS) == [RUNS]

    def test_ends_with_the_time_limit_and_tells_where_the_job_stood(self) -> None:
        one = following(timeout=60)
        with pytest.raises(
            _asking.JobTimeoutError, match="job 7 was not over within 60 s, and is In_Progress"
        ) as caught:
            heard(one, RUNS, TimeoutEvent())
        assert caught.value.state is JobState.IN_PROGRESS
        assert pickle.loads(pickle.dumps(caught.value)).state is JobState.IN_PROGRESS

    def test_asks_for_the_time_that_is_left(self) -> None:
        one = following(timeout=60)
        (limit,) = [word for word in one.words if word.startswith("--timeout=")]
        assert 59 < float(limit.removeprefix("--timeout=")) <= 60

    def test_goes_on_after_a_lost_connection_with_growing_pauses(self) -> None:
        one = following()
        heard(one, RUNS)
        error = RemctlConnectionError("lost")
        pauses = [one.lost(error) for _ in range(9)]
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (0.1, 5.0)
        heard(one, AliveEvent())
        assert one.lost(error) == 0.1

    def test_gives_up_where_there_never_was_a_connection(self) -> None:
        error = RemctlConnectionError("unknown host")
        with pytest.raises(RemctlConnectionError) as caught:
            following().lost(error)
        assert caught.value is error

    def test_gives_up_when_its_patience_is_at_an_end(self) -> None:
        one = following(patience=1e-9)
        heard(one, RUNS)
        error = RemctlConnectionError("lost")
        one.lost(error)
        with pytest.raises(RemctlConnectionError):
            one.lost(error)

    def test_ends_with_the_time_limit_while_the_server_is_away(self) -> None:
        one = following(timeout=1e-9)
        heard(one, RUNS)
        with pytest.raises(_asking.JobTimeoutError):
            one.lost(RemctlConnectionError("lost"))

    def test_raises_what_the_server_has_refused(self) -> None:
        one = following()
        list(one.take(_json.written_fault(Fault("no-such-job", "there is no job 7"))))
        list(one.take(b"job wait: there is no job 7\n", error=True))
        with pytest.raises(_asking.NoSuchJobError, match="there is no job 7"):
            one.end(1)

    @pytest.mark.parametrize("status", [0, 1])
    def test_raises_where_the_answer_ends_before_the_job(self, status: int) -> None:
        one = following()
        heard(one, RUNS)
        with pytest.raises(_asking.JobError):
            one.end(status)

    def test_raises_what_cannot_be_understood(self) -> None:
        with pytest.raises(_asking.JobAnswerError) as caught:
            list(following().take(b"hello\n"))
        assert caught.value.stdout == b"hello"


def test_a_client_needs_no_extra() -> None:
    code = """if True:
        import sys
        for name in ("alembic", "asyncio", "gssapi", "msgspec", "psycopg", "sqlalchemy", "starlette"):
            sys.modules[name] = None
        from remctl.jobs import Client
        Client("localhost").close()
    """
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], check=True, timeout=30)


def test_the_package_loads_the_client_when_it_is_asked_for() -> None:
    code = "import sys, remctl.jobs; assert 'remctl.jobs.client' not in sys.modules; remctl.jobs.Client"
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], check=True, timeout=30)
    with pytest.raises(AttributeError, match="has no attribute 'Robot'"):
        _ = remctl.jobs.Robot
