"""The store's part for accounts: names with which scripts may report that have no password of an attempt's own."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from sqlalchemy import delete, insert, select, update

from remctl._arguments import check_text
from remctl.jobs.store._database import Database
from remctl.jobs.store._records import StoreError
from remctl.jobs.store._schema import accounts

EXTERNAL: Final = "externalscript"
"""The account that there is from the beginning."""

SHORTEST: Final = 12
"""Characters of a password, at the least."""


class Accounts:
    """The accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_password(self, name: str, password: str) -> None:
        """Make an account, or give it another password.

        Raises:
            ValueError: the password is short, or the account's name.
        """
        check_text("name", name)
        check_text("password", password)
        if name.startswith("attempt-"):
            raise ValueError(f"name must not begin as those of attempts do: {name!r}")
        if password == name:  # "externalscript" is what everybody would try first
            raise ValueError("password must not be the account's name")
        if len(password) < SHORTEST:
            raise ValueError(f"password must have {SHORTEST} characters or more, and has {len(password)}")
        values = {"password": _scrambled(password, secrets.token_bytes(16)), "changed_at": self._database.now}
        with self._database.write() as connection:
            if not connection.execute(update(accounts).where(accounts.c.name == name).values(values)).rowcount:
                connection.execute(insert(accounts).values(name=name, **values))

    def remove(self, name: str) -> None:
        """Remove an account.

        Raises:
            StoreError: there is none of that name.
        """
        with self._database.write() as connection:
            if not connection.execute(delete(accounts).where(accounts.c.name == name)).rowcount:
                raise StoreError(f"there is no account {name!r}")

    def all(self) -> dict[str, float]:
        """Return the names of the accounts, and when the password of each was set."""
        with self._database.read() as connection:
            return {row.name: row.changed_at for row in connection.execute(select(accounts).order_by(accounts.c.name))}

    def allows(self, name: str, password: str) -> bool:
        """Return whether there is such an account and this is its password; takes as long if there is none."""
        with self._database.read() as connection:
            kept = connection.scalar(select(accounts.c.password).where(accounts.c.name == name))
        salt = bytes.fromhex(kept.split(":")[1]) if kept else secrets.token_bytes(16)
        return hmac.compare_digest(_scrambled(password, salt), kept or "")


def _scrambled(password: str, salt: bytes) -> str:
    made = hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=1 << 14, r=8, p=1)
    return f"scrypt:{salt.hex()}:{made.hex()}"
