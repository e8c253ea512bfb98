"""Looks for what is wrong with a working folder and all that belongs to it, step by step, and says what to do.

Reads alone, and shows no secret.  Who asks has to be the user that the daemons run as, or root.
"""

from __future__ import annotations

import enum
import fcntl
import os
import shutil
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import gssapi
from gssapi.raw.misc import GSSError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from remctl.jobs.scripts import AD_HOC, ScriptError, one_line, verify
from remctl.jobs.settings import Settings, SettingsError, load
from remctl.jobs.states import RobotStatus
from remctl.jobs.store import EXTERNAL, InstalledScript, SchemaError, Store, check, reason_of

CLOCKS: Final = 5.0
"""Seconds that two clocks may differ."""

SPACE: Final = (100 << 20, 1 << 30)
"""Bytes of free disk below which jobs are about to fail, and below which somebody should know."""

WAITING: Final = 600.0
"""Seconds that a job may be due without being taken."""

WANTED: Final = """
SELECT DISTINCT robot_id, pool FROM jobs
WHERE state = 1 AND attempt_id IS NULL AND (robot_id IS NOT NULL OR pool IS NOT NULL)
"""
"""For which robots and pools jobs wait."""

OLDEST: Final = (13, 0)
"""The version of PostgreSQL before which nobody has tried."""

PATIENCE: Final = 3.0
"""Seconds that a server has to take a connection."""


class Verdict(enum.StrEnum):
    """What a finding means."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should look at it."""
    WRONG = "wrong"
    """Something does not work, or soon will not."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    verdict: Verdict
    what: str
    """What was found, in one line."""
    advice: str = ""
    """What to do."""


def examine(file: Path) -> Iterator[Finding]:
    """Give what is found, one thing after the other; what cannot be looked at for want of another is left out.

    Args:
        file: the configuration.
    """
    try:
        settings = load(file)
    except SettingsError as error:
        yield _wrong(f"the configuration: {error.reason}", error.hint or "mend it")
        return
    yield _ok(f"the configuration {file} is read")
    yield from _modes(settings, file)
    yield from _disk(settings)
    try:
        store = Store(settings.database_url)
    except ValueError as error:
        yield _wrong(str(error), "give another database")
    else:
        with closing(store):
            yield from _database(settings, store)
    yield from _runner(settings)
    yield from _http(settings)
    yield from _door(settings)


def _ok(what: str) -> Finding:
    return Finding(Verdict.OK, what)


def _warning(what: str, advice: str) -> Finding:
    return Finding(Verdict.WARNING, what, advice)


def _wrong(what: str, advice: str) -> Finding:
    return Finding(Verdict.WRONG, what, advice)


# The folder


def _modes(settings: Settings, file: Path) -> Iterator[Finding]:
    folder = settings.folder
    owner = folder.stat().st_uid
    if owner == os.geteuid():
        yield _ok(f"the folder {folder} is yours")
    else:
        yield _warning(
            f"the folder {folder} belongs to the user with number {owner}", "run daemons and this as that user"
        )
    for path, others in ((folder, 0o077), (file, 0o077), (settings.scripts, 0o022), (settings.attempts, 0o077)):
        try:
            status = path.stat()
        except OSError as error:
            yield _wrong(f"{path}: {error.strerror}", f"make it as {folder} is, mode 0700")
            continue
        mode = stat.S_IMODE(status.st_mode)
        if mode & others:
            may = "write" if mode & 0o022 else "read"
            yield _wrong(f"{path} has the mode {mode:04o}: others may {may} it", f"chmod go-rwx {path}")
        elif status.st_uid not in (owner, 0):
            yield _wrong(f"{path} belongs to another user than {folder}", f"chown --reference={folder} {path}")
        else:
            yield _ok(f"{path} has the mode {mode:04o}")


def _disk(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(settings.folder).free
    said = f"{free / (1 << 30):.1f} GiB are free in {settings.folder}"
    advice = "make room: remctl-jobs clean, and [retention]"
    if free < SPACE[0]:
        yield _wrong(said, advice)
    elif free < SPACE[1]:
        yield _warning(said, advice)
    else:
        yield _ok(said)


# The database, and what it knows


def _database(settings: Settings, store: Store) -> Iterator[Finding]:
    name = store.database.engine.url.database
    if store.database.sqlite and name and not Path(name).exists():  # which to open it would make
        yield _wrong(f"there is no database {name}", "remctl-jobs upgrade makes one; or mend `database`")
        return
    try:
        check(store.database)
    except SchemaError as error:
        yield _wrong(one_line(error.reason), error.hint or "start it, or mend `database` in the configuration")
        return
    yield _ok("the database answers, and its schema is up to date")
    steps: tuple[Callable[[Settings, Store], Iterator[Finding]], ...] = (_clock, _kind, _scripts, _rows, _robots)
    for step in steps:
        try:
            yield from step(settings, store)
        except DBAPIError as error:
            yield _wrong(f"the database cannot be used: {one_line(reason_of(error))}", "see its log")
            return


def _clock(settings: Settings, store: Store) -> Iterator[Finding]:  # noqa: ARG001
    difference = store.database.clock() - time.time()
    said = f"the database's clock and this machine's differ by {abs(difference):.1f} s"
    yield _ok(said) if abs(difference) <= CLOCKS else _warning(said, "set them, by NTP or the like")


def _kind(settings: Settings, store: Store) -> Iterator[Finding]:  # noqa: ARG001
    with store.database.read() as connection:
        if not store.database.sqlite:
            version = connection.dialect.server_version_info or (0,)
            said = f"it is PostgreSQL {'.'.join(map(str, version))}"
            yield _ok(said) if version >= OLDEST else _warning(said, f"{OLDEST[0]} or later is what is tested")
            return
        journal = connection.execute(text("PRAGMA journal_mode")).scalar_one()
        synchronous = connection.execute(text("PRAGMA synchronous")).scalar_one()
    if journal == "wal" and synchronous == 2:
        yield _ok("it is SQLite, with a write-ahead log that a loss of power leaves whole")
    else:
        yield _wrong(
            f"SQLite works with journal_mode={journal} and synchronous={synchronous}, and not with wal and 2",
            "put the folder on a local disk",
        )


def _scripts(settings: Settings, store: Store) -> Iterator[Finding]:
    installed = [script for script in store.scripts.all() if script.enabled]
    for language in dict.fromkeys(script.language for script in installed):
        try:
            yield _ok(f"{language.value} is {language.interpreter}")
        except ScriptError as error:
            yield _wrong(one_line(error.reason), "install it, or turn its scripts off")
    for script in installed:
        if script.name != AD_HOC.name:
            yield _verified(settings, script)
        else:
            yield _warning(
                "the script python is on: its users may do all that runners may", "remctl-jobs script disable python"
            )


def _verified(settings: Settings, script: InstalledScript) -> Finding:
    try:
        verify(settings.scripts / script.filename, script.sha256)
    except ScriptError as error:
        return _wrong(f"the script {script.name}: {error}", "remctl-jobs script install FILE")
    return _ok(f"the script {script.name} is as it was installed")


def _rows(settings: Settings, store: Store) -> Iterator[Finding]:
    lease, now = settings.runner.lease, store.database.clock()
    for machine in store.machines.all():
        if machine.seen_at is None:
            continue
        age = now - machine.seen_at
        said = f"the machine {machine.name} was heard of {age:.0f} s ago"
        if age <= max(120.0, lease):
            yield _ok(said)
        else:
            yield _warning(said, f"see its runner, or: remctl-jobs machine remove {machine.name}")
    if (waiting := store.jobs.waiting()) > WAITING:
        yield _warning(f"a job has been waiting for {waiting:.0f} s", "see whether runners work, and have room")
    else:
        yield _ok(f"the oldest job that is due has been waiting for {waiting:.0f} s")
    accounts = store.accounts.all()
    if EXTERNAL in accounts:
        changed = time.strftime("%Y-%m-%d", time.localtime(accounts[EXTERNAL]))
        yield _ok(f"the account {EXTERNAL} is there; its password was set on {changed}")
    else:
        yield _warning(
            f"there is no account {EXTERNAL}", f"if scripts need it: remctl-jobs account password {EXTERNAL}"
        )


def _robots(settings: Settings, store: Store) -> Iterator[Finding]:  # noqa: ARG001
    """A line for each robot, without the GUID that it signs in with."""
    with store.database.read() as connection:
        wanted = {(row.robot_id, row.pool) for row in connection.execute(text(WANTED))}
    for robot in store.robots.all():
        said = f"the robot {one_line(robot.name)} is {robot.status.name.lower()}"
        waited_for = (robot.id, None) in wanted or (robot.pool is not None and (None, robot.pool) in wanted)
        if not waited_for or robot.status in (RobotStatus.READY, RobotStatus.WORKING):
            yield _ok(said)
        elif robot.status is RobotStatus.DISCONNECTED:
            yield _warning(f"{said}, and jobs wait for it", "start its agent, and see that it reaches the server")
        else:
            yield _warning(f"{said}, and jobs wait for it", "remctl-jobs robot enable, or robot license")


# The daemons


def _runner(settings: Settings) -> Iterator[Finding]:
    lock = settings.folder / "runner.lock"
    advice = "start it, if this machine is to run jobs: remctl-jobs runner, or up"
    try:
        with lock.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        yield _ok(f"a runner works in {settings.folder}")
    except FileNotFoundError:
        yield _warning(f"no runner has ever worked in {settings.folder}", advice)
    except OSError as error:
        yield _wrong(f"{lock}: {error.strerror}", "run this as the user of the daemons")
    else:
        yield _warning(f"no runner works in {settings.folder}", advice)


def _http(settings: Settings) -> Iterator[Finding]:
    server = settings.server
    if server.certificate is not None and server.key is not None:
        certificate, key = settings.path(server.certificate), settings.path(server.key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError) as error:
            yield _wrong(f"[server]: {certificate} with {key}: {error.strerror or error}", "mend certificate and key")
        else:
            yield _ok(f"[server]: {certificate} and its key fit together")
    yield _keys("server", settings, server.keytab, "HTTP")
    if server.port or server.url is not None:
        yield _reachable("server", "remctl-jobs serve, or up", *_address(settings.url))


def _door(settings: Settings) -> Iterator[Finding]:
    yield _keys("remctl", settings, settings.door.keytab, "host")
    if settings.door.port:
        yield _reachable(
            "remctl",
            "remctl-jobs door, or up; remctld does as well",
            settings.door.listen or "localhost",
            settings.door.port,
        )


def _keys(section: str, settings: Settings, keytab: str | None, service: str) -> Finding:
    path = None if keytab is None else settings.path(keytab)
    where = path or "the system's keytab"
    try:
        if path is not None:
            path.open("rb").close()  # GSS-API says of one that cannot be read that it is empty
        name = gssapi.Name(service, gssapi.NameType.hostbased_service)
        store: dict[str | bytes, str | bytes] | None = None if path is None else {"keytab": os.fsencode(path)}
        gssapi.Credentials(name=name, usage="accept", mechs=[gssapi.MechType.kerberos], store=store)
    except OSError as error:
        reason = error.strerror
    except GSSError as error:
        reason = one_line(" ".join(map(str, error.get_all_statuses(error.min_code, False))))
    else:
        return _ok(f"[{section}]: there is a key of {service}/HOST in {where}")
    said = f"[{section}]: no key of {service}/HOST in {where}: {reason}"
    advice = "have the KDC's administrator make one, readable by the user of the daemons, and name its keytab"
    return _wrong(said, advice) if keytab is not None else _warning(said, f"{advice}, if there is to be such a server")


def _reachable(section: str, command: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        return _warning(
            f"[{section}]: nobody answers at {host} port {port}: {error.strerror or error}", f"start {command}"
        )
    return _ok(f"[{section}]: somebody answers at {host} port {port}")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or (443 if parts.scheme == "https" else 80)
