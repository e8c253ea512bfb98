"""What the store gives and takes: rows with types, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select, select

from remctl.acl import Acl
from remctl.exceptions import RemctlError
from remctl.jobs.scripts import Language, Parameters
from remctl.jobs.states import JobState, Move, Reason, RobotStatus
from remctl.jobs.store._schema import attempts, jobs, robots, scripts


class StoreError(RemctlError):
    """Something is not there, or cannot be done as things stand; nothing was changed."""


class StaleAttemptError(StoreError):
    """The attempt has ended already: whoever runs it was taken for lost, and has to kill what it runs."""


class Order(NamedTuple):
    """A job that somebody wants."""

    script: str
    """The name of an enabled script."""
    parameters: Mapping[str, Any]
    """As its `Parameters.check` returned them, but for those that are secret."""
    owner: str
    """The principal for whom it runs."""
    secrets: Mapping[str, Any] | None = None
    """The others; None if there are none.  They are forgotten when the job is over."""
    robot: int | None = None
    """The robot that is to run it; None with a pool of None leaves it to the runners."""
    pool: str | None = None
    """Any robot of this pool."""
    priority: int = 0
    """-100 to 100; higher ones are taken first."""
    delay: float = 0
    """Seconds before it may be taken."""
    guid: str | None = None
    """The caller's own, with which it may ask again; None makes one."""


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


class AttemptRecord(NamedTuple):
    """An attempt, as it stood when it was read."""

    id: int
    number: int
    """Which of its job's, from 1."""
    folder: str
    """The name of the folder that it has where it runs."""
    runner: str
    """Who has taken it."""
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


class Output(NamedTuple):
    """The last of what an attempt has written."""

    stdout: bytes = b""
    stderr: bytes = b""
    stdout_size: int = 0
    """Bytes of all that was written."""
    stderr_size: int = 0


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


class Taker(NamedTuple):
    """Who takes jobs."""

    name: str
    """What people know it by."""
    id: str
    """Its own for ever, also where another one has the same name."""


class Bid(NamedTuple):
    """What somebody makes up to take one job with.

    Asking again with the same one, after a lost answer, gives the same job, and no second one.
    """

    key: str
    password: str
    """Which the attempt alone may report with."""


class Claim(NamedTuple):
    """A job that was taken, and the attempt to run it."""

    key: str
    """The bid's."""

    job: Job
    attempt: int
    number: int
    """Which attempt of the job it is, from 1."""
    folder: str
    """The name for a folder of its own."""
    language: Language
    sha256: str
    """Of the script, when the job was submitted."""
    run_time: float | None
    """Seconds that it may run; None is without limit."""
    secrets: Mapping[str, Any]
    """The parameters that are secret."""


class InstalledScript(NamedTuple):
    """A script, as it is written down."""

    name: str
    language: Language
    description: str
    sha256: str
    parameters: Parameters
    run_time: float | None
    """Seconds that it may run; None is without limit."""
    users: Acl | None
    """Who may submit jobs of it; None is everybody who may submit jobs at all."""
    enabled: bool

    @property
    def filename(self) -> str:
        """The name of its file where it is installed."""
        return f"{self.name}{self.language.suffix}"


class Machine(NamedTuple):
    """A machine that is known."""

    name: str
    address: str
    certified: bool
    """Whether an administrator vouches for it."""
    seen_at: float | None
    """When a runner on it was last heard of."""


class Robot(NamedTuple):
    """A robot, as it stood when it was read."""

    id: int
    guid: str
    """By which it is known, and which it signs in with."""
    name: str
    pool: str | None
    licensed: bool
    enabled: bool
    status: RobotStatus
    """What it said last; `DISCONNECTED` if it has said nothing for too long, `UNLICENSED` if it may not work."""
    seen_at: float | None
    machine: str | None
    """The name of the machine that it is on, as far as it said."""
    job: int | None
    """The number of the job that it has."""


class Ended(NamedTuple):
    """How the process of an attempt has ended."""

    reason: Reason
    exit_status: int | None = None
    signal: int | None = None
    detail: str | None = None
    output: Output = Output()


def whole_jobs() -> Select[Any]:
    """Jobs with what is known of their scripts, and the names of the robots that they are for."""
    of_script = (scripts.c.name.label("script"), scripts.c.language, scripts.c.run_time, scripts.c.concurrency)
    return select(jobs, *of_script, robots.c.name.label("robot")).join(scripts).outerjoin(robots)


def claim_of(row: Row[Any], *, attempt: int, key: str, number: int) -> Claim:
    """Read a row of `whole_jobs`, of a job that was taken."""
    job = job_of(row)._replace(attempts=number)
    folder = folder_of(row.id, number, key)
    language = Language(row.language)
    return Claim(key, job, attempt, number, folder, language, row.sha256, row.run_time, row.secrets or {})


ATTEMPT: Final = [column for column in attempts.c if column.name not in ("stdout_tail", "stderr_tail")]
"""What `attempt_of` reads, without what may be large."""


def attempt_of(row: Row[Any]) -> AttemptRecord:
    """Read a row of the attempts."""
    values = {name: getattr(row, name) for name in AttemptRecord._fields if name != "folder"}
    values["folder"] = folder_of(row.job_id, row.number, row.claim)
    values["reason"] = reason_of(row)
    return AttemptRecord(**values)


def job_of(row: Row[Any]) -> Job:
    """Read a row of `whole_jobs`."""
    values = {name: getattr(row, name) for name in Job._fields if name != "priority"}
    values["priority"] = -row.rank
    values["state"] = JobState(row.state)
    values["reason"] = reason_of(row)
    return Job(**values)


def reason_of(row: Row[Any]) -> Reason | None:
    """Read why a job or an attempt has ended."""
    return None if row.reason is None else Reason(row.reason)


def folder_of(job: int, number: int, claim: str) -> str:
    """Return the name of an attempt's folder: also one that a new database has the same numbers for has another."""
    return f"{job}.{number}-{claim[:12]}"
