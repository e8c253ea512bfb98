"""Outputs that are kept until the end: each content once, and not all of them in memory."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from typing import IO, Final, NamedTuple

logger = logging.getLogger(__name__)

MEMORY: Final = 64 * 1024 * 1024
"""Bytes that are kept in memory; what comes after them goes into a temporary file."""


class Content(NamedTuple):
    """Stands for an output; equal for equal ones."""

    digest: bytes
    size: int
    """Bytes that came, of which the first may be kept alone."""


NOTHING: Final = Content(b"", 0)


class Contents:
    """Keeps outputs.

    Args:
        memory: bytes to keep in memory.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._left = memory
        self._kept: dict[Content, bytes | tuple[int, int]] = {NOTHING: b""}
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, data: bytes, size: int) -> Content:
        """Keep an output, and return what stands for it.

        Args:
            data: what is known of it.
            size: its whole size in bytes.
        """
        if not size:
            return NOTHING
        content = Content(hashlib.blake2b(data, digest_size=16).digest(), size)
        if content not in self._kept:
            self._kept[content] = self._keep(data)
        return content

    def get(self, content: Content) -> bytes:
        """Return what was kept of an output."""
        kept = self._kept[content]
        if isinstance(kept, bytes):
            return kept
        assert self._file is not None
        place, size = kept
        return os.pread(self._file.fileno(), size, place)

    def close(self) -> None:
        """Forget all of it."""
        self._kept = {NOTHING: b""}
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, data: bytes) -> bytes | tuple[int, int]:
        if len(data) <= self._left:
            self._left -= len(data)
            return data
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="pyremctl-", buffering=0)  # noqa: SIM115
            place = self._end
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], place + written)
        except OSError as error:  # the disk is full: then memory it is
            logger.warning("output cannot be put aside in %s: %s", tempfile.gettempdir(), error.strerror)
            return data
        self._end += len(data)
        return place, len(data)
