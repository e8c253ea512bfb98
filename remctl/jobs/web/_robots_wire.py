"""What robots and the server say to each other: the bodies of requests as values, and answers as JSON.

No network, no store.  `_robots` serves with it, and `_robots_openapi` describes it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import io
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError

from remctl.exceptions import RemctlError
from remctl.jobs.states import JobState, RobotStatus
from remctl.jobs.store import Claim

E = TypeVar("E", bound=enum.IntEnum)

ORCHESTRATED: Final = 1
"""The only type of job."""

FIELDS: Final = 100
"""In one request."""

LONGEST: Final = 255
"""Characters of a text."""

LONGEST_ADDRESS: Final = 64
"""Characters of an IP or a MAC address."""

TEXT: Final = r"[^\x00-\x1f\x7f-\x9f]*"
"""What a text is made of: no control characters."""

FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
JSON: Final = "application/json"


class Code(enum.IntEnum):
    """The error codes of answers; faults that have none here have the status of HTTP."""

    NO_ERROR = 0
    ABORTING = 10
    """Whatever the robot runs has to end at once."""
    STOPPING = 20
    """Its job has to end in peace."""
    UNKNOWN_ROBOT = 101
    NO_JOB = 102


class BodyTypeError(RemctlError):
    """The body is of a type that nobody reads."""


class FieldError(RemctlError):
    """The body cannot be read, or a field is missing or wrong; the text names it and its value."""


class Beat(NamedTuple):
    """A heartbeat."""

    status: RobotStatus
    machine: str
    ip: str
    mac: str
    job: str
    """The GUID of the job that it says it has; empty is none, or not known."""


class Update(NamedTuple):
    """What a robot says of a job."""

    job: str
    """Its GUID."""
    state: JobState


# What is read


def read_guid(header: str) -> str | None:
    """Return the robot's GUID that an Authorization header has, in small letters; None if there is none.

    It is all that is encoded, or has a colon after it, as a name with an empty password.
    """
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        guid = base64.b64decode(text.strip(), validate=True).decode("ascii").removesuffix(":")
    except (binascii.Error, ValueError):
        return None
    return guid.lower() if _GUID.fullmatch(guid) else None


_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def read_body(content_type: str, body: bytes) -> Mapping[str, Any]:
    """Return the fields of a body, which may be a form or a JSON object; those of an empty one without a type are none.

    What a form has more than once becomes a list, which is the value of no field.

    Raises:
        BodyTypeError: it is something else.
        FieldError: it cannot be read.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not kind and not body:
        return {}
    if kind == JSON:
        return _object(body)
    if kind == FORM:
        pairs = _pairs(body)
    elif kind == MULTIPART:
        pairs = _parts(content_type, body)
    else:
        raise BodyTypeError(f"the content type must be {FORM}, {MULTIPART} or {JSON}")
    fields: dict[str, Any] = {}
    for name, value in pairs:
        fields[name] = [fields[name], value] if name in fields else value
    return fields


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise FieldError("the body is no JSON object") from None


def _pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except ValueError:
        raise FieldError(f"the body is no form in UTF-8 with {FIELDS} fields at the most") from None


def _parts(content_type: str, body: bytes) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def keep(field: Any) -> None:
        found.append(((field.field_name or b"").decode(), (field.value or b"").decode()))

    def refuse(_: object) -> None:
        raise FieldError("the body has a file in it")

    try:
        parse_form({"Content-Type": content_type.encode("latin-1")}, io.BytesIO(body), keep, refuse)
    except (FormParserError, ValueError):
        raise FieldError("the body is no form in UTF-8") from None
    return found


def read_heartbeat(fields: Mapping[str, Any]) -> Beat:
    """Read a heartbeat.

    Raises:
        FieldError: a field is missing or wrong.
    """
    _text(fields, "JobName")
    if fields.get("JobType", "") != "":
        _number(fields, "JobType", _Type)
    return Beat(
        _number(fields, "Status", RobotStatus),
        _text(fields, "Machine"),
        _text(fields, "IP", LONGEST_ADDRESS),
        _text(fields, "MAC", LONGEST_ADDRESS),
        _text(fields, "JobGUID"),
    )


class _Type(enum.IntEnum):
    ORCHESTRATED = ORCHESTRATED


def check_consume(fields: Mapping[str, Any]) -> None:
    """See that a request for a job makes sense.

    Raises:
        FieldError: a field is wrong.
    """
    if fields.get("Status", "") != "":
        _number(fields, "Status", RobotStatus)


def read_update(fields: Mapping[str, Any]) -> Update:
    """Read what a robot says of a job.

    Raises:
        FieldError: a field is missing or wrong.
    """
    job = _text(fields, "guid")
    if not job:
        raise FieldError("guid is missing: it names the job")
    return Update(job, _number(fields, "status", JobState))


def _text(fields: Mapping[str, Any], name: str, longest: int = LONGEST) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > longest or not re.fullmatch(TEXT, value):
        rule = f"text of {longest} characters at the most, without control characters"
        raise FieldError(f"{name} must be {rule}, and is {_shown(value)}")
    return value


def _number(fields: Mapping[str, Any], name: str, kind: type[E]) -> E:
    value = fields.get(name, "")
    known = {str(int(each)): each for each in kind}
    found = known.get(str(value).strip()) if isinstance(value, int | str) else None
    if found is None:
        raise FieldError(f"{name} must be one of {', '.join(known)}, and is {_shown(value)}")
    return found


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# What is written


def heartbeat_answer(code: int, text: str = "", *, has_new_job: bool = False) -> dict[str, Any]:
    """Return the answer to a heartbeat."""
    return {"HeartbeatErrorCode": int(code), "ErrorText": text, "HasNewJob": int(has_new_job)}


def consume_answer(code: int, text: str = "", claim: Claim | None = None) -> dict[str, Any]:
    """Return the answer to a robot that wants a job; it has the job's secrets in it."""
    job, version, task = _job(claim) if claim is not None else ({}, {}, {})
    return {
        "ConsumeJobErrorCode": int(code),
        "ErrorText": text,
        "Job": json.dumps(job),
        "ProcessVersion": json.dumps(version),
        "Task": json.dumps(task),
        " Task ": json.dumps(task),  # as the interface's own example reads it
    }


def _job(claim: Claim) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    job = claim.job
    return (
        {"GUID": job.guid, "Name": job.script, "Status": int(job.state)},
        {"Name": job.script, "Version": claim.sha256, "Language": claim.language.value},
        {**job.parameters, **claim.secrets},
    )


def update_answer(code: int, text: str = "", state: JobState | None = None) -> dict[str, Any]:
    """Return the answer to what a robot says of a job; the state is where that stands now."""
    return {"ErrorCode": int(code), "ErrorText": text, "Status": None if state is None else int(state)}
