"""What the commands of `remctl-jobs` share: how they are declared, what they open, and how they name whoever calls."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from sqlalchemy.exc import DBAPIError

from remctl.exceptions import RemctlError
from remctl.jobs.scripts import one_line
from remctl.jobs.service import Desk, Role, Service
from remctl.jobs.settings import Settings, load
from remctl.jobs.store import Store, check, reason_of

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""A place in the command line where commands stand."""


class CommandLineError(RemctlError):
    """An argument of the command line makes no sense."""


def declare(
    to: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str, *, more: str | None = None
) -> argparse.ArgumentParser:
    """Put a command into the command line.

    Args:
        to: where it stands.
        name: its word.
        run: what it does; returns the exit status.
        text: what help says of it.
        more: what its own help says below; None is nothing.
    """
    made = to.add_parser(name, help=text, description=text, epilog=more)
    made.set_defaults(run=run)
    return made


def group(to: Commands, name: str, text: str) -> Commands:
    """Put a word into the command line below which commands stand; return where."""
    return to.add_parser(name, help=text, description=text).add_subparsers(required=True, metavar="COMMAND")


def open_store(settings: Settings) -> Store:
    """Open the store of a configuration, whatever its schema.

    Raises:
        CommandLineError: its URL is of another kind of database.
    """
    try:
        return Store(settings.database_url)
    except ValueError as error:
        raise CommandLineError(str(error)) from error


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Service]:
    """Open what the configuration names, for a `with`.

    Raises:
        CommandLineError: the database's URL is of another kind of database.
        SettingsError: the configuration makes no sense.
        SchemaError: the database is away, or needs `remctl-jobs upgrade`.
    """
    with serving(load(options.config)) as service:
        yield service


@contextmanager
def serving(settings: Settings) -> Iterator[Service]:
    """Open the store of a configuration that was read, for a `with`; raises what `opened` does."""
    store = open_store(settings)
    try:
        check(store.database)
        yield Service(settings, store)
    finally:
        store.close()


@contextmanager
def at_the_desk(options: argparse.Namespace) -> Iterator[Desk]:
    """Give what an administrator may do with jobs, who is whoever can read the configuration; raises as `opened`."""
    with opened(options) as service:
        yield service.desk(me(), Role.ADMINISTRATOR)


def me() -> str:
    """Return who calls, as the store has it: the user on this machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def said(error: Exception) -> str:
    """Return what is wrong, in one line, without the statement that a database did not take."""
    if isinstance(error, DBAPIError):
        return one_line(f"the database cannot be used: {reason_of(error)}")
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(str(error))
