"""One run of a job at a time: a lock that the kernel holds while the client lives, and the job's GUID in its file.

The GUID is for jobs that outlive their client: the next run, when it has the lock, asks the server for that job.  The
file holds nothing else, and does no harm when it stays behind.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from remctl.jobs import _locking
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.jobs.headless._options import Options

_WRITTEN: Final = re.compile(rb"[0-9a-f-]{36}\n")

_TORN: Final = re.compile(rb"[0-9a-f-]{0,36}\n?\0*")
"""What may be there after a power failure: no job was submitted then."""

_ELSEWHERE: Final = "name another file with --lock=FILE"


class Lock:
    """A lock that is held."""

    def __init__(self, file: int) -> None:
        self._file = file
        said = os.pread(file, 64, 0)
        self.guid = said.decode().strip() if _WRITTEN.fullmatch(said) else None
        """The GUID of the job of the run before; None if there was none."""
        if self.guid is None and not _TORN.fullmatch(said):
            raise HeadlessError("the file holds something else than a lock does", code=Code.PARAMETER)

    def write(self, guid: str) -> None:
        """Put down which job is this run's, so that a power failure does not take it away.

        Raises:
            OSError: that does not work.
        """
        os.pwrite(self._file, guid.encode() + b"\n", 0)
        os.fsync(self._file)


@contextmanager
def held(options: Options) -> Iterator[Lock | None]:
    """Hold the lock of a job for a `with`; None if none is wanted.

    Raises:
        HeadlessError: TIMEOUT: another run has it.  PARAMETER: it cannot be made where it is to be.
    """
    if not options.lock:
        yield None
        return
    file = options.lock if isinstance(options.lock, Path) else _made_place() / _name(options)
    try:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | _flags(), 0o600)
    except OSError as error:
        raise _refused(file, error.strerror or str(error)) from None
    try:
        if complaint := _complaint(os.fstat(opened)):
            raise _refused(file, complaint)
        try:
            _locking.take(opened)
        except (BlockingIOError, PermissionError):
            raise HeadlessError(f"an earlier run has the lock {file}", code=Code.TIMEOUT) from None
        except OSError as error:
            raise _refused(file, error.strerror or str(error)) from None
        try:
            lock = Lock(opened)
        except HeadlessError as error:
            raise _refused(file, error.reason) from None
        yield lock
    finally:
        os.close(opened)


def _name(options: Options) -> str:
    """The name of the file, which is the same for each run of the same job, and tells nobody what it is."""
    file = None if options.py_file is None else str(options.py_file.absolute())
    code = options.code if file is None else None
    service = f"{options.host}:{options.port}"
    parts = (service, options.user, options.module, file, code, options.individual_parameters)
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest() + ".lock"


def _made_place() -> Path:
    """Make the folder of the locks, if need be."""
    base = os.environ.get("XDG_STATE_HOME") or ""
    try:
        state = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
        folder = state / "remctl-headless"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows where this user is at home
        raise _refused(base or "~/.local/state", getattr(error, "strerror", None) or str(error)) from None
    return folder


def _complaint(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        return "it is no file, or one with several names"
    if sys.platform != "win32" and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        return "it is another user's, or others may write in it"
    return None


def _flags() -> int:
    """What keeps the file from being a link or a FIFO, where there are such."""
    return getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def _refused(file: Path | str, why: str) -> HeadlessError:
    return HeadlessError(f"the lock {file} cannot be used: {why}", code=Code.PARAMETER, hint=_ELSEWHERE)
