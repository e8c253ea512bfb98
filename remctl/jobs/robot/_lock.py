"""One agent for each state folder: a lock that ends with the process, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remctl.jobs import _locking
from remctl.jobs.robot._errors import OccupiedError


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
            _locking.take(file)
        except (BlockingIOError, PermissionError):
            raise OccupiedError(
                f"another agent works in {folder}", hint="wait for it, or name another --state"
            ) from None
        yield
    finally:
        os.close(file)
