"""The error of everything that is wrong with a script or with what is given to one."""

from __future__ import annotations

from typing import Unpack

from remctl._arguments import printable
from remctl.exceptions import Evidence, RemctlError


class ScriptError(RemctlError):
    """A script, its file or a value for one of its parameters is not as it has to be; somebody can mend it.

    The text is one line, begins with the place, and never has the value of a secret in it.
    """

    path: str | None
    """The file or folder."""
    line: int | None
    """The line in the file, counted from 1."""
    key: str | None
    """The key of the header, with the tables that it is in: parameters.size.minimum."""
    parameter: str | None
    """The parameter whose value it is about."""

    def __init__(
        self,
        reason: str = "",
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
        parameter: str | None = None,
        **evidence: Unpack[Evidence],
    ) -> None:
        super().__init__(reason, **evidence)
        self.path = path
        self.line = line
        self.key = key
        self.parameter = parameter

    def __str__(self) -> str:
        place = self.path
        if self.line is not None:
            place = f"{self.path}:{self.line}" if self.path else f"line {self.line}"
        parameter = f"parameter {self.parameter}" if self.parameter is not None else None
        return one_line(": ".join(part for part in (place, self.key, parameter, super().__str__()) if part))


def one_line(text: str) -> str:
    """Return a text as one line that does nothing to a terminal or a log."""
    return printable(" ".join(text.split()).encode("utf-8", "backslashreplace"), limit=None)


def quoted(text: object) -> str:
    """Return something that may be long or strange as messages show it."""
    return f"'{printable(str(text).encode('utf-8', 'backslashreplace'))}'"
