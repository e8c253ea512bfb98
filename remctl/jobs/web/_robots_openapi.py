"""The OpenAPI document of the robots' calls, made of the limits and numbers that `_robots_wire` reads with."""

from __future__ import annotations

import enum
from typing import Any, Final

from remctl._version import __version__
from remctl.jobs.states import JobState, RobotStatus
from remctl.jobs.web._robots_wire import FORM, JSON, LONGEST, LONGEST_ADDRESS, MULTIPART, ORCHESTRATED, TEXT

HEARTBEAT: Final = "/api/robot/heartbeat"
CONSUME: Final = "/api/robot/consumeNextJob"
UPDATE: Final = "/api/job/update"
DOCUMENT: Final = "/api/robot/openapi.json"

Schema = dict[str, Any]


def document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Robots' interface of remctl-jobs", "version": __version__},
        "security": [{"robot": []}],
        "paths": {
            HEARTBEAT: {"post": _call("heartbeat", "Say how a robot is", _HEARTBEAT, ["Status"], _HEARD, _PLAIN)},
            CONSUME: {"post": _call("consumeNextJob", "Take the next job", _CONSUME, [], _CONSUMED, _PLAIN)},
            UPDATE: {
                "put": _call(
                    "updateJob",
                    "Say what becomes of a job",
                    _UPDATE,
                    ["guid", "status"],
                    _UPDATED,
                    {**_PLAIN, **_OF_JOBS},
                )
            },
        },
        "components": {
            "securitySchemes": {
                "robot": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "base64 of the robot's GUID alone, or of the GUID as a name with an empty password",
                }
            }
        },
    }


def _call(
    name: str, summary: str, fields: Schema, required: list[str], answer: Schema, refusals: dict[str, str]
) -> Schema:
    schema = {"type": "object", "properties": fields, "required": required}
    answered = {
        status: {"description": text, "content": {JSON: {"schema": answer}}}
        for status, text in {"200": "Done, or the error code says why not", **refusals}.items()
    }
    for status in ("429", "503"):
        answered[status]["headers"] = {
            "Retry-After": {"description": "Seconds", "required": True, "schema": {"type": "integer", "minimum": 0}}
        }
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in (FORM, MULTIPART, JSON)}},
        "responses": answered,
    }


def _text(description: str, longest: int = LONGEST, shortest: int = 0) -> Schema:
    schema = {"type": "string", "description": description, "maxLength": longest, "pattern": f"^{TEXT}$"}
    return schema | ({"minLength": shortest} if shortest else {})


def _number(description: str, *kinds: enum.IntEnum, optional: bool = False) -> Schema:
    """A number or its text; forms have texts alone."""
    numbers = [int(each) for each in kinds] or [ORCHESTRATED]
    values: list[int | str] = [*numbers, *map(str, numbers), *([""] if optional else [])]
    return {"description": description, "enum": values}


def _answer(**fields: Schema) -> Schema:
    return {"type": "object", "properties": fields, "required": list(fields)}


_ROBOT: Final = _text("The robot's GUID, as in the header; may be left out or empty")

_HEARTBEAT: Final = {
    "RobotGUID": _ROBOT,
    "Machine": _text("The name of its machine"),
    "IP": _text("The machine's IP address", LONGEST_ADDRESS),
    "MAC": _text("The machine's MAC address", LONGEST_ADDRESS),
    "Status": _number("What the robot does", *RobotStatus),
    "JobGUID": _text("The GUID of the job that it has"),
    "JobName": _text("The name of its script"),
    "JobType": _number("The type of the job", optional=True),
}

_CONSUME: Final = {
    "RobotGUID": _ROBOT,
    "Status": _number("What the robot does", *RobotStatus, optional=True),
}

_UPDATE: Final = {
    "guid": _text("The GUID of the job", shortest=1),
    "status": _number("Where the job stands", *JobState),
}

_CODE: Final = {"type": "integer", "minimum": 0}
_WORDS: Final = {"type": "string"}
_INNER: Final = {"type": "string", "contentMediaType": JSON}

_HEARD: Final = _answer(HeartbeatErrorCode=_CODE, ErrorText=_WORDS, HasNewJob={"enum": [0, 1]})

_CONSUMED: Final = _answer(
    ConsumeJobErrorCode=_CODE,
    ErrorText=_WORDS,
    Job=_INNER,
    ProcessVersion=_INNER,
    Task=_INNER,
    **{" Task ": _INNER},
)

_UPDATED: Final = _answer(ErrorCode=_CODE, ErrorText=_WORDS, Status={"enum": [*(int(each) for each in JobState), None]})

_PLAIN: Final = {
    "400": "The body cannot be read, or a field is missing or wrong",
    "401": "The header has no robot's GUID",
    "403": "RobotGUID is another one than that of the header",
    "405": "The method is another one",
    "408": "The body has not come in time",
    "413": "The body is too large",
    "415": "The body is of another type, or compressed",
    "429": "Too many refusals of this address",
    "503": "The database is away",
}

_OF_JOBS: Final = {
    "403": "There is no such robot, or RobotGUID is another one than that of the header",
    "404": "The robot has no such job",
    "409": "The job cannot get there from where it stands",
}
