"""The two streams that results are written to: labels, colour, and no control characters for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO

from remctl.cli._color import Color, painted, wanted
from remctl.cli._shown import Shown
from remctl.cli._text import safe, safe_line


class Side:
    """One of the streams.

    Args:
        stream: a buffered one.
        terminal: whether it goes to a terminal.
        color: whether it gets colour.
        label: whether the host stands before its lines.
    """

    fault: OSError | None
    """Why it cannot be written any more; what comes later is dropped."""

    def __init__(self, stream: BinaryIO, *, terminal: bool, color: bool, label: bool = True) -> None:
        self.fault = None
        self._stream = stream
        self._terminal = terminal
        self._color = color
        self._label = label

    def write(self, data: bytes) -> None:
        """Write whole lines as they are."""
        if not data or self.fault is not None:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            self.fault = OSError(error.errno, f"the output cannot be written: {error.strerror}")

    def say(self, text: str) -> None:
        """Write a line of our own."""
        self.write(safe(text).encode("utf-8", "backslashreplace") + b"\n")

    def lines(self, host: str, lines: Iterable[bytes], color: Color = Color.LABEL) -> None:
        """Write lines of a host, or of hosts, with its label; those of error output are in colour as a whole."""
        label = self.paint(safe(f"{host}: ").encode("utf-8", "backslashreplace"), color) if self._label else b""
        body = color if color is Color.ERROR else None
        self.write(b"".join(label + self.line(line, body) for line in lines))

    def line(self, line: bytes, color: Color | None = None) -> bytes:
        """Return a line as it is shown, with its end."""
        shown = safe_line(line) if self._terminal else line
        return (shown if color is None else self.paint(shown, color)) + b"\n"

    def paint(self, text: bytes, color: Color) -> bytes:
        """Return a text in a colour, if there is colour."""
        return painted(text, color) if self._color else text


class Screen:
    """Both of them."""

    def __init__(self, shown: Shown, out: BinaryIO, err: BinaryIO, environ: Mapping[str, str]) -> None:
        self.label = shown.label
        self.out = Side(
            out,
            terminal=shown.terminal_out,
            color=wanted(shown.color, shown.terminal_out, environ) and not shown.json,
            label=shown.label,
        )
        self.err = Side(
            err,
            terminal=shown.terminal_err,
            color=wanted(shown.color, shown.terminal_err, environ),
            label=shown.label,
        )
