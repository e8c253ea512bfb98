"""One parameter of a script, and from the text that users give to its values."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from remctl._arguments import printable
from remctl.backend._markers import Match, Range
from remctl.backend._values import Reader, Unreadable
from remctl.jobs.scripts._errors import ScriptError

Value: TypeAlias = str | int | float | bool
"""What a parameter's value is for the script: a JSON type."""

MAX_VALUE: Final = 64 * 1024
"""Bytes of one value: half of what Linux takes for one variable of the environment."""


class Type(enum.Enum):
    """What a parameter's values are."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    SECRET = "secret"  # noqa: S105 - no password


_READ: Final = {Type.INTEGER: int, Type.NUMBER: float, Type.BOOLEAN: bool}
"""The types that are not text."""

WRITTEN: Final = (Type.TEXT, Type.SECRET)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a script."""

    name: str
    type: Type
    description: str = ""
    required: bool = True
    """Whether a job has to come with it: where nothing is said, it has to if there is no default."""
    default: Value | None = None
    """The value where none is given; None is that there is none, and the script does without."""
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    """A regular expression of Python's `re`, which the whole text has to match."""
    multiline: bool = False
    """Whether the text may have line ends and tabs in it."""
    minimum: int | float | None = None
    maximum: int | float | None = None

    @property
    def secret(self) -> bool:
        """Whether its value appears in no message, no log and no environment."""
        return self.type is Type.SECRET

    @property
    def variable(self) -> str:
        """Its name in the script's environment."""
        return f"JOB_PARAM_{self.name.upper()}"

    def read(self, text: str) -> Value:
        """Return the value that a user's text stands for.

        Raises:
            ScriptError: it stands for none, or for one that is not allowed.
        """
        shown = ""
        try:
            if not isinstance(text, str):
                raise Unreadable("its value has to come as text")
            try:
                data = text.encode()
            except UnicodeEncodeError:
                raise Unreadable("it is no valid text") from None
            shown = "" if self.secret else f": '{printable(data)}'"
            if len(data) > MAX_VALUE:
                raise Unreadable(f"it is longer than {MAX_VALUE} bytes")
            if self.required and self.type in WRITTEN and not data:
                raise Unreadable("it must not be empty")
            value = self._value(data)
            assert isinstance(value, Value)
            if complaint := self.complaint(value):
                raise Unreadable(complaint)
        except Unreadable as error:
            raise ScriptError(f"{error}{shown}", parameter=self.name) from None
        return value

    def complaint(self, value: Value) -> str | None:
        """Say what is wrong with a value of the right type, or None."""
        if self.choices and value not in self.choices:
            return f"it must be one of {', '.join(self.choices)}"
        if self.type is Type.INTEGER and not -(2**63) <= int(value) < 2**63:
            return "it is too large"  # for Bash, and for databases
        if self.pattern is not None and (complaint := Match(self.pattern).complaint(value)):
            return complaint
        if self.minimum is not None or self.maximum is not None:
            return Range(self.minimum, self.maximum).complaint(value)
        return None

    def fits(self, value: object) -> bool:
        """Return whether a value is of the type, as JSON and TOML have types."""
        return self._reader().fits(value) and (not isinstance(value, float) or math.isfinite(value))

    def written(self, value: Value) -> str:
        """Return a value as text: what `read` makes the value of."""
        return self._reader().written(value)

    def table(self) -> dict[str, Any]:
        """Return what a header says of it, for JSON."""
        found: dict[str, Any] = {"type": self.type.value, "required": self.required}
        for key in ("description", "pattern", "multiline", "minimum", "maximum"):
            if (value := getattr(self, key)) not in (None, "") and value is not False:
                found[key] = value
        if self.default is not None:
            found["default"] = self.default
        if self.choices:
            found["choices"] = list(self.choices)
        return found

    def _value(self, data: bytes) -> object:
        try:
            return self._reader().read(data)
        except Unreadable:
            if self.secret:  # the reader shows the character
                raise Unreadable("it has a control character") from None
            raise

    def _reader(self) -> Reader:
        return Reader(_READ.get(self.type, str), lines=self.multiline)
