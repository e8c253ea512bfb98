"""How the words of a command become the arguments of its function, and what logs show of them."""

from __future__ import annotations

from io import BytesIO
from typing import IO, Annotated, BinaryIO

import pytest

from backend.calling import backend_of, command_of, complaint, output
from remctl.backend import SECRET, STDIN, Backend, Context
from remctl.backend._context import Caller
from remctl.types import Stream


class Nowhere:
    """A sink for those who write nothing."""

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
        pytest.fail("something was written")

    async def drain(self) -> None:
        """There is always room."""


CONTEXT = Context(("test", "cmd"), Caller("a@R", "", "", None), Nowhere())


def bound(function: object, words: list[bytes], stdin: IO[bytes] | None = None) -> tuple[list[object], object]:
    """What a function is called with."""
    assert callable(function)
    return command_of(function).bind(words, CONTEXT, stdin)


# How many words


def none() -> str:
    return "none"


def two(a: str, b: int) -> str:
    return repr((a, b))


def some(a: str, b: int = 0, c: int = 0) -> str:
    return repr((a, b, c))


@pytest.mark.parametrize(
    ("function", "words", "reason"),
    [
        (none, "x", "too many arguments: none is taken, and 1 given"),
        (two, "x 1 y", "too many arguments: 2 are taken, and 3 given"),
        (two, "", "insufficient arguments: <a> is missing"),
        (two, "x", "insufficient arguments: <b> is missing"),
        (some, "", "insufficient arguments: <a> is missing"),
        (two, "x y", "invalid argument <b> 'y': it is not a whole number"),
    ],
)
def test_too_few_and_too_many_words_are_refused(function: object, words: str, reason: str) -> None:
    assert callable(function)
    assert complaint(function, *words.split()) == reason


def test_one_word_too_many_is_refused_by_what_may_be_given() -> None:
    def one(a: str) -> None: ...

    assert complaint(one, "x", "y") == "too many arguments: 1 is taken, and 2 given"
    assert complaint(some, *"wxyz") == "too many arguments: 3 are taken, and 4 given"


@pytest.mark.parametrize("word", [b"\xff", b"\x1b[2J", b"a\nb", "\u202e".encode(), b"x" * 5000, b"\0"])
def test_a_wrong_word_is_shown_so_that_it_does_no_harm(word: bytes) -> None:
    line = complaint(two, "x", word)
    assert line.startswith("invalid argument <b> '")
    assert len(line) < 600


# Standard input


def first(data: Annotated[bytes, STDIN], a: str, *more: str) -> str:
    return repr((data, a, more))


def middle(a: str, data: Annotated[bytes, STDIN], b: str = "none") -> str:
    return repr((a, data, b))


def last(a: str, *more: str, data: Annotated[bytes, STDIN]) -> str:
    return repr((a, more, data))


def optional(a: str = "none", *, data: Annotated[bytes, STDIN]) -> str:
    return repr((a, data))


def alone(data: Annotated[bytes, STDIN]) -> str:
    return repr(data)


@pytest.mark.parametrize(
    ("function", "words", "result"),
    [
        (first, "D a", (b"D", "a", ())),
        (first, "D a b c", (b"D", "a", ("b", "c"))),
        (middle, "a D", ("a", b"D", "none")),
        (middle, "a D b", ("a", b"D", "b")),
        (last, "a D", ("a", (), b"D")),
        (last, "a b c D", ("a", ("b", "c"), b"D")),
        (optional, "D", ("none", b"D")),
        (optional, "a D", ("a", b"D")),
        (alone, "D", b"D"),
    ],
)
def test_standard_input_is_taken_from_where_the_client_puts_it(function: object, words: str, result: object) -> None:
    assert callable(function)
    assert output(function, *words.split()) == repr(result)


@pytest.mark.parametrize(
    ("function", "words", "reason"),
    [
        (alone, "", "insufficient arguments: <data> is missing"),
        (alone, "x y", "too many arguments: none is taken, and 1 given"),
        (first, "", "insufficient arguments: <data> is missing"),
        (first, "D", "insufficient arguments: <a> is missing"),
        (middle, "", "insufficient arguments: <a> is missing"),
        (middle, "a", "insufficient arguments: <data> is missing"),
        (last, "", "insufficient arguments: <data> is missing"),
        (last, "D", "insufficient arguments: <a> is missing"),
        (optional, "a b D", "too many arguments: 1 is taken, and 2 given"),
    ],
)
def test_what_is_missing_besides_standard_input_is_named(function: object, words: str, reason: str) -> None:
    assert callable(function)
    assert complaint(function, *words.split()) == reason


def test_under_remctld_standard_input_is_read_and_the_words_are_the_others() -> None:
    assert bound(middle, [b"a", b"b"], BytesIO(b"D")) == (["a", b"D", "b"], {})
    assert bound(last, [b"a", b"b"], BytesIO(b"D")) == (["a", "b"], {"data": b"D"})
    assert bound(alone, [], BytesIO(b"")) == ([b""], {})


def stream(data: Annotated[BinaryIO, STDIN]) -> None: ...


def test_a_function_may_read_standard_input_itself() -> None:
    stdin = BytesIO(b"D")
    positional, _ = bound(stream, [], stdin)
    assert positional == [stdin]


def test_standard_input_of_a_program_is_not_read_for_who_does_not_ask() -> None:
    stdin = BytesIO(b"D")
    assert bound(two, [b"a", b"1"], stdin) == (["a", 1], {})
    assert stdin.tell() == 0


# What logs show


def secrets(a: str, password: Annotated[str, SECRET], b: str = "", *c: str) -> None: ...
def secret_tail(a: str, *passwords: Annotated[str, SECRET]) -> None: ...
def secret_option(*a: str, token: Annotated[str, SECRET] = "") -> None: ...
def secret_stdin(password: Annotated[str, SECRET], data: Annotated[bytes, STDIN, SECRET]) -> None: ...
def tail_and_stdin(*passwords: Annotated[str, SECRET], data: Annotated[bytes, STDIN]) -> None: ...
def one_secret(password: Annotated[str, SECRET]) -> None: ...
def tail_and_secret_stdin(*names: str, password: Annotated[str, STDIN, SECRET]) -> None: ...
def many(*words: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "words", "shown"),
    [
        (two, "a 1", "a 1"),
        (two, "a 1 2 3", "a 1 2 3"),
        (two, "", ""),
        (secrets, "a hunter2 b c d", "a **MASKED** b c d"),
        (secrets, "a", "a"),
        (secret_tail, "a hunter2 hunter3", "a **MASKED** **MASKED**"),
        (secret_option, "--token hunter2 a", "**MASKED** **MASKED** **MASKED**"),
        (secret_option, "--token=hunter2", "**MASKED**"),
        (first, "D a b", "**DATA** a b"),
        (middle, "a D b", "a **DATA** b"),
        (middle, "a", "a"),
        (last, "a b D", "a b **DATA**"),
        (last, "", ""),
        (secret_stdin, "hunter2 hunter3", "**MASKED** **DATA**"),
        (one_secret, "quotation marks forgotten", "**MASKED** **MASKED** **MASKED**"),
        (tail_and_secret_stdin, "a b hunter2", "a b **DATA**"),
        (tail_and_stdin, "hunter2 hunter3 D", "**MASKED** **MASKED** **DATA**"),
        (tail_and_stdin, "hunter2", "**DATA**"),
    ],
)
def test_logs_show_neither_secrets_nor_standard_input(function: object, words: str, shown: str) -> None:
    assert callable(function)
    sent = [word.encode() for word in ("test", "cmd", *words.split())]
    assert backend_of(function).shown(sent) == f"test cmd {shown}".rstrip()


def test_logs_show_what_cannot_be_printed_escaped_and_cut() -> None:
    shown = backend_of(many).shown([b"test", b"cmd", b"\x1b[2J", b"\xff", "\u202e".encode(), b"x" * 5000])
    assert shown == rf"test cmd \x1b[2J \xff \u202e {'x' * 100}"


def test_logs_show_so_many_words() -> None:
    shown = backend_of(many).shown([b"test", b"cmd", *[b"w"] * 1000])
    assert shown == "test cmd" + " w" * 100 + " ..."
    secret = backend_of(secret_tail).shown([b"test", b"cmd", *[b"hunter2"] * 1000])
    assert "hunter2" not in secret[len("test cmd hunter2") :]


@pytest.mark.parametrize(
    ("words", "shown"), [(b"test", "test"), (b"test nothing hunter2", "test nothing"), (b"no hunter2 x", "no hunter2")]
)
def test_logs_show_two_words_of_what_is_no_command(words: bytes, shown: str) -> None:
    assert backend_of(two).shown(words.split()) == shown


def test_logs_show_help_and_defaults() -> None:
    backend = Backend("test")
    backend.default(none)
    assert backend.shown([b"test"]) == "test"
    assert backend.shown([b"test", b"help", b"x"]) == "test help x"


# By itself


def test_a_command_is_a_function() -> None:
    with pytest.raises(TypeError, match=r"^a command is a function: 5$"):
        command_of(5)  # type: ignore[arg-type]


def test_a_command_shows_its_words() -> None:
    assert repr(command_of(two)) == "<command 'test cmd'>"


@pytest.mark.parametrize("name", ["summary", "syntax"])
@pytest.mark.parametrize(("text", "error"), [("a\nb", ValueError), ("\x1b", ValueError), (5, TypeError)])
def test_summary_and_syntax_are_one_line_each(name: str, text: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"'test cmd'.*{name} must be "):
        Backend("test").command("cmd", **{name: text})(two)  # type: ignore[call-overload]


def test_the_first_line_of_the_docstring_is_the_summary() -> None:
    def cmd() -> None:
        """Do it.

        More.
        """

    command = command_of(cmd)
    assert (command.summary, command.text) == ("Do it", "Do it.\n\nMore.")


def test_without_docstring_there_is_no_summary() -> None:
    assert command_of(two).summary == ""
