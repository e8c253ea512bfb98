"""What a server puts up with, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from rawclient import (
    BEGIN,
    END,
    ERROR,
    MIDDLE,
    RawClient,
    encode_command,
    encode_piece,
    encode_words,
    error,
    output,
    status,
    strangers,
)
from serving import PATIENCE, Gate, ServerThread

import remctl
from remctl import ErrorCode, Remctl
from remctl.aio import Request, _served
from remctl.testing import Sandbox

HELLO = [output(b"hello world\n"), status(0)]

SHORT = 0.3
"""A time limit that is to pass."""

MEGABYTE = 1 << 20

BODY = encode_words(b"test", bytes(70_000))
LARGE = encode_piece(BODY[:60_000], BEGIN), encode_piece(BODY[60_000:], END)
"""A command that is too large for one message."""


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Have all of the server's log caught."""
    caplog.set_level(logging.INFO, "remctl.aio")
    return caplog


class Pump:
    """A handler that sends without end, and says how far it has come and how it ended."""

    PIECE = bytes(64 * 1024)

    def __init__(self, total: int | None = None) -> None:
        self.sent = 0
        self.cancelled = threading.Event()
        self._total = total

    async def __call__(self, request: Request) -> int:
        """Send."""
        try:
            while self._total is None or self.sent < self._total:
                await request.send(self.PIECE)
                self.sent += len(self.PIECE)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return 0

    def wait_until_held(self) -> None:
        """Wait until it has sent something, and then nothing for a while."""
        before, still = 0, 0
        while still < 20:
            time.sleep(0.01)  # that nothing happens has no event
            still = still + 1 if self.sent == before > 0 else 0
            before = self.sent


def closed(sock: socket.socket) -> bool:
    """Whether the server closes a connection without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


class TestConnections:
    @pytest.fixture
    def crowd(self, box: Sandbox) -> Iterator[ServerThread]:
        """Give a server for three connections."""
        with ServerThread(box, max_connections=3) as server:
            yield server

    def test_a_newcomer_takes_the_place_of_the_oldest_stranger(
        self, crowd: ServerThread, logged: pytest.LogCaptureFixture
    ) -> None:
        oldest, second, third = (RawClient(crowd.port, authenticated=False) for _ in range(3))
        crowd.until(lambda server: server.connections == 3)
        with RawClient(crowd.port) as newcomer:
            assert oldest.ended()
            assert newcomer.run(b"example", b"hello") == HELLO
            second.handshake()
            assert second.run(b"example", b"hello") == HELLO
            with RawClient(crowd.port) as another:
                assert third.ended()
                assert [each.run(b"example", b"hello") for each in (newcomer, second, another)] == [HELLO] * 3
        assert logged.text.count("somebody from 127.0.0.1: the server is full, and it has not authenticated") == 2
        for each in (oldest, second, third):
            each.close()

    def test_those_who_have_authenticated_are_never_pushed_out(
        self, crowd: ServerThread, logged: pytest.LogCaptureFixture
    ) -> None:
        clients = [RawClient(crowd.port) for _ in range(3)]
        for sock in strangers(crowd.port, 5):
            assert closed(sock)
            sock.close()
        assert [client.run(b"example", b"hello") for client in clients] == [HELLO] * 3
        assert "refused a connection: there are 3" in logged.text
        clients[1].close()
        crowd.until(lambda server: server.connections == 2)
        with RawClient(crowd.port) as client:
            assert client.run(b"example", b"hello") == HELLO
        for client in clients:
            client.close()

    def test_a_crowd_that_comes_at_once_is_let_go_as_a_whole(self, box: Sandbox) -> None:
        with ServerThread(box, max_connections=10) as server:
            with server.held():  # so that all of them are there when it looks
                crowd = list(strangers(server.port, 100))
            server.until(lambda server: server.connections == 10)
            for sock in crowd[:90]:
                assert closed(sock)
            for sock in crowd:
                sock.close()
            server.until(lambda server: server.connections == 0)


class TestSizes:
    @pytest.fixture
    def client(self, box: Sandbox) -> Iterator[RawClient]:
        """Give a client of a server with narrow limits."""
        with (
            ServerThread(box, max_words=4, max_command_size=1000) as server,
            RawClient(server.port) as client,
        ):
            yield client

    def test_a_command_may_have_so_many_words(self, client: RawClient) -> None:
        assert client.run(b"example", b"echo", b"a", b"b") == [output(b"a b\n"), status(0)]
        assert client.run(b"example", b"echo", b"a", b"b", b"c") == [
            error(ErrorCode.TOOMANY_ARGS, "Too many arguments: 5, and at most 4 are allowed")
        ]
        assert client.run(b"example", b"hello") == HELLO

    def test_a_command_has_to_stay_below_its_size(self, client: RawClient) -> None:
        overhead = len(encode_words(b"example", b"cat", b""))
        word = b"x" * (999 - overhead)
        refusal = [error(ErrorCode.TOOMUCH_DATA, "Too much data: a command has less than 1000 bytes")]
        assert client.run(b"example", b"cat", word) == [output(word), status(0)]
        assert client.run(b"example", b"cat", word + b"x") == refusal
        assert client.run(b"example", b"hello") == HELLO

    def test_a_command_in_pieces_gets_one_answer_when_it_is_too_large(self, client: RawClient) -> None:
        client.say(
            encode_piece(bytes(600), BEGIN),
            *[encode_piece(bytes(600), MIDDLE)] * 5,
            encode_piece(bytes(600), END),
            encode_command(b"example", b"hello"),
        )
        assert client.answer() == [error(ErrorCode.TOOMUCH_DATA, "Too much data: a command has less than 1000 bytes")]
        assert client.answer() == HELLO

    def test_the_words_of_all_clients_together_are_limited(self, box: Sandbox) -> None:
        gate = Gate()
        with (
            ServerThread(box, gate, max_total_size=130_000) as server,
            RawClient(server.port) as first,
            RawClient(server.port) as second,
        ):
            first.say(*LARGE)
            assert gate.begun.wait(PATIENCE)
            refusal = error(ErrorCode.TOOMUCH_DATA, "Too much data: the server has no room for it at the moment")
            second.say(*LARGE)
            assert second.answer() == [refusal]
            second.command(b"test", bytes(60_000))  # for what fits a message there is always room
            gate.open(server)
            assert first.answer() == second.answer() == [status(Gate.STATUS)]
            second.say(*LARGE)
            assert second.answer() == [status(Gate.STATUS)]

    def test_a_command_whose_pieces_come_all_at_once_is_limited_too(self, box: Sandbox) -> None:
        gate = Gate()
        with (
            ServerThread(box, gate, max_total_size=100_000) as server,
            RawClient(server.port) as first,
            RawClient(server.port) as second,
        ):
            first.say(*LARGE)
            assert gate.begun.wait(PATIENCE)
            with server.held():
                second.say(*LARGE)
            assert second.answer() == [
                error(ErrorCode.TOOMUCH_DATA, "Too much data: the server has no room for it at the moment")
            ]
            gate.open(server)
            assert first.answer() == [status(Gate.STATUS)]

    def test_the_pieces_of_all_clients_together_are_limited(self, box: Sandbox) -> None:
        with ServerThread(box, max_total_size=100_000) as server:
            first, second, third = (RawClient(server.port) for _ in range(3))
            first.say(encode_piece(bytes(60_000), BEGIN))
            first.say(encode_piece(b"", MIDDLE))
            server.until(lambda server: not server.reserve(50_000) or bool(server.reserve(-50_000)))
            second.say(encode_piece(bytes(60_000), BEGIN))
            assert second.hear() == error(
                ErrorCode.TOOMUCH_DATA, "Too much data: the server has no room for it at the moment"
            )
            second.say(encode_piece(bytes(60_000), MIDDLE), encode_piece(b"", END))
            assert second.run(b"example", b"hello") == HELLO
            assert third.run(b"example", b"hello") == HELLO
            first.close()  # which gives its share back
            server.until(lambda server: server.connections == 2)
            assert third.run(b"example", b"cat", bytes(60_000)) == [output(bytes(60_000)), status(0)]
            for client in (second, third):
                client.close()

    def test_what_was_held_is_given_back(self, box: Sandbox) -> None:
        async def handler(request: Request) -> int:
            raise ValueError

        size = 80_000
        with ServerThread(box, handler, max_total_size=100_000) as server, RawClient(server.port) as client:
            body = encode_words(b"test", bytes(size))
            for _ in range(5):
                client.say(encode_piece(body[:50_000], BEGIN), encode_piece(body[50_000:], END))
                assert client.answer() == [error(ErrorCode.INTERNAL, "Internal failure")]
            server.until(lambda server: server.reserve(100_000))


class TestHandshakeTimeout:
    def test_ends_a_stranger_who_says_nothing(self, box: Sandbox, logged: pytest.LogCaptureFixture) -> None:
        with (
            ServerThread(box, handshake_timeout=SHORT) as server,
            RawClient(server.port, authenticated=False) as client,
        ):
            assert client.ended()
            assert f"somebody from 127.0.0.1: it did not authenticate within {SHORT:g} s" in logged.text
            server.until(lambda server: server.connections == 0)

    def test_ends_a_stranger_who_says_one_byte_at_a_time(self, box: Sandbox) -> None:
        with (
            ServerThread(box, handshake_timeout=SHORT) as server,
            RawClient(server.port, authenticated=False) as client,
        ):
            begin = time.monotonic()
            client.send_token(0x51)
            client.send_header(0x42, 100_000)
            client.socket.settimeout(SHORT / 20)
            with pytest.raises(ConnectionError):
                while time.monotonic() < begin + PATIENCE:
                    client.send(b"x")
                    try:
                        if client.socket.recv(1) == b"":
                            raise ConnectionError
                    except TimeoutError:
                        continue
            assert SHORT <= time.monotonic() - begin + 0.1 < PATIENCE

    def test_does_not_end_those_who_have_authenticated(self, box: Sandbox) -> None:
        with (
            ServerThread(box, handshake_timeout=1) as server,
            RawClient(server.port) as client,
            RawClient(server.port, authenticated=False) as stranger,
        ):
            assert stranger.ended()
            assert client.run(b"example", b"hello") == HELLO


class TestIdleTimeout:
    def test_ends_a_session_without_a_word(self, box: Sandbox, logged: pytest.LogCaptureFixture) -> None:
        with ServerThread(box, idle_timeout=SHORT) as server, RawClient(server.port) as client:
            assert client.run(b"example", b"hello") == HELLO
            assert client.rest() == []
            assert f"user@SANDBOX.TEST from 127.0.0.1: it was idle for {SHORT:g} s" in logged.text

    def test_ends_a_session_in_the_middle_of_a_command(self, box: Sandbox) -> None:
        with ServerThread(box, idle_timeout=SHORT) as server, RawClient(server.port) as client:
            client.say(encode_piece(encode_words(b"example", b"hello"), BEGIN))
            assert client.rest() == []

    def test_is_no_limit_for_a_command(self, box: Sandbox) -> None:
        with (
            ServerThread(box, idle_timeout=SHORT) as server,
            Remctl("localhost", server.port, box.principal) as session,
        ):
            assert session.run(["example", "sleep", 3 * SHORT]).status == 0

    def test_begins_anew_with_every_noop(self, box: Sandbox) -> None:
        with (
            ServerThread(box, idle_timeout=SHORT) as server,
            Remctl("localhost", server.port, box.principal) as session,
        ):
            end = time.monotonic() + 3 * SHORT
            while time.monotonic() < end:
                session.noop()
            assert session.run(["example", "hello"]).status == 0

    def test_begins_anew_with_every_piece_of_a_command(self, box: Sandbox) -> None:
        with ServerThread(box, idle_timeout=SHORT) as server, RawClient(server.port) as client:
            body = encode_words(b"example", b"hello")
            client.say(encode_piece(body[:-1], BEGIN))
            end = time.monotonic() + 3 * SHORT
            while time.monotonic() < end:
                client.say(encode_piece(b"", MIDDLE))
                time.sleep(SHORT / 20)  # a client that is slow
            client.say(encode_piece(body[-1:], END))
            assert client.answer() == HELLO

    def test_ends_a_session_that_takes_no_output(
        self, box: Sandbox, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_served, "FAREWELL", SHORT)
        pump = Pump()
        with (
            ServerThread(box, pump, idle_timeout=SHORT) as server,
            RawClient(server.port, receive_buffer=4096) as client,
        ):
            client.command(b"test", b"pump")
            assert pump.cancelled.wait(PATIENCE)
            server.until(lambda server: server.connections == 0)
            assert f"user@SANDBOX.TEST from 127.0.0.1: it took nothing for {SHORT:g} s" in logged.text

    def test_leaves_a_session_alone_that_takes_output_slowly(self, box: Sandbox) -> None:
        pump = Pump(4 * MEGABYTE)
        with (
            ServerThread(box, pump, idle_timeout=1.0) as server,
            RawClient(server.port, receive_buffer=4096) as client,
        ):
            client.command(b"test", b"pump")
            begin = time.monotonic()
            heard = 0
            while (message := client.hear())[1] == 3:
                heard += len(message) - 7
                time.sleep(0.01)  # a client that is slow
            assert heard == 4 * MEGABYTE
            assert message == status(0)
            assert time.monotonic() - begin > 1.0


class TestRunTimeout:
    def test_ends_a_command_and_the_session_goes_on(self, box: Sandbox) -> None:
        with ServerThread(box, run_timeout=SHORT) as server, RawClient(server.port) as client:
            refusal = error(ErrorCode.INTERNAL, f"The command was stopped after {SHORT:g} s")
            for _ in range(2):
                assert client.run(b"example", b"sleep", b"60") == [refusal]
                assert client.run(b"example", b"hello") == HELLO

    def test_cancels_the_handler(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate, run_timeout=SHORT) as server, Remctl("localhost", server.port) as session:
            with pytest.raises(remctl.RemctlCommandError, match="was stopped"):
                session.run(["test"])
            assert gate.cancelled.is_set()

    def test_covers_access_control(self, box: Sandbox) -> None:
        async def acl(request: Request) -> bool:
            await asyncio.sleep(60)
            return True

        with (
            ServerThread(box, acl=acl, run_timeout=SHORT) as server,
            pytest.raises(remctl.RemctlCommandError, match="was stopped"),
        ):
            remctl.remctl("localhost", server.port, box.principal, ["test"])

    def test_covers_a_handler_that_waits_for_its_client(self, box: Sandbox) -> None:
        pump = Pump()
        with (
            ServerThread(box, pump, run_timeout=SHORT) as server,
            RawClient(server.port, receive_buffer=4096) as client,
        ):
            client.command(b"test")
            assert pump.cancelled.wait(PATIENCE)
            assert client.answer()[-1] == error(ErrorCode.INTERNAL, f"The command was stopped after {SHORT:g} s")

    def test_is_told_from_a_timeout_of_the_handlers_own(self, box: Sandbox) -> None:
        async def handler(request: Request) -> int:
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
            return 0

        with ServerThread(box, handler, run_timeout=PATIENCE) as server, RawClient(server.port) as client:
            assert client.run(b"test") == [error(ErrorCode.INTERNAL, "Internal failure")]


class TestBackPressure:
    def test_a_handler_waits_for_a_slow_client(self, box: Sandbox) -> None:
        total = 64 * MEGABYTE
        pump = Pump(total)
        with ServerThread(box, pump) as server, RawClient(server.port, receive_buffer=4096) as client:
            client.command(b"test")
            pump.wait_until_held()
            assert pump.sent < 16 * MEGABYTE  # the rest of it is in the system's buffers
            with RawClient(server.port) as other:
                other.say(b"\x03\x07")
                assert other.hear() == b"\x03\x07"
            *heard, last = client.answer()
            assert sum(len(message) - 7 for message in heard) == total
            assert last == status(0)

    def test_no_further_command_begins_for_a_client_that_takes_no_output(self, box: Sandbox) -> None:
        begun = 0
        pump = Pump()

        async def handler(request: Request) -> int:
            nonlocal begun
            begun += 1
            return await pump(request)

        with (
            ServerThread(box, handler, run_timeout=SHORT) as server,
            RawClient(server.port, receive_buffer=4096) as client,
        ):
            client.say(*[encode_command(b"test")] * 4)
            assert pump.cancelled.wait(PATIENCE)
            time.sleep(3 * SHORT)  # that nothing happens has no event
            assert begun == 1
            for _ in range(4):
                assert client.answer()[-1][1] == ERROR
            assert begun == 4

    def test_two_tasks_of_a_handler_may_wait_at_once(self, box: Sandbox) -> None:
        size = 8 * MEGABYTE

        async def handler(request: Request) -> int:
            async def pump(stream: remctl.Stream) -> None:
                for _ in range(size // MEGABYTE):
                    await request.send(bytes(MEGABYTE), stream)

            await asyncio.gather(pump(remctl.Stream.STDOUT), pump(remctl.Stream.STDERR))
            return 0

        with ServerThread(box, handler) as server, RawClient(server.port, receive_buffer=4096) as client:
            client.socket.settimeout(5)
            *heard, last = client.run(b"test")
            assert [sum(len(message) - 7 for message in heard if message[2] == stream) for stream in (1, 2)] == [
                size
            ] * 2
            assert last == status(0)

    def test_a_client_that_sends_ahead_without_end_is_held(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            client.socket.settimeout(0.5)
            sent = 0
            with pytest.raises(TimeoutError):
                while sent < 64 * MEGABYTE:
                    client.say(encode_command(b"test", bytes(60_000)))
                    sent += 60_000
            assert sent < 16 * MEGABYTE

    def test_a_client_that_sends_noops_and_reads_nothing_is_held(self, box: Sandbox) -> None:
        with ServerThread(box) as server, RawClient(server.port, receive_buffer=4096) as client:
            client.socket.settimeout(1.0)
            sent = 0
            with pytest.raises(TimeoutError):
                while sent < 400_000:
                    client.say(*[b"\x03\x07"] * 1000)
                    sent += 1000
            assert sent < 400_000


class TestVanishing:
    @pytest.mark.parametrize("how", ["close", "reset", "hang_up"])
    def test_cancels_the_command(self, box: Sandbox, how: str, logged: pytest.LogCaptureFixture) -> None:
        gate = Gate()
        with ServerThread(box, gate) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            getattr(client, how)()
            assert gate.cancelled.wait(PATIENCE)
            server.until(lambda server: server.connections == 0)
            assert "the client has vanished, and its command was cancelled" in logged.text
            assert gate.ended == 0

    @pytest.mark.parametrize("how", ["close", "reset"])
    def test_cancels_a_command_that_waits_in_send(self, box: Sandbox, how: str) -> None:
        pump = Pump()
        with ServerThread(box, pump) as server, RawClient(server.port, receive_buffer=4096) as client:
            client.command(b"test")
            pump.wait_until_held()
            getattr(client, how)()
            assert pump.cancelled.wait(PATIENCE)
            server.until(lambda server: server.connections == 0)

    def test_drops_the_commands_that_were_sent_ahead(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate) as server, RawClient(server.port) as client:
            client.say(*[encode_command(b"test")] * 10)
            assert gate.begun.wait(PATIENCE)
            client.close()
            server.until(lambda server: server.connections == 0)
            gate.open(server)
            server.until(lambda server: True)
            assert gate.ended == 0
            assert server.server.reserve(400 * MEGABYTE)

    def test_drops_them_too_when_the_handler_swallows_the_cancellation(self, box: Sandbox) -> None:
        gate = Gate()
        begun = 0

        async def handler(request: Request) -> int:
            nonlocal begun
            begun += 1
            with contextlib.suppress(asyncio.CancelledError):
                await gate(request)
            return 0

        with ServerThread(box, handler) as server, RawClient(server.port) as client:
            client.say(*[encode_command(b"test")] * 3)
            assert gate.begun.wait(PATIENCE)
            client.close()
            assert gate.cancelled.wait(PATIENCE)
            gate.open(server)
            server.until(lambda server: server.connections == 0)
            assert begun == 1

    def test_between_two_commands_keeps_the_second_from_running(self, box: Sandbox) -> None:
        gate = Gate()

        async def handler(request: Request) -> int:
            return 0 if request.command == (b"quick",) else await gate(request)

        with ServerThread(box, handler) as server, RawClient(server.port) as client:
            with server.held():  # so that all of it is there when it looks
                client.say(encode_command(b"quick"), encode_command(b"slow"))
                client.close()
            server.until(lambda server: server.connections == 0)
            assert gate.begun.is_set() == gate.cancelled.is_set()

    def test_leaves_a_handler_the_time_to_clean_up(self, box: Sandbox) -> None:
        cleaned = threading.Event()
        gate = Gate()

        async def handler(request: Request) -> int:
            try:
                return await gate(request)
            finally:
                await asyncio.sleep(0.05)
                cleaned.set()

        with ServerThread(box, handler) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            client.close()
            assert cleaned.wait(PATIENCE)
            server.until(lambda server: server.connections == 0)
