"""The last of what a script has written, which goes into the store: all of it is on the runner's disk alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Literal

from remctl.exceptions import RemctlError
from remctl.jobs.attempt import read_output
from remctl.jobs.store import Output

logger = logging.getLogger(__name__)

TAIL: Final = 64 * 1024
"""Bytes of each stream."""


def sizes(folder: Path) -> tuple[int, int]:
    """Return how many bytes an attempt has written so far to each of its streams."""
    pieces = [read_output(folder, stream, 0, 0) for stream in ("stdout", "stderr")]
    stdout, stderr = (0 if piece is None else piece.size for piece in pieces)
    return stdout, stderr


def last_output(folder: Path, stdout: int, stderr: int) -> Output:
    """Return the last of both streams, of which so many bytes were written; what cannot be read is logged."""
    return Output(_tail(folder, "stdout", stdout), _tail(folder, "stderr", stderr), stdout, stderr)


def _tail(folder: Path, stream: Literal["stdout", "stderr"], size: int) -> bytes:
    try:
        piece = read_output(folder, stream, max(0, size - TAIL), TAIL)
    except (OSError, RemctlError) as error:
        logger.warning("the output in %s cannot be read: %s", folder, error)
        return b""
    return piece.data if piece else b""
