"""The lines for remctld's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest

from backend.calling import Function
from remctl.backend import SECRET, STDIN, Backend, CommandError
from remctl.backend._program import _answer_to_remctld
from remctl.backend._remctld import config, print_config


def plain(a: str = "") -> None: ...
def first(data: Annotated[bytes, STDIN], a: str) -> None: ...
def second(a: str, data: Annotated[bytes, STDIN], b: str) -> None: ...
def last(*a: str, data: Annotated[bytes, STDIN]) -> None: ...
def secrets(a: Annotated[str, SECRET], b: str, c: Annotated[str, SECRET]) -> None: ...
def secret_behind_stdin(data: Annotated[bytes, STDIN], a: Annotated[str, SECRET]) -> None: ...
def secret_tail(a: str, *b: Annotated[str, SECRET]) -> None: ...
def secret_option(a: str, *, token: Annotated[str, SECRET] = "") -> None: ...
def default() -> None: ...


HELP = "test help /prog ANYUSER"
EMPTY = "test EMPTY /prog help=--help=test ANYUSER"
REST = "help=--help=test summary=--summary=test ANYUSER"


def lines(backend: Backend) -> list[str]:
    return list(config(backend, "/prog"))


def line(function: Function, *groups: str, hidden: bool = False) -> str:
    """The line of the only command of a backend."""
    backend = Backend("test")
    place = backend
    for name in groups:
        place = place.group(name)  # type: ignore[assignment]
    place.command("cmd", hidden=hidden)(function)
    found, *rest = lines(backend)
    assert rest == [HELP, EMPTY]
    return found


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (plain, ""),
        (first, "stdin=2 "),
        (second, "stdin=3 "),
        (last, "stdin=last "),
        (secrets, "logmask=2,4 "),
        (secret_behind_stdin, "stdin=2 logmask=3 "),
    ],
)
def test_positions_count_from_the_subcommand_which_is_1(function: Function, options: str) -> None:
    assert line(function) == f"test cmd /prog {options}{REST}"


def masked(text: str) -> list[int]:
    option = next(word for word in text.split() if word.startswith("logmask="))
    return [int(place) for place in option.removeprefix("logmask=").split(",")]


def test_a_tail_of_secrets_is_masked_as_far_as_logs_go() -> None:
    assert masked(line(secret_tail)) == list(range(3, 102))


def test_a_command_with_a_secret_option_is_masked_as_a_whole() -> None:
    assert masked(line(secret_option)) == list(range(2, 102))


@pytest.mark.parametrize(
    ("function", "options"),
    [(plain, ""), (first, "stdin=4 "), (second, "stdin=5 "), (last, "stdin=last "), (secrets, "logmask=4,6 ")],
)
def test_in_groups_the_further_words_count_too(function: Function, options: str) -> None:
    assert line(function, "a", "b") == f"test a /prog {options}{REST}"


def test_a_hidden_command_is_in_no_summary() -> None:
    assert line(plain, hidden=True) == "test cmd /prog help=--help=test ANYUSER"


def test_a_command_without_subcommand_takes_all() -> None:
    backend = Backend()
    backend.command("one")(second)
    backend.command("two")(secrets)
    assert lines(backend) == [
        "one ALL /prog stdin=2 help=--help=one summary=--summary=one ANYUSER",
        "two ALL /prog logmask=1,3 help=--help=two summary=--summary=two ANYUSER",
    ]


def test_each_first_word_has_lines_of_its_own() -> None:
    backend = Backend()
    backend.group("b").command("cmd")(plain)
    backend.group("a").command("cmd")(plain)
    assert [text.split()[:2] for text in lines(backend)] == [
        [word, subcommand] for word in "ab" for subcommand in ("cmd", "help", "EMPTY")
    ]


def test_a_default_has_a_line_instead_of_help() -> None:
    backend = Backend("test", acl="princ:ada@R")
    backend.default(default)
    empty, *rest = lines(backend)
    assert empty.startswith("test EMPTY /prog help=--help=test ")
    assert empty.endswith(" princ:ada@R")
    assert rest == [HELP]


def test_a_command_help_has_the_line_of_help() -> None:
    backend = Backend("test")
    backend.command("help")(plain)
    assert lines(backend) == [f"test help /prog {REST}", EMPTY]


def test_a_group_of_nothing_has_no_line() -> None:
    backend = Backend("test")
    backend.group("a").group("b")
    assert lines(backend) == [HELP, EMPTY]


def test_the_acl_ends_the_line() -> None:
    backend = Backend("test")
    backend.command("cmd", acl=["princ:ada@R", "/etc/acl"])(plain)
    assert lines(backend)[0].endswith(" summary=--summary=test princ:ada@R /etc/acl")


def test_commands_that_share_a_line_share_what_it_says() -> None:
    backend = Backend("test")
    group = backend.group("a", acl="princ:ada@R")
    group.default(default)
    group.command("b", hidden=True)(plain)
    group.command("c")(secrets)
    group.group("d").command("e")(secrets)
    assert lines(backend) == [
        "test a /prog logmask=3,4,5,6 help=--help=test summary=--summary=test princ:ada@R",
        HELP,
        EMPTY,
    ]


@pytest.mark.parametrize("other", [plain, second, last])
def test_commands_that_share_a_line_cannot_differ_in_standard_input(other: Function) -> None:
    backend = Backend("test")
    group = backend.group("a")
    group.command("b")(first)
    group.command("c")(other)
    with pytest.raises(CommandError, match=r"under 'test a' have different arguments on standard input"):
        lines(backend)


def test_commands_that_share_a_line_cannot_differ_in_their_acls() -> None:
    backend = Backend("test")
    group = backend.group("a")
    group.command("b")(plain)
    group.command("c", acl="princ:ada@R")(plain)
    with pytest.raises(CommandError, match=r"under 'test a' have different ACLs"):
        lines(backend)


def test_every_line_has_the_form_that_remctld_reads() -> None:
    backend = Backend("test")
    for function in (plain, first, second, last, secrets, secret_tail, secret_option):
        backend.command(function)
    for text in lines(backend):
        command, _, program, *options = text.split(" ")
        assert (command, program) == ("test", "/prog")
        assert all("=" in option for option in options[:-1])
        assert options[-1] == "ANYUSER"


def test_what_remctld_collects_for_its_own_help_is_each_command_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = Backend("test")
    backend.default(default)
    backend.command("one")(plain)
    group = backend.group("group")
    group.default(default)
    group.command("two")(plain)
    collected: list[str] = []
    for text in lines(backend):
        _, subcommand, _, *options = text.split()
        for option in options:
            if option.startswith("summary="):
                words = [option.removeprefix("summary="), *([] if subcommand in ("ALL", "EMPTY") else [subcommand])]
                monkeypatch.setenv("REMCTL_COMMAND", words[0])
                answer = _answer_to_remctld(backend, [word.encode() for word in words], "user@EXAMPLE.ORG")
                collected += (answer or "").splitlines()
    assert sorted(collected) == sorted(backend.help().splitlines())


# Printed


def test_the_lines_are_printed_for_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "program"
    program.touch(0o755)
    backend = Backend("test")
    assert print_config(backend, ["--program", str(program)]) == 0
    assert capsys.readouterr() == ("".join(f"{text}\n" for text in config(backend, str(program))), "")


def test_a_program_that_cannot_be_run_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "program"
    program.touch(0o644)
    assert print_config(Backend("test"), ["--program", str(program)]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"warning: {program} is not executable, and remctld could not run it\n"
    assert printed.out.startswith(f"test help {program} ")


def test_a_program_with_blanks_in_its_path_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="blanks in its path"):
        print_config(Backend("test"), ["--program", str(tmp_path / "a b")])
    assert capsys.readouterr().out == ""
