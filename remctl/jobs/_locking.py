"""A lock that the system holds, and that ends with the process, however that ends; for `robot` and `headless`."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt

    def take(file: int) -> None:
        """Lock an open file; raises `BlockingIOError` or `PermissionError` if another process has it."""
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def take(file: int) -> None:
        """Lock an open file; raises `BlockingIOError` if another process has it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
