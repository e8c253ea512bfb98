"""The journal of a run (--resume): where the command was begun with, and what became of it, for the run after this one.

A file with a line of JSON for each record.  The first one says what the run is: which hosts, and which command, by a
digest that is slow to guess from, since a word of it may be secret.  After that, for each host:

    {"begin": "h1"}                                 the command is about to be sent
    {"end": "h1", "state": "ok", "status": 0}       it ran
    {"end": "h1", "state": "refused"}               it did not
    {"end": "h1", "state": "timeout", "unknown": true}

A `begin` is on disk before the command is sent, so that after whatever ends this process or this machine there is no
host that ran the command and is not in the file.  Those that begin at the same time share the wait for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from remctl.aio import _offload
from remctl.exceptions import RemctlError
from remctl.fanout import HostResult, HostState

VERSION: Final = 1

_disk: Final = _offload.Threads(limit=1)


class JournalError(RemctlError):
    """A journal cannot be used, or is another run's."""


class Past(enum.Enum):
    """What a journal knows of a host."""

    OPEN = enum.auto()
    """The command did not run there."""
    ENDED = enum.auto()
    """It ran, and its exit status is known."""
    UNKNOWN = enum.auto()
    """It was sent, or was about to be, and no exit status came."""


class Journal:
    """A journal, open; closed by `close`.

    Nothing is written before `start`, so that a command line that makes no sense leaves no trace.  `begin` belongs to
    the event loop of the run, the other methods to one thread, which may be another.

    Args:
        path: the file; it is made if it is not there.

    Raises:
        JournalError: it cannot be used, is in use, or makes no sense.
    """

    fault: OSError | None
    """Why nothing can be written any more; None if it can."""

    targets: list[str] | None
    """The hosts of the run; None for a new journal."""

    def __init__(self, path: str) -> None:
        self.fault = None
        self.targets = None
        self._path = path
        self._header: dict[str, Any] = {}
        self._past: dict[str, Past] = {}
        self._statuses: dict[str, int] = {}
        self._known: set[str] = set()
        self._begun: set[str] = set()
        self._written = 0
        self._synced = 0
        self._writing = threading.Lock()
        self._turn = asyncio.Lock()
        self._new = not os.path.lexists(path)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise self._unusable(error.strerror) from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise self._unusable("it is no regular file")
            self._lock()
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def start(self, targets: Sequence[str], command: Sequence[bytes], server: Mapping[str, object]) -> None:
        """Note what the run is; for a journal that is not new, see that it is this one.

        Args:
            targets: its hosts.
            command: its words.
            server: what else makes it the same run: port and principal.

        Raises:
            JournalError: it is another one, or the file cannot be written.
        """
        if self.targets is None:
            salt = os.urandom(16)
            self._header = {
                "pyremctl": VERSION,
                "salt": salt.hex(),
                "command": _digest(command, salt),
                "server": dict(server),
                "targets": list(targets),
            }
            self.targets = list(targets)
            self._append(self._header)
            self.sync()
            self._sync_folder()
            if self.fault is not None:
                raise self._unusable(self.fault.strerror) from self.fault
            return
        if _digest(command, bytes.fromhex(self._header["salt"])) != self._header["command"]:
            raise self._another("command")
        if self._header["server"] != dict(server):
            raise self._another("port or principal")
        if set(targets) != set(self.targets):
            raise self._another("set of hosts")

    # What is known

    def past(self, target: str) -> Past:
        """Return what is known of a host."""
        return self._past.get(target, Past.OPEN)

    @property
    def statuses(self) -> Iterable[int]:
        """The exit statuses of the hosts that ended before this run."""
        return self._statuses.values()

    # What happens

    async def begin(self, target: str) -> None:
        """Note that the command is about to be sent to a host; returns when that is on disk.

        Raises:
            JournalError: it cannot be written, so the command must not be sent.
        """
        self._begun.add(target)
        self._append({"begin": target})
        number = self._written
        async with self._turn:  # those who waited for it find that the one before them has done their work
            if self._synced < number:
                await _disk.run(self.sync)
        if self.fault is not None:
            raise self._unusable(self.fault.strerror) from self.fault

    def end(self, result: HostResult) -> None:
        """Note what became of a host; one that was skipped before it was begun with leaves no trace."""
        if result.state is HostState.SKIPPED and result.host not in self._begun:
            return
        self._begun.discard(result.host)
        record: dict[str, Any] = {"end": result.host, "state": str(result.state)}
        if result.status is not None:
            record["status"] = result.status
        elif result.may_be_running:
            record["unknown"] = True
        self._append(record)

    def sync(self) -> None:
        """Have on disk what was written."""
        written = self._written
        try:
            os.fsync(self._file)
        except OSError as error:
            self.fault = self.fault or error
        self._synced = max(self._synced, written)

    def close(self) -> None:
        """Have all of it on disk, and close it; a new one that was not started is taken away again."""
        if self.targets is None and self._new:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()
        elif self.targets is not None:
            self.sync()
        os.close(self._file)

    def _append(self, record: Mapping[str, Any]) -> None:
        line = _line(record)
        with self._writing:
            if self.fault is not None:
                return  # what may be half a line must remain the last one
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                self.fault = error
            self._written += 1

    # The file

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._unusable("another pyremctl is at it") from None
        except OSError as error:
            raise self._unusable(error.strerror) from error

    def _read(self) -> None:
        try:
            with os.fdopen(os.dup(self._file), "rb") as file:
                *lines, rest = file.read().split(b"\n")
        except OSError as error:
            raise self._unusable(error.strerror) from error
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._take_header(record)
                else:
                    self._take(record)
            except (ValueError, TypeError, LookupError):
                raise self._unusable(f"line {number} is damaged, or it is no journal") from None
        if rest:
            self._drop(rest, whole=not lines)

    def _drop(self, rest: bytes, *, whole: bool) -> None:
        """Take away the last line, which this machine ended in the middle of."""
        if whole and not rest.startswith(_BEGINNING[: len(rest)]):
            raise self._unusable("it is no journal")
        try:
            os.ftruncate(self._file, os.fstat(self._file).st_size - len(rest))
        except OSError as error:
            raise self._unusable(error.strerror) from error

    def _take(self, record: Any) -> None:
        if set(record) == {"begin"}:
            self._past[self._checked(record["begin"])] = Past.UNKNOWN
            return
        target = self._checked(record["end"])
        HostState(record["state"])
        if (status := record.get("status")) is not None:
            self._past[target] = Past.ENDED
            self._statuses[target] = range(256)[status]
        else:
            self._past[target] = Past.UNKNOWN if record.get("unknown") else Past.OPEN

    def _take_header(self, record: Any) -> None:
        targets = record["targets"]
        if record["pyremctl"] != VERSION or not all(isinstance(each, str) for each in targets):
            raise ValueError
        bytes.fromhex(record["salt"])
        self._header = {key: record[key] for key in ("salt", "command", "server")}
        self.targets, self._known = targets, set(targets)

    def _checked(self, target: str) -> str:
        if target not in self._known:
            raise LookupError(target)
        return target

    def _sync_folder(self) -> None:
        """Have the file's name on disk, too."""
        try:
            folder = os.open(Path(self._path).parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self.fault = self.fault or error

    def _unusable(self, reason: str | None) -> JournalError:
        return JournalError(f"the journal {self._path} cannot be used: {reason}")

    def _another(self, what: str) -> JournalError:
        return JournalError(
            f"the journal {self._path} is of a run with another {what}",
            hint="go on with the same command line, or name a file that is not there",
        )


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


_BEGINNING: Final = _line({"pyremctl": VERSION})[:-2]


def _digest(command: Sequence[bytes], salt: bytes) -> str:
    """Return a digest of a command that is slow to guess from."""
    words = b"".join(len(word).to_bytes(4, "big") + word for word in command)
    return hashlib.scrypt(words, salt=salt, n=1 << 14, r=8, p=1, dklen=32).hex()
