"""The table of commands: how it is declared, and where words lead."""

from __future__ import annotations

import functools

import pytest

from backend.calling import refusal
from remctl.backend import Backend, Context, Group
from remctl.backend._backend import _Memory
from remctl.backend._context import Caller
from remctl.exceptions import RemctlCommandError
from remctl.types import ErrorCode, Stream

NOBODY = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"


def where(context: Context) -> str:
    return " ".join(context.command)


def found(backend: Backend, words: str) -> str:
    result = backend.call(words.split())
    assert (result.stderr, result.status) == (b"", 0)
    return result.stdout.decode()


def allows(backend: Backend, words: str, principal: str) -> bool:
    """Whether a principal may run a command; if not, it gets the protocol's error."""
    try:
        return backend.call(words.split(), principal=principal).status == 0
    except RemctlCommandError as error:
        if (error.code, error.command) != (ErrorCode.ACCESS, words):
            raise
        return False


# Names


def test_a_command_is_named_as_its_function() -> None:
    backend = Backend("test")

    @backend.command
    def list_all_() -> str:
        return "listed"

    assert found(backend, "test list-all") == "listed"


def test_a_command_may_be_given_a_name() -> None:
    backend = Backend("test")

    @backend.command("other-name")
    def function() -> str:
        return "named"

    @backend.command()
    def bare() -> str:
        return "bare"

    assert found(backend, "test other-name") == "named"
    assert found(backend, "test bare") == "bare"


def test_functions_stay_what_they_are() -> None:
    backend = Backend("test")
    assert backend.command(where) is where
    assert backend.command("a")(where) is where
    assert backend.command("b", hidden=True)(where) is where
    assert backend.group("c").command(summary="x")(where) is where
    assert backend.default(where) is where


NAMES = ["", " ", "a b", "a\tb", "a\n", "\x1b", "-x", "--help", "#a", "ALL", "EMPTY", "a\0", "a\xa0b", "\u202e", " a"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_remctld_cannot_have_is_refused(name: str) -> None:
    for declare in (Backend, Backend().group, Backend("test").group, lambda name: Backend("test").command(name)(where)):
        with pytest.raises(ValueError, match="name"):
            declare(name)


@pytest.mark.parametrize("name", [5, b"a", ["a"]])
def test_a_name_is_text(name: str) -> None:
    with pytest.raises(TypeError, match=r"^name must be a str: "):
        Backend("test").group(name)


@pytest.mark.parametrize("name", ["a", "a.b", "über", "A", "all", "a-b", "x/y", "5", "help"])
def test_other_names_are_good(name: str) -> None:
    backend = Backend("test")
    backend.command(name)(where)
    assert found(backend, f"test {name}") == f"test {name}"


def _() -> None: ...


@pytest.mark.parametrize("function", [lambda: None, functools.partial(where), 5, _], ids=repr)
def test_a_function_without_a_name_needs_one(function: object) -> None:
    with pytest.raises((TypeError, ValueError), match="name"):
        Backend("test").command(function)  # type: ignore[call-overload]


def test_two_commands_of_one_name_are_refused() -> None:
    backend = Backend("test")
    group = backend.group("a")
    group.command("b")(where)
    for declare in (
        lambda: group.command("b")(where),
        lambda: group.group("b"),
        lambda: group.group("c").path and group.command("c")(where),
    ):
        with pytest.raises(ValueError, match=r"^there are two commands 'test a [bc]'$"):
            declare()
    with pytest.raises(ValueError, match=r"^there are two commands 'test a'$"):
        backend.command("a")(where)


# Where words lead


def nested() -> Backend:
    backend = Backend("test")
    group: Group = backend
    for name in "abcdef":
        group = group.group(name)
        group.command("run")(where)
    group.default(where)
    return backend


def test_groups_stand_in_groups_to_any_depth() -> None:
    backend = nested()
    assert found(backend, "test a b c run") == "test a b c run"
    assert found(backend, "test a b c d e f run") == "test a b c d e f run"
    assert found(backend, "test a b c d e f") == "test a b c d e f"


def test_without_command_word_each_first_word_is_one() -> None:
    backend = Backend()
    backend.command("one")(where)
    backend.group("two").command("three")(where)
    assert found(backend, "one") == "one"
    assert found(backend, "two three") == "two three"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("test", "test: a further word is missing; try help"),
        ("test a b", "test a b: a further word is missing; try help"),
        ("test x", "test x: unknown command; try help"),
        ("test a x y", "test a x: unknown command; try help"),
        ("other x", "other: unknown command; try help"),
        ("test a b c d e f x", "test a b c d e f x: unknown command; try help"),
        ("test RUN", "test RUN: unknown command; try help"),
        ("test a \x1b[2J", r"test a \x1b[2J: unknown command; try help"),
        ("test a \udcff", r"test a \xff: unknown command; try help"),
    ],
)
def test_words_that_lead_nowhere_are_told(words: str, reason: str) -> None:
    assert refusal(nested().call(words.split(" "))) == reason


def test_an_unknown_word_of_any_length_is_told_in_a_short_line() -> None:
    assert len(refusal(nested().call(["test", "x" * 50000]))) < 200


def test_no_words_at_all_are_told_in_a_line_too() -> None:
    # A program that has no command word of its own, run without arguments.
    memory = _Memory()
    backend = Backend()
    backend.command("one")(where)
    assert backend.perform([], Caller("a@R", "", "", None), memory) == 64
    assert memory.output[Stream.STDERR] == b"a command is missing; try help\n"


# Defaults


def test_a_default_takes_the_context_alone() -> None:
    def optional(name: str = "") -> None: ...

    for function in (optional, lambda *names: None, lambda *, quick=False: None):
        with pytest.raises((TypeError, ValueError), match="'test a'"):
            Backend("test").group("a").default(function)


def test_there_is_one_default() -> None:
    group = Backend("test").group("a")
    group.default(where)
    with pytest.raises(ValueError, match=r"^there are two defaults of 'test a'$"):
        group.default(where)


def test_there_is_no_default_of_nothing() -> None:
    with pytest.raises(ValueError, match=r"^there is no command without a word$"):
        Backend().default(where)


def test_a_group_shows_its_words_and_how_much_is_in_it() -> None:
    backend = Backend("test")
    backend.command("a")(where)
    backend.group("b")
    assert repr(backend) == "<Backend 'test': 2 entries>"
    assert repr(backend.group("x")) == "<Group 'test x': 0 entries>"


# ACLs


def test_everybody_with_a_name_may_run_what_has_no_acl() -> None:
    backend = nested()
    assert allows(backend, "test a run", "eve@R")
    assert not allows(backend, "test a run", NOBODY)
    assert not allows(backend, "test a b c d e f", NOBODY)


def test_an_acl_is_that_of_the_command_or_else_the_group_or_else_the_backend() -> None:
    backend = Backend("test", acl="princ:backend@R")
    outer = backend.group("outer", acl=["princ:outer@R", "princ:other@R"])
    inner = outer.group("inner")
    backend.command("top")(where)
    backend.command("own", acl="princ:own@R")(where)
    outer.default(where)
    inner.command("run")(where)
    inner.command("own", acl="princ:own@R")(where)
    inner.command("open", acl="anyuser:anonymous")(where)
    everyone = ["backend@R", "outer@R", "other@R", "own@R", NOBODY]
    for words, allowed in {
        "test top": ["backend@R"],
        "test own": ["own@R"],
        "test outer": ["outer@R", "other@R"],
        "test outer inner run": ["outer@R", "other@R"],
        "test outer inner own": ["own@R"],
        "test outer inner open": everyone,
    }.items():
        assert [principal for principal in everyone if allows(backend, words, principal)] == allowed


def test_who_may_not_run_a_command_is_refused_before_its_arguments_are_looked_at() -> None:
    backend = Backend("test", acl="princ:ada@R")
    backend.command("cmd")(where)
    assert not allows(backend, "test cmd", "eve@R")
    with pytest.raises(RemctlCommandError):
        backend.call(["test", "cmd", "too", "many"], principal="eve@R")


@pytest.mark.parametrize("acl", ["", [], "bogus:x", "relative", 5, [5], b"ANYUSER"], ids=repr)
def test_an_acl_that_can_never_work_is_refused_by_the_name_of_what_has_it(acl: str) -> None:
    for declare, name in (
        (lambda: Backend("test").command("cmd", acl=acl)(where), "test cmd"),
        (lambda: Backend("test").group("a", acl=acl), "test a"),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"'{name}'"):
            declare()


def test_what_was_refused_leaves_its_name_free() -> None:
    backend = Backend("test")
    with pytest.raises(ValueError, match="acl"):
        backend.group("a", acl="bogus:x")
    backend.command("a")(where)
    assert found(backend, "test a") == "test a"
