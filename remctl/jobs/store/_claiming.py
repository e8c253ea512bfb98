"""Which jobs are due, and taking them: nobody gets one that somebody else has, and none beyond a limit.

PostgreSQL is asked once where that is enough, which is where no limit has to be counted.  Else it is done step by step
in one transaction: limits are exact, since those who take jobs of the same script, or owner, wait for one another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    Select,
    String,
    TextClause,
    and_,
    bindparam,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.elements import ColumnElement

from remctl.jobs.store._database import Database
from remctl.jobs.store._records import Bid, Claim, Taker, claim_of, whole_jobs
from remctl.jobs.store._schema import PENDING, attempts, jobs, robots, scripts


class Claiming:
    """Takes jobs for runners."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._due = {limited: _due(database.now, _FOR_RUNNERS, per_owner=limited) for limited in (False, True)}
        self._due_for_robot = _due_for_robot(database.now)
        self._insert = _insert(database.now)
        # Written out once: SQLAlchemy would take half of the time to see that it has done so already.
        compiled = _at_once(self._due[False], database.now).compile(dialect=database.engine.dialect)
        self._at_once = (str(compiled), compiled.params)

    def at_once(self, taker: Taker, bids: Sequence[Bid], lease: float) -> tuple[list[Claim], bool]:
        """Take jobs in one statement; return them, and whether there are others, which have limits."""
        values = {
            "count": len(bids),
            "keys": ",".join(bid.key for bid in bids),
            "passwords": ",".join(hashed(bid.password) for bid in bids),
            "taker": taker.name,
            "taker_id": taker.id,
            "lease": lease,
        }
        with self._database.single() as connection:
            sql, constants = self._at_once
            rows = connection.exec_driver_sql(sql, {**constants, **values}).all()
        found = [_claim(row, row.made, row.claim) for row in rows if row.made is not None]
        return found, len(found) < len(rows)

    def in_steps(self, taker: Taker, bids: Sequence[Bid], lease: float, per_owner: int | None) -> list[Claim]:
        """Take jobs, and count what limits there are."""
        values = {"count": len(bids)} | ({} if per_owner is None else {"per_owner": per_owner})
        with self._database.write() as connection:
            picked = connection.execute(self._due[per_owner is not None], values).all()
            allowed = self._allowed(connection, picked, per_owner)
            return self._take(connection, list(zip(allowed, bids, strict=False)), taker, lease)

    def for_robot(
        self, connection: Connection, robot: int, pool: str | None, taker: Taker, bid: Bid, lease: float
    ) -> Claim | None:
        """Take the next job of a robot, or of any of its pool."""
        picked = connection.execute(self._due_for_robot, {"robot": robot, "pool": pool, "count": 1}).all()
        allowed = self._allowed(connection, picked, None)
        found = self._take(connection, [(row, bid) for row in allowed], taker, lease)
        return found[0] if found else None

    def _allowed(self, connection: Connection, picked: Sequence[Row[Any]], per_owner: int | None) -> list[Row[Any]]:
        """Leave out what would go beyond a limit."""
        limits = {("script", row.script_id): row.concurrency for row in picked if row.concurrency is not None}
        if per_owner is not None:
            limits |= {("owner", row.owner): per_owner for row in picked}
        taken = Counter({limit: self._taken(connection, *limit) for limit in sorted(limits)})
        allowed = []
        for row in picked:
            concerned = [limit for limit in (("script", row.script_id), ("owner", row.owner)) if limit in limits]
            if all(taken[limit] < limits[limit] for limit in concerned):
                taken.update(concerned)
                allowed.append(row)
        return allowed

    def _taken(self, connection: Connection, kind: str, which: Any) -> int:
        """How many jobs of a script or owner are taken; nobody takes another one before the transaction ends."""
        if not self._database.sqlite:  # where there is one who writes at a time anyway
            connection.execute(select(func.pg_advisory_xact_lock(_lock(kind, which))))
        column = jobs.c.script_id if kind == "script" else jobs.c.owner
        count = select(func.count()).where(column == which, jobs.c.attempt_id.is_not(None))
        return connection.scalar(count) or 0

    def _take(
        self, connection: Connection, chosen: Sequence[tuple[Row[Any], Bid]], taker: Taker, lease: float
    ) -> list[Claim]:
        if not chosen:
            return []
        given = {"taker": taker.name, "taker_id": taker.id, "lease": lease}
        made = connection.execute(
            self._insert,
            [
                {"job": row.id, "of": row.attempts + 1, "key": bid.key, "secret": hashed(bid.password), **given}
                for row, bid in chosen
            ],
        )
        ids = {row.job_id: row.id for row in made}
        connection.execute(_UPDATE, [{"job": job, "made": attempt} for job, attempt in ids.items()])
        return [_claim(row, ids[row.id], bid.key) for row, bid in chosen]


def hashed(password: str) -> str:
    """Return what is stored of an attempt's password, which is long and random, and needs no salt."""
    return hashlib.sha256(password.encode()).hexdigest()


def _claim(row: Row[Any], attempt: int, key: str) -> Claim:
    return claim_of(row, attempt=attempt, key=key, number=row.attempts + 1)


def _lock(kind: str, which: object) -> int:
    """The number of PostgreSQL's lock for a limit."""
    return int.from_bytes(hashlib.sha256(f"{kind} {which}".encode()).digest()[:8], signed=True)


_FOR_RUNNERS: Final = and_(jobs.c.robot_id.is_(None), jobs.c.pool.is_(None))


def is_due(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Whether there is a job for the robot of the statement that this is put into, or for any of its pool."""
    # For either there is an index, and for both there is none.
    each = (jobs.c.robot_id == robots.c.id, jobs.c.pool == robots.c.pool)
    return or_(*(select(jobs.c.id).join(scripts).where(*_open(now), whose).exists() for whose in each))


def _due_for_robot(now: ColumnElement[float]) -> Select[Any]:
    """The next jobs of a robot, or of any of its pool."""
    own = _due(now, jobs.c.robot_id == bindparam("robot"), per_owner=False).cte("own")
    pooled = _due(now, jobs.c.pool == bindparam("pool"), per_owner=False).cte("pooled")
    both = union_all(select(own), select(pooled)).subquery()
    return select(both).order_by(both.c.rank, both.c.id).limit(bindparam("count"))


def _due(now: ColumnElement[float], whose: ColumnElement[bool], *, per_owner: bool) -> Select[Any]:
    """The next jobs that are due; held against others, where they do not wait for one another anyway."""
    query = whole_jobs().where(*_open(now), whose)
    if per_owner:
        others = jobs.alias()
        busy = select(others.c.owner).where(others.c.attempt_id.is_not(None)).group_by(others.c.owner)
        query = query.where(jobs.c.owner.not_in(busy.having(func.count() >= bindparam("per_owner"))))
    return query.order_by(jobs.c.rank, jobs.c.id).limit(bindparam("count")).with_for_update(skip_locked=True, of=jobs)


def _open(now: ColumnElement[float]) -> tuple[TextClause | ColumnElement[bool], ...]:
    """That a job can be taken, as far as itself and its script are concerned."""
    others, theirs = jobs.alias(), scripts.alias()
    full = (
        select(others.c.script_id)
        .join(theirs, theirs.c.id == others.c.script_id)
        .where(others.c.attempt_id.is_not(None), theirs.c.concurrency.is_not(None))
        .group_by(others.c.script_id, theirs.c.concurrency)
        .having(func.count() >= theirs.c.concurrency)
    )
    return (
        PENDING,
        jobs.c.attempt_id.is_(None),
        jobs.c.due_at <= now,
        scripts.c.enabled,
        or_(scripts.c.concurrency.is_(None), jobs.c.script_id.not_in(full)),
    )


def _insert(now: ColumnElement[float]) -> ReturningInsert[Any]:
    """A new attempt."""
    return (
        insert(attempts)
        .values(
            job_id=bindparam("job"),
            number=bindparam("of"),
            claim=bindparam("key"),
            password=bindparam("secret"),
            runner=bindparam("taker"),
            runner_id=bindparam("taker_id"),
            claimed_at=now,
            lease_until=now + bindparam("lease"),
            late_reports=0,
        )
        .returning(attempts.c.id, attempts.c.job_id)
    )


_UPDATE: Final = (
    update(jobs).where(jobs.c.id == bindparam("job")).values(attempt_id=bindparam("made"), attempts=jobs.c.attempts + 1)
)


def _at_once(due: Select[Any], now: ColumnElement[float]) -> Select[Any]:
    """One statement of PostgreSQL's: of the jobs that are due, those without limits are taken; all are returned.

    Those that are taken are numbered by themselves: they get the first bids, and others of the same bids find out.
    """
    first = due.cte("due")
    place = func.row_number().over(partition_by=first.c.concurrency.is_(None), order_by=(first.c.rank, first.c.id))
    numbered = select(first, place.label("place")).cte("numbered")

    def given(name: str) -> ColumnElement[Any]:
        return func.split_part(bindparam(name, type_=String), ",", cast(numbered.c.place, Integer))

    values = {
        "job_id": numbered.c.id,
        "number": numbered.c.attempts + 1,
        "claim": given("keys"),
        "password": given("passwords"),
        "runner": bindparam("taker", type_=String),
        "runner_id": bindparam("taker_id", type_=String),
        "claimed_at": now,
        "lease_until": now + bindparam("lease"),
        "late_reports": literal(0),
    }
    free = select(*values.values()).where(numbered.c.concurrency.is_(None))
    made = (
        insert(attempts)
        .from_select(list(values), free)
        .returning(attempts.c.id, attempts.c.job_id, attempts.c.claim)
        .cte("made")
    )
    taken = (
        update(jobs)
        .where(jobs.c.id == made.c.job_id)
        .values(attempt_id=made.c.id, attempts=jobs.c.attempts + 1)
        .returning(jobs.c.id)
        .cte("taken")
    )
    whole = numbered.outerjoin(made, made.c.job_id == numbered.c.id)
    return (
        select(numbered, made.c.id.label("made"), made.c.claim)
        .select_from(whole)
        .add_cte(taken)
        .order_by(numbered.c.place)
    )
