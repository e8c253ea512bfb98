"""The store's part for robots: agents on other machines, which ask for jobs over HTTP and say what becomes of them.

A robot has one job at a time.  Whatever it says may be a repetition, since answers get lost on the way: it is given the
same job again, and an end that is known already is no fault.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, Select, Update, and_, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from remctl._arguments import check_text
from remctl.jobs.states import IllegalMoveError, JobState, Move, Reason, RobotStatus
from remctl.jobs.store import _moving
from remctl.jobs.store._attempts import Attempts, new_bid
from remctl.jobs.store._claiming import Claiming, is_due
from remctl.jobs.store._database import Database
from remctl.jobs.store._machines import put
from remctl.jobs.store._records import Claim, Ended, Job, Robot, StoreError, Taker, claim_of, whole_jobs
from remctl.jobs.store._schema import attempts, jobs, machines, robots

QUIET: Final = 60.0
"""Seconds after which a robot that says nothing is taken for disconnected."""


class UnknownRobotError(StoreError):
    """There is no robot with that GUID."""


class Heard(NamedTuple):
    """What a robot is told when it has said how it is."""

    order: JobState | None
    """The state of its job; STOPPING and ABORTING are orders.  None if it has none, or is not asked to do anything."""
    has_new_job: bool
    """Whether it can have a job."""


class Robots:
    """The robots."""

    def __init__(self, database: Database, attempts: Attempts) -> None:
        self._database = database
        self._attempts = attempts
        self._claiming = Claiming(database)
        self._look = _look(database.now)
        self._heard = update(robots).where(robots.c.guid == bindparam("robot")).values(seen_at=database.now)
        self._live_on = _beat(database.now)

    # Administrators

    def add(self, name: str, *, pool: str | None = None, guid: str | None = None, licensed: bool = True) -> Robot:
        """Make a robot known.

        Args:
            name: what people call it.
            pool: which it belongs to; None is none.
            guid: its own; None makes one.
            licensed: whether it may work.

        Raises:
            StoreError: there is a robot with that GUID.
            ValueError: an argument makes no sense.
        """
        check_text("name", name)
        try:
            made = str(uuid.UUID(guid)) if guid else str(uuid.uuid4())
        except ValueError:
            raise ValueError(f"guid must be like {uuid.UUID(int=0)}: {guid!r}") from None
        values = {"guid": made, "name": name, "pool": pool, "licensed": licensed, "enabled": True, "status": 0}
        try:
            with self._database.write() as connection:
                connection.execute(insert(robots).values(values))
        except IntegrityError:
            raise StoreError("there is a robot with that GUID already") from None
        return self.get(made)

    def change(self, guid: str, *, enabled: bool | None = None, licensed: bool | None = None) -> Robot:
        """Turn a robot on or off, or give or take its licence; a job that it has goes on.

        Raises:
            UnknownRobotError: there is none.
        """
        values = {name: value for name, value in (("enabled", enabled), ("licensed", licensed)) if value is not None}
        with self._database.write() as connection:
            row = _locked(connection, guid)
            if values:
                connection.execute(update(robots).where(robots.c.id == row.id).values(values))
        return self.get(guid)

    def remove(self, guid: str) -> None:
        """Forget a robot that no job names, and that has none of its pool.

        Raises:
            UnknownRobotError: there is none.
            StoreError: there are jobs for it, or it has one.
        """
        try:
            with self._database.write() as connection:
                row = _locked(connection, guid)
                if (job := self._live(connection, guid)) is not None:
                    raise StoreError(f"the robot {row.name} has job {job.id}: turn it off, and wait for its end")
                connection.execute(delete(robots).where(robots.c.id == row.id))
        except IntegrityError:
            raise StoreError(f"there are jobs for the robot {row.name}: turn it off instead") from None

    def all(self) -> list[Robot]:
        """Return the robots, by name."""
        return self._read(select(robots).order_by(robots.c.name, robots.c.guid))

    def get(self, guid: str) -> Robot:
        """Return a robot.

        Raises:
            UnknownRobotError: there is none.
        """
        found = self._read(select(robots).where(robots.c.guid == guid))
        if not found:
            raise _unknown(guid)
        return found[0]

    # What a robot says

    def heard(
        self, guid: str, status: RobotStatus, lease: float, *, machine: str = "", address: str = "", mac: str = ""
    ) -> Heard:
        """Write down how a robot says it is; tell it what it has to know.

        While it says that it works, its job is alive.

        Args:
            guid: the robot's.
            status: what it says.
            lease: seconds until it has to be heard of again, while it works.
            machine: the name of its machine; empty is not said.
            address: the machine's IP address.
            mac: the machine's MAC address.

        Raises:
            UnknownRobotError: there is none.
        """
        with self._database.single() as connection:
            robot = connection.execute(self._look, {"robot": guid, "machine": machine, "address": address}).first()
            if robot is None:
                raise _unknown(guid)
            connection.execute(self._heard, {"robot": guid, "status": status, "mac": mac or robot.mac})
        if not robot.busy and (robot.fresh or not machine):
            return Heard(None, robot.may)
        with self._database.write() as connection:
            _locked(connection, guid)
            if machine and not robot.fresh:
                place = self._machine(connection, machine, address)
                connection.execute(update(robots).where(robots.c.id == robot.id).values(machine_id=place))
            row = self._live(connection, guid)
            if row is None:
                return Heard(None, robot.may)
            if row.attempt_started is None:
                return Heard(JobState(row.state), True)  # it has been given a job, and may not know it
            if status is RobotStatus.WORKING:
                connection.execute(self._live_on, {"attempt": row.attempt_id, "lease": lease})
            return Heard(JobState(row.state), False)

    def claim(self, guid: str, lease: float) -> Claim | None:
        """Take the next job for a robot; the one again that it has been given and has not begun.

        Args:
            guid: the robot's.
            lease: seconds within which it has to be heard of.

        Raises:
            UnknownRobotError: there is none.
        """
        with self._database.write() as connection:
            robot = _locked(connection, guid)
            row = self._live(connection, guid)
            if row is not None:
                if row.attempt_started is not None:
                    return None
                connection.execute(self._live_on, {"attempt": row.attempt_id, "lease": lease})
                return claim_of(row, attempt=row.attempt_id, key=row.claim, number=row.attempts)
            if not (robot.enabled and robot.licensed):
                return None
            taker = Taker(robot.name, robot.guid)
            return self._claiming.for_robot(connection, robot.id, robot.pool, taker, new_bid(), lease)

    def update(self, guid: str, job: str, state: JobState, lease: float) -> Job:
        """Write down what a robot says of its job; return the job as it stands then.

        What it has said before is no fault.

        Args:
            guid: the robot's.
            job: the job's GUID.
            state: IN_PROGRESS when its script begins; SUCCESS, FAILED, STOPPED or ABORTED when it has ended.
            lease: seconds within which it has to be heard of, when its script begins.

        Raises:
            UnknownRobotError: there is no such robot.
            StoreError: there is no such job, or it is not the robot's.
            IllegalMoveError: the job cannot get there from where it stands.
        """
        with self._database.single(writing=False) as connection:
            row = connection.execute(_LAST, {"robot": guid, "job": job}).first()
        if row is None:
            self.get(guid)
            raise StoreError(f"the robot has no job {job}")
        if state not in _SAID:
            raise IllegalMoveError(JobState(row.state), Move.QUEUE)
        if row.ended_at is not None:
            found = self._job(job)
            # What became of the job since then says nothing: another robot may have it.
            if state is JobState.IN_PROGRESS or _ENDED[state].reason is not Reason(row.reason):
                raise IllegalMoveError(found.state, _SAID[state])
            return found
        if state is JobState.IN_PROGRESS:
            return self._attempts.start(row.id, "", 0, 0, lease) if row.started_at is None else self._job(job)
        if row.started_at is None and JobState(row.state) is JobState.PENDING:
            self._attempts.start(row.id, "", 0, 0, lease)  # it is said to have ended, so it has begun
        return self._attempts.settle(row.id, _ENDED[state])

    # What they are made of

    def _machine(self, connection: Connection, name: str, address: str) -> int:
        """The machine on which a robot is; it is written down now and then alone."""
        known = select(machines.c.id).where(machines.c.name == name)
        fresh = known.where(machines.c.address == address, machines.c.seen_at > self._database.now - QUIET)
        if (found := connection.scalar(fresh)) is None:
            with contextlib.suppress(IntegrityError), connection.begin_nested():  # another robot may be quicker
                put(connection, name, address=address, seen_at=self._database.now)
            found = connection.scalar(known)
        return int(found or 0)

    def _job(self, job: str) -> Job:
        with self._database.single(writing=False) as connection:
            return _moving.read(connection, job)

    def _live(self, connection: Connection, guid: str) -> Row[Any] | None:
        """The job that a robot has, with its attempt."""
        found: Row[Any] | None = connection.execute(_LIVE, {"robot": guid}).first()
        return found

    def _read(self, query: Any) -> list[Robot]:
        job = (
            select(attempts.c.job_id)
            .where(attempts.c.runner_id == robots.c.guid, attempts.c.ended_at.is_(None))
            .limit(1)
            .scalar_subquery()
        )
        query = query.outerjoin(machines, machines.c.id == robots.c.machine_id).add_columns(
            machines.c.name.label("machine"), job.label("job"), self._database.now.label("now")
        )
        with self._database.read() as connection:
            return [_robot(row) for row in connection.execute(query)]


# Statements are made once: it takes longer to make one than to have it executed.

_LOCKED: Final = select(robots).where(robots.c.guid == bindparam("robot")).with_for_update()

_LIVE: Final = (
    whole_jobs()
    .join(attempts, attempts.c.job_id == jobs.c.id)
    .add_columns(attempts.c.claim, attempts.c.started_at.label("attempt_started"))
    .where(attempts.c.runner_id == bindparam("robot"), attempts.c.ended_at.is_(None))
)

_LAST: Final = (
    select(attempts, jobs.c.state.label("state"))
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .join(robots, robots.c.guid == attempts.c.runner_id)
    .where(robots.c.guid == bindparam("robot"), jobs.c.guid == bindparam("job"))
    .order_by(attempts.c.number.desc())
    .limit(1)
)
"""The last attempt at a job that a robot has had."""


def _look(now: ColumnElement[float]) -> Select[Any]:
    """A robot, and whether it may have a job, has one, and is on the machine as it was written down not long ago."""
    place = select(machines.c.id).where(
        machines.c.id == robots.c.machine_id,
        machines.c.name == bindparam("machine"),
        machines.c.address == bindparam("address"),
        machines.c.seen_at > now - QUIET,
    )
    live = select(attempts.c.id).where(attempts.c.runner_id == robots.c.guid, attempts.c.ended_at.is_(None))
    may = and_(robots.c.enabled, robots.c.licensed, is_due(now))
    found = {"fresh": place.exists(), "busy": live.exists(), "may": may}
    answers = [value.label(name) for name, value in found.items()]
    return select(robots.c.id, robots.c.mac, *answers).where(robots.c.guid == bindparam("robot"))


def _beat(now: ColumnElement[float]) -> Update:
    """An attempt is alive."""
    return update(attempts).where(attempts.c.id == bindparam("attempt")).values(lease_until=now + bindparam("lease"))


_SAID: Final = {
    JobState.IN_PROGRESS: Move.START,
    JobState.SUCCESS: Move.SUCCEED,
    JobState.FAILED: Move.FAIL,
    JobState.STOPPED: Move.STOP,
    JobState.ABORTED: Move.ABORT,
}
"""What a robot may say of its job, and what that is."""

_ENDED: Final = {
    JobState.SUCCESS: Ended(Reason.EXIT, 0, detail="its robot said so"),
    JobState.FAILED: Ended(Reason.REPORT, detail="its robot said so"),
    JobState.STOPPED: Ended(Reason.STOPPED),
    JobState.ABORTED: Ended(Reason.ABORTED),
}


def _robot(row: Row[Any]) -> Robot:
    status = RobotStatus(row.status)
    if not (row.enabled and row.licensed):
        status = RobotStatus.UNLICENSED
    elif row.seen_at is None or row.now - row.seen_at > QUIET:
        status = RobotStatus.DISCONNECTED
    values = {name: getattr(row, name) for name in Robot._fields if name != "status"}
    return Robot(**values, status=status)


def _locked(connection: Connection, guid: str) -> Row[Any]:
    row = connection.execute(_LOCKED, {"robot": guid}).first()
    if row is None:
        raise _unknown(guid)
    return row


def _unknown(guid: str) -> UnknownRobotError:
    return UnknownRobotError(f"there is no robot with the GUID {guid}")
