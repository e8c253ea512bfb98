"""From the bytes of an argument to a value of the type that a parameter is annotated with."""

from __future__ import annotations

import enum
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from remctl._arguments import printable

TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Unreadable(Exception):
    """An argument is no value of its type; the text says why."""


class Reader:
    """Reads the values of one type.

    Args:
        wanted: str, int, float, bool, Path, bytes, an Enum, a Literal, or BinaryIO.
        lines: whether a text may have line ends and tabs in it.

    Raises:
        TypeError: it is none of these.
    """

    def __init__(self, wanted: object, *, lines: bool = False) -> None:
        self.type = wanted
        self.choices = _choices(wanted)
        self._control = _CONTROL_BUT_LINES if lines else _CONTROL
        if self.choices is None and wanted not in _FROM_TEXT and wanted not in (str, bytes, Path, BinaryIO):
            raise TypeError(
                f"there is no way to read {wanted!r} from an argument: annotate str, and convert in the function"
                " (several arguments are *names: str, an option given several times is list[str])"
            )

    def read(self, word: bytes) -> object:
        """Return the value of an argument.

        Raises:
            Unreadable: it has none.
        """
        if self.type in (bytes, BinaryIO):
            return word
        if self.type is Path:
            if not word:
                raise Unreadable("it is empty")  # for pathlib that is the current directory
            return Path(self._text(os.fsdecode(word)))
        try:
            text = self._text(word.decode())
        except UnicodeDecodeError:
            raise Unreadable("it is not UTF-8") from None
        if self.choices is not None:
            if text not in self.choices:
                raise Unreadable(f"it must be one of {', '.join(self.choices)}")
            return self.choices[text]
        return text if self.type is str else _FROM_TEXT[self.type](text)

    def fits(self, value: object) -> bool:
        """Return whether a value is of the type."""
        if self.choices is not None:
            return value in self.choices.values()
        if self.type in (int, float):
            numbers = int if self.type is int else int | float
            return isinstance(value, numbers) and not isinstance(value, bool)
        return isinstance(value, cast(type, self.type))

    def written(self, value: object) -> str:
        """Return a value as it would be typed."""
        if isinstance(value, list | tuple):
            return " ".join(map(self.written, value))
        for text, choice in (self.choices or {}).items():
            if choice == value:
                return text
        if isinstance(value, bytes):
            return printable(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _text(self, text: str) -> str:
        if found := self._control.search(text):
            raise Unreadable(f"it has the control character {found[0]!a}")
        return text


def unwrap(annotation: object) -> tuple[object, tuple[object, ...]]:
    """Take `Annotated` and `| None` off a type; return what is left, and what stood in the `Annotated`."""
    marks: tuple[object, ...] = ()
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            marks += tuple(more)
            continue
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            members = [each for each in typing.get_args(annotation) if each is not type(None)]
            if len(members) == 1:
                annotation = members[0]
                continue
        return annotation, marks


def _choices(wanted: object) -> Mapping[str, object] | None:
    """What may be written for a type with few values, and the value of each."""
    if typing.get_origin(wanted) is Literal:
        values = typing.get_args(wanted)
        if strange := [value for value in values if not isinstance(value, str | int)]:
            raise TypeError(f"a Literal is of str or int: {strange[0]!r}")
        pairs = [(str(value), value) for value in values]
    elif isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        pairs = [(each.value if isinstance(each.value, str) else each.name, each) for each in wanted]
    else:
        return None
    choices = dict(pairs)
    if not choices or len(choices) < len(pairs) or not all(text.isprintable() for text in choices):
        raise ValueError(f"the values of {wanted!r} cannot be told apart, or not be written, as arguments")
    return choices


def _integer(text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]+", text):
        raise Unreadable("it is not a whole number")
    try:
        return int(text)
    except ValueError:
        raise Unreadable("it has too many digits") from None


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise Unreadable("it is not a number")
    number = float(text)
    if math.isinf(number):
        raise Unreadable("it is too large")
    return number


def _truth(text: str) -> bool:
    word = text.lower()
    if word not in TRUE + FALSE:
        raise Unreadable("it must be true or false (or yes, no, on, off, 1, 0)")
    return word in TRUE


_FROM_TEXT: Final[Mapping[object, Callable[[str], object]]] = {int: _integer, float: _number, bool: _truth}
