"""The store's part for machines: those that an administrator has named, and those on which runners work."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from remctl._arguments import check_text
from remctl.jobs.store._database import Database
from remctl.jobs.store._records import Machine, StoreError
from remctl.jobs.store._schema import machines


class Machines:
    """The machines that are known."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, address: str, certified: bool) -> None:
        """Write down a machine, or change what is known of it.

        Args:
            name: its host name.
            address: its IP address.
            certified: whether the administrator vouches for it.
        """
        self._put(name, address=address, certified=certified)

    def seen(self, name: str, address: str) -> None:
        """Write down that a runner works on a machine; a new one is not certified."""
        self._put(name, address=address, seen_at=self._database.now)

    def remove(self, name: str) -> None:
        """Forget a machine; a runner that works there makes it known again.

        Raises:
            StoreError: there is no such machine, or a robot is there.
        """
        try:
            with self._database.write() as connection:
                if not connection.execute(delete(machines).where(machines.c.name == name)).rowcount:
                    raise StoreError(f"there is no machine {name!r}")
        except IntegrityError:
            raise StoreError(f"there are robots on the machine {name!r}") from None

    def all(self) -> list[Machine]:
        """Return the machines, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(machines).order_by(machines.c.name))
            return [Machine(row.name, row.address, row.certified, row.seen_at) for row in rows]

    def _put(self, name: str, **values: object) -> None:
        check_text("name", name)
        with self._database.write() as connection:
            put(connection, name, **values)


def put(connection: Connection, name: str, **values: object) -> None:
    """Write down a machine, or change what is known of it."""
    if not connection.execute(update(machines).where(machines.c.name == name).values(values)).rowcount:
        connection.execute(insert(machines).values(name=name, **{"certified": False, **values}))
