"""From the bytes of hosts to lines, and to text that a terminal shows instead of obeying it."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 64 * 1024
"""Bytes of a line; what is longer goes on in the next one."""

BROKEN: Final = b" [the line goes on]"
"""What stands at the end of a line that was broken."""

_OBEYED: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f"  # C0 but for the tab, DEL, C1
    "\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or change direction
    "\u2028\u2029\ud800-\udfff\U000e0000-\U000e007f]"
)


def safe(text: str) -> str:
    """Return a text of one line with everything escaped that a terminal would obey or hide; tabs stay."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def safe_line(line: bytes) -> bytes:
    """Return a line, without its end, likewise; bytes that are no UTF-8 are escaped, too."""
    return safe(line.decode("utf-8", "backslashreplace")).encode()


def lines_of(content: bytes) -> list[bytes]:
    """Return the lines of a whole output, without their ends."""
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


class Lines:
    """Puts the lines of one stream together that come in pieces; keeps no more than `LONGEST` bytes."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = bytearray()

    def take(self, data: bytes) -> list[bytes]:
        """Return the lines, without their ends, that a piece completes."""
        self._kept += data
        if len(self._kept) <= LONGEST and b"\n" not in data:
            return []
        *whole, rest = bytes(self._kept).split(b"\n")
        lines: list[bytes] = []
        for line in whole:
            lines.append(_break(line, lines))
        self._kept = bytearray(_break(rest, lines))
        return lines

    def end(self) -> list[bytes]:
        """Return the last line, if it has no end."""
        last, self._kept = bytes(self._kept), bytearray()
        return [last] if last else []


def _break(line: bytes, lines: list[bytes]) -> bytes:
    """Put all parts of a line into `lines` but the last one, and return that."""
    while len(line) > LONGEST:
        end = LONGEST
        while end > LONGEST - 4 and line[end] & 0xC0 == 0x80:  # not within a character
            end -= 1
        lines.append(line[:end] + BROKEN)
        line = line[end:]
    return line
