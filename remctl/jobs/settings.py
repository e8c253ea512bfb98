"""The configuration file of the jobs, `jobs.toml`: for the runner, the server and every call of an administrator."""

from __future__ import annotations

import functools
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from remctl.acl import Acl
from remctl.exceptions import RemctlError

Seconds = Annotated[float, Meta(ge=0.1, le=86400)]
Count = Annotated[int, Meta(ge=1, le=10000)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Days = Annotated[float, Meta(ge=0.001, le=36500)]
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
    per_user: Count | None = None
    """Jobs of the same user at the same time, on all runners; by default without limit."""


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[access]`: who may do what, as entries of ACLs in remctld's syntax; on the page and over remctl alike."""

    users: tuple[str, ...] = ("ANYUSER",)
    """Those who may submit jobs, and see and stop their own; a script may name fewer."""
    operators: tuple[str, ...] = ()
    """Those who may see, stop and retry everybody's."""
    administrators: tuple[str, ...] = ()
    """Operators who may submit jobs of every script, too."""


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`: what speaks HTTP: the page, reports of scripts, robots, metrics."""

    listen: str = "127.0.0.1"
    """The address or host name; an empty one is all addresses."""
    port: Port = 8437
    """0 takes a free one, which scripts do not find out: they cannot report then, unless there is a `url`."""
    url: str | None = None
    """What others reach it by; by default made of the address and the port."""
    certificate: str | None = None
    """A file, in PEM; with it and `key` the server speaks TLS alone."""
    key: str | None = None
    keytab: str | None = None
    """Where the keys of HTTP/HOST are; by default the system's keytab."""
    session: Annotated[float, Meta(ge=60, le=7 * 86400)] = 8 * 3600
    """Seconds after which somebody has to sign in again."""
    metrics: bool = True
    """Whether /metrics is there, for everybody who reaches the server."""


class DoorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[remctl]`: the remctl server of `remctl-jobs up`."""

    listen: str = ""
    """The address or host name; an empty one is all addresses."""
    port: Port = 4373
    """0 takes a free one."""
    keytab: str | None = None
    """Where the keys of host/HOST are; by default the system's keytab."""


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[retention]`: how long is kept what is over."""

    jobs: Days = 90
    """Days that jobs are kept in the database, with their history."""
    folders: Days = 7
    """Days that a runner keeps the folders of its attempts, with all output."""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: what the daemons write to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    database: str = "sqlite:///jobs.db"
    runner: RunnerSettings = RunnerSettings()
    access: AccessSettings = AccessSettings()
    server: ServerSettings = ServerSettings()
    remctl: DoorSettings = DoorSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()


class Settings(NamedTuple):
    """The whole file."""

    folder: Path
    """Where the file is; what it names is relative to it."""
    database: str
    """URL of the database: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME."""
    runner: RunnerSettings
    access: AccessSettings
    server: ServerSettings
    door: DoorSettings
    retention: RetentionSettings
    log: LogSettings

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

    @property
    def url(self) -> str:
        """What others reach the server by, without a slash at the end."""
        server = self.server
        if server.url is not None:
            return server.url.rstrip("/")
        everywhere = server.listen in ("", "0.0.0.0", "::")  # noqa: S104  # it is asked, and not bound
        host = _own_name() if everywhere else f"[{server.listen}]" if ":" in server.listen else server.listen
        return f"{'https' if server.certificate else 'http'}://{host}:{server.port}"

    def path(self, name: str) -> Path:
        """Return the path of a file that is named in the configuration."""
        return self.folder / name


@functools.cache  # it may ask a name service, and is needed for each request
def _own_name() -> str:
    return socket.getfqdn()


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
        _check_url(found.database)
        if found.runner.grace > found.runner.lease / 2:  # else a script might end after another runner has begun it
            raise msgspec.ValidationError("Expected at most half of `lease` - at `$.runner.grace`")
        if (found.server.certificate is None) != (found.server.key is None):
            raise msgspec.ValidationError("Expected with `key`, and not alone - at `$.server.certificate`")
        if found.server.url is not None and not re.match(r"https?://[^/]", found.server.url):
            raise msgspec.ValidationError("Expected http://HOST or https://HOST - at `$.server.url`")
        for key in AccessSettings.__struct_fields__:
            _check_acl(key, getattr(found.access, key))
    except msgspec.ValidationError as error:
        key = _key(str(error))
        raise SettingsError(f"{file}:{_line(text, key)}: {key}: {_plain(str(error))}") from error
    return Settings(
        file.absolute().parent,
        found.database,
        found.runner,
        found.access,
        found.server,
        found.remctl,
        found.retention,
        found.log,
    )


def _check_url(text: str) -> None:
    try:
        make_url(text)
    except (ArgumentError, ValueError):  # whose text may show a password
        raise msgspec.ValidationError("it is no URL - at `$.database`") from None


def _check_acl(key: str, entries: tuple[str, ...]) -> None:
    if entries:
        try:
            Acl(*entries)
        except ValueError as error:
            raise msgspec.ValidationError(f"{error} - at `$.access.{key}`") from None


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
    text = complaint.partition(" - at ")[0].replace("`", "")
    return text[:1].lower() + text[1:]


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
