"""`Backend` as its owner sees it: in memory, its help, and whatever a client may send."""

from __future__ import annotations

import asyncio
import enum
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.calling import refusal
from remctl.backend import MULTILINE, SECRET, STDIN, Backend, Context, Match, Option, Range, UsageError
from remctl.backend._errors import CommandError
from remctl.exceptions import RemctlCommandError
from remctl.types import ErrorCode, Result

NOBODY = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"


def run() -> None:
    """Run it."""


# Made


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"threads": 0}, ValueError),
        ({"threads": "1"}, TypeError),
        ({"banner": b"x"}, TypeError),
        ({"banner": None}, TypeError),
        ({"acl": ""}, ValueError),
        ({"acl": "bogus:x"}, ValueError),
    ],
    ids=repr,
)
def test_an_argument_that_makes_no_sense_is_refused_by_name(options: dict[str, object], error: type[Exception]) -> None:
    make: Callable[..., Backend] = Backend
    with pytest.raises(error, match=rf"^{next(iter(options))} "):
        make("test", **options)


def test_a_backend_has_32_threads_if_nobody_says_otherwise() -> None:
    assert Backend().threads == 32
    assert Backend(threads=1).threads == 1


# Called in memory


@pytest.mark.parametrize("words", [[], "test cmd", b"test", None, [None]])
def test_what_is_no_command_is_refused(words: list[str]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^command"):
        Backend("test").call(words)


@pytest.mark.parametrize(("principal", "error"), [("", ValueError), (None, TypeError), (b"a@R", TypeError)])
def test_somebody_has_to_call(principal: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^principal "):
        Backend("test").call(["test"], principal=principal)


def test_words_are_what_a_client_sends() -> None:
    backend = Backend("test")

    @backend.command
    def cmd(*words: bytes) -> str:
        return repr(words)

    sent: list[str | bytes] = ["test", b"cmd", 5, Path("/x"), "ü"]  # type: ignore[list-item]
    assert backend.call(sent).stdout.decode() == repr((b"5", b"/x", "ü".encode()))


def test_in_an_event_loop_a_coroutine_function_is_called_on_a_thread() -> None:
    backend = Backend("test")

    @backend.command
    async def cmd() -> str:
        return "a"

    async def caller() -> Result:
        with pytest.raises(RuntimeError, match="to_thread"):
            backend.call(["test", "cmd"])
        return await asyncio.to_thread(backend.call, ["test", "cmd"])

    assert asyncio.run(caller()) == (b"a", b"", 0)


# Help


def table() -> Backend:
    backend = Backend("test", banner="Test:", acl="princ:ada@R")
    backend.command("own")(run)
    backend.command("open", acl="ANYUSER")(run)
    backend.command("shy", acl="ANYUSER", hidden=True)(run)
    group = backend.group("group")
    group.command("one", acl="anyuser:anonymous")(run)
    group.command("two")(run)
    backend.group("empty")
    return backend


def asked(words: str, principal: str = "ada@R") -> Result:
    return table().call(words.split(), principal=principal)


@pytest.mark.parametrize(
    ("principal", "listed"),
    [
        ("ada@R", "group one|group two|open|own"),
        ("eve@R", "group one|open"),
        (NOBODY, "group one"),
    ],
)
def test_help_lists_what_the_caller_may_run(principal: str, listed: str) -> None:
    lines = [f"  {'test ' + name:<14}  Run it\n" for name in listed.split("|")]
    assert asked("test help", principal) == ("".join(["Test:\n", *lines]).encode(), b"", 0)


def test_help_of_a_group_lists_the_group() -> None:
    lines = b"Test:\n  test group one  Run it\n  test group two  Run it\n"
    assert asked("test group help").stdout == lines
    assert asked("test help group").stdout == lines


def test_who_may_run_nothing_of_it_is_told() -> None:
    nothing = b"There is no command here that you may run.\n"
    assert asked("test help empty") == (nothing, b"", 0)
    backend = Backend("test", acl="princ:ada@R")
    backend.command(run)
    assert backend.call(["test", "help"], principal="eve@R") == (nothing, b"", 0)


def test_help_of_a_command_is_its_page() -> None:
    page = b"test group one\n\nRun it.\n"
    assert asked("test help group one", "eve@R").stdout == page
    assert asked("test group help one", NOBODY).stdout == page


def test_a_hidden_command_has_a_page_all_the_same() -> None:
    assert asked("test help shy", "eve@R").stdout == b"test shy\n\nRun it.\n"


def test_there_is_no_page_of_what_the_caller_may_not_run() -> None:
    assert asked("test help own", "eve@R") == (b"", b"help: access denied: test own\n", 77)
    with pytest.raises(CommandError, match="access denied: test own"):
        table().help(["test", "own"], principal="eve@R")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("test help bogus", "help: unknown command: test bogus"),
        ("test group help bogus", "help: unknown command: test group bogus"),
        ("test help own more", "help: unknown command: test own more"),
        ("test help \udcff", r"help: unknown command: test \xff"),
    ],
)
def test_there_is_no_page_of_what_there_is_not(words: str, reason: str) -> None:
    if "\udcff" in words:
        reason = "test help: invalid argument <words> '\\xff': it is not UTF-8"
    assert refusal(asked(words)) == reason


def test_the_owner_sees_all_but_the_hidden() -> None:
    backend = table()
    assert backend.help() == backend.help(principal="ada@R")
    assert backend.help(["test", "own"]) == "test own\n\nRun it.\n"
    with pytest.raises(UsageError, match="unknown command: bogus"):
        backend.help(["bogus"])


def test_a_command_may_be_called_help() -> None:
    backend = Backend("test")
    backend.command("help")(lambda: "own help")
    assert backend.call(["test", "help"]).stdout == b"own help"


def test_a_summary_is_the_part_of_the_list_under_some_words() -> None:
    backend = table()
    lines = backend.help().splitlines(keepends=True)[1:]
    assert backend.summary(["test"]) == "".join(line.removeprefix("  ") for line in lines)
    assert backend.summary(["test", "group"], principal="eve@R") == "test group one  Run it\n"
    assert backend.summary(["bogus"]) == ""


# Whatever a client may send


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def has(value: object, kind: object, *, lines: bool = False) -> None:
    """Fail unless a value is one of the type, as the annotation promises."""
    if isinstance(kind, type):
        assert type(value) is kind or (kind in (Path, Color) and isinstance(value, kind))
    if isinstance(value, str) and not lines:
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value)


every = Backend("e", banner="All kinds:")


@every.command
def text(a: str, b: Annotated[str, MULTILINE] = "") -> str:
    has(a, str)
    has(b, str, lines=True)
    return a + b


@every.command
def numbers(a: int, b: Annotated[float, Range(0)] = 0.0, *c: Annotated[int, Range(1, 5)]) -> int:
    has(a, int)
    has(b, float)
    assert b >= 0
    assert all(type(each) is int and 1 <= each <= 5 for each in c)
    return 0


@every.command
def choices(a: bool, b: Color = Color.RED, c: Literal["x", "y"] = "x") -> Iterator[str]:
    has(a, bool)
    has(b, Color)
    assert c in ("x", "y")
    yield str(a)


@every.command
def paths(a: Path, *b: Annotated[str, Match("[a-z]+")]) -> None:
    has(a, Path)
    assert all(each.isalpha() for each in b)


@every.command
def secret(a: Annotated[int, SECRET], b: Annotated[str, SECRET, Match("x")] = "x") -> None:
    has(a, int)
    assert b == "x"


@every.command
def options(
    *a: str,
    quick: Annotated[bool, Option("-q")] = False,
    size: Annotated[int, Option("-s"), Range(0, 9)] = 0,
    name: Annotated[list[str], Option("-n")] = (),  # type: ignore[assignment]
    context: Context,
) -> bytes:
    has(quick, bool)
    has(size, int)
    for each in (*name, *a):
        has(each, str)
    assert context.command == ("e", "options")
    return b"done"


@every.command
async def data(a: Annotated[str, STDIN], *, quick: bool = False) -> AsyncIterator[str]:
    has(a, str, lines=True)
    yield a


@every.command
def token(a: Annotated[str, SECRET], b: Annotated[str, SECRET] = "", *, quick: bool = False) -> None:
    has(quick, bool)


group = every.group("group")


@group.command
async def stream(a: str, b: Annotated[BinaryIO, STDIN], c: int = 0) -> bytes:
    has(c, int)
    return b.read()


@group.command(acl="princ:nobody@R")
def closed() -> None:
    pytest.fail("it was called")


WORDS = [b"text", b"numbers", b"choices", b"paths", b"secret", b"options", b"data", b"group", b"stream", b"closed"]
VALUES = [b"x", b"5", b"-5", b"0.5", b"1e400", b"true", b"red", b"help", b"-", b"--", b"\x1b[2J"]
FLAGS = [
    b"--quick",
    b"-q",
    b"-qs",
    b"--no-quick",
    b"--size",
    b"--size=3",
    b"-s5",
    b"--name",
    b"-nabc",
    b"--bogus",
    b"-z",
]
ARGUMENTS = st.lists(
    st.sampled_from(WORDS + VALUES + FLAGS) | st.binary(max_size=8) | st.text(max_size=5).map(str.encode), max_size=6
)


@given(st.sampled_from(WORDS), ARGUMENTS)
def test_whatever_a_client_sends_is_answered_in_good_order(word: bytes, arguments: list[bytes]) -> None:
    try:
        result = every.call([b"e", word, *arguments])
    except RemctlCommandError as error:
        if (error.code, error.command) != (ErrorCode.ACCESS, "e group closed"):
            raise
        return
    assert result.status in (0, 64)
    assert (result.status == 64) == bool(result.stderr)
    if result.status == 64:
        refusal(result)


@given(
    st.sampled_from([b"secret", b"data", b"token"]),
    st.lists(st.sampled_from([b"hunter2", b"-hunter2", b"--hunter2", b"--quick=hunter2", b"-qhunter2"]), min_size=1),
)
def test_whatever_a_client_sends_secrets_are_not_told(command: bytes, values: list[bytes]) -> None:
    words = [b"e", command, *(values[:1] if command == b"data" else values)]
    assert b"hunter2" not in every.call(words).stderr
    assert "hunter2" not in every.shown(words[:4])


@given(ARGUMENTS)
def test_whatever_a_client_sends_is_shown_in_one_line(arguments: list[bytes]) -> None:
    assert every.shown([b"e", *arguments]).isprintable()


# What it loads


def test_neither_asyncio_nor_argparse_is_loaded_before_a_command_needs_them() -> None:
    code = """if True:
        import sys
        before = set(sys.modules)
        from remctl.backend import Backend
        backend = Backend("test")
        heavy = {"asyncio", "argparse", "gssapi", "ctypes", "subprocess", "socketserver"}
        @backend.command
        def plain(a: int) -> str: return "x"
        @backend.command
        def option(*, a: int = 0) -> str: return "x"
        @backend.command
        async def later() -> str: return "x"
        loaded = lambda: heavy & (set(sys.modules) - before)
        assert backend.call(["test", "plain", "5"]).status == 0
        assert backend.call(["test", "plain"]).status == 64
        assert backend.call(["test", "help"]).status == 0
        assert not loaded(), loaded()
        assert backend.call(["test", "option"]).status == 0
        assert loaded() == {"argparse"}, loaded()
        assert backend.call(["test", "later"]).status == 0
        assert "asyncio" in loaded()
    """
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], check=True)
