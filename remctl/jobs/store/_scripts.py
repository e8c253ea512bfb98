"""The store's part for administrators: which scripts are installed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from remctl.acl import Acl
from remctl.jobs.scripts import Language, Parameters, Script
from remctl.jobs.store._database import Database
from remctl.jobs.store._records import InstalledScript, StoreError
from remctl.jobs.store._schema import scripts


class Scripts:
    """The scripts that are installed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def install(self, script: Script, who: str, *, enabled: bool = True) -> None:
        """Write down a script, in the place of one that has its name.

        Args:
            script: the script; its file is installed by `scripts.install`.
            who: the administrator.
            enabled: whether a new one is; one that is there already stays as it is.
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
            "users": None if script.users is None else list(script.users.entries),
            "installed_by": who,
            "installed_at": self._database.now,
        }
        with self._database.write() as connection:
            if not connection.execute(update(scripts).where(scripts.c.name == script.name).values(values)).rowcount:
                connection.execute(insert(scripts).values(name=script.name, enabled=enabled, **values))

    def remove(self, name: str) -> None:
        """Forget a script that no job refers to; one that has been run is turned off instead.

        Raises:
            StoreError: there is no such script, or jobs refer to it.
        """
        try:
            with self._database.write() as connection:
                if not connection.execute(delete(scripts).where(scripts.c.name == name)).rowcount:
                    raise _missing(name)
        except IntegrityError:
            raise StoreError(f"there are jobs of the script {name!r}: turn it off instead") from None

    def all(self) -> list[InstalledScript]:
        """Return the scripts, by name."""
        return self._read(select(scripts).order_by(scripts.c.name))

    def get(self, name: str) -> InstalledScript:
        """Return the script of a name.

        Raises:
            StoreError: there is none.
        """
        found = self._read(select(scripts).where(scripts.c.name == name))
        if not found:
            raise _missing(name)
        return found[0]

    def enable(self, name: str, enabled: bool) -> None:
        """Turn a script on or off; jobs that wait for one that is off go on waiting.

        Raises:
            StoreError: there is no such script.
        """
        with self._database.write() as connection:
            if not connection.execute(update(scripts).where(scripts.c.name == name).values(enabled=enabled)).rowcount:
                raise _missing(name)

    def _read(self, query: Select[Any]) -> list[InstalledScript]:
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            InstalledScript(
                row.name,
                Language(row.language),
                row.description,
                row.sha256,
                Parameters(row.parameters),
                row.run_time,
                None if row.users is None else Acl(*row.users),
                row.enabled,
            )
            for row in rows
        ]


def _missing(name: str) -> StoreError:
    return StoreError(f"there is no script {name!r}")
