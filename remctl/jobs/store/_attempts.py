"""The store's part for runners: taking jobs, and writing down what becomes of them."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from remctl.jobs.states import JobState, Move, Reason, outcome
from remctl.jobs.store import _moving
from remctl.jobs.store._claiming import Claiming, hashed
from remctl.jobs.store._database import Database
from remctl.jobs.store._records import (
    ATTEMPT,
    AttemptRecord,
    Bid,
    Claim,
    Ended,
    Job,
    Output,
    StaleAttemptError,
    StoreError,
    Taker,
    attempt_of,
    claim_of,
    folder_of,
    whole_jobs,
)
from remctl.jobs.store._schema import attempts, jobs, scripts

_ACCOUNT: Final = re.compile("attempt-([1-9][0-9]{0,17})")


class Attempts:
    """The attempts to run jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claiming = Claiming(database)
        # Statements are made once: it takes longer to make one than to have it executed.
        now, mine = database.now, attempts.c.id == bindparam("attempt")
        self._started = update(attempts).where(mine).values(started_at=now, lease_until=now + bindparam("lease"))
        self._ended = update(attempts).where(mine).values(ended_at=now)

    def claim(self, taker: Taker, bids: Sequence[Bid], lease: float, *, per_owner: int | None = None) -> list[Claim]:
        """Take the next jobs that are due.

        Args:
            taker: who takes them.
            bids: one for each job that is wanted; those that had an answer before get the same one, and no other job.
            lease: seconds within which the taker has to be heard of.
            per_owner: jobs of the same owner that may be taken at a time; None is without limit.
        """
        try:
            found: list[Claim] = []
            limited = True
            if not self._database.sqlite and per_owner is None:
                found, limited = self._claiming.at_once(taker, bids, lease)
            if limited:
                found += self._claiming.in_steps(taker, bids[len(found) :], lease, per_owner)
            return found or self._claimed(bids) or []
        except IntegrityError:
            if (known := self._claimed(bids)) is None:
                raise  # there is a live attempt that its job does not know of, which cannot be
            return known

    def _claimed(self, bids: Sequence[Bid]) -> list[Claim] | None:
        """What was taken with these bids before and has not ended; None if nothing ever was."""
        columns = (
            attempts.c.id.label("attempt"),
            attempts.c.claim,
            attempts.c.number,
            attempts.c.ended_at.label("over"),
        )
        mine = attempts.c.claim.in_([bid.key for bid in bids])
        query = whole_jobs().join(attempts).add_columns(*columns).where(mine).order_by(attempts.c.id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return None
        return [
            claim_of(row, attempt=row.attempt, key=row.claim, number=row.number) for row in rows if row.over is None
        ]

    def start(self, attempt: int, boot_id: str, pid: int, pid_started: int, lease: float) -> Job:
        """Write down that the script of an attempt begins: after this, and not before, it may run; return its job.

        Args:
            attempt: the attempt.
            boot_id: of the machine's kernel, since it was started.
            pid: of the script's process.
            pid_started: when that began, in clock ticks since the boot.
            lease: seconds within which it has to be heard of.

        Raises:
            StaleAttemptError: the attempt has ended.
            IllegalMoveError: somebody has asked the job to end.
        """
        with self._database.write() as connection:
            live = self._live(connection, attempt)
            row = _moving.locked(connection, live.job_id)
            _moving.move(self._database, connection, row, Move.START, live.runner, started_at=self._database.now)
            values = {"boot_id": boot_id, "pid": pid, "pid_started": pid_started}
            connection.execute(self._started, {"attempt": attempt, "lease": lease, **values})
            return _moving.read(connection, live.job_id)

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
        with self._database.write() as connection:
            mine = and_(attempts.c.id.in_(live), attempts.c.ended_at.is_(None))
            connection.execute(update(attempts).where(mine).values(lease_until=self._database.now + lease))
            rows = connection.execute(select(attempts.c.id, jobs.c.state).join(jobs).where(mine))
            answer.update({row.id: JobState(row.state) for row in rows})
        return answer

    def show(self, attempt: int, output: Output) -> None:
        """Keep what the script of an attempt has written so far; of one that has ended, nothing is changed."""
        mine = and_(attempts.c.id == attempt, attempts.c.ended_at.is_(None))
        with self._database.write() as connection:
            connection.execute(update(attempts).where(mine).values(_output(output)))

    def allowed(self, account: str, password: str) -> int | None:
        """Return the attempt whose account this is, if it is its password; None if it is not."""
        found = _ACCOUNT.fullmatch(account)
        if found is None:
            return None
        with self._database.read() as connection:
            kept = connection.scalar(select(attempts.c.password).where(attempts.c.id == int(found[1])))
        return int(found[1]) if kept is not None and hmac.compare_digest(kept, hashed(password)) else None

    def report(self, job: int | str, success: bool, text: str, *, attempt: int | None = None) -> bool:
        """Keep what a script says of its result; a later report of the same attempt replaces an earlier one.

        Args:
            job: the job, by its number or GUID.
            success: whether the script says that it succeeded.
            text: what it says, without NUL.
            attempt: the attempt that it says so for; None is the job's last one.

        Returns:
            Whether it was in time: what comes after the attempt's end is counted, and changes nothing.

        Raises:
            StoreError: there is no such job, or no such attempt of it.
        """
        with self._database.write() as connection:
            query = select(attempts).join(jobs, jobs.c.id == attempts.c.job_id).where(_moving.by(job))
            if attempt is not None:
                query = query.where(attempts.c.id == attempt)
            query = query.order_by(attempts.c.number.desc()).limit(1)
            row = connection.execute(query.with_for_update(of=attempts)).first()
            if row is None:
                raise StoreError(f"there is no job {job} that has run" if attempt is None else f"it is not job {job}'s")
            values: dict[str, Any] = {"late_reports": attempts.c.late_reports + 1}
            if row.ended_at is None:
                values = {"reported_at": self._database.now, "reported_success": success, "report": text}
            connection.execute(update(attempts).where(attempts.c.id == row.id).values(values))
            return row.ended_at is None

    def settle(self, attempt: int, ended: Ended) -> Job:
        """Write down how an attempt has ended, and what that means for its job; see `states.outcome`.

        Raises:
            StaleAttemptError: it had ended before; nothing was changed.
        """
        with self._database.write() as connection:
            row = self._live(connection, attempt)
            job = _moving.locked(connection, row.job_id)
            self._end(connection, job, row, ended)
            return _moving.read(connection, row.job_id)

    def hand_back(self, attempt: int) -> None:
        """Let somebody else take a job that was claimed, and whose script has certainly not begun.

        Raises:
            StaleAttemptError: the attempt has ended.
            StoreError: its script has begun.
        """
        with self._database.write() as connection:
            row = self._live(connection, attempt)
            if row.started_at is not None:
                raise StoreError(f"attempt {attempt} has begun")
            self._give_up(connection, row)

    def live_of(self, taker: Taker) -> list[AttemptRecord]:
        """Return the attempts that somebody has taken, and that have not ended."""
        mine = and_(attempts.c.runner_id == taker.id, attempts.c.ended_at.is_(None))
        with self._database.read() as connection:
            return [attempt_of(row) for row in connection.execute(select(*ATTEMPT).where(mine).order_by(attempts.c.id))]

    def live_folders(self) -> set[str]:
        """Return the names of the folders of all attempts that have not ended."""
        columns = select(attempts.c.job_id, attempts.c.number, attempts.c.claim).where(attempts.c.ended_at.is_(None))
        with self._database.read() as connection:
            return {folder_of(row.job_id, row.number, row.claim) for row in connection.execute(columns)}

    def sweep(self) -> list[Job]:
        """Deal with attempts whose runners were not heard of in time; return the jobs that were lost.

        A claim whose script never began is taken back; what has begun is lost, and runs again only where its script
        says that it may.  Any number of sweepers may do so at the same time.
        """
        lost = []
        with self._database.read() as connection:
            overdue = list(connection.scalars(select(attempts.c.id).where(self._is_overdue())))
        for attempt in overdue:
            with self._database.write() as connection:
                row = connection.execute(
                    select(attempts)
                    .where(attempts.c.id == attempt, self._is_overdue())
                    .with_for_update(skip_locked=True)
                ).first()
                if row is None:  # somebody else has dealt with it, or it was heard of
                    continue
                if self._give_up(connection, row):
                    lost.append(_moving.read(connection, row.job_id))
        return lost

    # What they are made of

    def _end(self, connection: Connection, job: Row[Any], row: Row[Any], ended: Ended) -> None:
        values = {
            "reason": ended.reason,
            "detail": ended.detail,
            "exit_status": ended.exit_status,
            "signal": ended.signal,
            **_output(ended.output),
        }
        connection.execute(self._ended, {"attempt": row.id, **values})
        move, reason = outcome(ended.reason, ended.exit_status, row.reported_success)
        if ended.reason is Reason.LOST:
            losses = job.losses + 1
            rule = connection.execute(
                select(scripts.c.retry, scripts.c.retries).where(scripts.c.id == job.script_id)
            ).one()
            if rule.retry == "retry" and job.state == JobState.IN_PROGRESS:
                if losses <= rule.retries:
                    _moving.again(self._database, connection, job, row.runner, losses=losses)
                    return
                reason = Reason.CRASHES
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(losses=losses))
        _moving.move(
            self._database,
            connection,
            job,
            move,
            row.runner,
            reason=reason,
            detail=ended.detail,
            ended_at=self._database.now,
            attempt_id=None,
            exit_status=ended.exit_status,
            signal=ended.signal,
        )

    def _give_up(self, connection: Connection, row: Row[Any]) -> bool:
        """End an attempt that nobody goes on with; return whether that ends its job, or others may take it."""
        job = _moving.locked(connection, row.job_id)
        if row.started_at is not None or job.state != JobState.PENDING:
            self._end(connection, job, row, _lost(row, JobState(job.state)))
            return True
        ended = {"ended_at": self._database.now, "reason": Reason.NOT_STARTED}
        connection.execute(update(attempts).where(attempts.c.id == row.id).values(ended))
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(attempt_id=None))
        return False

    def _live(self, connection: Connection, attempt: int) -> Row[Any]:
        row = connection.execute(_LIVE, {"attempt": attempt}).first()
        if row is None or row.ended_at is not None:
            raise StaleAttemptError(f"attempt {attempt} has ended")
        return row

    def _is_overdue(self) -> Any:
        return and_(attempts.c.ended_at.is_(None), attempts.c.lease_until < self._database.now)


_LIVE: Final = select(attempts).where(attempts.c.id == bindparam("attempt")).with_for_update()


def account_of(attempt: int) -> str:
    """Return the name of the account with which an attempt alone reports."""
    return f"attempt-{attempt}"


def new_bid() -> Bid:
    """Return a bid that nobody has made before."""
    return Bid(secrets.token_hex(16), secrets.token_urlsafe(24))


def _output(output: Output) -> dict[str, Any]:
    return {
        "stdout_size": output.stdout_size,
        "stderr_size": output.stderr_size,
        "stdout_tail": output.stdout,
        "stderr_tail": output.stderr,
    }


def _lost(row: Row[Any], state: JobState) -> Ended:
    """How an attempt has ended whose runner is gone: what never began is what somebody wanted it to be."""
    if row.started_at is None:
        reason = Reason.STOPPED if state is JobState.STOPPING else Reason.ABORTED
        return Ended(reason, detail="the runner was not heard of before it began")
    return Ended(Reason.LOST, detail="the runner was not heard of in time")
