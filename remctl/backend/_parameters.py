"""From a function's signature to the arguments and options of its command."""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Final, get_args, get_origin

from remctl._arguments import printable
from remctl.backend._context import Context
from remctl.backend._errors import UsageError
from remctl.backend._markers import MULTILINE, SECRET, STDIN, Marker, Match, Option, Range
from remctl.backend._values import Reader, Unreadable, unwrap

REQUIRED: Final = inspect.Parameter.empty
"""Stands for the default of a parameter that has none."""


class Kind(enum.Enum):
    """How a parameter gets its value."""

    ARGUMENT = "argument"
    TAIL = "tail"
    OPTION = "option"
    CONTEXT = "context"


class Parameter:
    """One parameter of a command's function.

    Args:
        source: the parameter itself.
        annotation: its type, evaluated.

    Raises:
        TypeError, ValueError: no command could have it.
    """

    name: str
    """The function's name for it."""
    kind: Kind
    named: bool
    """Whether the function takes it by its name."""
    default: object
    """What the function has for it; REQUIRED if nothing."""
    secret: bool
    stdin: bool
    """Whether it comes on standard input."""
    text: str
    """Its description; may be empty."""
    flags: tuple[str, ...]
    """The names of an option, hyphens and all."""
    repeated: bool
    """Whether an option may be given several times, and the function gets a list."""

    def __init__(self, source: inspect.Parameter, annotation: object) -> None:
        wanted, marks = unwrap(annotation)
        self.name = source.name
        self.default = source.default
        self.named = source.kind is source.KEYWORD_ONLY
        self.stdin = STDIN in marks
        self.kind = _kind(source, wanted, stdin=self.stdin)
        self.repeated = self.kind is Kind.OPTION and get_origin(wanted) is list
        if self.repeated:
            if not get_args(wanted):
                raise TypeError("a list needs the type of what is in it")
            wanted, more = unwrap(get_args(wanted)[0])
            marks += more
            if STDIN in more:
                raise ValueError("standard input is one argument, and not several")
        self.secret = SECRET in marks
        self.text = " ".join(mark for mark in marks if isinstance(mark, str))
        if self.kind is not Kind.CONTEXT:
            self.reader = Reader(wanted, lines=wanted is str and (MULTILINE in marks or self.stdin))
        self._checks = [mark for mark in marks if not isinstance(mark, str | Marker | Option)]
        self._refuse_the_impossible(wanted, marks)
        self._refuse_the_default()
        self.flags = tuple(self._flags(marks)) if self.kind is Kind.OPTION else ()

    @property
    def shown(self) -> str:
        """How help and messages write it: <name>, or the option's long name."""
        return self.flags[0] if self.flags else f"<{spelled(self.name)}>"

    @property
    def streamed(self) -> bool:
        """Whether the function reads it by itself."""
        return self.reader.type is BinaryIO

    @property
    def flag(self) -> bool:
        """Whether it is an option without a value."""
        return self.kind is Kind.OPTION and self.reader.type is bool and not self.repeated

    @property
    def negations(self) -> list[str]:
        """The names that turn a flag off; nothing else has any."""
        return [f"--no-{flag[2:]}" for flag in self.flags if self.flag and flag.startswith("--")]

    def read(self, word: bytes) -> object:
        """Return the value of an argument, or of an option.

        Raises:
            UsageError: it has none, or a check refuses it.
        """
        try:
            value = self.reader.read(word)
            for check in self._checks:
                if complaint := _complaint(check, value):
                    told = (self.secret or self.stdin) and _tells(complaint, word)
                    raise Unreadable("it is not allowed" if told else complaint)
        except Unreadable as error:
            shown = "" if self.secret or self.stdin else f" '{printable(word)}'"
            why = printable(" ".join(str(error).split()).encode("utf-8", "backslashreplace"), limit=None)
            raise UsageError(f"invalid argument {self.shown}{shown}: {why}") from None
        return value

    def conditions(self) -> Iterator[str]:
        """Say what a value has to fulfil, where that can be told."""
        for check in self._checks:
            if isinstance(check, Match):
                yield f"matching {check.pattern.pattern}"
            elif isinstance(check, Range):
                yield str(check)

    def _flags(self, marks: tuple[object, ...]) -> Iterator[str]:
        yield f"--{spelled(self.name)}"
        for mark in marks:
            if isinstance(mark, Option):
                yield from mark.names

    def _refuse_the_impossible(self, wanted: object, marks: tuple[object, ...]) -> None:
        for mark in marks:
            if isinstance(mark, type) or not (
                isinstance(mark, str | Marker | Match | Range | Option) or callable(mark)
            ):
                raise TypeError(f"{mark!r} is no marker, no text and no function")
            if isinstance(getattr(mark, "__self__", None), re.Pattern):
                raise TypeError(f"{mark!r} gives None for what does not match; write Match(...)")
            if isinstance(mark, Option) and self.kind is not Kind.OPTION:
                raise ValueError("only a keyword-only parameter is an option")
            if isinstance(mark, Range) and wanted not in (int, float):
                raise TypeError(f"{mark!r} is for int and float")
            if isinstance(mark, Match) and wanted is not str:
                raise TypeError(f"{mark!r} is for str")
            if mark is MULTILINE and wanted is not str:
                raise TypeError("MULTILINE is for str")
        if self.kind is Kind.CONTEXT and any(isinstance(mark, Marker) for mark in marks):
            raise TypeError("nothing comes from the caller's words into a Context")
        if self.kind is not Kind.CONTEXT and not spelled(self.name):
            raise ValueError("nobody could type its name")
        if self.stdin and self.kind is Kind.TAIL:
            raise ValueError("standard input is one argument, and not several")
        if self.stdin and self.default is not REQUIRED:
            raise ValueError("what comes on standard input has no default: remctld cannot tell nothing from empty")
        if wanted is BinaryIO and not self.stdin:
            raise TypeError("BinaryIO is for STDIN")
        if wanted is BinaryIO and self._checks:
            raise TypeError("a stream cannot be checked")
        if self.flag and self.default is REQUIRED:
            raise ValueError("an option of bool needs a default")

    def _refuse_the_default(self) -> None:
        """What the function takes for nothing has to be what it takes for something, unless it is None."""
        if self.default in (REQUIRED, None) or self.kind is Kind.CONTEXT:
            return
        if self.repeated and not isinstance(self.default, list | tuple):
            raise TypeError(f"the default is no list: {self.default!r}")
        for value in self.default if isinstance(self.default, list | tuple) else [self.default]:
            if not self.reader.fits(value):
                raise TypeError(f"the default is of another type: {value!r}")
            for check in self._checks:
                if isinstance(check, Match | Range) and (complaint := check.complaint(value)):
                    raise ValueError(f"the default {value!r}: {complaint}")

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.name}>"


def parameters_of(function: Callable[..., object]) -> list[Parameter]:
    """Return a function's parameters.

    Raises:
        TypeError, ValueError: no command could be called with them; the text says which.
    """
    signature = inspect.signature(function)
    if next(iter(signature.parameters), None) == "self":
        raise TypeError("parameter 'self': a method is declared when it is bound: backend.command(thing.method)")
    inner, scope = _inner(function)
    found = []
    for source in signature.parameters.values():
        try:
            found.append(Parameter(source, _type(inner.get(source.name, str), scope)))
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter {source.name!r}: {error}") from None
    for what, chosen in (
        ("a Context", [each for each in found if each.kind is Kind.CONTEXT]),
        ("standard input", [each for each in found if each.stdin]),
    ):
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0].name!r} and {chosen[1].name!r} cannot both be {what}")
    _refuse_a_moving_stdin(found)
    return found


def spelled(name: str) -> str:
    """A Python name as users of a command write it: max_size is max-size, and class_ is class."""
    return name.strip("_").replace("_", "-")


def comes_last(parameters: Sequence[Parameter]) -> bool:
    """Whether the argument on standard input, if there is one, is the last, however many there are."""
    arguments = [each for each in parameters if each.kind in (Kind.ARGUMENT, Kind.TAIL)]
    return bool(arguments) and arguments[-1].stdin


def _kind(source: inspect.Parameter, wanted: object, *, stdin: bool) -> Kind:
    if source.kind is source.VAR_KEYWORD:
        raise TypeError("a command takes no **keywords: each option is a parameter of its own")
    if wanted is Context:
        if source.kind is source.VAR_POSITIONAL:
            raise TypeError("there is one Context")
        return Kind.CONTEXT
    if source.kind is source.VAR_POSITIONAL:
        return Kind.TAIL
    if source.kind is source.KEYWORD_ONLY and not stdin:
        return Kind.OPTION
    return Kind.ARGUMENT


def _refuse_a_moving_stdin(parameters: Sequence[Parameter]) -> None:
    stdin = next((each for each in parameters if each.stdin), None)
    if stdin is not None and not comes_last(parameters) and any(each.kind is Kind.OPTION for each in parameters):
        raise ValueError(f"parameter {stdin.name!r}: options would move it; standard input has to be the last argument")


def _inner(function: Callable[..., object]) -> tuple[dict[str, object], dict[str, object]]:
    """The annotations of what is called in the end, and the names that they may use."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if not inspect.isroutine(inner):
        inner = inspect.unwrap(type(inner).__call__)
    inner = getattr(inner, "__func__", inner)
    return getattr(inner, "__annotations__", {}), getattr(inner, "__globals__", {})


def _type(annotation: object, scope: dict[str, object]) -> object:
    """An annotation, evaluated."""
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, scope, include_extras=True)["it"]
    except (NameError, AttributeError, SyntaxError) as error:
        raise TypeError(f"{error}: the types of a command's parameters have to be global names") from None


def _tells(complaint: str, word: bytes) -> bool:
    """Whether a text has an argument in it: as it is, or escaped, or without the blanks around it."""
    text = word.strip()
    if not text or len(text) > 4 * len(complaint):  # a character has 4 bytes at the most
        return False
    plain = text.decode("utf-8", "surrogateescape")
    return any(form in complaint for form in (plain, repr(plain)[1:-1], printable(text, limit=None)))


def _complaint(check: object, value: object) -> str | None:
    if isinstance(check, Match | Range):
        return check.complaint(value)
    assert callable(check)
    try:
        answer = check(value)
    except ValueError as error:
        return str(error) or "it is not allowed"
    if not (answer is None or isinstance(answer, bool)):  # as of re.Pattern.match, where None would mean the opposite
        raise TypeError(f"a check returns True or None, or False, and not a {type(answer).__name__}")
    return "it is not allowed" if answer is False else None
