"""What becomes of what a function returns or raises."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator

import pytest

from backend.calling import Function, backend_of, call, command_of
from remctl.backend import CommandError, Context, OutputLostError, UsageError
from remctl.backend._context import Caller
from remctl.backend._running import execute_async
from remctl.types import Result, Stream


class Code(enum.IntEnum):
    BUSY = 75


def returning(answer: object) -> Function:
    return lambda: answer


def raising(error: BaseException) -> Function:
    def cmd() -> None:
        raise error

    return cmd


def coroutine_of(function: Function) -> Function:
    async def cmd() -> object:
        await asyncio.sleep(0)
        return function()

    return cmd


@pytest.fixture(params=["function", "coroutine function"])
def kind(request: pytest.FixtureRequest) -> Callable[[Function], Function]:
    """Give what makes either kind of function of one: both have to do the same."""
    return coroutine_of if request.param == "coroutine function" else lambda function: function


Kind = Callable[[Function], Function]


# Returned


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (None, (b"", b"", 0)),
        (0, (b"", b"", 0)),
        (1, (b"", b"", 1)),
        (255, (b"", b"", 255)),
        (Code.BUSY, (b"", b"", 75)),
        ("grün\n", ("grün\n".encode(), b"", 0)),
        ("", (b"", b"", 0)),
        (b"\xff\0", (b"\xff\0", b"", 0)),
        (bytearray(b"a"), (b"a", b"", 0)),
        (memoryview(b"abc")[::2], (b"ac", b"", 0)),
        (["a", b"b", "c\n"], (b"abc\n", b"", 0)),
        ([], (b"", b"", 0)),
    ],
    ids=repr,
)
def test_an_answer_is_a_status_or_output(kind: Kind, answer: object, result: tuple[bytes, bytes, int]) -> None:
    assert call(kind(returning(answer))) == result


def test_the_status_is_a_plain_number() -> None:
    for function in (returning(Code.BUSY), raising(UsageError("no")), raising(KeyError()), raising(SystemExit(True))):
        assert type(call(function).status) is int


@pytest.mark.parametrize("answer", [True, 1.5, object(), {"a": 1}, [1], range(3), -1, 256, 10**100], ids=repr)
def test_another_answer_is_an_internal_error(kind: Kind, answer: object, caplog: pytest.LogCaptureFixture) -> None:
    assert call(kind(returning(answer))) == (b"", b"test cmd: internal error\n", 70)
    assert "Traceback" in caplog.text


def test_a_generator_streams_and_returns_the_status() -> None:
    def cmd(status: int) -> Generator[str, None, int]:
        yield "a"
        yield "b"
        return status

    assert call(cmd, "0") == (b"ab", b"", 0)
    assert call(cmd, "7") == (b"ab", b"", 7)


def test_a_generator_may_return_its_last_output() -> None:
    def cmd() -> Generator[str, None, str]:
        yield "a"
        return "b"

    assert call(cmd) == (b"ab", b"", 0)


def test_an_async_generator_streams() -> None:
    async def cmd(count: int) -> AsyncIterator[str]:
        for number in range(count):
            yield f"{number}\n"
            await asyncio.sleep(0)

    assert call(cmd, "3") == (b"0\n1\n2\n", b"", 0)


def test_what_a_generator_has_sent_arrives_when_it_fails_later() -> None:
    def cmd() -> Iterator[str]:
        yield "a"
        raise CommandError("no more", status=3)

    async def cmd_async() -> AsyncIterator[str]:
        yield "a"
        raise CommandError("no more", status=3)

    assert call(cmd) == call(cmd_async) == (b"a", b"test cmd: no more\n", 3)


def test_an_awaitable_is_awaited_whatever_it_is() -> None:
    async def answer() -> str:
        return "a"

    class Later:
        def __await__(self) -> Generator[object, None, str]:
            return answer().__await__()

    async def cmd() -> object:
        return await Later()

    assert call(cmd).stdout == b"a"


def test_a_generator_is_closed_when_its_output_is_lost() -> None:
    ended: list[str] = []

    def cmd() -> Iterator[str]:
        try:
            yield "a"
        finally:
            ended.append("cmd")

    async def cmd_async() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            ended.append("cmd_async")

    class Gone:
        def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
            raise OutputLostError("the caller is gone")

        async def drain(self) -> None:
            """Nothing is kept."""

    for function in (cmd, cmd_async):
        assert backend_of(function).perform([b"test", b"cmd"], Caller("a@R", "", "", None), Gone()) == 74
    assert ended == ["cmd", "cmd_async"]


def test_an_iterator_that_can_be_closed_is_closed() -> None:
    class Lines:
        closed = False

        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            raise StopIteration

        def close(self) -> None:
            self.closed = True

    lines = Lines()  # as an open file is one
    assert call(returning(lines)).status == 0
    assert lines.closed


# Raised


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (CommandError("no such user"), "test cmd: no such user", 1),
        (CommandError("busy", status=75), "test cmd: busy", 75),
        (CommandError(), "test cmd: failed", 1),
        (UsageError("no such day"), "test cmd: no such day", 64),
        (UsageError("no such day", status=2), "test cmd: no such day", 2),
        (CommandError("no", command="other"), "other: no", 1),
        (CommandError("one\ntwo"), "test cmd: one\ntwo", 1),
        (CommandError("a\x1b[2J\udcff\ud800"), r"test cmd: a\x1b[2J\xff\ud800", 1),
        (SystemExit("stop\ud800"), r"stop\ud800", 1),
        (SystemExit("stop"), "stop", 1),
        (OutputLostError("all is lost"), "test cmd: all is lost", 74),
    ],
    ids=repr,
)
def test_an_error_that_is_meant_for_the_caller_is_told(kind: Kind, error: Exception, line: str, status: int) -> None:
    result = call(kind(raising(error)))
    assert (result.stdout, result.status) == (b"", status)
    assert result.stderr.decode().replace(r"\udcff", r"\xff") == f"{line}\n"


@pytest.mark.parametrize(
    ("code", "status"), [(None, 0), (0, 0), (3, 3), (255, 255), (True, 1), (False, 0), (Code.BUSY, 75)]
)
def test_the_function_may_exit_as_a_program_does(kind: Kind, code: int | None, status: int) -> None:
    assert call(kind(raising(SystemExit(code)))) == (b"", b"", status)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("hunter2"),
        ValueError("hunter2"),
        SystemExit(256),
        SystemExit(-1),
        SystemExit(1.5),
        StopIteration(5),
        AssertionError(),
        RecursionError(),
        asyncio.InvalidStateError(),
        UnicodeDecodeError("utf-8", b"hunter2", 0, 1, "no"),
        ExceptionGroup("several", [CommandError("one")]),
    ],
    ids=repr,
)
def test_another_error_is_logged_in_full_and_told_in_a_word(
    kind: Kind, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    assert call(kind(raising(error))) == (b"", b"test cmd: internal error\n", 70)
    (record,) = (each for each in caplog.records if each.name.startswith("remctl"))
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "command 'test cmd' of user@EXAMPLE.ORG failed"
    assert record.exc_info
    assert type(error).__name__ in caplog.text


def test_what_the_function_has_cancelled_itself_is_an_error_like_others(caplog: pytest.LogCaptureFixture) -> None:
    async def cmd() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0))
        task.cancel()
        await task

    for function in (cmd, raising(asyncio.CancelledError())):
        caplog.clear()
        assert call(function) == (b"", b"test cmd: internal error\n", 70)
        assert "CancelledError" in caplog.text


def test_ctrl_c_is_not_caught() -> None:
    with pytest.raises(KeyboardInterrupt):
        call(raising(KeyboardInterrupt()))


def test_text_that_cannot_be_sent_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    def cmd(text: str) -> str:
        decoded: str = json.loads(text)
        return decoded

    assert call(cmd, r'"\ud800"') == (b"", b"test cmd: internal error\n", 70)
    assert "UnicodeEncodeError" in caplog.text


def test_what_the_function_says_on_the_way_comes_before_its_error() -> None:
    def cmd(context: Context) -> None:
        context.write("a")
        context.write("b", Stream.STDERR)
        raise CommandError("c")

    assert call(cmd) == Result(b"a", b"btest cmd: c\n", 1)


def test_a_wrapped_coroutine_function_is_run_too() -> None:
    def logged(function: Callable[[str], object]) -> Callable[[str], object]:
        return lambda x: function(x)

    async def cmd(x: str) -> str:
        return x

    async def cmd_streaming(x: str) -> AsyncIterator[str]:
        yield x

    assert call(logged(cmd), "a") == (b"a", b"", 0)
    assert call(logged(cmd_streaming), "a") == (b"a", b"", 0)


class Counting:
    """Gives some pieces, asynchronously, and is no generator."""

    def __init__(self) -> None:
        self.left = ["c", "b", "a"]

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()


def test_a_coroutine_function_may_return_an_asynchronous_iterator() -> None:
    async def cmd() -> AsyncIterator[str]:
        return Counting()

    assert call(cmd).stdout == b"abc"


def test_in_an_event_loop_a_function_may_return_an_asynchronous_iterator() -> None:
    class Kept:
        data = b""

        def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
            self.data += data

        async def drain(self) -> None:
            await asyncio.sleep(0)

    sink = Kept()
    context = Context(("test", "cmd"), Caller("a@R", "", "", None), sink)
    assert asyncio.run(execute_async(command_of(Counting), [], context)) == 0
    assert sink.data == b"abc"


def test_a_function_may_return_any_iterable() -> None:
    class Lines:
        def __iter__(self) -> Iterator[str]:
            yield from ("a", "b")

    answer: Iterable[str] = Lines()
    assert call(returning(answer)).stdout == b"ab"
    assert call(returning(iter(answer))).stdout == b"ab"
