"""From a signature to the arguments of a command."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import pytest

from backend.calling import backend_of, call, command_of, complaint, output, takes, takes_option
from remctl.backend import MULTILINE, SECRET, STDIN, Context, Match, Range


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


# Types


@pytest.mark.parametrize(
    ("annotation", "word", "value"),
    [
        (str, "a", "'a'"),
        (int, "5", "5"),
        (float, "5", "5.0"),
        (bool, "yes", "True"),
        (bytes, b"\xff\0", r"b'\xff\x00'"),
        (Path, "/tmp", "PosixPath('/tmp')"),
        (Color, "red", "<Color.RED: 'red'>"),
        (Literal["a", 1], "1", "1"),
        (int | None, "5", "5"),
        (Annotated[int, "how many"], "5", "5"),
        (Annotated[int | None, "how many"], "5", "5"),
        ("Annotated[Color, 'which'] | None", "blue", "<Color.BLUE: 'blue'>"),
    ],
    ids=repr,
)
def test_the_annotation_says_what_the_function_gets(annotation: object, word: str | bytes, value: str) -> None:
    def cmd(x: object) -> str:
        return repr(x)

    cmd.__annotations__ = {"x": annotation}
    assert output(cmd, word) == value


def test_a_parameter_without_annotation_is_text() -> None:
    def cmd(x) -> str:  # type: ignore[no-untyped-def]
        return repr(x)

    assert output(cmd, "5") == "'5'"


def test_a_parameter_with_a_default_is_optional() -> None:
    def cmd(x: int, y: int = 7, z: str | None = None) -> str:
        return repr((x, y, z))

    assert output(cmd, "1") == "(1, 7, None)"
    assert output(cmd, "1", "2") == "(1, 2, None)"
    assert output(cmd, "1", "2", "3") == "(1, 2, '3')"


def test_a_tail_takes_any_number_each_of_its_type() -> None:
    def cmd(x: str = "none", *y: int) -> str:
        return repr((x, y))

    assert output(cmd) == "('none', ())"
    assert output(cmd, "a", "1", "2") == "('a', (1, 2))"
    assert complaint(cmd, "a", "1", "b") == "invalid argument <y> 'b': it is not a whole number"


def test_positional_only_parameters_are_arguments_too() -> None:
    def cmd(x: int, /, y: int) -> str:
        return repr((x, y))

    assert output(cmd, "1", "2") == "(1, 2)"


def test_the_types_of_a_wrapped_function_count() -> None:
    def logged(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def inner(*arguments: object) -> str:
            return f"logged {function(*arguments)}"

        return inner

    @logged
    def cmd(x: int) -> str:
        return repr(x)

    assert output(cmd, "5") == "logged 5"


def test_a_method_is_a_function() -> None:
    class Counter:
        def add(self, number: int) -> str:
            return repr(number)

    assert output(Counter().add, "5") == "5"


def test_a_method_that_is_not_bound_is_refused() -> None:
    class Counter:
        def add(self, number: int) -> None: ...

    with pytest.raises(TypeError, match=r"^command 'test cmd': parameter 'self': "):
        command_of(Counter.add)


def test_the_types_of_a_partial_function_count() -> None:
    def cmd(x: int, y: int) -> str:
        return repr((x, y))

    assert output(functools.partial(cmd, 1), "2") == "(1, 2)"


def test_the_types_of_an_object_that_can_be_called_count() -> None:
    class Counter:
        def __call__(self, number: int) -> str:
            return repr(number)

    assert output(Counter(), "5") == "5"


# Checks


def is_even(number: int) -> bool:
    return number % 2 == 0


def is_known(name: str) -> None:
    if name != "ada":
        raise ValueError(f"there is no {name}" if name else "")


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "reason"),
    [
        (Annotated[str, Match("[a-z]+")], "abc", "ABC", "it does not match [a-z]+"),
        (Annotated[int, Range(1, 5)], "5", "6", "it must be 1 to 5"),
        (Annotated[float, Range(0)], "0.5", "-0.5", "it must be 0 or more"),
        (Annotated[int, is_even], "4", "5", "it is not allowed"),
        (Annotated[str, is_known], "ada", "eve", "there is no eve"),
        (Annotated[str, is_known], "ada", "", "it is not allowed"),
        (Annotated[int, Range(1), is_even, "text"], "2", "0", "it must be 1 or more"),
        (Annotated[int, Range(1), is_even, "text"], "2", "3", "it is not allowed"),
    ],
    ids=repr,
)
def test_a_check_refuses_by_the_arguments_name(annotation: object, good: str, bad: str, reason: str) -> None:
    assert complaint(takes(annotation), bad) == f"invalid argument <x> '{bad}': {reason}"
    assert output(takes(annotation), good) in (good, repr(good))
    assert complaint(takes_option(annotation), f"--x={bad}") == f"invalid argument --x '{bad}': {reason}"


def test_a_check_sees_each_of_a_tail() -> None:
    def cmd(*x: Annotated[int, is_even]) -> str:
        return repr(x)

    assert output(cmd, "2", "4") == "(2, 4)"
    assert complaint(cmd, "2", "5") == "invalid argument <x> '5': it is not allowed"


@pytest.mark.parametrize("answer", [0, 0.0, 1, 2, "", "no", [], ()], ids=repr)
def test_a_check_that_answers_neither_yes_nor_no_fails_and_lets_nothing_through(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    result = backend_of(takes(Annotated[str, lambda value: answer])).call(["test", "cmd", "a"])
    assert (result.stdout, result.stderr, result.status) == (b"", b"test cmd: internal error\n", 70)
    assert "a check returns True or None, or False" in caplog.text


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2Jb", "a\u2028b", "a\r\nb\n"], ids=ascii)
def test_what_a_check_says_is_one_printable_line(text: str) -> None:
    def refuse(value: str) -> None:
        raise ValueError(text)

    assert complaint(takes(Annotated[str, refuse]), "x").startswith("invalid argument <x> 'x': a")


def test_a_pattern_of_several_lines_is_told_in_one() -> None:
    assert "it does not match" in complaint(takes(Annotated[str, Match("(?x) a\n b")]), "x")


@pytest.mark.parametrize("mark", [SECRET, STDIN])
def test_what_a_check_says_of_a_secret_stays_secret(mark: object) -> None:
    def is_number(value: str) -> None:
        int(value)  # whose error has the value in it

    assert "hunter2" not in complaint(takes(Annotated[str, mark, is_number]), "hunter2")


@pytest.mark.parametrize("secret", ["hunter2\n", " hunter2\t", "it's", "a\nb"])
def test_what_a_check_says_of_a_secret_stays_secret_with_blanks_and_escapes(secret: str) -> None:
    def is_strong(value: str) -> None:
        raise ValueError(f"{value} is weak, as is {value!r}")

    assert complaint(takes(Annotated[str, STDIN, SECRET, is_strong]), secret).endswith("<x>: it is not allowed")


def test_a_check_that_returns_the_secret_does_not_log_it(caplog: pytest.LogCaptureFixture) -> None:
    assert call(takes(Annotated[str, SECRET, str.strip]), "hunter2").status == 70
    assert "hunter2" not in caplog.text
    assert "and not a str" in caplog.text


def test_a_path_on_standard_input_has_no_lines() -> None:
    assert complaint(takes(Annotated[Path, STDIN]), "/etc\n/x").endswith("it has the control character '\\n'")


# Standard input, secrets, several lines


def test_standard_input_may_be_any_bytes_text_or_a_stream() -> None:
    def read(x: Annotated[BinaryIO, STDIN]) -> bytes:
        return x.read()

    assert output(read, "a\nb") == "a\nb"
    assert output(takes(Annotated[bytes, STDIN]), b"\xff\0") == r"b'\xff\x00'"
    assert output(takes(Annotated[str, STDIN]), "a\n\tb") == r"'a\n\tb'"
    assert complaint(takes(Annotated[str, STDIN]), b"\xff") == "invalid argument <x>: it is not UTF-8"


def test_a_text_of_several_lines_is_allowed_where_it_says_so() -> None:
    assert output(takes(Annotated[str, MULTILINE]), "a\nb") == r"'a\nb'"
    assert complaint(takes(Annotated[str, MULTILINE]), "\x1b").endswith(r"it has the control character '\x1b'")


def test_a_secret_is_not_shown() -> None:
    annotation = Annotated[str, SECRET, Match("[a-z]+")]
    assert complaint(takes(annotation), "Hunter2") == "invalid argument <x>: it does not match [a-z]+"
    assert complaint(takes_option(annotation), "--x", "Hunter2").startswith("invalid argument --x: ")


@pytest.mark.parametrize("annotation", [Annotated[list[int], SECRET], list[Annotated[int, SECRET]]], ids=repr)
def test_a_list_of_secrets_is_secret(annotation: object) -> None:
    cmd = takes_option(annotation)
    assert complaint(cmd, "--x", "hunter2") == "invalid argument --x: it is not a whole number"
    assert "hunter2" not in backend_of(cmd).shown([b"test", b"cmd", b"--x", b"hunter2"])


# What the function asks for itself


def test_the_context_may_stand_anywhere() -> None:
    def first(context: Context, x: int) -> str:
        return f"{context.principal} {x}"

    def last(x: int, context: Context) -> str:
        return f"{context.principal} {x}"

    def named(*x: int, context: Context) -> str:
        return f"{context.principal} {x[0]}"

    for cmd in (first, last, named):
        assert output(cmd, "5") == "user@EXAMPLE.ORG 5"
