"""What robots and their orchestrator say to each other: requests as values, and answers as what they mean.

No network, no clock, no file.  Orchestrators differ in what they make of the interface, so much is taken: names of
fields in any case and with blanks around them, numbers as text, objects as JSON within JSON, fields that are missing or
that nobody knows.  Whatever an answer holds, it is read, or one of the errors here says why not.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from remctl.jobs.robot._errors import CredentialsError, NotNowError, RefusedError, UnknownRobotError
from remctl.jobs.states import JobState

ORCHESTRATED: Final = 1
"""The only type of job there is."""

LONGEST_GUID: Final = 200

LONGEST_NAME: Final = 1000

DEEPEST: Final = 100
"""Objects and lists within each other, in what is read."""

_REFUSALS: Final = frozenset({400, 403, 404, 409, 410, 422})
"""HTTP statuses that say of a job that it is not known, not this robot's, or not where it would have to be."""

_WAITS: Final = frozenset({408, 425, 429})
"""HTTP statuses that say: later."""


class Status(enum.IntEnum):
    """What a robot does."""

    DISCONNECTED = 0
    UNLICENSED = 1
    READY = 2
    """It runs nothing, and takes a job."""
    WORKING = 3


class Code(enum.IntEnum):
    """The error codes of heartbeats and of taking jobs, which an orchestrator may have more of."""

    NO_ERROR = 0
    ABORTING = 10
    """The script is to end at once."""
    STOPPING = 20
    """The script is to end in peace."""
    NOT_FOUND = 101
    """No robot has this GUID."""
    NO_JOB = 102


class Machine(NamedTuple):
    """Where a robot is; what is not known is empty."""

    name: str
    ip: str
    mac: str


class Job(NamedTuple):
    """What an orchestrator hands out."""

    guid: str
    name: str
    """Of the script; empty if the answer had none."""
    task: Any
    """What the script is to do: any JSON, None if there is nothing."""


class Request(NamedTuple):
    """One request, without the credentials, which go into a header."""

    method: str
    path: str
    form: dict[str, str]


class Beat(NamedTuple):
    """The answer to a heartbeat."""

    code: int
    has_job: bool
    text: str
    """What the orchestrator has to say, fit for a line in a log."""


# What is sent


def heartbeat(guid: str, machine: Machine, status: Status, job: Job | None) -> Request:
    """Return the request that says what a robot does.

    Args:
        guid: the robot's.
        machine: where it is.
        status: what it does.
        job: what it runs; None is nothing.
    """
    form = {
        "RobotGUID": guid,
        "Machine": machine.name,
        "IP": machine.ip,
        "MAC": machine.mac,
        "Status": str(int(status)),
        "JobGUID": job.guid if job else "",
        "JobName": job.name if job else "",
        "JobType": str(ORCHESTRATED),
    }
    return Request("POST", "/api/robot/heartbeat", form)


def consume(guid: str) -> Request:
    """Return the request that takes the next job of a robot, which is ready."""
    return Request("POST", "/api/robot/consumeNextJob", {"RobotGUID": guid, "Status": str(int(Status.READY))})


def update(job: str, state: JobState) -> Request:
    """Return the request that says where a job stands."""
    return Request("PUT", "/api/job/update", {"guid": job, "status": str(int(state))})


# What is read


def read_heartbeat(status: int, body: bytes) -> Beat:
    """Read the answer to a heartbeat.

    Args:
        status: HTTP's.
        body: all of it.

    Raises:
        UnknownRobotError, CredentialsError: the robot is not known, or not let in.
        NotNowError: it is no answer.
    """
    found = _answer(status, body, "HeartbeatErrorCode")
    code, has_job = _code(found, "HeartbeatErrorCode"), _number(_field(found, "HasNewJob"))
    if code is None and has_job is None:
        raise NotNowError("the answer to the heartbeat has neither HeartbeatErrorCode nor HasNewJob")
    return Beat(code or 0, has_job == 1, line(_field(found, "ErrorText")))


def read_consumed(status: int, body: bytes) -> Job | None:
    """Read the job that an orchestrator hands out; None if it has none.

    Raises:
        UnknownRobotError, CredentialsError: the robot is not known, or not let in.
        NotNowError: it is no answer, or has no job that could be told apart from others.
    """
    found = _answer(status, body, "ConsumeJobErrorCode")
    code = _code(found, "ConsumeJobErrorCode")
    if code == Code.NO_JOB:
        return None
    if code:
        raise NotNowError(
            f"the orchestrator hands out no job: error {code} {line(_field(found, 'ErrorText'))}".rstrip()
        )
    job, version = _unpacked(_field(found, "Job")), _unpacked(_field(found, "ProcessVersion"))
    guid = _field(job, "GUID") if isinstance(job, dict) else None
    if isinstance(guid, int) and not isinstance(guid, bool):
        guid = str(guid)
    if not isinstance(guid, str) or not 0 < len(guid) <= LONGEST_GUID or not guid.isascii() or not guid.isprintable():
        raise NotNowError("the orchestrator hands out a job without a GUID that can be used")
    name = _field(version, "Name") if isinstance(version, dict) else None
    name = name[:LONGEST_NAME].encode("utf-8", "replace").decode() if isinstance(name, str) else ""
    return Job(guid, name, _unpacked(_field(found, "Task")))


def read_updated(status: int, body: bytes) -> None:
    """Read what an orchestrator makes of what it was told about a job: any answer will do that is no refusal.

    Raises:
        RefusedError: it does not know the job, or the job cannot get there from where it stands.
        CredentialsError: the robot is not let in.
        NotNowError: it is no answer.
    """
    if status == 401:
        raise _not_let_in(status)
    found = _object(body)
    code = next((_number(value) for name, value in found.items() if name.casefold().strip().endswith("errorcode")), 0)
    if status in _REFUSALS or (code and status < 500 and status not in _WAITS):
        raise RefusedError(f"HTTP status {status}, error {code or 0} {line(_field(found, 'ErrorText'))}".rstrip())
    if not 200 <= status < 300:
        raise NotNowError(_unusable(status))
    if body.lstrip()[:1] == b"<":
        raise NotNowError("a page came back in place of an answer: something stands before the orchestrator")


def line(value: object) -> str:
    """Return what somebody else has written as one short line for a log; what is no text is empty."""
    if not isinstance(value, str):
        return ""
    shown = re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff]+", " ", value[:1000]).strip()
    return shown if len(shown) <= 200 else shown[:200] + "..."


def _answer(status: int, body: bytes, code: str) -> dict[str, Any]:
    """Return the object that came, if it is the orchestrator's answer."""
    found = _object(body)
    if _number(_field(found, code)) == Code.NOT_FOUND:
        raise UnknownRobotError(
            f"the orchestrator knows no robot of this GUID: {line(_field(found, 'ErrorText'))}".rstrip(": "),
            hint="compare the GUID with the one in the orchestrator",
        )
    if status in (401, 403):
        raise _not_let_in(status)
    if not 200 <= status < 300:
        raise NotNowError(_unusable(status))
    if not found:
        raise NotNowError("the answer is no JSON object: the address may be another server's")
    return found


def _not_let_in(status: int) -> CredentialsError:
    return CredentialsError(
        f"the orchestrator does not let this robot in: HTTP status {status}", hint="compare the GUID, which is the key"
    )


def _unusable(status: int) -> str:
    if 300 <= status < 400:
        return f"the orchestrator sends elsewhere (HTTP status {status}), where a robot does not go: name that address"
    return f"the orchestrator answers with HTTP status {status}"


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that came; an empty one if it was something else."""
    try:
        found = _json(body.decode("utf-8-sig"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(text: str) -> Any:
    try:
        found = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None
    inner = [found]
    for _ in range(DEEPEST):
        inner = [each for value in inner for each in _inside(value)]
    if inner:  # what is so deep could be read, and not be written any more
        raise ValueError("too deep")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is no number in JSON")
    return value


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _unpacked(value: Any) -> Any:
    """Return what is JSON within JSON as what it stands for, and everything else as it is."""
    if isinstance(value, str):
        try:
            return _json(value)
        except ValueError:
            return value or None
    return value


def _field(found: Mapping[str, Any], name: str) -> Any:
    if name in found:
        return found[name]
    return next((value for key, value in found.items() if key.strip().casefold() == name.casefold()), None)


def _code(found: Mapping[str, Any], name: str) -> int | None:
    """Return an error code; None if there is none."""
    value = _field(found, name)
    if value is None:
        return None
    if (number := _number(value)) is None:
        raise NotNowError(f"{name} in the answer is no number")
    return number


def _number(value: object) -> int | None:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII):
        return int(value)
    return None
