"""Options: keyword-only parameters, which stand before the arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.calling import backend_of, command_of, complaint, output, takes_option
from remctl.backend import SECRET, STDIN, Option, Range


def copy(
    *paths: str,
    max_size: int = 0,
    quick: Annotated[bool, Option("-q")] = False,
    check: bool = True,
    skip: Annotated[list[str], Option("-s", "--leave-out")] = (),  # type: ignore[assignment]
) -> str:
    return repr((max_size, quick, check, skip, paths))


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("", (0, False, True, (), ())),
        ("a b", (0, False, True, (), ("a", "b"))),
        ("--max-size 5 a", (5, False, True, (), ("a",))),
        ("--max-size=5 a", (5, False, True, (), ("a",))),
        ("--max-size 5 --max-size 6", (6, False, True, (), ())),
        ("--max-size -5 a", (-5, False, True, (), ("a",))),
        ("--quick a", (0, True, True, (), ("a",))),
        ("-q a", (0, True, True, (), ("a",))),
        ("--no-quick a", (0, False, True, (), ("a",))),
        ("--quick --no-quick", (0, False, True, (), ())),
        ("--no-check", (0, False, False, (), ())),
        ("--skip x -s y -sz --leave-out w", (0, False, True, ["x", "y", "z", "w"], ())),
        ("-qsx", (0, True, True, ["x"], ())),
        ("a --quick", (0, False, True, (), ("a", "--quick"))),
        ("-q -- --quick", (0, True, True, (), ("--quick",))),
        ("-- -- a", (0, False, True, (), ("--", "a"))),
        ("a -- b", (0, False, True, (), ("a", "--", "b"))),
        ("-", (0, False, True, (), ("-",))),
        ("-5", (0, False, True, (), ("-5",))),
    ],
)
def test_options_stand_before_the_arguments(words: str, result: object) -> None:
    assert output(copy, *words.split()) == repr(result)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--max-size x", "invalid argument --max-size 'x': it is not a whole number"),
        ("--max-size", "argument --max-size: expected one argument"),
        ("--max 5", "unrecognized arguments: --max"),
        ("--bogus a", "unrecognized arguments: --bogus"),
        ("-x a", "unrecognized arguments: -x"),
        ("--no-max-size a", "unrecognized arguments: --no-max-size"),
        ("--bogus=value a", "unrecognized arguments: --bogus"),
        ("--bo\x1b[2Jgus", "unrecognized arguments: --bo\\x1b[2Jgus"),
        ("--bo\x01gus", "unrecognized arguments: --bo\\x01gus"),
    ],
)
def test_what_is_no_option_is_refused_by_its_name(words: str, reason: str) -> None:
    assert complaint(copy, *words.split(" ")) == reason


@pytest.mark.parametrize("word", ["-1", "-2.5"])
def test_a_number_below_zero_is_no_option(word: str) -> None:
    def cmd(x: float, *, quick: bool = False) -> str:
        return word if x == float(word) else "another"

    assert output(cmd, word) == word


def test_joined_flags_are_so_many_at_the_most() -> None:
    def cmd(*, quick: Annotated[bool, Option("-q")] = False, name: Annotated[str, Option("-n")] = "") -> str:
        return f"{quick} {len(name)}"

    assert output(cmd, "-" + "q" * 99) == "True 0"
    assert output(cmd, "-n" + "q" * 1000) == "False 1000"
    assert complaint(cmd, "-" + "q" * 1_000_000) == "more than 100 letters in one word: -q"


def test_a_word_in_a_message_is_cut() -> None:
    assert len(complaint(copy, b"--" + b"\xff" * 100_000)) < 1000


def test_an_option_without_default_has_to_be_given() -> None:
    def cmd(*, owner: str) -> str:
        return owner

    assert output(cmd, "--owner", "ada") == "ada"
    assert "--owner" in complaint(cmd)


def test_a_list_without_default_has_to_be_given_once() -> None:
    def cmd(*, owner: list[str]) -> str:
        return repr(owner)

    assert output(cmd, "--owner", "ada") == "['ada']"
    assert "--owner" in complaint(cmd)


@pytest.mark.parametrize(
    ("annotation", "words", "value"),
    [
        (list[int], ["--x", "1", "--x=2"], "[1, 2]"),
        (list[bool], ["--x", "yes"], "[True]"),
        (list[Annotated[int, Range(1)]], ["--x", "1"], "[1]"),
        (list[int] | None, ["--x", "1"], "[1]"),
        (bytes, ["--x", b"\xff\0"], r"b'\xff\x00'"),
        (bytes, [b"--x=\xff"], r"b'\xff'"),
        (Path, [b"--x", b"\xff"], r"PosixPath('\udcff')"),
        (bool | None, ["--no-x"], "False"),
        (bool | None, [], "None"),
        (str, ["--x", ""], "''"),
        (str, ["--x="], "''"),
        (str, ["--x=--x"], "'--x'"),
        (str, ["--x=--"], "'--'"),
        (list[str], ["--x=--", "--x=-"], "['--', '-']"),
    ],
    ids=repr,
)
def test_an_option_is_of_any_type(annotation: object, words: list[str | bytes], value: str) -> None:
    assert output(takes_option(annotation), *words) == value


def test_each_of_a_list_is_checked() -> None:
    for annotation in (list[Annotated[int, Range(1)]], Annotated[list[int], Range(1)]):
        cmd = takes_option(annotation)
        assert complaint(cmd, "--x", "1", "--x", "0") == "invalid argument --x '0': it must be 1 or more"


def test_an_option_whose_name_begins_with_no_is_turned_on_by_its_name() -> None:
    def cmd(*, no_color: bool = False) -> str:
        return repr(no_color)

    assert output(cmd, "--no-color") == "True"
    assert output(cmd, "--no-no-color") == "False"
    assert output(cmd) == "False"


@pytest.mark.parametrize("name", ["arguments", "help", "dest", "self", "args", "func", "version"])
def test_an_option_may_have_any_name(name: str) -> None:
    scope: dict[str, object] = {}
    exec(f"def cmd(*rest: str, {name}: str = 'none') -> str: return {name} + repr(rest)", scope)
    cmd = scope["cmd"]
    assert callable(cmd)
    assert output(cmd, f"--{name}", "value", "x", "y") == "value('x', 'y')"


def test_underscores_are_hyphens_and_those_at_the_ends_are_left_out() -> None:
    def cmd(*, class_: str = "", max_size: int = 0) -> str:
        return f"{class_} {max_size}"

    assert output(cmd, "--class", "a", "--max-size", "5") == "a 5"


def test_a_list_by_default_is_a_new_one_for_each_call() -> None:
    def cmd(*, x: list[int] = [1]) -> str:  # noqa: B006
        x.append(2)
        return repr(x)

    backend = backend_of(cmd)
    for _ in range(2):
        assert backend.call(["test", "cmd"]).stdout == b"[1, 2]"


# Two options of one name


def negated(*, x: bool = False, no_x: bool = False) -> None: ...
def negated_by_text(*, x: bool = False, no_x: str = "") -> None: ...
def negated_further(*, x: bool = False, y: Annotated[str, Option("--no-x")] = "") -> None: ...
def negation_of_further(*, x: Annotated[bool, Option("--quick")] = False, no_quick: str = "") -> None: ...
def same_letter(*, x: Annotated[str, Option("-q")] = "", y: Annotated[str, Option("-q")] = "") -> None: ...
def same_name(*, x: str = "", x_: str = "") -> None: ...
def own_name(*, x: Annotated[str, Option("--x")] = "") -> None: ...


@pytest.mark.parametrize(
    "function", [negated, negated_by_text, negated_further, negation_of_further, same_letter, same_name, own_name]
)
def test_two_options_of_one_name_are_refused(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=r"^command 'test cmd': two parameters are called -"):
        command_of(function)


# What may be secret, and what comes on standard input


SECRETS = ["--hunter2", "-hunter2", "--hunter2=hunter2", "-qhunter2", "--quick=hunter2", "--bogus hunter2"]


@pytest.mark.parametrize("word", SECRETS)
def test_a_secret_that_looks_like_an_option_is_not_shown(word: str) -> None:
    def argument(password: Annotated[str, SECRET], *, quick: Annotated[bool, Option("-q")] = False) -> None: ...
    def option(
        *, password: Annotated[str, SECRET, Option("-p")] = "", quick: Annotated[bool, Option("-q")] = False
    ) -> None: ...

    for function in (argument, option):
        result = backend_of(function).call(["test", "cmd", word, "more", "words"])
        assert result.status == 64
        assert b"hunter2" not in result.stderr


def put(data: Annotated[bytes, STDIN], *, quick: Annotated[bool, Option("-q")] = False) -> str:
    return repr((data, quick))


@pytest.mark.parametrize("data", [b"--quick", b"-q", b"--", b"--bogus", b"-----BEGIN", b"--quick=x", b"", b"-q x"])
def test_standard_input_is_never_an_option(data: bytes) -> None:
    # remctld takes the last word away before the program sees the others: a server in the program does the same.
    assert output(put, data) == repr((data, False))
    assert output(put, "--quick", data) == repr((data, True))


@given(st.binary())
def test_standard_input_arrives_whatever_it_is(data: bytes) -> None:
    assert output(put, "-q", data) == repr((data, True))


@given(st.lists(st.binary(), max_size=4))
def test_what_follows_the_end_of_the_options_arrives_as_it_was_sent(words: list[bytes]) -> None:
    def cmd(*rest: bytes, quick: bool = False) -> str:
        return repr((rest, quick))

    assert output(cmd, "--quick", "--", *words) == repr((tuple(words), True))
