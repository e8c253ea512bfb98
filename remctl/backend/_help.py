"""Help: a list of commands, laid out as Net::Remctl::Backend does it, and the page of one command."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from remctl.backend._command import Command
from remctl.backend._parameters import REQUIRED, Kind, Parameter

WIDTH: Final = 80
"""Columns of a terminal that nobody knows."""

LONGEST_SYNTAX: Final = 48
"""Columns of a syntax that still pushes the column of summaries to the right."""

SUMMARY_COLUMN: Final = 40
"""Where summaries stand when every syntax is longer than that."""

INDENT: Final = "  "


def listing(commands: Sequence[Command], shown: Sequence[Command], *, banner: str = "", width: int = WIDTH) -> str:
    """Return the list of commands: two columns, their syntax and their summaries.

    Args:
        commands: all commands, which the columns are made for.
        shown: those that are listed.
        banner: the first line; if there is one, the others are indented.
        width: columns of the terminal.
    """
    indent = INDENT if banner else ""
    longest = max(
        (len(line) for each in commands if len(line := indent + written(each)) <= LONGEST_SYNTAX), default=None
    )
    column = SUMMARY_COLUMN if longest is None else longest + 2
    lines = [banner] if banner else []
    for each in shown:
        lines += _entry(indent + written(each), each.summary, column, width)
    return "".join(f"{line}\n" for line in lines)


def page(command: Command, *, width: int = WIDTH) -> str:
    """Return all that there is to say about a command."""
    lines = _filled(written(command), "", "    ", width)
    paragraphs = command.text.split("\n\n") if command.text else [command.summary] if command.summary else []
    for paragraph in paragraphs:
        kept = any(line.startswith((" ", "-", "*")) for line in paragraph.splitlines())
        lines += ["", *(paragraph.splitlines() if kept else _filled(" ".join(paragraph.split()), "", "", width))]
    for title, parameters in (
        ("Arguments:", [each for each in command.parameters if each.kind in (Kind.ARGUMENT, Kind.TAIL)]),
        ("Options, which stand before the arguments:", command.options),
    ):
        if parameters:
            lines += ["", title]
            for each in parameters:
                lines += _entry(INDENT + ", ".join(_names(each)), "; ".join(_facts(each)), SUMMARY_COLUMN // 2, width)
    return "".join(f"{line}\n" for line in lines)


def written(command: Command) -> str:
    """Return a command as it is typed."""
    return f"{command.name} {command.syntax}".rstrip()


def _entry(left: str, right: str, column: int, width: int) -> list[str]:
    if not right:
        return [left]
    padding = " " * column
    if len(left) <= column - 2:
        return _filled(right, left.ljust(column), padding, width)
    return [left, *_filled(right, padding, padding, width)]


def _filled(text: str, first: str, others: str, width: int) -> list[str]:
    """Fill lines, which end before the last column, as terminals like it."""
    width = max(width - 1, len(others) + 20)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False) or [
        first.rstrip()
    ]


def _names(parameter: Parameter) -> Iterator[str]:
    if parameter.kind is not Kind.OPTION:
        yield parameter.shown
    for flag in parameter.flags:
        yield flag if parameter.flag else f"{flag} <{parameter.flags[0].lstrip('-')}>"
    yield from parameter.negations


def _facts(parameter: Parameter) -> Iterator[str]:
    if parameter.text:
        yield parameter.text
    if parameter.reader.choices is not None:
        yield f"one of {', '.join(parameter.reader.choices)}"
    yield from parameter.conditions()
    if parameter.kind is Kind.TAIL:
        yield "any number of them"
    if parameter.repeated:
        yield "may be given several times"
    if parameter.default is REQUIRED and parameter.kind is Kind.OPTION:
        yield "has to be given"
    if not _says_nothing(parameter.default) and not parameter.secret:
        yield f"default: {parameter.reader.written(parameter.default)}"


def _says_nothing(default: object) -> bool:
    """Whether a default is what everybody expects: 0 is not."""
    return default is REQUIRED or default is None or default is False or default in ("", b"", (), [])
