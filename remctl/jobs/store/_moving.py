"""Moving jobs from state to state; what users, runners and robots ask for comes down to this."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Insert, Row, Update, bindparam, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from remctl.jobs.states import JobState, Move, moved
from remctl.jobs.store._database import Database
from remctl.jobs.store._records import Job, StoreError, job_of, whole_jobs
from remctl.jobs.store._schema import events, jobs


def by(job: int | str) -> Any:
    """Which job is meant, by number or GUID."""
    return jobs.c.guid == job if isinstance(job, str) else jobs.c.id == job


def locked(connection: Connection, job: int | str) -> Row[Any]:
    """Read a job that nobody else can move before the transaction ends.

    Raises:
        StoreError: there is none.
    """
    row = connection.execute(_LOCKED[type(job)], {"job": job}).first()
    if row is None:
        raise StoreError(f"there is no job {job}")
    return row


def read(connection: Connection, job: int | str) -> Job:
    """Read a job.

    Raises:
        StoreError: there is none.
    """
    row = connection.execute(_WHOLE[type(job)], {"job": job}).first()
    if row is None:
        raise StoreError(f"there is no job {job}")
    return job_of(row)


def move(database: Database, connection: Connection, job: Row[Any], made: Move, who: str, **values: Any) -> None:
    """Move a job that is locked, and write down who has; `values` are what else changes of it.

    Raises:
        IllegalMoveError: it cannot move so from where it stands.
    """
    state = moved(JobState(job.state), made)
    if state.final and job.secrets:
        values["secrets"] = {}
    times = tuple(name for name, value in values.items() if value is database.now)
    given = {name: value for name, value in values.items() if name not in times}
    connection.execute(_update(database.now, times), {"job": job.id, "state": state, **given})
    event = {"job_id": job.id, "attempt": job.attempts or None, "move": made.value, "state": state, "who": who}
    connection.execute(_insert(database.now), {**event, "detail": values.get("detail")})


def again(database: Database, connection: Connection, job: Row[Any], who: str, *, losses: int) -> None:
    """Have a job that is locked run again.

    Raises:
        IllegalMoveError: it cannot move so from where it stands.
    """
    fresh = dict.fromkeys(("reason", "detail", "started_at", "ended_at", "asked_by", "exit_status", "signal"))
    values = {**fresh, "due_at": database.now, "attempt_id": None, "losses": losses}
    move(database, connection, job, Move.RETRY, who, **values)


# Statements are made once: it takes longer to make one than to have it executed.

_COLUMNS: Final = {int: jobs.c.id, str: jobs.c.guid}

_LOCKED: Final = {
    kind: select(jobs).where(column == bindparam("job")).with_for_update() for kind, column in _COLUMNS.items()
}
_WHOLE: Final = {kind: whole_jobs().where(column == bindparam("job")) for kind, column in _COLUMNS.items()}


@cache
def _update(now: ColumnElement[float], times: tuple[str, ...]) -> Update:
    """What sets columns of a job, these to the time."""
    return update(jobs).where(jobs.c.id == bindparam("job")).values(dict.fromkeys(times, now))


@cache
def _insert(now: ColumnElement[float]) -> Insert:
    return insert(events).values(at=now)
