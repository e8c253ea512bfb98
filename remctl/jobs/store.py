"""The job store: what is asked of it by runners, robots, users and administrators, each call one transaction.

Stands on the tables of `schema` and the moves of `states`.  All that is written for an attempt says which attempt, and
is refused when that one has ended: a runner that was taken for dead and comes back changes nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from remctl._arguments import check_text
from remctl.exceptions import RemctlError
from remctl.jobs._database import Database
from remctl.jobs.schema import attempts, events, jobs, scripts
from remctl.jobs.scripts import Language, Parameters, Script
from remctl.jobs.states import JobState, Move, Reason, moved, outcome

PRIORITIES: Final = (-100, 100)


class StoreError(RemctlError):
    """Something is not there, or cannot be done as things stand; nothing was changed."""


class StaleAttemptError(StoreError):
    """The attempt has ended already: whoever runs it was taken for lost, and has to kill what it runs."""


class Job(NamedTuple):
    """A job, as it stood when it was read."""

    id: int
    guid: str
    script: str
    parameters: Mapping[str, Any]
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


class Claim(NamedTuple):
    """A job that was taken, and the attempt to run it."""

    job: Job
    attempt: int
    number: int
    """Which attempt of the job it is, from 1."""
    language: Language
    sha256: str
    """Of the script, when the job was submitted."""
    run_time: float | None
    """Seconds that it may run; None is without limit."""


class InstalledScript(NamedTuple):
    """A script, as it is written down."""

    name: str
    language: Language
    description: str
    sha256: str
    parameters: Parameters
    enabled: bool

    @property
    def filename(self) -> str:
        """The name of its file where it is installed."""
        return f"{self.name}{self.language.suffix}"


class Ended(NamedTuple):
    """How the process of an attempt has ended."""

    reason: Reason
    exit_status: int | None = None
    signal: int | None = None
    detail: str | None = None
    stdout: bytes = b""
    """The last of its output."""
    stderr: bytes = b""
    stdout_size: int = 0
    """Bytes of all its output."""
    stderr_size: int = 0


class Store:
    """See the module.

    Args:
        url: see `Database`.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self._due = _due(self.database)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    # Administrators

    def install(self, script: Script, who: str) -> None:
        """Write down a script, in the place of one that has its name; a new one is enabled.

        Args:
            script: the script; its file is installed by `scripts.install`.
            who: the administrator.
        """
        values = {
            "language": script.language.value,
            "description": script.description,
            "sha256": script.sha256,
            "parameters": script.parameters.tables(),
            "run_time": script.limits.run_time,
            "concurrency": script.limits.concurrency,
            "retry": script.limits.retry,
            "retries": script.limits.retries,
            "installed_by": who,
            "installed_at": self.database.now,
        }
        with self.database.write() as connection:
            if not connection.execute(update(scripts).where(scripts.c.name == script.name).values(values)).rowcount:
                connection.execute(insert(scripts).values(name=script.name, enabled=True, **values))

    def remove(self, name: str) -> None:
        """Forget a script that no job refers to; one that has been run is turned off instead.

        Raises:
            StoreError: there is no such script, or jobs refer to it.
        """
        with self.database.write() as connection:
            row = connection.execute(select(scripts.c.id).where(scripts.c.name == name)).first()
            if row is None:
                raise StoreError(f"there is no script {name!r}")
            if connection.scalar(select(func.count()).where(jobs.c.script_id == row.id)):
                raise StoreError(f"there are jobs of the script {name!r}: turn it off instead")
            connection.execute(delete(scripts).where(scripts.c.id == row.id))

    def installed(self, name: str | None = None) -> list[InstalledScript]:
        """Return the scripts, by name; or the one that is named.

        Raises:
            StoreError: there is no script of that name.
        """
        with self.database.read() as connection:
            query = select(scripts).order_by(scripts.c.name)
            rows = connection.execute(query if name is None else query.where(scripts.c.name == name)).all()
        if name is not None and not rows:
            raise StoreError(f"there is no script {name!r}")
        return [
            InstalledScript(
                row.name, Language(row.language), row.description, row.sha256, Parameters(row.parameters), row.enabled
            )
            for row in rows
        ]

    def enable(self, name: str, enabled: bool) -> None:
        """Turn a script on or off; jobs that wait for one that is off go on waiting.

        Raises:
            StoreError: there is no such script.
        """
        with self.database.write() as connection:
            if not connection.execute(update(scripts).where(scripts.c.name == name).values(enabled=enabled)).rowcount:
                raise StoreError(f"there is no script {name!r}")

    # Users

    def submit(
        self,
        script: str,
        parameters: Mapping[str, Any],
        owner: str,
        *,
        robot: int | None = None,
        pool: str | None = None,
        priority: int = 0,
        delay: float = 0,
        guid: str | None = None,
    ) -> Job:
        """Make a job that waits to be taken.

        Args:
            script: the name of an enabled script.
            parameters: as its `Parameters.check` returned them.
            owner: the principal for whom it runs.
            robot: the robot that is to run it; None with a pool of None leaves it to the runners.
            pool: any robot of this pool.
            priority: -100 to 100; higher ones are taken first.
            delay: seconds before it may be taken.
            guid: the caller's own, with which it may ask again; None makes one.

        Raises:
            StoreError: there is no such script, or it is turned off.
            ValueError: an argument makes no sense.
        """
        if not PRIORITIES[0] <= priority <= PRIORITIES[1]:
            raise ValueError(f"priority must be {PRIORITIES[0]} to {PRIORITIES[1]}: {priority}")
        guid = guid or str(uuid.uuid4())
        with self.database.write() as connection:
            if (known := self._find(connection, jobs.c.guid == guid)) is not None:
                return known
            chosen = connection.execute(select(scripts).where(scripts.c.name == script)).first()
            if chosen is None:
                raise StoreError(f"there is no script {script!r}")
            if not chosen.enabled:
                raise StoreError(f"the script {script!r} is turned off")
            now = self.database.now
            row = connection.execute(
                insert(jobs)
                .values(
                    guid=guid,
                    script_id=chosen.id,
                    sha256=chosen.sha256,
                    parameters=dict(parameters),
                    owner=check_text("owner", owner),
                    robot_id=robot,
                    pool=pool,
                    rank=-priority,
                    state=moved(JobState.CREATED, Move.QUEUE),
                    created_at=now,
                    due_at=now + delay,
                    attempts=0,
                    losses=0,
                )
                .returning(jobs.c.id)
            ).one()
            self._tell(connection, row.id, None, Move.QUEUE, JobState.PENDING, owner)
            found = self._find(connection, jobs.c.id == row.id)
            assert found is not None
            return found

    def job(self, job: int | str) -> Job:
        """Return a job, by its number or its GUID.

        Raises:
            StoreError: there is none.
        """
        with self.database.read() as connection:
            return self._one(connection, job)

    def listed(
        self, *, owner: str | None = None, state: JobState | None = None, before: int | None = None, limit: int = 50
    ) -> list[Job]:
        """Return jobs, the latest first.

        Args:
            owner: those of this principal; None is everybody's.
            state: those that stand there; None is all.
            before: those whose number is lower, which is the next page; None begins with the latest.
            limit: so many at the most.
        """
        query = _whole()
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if before is not None:
            query = query.where(jobs.c.id < before)
        with self.database.read() as connection:
            return [_job(row) for row in connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))]

    def output(self, job: int | str) -> tuple[bytes, bytes]:
        """Return what is kept in the store of the output and the error output of a job's last attempt.

        Raises:
            StoreError: there is no such job.
        """
        with self.database.read() as connection:
            found = self._one(connection, job)
            columns = select(attempts.c.stdout_tail, attempts.c.stderr_tail).where(attempts.c.job_id == found.id)
            row = connection.execute(columns.order_by(attempts.c.number.desc()).limit(1)).first()
        return (b"", b"") if row is None else (row.stdout_tail or b"", row.stderr_tail or b"")

    def ask(self, job: int | str, move: Move, who: str) -> Job:
        """Want a job to end: by `Move.STOP` in peace, by `Move.ABORT` at once.

        One that nobody has taken ends here; else whoever has it is told with its next sign of life.  Asking again is
        harmless.

        Raises:
            StoreError: there is no such job.
            IllegalMoveError: it is over.
        """
        wanted = {Move.STOP: JobState.STOPPING, Move.ABORT: JobState.ABORTING}[move]
        with self.database.write() as connection:
            row = self._locked(connection, job)
            if row.state == wanted:
                return self._one(connection, job)
            if row.attempt_id is not None:
                asked = {Move.STOP: Move.ASK_STOP, Move.ABORT: Move.ASK_ABORT}[move]
                self._move(connection, row, asked, who, asked_by=who)
            else:
                reason = Reason.STOPPED if move is Move.STOP else Reason.ABORTED
                ended = {"reason": reason, "ended_at": self.database.now, "asked_by": who}
                self._move(connection, row, move, who, **ended)
            return self._one(connection, job)

    def retry(self, job: int | str, who: str) -> Job:
        """Have a job that is over, and not with success, run again; its history stays.

        Raises:
            StoreError: there is no such job.
            IllegalMoveError: it is not over, or was a success.
        """
        with self.database.write() as connection:
            row = self._locked(connection, job)
            if not JobState(row.state).final:
                raise StoreError(f"job {row.id} is not over")
            self._again(connection, row, who, losses=0)
            return self._one(connection, job)

    # Runners

    def claim(self, runner: str, claim: str, password: str, lease: float) -> Claim | None:
        """Take the next job that is due, if there is one.

        Args:
            runner: the name of whoever takes it.
            claim: made up by the runner, for this one call: asking again with it, after a lost answer, gives the same
                job, and no second one.
            password: which the attempt alone may report with.
            lease: seconds within which the runner has to be heard of.
        """
        try:
            with self.database.write() as connection:
                picked = connection.execute(self._due).first()
                if picked is None or self._is_full(connection, picked):
                    return self._claimed(connection, claim)
                attempt = self._take(connection, picked, runner, claim, password, lease)
                return _claim(picked, attempt, picked.attempts + 1)
        except IntegrityError:
            with self.database.read() as connection:
                if connection.scalar(select(attempts.c.id).where(attempts.c.claim == claim)) is None:
                    raise  # it has a live attempt that it does not know of, which cannot be
                return self._claimed(connection, claim)

    def _claimed(self, connection: Connection, claim: str) -> Claim | None:
        """What somebody has claimed already, and asks for again."""
        query = _whole().join(attempts).add_columns(attempts.c.id.label("attempt"), attempts.c.number)
        known = connection.execute(query.where(attempts.c.claim == claim, attempts.c.ended_at.is_(None))).first()
        return None if known is None else _claim(known, known.attempt, known.number)

    def start(self, attempt: int, boot_id: str, pid: int, pid_started: int) -> None:
        """Write down that the script of an attempt begins: after this, and not before, it may run.

        Raises:
            StaleAttemptError: the attempt has ended.
            IllegalMoveError: somebody has asked the job to end.
        """
        with self.database.write() as connection:
            row = self._locked(connection, self._live(connection, attempt).job_id)
            self._move(connection, row, Move.START, f"attempt {attempt}", started_at=self.database.now)
            values = {"started_at": self.database.now, "boot_id": boot_id, "pid": pid, "pid_started": pid_started}
            connection.execute(update(attempts).where(attempts.c.id == attempt).values(values))

    def beat(self, live: Sequence[int], lease: float) -> dict[int, JobState | None]:
        """Say that attempts are alive.

        Args:
            live: the attempts.
            lease: seconds until they have to be heard of again.

        Returns:
            For each the state of its job, where STOPPING and ABORTING are orders; None if the attempt has ended, and
            what it runs has to be killed.
        """
        answer: dict[int, JobState | None] = dict.fromkeys(live)
        if not live:
            return answer
        with self.database.write() as connection:
            mine = and_(attempts.c.id.in_(live), attempts.c.ended_at.is_(None))
            connection.execute(update(attempts).where(mine).values(lease_until=self.database.now + lease))
            rows = connection.execute(select(attempts.c.id, jobs.c.state).join(jobs).where(mine))
            answer.update({row.id: JobState(row.state) for row in rows})
        return answer

    def report(self, attempt: int, success: bool, text: str) -> bool:
        """Keep what a script says of its result; a later report of the same attempt replaces an earlier one.

        Returns:
            Whether it was in time: what comes after the attempt's end is counted, and changes nothing.

        Raises:
            StoreError: there is no such attempt.
        """
        with self.database.write() as connection:
            row = connection.execute(select(attempts).where(attempts.c.id == attempt)).first()
            if row is None:
                raise StoreError(f"there is no attempt {attempt}")
            values: dict[str, Any] = {
                "reported_at": self.database.now,
                "reported_success": success,
                "report": text,
            }
            if late := row.ended_at is not None:
                values = {"late_reports": attempts.c.late_reports + 1}
            connection.execute(update(attempts).where(attempts.c.id == attempt).values(values))
            return not late

    def settle(self, attempt: int, ended: Ended) -> Job:
        """Write down how an attempt has ended, and what that means for its job; see `states.outcome`.

        Raises:
            StaleAttemptError: it had ended before; nothing was changed.
        """
        with self.database.write() as connection:
            row = self._live(connection, attempt)
            job = self._locked(connection, row.job_id)
            self._end(connection, job, row, ended)
            return self._one(connection, row.job_id)

    def hand_back(self, attempt: int) -> None:
        """Let somebody else take a job that was claimed, and whose script has certainly not begun.

        Raises:
            StaleAttemptError: the attempt has ended.
            StoreError: its script has begun.
        """
        with self.database.write() as connection:
            row = self._live(connection, attempt)
            if row.started_at is not None:
                raise StoreError(f"attempt {attempt} has begun")
            self._give_up(connection, row)

    def live_of(self, runner: str) -> list[tuple[int, bool]]:
        """Return the attempts of a runner that have not ended, and whether the script of each has begun."""
        with self.database.read() as connection:
            mine = and_(attempts.c.runner == runner, attempts.c.ended_at.is_(None))
            rows = connection.execute(select(attempts.c.id, attempts.c.started_at).where(mine).order_by(attempts.c.id))
            return [(row.id, row.started_at is not None) for row in rows]

    def sweep(self) -> list[Job]:
        """Deal with attempts whose runners were not heard of in time; return the jobs that were lost.

        A claim whose script never began is taken back; what has begun is lost, and runs again only where its script
        says that it may.  Any number of sweepers may do so at the same time.
        """
        lost = []
        with self.database.read() as connection:
            overdue = self._overdue(connection)
        for attempt in overdue:
            with self.database.write() as connection:
                row = connection.execute(
                    select(attempts)
                    .where(attempts.c.id == attempt, self._is_overdue())
                    .with_for_update(skip_locked=True)
                ).first()
                if row is None:  # somebody else has dealt with it, or it was heard of
                    continue
                if self._give_up(connection, row):
                    lost.append(self._one(connection, row.job_id))
        return lost

    # What they are made of

    def _is_full(self, connection: Connection, picked: Row[Any]) -> bool:
        """Whether so many jobs of a script are taken that no more may be, now that nobody else takes any."""
        if picked.concurrency is None or self.database.sqlite:  # where others have waited since the beginning
            return False
        connection.execute(select(scripts.c.id).where(scripts.c.id == picked.script_id).with_for_update())
        running = select(func.count()).where(jobs.c.script_id == picked.script_id, jobs.c.attempt_id.is_not(None))
        return bool(connection.scalar(running) >= picked.concurrency)

    def _take(self, connection: Connection, job: Row[Any], runner: str, claim: str, password: str, lease: float) -> int:
        now = self.database.now
        attempt: int = connection.execute(
            insert(attempts)
            .values(
                job_id=job.id,
                number=job.attempts + 1,
                claim=claim,
                password=hashed(password),
                runner=runner,
                claimed_at=now,
                lease_until=now + lease,
                late_reports=0,
            )
            .returning(attempts.c.id)
        ).scalar_one()
        connection.execute(
            update(jobs).where(jobs.c.id == job.id).values(attempt_id=attempt, attempts=job.attempts + 1)
        )
        return attempt

    def _end(self, connection: Connection, job: Row[Any], row: Row[Any], ended: Ended) -> None:
        now = self.database.now
        connection.execute(
            update(attempts)
            .where(attempts.c.id == row.id)
            .values(
                ended_at=now,
                reason=ended.reason,
                detail=ended.detail,
                exit_status=ended.exit_status,
                signal=ended.signal,
                stdout_size=ended.stdout_size,
                stderr_size=ended.stderr_size,
                stdout_tail=ended.stdout,
                stderr_tail=ended.stderr,
            )
        )
        move, reason = outcome(ended.reason, ended.exit_status, row.reported_success)
        if ended.reason is Reason.LOST:
            losses = job.losses + 1
            rule = connection.execute(
                select(scripts.c.retry, scripts.c.retries).where(scripts.c.id == job.script_id)
            ).one()
            if rule.retry == "retry" and job.state == JobState.IN_PROGRESS:
                if losses <= rule.retries:
                    self._again(connection, job, row.runner, losses=losses)
                    return
                reason = Reason.CRASHES
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(losses=losses))
        self._move(
            connection,
            job,
            move,
            row.runner,
            reason=reason,
            detail=ended.detail,
            ended_at=now,
            attempt_id=None,
            exit_status=ended.exit_status,
            signal=ended.signal,
        )

    def _give_up(self, connection: Connection, row: Row[Any]) -> bool:
        """End an attempt that nobody goes on with; return whether that ends its job, or others may take it."""
        job = self._locked(connection, row.job_id)
        if row.started_at is not None or job.state != JobState.PENDING:
            self._end(connection, job, row, _lost(row, JobState(job.state)))
            return True
        ended = {"ended_at": self.database.now, "reason": Reason.NOT_STARTED}
        connection.execute(update(attempts).where(attempts.c.id == row.id).values(ended))
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(attempt_id=None))
        return False

    def _again(self, connection: Connection, job: Row[Any], who: str, *, losses: int) -> None:
        fresh = dict.fromkeys(("reason", "detail", "started_at", "ended_at", "asked_by", "exit_status", "signal"))
        values = {**fresh, "due_at": self.database.now, "attempt_id": None, "losses": losses}
        self._move(connection, job, Move.RETRY, who, **values)

    def _move(self, connection: Connection, job: Row[Any], move: Move, who: str, **values: Any) -> None:
        state = moved(JobState(job.state), move)
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(state=state, **values))
        self._tell(connection, job.id, job.attempts or None, move, state, who, values.get("detail"))

    def _tell(
        self,
        connection: Connection,
        job: int,
        attempt: int | None,
        move: Move,
        state: JobState,
        who: str,
        detail: str | None = None,
    ) -> None:
        connection.execute(
            insert(events).values(
                job_id=job, attempt=attempt, at=self.database.now, move=move.value, state=state, who=who, detail=detail
            )
        )

    def _live(self, connection: Connection, attempt: int) -> Row[Any]:
        row = connection.execute(select(attempts).where(attempts.c.id == attempt).with_for_update()).first()
        if row is None or row.ended_at is not None:
            raise StaleAttemptError(f"attempt {attempt} has ended")
        return row

    def _locked(self, connection: Connection, job: int | str) -> Row[Any]:
        row = connection.execute(select(jobs).where(_by(job)).with_for_update()).first()
        if row is None:
            raise StoreError(f"there is no job {job}")
        return row

    def _is_overdue(self) -> Any:
        return and_(attempts.c.ended_at.is_(None), attempts.c.lease_until < self.database.now)

    def _overdue(self, connection: Connection) -> list[int]:
        return list(connection.scalars(select(attempts.c.id).where(self._is_overdue())))

    def _one(self, connection: Connection, job: int | str) -> Job:
        found = self._find(connection, _by(job))
        if found is None:
            raise StoreError(f"there is no job {job}")
        return found

    def _find(self, connection: Connection, which: Any) -> Job | None:
        row = connection.execute(_whole().where(which)).first()
        return None if row is None else _job(row)


def new_claim() -> str:
    """Return what nobody has claimed with before."""
    return secrets.token_hex(16)


def hashed(password: str) -> str:
    """Return what is stored of an attempt's password, which is long and random, and needs no salt."""
    return hashlib.sha256(password.encode()).hexdigest()


def _lost(row: Row[Any], state: JobState) -> Ended:
    """How an attempt has ended whose runner is gone: what never began is what somebody wanted it to be."""
    if row.started_at is None:
        reason = Reason.STOPPED if state is JobState.STOPPING else Reason.ABORTED
        return Ended(reason, detail="the runner was not heard of before it began")
    return Ended(Reason.LOST, detail="the runner was not heard of in time")


def _whole() -> Select[Any]:
    """Jobs with what is known of their scripts."""
    return select(
        jobs, scripts.c.name.label("script"), scripts.c.language, scripts.c.run_time, scripts.c.concurrency
    ).join(scripts)


def _due(database: Database) -> Select[Any]:
    """The next job that is due; held against others, where they do not wait for one another anyway."""
    taken = jobs.alias()
    running = select(func.count()).where(taken.c.script_id == jobs.c.script_id, taken.c.attempt_id.is_not(None))
    return (
        _whole()
        .where(
            jobs.c.state == JobState.PENDING,
            jobs.c.attempt_id.is_(None),
            jobs.c.due_at <= database.now,
            jobs.c.robot_id.is_(None),
            jobs.c.pool.is_(None),
            scripts.c.enabled,
            or_(scripts.c.concurrency.is_(None), running.scalar_subquery() < scripts.c.concurrency),
        )
        .order_by(jobs.c.rank, jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=jobs)
    )


def _claim(row: Row[Any], attempt: int, number: int) -> Claim:
    job = _job(row)._replace(attempts=number)
    return Claim(job, attempt, number, Language(row.language), row.sha256, row.run_time)


def _job(row: Row[Any]) -> Job:
    values = {name: getattr(row, name) for name in Job._fields if name != "priority"}
    values["priority"] = -row.rank
    values["state"] = JobState(row.state)
    values["reason"] = None if row.reason is None else Reason(row.reason)
    return Job(**values)


def _by(job: int | str) -> Any:
    return jobs.c.guid == job if isinstance(job, str) else jobs.c.id == job
