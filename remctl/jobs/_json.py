"""The JSON of what goes over the wire between the remctl command `job` and its clients, both ways.

What a later version of this package adds is passed over; what is not as it should be is `Unreadable`.
"""

from __future__ import annotations

import base64
import enum
import functools
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NoReturn

from remctl.jobs._answers import (
    AliveEvent,
    EndEvent,
    Fault,
    GapEvent,
    OutputEvent,
    Said,
    StateEvent,
    TimeoutEvent,
    shown,
)
from remctl.jobs.states import JobState, RobotStatus

MAX_PARAMETERS: Final = 4 * 1024 * 1024
"""Bytes of the JSON that a job's parameters may come as."""

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one line of JSON."""


_EVENTS: Final[Mapping[str, type[Any]]] = {
    "state": StateEvent,
    "output": OutputEvent,
    "gap": GapEvent,
    "end": EndEvent,
    "timeout": TimeoutEvent,
    "alive": AliveEvent,
}

_NAMES: Final = {kind: name for name, kind in _EVENTS.items()}


class Unreadable(ValueError):
    """Something that came over the wire is not what it should be; the text says where, and shows no value."""


# To JSON


def written(row: object) -> bytes:
    """Return a row, or a list of rows, as a line of JSON."""
    return _line(_plain(row))


def written_event(event: Said) -> bytes:
    """Return what a wait says as a line of JSON."""
    return _line({"event": _NAMES[type(event)], **_plain(event)})


def written_fault(fault: Fault) -> bytes:
    """Return why something was not done as a line of JSON."""
    return _line({"error": _plain(fault)})


def written_parameters(parameters: Mapping[str, Any]) -> bytes:
    """Return a job's parameters as JSON: each value as the text that a person would write.

    Raises:
        TypeError, ValueError: a value is of another type than str, int, float and bool, or no number.
    """
    return _line({name: _text(name, value) for name, value in parameters.items()})


def _line(plain: object) -> bytes:
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _plain(value: object) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, JobState | RobotStatus):
        return shown(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _text(name: object, value: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a parameter must be a str: {name!r:.80}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"the parameter {name!r} is no number")
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(f"the parameter {name!r} must be str, int, float or bool, and is {type(value).__name__}")


# From JSON


def read(kind: Any, data: bytes) -> Any:
    """Return what a line of JSON holds.

    Args:
        kind: a class of this module, or a list of one.
        data: the line.

    Raises:
        Unreadable: it holds something else.
    """
    return _typed(kind, _loaded(data), "the answer")


def read_event(data: bytes) -> Said | None:
    """Return what a wait says in a line of JSON; None for what only a later version of this package knows.

    Raises:
        Unreadable: it is nothing of the kind.
    """
    found = _typed(Mapping[str, Any], _loaded(data), "the event")
    kind = _EVENTS.get(_typed(str, found.get("event"), "event"))
    event: Said | None = None if kind is None else _typed(kind, found, f"the event {found['event']}")
    return event


def read_fault(data: bytes) -> Fault | None:
    """Return why something was not done, if a line of JSON says that."""
    try:
        found = _typed(Mapping[str, Any], _loaded(data), "the answer")
        fault: Fault | None = _typed(Fault | None, found.get("error"), "error")
    except Unreadable:
        return None
    return fault


def read_parameters(data: bytes) -> dict[str, str]:
    """Return a job's parameters from JSON, as a person would write them; no error shows a value.

    Raises:
        Unreadable: it is no JSON object, or has a value that is neither text nor number nor truth value.
    """
    if len(data) > MAX_PARAMETERS:
        raise Unreadable(f"the parameters are longer than {MAX_PARAMETERS} bytes")
    found = _typed(Mapping[str, Any], _loaded(data), "standard input")
    try:
        return {name: _text(name, value) for name, value in found.items()}
    except (TypeError, ValueError) as error:
        raise Unreadable(str(error)) from None


class Lines:
    """Puts lines together that come in pieces."""

    def __init__(self) -> None:
        self._kept = b""

    def take(self, data: bytes) -> Iterator[bytes]:
        """Return the lines that a piece completes.

        Raises:
            Unreadable: a line is longer than any should be.
        """
        *whole, self._kept = (self._kept + data).split(b"\n")
        if len(self._kept) > MAX_LINE:
            raise Unreadable(f"a line is longer than {MAX_LINE} bytes")
        return iter(whole)


def _loaded(data: bytes) -> object:
    def refuse(name: str) -> NoReturn:
        raise Unreadable(f"{name} is no number in JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise Unreadable("a name is there twice")
        return found

    try:
        return json.loads(data, parse_constant=refuse, object_pairs_hook=unique)
    except Unreadable:
        raise
    except (ValueError, RecursionError):  # whose text may show what is there
        raise Unreadable("it is no JSON") from None


def _typed(kind: Any, value: Any, place: str) -> Any:
    """Return a value of JSON as what it stands for."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _typed(arguments[0], value, place)
    if origin is list:
        return [_typed(arguments[0], each, place) for each in _of(list, value, place)]
    if origin is Mapping:
        return {name: _typed(arguments[1], each, place) for name, each in _of(dict, value, place).items()}
    if origin is Literal:
        if value not in arguments:
            raise Unreadable(f"{place}: unknown")
        return value
    if issubclass(kind, tuple):
        return _row(kind, _of(dict, value, place), place)
    if issubclass(kind, bytes | enum.Enum):
        return _decoded(kind, _of(str, value, place), place)
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    return _of(kind, value, place)


def _row(kind: Any, found: dict[str, Any], place: str) -> Any:
    hints, defaults = _hints(kind), kind._field_defaults
    missing = [name for name in hints if name not in found and name not in defaults]
    if missing:
        raise Unreadable(f"{place}: {missing[0]} is missing")
    return kind(**{name: _typed(hints[name], found[name], f"{place}: {name}") for name in hints if name in found})


def _decoded(kind: Any, text: str, place: str) -> Any:
    try:
        if kind is bytes:
            return base64.b64decode(text, validate=True)
        return kind[text.upper()] if kind in (JobState, RobotStatus) else kind(text)
    except (KeyError, ValueError):
        raise Unreadable(f"{place}: it is no {kind.__name__}") from None


def _of(kind: Any, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise Unreadable(f"{place}: {kind.__name__} expected, not {type(value).__name__}")
    return value


_hints = functools.cache(typing.get_type_hints)
