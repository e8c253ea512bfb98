"""What stands in a parameter's `Annotated[...]`: how an argument is passed, and what it has to fulfil.

A text there describes the argument, for its help; a function is a check of its own.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Marker(enum.Enum):
    """Says something about an argument that has no further data."""

    STDIN = "stdin"
    SECRET = "secret"  # noqa: S105 - no password
    MULTILINE = "multiline"

    def __repr__(self) -> str:
        return self.name


STDIN: Final = Marker.STDIN
"""The argument comes on the program's standard input, where remctld runs it: for much data, or any bytes."""

SECRET: Final = Marker.SECRET
"""The argument is shown in no log and no message."""

MULTILINE: Final = Marker.MULTILINE
"""The text may have line ends and tabs in it; other control characters are refused all the same."""


class Match:
    """A text that matches a regular expression as a whole.

    Args:
        pattern: a regular expression of Python's `re`.

    Raises:
        re.error: it is none.
    """

    def __init__(self, pattern: str) -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"pattern must be a str: {pattern!r}")
        self.pattern = re.compile(pattern)

    def complaint(self, value: object) -> str | None:
        """Say what is wrong with a value, or None."""
        return None if self.pattern.fullmatch(str(value)) else f"it does not match {self.pattern.pattern}"

    def __repr__(self) -> str:
        return f"Match({self.pattern.pattern!r})"


class Range:
    """A number between two others.

    Args:
        low: the lowest that is allowed; None is without limit.
        high: the highest that is allowed; None is without limit.

    Raises:
        ValueError: both are None, or nothing is between them.
    """

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        if strange := [each for each in (low, high) if not isinstance(each, int | float | None)]:
            raise TypeError(f"a range is of numbers: {strange[0]!r}")
        if (low is None and high is None) or (low is not None and high is not None and low > high):
            raise ValueError(f"there is no such range: {low} to {high}")
        self.low = low
        self.high = high

    def complaint(self, value: object) -> str | None:
        """Say what is wrong with a value, or None."""
        assert isinstance(value, int | float)
        if (self.low is None or value >= self.low) and (self.high is None or value <= self.high):
            return None
        return f"it must be {self}"

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return f"{self.high} or less" if self.low is None else f"{self.low} to {self.high}"

    def __repr__(self) -> str:
        return f"Range({self.low!r}, {self.high!r})"


class Option:
    """Further names of an option: `Option("-q")`; the long one comes from the parameter.

    Args:
        names: each with its hyphens: "-q", "--quick".

    Raises:
        ValueError: a name is not like that.
    """

    def __init__(self, *names: str) -> None:
        for name in names:
            if not re.fullmatch(r"-[A-Za-z]|--[A-Za-z][A-Za-z0-9-]*", name):
                raise ValueError(f"an option is named like -q or --quick: {name!r}")
        if not names:
            raise ValueError("an option needs a name")
        self.names = names

    def __repr__(self) -> str:
        return f"Option({', '.join(map(repr, self.names))})"
