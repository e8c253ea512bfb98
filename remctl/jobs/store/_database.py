"""The database under the store: connections, transactions, the clock, and waiting for one that is away."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Connection, Engine, create_engine, event, literal_column
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement

from remctl.jobs.store._watch import Watch

BUSY: Final = 30.0
"""Seconds that a write to SQLite waits for those of others."""


class Database:
    """A database, reached through a pool of connections; all threads may use it.

    Args:
        url: sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME.

    Raises:
        ValueError: it is another kind of database, or no URL.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            kind = parsed.get_backend_name()
            if kind not in _CLOCK:
                raise ValueError(f"database must be sqlite or postgresql, and is {kind}")
            if kind == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            self.engine: Engine = create_engine(parsed, hide_parameters=True, connect_args=_ARGUMENTS[kind], **_POOL)
        except (ArgumentError, NoSuchModuleError) as error:
            raise ValueError(f"database is no URL that SQLAlchemy knows: {error}") from None
        self.now: ColumnElement[float] = _CLOCK[kind]
        self.sqlite = kind == "sqlite"
        # With connections of its own, since it takes as long to prepare one for that as to take a job.
        self._single = self.engine if self.sqlite else _single(parsed)
        self._writer = threading.Lock()
        self.watch = Watch()
        self._new = threading.local()
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            for engine in (self.engine, self._single):
                event.listen(engine, "connect", self._watch_new, insert=True)
                event.listen(engine, "checkout", _refuse_closed)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection with a transaction, which is committed at the end, or undone by an exception."""
        # SQLite has one writer at a time, for which others wait by asking again and again; threads can do better.
        with self._writer if self.sqlite else nullcontext(), self._transaction(writing=True) as connection:
            yield connection

    @contextmanager
    def single(self, *, writing: bool = True) -> Iterator[Connection]:
        """Give a connection for statements that stand for themselves: PostgreSQL is asked once for each then."""
        if self.sqlite:
            with self.write() if writing else self.read() as connection:
                yield connection
        else:
            with self._connected(self._single) as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for statements that change nothing."""
        with self._transaction(writing=False) as connection:
            yield connection

    def clock(self) -> float:
        """Return the time, in seconds since the epoch."""
        with self.read() as connection:
            return float(connection.execute(sqlalchemy.select(self.now)).scalar_one())

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self.engine.dispose()
        self._single.dispose()
        self.watch.close()

    @contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[Connection]:
        with self._connected(self.engine) as connection:
            connection.info["writing"] = writing
            with connection.begin():
                yield connection

    def _watch_new(self, connection: Any, _: object) -> None:
        """Watch a connection that is being made: SQLAlchemy asks the server some things then, and forgets it if that
        fails.
        """
        stack: ExitStack = self._new.watched
        stack.push(lambda kind, *_: connection.close() if kind else None)
        stack.enter_context(self.watch.over(connection.fileno()))

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        with ExitStack() as stack:
            with ExitStack() as self._new.watched:
                connection = engine.connect()
            if not self.sqlite:
                driver: Any = connection.connection.dbapi_connection
                stack.enter_context(self.watch.over(driver.fileno()))
            stack.enter_context(connection)  # entered last, so that the watch goes on while it is given back
            yield connection


AWAY: Final = (SQLAlchemyError, OSError)
"""What is raised when a database cannot be reached, has no time, or refuses."""


def reason_of(error: BaseException) -> str:
    """Return what a database says of an error, in one line and without the values that it was given."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


_ARGUMENTS: Final[Mapping[str, dict[str, Any]]] = {
    "sqlite": {"timeout": BUSY},
    # A client that has vanished does not hold for long what it has locked; for a server that has, see `Watch`.
    "postgresql": {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "options": "-c lock_timeout=30s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
        # To plan the taking of a job takes as long as to take it.
        " -c plan_cache_mode=force_generic_plan"
        # Who waits for others sees what they have done; limits are counted so.
        " -c default_transaction_isolation=read\\ committed",
    },
}

# Those beyond the size would be made and closed for each transaction, which takes PostgreSQL longer than most of them.
_POOL: Final[Mapping[str, Any]] = {"pool_size": 15, "max_overflow": 0}

_CLOCK: Final[Mapping[str, ColumnElement[float]]] = {
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": literal_column("extract(epoch from clock_timestamp())::float8"),
}
"""The time, in seconds since the epoch: that of the database, since the clocks of many runners are many."""


def _single(url: URL) -> Engine:
    """Reach PostgreSQL through connections that end each statement with a commit."""
    return create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args=_ARGUMENTS["postgresql"],
        **_POOL,
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions are begun below, and not by Python's module
    cursor = connection.cursor()
    # A write-ahead log lets readers and one writer work at the same time; FULL loses nothing with the power.  What is
    # deleted may have been secret.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A write that begins as a read could find at its first write that another one came first.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("writing") else "BEGIN")


def _refuse_closed(connection: Any, *_: object) -> None:
    """Have another connection made where the server has closed one; costs nothing, unlike asking it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        raise DisconnectionError("the server has closed the connection")
