#!/usr/bin/env python3
"""User accounts in an SQLite file, as commands of remctl.

    account create ada --quota 500        account passwd ada PASSWORD
    account list                          account quota set ada 800
    account delete ada bob                account load --replace TABLE

Everybody with a ticket may list and see accounts; the principals in the file `admins`, one in each line, may do all.
That file and the accounts are in the folder that ACCOUNTS names, or in /var/lib/accounts.

Under remctld: make this file executable, let `python3` be one that has remctl-cffi (or name another one in the first
line), and put into the configuration what this prints:

    ./accounts.py --remctld-config

Under remctl-shell, over SSH: the same configuration, and in authorized_keys, before each key,

    restrict,command="/usr/sbin/remctl-shell ada@EXAMPLE.ORG"

In a server that is a program of its own, without remctld: serve_accounts.py, beside this file.

By hand, for trying it out, with `account` left out; there is nobody then whose rights could be checked:

    ACCOUNTS=/tmp ./accounts.py create ada
"""

import contextlib
import csv
import enum
import hashlib
import io
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

from remctl.backend import MULTILINE, SECRET, STDIN, Backend, CommandError, Context, Match, Option, Range, UsageError

FOLDER = Path(os.environ.get("ACCOUNTS", "/var/lib/accounts"))

PAGE = 500
"""Accounts that are read at once."""

backend = Backend("account", banner="User accounts:", acl=f"file:{FOLDER}/admins")


class Shell(enum.Enum):
    """What a user may log in with."""

    BASH = "/bin/bash"
    SH = "/bin/sh"
    NONE = "/usr/sbin/nologin"


NAME = Match("[a-z][a-z0-9-]{0,30}")
QUOTA = Range(0, 1_000_000)

Name = Annotated[str, NAME, "the account's name"]
Megabytes = Annotated[int, QUOTA, "in megabytes"]


def is_long_enough(password: str) -> None:
    """Refuse a password that is short."""
    if len(password.removesuffix("\n")) < 8:
        raise ValueError("a password has 8 characters or more")


# Commands


@backend.command
def create(
    context: Context,
    name: Name,
    note: Annotated[str, MULTILINE, "what it is for"] = "",
    *,
    shell: Annotated[Shell, Option("-s")] = Shell.BASH,
    quota: Annotated[Megabytes, Option("-q")] = 100,
) -> str:
    """Make an account.

    It cannot be logged in with until it has a password.
    """
    with database() as connection:
        try:
            connection.execute(
                "INSERT INTO account (name, shell, quota, note, maker) VALUES (?, ?, ?, ?, ?)",
                (name, shell.value, quota, note, context.principal),
            )
        except sqlite3.IntegrityError:
            raise CommandError(f"there is an account {name} already") from None
    return f"created {name}\n"


@backend.command
def delete(
    name: Name, *more: Name, force: Annotated[bool, Option("-f"), "pass over those that are not there"] = False
) -> str:
    """Delete accounts: all of them, or none."""
    names = dict.fromkeys([name, *more])
    with database() as connection:
        for each in names:
            if connection.execute("DELETE FROM account WHERE name = ?", [each]).rowcount == 0 and not force:
                raise missing(each)
    return f"deleted {' '.join(names)}\n"


@backend.command(acl="ANYUSER")
def list_(*, shell: Annotated[Shell | None, Option("-s"), "those with this shell alone"] = None) -> Iterator[str]:
    """List the accounts: name, shell and quota."""
    query = "SELECT name, shell, quota FROM account WHERE name > ? AND shell = ifnull(?, shell) ORDER BY name LIMIT ?"
    last = ""
    with database() as connection:
        # In pages, so that nobody has to wait for a client that reads slowly.
        while rows := connection.execute(query, (last, shell and shell.value, PAGE)).fetchall():
            for last, path, quota in rows:
                yield f"{last} {path} {quota}\n"


@backend.command(acl="ANYUSER")
def show(name: Name) -> Iterator[str]:
    """Show an account."""
    shell, quota, password, note, maker = account(name, "shell, quota, password, note, maker")
    yield f"name      {name}\n"
    yield f"shell     {shell}\n"
    yield f"quota     {quota} MB\n"
    yield f"password  {'set' if password else 'not set'}\n"
    yield f"made by   {maker or 'hand'}\n"
    if note:
        yield f"\n{note}\n"


@backend.command
def passwd(name: Name, password: Annotated[str, STDIN, SECRET, is_long_enough, "8 characters or more"]) -> str:
    """Set an account's password."""
    change(name, "password", scrambled(password.removesuffix("\n")))
    return f"the password of {name} is set\n"


@backend.command(acl="ANYUSER")
async def wait(
    name: Name, *, interval: Annotated[float, Range(0.05, 60), "seconds between two looks"] = 1
) -> AsyncIterator[str]:
    """Wait until there is an account.

    In a server that is a program of its own any number of these wait at the same time, since it is a coroutine.
    """
    import asyncio  # here, since a program under remctld is started for each command, and the others need none of it

    def is_there() -> bool:
        with contextlib.suppress(CommandError):
            return bool(account(name, "name"))
        return False

    yield f"waiting for {name}\n"
    while not await asyncio.to_thread(is_there):
        await asyncio.sleep(interval)
    yield f"{name} is there\n"


@backend.command
def load(
    table: Annotated[BinaryIO, STDIN, "lines of name,shell,quota"],
    *,
    replace: Annotated[bool, "change accounts that are there already"] = False,
) -> str:
    """Make accounts from a table in CSV: all of them, or none."""
    number = 0
    with io.TextIOWrapper(table, "utf-8", newline="") as text, database() as connection:
        rows = csv.reader(text)
        try:
            for name, shell, quota in rows:
                if complaint := NAME.complaint(name) or QUOTA.complaint(int(quota)):
                    raise ValueError(complaint)
                connection.execute(
                    "INSERT INTO account (name, shell, quota) VALUES (?, ?, ?)"
                    + " ON CONFLICT (name) DO UPDATE SET shell = excluded.shell, quota = excluded.quota" * replace,
                    (name, Shell(shell).value, int(quota)),
                )
                number += 1
        except (ValueError, csv.Error, sqlite3.IntegrityError) as error:
            raise UsageError(f"line {rows.line_num}: {error}") from None
    return f"loaded {number}\n"


quotas = backend.group("quota")


@quotas.command("show")
def show_quota(name: Name) -> str:
    """Show how much an account may store."""
    (megabytes,) = account(name, "quota")
    return f"{megabytes}\n"


@quotas.command("set")
def set_quota(name: Name, megabytes: Megabytes) -> None:
    """Set how much an account may store."""
    change(name, "quota", megabytes)


# The file


@contextlib.contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """Open the file for a `with`: its end commits, and an exception takes everything back."""
    with contextlib.closing(sqlite3.connect(FOLDER / "accounts.db", timeout=30)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, shell TEXT NOT NULL, quota INTEGER NOT NULL,"
            " password TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '', maker TEXT NOT NULL DEFAULT '')"
        )
        yield connection


def account(name: str, columns: str) -> tuple[str | int, ...]:
    """Read an account."""
    with database() as connection:
        row: tuple[str | int, ...] | None = connection.execute(
            f"SELECT {columns} FROM account WHERE name = ?", [name]
        ).fetchone()
    if row is None:
        raise missing(name)
    return row


def change(name: str, column: str, value: str | int) -> None:
    """Change an account."""
    with database() as connection:
        if connection.execute(f"UPDATE account SET {column} = ? WHERE name = ?", (value, name)).rowcount == 0:
            raise missing(name)


def missing(name: str) -> CommandError:
    """Say that there is no such account."""
    return CommandError(f"there is no account {name}")


def scrambled(password: str) -> str:
    """Return what is kept of a password: salt and hash."""
    salt = secrets.token_bytes(16)
    return f"scrypt:{salt.hex()}:{hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1).hex()}"


if __name__ == "__main__":
    backend.main()
