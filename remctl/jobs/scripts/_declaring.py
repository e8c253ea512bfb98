"""From what a header says to parameters: each key checked, and each error with the way to its key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from remctl.backend._markers import Match
from remctl.jobs.scripts._errors import ScriptError, one_line, quoted
from remctl.jobs.scripts._parameter import MAX_VALUE, WRITTEN, Parameter, Type, Value

MAX_PARAMETERS: Final = 64

_NAME: Final = re.compile("[a-z][a-z0-9_]{0,31}")

_KEYS: Final[Mapping[str, tuple[Type, ...]]] = {
    "type": tuple(Type),
    "description": tuple(Type),
    "required": tuple(Type),
    "default": tuple(each for each in Type if each is not Type.SECRET),
    "choices": (Type.CHOICE,),
    "pattern": WRITTEN,
    "multiline": WRITTEN,
    "minimum": (Type.INTEGER, Type.NUMBER),
    "maximum": (Type.INTEGER, Type.NUMBER),
}
"""The keys of a parameter's table, and the types of parameters that each is for."""


class Misfit(Exception):
    """Something in a header is not as it has to be.

    Args:
        reason: what.
        path: the keys that lead there.
    """

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def error(self, line: int | None = None) -> ScriptError:
        """Return it as users get it."""
        return ScriptError(self.reason, line=line, key=".".join(self.path))


def parse(tables: object) -> dict[str, Parameter]:
    """Return the parameters that a header has.

    Raises:
        Misfit: no script could have them.
    """
    if not isinstance(tables, Mapping):
        raise Misfit("it must hold a table for each parameter: [parameters.NAME]", "parameters")
    if len(tables) > MAX_PARAMETERS:
        raise Misfit(f"a script has {MAX_PARAMETERS} parameters at the most", "parameters")
    return {name: _parse(name, table) for name, table in tables.items()}


def take(table: Mapping[str, object], wanted: type, what: str, *path: str) -> Any:
    """Return the value of the last key of a path in its table, None if it is not there.

    Raises:
        Misfit: it is of another type.
    """
    value = table.get(path[-1])
    if value is not None and (not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool))):
        raise Misfit(f"it must be {what}", *path)
    return value


def take_line(table: Mapping[str, object], *path: str) -> str | None:
    """Return a text of one line, None if it is not there.

    Raises:
        Misfit: it is none.
    """
    text = take(table, str, "a text", *path)
    if text is not None and (text != one_line(text) or not text):
        raise Misfit("it must be a text of one line, without blanks around it", *path)
    return str(text) if text is not None else None


def refuse_unknown(table: Mapping[str, object], known: Mapping[str, object], *path: str) -> None:
    """Refuse a table with a key that there is not.

    Raises:
        Misfit: there is one.
    """
    for key in table:
        if key not in known:
            raise Misfit(f"there is no such key; there are {', '.join(known)}", *path, key)


def _parse(name: str, table: object) -> Parameter:
    path = ("parameters", name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Misfit("a parameter's name is a letter a-z and up to 31 more of a-z, 0-9 and _", "parameters", str(name))
    if not isinstance(table, Mapping):
        raise Misfit(f"it must be a table: [parameters.{name}]", *path)
    refuse_unknown(table, _KEYS, *path)
    if (word := take(table, str, "a text", *path, "type")) is None:
        raise Misfit(f"its type is missing: {_TYPES}", *path)
    if word not in {each.value for each in Type}:
        raise Misfit(f"there is no type {quoted(word)}; there are {_TYPES}", *path, "type")
    kind = Type(word)
    for key in table:
        if kind not in _KEYS[key]:
            raise Misfit(f"a parameter of type {word} does not have it", *path, key)
    default = table.get("default")
    required = take(table, bool, "true or false", *path, "required")
    if required and default is not None:
        raise Misfit("what has a default is not required", *path, "required")
    parameter = Parameter(
        name,
        kind,
        take_line(table, *path, "description") or "",
        default is None if required is None else required,
        None,
        _choices(table, kind, path),
        _pattern(table, path),
        bool(take(table, bool, "true or false", *path, "multiline")),
        *_range(table, kind, path),
    )
    return parameter if default is None else _with_default(parameter, default, path)


_TYPES: Final = ", ".join(each.value for each in Type)


def _choices(table: Mapping[str, object], kind: Type, path: tuple[str, ...]) -> tuple[str, ...]:
    choices = take(table, list, "a list of texts", *path, "choices")
    if kind is Type.CHOICE and not choices:
        raise Misfit("a choice needs choices, a list of texts", *path, *(["choices"] if "choices" in table else []))
    for choice in choices or ():
        if not isinstance(choice, str) or not choice or choice != one_line(choice) or len(choice) > MAX_VALUE:
            raise Misfit("each choice must be a text of one line, without blanks around it", *path, "choices")
    if len(set(choices or ())) < len(choices or ()):
        raise Misfit("a choice is there twice", *path, "choices")
    return tuple(choices or ())


def _pattern(table: Mapping[str, object], path: tuple[str, ...]) -> str | None:
    pattern = take(table, str, "a text", *path, "pattern")
    if pattern is None:
        return None
    try:
        Match(pattern)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        raise Misfit(f"it is no regular expression: {error}", *path, "pattern") from None
    return str(pattern)


def _range(table: Mapping[str, object], kind: Type, path: tuple[str, ...]) -> tuple[float | None, float | None]:
    found: list[int | float | None] = []
    for key in ("minimum", "maximum"):
        value = table.get(key)
        whole = kind is Type.INTEGER
        if value is not None and not (
            isinstance(value, int if whole else int | float) and not isinstance(value, bool) and _finite(value)
        ):
            raise Misfit(f"it must be a {'whole ' if whole else ''}number", *path, key)
        found.append(value)
    low, high = found
    if low is not None and high is not None and low > high:
        raise Misfit(f"it is more than the maximum, {high}", *path, "minimum")
    return low, high


def _with_default(parameter: Parameter, default: object, path: tuple[str, ...]) -> Parameter:
    if not parameter.fits(default) or not _finite(default):
        raise Misfit(f"it is no value of type {parameter.type.value}", *path, "default")
    assert isinstance(default, Value)
    if parameter.type is Type.NUMBER:
        default = float(default)
    try:
        parameter.read(parameter.written(default))
    except ScriptError as error:
        raise Misfit(error.reason, *path, "default") from None
    return Parameter(
        **{key: getattr(parameter, key) for key in parameter.__slots__ if key != "default"}, default=default
    )


def _finite(value: object) -> bool:
    """Whether a number can be one of Python's floats, or is no number."""
    try:
        return not isinstance(value, int | float) or math.isfinite(float(value))
    except OverflowError:
        return False
