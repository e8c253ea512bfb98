"""A command: a function, and how words become its arguments."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final

from remctl._arguments import printable
from remctl.acl import Acl
from remctl.backend._context import Context
from remctl.backend._errors import UsageError
from remctl.backend._parameters import REQUIRED, Kind, Parameter, comes_last, parameters_of, spelled

Function = Callable[..., Any]

LONGEST: Final = 100
"""Words that logs show of a command, and that are masked where it is not known which of them are secret."""


class Command:
    """A function, and how it is called.

    Args:
        path: the words that choose it.
        function: the function.
        acl: who may run it.
        summary: one line about it; None takes the first of the docstring.
        syntax: what follows the path; None makes it from the signature.
        hidden: whether help leaves it out.

    Raises:
        TypeError, ValueError: no command can be made of it.
    """

    path: tuple[str, ...]
    function: Function
    acl: Acl
    """Who may run it."""
    parameters: list[Parameter]
    summary: str
    text: str
    """The whole docstring."""
    syntax: str
    hidden: bool
    asynchronous: bool
    """Whether it is called in an event loop."""
    options: list[Parameter]
    stdin: int | None
    """Which argument, from 0, comes on standard input; -1 is the last one, and None is none."""

    def __init__(
        self,
        path: tuple[str, ...],
        function: Function,
        acl: Acl,
        *,
        summary: str | None = None,
        syntax: str | None = None,
        hidden: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(f"a command is a function: {function!r}")
        self.path = path
        self.function = function
        self.acl = acl
        try:
            self.parameters = parameters_of(function)
            _refuse_doubles(self.parameters)
            self.text = inspect.getdoc(function) or ""
            self.summary = (
                self.text.partition("\n")[0].rstrip(".") if summary is None else _check_line("summary", summary)
            )
            self.syntax = " ".join(_written(self.parameters)) if syntax is None else _check_line("syntax", syntax)
        except (TypeError, ValueError) as error:
            raise type(error)(f"command '{self.name}': {error}") from None
        self.hidden = hidden
        self.asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self._arguments = [each for each in self.parameters if each.kind is Kind.ARGUMENT]
        self._tail = next((each for each in self.parameters if each.kind is Kind.TAIL), None)
        self.options = [each for each in self.parameters if each.kind is Kind.OPTION]
        self._needed = [each for each in self._arguments if each.default is REQUIRED and not each.stdin]
        self._stdin = next((each for each in self._arguments if each.stdin), None)
        self._worded = [each for each in self._arguments if not each.stdin]
        self.stdin = _place_of_stdin(self.parameters)
        self._parser: Any = None

    @property
    def name(self) -> str:
        """The words that choose it, as one text."""
        return " ".join(self.path)

    def bind(
        self, words: Sequence[bytes], context: Context, stdin: IO[bytes] | None = None
    ) -> tuple[list[object], dict[str, object]]:
        """Return what the function is to be called with.

        Args:
            words: what follows the path.
            context: for the function that asks for it.
            stdin: where the argument for standard input is read from; None takes it from the words, as they come
                from a client.

        Raises:
            UsageError: the words do not fit.
        """
        data, words = self._take_stdin(list(words), stdin)  # first: what it holds is no option
        options, words = self._take_options(words)
        if self._tail is None and len(words) > len(self._worded):
            raise UsageError(f"too many arguments: {_count(len(self._worded))} {len(words)} given")
        if len(words) < len(self._needed):
            raise UsageError(f"insufficient arguments: {self._needed[len(words)].shown} is missing")
        values: dict[str, object] = options | data
        values |= {each.name: each.read(word) for each, word in zip(self._worded, words, strict=False)}
        rest = words[len(self._worded) :]
        return self._sorted(values, context, [self._tail.read(word) for word in rest] if self._tail else [])

    def shown(self, words: Sequence[bytes]) -> list[str]:
        """Return what follows the path as logs show it: printable, and without what is secret."""
        mask = self.secret_places()
        # What is too much may belong to a secret whose quotation marks were forgotten.
        known = len(self._arguments) if mask and self._tail is None else LONGEST
        shown = [
            "**MASKED**" if place in mask or place >= known else printable(word)
            for place, word in enumerate(words[:LONGEST])
        ]
        if shown and self.stdin is not None and self.stdin < len(shown):
            shown[self.stdin] = "**DATA**"
        return shown + ["..."] * (len(words) > LONGEST)

    def secret_places(self) -> range | set[int]:
        """Return which of the words that follow the path may be secret, from 0.

        Where there are options, nobody knows where they end before they are read: then it is all of them.
        """
        if not any(each.secret for each in self.parameters):
            return set()
        if self.options:
            return range(LONGEST)
        floats = self.stdin == -1 and self._tail is not None  # then its place is not known, and it is masked as data
        places = {place for place, each in enumerate(self._arguments) if each.secret and not (each.stdin and floats)}
        if self._tail is not None and self._tail.secret:
            places |= set(range(sum(not each.named for each in self._arguments), LONGEST))
        return places

    def _take_options(self, words: Sequence[bytes]) -> tuple[dict[str, object], Sequence[bytes]]:
        if not self.options:
            return {}, words
        if self._parser is None:
            from remctl.backend._options import Options

            self._parser = Options(self.options, secret=any(each.secret for each in self.parameters))
        values, rest = self._parser.take(words)
        return values, rest

    def _take_stdin(self, words: list[bytes], stdin: IO[bytes] | None) -> tuple[dict[str, object], list[bytes]]:
        """Take the argument on standard input out of the words, or read it."""
        if self._stdin is None or self.stdin is None:
            return {}, words
        name = self._stdin.name
        if stdin is None:
            if len(words) <= max(self.stdin, 0):
                missing = self._stdin if self.stdin < 0 else self._arguments[len(words)]
                raise UsageError(f"insufficient arguments: {missing.shown} is missing")
            stdin = io.BytesIO(words.pop(self.stdin))
        return {name: stdin if self._stdin.streamed else self._stdin.read(stdin.read())}, words

    def _sorted(
        self, values: dict[str, object], context: Context, tail: list[object]
    ) -> tuple[list[object], dict[str, object]]:
        """By position what the function takes so, and by name the rest."""
        positional: list[object] = []
        named: dict[str, object] = {}
        for parameter in self.parameters:
            value = context if parameter.kind is Kind.CONTEXT else values.get(parameter.name, parameter.default)
            if parameter.repeated and isinstance(value, list):
                value = [*value]  # the function may change it, and a default is there for the next call too
            if parameter.kind is Kind.TAIL:
                positional += tail
            elif parameter.named:
                named[parameter.name] = value
            else:
                positional.append(value)
        return positional, named

    def __repr__(self) -> str:
        return f"<command '{self.name}'>"


def _written(parameters: Sequence[Parameter]) -> Iterator[str]:
    """The syntax of a command, in the order in which it is typed."""
    for each in parameters:
        if each.kind is Kind.OPTION:
            text = each.flags[0] if each.flag else f"{each.flags[0]} <{spelled(each.name)}>"
            text = each.negations[0] if each.flag and each.default is True else text
            text += " ..." if each.repeated else ""
            yield text if each.default is REQUIRED else f"[{text}]"
    for each in parameters:
        if each.kind is Kind.ARGUMENT and not (each.stdin and comes_last(parameters)):
            yield each.shown if each.default is REQUIRED else f"[{each.shown}]"
        elif each.kind is Kind.TAIL:
            yield f"[{each.shown} ...]"
    if comes_last(parameters):
        yield next(each.shown for each in parameters if each.stdin)


def _place_of_stdin(parameters: Sequence[Parameter]) -> int | None:
    if comes_last(parameters):
        return -1
    arguments = [each for each in parameters if each.kind is Kind.ARGUMENT]
    return next((place for place, each in enumerate(arguments) if each.stdin), None)


def _refuse_doubles(parameters: Sequence[Parameter]) -> None:
    seen: set[str] = set()
    for each in parameters:
        for name in (*each.flags, *each.negations) if each.flags else (each.shown,):
            if name in seen:
                raise ValueError(f"two parameters are called {name}")
            seen.add(name)


def _check_line(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str: {text!r}")
    if not (text.isprintable() or not text):
        raise ValueError(f"{name} must be one line: {text!r}")
    return text


def _count(number: int) -> str:
    return "none is taken, and" if number == 0 else f"{number} {'is' if number == 1 else 'are'} taken, and"
