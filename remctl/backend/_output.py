"""Standard output and standard error of a program, which are its caller's."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO

from remctl._arguments import encoded, printable
from remctl.backend._errors import OutputLostError
from remctl.types import Stream


class Output:
    """Writes without delay.  What a function prints is written in its place, and in UTF-8, whatever the locale."""

    def __init__(self) -> None:
        file = sys.stdout
        if isinstance(file, io.TextIOWrapper):
            by_line, at_once = file.line_buffering, file.write_through
            sys.stdout = _Printed(
                file.detach(), "utf-8", "surrogateescape", line_buffering=by_line, write_through=at_once
            )

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:  # noqa: ARG002
        """Take output."""
        if stream is Stream.STDOUT:
            _write(sys.stdout, data, "standard output")
        else:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # which `finish` will tell
                sys.stdout.flush()  # so that the two are in order where they go to the same place
            _write(sys.stderr, data, "standard error")

    async def drain(self) -> None:
        """There is room: writing has waited for it."""

    def complain(self, text: str) -> None:
        """Write a line of error output, if anybody takes it."""
        line = printable(encoded(text), limit=None)
        with contextlib.suppress(OutputLostError):
            self.write(f"{line}\n".encode(), Stream.STDERR)

    def finish(self, *, quiet: bool) -> bool:
        """Write what Python still keeps; return whether that went well.

        Args:
            quiet: whether the caller knows already that it does not.
        """
        well = True
        try:
            self.write(b"", Stream.STDOUT)
        except OutputLostError as error:
            well = False
            _drop(sys.stdout)
            if not quiet:
                self.complain(error.reason)
        try:
            self.write(b"", Stream.STDERR)
        except OutputLostError:
            _drop(sys.stderr)
        return well


class _Printed(io.TextIOWrapper):
    """Standard output for `print`, which fails as all other output does."""

    def write(self, text: str, /) -> int:
        """Write a text."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLostError(f"standard output cannot be written: {error}") from error


def _write(file: IO[str] | None, data: bytes, name: str) -> None:
    if file is None:
        raise OutputLostError(f"{name} is closed")
    try:
        file.flush()  # what the function has printed comes before
        file.buffer.write(data)  # type: ignore[attr-defined]  # a text file of the system has one
        file.buffer.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        raise OutputLostError(f"{name} cannot be written: {error}") from error


def _drop(file: IO[str] | None) -> None:
    """Let Python's own attempt to write the rest, at the very end, go nowhere in silence."""
    with contextlib.suppress(OSError, ValueError):
        if file is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
