"""What no command can be made of is refused when it is declared, by command and parameter."""

from __future__ import annotations

import enum
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO, List, Literal  # noqa: UP035

import pytest

from backend.calling import Function, backend_of, command_of, output, takes, takes_option
from remctl.backend import MULTILINE, SECRET, STDIN, Backend, Context, Match, Option, Range


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def is_even(number: int) -> bool:
    return number % 2 == 0


def keywords(**x: str) -> None: ...
def contexts(*x: Context) -> None: ...
def two_contexts(x: Context, y: Context) -> None: ...
def two_stdins(x: Annotated[bytes, STDIN], y: Annotated[bytes, STDIN]) -> None: ...
def many_stdins(*x: Annotated[bytes, STDIN]) -> None: ...
def optional_stdin(x: Annotated[bytes, STDIN] = b"") -> None: ...
def stdin_option(x: str, *, y: Annotated[bytes, STDIN] = b"") -> None: ...
def moving_stdin(x: Annotated[bytes, STDIN], y: str, *, quick: bool = False) -> None: ...
def moving_before_tail(x: Annotated[bytes, STDIN], *y: str, quick: bool = False) -> None: ...
def same_argument(x: str, x_: str) -> None: ...
def flag_of_no_default(*, x: bool) -> None: ...


@pytest.mark.parametrize(
    ("function", "error", "parameter"),
    [
        (keywords, TypeError, "x"),
        (contexts, TypeError, "x"),
        (two_contexts, ValueError, "y"),
        (two_stdins, ValueError, "y"),
        (many_stdins, ValueError, "x"),
        (optional_stdin, ValueError, "x"),
        (stdin_option, ValueError, "y"),
        (moving_stdin, ValueError, "x"),
        (moving_before_tail, ValueError, "x"),
        (same_argument, ValueError, "x"),
        (flag_of_no_default, ValueError, "x"),
    ],
)
def test_an_impossible_signature_is_refused_by_command_and_parameter(
    function: Function, error: type[Exception], parameter: str
) -> None:
    with pytest.raises(error, match=rf"^command 'test cmd': .*\b{parameter}\b"):
        command_of(function)


IMPOSSIBLE = [
    object,
    Any,
    list[str],
    dict[str, str],
    int | str,
    complex,
    Callable[[], None],
    [int],
    Literal[b"a"],
    "Unknown",
    "Path.nothing",
    "a b",
    "Annotated[str]",
    BinaryIO,
    Annotated[BinaryIO, STDIN, is_even],
    Annotated[str, 5],
    Annotated[str, int],
    Annotated[str, Range(1)],
    Annotated[bool, Range(1)],
    Annotated[int, Match("a")],
    Annotated[bytes, Match("a")],
    Annotated[int, MULTILINE],
    Annotated[bytes, MULTILINE],
    Annotated[str, Option("-x")],
    Annotated[str, re.compile("a").fullmatch],
    Annotated[Context, Range(1)],
    Annotated[Context, STDIN],
    Annotated[Context, SECRET],
]


@pytest.mark.parametrize("annotation", IMPOSSIBLE, ids=repr)
def test_an_impossible_annotation_is_refused_by_command_and_parameter(annotation: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^command 'test cmd': .*\bparameter 'x'"):
        command_of(takes(annotation))


@pytest.mark.parametrize(
    "annotation",
    [list, List, list[bytearray], list[list[str]], list[Annotated[bytes, STDIN]], BinaryIO, dict, "list[Unknown]"],  # noqa: UP006
    ids=repr,
)
def test_an_impossible_option_is_refused_by_command_and_parameter(annotation: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^command 'test cmd': .*\bparameter 'x'"):
        command_of(takes_option(annotation))


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, signal.SIGTERM),
        (float, 1),
        (str | None, None),
        (Annotated[int, Range(1)], 1),
        (Annotated[int | None, Range(1)], None),
        (Color, Color.RED),
        (Literal["a", 1], 1),
        (list[int], [1]),
        (list[int], ()),
        (Path, Path("/")),
        (bytes, b""),
    ],
    ids=repr,
)
def test_a_default_is_of_the_type(annotation: object, default: object) -> None:
    assert output(takes_option(annotation, default)) == repr(default)


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, "1"),
        (int, True),
        (int, 1.0),
        (str, 1),
        (float, "1"),
        (float, True),
        (bool, 1),
        (bytes, "a"),
        (Path, "/"),
        (Color, "red"),
        (Literal["a"], "b"),
        (list[int], ["a"]),
        (list[int], 5),
        (list[str], "abc"),
        (Annotated[int, Range(1)], 0),
        (Annotated[str, Match("a+")], ""),
        (list[Annotated[int, Range(1)]], [1, 0]),
    ],
    ids=repr,
)
def test_another_default_is_refused_by_command_and_parameter(annotation: object, default: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^command 'test cmd': parameter 'x': "):
        command_of(takes_option(annotation, default))


def test_a_parameter_needs_a_name_that_can_be_typed() -> None:
    def option(*, _: str = "") -> None: ...
    def argument(__: str) -> None: ...

    for function in (option, argument):
        with pytest.raises(ValueError, match=r"^command 'test cmd': parameter '_+'"):
            command_of(function)


def test_the_type_of_what_a_function_returns_need_not_be_known() -> None:
    def cmd(x: int) -> Missing:  # type: ignore[name-defined]  # noqa: F821
        return x

    assert backend_of(cmd).call(["test", "cmd", "5"]).status == 5


def test_a_parameter_is_shown_with_its_kind_and_name() -> None:
    def cmd(ctx: Context, x: str, *y: str, z: str = "") -> None: ...

    shown = [repr(each) for each in command_of(cmd).parameters]
    assert shown == ["<context ctx>", "<argument x>", "<tail y>", "<option z>"]


def test_what_cannot_be_leaves_no_command() -> None:
    backend = Backend("test")
    with pytest.raises(TypeError):
        backend.command(keywords)
    assert list(backend.commands()) == []
