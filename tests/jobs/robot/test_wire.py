"""What is sent, to the letter, and what is read, whatever came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remctl.jobs.robot import _wire
from remctl.jobs.robot._errors import CredentialsError, NotNowError, RefusedError, UnknownRobotError
from remctl.jobs.robot._wire import Beat, Job, Machine, Status
from remctl.jobs.states import JobState

JOB = Job("j-1", "work", None)

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[]), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)

NAMES = st.sampled_from(
    ["HeartbeatErrorCode", "HasNewJob", "ErrorText", "ConsumeJobErrorCode", "Job", "ProcessVersion", "Task", " Task "]
)

INNER = st.dictionaries(st.sampled_from(["GUID", "Name", "guid "]), ANY, max_size=3)

ANSWERS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(NAMES, ANY | INNER | INNER.map(json.dumps) | ANY.map(json.dumps), max_size=8).map(
        lambda found: json.dumps(found).encode()
    ),
    ANY.map(lambda found: json.dumps(found).encode()),
)


def body(**values: Any) -> bytes:
    return json.dumps(values).encode()


class TestSent:
    def test_a_heartbeat(self) -> None:
        machine = Machine("host", "192.0.2.1", "00:00:5e:00:53:01")
        assert _wire.heartbeat("g", machine, Status.WORKING, JOB) == (
            "POST",
            "/api/robot/heartbeat",
            {
                "RobotGUID": "g",
                "Machine": "host",
                "IP": "192.0.2.1",
                "MAC": "00:00:5e:00:53:01",
                "Status": "3",
                "JobGUID": "j-1",
                "JobName": "work",
                "JobType": "1",
            },
        )

    def test_the_others(self) -> None:
        assert _wire.consume("g") == ("POST", "/api/robot/consumeNextJob", {"RobotGUID": "g", "Status": "2"})
        assert _wire.update("j-1", JobState.IN_PROGRESS) == ("PUT", "/api/job/update", {"guid": "j-1", "status": "8"})


class TestHeartbeat:
    @pytest.mark.parametrize(
        ("answer", "beat"),
        [
            (body(HeartbeatErrorCode=0, ErrorText="", HasNewJob=1, Other={}), Beat(0, True, "")),
            (body(HeartbeatErrorCode="10", HasNewJob="0"), Beat(10, False, "")),
            (body(heartbeaterrorcode=20.0, hasnewjob=True), Beat(20, True, "")),
            (body(HasNewJob=0), Beat(0, False, "")),
            (body(HeartbeatErrorCode=0, ErrorText=None), Beat(0, False, "")),
            (body(HeartbeatErrorCode=5, ErrorText="a\n\x1b[1mb"), Beat(5, False, "a [1mb")),
            (b"\xef\xbb\xbf" + body(HeartbeatErrorCode=0, HasNewJob=1), Beat(0, True, "")),
        ],
    )
    def test_is_read(self, answer: bytes, beat: Beat) -> None:
        assert _wire.read_heartbeat(200, answer) == beat

    @pytest.mark.parametrize(
        ("status", "answer"),
        [
            (200, b""),
            (200, b"<html>"),
            (200, b"{}"),
            (200, b"[1]"),
            (200, body(Message="hello")),
            (200, body(HeartbeatErrorCode="many")),
            (200, b"[" * 100_000),
            (200, b'{"HeartbeatErrorCode": ' + b"9" * 5000 + b"}"),
            (302, b""),
            (404, b"<html>"),
            (500, body(HeartbeatErrorCode=10)),
        ],
    )
    def test_is_no_answer(self, status: int, answer: bytes) -> None:
        with pytest.raises(NotNowError):
            _wire.read_heartbeat(status, answer)

    def test_that_sends_elsewhere_says_so(self) -> None:
        with pytest.raises(NotNowError, match="sends elsewhere"):
            _wire.read_heartbeat(307, b"")

    @pytest.mark.parametrize("status", [200, 401, 404])
    def test_of_a_robot_that_is_not_known(self, status: int) -> None:
        with pytest.raises(UnknownRobotError):
            _wire.read_heartbeat(status, body(HeartbeatErrorCode=101))

    @pytest.mark.parametrize("status", [401, 403])
    def test_of_a_robot_that_is_not_let_in(self, status: int) -> None:
        with pytest.raises(CredentialsError):
            _wire.read_heartbeat(status, b"")


class TestConsumed:
    @pytest.mark.parametrize("pack", [json.dumps, lambda value: value])
    @pytest.mark.parametrize("task_name", ["Task", " Task ", "task"])
    def test_is_read(self, pack: Callable[[Any], Any], task_name: str) -> None:
        values = {
            "ConsumeJobErrorCode": 0,
            "Job": pack({"GUID": "j-1", "x": 1}),
            "ProcessVersion": pack({"Name": "work"}),
            task_name: pack({"a": 1}),
        }
        assert _wire.read_consumed(200, body(**values)) == Job("j-1", "work", {"a": 1})

    @pytest.mark.parametrize(
        ("more", "task"),
        [({}, None), ({"Task": None}, None), ({"Task": "null"}, None), ({"Task": ""}, None), ({"Task": "x y"}, "x y")],
    )
    def test_tasks(self, more: dict[str, Any], task: Any) -> None:
        found = _wire.read_consumed(200, body(Job={"GUID": "j-1"}, ProcessVersion={"Name": "work"}, **more))
        assert found is not None
        assert found.task == task

    def test_there_is_none(self) -> None:
        assert _wire.read_consumed(200, body(ConsumeJobErrorCode="102")) is None

    def test_one_without_a_script_can_still_be_told_of(self) -> None:
        assert _wire.read_consumed(200, body(ConsumeJobErrorCode=0, Job={"GUID": 7})) == Job("7", "", None)

    @pytest.mark.parametrize(
        "job", [None, "{", "[]", {}, {"GUID": ""}, {"GUID": "a\nb"}, {"GUID": "x" * 201}, {"GUID": True}]
    )
    def test_one_without_a_guid_is_no_answer(self, job: Any) -> None:
        with pytest.raises(NotNowError, match="without a GUID"):
            _wire.read_consumed(200, body(ConsumeJobErrorCode=0, Job=job))

    def test_another_error_is_no_answer(self) -> None:
        with pytest.raises(NotNowError, match="error 7 busy"):
            _wire.read_consumed(200, body(ConsumeJobErrorCode=7, ErrorText="busy", Job={"GUID": "j-1"}))

    def test_of_a_robot_that_is_not_known(self) -> None:
        with pytest.raises(UnknownRobotError):
            _wire.read_consumed(200, body(ConsumeJobErrorCode=101))


class TestUpdated:
    @pytest.mark.parametrize("answer", [b"", b"OK", b"{}", b"[]", body(ErrorCode=0), body(UpdateErrorCode="0")])
    @pytest.mark.parametrize("status", [200, 204])
    def test_is_taken(self, status: int, answer: bytes) -> None:
        _wire.read_updated(status, answer)

    @pytest.mark.parametrize(
        ("status", "answer"),
        [
            *((status, b"<html>") for status in (400, 403, 404, 409, 410, 422)),
            (200, body(UpdateErrorCode=5)),
            (418, body(ErrorCode=5)),
        ],
    )
    def test_is_refused(self, status: int, answer: bytes) -> None:
        with pytest.raises(RefusedError):
            _wire.read_updated(status, answer)

    @pytest.mark.parametrize(
        ("status", "answer"),
        [(500, b""), (503, body(ErrorCode=5)), (429, body(ErrorCode=5)), (301, b""), (200, b" <p>")],
    )
    def test_is_no_answer(self, status: int, answer: bytes) -> None:
        with pytest.raises(NotNowError):
            _wire.read_updated(status, answer)

    def test_is_not_let_in(self) -> None:
        with pytest.raises(CredentialsError):
            _wire.read_updated(401, body(ErrorCode=5))


def outcome(read: Callable[[int, bytes], object], status: int, answer: bytes) -> object:
    """Return what was read, or why it was not."""
    try:
        return read(status, answer)
    except (NotNowError, RefusedError, CredentialsError, UnknownRobotError) as error:
        return error


@settings(max_examples=400, deadline=None)
@given(status=st.sampled_from([200, 200, 200, 204, 302, 400, 401, 404, 409, 500]), answer=ANSWERS)
def test_whatever_comes_is_read_or_refused_and_can_be_sent_and_written_again(status: int, answer: bytes) -> None:
    for read in (_wire.read_heartbeat, _wire.read_consumed, _wire.read_updated):
        found = outcome(read, status, answer)
        if isinstance(found, Exception):
            assert str(found).isprintable()
        if isinstance(found, Job):
            json.dumps(found, allow_nan=False)
            f"{found.guid}{found.name}".encode()


def test_what_is_deeper_than_can_be_written_is_a_text() -> None:
    for depth in (90, 200, 5000):
        text = "[" * depth + "]" * depth
        found = _wire.read_consumed(200, body(Job={"GUID": "j"}, Task=text))
        assert found is not None
        assert isinstance(found.task, str) == (depth > 100)
        json.dumps(found.task)
