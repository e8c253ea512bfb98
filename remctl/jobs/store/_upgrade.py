"""The schema of the job store: brought up to date by Alembic, and looked at before anything is done."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from sqlalchemy import func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from remctl.exceptions import RemctlError
from remctl.jobs.store._database import Database, reason_of

FOLDER: Final = Path(__file__).with_name("migrations")

LOCK: Final = 4373
"""PostgreSQL's advisory lock for those who upgrade at the same time; SQLite has one writer at a time anyway."""

_alembic = threading.Lock()  # it keeps what it is doing in one place for the whole process


class SchemaError(RemctlError):
    """The database has another schema than this version of the package."""


def upgrade(database: Database) -> None:
    """Bring a database up to date, an empty one too; does nothing to one that is.

    Raises:
        SchemaError: its schema is that of a later version of this package.
    """
    from alembic import command  # here, since it takes long to load and is needed once
    from alembic.config import Config

    _refuse_newer(database)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    with _alembic, database.write() as connection:
        if not database.sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(database: Database) -> None:
    """See whether a database is up to date.

    Raises:
        SchemaError: it is not.
    """
    _refuse_newer(database)
    if _version(database) != _revisions()[-1]:
        raise SchemaError("the database has an older schema, or none", hint="run: remctl-jobs upgrade")


def _refuse_newer(database: Database) -> None:
    version = _version(database)
    if version is not None and version not in _revisions():
        raise SchemaError(
            f"the database has the schema {version}, which is that of a later version", hint="upgrade remctl-cffi"
        )


def _version(database: Database) -> str | None:
    try:
        with database.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found
    except DBAPIError as error:
        raise SchemaError(f"the database cannot be used: {reason_of(error)}") from error


def _revisions() -> list[str]:
    """The revisions that there are, the latest one last: the files are named by them."""
    return sorted(path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*.py"))
