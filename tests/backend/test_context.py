"""What a function learns from its Context, and how it answers through it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backend.calling import backend_of, call
from remctl.backend import Backend, CommandError, Context, OutputLostError, UsageError
from remctl.backend._context import Caller
from remctl.types import Stream


class Taking:
    """A sink that keeps what it takes; after some pieces it takes no more."""

    def __init__(self, pieces: int = 1000) -> None:
        self.room = pieces
        self.taken: list[tuple[bytes, Stream, bool]] = []

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
        if len(self.taken) >= self.room:
            raise OutputLostError("the caller is gone")
        self.taken.append((data, stream, last))

    async def drain(self) -> None:
        """There is always room."""


def who(context: Context) -> str:
    return repr((context.principal, context.address, context.host, context.expires, context.command))


def test_the_context_says_who_calls() -> None:
    result = backend_of(who).call(
        ["test", "cmd"], principal="ada@R", address="192.0.2.1", host="client.example.org", expires=5.5
    )
    assert result.stdout.decode() == repr(("ada@R", "192.0.2.1", "client.example.org", 5.5, ("test", "cmd")))


def test_a_host_without_name_has_none() -> None:
    assert b"'127.0.0.1', None, None" in backend_of(who).call(["test", "cmd"], host=None).stdout


def test_the_command_is_that_of_the_table() -> None:
    backend = Backend()
    inner = backend.group("a").group("b")
    inner.command("c")(who)
    inner.default(who)
    assert backend.call(["a", "b", "c"]).stdout.endswith(b", ('a', 'b', 'c'))")
    assert backend.call(["a", "b"]).stdout.endswith(b", ('a', 'b'))")


@pytest.mark.parametrize(
    ("address", "host", "name"),
    [
        ("127.0.0.1", "given", "given"),
        ("127.0.0.1", "", None),
        ("", None, None),
        ("no address", None, None),
        ("\udcff", None, None),
        ("127.0.0.1", None, "localhost"),
    ],
)
def test_the_hosts_name_is_looked_up_when_nobody_has(address: str, host: str | None, name: str | None) -> None:
    assert Context((), Caller("a@R", address, host, None), Taking()).host == name


@pytest.mark.parametrize("data", ["grün", "grün".encode(), bytearray("grün".encode()), memoryview("grün".encode())])
def test_output_is_text_or_bytes_on_either_stream(data: str | bytes) -> None:
    def cmd(context: Context) -> None:
        context.write(data)
        context.write(data, Stream.STDERR)
        context.finish(data)

    result = call(cmd)
    assert result == ("grüngrün".encode(), "grün".encode(), 0)


def test_a_file_name_is_written_as_the_system_has_it() -> None:
    assert call(lambda: "/tmp/\udcff").stdout == b"/tmp/\xff"


def test_the_last_output_may_travel_with_the_status() -> None:
    sink = Taking()
    context = Context((), Caller("a@R", "", "", None), sink)
    context.write("a")
    context.finish("b")
    assert sink.taken == [(b"a", Stream.STDOUT, False), (b"b", Stream.STDOUT, True)]


@pytest.mark.parametrize("data", [None, 5, ["a"], {"a": 1}])
def test_other_data_is_refused(data: object) -> None:
    context = Context((), Caller("a@R", "", "", None), Taking())
    with pytest.raises(TypeError, match=r"^data must be bytes or str, and is "):
        context.write(data)  # type: ignore[arg-type]


def test_there_are_two_streams() -> None:
    context = Context((), Caller("a@R", "", "", None), Taking())
    with pytest.raises(ValueError, match="3"):
        context.write("a", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("principal", "shown"), [("ada@R", "ada@R"), ("", "somebody")])
def test_a_context_shows_its_command_and_caller(principal: str, shown: str) -> None:
    context = Context(("test", "cmd"), Caller(principal, "", "", None), Taking())
    assert repr(context) == f"<remctl.backend.Context of 'test cmd' for {shown}>"


# Nobody takes the output any more


def writes(context: Context) -> None:
    for piece in "abc":
        context.write(piece)


async def writes_async(context: Context) -> None:
    for piece in "abc":
        context.write(piece)
        await context.drain()


@pytest.mark.parametrize("function", [writes, writes_async])
@pytest.mark.parametrize("room", [0, 2])
def test_a_function_ends_when_its_output_is_lost(function: Callable[..., object], room: int) -> None:
    sink = Taking(room)
    status = backend_of(function).perform([b"test", b"cmd"], Caller("a@R", "", "", None), sink)
    assert status == 74
    assert len(sink.taken) == room


def test_what_is_lost_on_one_stream_is_told_on_the_other() -> None:
    class Closed(Taking):
        def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
            if stream is Stream.STDOUT:
                raise OutputLostError("standard output is closed")
            super().write(data, stream, last=last)

    sink = Closed()
    status = backend_of(lambda: "x").perform([b"test", b"cmd"], Caller("a@R", "", "", None), sink)
    assert (status, sink.taken) == (74, [(b"test cmd: standard output is closed\n", Stream.STDERR, False)])


# Errors that a function raises


@pytest.mark.parametrize("status", [0, 256, -1])
def test_the_status_of_an_error_is_1_to_255(status: int) -> None:
    with pytest.raises(ValueError, match=f"^status must be 1 to 255: {status}$"):
        CommandError("no", status=status)


@pytest.mark.parametrize("status", [True, "1", None, 1.0])
def test_the_status_of_an_error_is_a_number(status: int) -> None:
    with pytest.raises(TypeError, match=r"^status must be a number: "):
        UsageError("no", status=status)
