"""Moving jobs from state to state; what users, runners and robots ask for comes down to this."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

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
    row = connection.execute(select(jobs).where(by(job)).with_for_update()).first()
    if row is None:
        raise StoreError(f"there is no job {job}")
    return row


def read(connection: Connection, job: int | str) -> Job:
    """Read a job.

    Raises:
        StoreError: there is none.
    """
    row = connection.execute(whole_jobs().where(by(job))).first()
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
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(state=state, **values))
    connection.execute(
        insert(events).values(
            job_id=job.id,
            attempt=job.attempts or None,
            at=database.now,
            move=made.value,
            state=state,
            who=who,
            detail=values.get("detail"),
        )
    )


def again(database: Database, connection: Connection, job: Row[Any], who: str, *, losses: int) -> None:
    """Have a job that is locked run again.

    Raises:
        IllegalMoveError: it cannot move so from where it stands.
    """
    fresh = dict.fromkeys(("reason", "detail", "started_at", "ended_at", "asked_by", "exit_status", "signal"))
    values = {**fresh, "due_at": database.now, "attempt_id": None, "losses": losses}
    move(database, connection, job, Move.RETRY, who, **values)
