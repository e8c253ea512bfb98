"""The tables of the job store, for SQLite and PostgreSQL alike; Alembic's migrations are made from them.

Times are seconds since the epoch, by the clock of the database.  What must never be is kept from being by constraints
and not by checks: a job has one attempt at a time that has not ended.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID: Final = BigInteger().with_variant(Integer, "sqlite")  # which numbers rows by itself for INTEGER alone


def _partial(name: str, *columns: Any, where: str, unique: bool = False) -> Index:
    """An index of some rows alone, which stays small however many others there are."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


def _id() -> Column[int]:
    return Column("id", _ID, primary_key=True)


scripts: Final = Table(
    "scripts",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("language", String(16), nullable=False),
    Column("description", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("run_time", Double),  # seconds; null is without limit
    Column("concurrency", Integer),  # jobs at the same time; null is without limit
    Column("retry", String(8), nullable=False),  # what becomes of a job that was lost: fail, retry
    Column("retries", Integer, nullable=False),
    Column("users", JSON),  # ACL entries of those who may submit jobs of it; null is all users
    Column("enabled", Boolean, nullable=False),
    Column("installed_by", String(255), nullable=False),
    Column("installed_at", Double, nullable=False),
)

accounts: Final = Table(
    "accounts",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("password", String(255), nullable=False),  # salted and hashed
    Column("changed_at", Double, nullable=False),
)

machines: Final = Table(
    "machines",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("address", String(64), nullable=False),
    Column("certified", Boolean, nullable=False),
    Column("seen_at", Double),
)

robots: Final = Table(
    "robots",
    metadata,
    _id(),
    Column("guid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("pool", String(64)),
    Column("machine_id", ForeignKey("machines.id")),
    Column("mac", String(64)),
    Column("status", Integer, nullable=False),
    Column("licensed", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("seen_at", Double),
)

_DUE: Final = "state = 1 AND attempt_id IS NULL"

jobs: Final = Table(
    "jobs",
    metadata,
    _id(),
    Column("guid", String(36), nullable=False, unique=True),
    Column("script_id", ForeignKey("scripts.id"), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the script, when the job was submitted
    Column("parameters", JSON, nullable=False),  # but for those that are secret
    Column("secrets", JSON(none_as_null=True)),  # which are gone when the job is over: {} then
    Column("owner", String(255), nullable=False),
    Column("robot_id", ForeignKey("robots.id")),  # this robot alone; null with a null pool is the runners
    Column("pool", String(64)),  # any robot of it
    Column("rank", Integer, nullable=False),  # the negated priority: the lowest is first
    Column("state", Integer, nullable=False),
    Column("reason", String(16)),
    Column("detail", Text),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),  # not before
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("asked_by", String(255)),  # who wants it stopped or aborted
    Column("attempts", Integer, nullable=False),
    Column("losses", Integer, nullable=False),  # attempts of it that were lost
    Column("attempt_id", _ID),  # the one that has not ended
    Column("exit_status", Integer),
    Column("signal", Integer),
    _partial("ix_jobs_due", "rank", "id", where=f"{_DUE} AND robot_id IS NULL AND pool IS NULL"),
    _partial("ix_jobs_due_robot", "robot_id", "rank", "id", where=f"{_DUE} AND robot_id IS NOT NULL"),
    _partial("ix_jobs_due_pool", "pool", "rank", "id", where=f"{_DUE} AND pool IS NOT NULL"),
    _partial("ix_jobs_taken", "script_id", where="attempt_id IS NOT NULL"),
    _partial("ix_jobs_open", "state", where="ended_at IS NULL"),
    _partial("ix_jobs_ended", "ended_at", where="ended_at IS NOT NULL"),
    Index("ix_jobs_owner", "owner", "id"),
    Index("ix_jobs_script", "script_id", "id"),
)

attempts: Final = Table(
    "attempts",
    metadata,
    _id(),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # from 1
    Column("claim", String(64), nullable=False, unique=True),  # made by whoever claims, who may ask again with it
    Column("password", String(64), nullable=False),  # SHA-256 of the one that this attempt alone reports with
    Column("runner", String(255), nullable=False),  # its name
    Column("runner_id", String(36), nullable=False),  # which another one of the same name does not have
    Column("claimed_at", Double, nullable=False),
    Column("lease_until", Double, nullable=False),  # by then the runner has been heard of, or it is lost
    Column("started_at", Double),
    Column("boot_id", String(36)),
    Column("pid", Integer),
    Column("pid_started", BigInteger),  # in clock ticks since the boot
    Column("ended_at", Double),
    Column("reason", String(16)),
    Column("detail", Text),
    Column("exit_status", Integer),
    Column("signal", Integer),
    Column("stdout_size", BigInteger),  # bytes that the script has written
    Column("stderr_size", BigInteger),
    Column("stdout_tail", LargeBinary),  # the last of them
    Column("stderr_tail", LargeBinary),
    Column("reported_at", Double),
    Column("reported_success", Boolean),
    Column("report", Text),
    Column("late_reports", Integer, nullable=False),  # those that came after the end, and changed nothing
    UniqueConstraint("job_id", "number"),
    _partial("ix_attempts_live", "job_id", where="ended_at IS NULL", unique=True),
    _partial("ix_attempts_runner", "runner_id", where="ended_at IS NULL"),
    _partial("ix_attempts_lease", "lease_until", where="ended_at IS NULL"),
)

PENDING: Final = text("jobs.state = 1")
"""As a text and not as a parameter: PostgreSQL plans a statement once for all parameters, and has to see that the index
of jobs that are due is good for it."""

events: Final = Table(
    "events",
    metadata,
    _id(),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("attempt", Integer),
    Column("at", Double, nullable=False),
    Column("move", String(16), nullable=False),
    Column("state", Integer, nullable=False),  # where it led
    Column("who", String(255), nullable=False),
    Column("detail", Text),
)
