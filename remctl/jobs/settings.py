"""The configuration file of the jobs, `jobs.toml`: for the runner, the server and every call of an administrator."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from remctl.exceptions import RemctlError

FILE: Final = "jobs.toml"

Seconds = Annotated[float, Meta(ge=0.1, le=86400)]
Count = Annotated[int, Meta(ge=1, le=10000)]
Size = Annotated[int, Meta(ge=1024, le=1 << 30)]


class SettingsError(RemctlError):
    """The configuration file is not there, or something in it makes no sense; the text names file, line and key."""


class RunnerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[runner]`: what runs scripts on this machine."""

    name: Annotated[str, Meta(min_length=1, max_length=255)] = msgspec.field(default_factory=socket.gethostname)
    """Its name in the store; by default the machine's."""
    poll: Seconds = 5
    """Seconds between two looks for jobs; those that are submitted on this machine wake it at once."""
    concurrency: Count = 4
    """Jobs at the same time."""
    lease: Seconds = 60
    """Seconds without a sign of life after which its jobs are taken for lost."""
    grace: Seconds = 10
    """Seconds that a script has to end when it is stopped."""
    output: Size = 1 << 20
    """Bytes of each stream that are kept, the last ones."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    database: str = "sqlite:///jobs.db"
    runner: RunnerSettings = RunnerSettings()


class Settings(NamedTuple):
    """The whole file."""

    folder: Path
    """Where the file is; what it names is relative to it."""
    database: str
    """URL of the database: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME."""
    runner: RunnerSettings

    @property
    def database_url(self) -> str:
        """The database's URL, with the path of an SQLite file made absolute."""
        url = make_url(self.database)
        if url.get_backend_name() == "sqlite" and url.database:
            url = url.set(database=str(self.folder / url.database))
        return url.render_as_string(hide_password=False)

    @property
    def scripts(self) -> Path:
        """The folder of the scripts that are installed."""
        return self.folder / "scripts"

    @property
    def attempts(self) -> Path:
        """The folder in which each attempt has one of its own."""
        return self.folder / "attempts"


def load(path: str | os.PathLike[str]) -> Settings:
    """Read a configuration file.

    Raises:
        SettingsError: it is not there, or something in it makes no sense.
    """
    file = Path(path)
    try:
        text = file.read_text("utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}", hint="make a folder for the jobs: remctl-jobs init") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: it is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_located(file, str(error))) from error
    try:
        found = msgspec.convert(values, _File)
        make_url(found.database)
        if found.runner.grace >= found.runner.lease:  # else a script might end after another runner has begun it
            raise msgspec.ValidationError("Expected less than `lease` - at `$.runner.grace`")
    except msgspec.ValidationError as error:
        key = _key(str(error))
        raise SettingsError(f"{file}:{_line(text, key)}: {key}: {_plain(str(error))}") from error
    except ArgumentError as error:
        raise SettingsError(f"{file}:{_line(text, 'database')}: database: it is no URL") from error
    return Settings(file.absolute().parent, found.database, found.runner)


def _located(file: Path, complaint: str) -> str:
    found = re.search(r" \(at line (\d+), column \d+\)$| \(at end of document\)$", complaint)
    where = f"{file}:{found[1]}" if found and found[1] else str(file)
    return f"{where}: {complaint[: found.start()] if found else complaint}"


def _key(complaint: str) -> str:
    """Which key a complaint of msgspec's is about: its text ends in "at `$.runner.poll`"."""
    path = re.search(r" - at `\$\.?(.*)`$", complaint)
    field = re.search(r"unknown field `(.*?)`", complaint)
    return ".".join(part for part in (path[1] if path else "", field[1] if field else "") if part)


def _plain(complaint: str) -> str:
    if "unknown field" in complaint:
        return "there is no such setting"
    return complaint.partition(" - at ")[0].replace("`", "").lower()


def _line(text: str, key: str) -> int:
    """The line of a key, or of the table that it would be in."""
    table, _, name = key.rpartition(".")
    inside, place = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]\s]+)\s*\]", line):
            inside = header[1]
            if inside == key:
                return number
            place = number if inside == table else place
        elif inside == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
            return number
    return place
