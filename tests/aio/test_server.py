"""A server's handler: what it gets, how it answers, who may call it, and what is logged of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rawclient import RawClient, encode_words, error, output, status
from serving import PATIENCE, Gate, ServerThread

import remctl
from remctl import ErrorCode, Output, OutputType, Remctl, RemctlCommandError, Stream, acl
from remctl.aio import Request, _served
from remctl.testing import Sandbox, Server

INTERNAL = Output(OutputType.ERROR, b"Internal failure", error=ErrorCode.INTERNAL)


def tokens_of(session: Remctl, *words: str | bytes) -> list[Output]:
    """Run a command and return the tokens of its answer, an error token too."""
    session.command(words)
    tokens = [session.output()]
    while tokens[-1].type == "output":
        tokens.append(session.output())
    return tokens


def answer_of(box: Sandbox, handler: Callable[[Request], Any], **options: Any) -> list[Output]:
    """Run a command of a handler; and another one, to see that the session goes on."""
    with ServerThread(box, handler, **options) as server, Remctl("localhost", server.port, box.principal) as session:
        tokens = tokens_of(session, "test", "word", "secret")
        assert tokens_of(session, "test", "word", "secret") == tokens
        session.noop()
        return tokens


class TestRequest:
    def test_says_what_was_asked_by_whom_and_from_where(self, box: Sandbox) -> None:
        requests: list[Request] = []

        async def handler(request: Request) -> int:
            requests.append(request)
            return 0

        with ServerThread(box, handler) as server:
            address = ("localhost", server.port, box.principal)
            remctl.remctl(*address, [b"any", b"\0\xff\n", ""], source_ip="127.0.0.7")
            remctl.remctl(*address, ["one"])
        assert [request.command for request in requests] == [(b"any", b"\0\xff\n", b""), (b"one",)]
        assert [request.address for request in requests] == ["127.0.0.7", "127.0.0.1"]
        assert {request.principal for request in requests} == {"user@SANDBOX.TEST"}

    def test_says_when_the_ticket_ends_as_remctld_does(self, box: Sandbox, remctl_server: Server) -> None:
        ccache = box.kinit(box.add_principal("hurried"), lifetime="10m")
        remctl_server.add_command("test", "EMPTY", "#!/bin/sh\necho $REMOTE_EXPIRES\n")
        requests: list[Request] = []

        async def handler(request: Request) -> int:
            requests.append(request)
            return 0

        with ServerThread(box, handler) as server:
            remctl.remctl("localhost", server.port, box.principal, ["test"], ccache=ccache)
        other = remctl.remctl("localhost", remctl_server.port, box.principal, ["test"], ccache=ccache)
        assert requests[0].principal == "hurried@SANDBOX.TEST"
        assert requests[0].expires == pytest.approx(int(other.stdout or b"0"), abs=10)
        assert 500 < requests[0].expires - time.time() < 1000  # ten minutes, and what clocks may differ by

    def test_shows_no_more_than_two_words(self, box: Sandbox) -> None:
        async def handler(request: Request) -> int:
            await request.send(repr(request).encode())
            return 0

        tokens = answer_of(box, handler)
        assert tokens[0].output == b"<remctl.aio.Request 'test word' of user@SANDBOX.TEST from 127.0.0.1>"


class TestSend:
    def test_goes_to_either_stream_in_order(self, box: Sandbox) -> None:
        others: list[Any] = [bytearray(b"two"), memoryview(b"three")]

        async def handler(request: Request) -> None:
            await request.send(b"one")
            await request.send(others[0], Stream.STDERR)
            await request.send(others[1], Stream.STDOUT)
            await request.send(b"")

        assert answer_of(box, handler) == [
            Output(OutputType.OUTPUT, b"one", Stream.STDOUT),
            Output(OutputType.OUTPUT, b"two", Stream.STDERR),
            Output(OutputType.OUTPUT, b"three", Stream.STDOUT),
            Output(OutputType.STATUS, status=0),
        ]

    def test_takes_any_number_of_bytes(self, box: Sandbox) -> None:
        blob = bytes(range(256)) * 1000

        async def handler(request: Request) -> int:
            await request.send(blob)
            return 0

        tokens = answer_of(box, handler)
        assert b"".join(token.output or b"" for token in tokens) == blob
        assert [len(token.output or b"") for token in tokens[:-1]] == [65529, 65529, 65529, 256_000 - 3 * 65529]

    def test_is_on_its_way_as_soon_as_the_handler_waits(self, box: Sandbox) -> None:
        gate = Gate()

        async def handler(request: Request) -> int:
            await request.send(b"now")
            return await gate(request)

        with ServerThread(box, handler) as server, Remctl("localhost", server.port, box.principal) as session:
            session.command(["test"])
            assert session.output().output == b"now"
            gate.open(server)
            assert session.output().status == Gate.STATUS

    @pytest.mark.parametrize(
        ("arguments", "kind", "text"),
        [
            (("text",), TypeError, "data must be bytes, and is str"),
            ((None,), TypeError, "data must be bytes, and is NoneType"),
            ((b"data", 3), ValueError, "3 is not a valid Stream"),
            ((b"data", "out"), ValueError, "'out' is not a valid Stream"),
        ],
    )
    def test_refuses_what_is_no_output(
        self, box: Sandbox, arguments: tuple[Any, ...], kind: type[Exception], text: str
    ) -> None:
        async def handler(request: Request) -> int:
            with pytest.raises(kind, match=text):
                await request.send(*arguments)
            return 0

        assert answer_of(box, handler) == [Output(OutputType.STATUS, status=0)]

    def test_is_refused_after_the_answer(self, box: Sandbox) -> None:
        requests: list[Request] = []

        async def handler(request: Request) -> int:
            requests.append(request)
            return 0

        with ServerThread(box, handler) as server, Remctl("localhost", server.port, box.principal) as session:
            assert session.run(["test"]).status == 0
            with pytest.raises(RuntimeError, match="answered already"):
                server.call(requests[0].send(b"late"))
            assert session.run(["test"]) == (b"", b"", 0)

    def test_that_a_handler_left_behind_does_not_reach_the_next_answer(self, box: Sandbox) -> None:
        left: list[asyncio.Task[None]] = []

        async def handler(request: Request) -> int:
            if request.command[1] == b"leave":
                left.append(asyncio.ensure_future(request.send(b"late" * 5_000_000)))
                await asyncio.sleep(0)
            return 0

        async def outcome() -> BaseException | None:
            await asyncio.wait(left)
            return left[0].exception()

        with ServerThread(box, handler) as server, Remctl("localhost", server.port, box.principal) as session:
            assert tokens_of(session, "test", "leave")[-1].status == 0
            assert tokens_of(session, "test", "next") == [Output(OutputType.STATUS, status=0)]
            assert str(server.call(outcome())) == "the command has been answered already"


class TestAnswer:
    @pytest.mark.parametrize(("returned", "expected"), [(None, 0), (0, 0), (1, 1), (128, 128), (255, 255)])
    def test_is_the_exit_status(self, box: Sandbox, returned: int | None, expected: int) -> None:
        async def handler(request: Request) -> int | None:
            return returned

        assert answer_of(box, handler) == [Output(OutputType.STATUS, status=expected)]

    @pytest.mark.parametrize("returned", [-1, 256, True, "0", b"0", 1.0, (0,)])
    def test_that_is_no_exit_status_is_a_failure_of_the_handler(
        self, box: Sandbox, returned: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(request: Request) -> Any:
            return returned

        assert answer_of(box, handler) == [INTERNAL]
        assert "status" in caplog.text
        assert repr(returned) in caplog.text

    def test_of_a_handler_that_is_no_coroutine_function(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        assert answer_of(box, lambda request: 0) == [INTERNAL]
        assert "TypeError" in caplog.text

    @pytest.mark.parametrize(
        "failure",
        [
            ValueError("the password is sesame"),
            TimeoutError("the password is sesame"),
            remctl.RemctlConnectionError("the password is sesame"),
            ExceptionGroup("the password is sesame", [OSError()]),
            StopAsyncIteration("the password is sesame"),
        ],
    )
    def test_of_a_handler_that_fails_tells_the_log_all_and_the_client_nothing(
        self, box: Sandbox, failure: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(request: Request) -> int:
            raise failure

        assert answer_of(box, handler) == [INTERNAL]
        assert "the handler failed at the command 'test word' of user@SANDBOX.TEST" in caplog.text
        assert "Traceback" in caplog.text
        assert "the password is sesame" in caplog.text
        assert "secret" not in caplog.text

    def test_of_a_handler_whose_own_task_was_cancelled_is_a_failure(
        self, box: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(request: Request) -> int:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task
            return 0

        assert answer_of(box, handler) == [INTERNAL]
        assert "the handler failed at the command 'test word'" in caplog.text

    def test_may_be_cut_short_by_a_failure_after_output(self, box: Sandbox) -> None:
        async def handler(request: Request) -> int:
            await request.send(b"half an answer")
            raise ValueError

        assert answer_of(box, handler) == [Output(OutputType.OUTPUT, b"half an answer", Stream.STDOUT), INTERNAL]

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (ErrorCode.ACCESS, ErrorCode.ACCESS),
            (ErrorCode.NO_HELP, ErrorCode.NO_HELP),
            (4711, 4711),
            (0xFFFF_FFFF, 0xFFFF_FFFF),
            (None, ErrorCode.INTERNAL),
        ],
    )
    def test_may_be_a_refusal_with_a_code(self, box: Sandbox, code: int | None, expected: int) -> None:
        async def handler(request: Request) -> int:
            raise RemctlCommandError("N\u00f6, not now", code=code)

        text = "N\u00f6, not now".encode()
        assert answer_of(box, handler) == [Output(OutputType.ERROR, text, error=expected)]

    def test_of_a_handler_that_is_no_coroutine_function_is_a_failure_that_says_so(
        self, box: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert answer_of(box, lambda request: 0) == [INTERNAL]
        assert "a handler is a coroutine function, and this one returned int" in caplog.text

    @pytest.mark.parametrize("code", [-1, 1 << 32, "5", 5.0])
    def test_with_a_code_that_the_protocol_has_no_room_for_is_a_failure(
        self, box: Sandbox, code: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(request: Request) -> int:
            raise RemctlCommandError("no", code=code)

        assert answer_of(box, handler) == [INTERNAL]
        assert "the handler failed at the command 'test word'" in caplog.text

    def test_with_a_refusal_without_words_is_a_failure(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(request: Request) -> int:
            raise RemctlCommandError(KeyError("x"))  # type: ignore[arg-type]

        assert answer_of(box, handler) == [INTERNAL]
        assert "the handler failed" in caplog.text


class TestAccessControl:
    async def hello(self, request: Request) -> int:
        await request.send(b"hello")
        return 0

    LET_IN = (Output(OutputType.OUTPUT, b"hello", Stream.STDOUT), Output(OutputType.STATUS, status=0))
    REFUSED = (Output(OutputType.ERROR, b"Access denied", error=ErrorCode.ACCESS),)

    @pytest.mark.parametrize(
        ("acl", "expected"),
        [
            (None, LET_IN),
            ({"user@SANDBOX.TEST"}, LET_IN),
            (["other@SANDBOX.TEST", "user@SANDBOX.TEST"], LET_IN),
            ({"user@SANDBOX.TEST": "a dict, by its keys"}, LET_IN),
            ([], REFUSED),
            ({"user", "user@OTHER.TEST", "USER@SANDBOX.TEST"}, REFUSED),
        ],
    )
    def test_by_principals(self, box: Sandbox, acl: Any, expected: tuple[Output, ...]) -> None:
        assert tuple(answer_of(box, self.hello, acl=acl)) == expected

    @pytest.mark.parametrize(("verdict", "expected"), [(True, LET_IN), (False, REFUSED), (1, LET_IN), (None, REFUSED)])
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_by_a_function_that_gets_the_request(
        self, box: Sandbox, asynchronous: bool, verdict: Any, expected: tuple[Output, ...]
    ) -> None:
        asked: list[tuple[object, ...]] = []

        def acl(request: Request) -> Any:
            asked.append((request.command, request.principal, request.address))
            return verdict

        async def slow_acl(request: Request) -> Any:
            await asyncio.sleep(0)
            return acl(request)

        assert tuple(answer_of(box, self.hello, acl=slow_acl if asynchronous else acl)) == expected
        assert asked == [((b"test", b"word", b"secret"), "user@SANDBOX.TEST", "127.0.0.1")] * 2

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_that_fails_lets_nobody_in(
        self, box: Sandbox, asynchronous: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        def acl(request: Request) -> bool:
            raise OSError("the directory is down")

        async def slow_acl(request: Request) -> bool:
            return acl(request)

        assert tuple(answer_of(box, self.hello, acl=slow_acl if asynchronous else acl)) == self.REFUSED
        assert "the acl failed at the command 'test word' of user@SANDBOX.TEST" in caplog.text
        assert "the directory is down" in caplog.text

    def test_keeps_a_refused_command_from_the_handler(self, box: Sandbox) -> None:
        async def handler(request: Request) -> int:
            raise AssertionError("it was called")

        assert tuple(answer_of(box, handler, acl=[])) == self.REFUSED

    def test_keeps_out_those_who_have_no_name(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(acl, "ANONYMOUS", "user@")  # whose tickets a KDC gives out is not ours to test

        def call(**options: Any) -> int | None:
            with ServerThread(box, **options) as server:
                return remctl.remctl("localhost", server.port, box.principal, ["example", "hello"]).status

        with pytest.raises(RemctlCommandError, match="Access denied") as caught:
            call()
        assert caught.value.code is ErrorCode.ACCESS
        assert call(acl=["user@SANDBOX.TEST"]) == 0


class TestSession:
    def test_answers_commands_that_were_sent_ahead_in_their_order(self, box: Sandbox) -> None:
        with ServerThread(box) as server, RawClient(server.port) as client:
            words = [(b"example", b"echo", b"%d" % number) for number in range(200)]
            client.say(*(b"\x02\x01\x01\x00" + encode_words(*each) for each in words))
            for number in range(200):
                assert client.answer() == [output(b"%d\n" % number), status(0)]

    def test_keeps_noop_and_quit_back_until_the_command_before_them_has_ended(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate) as server, RawClient(server.port) as client:
            client.say(b"\x02\x01\x01\x00" + encode_words(b"test"), b"\x03\x07", b"\x02\x02")
            assert gate.begun.wait(PATIENCE)
            gate.open(server)
            assert client.rest() == [status(Gate.STATUS), b"\x03\x07"]

    def test_ends_with_quit(self, box: Sandbox) -> None:
        with ServerThread(box) as server, RawClient(server.port) as client:
            client.say(b"\x02\x02")
            assert client.ended()
            server.until(lambda server: server.connections == 0)

    def test_ends_after_a_command_without_keep_alive(self, box: Sandbox) -> None:
        with ServerThread(box) as server, RawClient(server.port) as client:
            client.command(b"example", b"hello", keep_alive=0)
            assert client.rest() == [output(b"hello world\n"), status(0)]

    def test_ends_after_a_refusal_of_a_command_without_keep_alive(self, box: Sandbox) -> None:
        with ServerThread(box) as server, RawClient(server.port) as client:
            client.command(b"bogus", keep_alive=0)
            assert client.rest() == [error(ErrorCode.UNKNOWN_COMMAND, "Unknown command")]

    def test_of_many_clients_at_the_same_time(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate) as server:
            clients = [RawClient(server.port) for _ in range(20)]
            for client in clients:
                client.command(b"test")
            server.until(lambda server: server.connections == 20)
            gate.open(server)
            for client in clients:
                assert client.answer() == [status(Gate.STATUS)]
                client.close()
            server.until(lambda server: server.connections == 0)


class TestLog:
    def test_has_a_line_for_start_command_and_end(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "remctl.aio")
        with ServerThread(box) as server:
            port = server.port
            remctl.remctl("localhost", port, box.principal, ["example", "echo", "secret"])
            server.until(lambda server: server.connections == 0)
        assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
            ("remctl.aio.server", "INFO", f"serving on 127.0.0.1 port {port}"),
            ("remctl.aio._served", "INFO", "command 'example echo' of user@SANDBOX.TEST from 127.0.0.1"),
            ("remctl.aio._served", "INFO", "user@SANDBOX.TEST from 127.0.0.1: closed"),
        ]

    def test_says_why_a_stranger_was_turned_away(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "remctl.aio")
        with ServerThread(box) as server, RawClient(server.port, authenticated=False) as client:
            client.send_token(0x44)
            assert client.ended()
        assert "somebody from 127.0.0.1: the first token has the flags 0x44" in caplog.text

    def test_shows_words_that_are_no_text_escaped(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "remctl.aio")
        with ServerThread(box) as server, pytest.raises(RemctlCommandError):
            remctl.remctl("localhost", server.port, box.principal, [b"\xff", b"forged\nline"])
        assert "command '\\xff forged" in caplog.text
        assert "\nline" not in caplog.text

    def test_shows_no_more_of_a_word_than_people_read(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "remctl.aio")
        with ServerThread(box) as server, pytest.raises(RemctlCommandError):
            remctl.remctl("localhost", server.port, box.principal, ["x" * 1_000_000, "y" * 1_000_000])
        assert "command 'xxx" in caplog.text
        assert len(caplog.text) < 10_000

    def test_has_what_should_not_happen_to_a_connection(
        self, box: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def converse(self: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(_served.Served, "_converse", converse)
        with ServerThread(box) as server:
            with pytest.raises(remctl.RemctlConnectionError):
                remctl.remctl("localhost", server.port, box.principal, ["example", "hello"], timeout=PATIENCE)
            server.until(lambda server: server.connections == 0)
        assert "the connection of user@SANDBOX.TEST failed" in caplog.text
        assert "ZeroDivisionError" in caplog.text


def test_handlers_may_be_any_callable_that_returns_an_awaitable(box: Sandbox) -> None:
    async def later() -> int:
        return 3

    def handler(request: Request) -> Awaitable[int]:
        return asyncio.ensure_future(later())

    assert answer_of(box, handler) == [Output(OutputType.STATUS, status=3)]
