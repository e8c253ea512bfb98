"""The working folder: making one, bringing its database up to date, and removing what was kept long enough."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from remctl.jobs import scripts
from remctl.jobs._place import FILE
from remctl.jobs.cli._shared import CommandLineError, Commands, declare, me, open_store, opened
from remctl.jobs.cli._template import TEMPLATE
from remctl.jobs.runner import clean
from remctl.jobs.settings import load
from remctl.jobs.store import EXTERNAL, Store, upgrade

DATABASE: Final = "jobs.db"

CONTENTS: Final = (FILE, DATABASE, "scripts", "attempts")
"""What a new folder holds; the first is there last of all when it is made, and says that it is complete."""


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    declare(
        commands, "init", _init, "make a working folder: configuration, database, and an account for scripts"
    ).add_argument("folder", metavar="DIR")
    declare(commands, "upgrade", _upgrade, "bring the database's schema up to date, and furnish a database that is new")
    declare(commands, "clean", _clean, "remove jobs and folders of attempts that were kept long enough, now")


def new_password() -> str:
    """Return a password that nobody guesses."""
    return secrets.token_urlsafe(24)


def _init(options: argparse.Namespace) -> int:
    folder = Path(options.folder)
    for name in CONTENTS:
        if (folder / name).exists():
            raise CommandLineError(f"there is a {folder / name} already")
    try:
        with _new(folder) as place:
            password = _make(place)
    except FileExistsError as error:
        raise CommandLineError(f"there is a {folder / FILE} already") from error
    except OSError as error:
        raise CommandLineError(f"{folder}: {error.strerror}") from error
    _show(password)
    file = folder / FILE
    print(f"made {file}; next: remctl-jobs --config {file} script install FILE")
    return 0


def _upgrade(options: argparse.Namespace) -> int:
    with closing(open_store(load(options.config))) as store:
        upgrade(store.database)
        if (password := _furnish(store)) is not None:
            _show(password)
    return 0


def _clean(options: argparse.Namespace) -> int:
    with opened(options) as service:
        cleaned = clean(service.settings, service.store)
    print(f"removed {cleaned.jobs} jobs and {cleaned.folders} folders")
    return 0


# Making


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """Give a temporary folder, whose contents are in the folder at the end, all of them or none."""
    there = folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".init-", dir=folder) as temporary:
            yield (place := Path(temporary))
            _move(place, folder)
    except BaseException:
        if not there:
            folder.rmdir()
        raise


def _move(place: Path, folder: Path) -> None:
    moved: list[Path] = []
    try:
        for name in reversed(CONTENTS):
            if name == FILE:
                os.link(place / name, folder / name)  # which, unlike a rename, is refused if another one has come
            else:
                (place / name).rename(folder / name)
            moved.append(folder / name)
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _make(place: Path) -> str:
    """Make the contents of a folder; return the password of the account."""
    file = place / FILE
    file.touch(mode=0o600)  # it may come to hold the password of a database
    file.write_text(TEMPLATE)
    settings = load(file)
    for path in (settings.scripts, settings.attempts):
        path.mkdir(mode=0o700)
    (place / DATABASE).touch(mode=0o600)
    with closing(Store(settings.database_url)) as store:
        upgrade(store.database)
        password = _furnish(store)
    assert password is not None
    return password


def _furnish(store: Store) -> str | None:
    """Put into a new database what is always there; return the account's password, None if the database is not new."""
    if any(script.name == scripts.AD_HOC.name for script in store.scripts.all()):
        return None
    password = new_password()
    store.accounts.set_password(EXTERNAL, password)
    store.scripts.install(scripts.AD_HOC, me(), enabled=False)
    return password


def _show(password: str) -> None:
    print(f"made the account {EXTERNAL}; its password, which is shown this once: {password}")
