"""When there is colour, and what is in which colour."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Literal

When = Literal["auto", "always", "never"]
"""What --color says."""


class Color(enum.Enum):
    """What is told apart by colour; the value is how a terminal is told."""

    LABEL = b"\x1b[94m"
    ERROR = b"\x1b[91m"
    FILE = b"\x1b[1m"
    PLACE = b"\x1b[96m"
    ADDED = b"\x1b[92m"
    REMOVED = b"\x1b[31m"


_PLAIN: Final = b"\x1b[0m"


def wanted(when: When, terminal: bool, environ: Mapping[str, str]) -> bool:
    """Return whether a stream gets colour.

    The option wins over NO_COLOR (https://no-color.org), that over CLICOLOR_FORCE, and that over CLICOLOR
    (https://bixense.com/clicolors); if none of them says anything, a terminal does.

    Args:
        when: the option.
        terminal: whether the stream goes to one.
        environ: the environment.
    """
    if when != "auto":
        return when == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return terminal and environ.get("CLICOLOR") != "0" and environ.get("TERM") != "dumb"


def painted(text: bytes, color: Color) -> bytes:
    """Return a text in a colour, its line end outside of it."""
    body = text.removesuffix(b"\n")
    return color.value + body + _PLAIN + text[len(body) :] if body else text
