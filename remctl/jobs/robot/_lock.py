"""One agent for each state folder: a lock that ends with the process, however that ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remctl.jobs.robot._errors import OccupiedError

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other agents out of a folder, for a `with`.

    Raises:
        OccupiedError: there is one.
        OSError: the lock cannot be made.
    """
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise OccupiedError(
                f"another agent works in {folder}", hint="wait for it, or name another --state"
            ) from None
        yield
    finally:
        os.close(file)
