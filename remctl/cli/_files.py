"""A file for each host in a folder (--outdir, --errdir), under names that cannot leave it.

A host's output goes into a hidden file, which gets the host's name when the host is done: what stands under the name of
a host is all that came of it.  No file stays open between two pieces, since the sockets need the descriptors.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from remctl.cli._failures import Failures
from remctl.exceptions import RemctlError
from remctl.fanout import HostResult, HostState
from remctl.types import Stream

KEPT: Final = 64 * 1024
"""Bytes of a host that wait in memory to be written together."""

LONGEST: Final = 200
"""Characters of a file's name, without what is put to it here."""

_STRANGE: Final = re.compile(r"^[.-]|[^A-Za-z0-9_.:-]")
"""What is escaped in a file's name."""


def file_name(host: str) -> str:
    """Return the name of a host's file: the host's own, with %XX for each byte that is not plain.

    A name that is too long is cut, and ends in a digest.
    """
    name = _STRANGE.sub(_escape, host) or "%"
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}%.{hashlib.sha256(host.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class _File:
    """What there is of a host."""

    name: str
    waiting: bytearray = field(default_factory=bytearray)
    begun: bool = False
    """Whether its hidden file is there."""
    failed: bool = False

    @property
    def hidden(self) -> str:
        return f".{self.name}.part"


class Folder:
    """A folder with a file for each host.

    Args:
        path: the folder; it is made if it is not there.
        stream: which stream of the hosts it is for.
        failures: where is said what could not be written.

    Raises:
        RemctlError: the folder cannot be used.
    """

    lost: bool
    """Whether a file could not be written."""

    def __init__(self, path: Path, stream: Stream, failures: Failures) -> None:
        self.lost = False
        self._path = path
        self._stream = stream
        self._failures = failures
        self._files: dict[str, _File] = {}
        self._names: dict[str, int] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RemctlError(
                f"the folder {path} cannot be used: {error.strerror}", hint="name one that can be written"
            ) from error
        self._spare: int | None = os.dup(self._folder)

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Take a piece of output."""
        if stream is not self._stream:
            return
        file = self._file(host)
        if file.failed:
            return
        file.waiting += data
        if len(file.waiting) >= KEPT:
            self._attempt(host, file, self._write)

    def result(self, result: HostResult) -> None:
        """Give a host's file its name; one that said nothing gets an empty file, and one that was skipped none."""
        if result.state is not HostState.SKIPPED:  # which may have the name of another one
            self._end(result.host)

    def tick(self) -> None:
        """Nothing waits for time to pass."""

    def close(self, *, interrupted: bool, status: int | None) -> None:  # noqa: ARG002
        """Give the files of hosts that have no result their names, too."""
        for host in list(self._files):
            self._end(host)
        os.close(self._folder)
        if self._spare is not None:
            os.close(self._spare)

    def _file(self, host: str) -> _File:
        if (file := self._files.get(host)) is None:
            file = self._files[host] = _File(self._unique(file_name(host)))
        return file

    def _unique(self, name: str) -> str:
        """Return the name, with a number for one that the run has had, in capitals or not."""
        number = self._names[name.lower()] = self._names.get(name.lower(), 0) + 1
        return name if number == 1 else f"{name}%.{number}"

    def _end(self, host: str) -> None:
        file = self._file(host)
        if not file.failed:
            self._attempt(host, file, self._finish)
        del self._files[host]

    def _attempt(self, host: str, file: _File, do: Callable[[_File], None]) -> None:
        try:
            do(file)
        except OSError as error:
            file.failed = self.lost = True
            file.waiting = bytearray()
            self._failures.note(host, f"its output is not in {self._path}: {error.strerror}")
            if file.begun:
                with suppress(OSError):  # what is half a file stays hidden
                    os.unlink(file.hidden, dir_fd=self._folder)

    def _finish(self, file: _File) -> None:
        if file.waiting or not file.begun:
            self._write(file)
        os.replace(file.hidden, file.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _write(self, file: _File) -> None:
        new = 0
        if not file.begun:
            with suppress(FileNotFoundError):  # a run that was killed may have left one
                os.unlink(file.hidden, dir_fd=self._folder)
            new = os.O_CREAT | os.O_EXCL
        number = self._open(file.hidden, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | new)
        file.begun = True
        try:
            left = memoryview(file.waiting).toreadonly()
            while left:
                left = left[os.write(number, left) :]
        finally:
            self._close(number)
        file.waiting = bytearray()

    def _open(self, name: str, flags: int) -> int:
        """Open a file, with the descriptor that is kept for it if sockets have taken all others."""
        try:
            return os.open(name, flags, 0o666, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or self._spare is None:
                raise
        os.close(self._spare)
        self._spare = None
        return os.open(name, flags, 0o666, dir_fd=self._folder)

    def _close(self, number: int) -> None:
        os.close(number)
        if self._spare is None:
            with suppress(OSError):  # somebody was quicker; the next file may have to do without
                self._spare = os.dup(self._folder)
