"""The store's part for users: making jobs, and looking how they are."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select

from remctl._arguments import check_text
from remctl.jobs.states import FINAL, JobState, Move, Reason, moved
from remctl.jobs.store import _moving
from remctl.jobs.store._database import Database
from remctl.jobs.store._records import (
    ATTEMPT,
    AttemptRecord,
    Event,
    Job,
    Order,
    Output,
    StoreError,
    attempt_of,
    job_of,
    whole_jobs,
)
from remctl.jobs.store._schema import PENDING, attempts, events, jobs, scripts

PRIORITIES: Final = (-100, 100)

BATCH: Final = 500
"""Jobs that are written, or deleted, in one statement."""

INSERT: Final = """
WITH wanted AS ({wanted})
INSERT INTO jobs (
    guid, script_id, sha256, parameters, secrets, owner, robot_id, pool, rank, state, attempts, losses,
    created_at, due_at
)
SELECT
    guid, scripts.id, sha256, wanted.parameters, secrets, owner, robot_id, pool, rank, state, 0, 0, {now}, {now} + delay
FROM wanted JOIN scripts ON name = script
WHERE NOT EXISTS (SELECT 1 FROM wanted LEFT JOIN scripts ON name = script WHERE enabled IS NOT TRUE)
ON CONFLICT (guid) DO NOTHING
RETURNING id, guid, created_at, (SELECT name FROM robots WHERE robots.id = robot_id) AS robot
"""
"""Jobs in one statement, however many there are: all of them, or none where a script is not there."""

FIELDS: Final = {
    "guid": "text",
    "script": "text",
    "parameters": "json",
    "secrets": "json",
    "owner": "text",
    "robot_id": "bigint",
    "pool": "text",
    "rank": "integer",
    "delay": "float8",
    "state": "integer",
}
"""What it is given of each job, in JSON, and PostgreSQL's types for it."""


class Jobs:
    """The jobs, those that are over among them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert_sql = INSERT.format(wanted=_wanted(database), now=database.now)

    def submit(self, script: str, parameters: Mapping[str, Any], owner: str, **options: Any) -> Job:
        """Make a job that waits to be taken; the options are those of `Order`.

        Raises:
            StoreError: there is no such script, or it is turned off.
            ValueError: an argument makes no sense.
        """
        return self.submit_all([Order(script, parameters, owner, **options)])[0]

    def submit_all(self, orders: Sequence[Order]) -> list[Job]:
        """Make jobs that wait to be taken: all of them, or none.

        Args:
            orders: 500 at the most; those with a GUID that is known already make no new jobs.

        Raises:
            StoreError: there is no such script, it is turned off, or a GUID is that of somebody else's job.
            ValueError: an argument makes no sense.
        """
        if len(orders) > BATCH:
            raise ValueError(f"orders must be {BATCH} at the most, and are {len(orders)}")
        wanted = [_checked(order) for order in orders]
        if not wanted:
            return []
        with self._database.single() as connection:
            made = self._insert(connection, wanted)
            rest = [(guid, order) for guid, order in wanted if guid not in made]
            known = self._known(connection, [guid for guid, _ in rest])
            if missing := {order.script for guid, order in rest if guid not in known}:
                raise self._refusal(connection, missing)
        return [_made(order, made[guid]) if guid in made else _same(order, known[guid]) for guid, order in wanted]

    def get(self, job: int | str) -> Job:
        """Return a job, by its number or its GUID.

        Raises:
            StoreError: there is none.
        """
        with self._database.read() as connection:
            return _moving.read(connection, job)

    def listed(
        self,
        *,
        owner: str | None = None,
        states: Sequence[JobState] = (),
        script: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return jobs, the latest first.

        Args:
            owner: those of this principal; None is everybody's.
            states: those that stand in one of them; none is all.
            script: those of this script; None is all.
            before: those whose number is lower, which is the next page; None begins with the latest.
            limit: so many at the most.
        """
        query = whole_jobs()
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if states:
            query = query.where(jobs.c.state.in_(states))
            if not FINAL.intersection(states):
                query = query.where(jobs.c.ended_at.is_(None))  # of which there is an index
        if before is not None:
            query = query.where(jobs.c.id < before)
        with self._database.read() as connection:
            if script is not None:
                found = connection.scalar(select(scripts.c.id).where(scripts.c.name == script))
                query = query.where(jobs.c.script_id == found)
            return [job_of(row) for row in connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))]

    def attempts(self, job: int | str) -> list[AttemptRecord]:
        """Return the attempts of a job, the first one first.

        Raises:
            StoreError: there is no such job.
        """
        with self._database.read() as connection:
            found = _moving.read(connection, job)
            query = select(*ATTEMPT).where(attempts.c.job_id == found.id).order_by(attempts.c.number)
            return [attempt_of(row) for row in connection.execute(query)]

    def events(self, job: int | str) -> list[Event]:
        """Return what has happened to a job, the first thing first.

        Raises:
            StoreError: there is no such job.
        """
        with self._database.read() as connection:
            found = _moving.read(connection, job)
            rows = connection.execute(select(events).where(events.c.job_id == found.id).order_by(events.c.id))
            later = [
                Event(row.at, Move(row.move), JobState(row.state), row.attempt, row.who, row.detail) for row in rows
            ]
        return [Event(found.created_at, Move.QUEUE, JobState.PENDING, None, found.owner, None), *later]

    def output(self, job: int | str) -> Output:
        """Return the last of what a job's last attempt has written, which is here when it has ended.

        Raises:
            StoreError: there is no such job.
        """
        with self._database.read() as connection:
            found = _moving.read(connection, job)
            query = select(attempts).where(attempts.c.job_id == found.id).order_by(attempts.c.number.desc()).limit(1)
            row = connection.execute(query).first()
        if row is None:
            return Output()
        return Output(row.stdout_tail or b"", row.stderr_tail or b"", row.stdout_size or 0, row.stderr_size or 0)

    def ask(self, job: int | str, move: Move, who: str) -> Job:
        """Want a job to end: by `Move.STOP` in peace, by `Move.ABORT` at once.

        One that nobody has taken ends here; else whoever has it is told with its next sign of life.  Asking again is
        harmless, and what is to be aborted is not stopped instead.

        Raises:
            StoreError: there is no such job.
            IllegalMoveError: it is over.
        """
        wanted = {Move.STOP: JobState.STOPPING, Move.ABORT: JobState.ABORTING}[move]
        with self._database.write() as connection:
            row = _moving.locked(connection, job)
            if row.state in (wanted, JobState.ABORTING):
                return _moving.read(connection, job)
            if row.attempt_id is not None:
                asked = {Move.STOP: Move.ASK_STOP, Move.ABORT: Move.ASK_ABORT}[move]
                _moving.move(self._database, connection, row, asked, who, asked_by=who)
            else:
                reason = Reason.STOPPED if move is Move.STOP else Reason.ABORTED
                ended = {"reason": reason, "ended_at": self._database.now, "asked_by": who}
                _moving.move(self._database, connection, row, move, who, **ended)
            return _moving.read(connection, job)

    def retry(self, job: int | str, who: str) -> Job:
        """Have a job that is over, and not with success, run again; its history stays.

        Raises:
            StoreError: there is no such job, it is not over, or it had secrets, which are forgotten.
            IllegalMoveError: it was a success.
        """
        with self._database.write() as connection:
            row = _moving.locked(connection, job)
            if not JobState(row.state).final:
                raise StoreError(f"job {row.id} is not over")
            if row.secrets is not None:
                raise StoreError(f"the secret parameters of job {row.id} are forgotten", hint="submit it again")
            _moving.again(self._database, connection, row, who, losses=0)
            return _moving.read(connection, job)

    def open(self) -> dict[JobState, int]:
        """Return how many jobs stand in each of the states in which they are not over."""
        query = select(jobs.c.state, func.count()).where(jobs.c.ended_at.is_(None)).group_by(jobs.c.state)
        counts = {state: 0 for state in JobState if not state.final}
        with self._database.read() as connection:
            counts.update({JobState(state): count for state, count in connection.execute(query)})
        return counts

    def waiting(self) -> float:
        """Return for how many seconds the oldest job that is due has been waiting; 0 if there is none."""
        pending = (PENDING, jobs.c.attempt_id.is_(None), jobs.c.due_at <= self._database.now)
        query = select(self._database.now - func.min(jobs.c.due_at)).where(*pending)
        with self._database.read() as connection:
            return max(0.0, connection.scalar(query) or 0.0)

    def ended(self, since: float, until: float) -> list[tuple[str, JobState, Reason, int, float]]:
        """Return how jobs have ended in a time: script, state, reason, how many, and how long they ran in all.

        Args:
            since: seconds since the epoch, those jobs left out that ended just then.
            until: seconds since the epoch.
        """
        took = func.sum(func.coalesce(jobs.c.ended_at - jobs.c.started_at, 0.0))
        query = (
            select(scripts.c.name, jobs.c.state, jobs.c.reason, func.count(), took)
            .join(scripts)
            .where(jobs.c.ended_at > since, jobs.c.ended_at <= until)
            .group_by(scripts.c.name, jobs.c.state, jobs.c.reason)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [(name, JobState(state), Reason(reason), count, took) for name, state, reason, count, took in rows]

    def purge(self, age: float) -> int:
        """Delete some jobs that ended long ago, with their history; return how many that were, 0 if there are no more.

        Args:
            age: seconds since their end.
        """
        old = jobs.c.ended_at < self._database.now - age
        some = select(jobs.c.id).where(old).limit(BATCH)
        with self._database.write() as connection:
            # Asked twice: one of them may have been made to run again while this waited for it.
            return connection.execute(delete(jobs).where(jobs.c.id.in_(some), old)).rowcount

    # What submitting is made of

    def _insert(self, connection: Connection, wanted: Sequence[tuple[str, Order]]) -> dict[str, Any]:
        """Write down those whose GUIDs nobody knows; return their rows by GUID."""
        given = {"wanted": json.dumps([_fields(*each) for each in wanted])}
        return {row.guid: row for row in connection.exec_driver_sql(self._insert_sql, given)}

    def _refusal(self, connection: Connection, names: set[str]) -> StoreError:
        """Find out why no job of some scripts could be written down."""
        query = select(scripts.c.name, scripts.c.enabled).where(scripts.c.name.in_(names))
        enabled = {row.name: row.enabled for row in connection.execute(query)}
        for name in sorted(names):
            if name not in enabled:
                return StoreError(f"there is no script {name!r}")
            if not enabled[name]:
                return StoreError(f"the script {name!r} is turned off")
        return StoreError("a script was changed at this moment", hint="submit again")

    def _known(self, connection: Connection, guids: list[str]) -> dict[str, Job]:
        if not guids:
            return {}
        rows = connection.execute(whole_jobs().where(jobs.c.guid.in_(guids)))
        return {row.guid: job_of(row) for row in rows}


def _checked(order: Order) -> tuple[str, Order]:
    if not PRIORITIES[0] <= order.priority <= PRIORITIES[1]:
        raise ValueError(f"priority must be {PRIORITIES[0]} to {PRIORITIES[1]}: {order.priority}")
    if not 0 <= order.delay < 1e9:
        raise ValueError(f"delay must be 0 or more seconds: {order.delay}")
    check_text("owner", order.owner)
    return order.guid or str(uuid.uuid4()), order


def _wanted(database: Database) -> str:
    """How a database reads the JSON of the jobs that are wanted."""
    if database.sqlite:
        columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in FIELDS)
        return f"SELECT {columns} FROM json_each(:wanted)"  # noqa: S608  # the columns are ours
    columns = ", ".join(f"{name} {kind}" for name, kind in FIELDS.items())
    return f"SELECT * FROM json_to_recordset(%(wanted)s::json) AS wanted ({columns})"  # noqa: S608


def _fields(guid: str, order: Order) -> dict[str, Any]:
    return {
        "guid": guid,
        "script": order.script,
        "parameters": dict(order.parameters),
        "secrets": dict(order.secrets) if order.secrets else None,
        "owner": order.owner,
        "robot_id": order.robot,
        "pool": order.pool,
        "rank": -order.priority,
        "delay": order.delay,
        "state": moved(JobState.CREATED, Move.QUEUE),
    }


def _made(order: Order, row: Row[Any]) -> Job:
    empty = dict.fromkeys(Job._fields)
    known = {name: getattr(row, name) for name in ("id", "guid", "created_at", "robot")}
    asked = {name: getattr(order, name) for name in ("script", "owner", "priority", "pool")}
    given = {"parameters": dict(order.parameters), "attempts": 0, "state": JobState.PENDING}
    return Job(**{**empty, **asked, **known, **given})


def _same(order: Order, job: Job) -> Job:
    """What was submitted before, if it was the same person who did."""
    if job.owner != order.owner or job.script != order.script:
        raise StoreError(f"the GUID {job.guid} is that of another job")
    return job
