"""What goes over the wire between the remctl command `job` and its clients; `_json` says how.

Stands on `states` alone, so that a client needs neither the store nor the extra `jobs`.  What the store has too has the
same names here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from remctl.jobs.states import JobState, Move, Reason, RobotStatus

Stream = Literal["stdout", "stderr"]

STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

UNAVAILABLE: Final = 75
"""The exit status where asking later helps (EX_TEMPFAIL): the database is away, or a time limit has passed."""

ALIVE: Final = 20.0
"""Seconds after which a wait says that it is still there; who hears nothing for much longer has lost it."""


class Script(NamedTuple):
    """A script that the caller may use."""

    name: str
    language: str
    description: str
    run_time: float | None
    """Seconds that it may run; None is without limit."""
    parameters: Mapping[str, Mapping[str, Any]]
    """What its header says of each parameter: type, required, description, and so on."""


class Job(NamedTuple):
    """A job, as it stood when it was read."""

    id: int
    guid: str
    script: str
    parameters: Mapping[str, Any]
    """But for those that are secret."""
    owner: str
    state: JobState
    reason: Reason | None
    detail: str | None
    """More about the reason."""
    priority: int
    attempts: int
    """How many times somebody has taken it."""
    exit_status: int | None
    signal: int | None
    asked_by: str | None
    """Who wanted it stopped or aborted."""
    created_at: float
    """In seconds since the epoch, as all times are."""
    started_at: float | None
    ended_at: float | None
    robot: str | None = None
    """The name of the robot that it is for; None with a pool of None is the runners."""
    pool: str | None = None
    """The pool whose robots it is for."""


class Attempt(NamedTuple):
    """One time that somebody has taken a job."""

    number: int
    """Which of its job's, from 1."""
    runner: str
    claimed_at: float
    started_at: float | None
    ended_at: float | None
    reason: Reason | None
    detail: str | None
    exit_status: int | None
    signal: int | None
    reported_at: float | None
    reported_success: bool | None
    """Whether the script said that it succeeded; None if it said nothing."""
    report: str | None
    """What it said."""
    late_reports: int
    """How many reports came after the end; they changed nothing."""


class Event(NamedTuple):
    """Something that has happened to a job."""

    at: float
    move: Move
    state: JobState
    """Where it led."""
    attempt: int | None
    """The number of the attempt that the job was in, if there was one."""
    who: str
    detail: str | None


class History(NamedTuple):
    """What has become of a job, the first thing first."""

    attempts: list[Attempt]
    events: list[Event]


class Machine(NamedTuple):
    """A machine that is known."""

    name: str
    address: str
    certified: bool
    """Whether an administrator vouches for it."""
    seen_at: float | None
    """When a runner on it was last heard of."""


class Robot(NamedTuple):
    """A robot that is known: an agent on another machine, which runs jobs one after the other."""

    name: str
    pool: str | None
    """Which it belongs to."""
    status: RobotStatus
    seen_at: float | None
    """When it was last heard of."""
    machine: str | None
    """The name of the machine that it is on, as far as it said."""
    job: int | None
    """The number of the job that it has."""


class Output(NamedTuple):
    """What is kept of the output of a job's last attempt."""

    stdout: bytes
    stderr: bytes
    stdout_size: int
    """Bytes of all that was written; what is missing is the beginning, unless a disk was full."""
    stderr_size: int


class Fault(NamedTuple):
    """Why something was not done."""

    kind: str
    text: str
    parameter: str | None = None
    """The parameter of the script that it is about."""


# What a wait says


class StateEvent(NamedTuple):
    """A job stands somewhere else than before."""

    state: JobState
    attempt: int
    """Which attempt it is in, from 1; 0 before the first.  Each begins its output anew."""


class OutputEvent(NamedTuple):
    """A job has written something."""

    attempt: int
    stream: Stream
    offset: int
    """Of the first byte, counted from the stream's beginning in this attempt."""
    data: bytes


class GapEvent(NamedTuple):
    """Something that a job has written is not kept."""

    attempt: int
    stream: Stream
    offset: int
    size: int
    """How many bytes."""


class EndEvent(NamedTuple):
    """A job is over."""

    job: Job


class TimeoutEvent(NamedTuple):
    """The time limit has passed, and the job is not over."""


class AliveEvent(NamedTuple):
    """Nothing has happened; see `ALIVE`."""


JobEvent: TypeAlias = StateEvent | OutputEvent | GapEvent | EndEvent
"""What a client hears of a job that it follows."""

Said: TypeAlias = JobEvent | TimeoutEvent | AliveEvent

# States as people write them


def shown(state: JobState | RobotStatus) -> str:
    """Return the name of a job's state, or of a robot's: In_Progress."""
    return state.name.title()


def state_named(text: str) -> JobState:
    """Return the state of a name, in any case.

    Raises:
        ValueError: there is none.
    """
    try:
        return JobState[text.upper()]
    except KeyError:
        raise ValueError(f"it must be one of {', '.join(map(shown, JobState))}") from None


def as_guid(text: object) -> str:
    """Return a GUID as the store has it.

    Raises:
        ValueError: it is none.
    """
    try:
        return str(uuid.UUID(str(text)))
    except ValueError:
        raise ValueError(f"it is no GUID: {str(text)!r:.80}") from None
