"""A server and clients that break off, stall, and say what nobody should: each ends as documented, and alone."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import gssapi
import pytest
from rawclient import (
    BEGIN,
    COMMAND,
    CONTEXT,
    DATA,
    END,
    FIRST,
    MIDDLE,
    WHOLE,
    RawClient,
    encode_command,
    encode_piece,
    encode_token,
    encode_words,
    error,
    output,
    status,
    strangers,
)
from serving import ServerThread

import remctl
from remctl import ErrorCode, Remctl
from remctl.aio import _served
from remctl.testing import Sandbox

HELLO = [output(b"hello world\n"), status(0)]
SAY_HELLO = encode_command(b"example", b"hello")
NOOP = b"\x03\x07"
QUIT = b"\x02\x02"
VERSION = b"\x02\x06\x03"
INVALID_TOKEN = [error(ErrorCode.BAD_TOKEN, "Invalid token")]

MEGABYTE = 1 << 20
CONTEXT_LIMIT = 128 * 1024


@pytest.fixture(scope="module")
def server(box: Sandbox) -> Iterator[ServerThread]:
    """Give one server for all tests of this module, with a bystander."""
    with ServerThread(box) as server:
        yield server


@pytest.fixture(scope="module")
def bystander(box: Sandbox, server: ServerThread) -> Iterator[Remctl]:
    """Give a session that has nothing to do with any of it."""
    with Remctl("localhost", server.port, box.principal) as session:
        yield session


@pytest.fixture(autouse=True)
def undisturbed(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """See to it that each test leaves the bystander its session, and no connection besides."""
    caplog.set_level(logging.INFO, "remctl.aio")
    if "server" not in request.fixturenames:
        yield
        return
    server: ServerThread = request.getfixturevalue("server")
    bystander: Remctl = request.getfixturevalue("bystander")
    yield
    server.until(lambda server: server.connections == 1)
    assert bystander.run(["example", "hello"], timeout=20).stdout == b"hello world\n"
    failures, server.failures = server.failures, []
    assert failures == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.fixture
def stranger(server: ServerThread) -> Iterator[RawClient]:
    """Give a client that has connected, and said nothing."""
    with RawClient(server.port, authenticated=False) as client:
        yield client


@pytest.fixture
def client(server: ServerThread) -> Iterator[RawClient]:
    """Give a client that has authenticated."""
    with RawClient(server.port) as client:
        yield client


# How far a client comes before it breaks off


def _nothing(client: RawClient) -> None:
    pass


def _half_of_the_first_token(client: RawClient) -> None:
    client.send(encode_token(FIRST)[:3])


def _the_first_token(client: RawClient) -> None:
    client.send_token(FIRST)


def _half_of_the_context_token(client: RawClient) -> None:
    _the_first_token(client)
    client.send(encode_token(CONTEXT, client.first_context_token())[:300])


def _the_context_token(client: RawClient) -> None:
    _the_first_token(client)
    client.send_token(CONTEXT, client.first_context_token())


def _the_handshake(client: RawClient) -> None:
    client.handshake()


def _half_of_a_header(client: RawClient) -> None:
    client.handshake()
    client.send(b"\x44\0\0")


def _half_of_a_command(client: RawClient) -> None:
    client.handshake()
    client.send(client.wrapped(SAY_HELLO)[:40])


def _a_piece_of_a_command(client: RawClient) -> None:
    client.handshake()
    client.say(encode_piece(encode_words(b"example", b"hello"), BEGIN))


def _a_command_that_runs(client: RawClient) -> None:
    client.handshake()
    client.command(b"example", b"sleep", b"1000")


def _a_command_with_output(client: RawClient) -> None:
    client.handshake()
    client.command(b"example", b"bytes", b"1000000000")
    client.hear()


STEPS = [
    _nothing,
    _half_of_the_first_token,
    _the_first_token,
    _half_of_the_context_token,
    _the_context_token,
    _the_handshake,
    _half_of_a_header,
    _half_of_a_command,
    _a_piece_of_a_command,
    _a_command_that_runs,
    _a_command_with_output,
]

after_each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__.strip("_"))


class TestBreakingOff:
    @after_each_step
    @pytest.mark.parametrize("how", ["close", "reset", "hang_up"])
    def test_ends_the_connection(self, stranger: RawClient, step: Callable[[RawClient], None], how: str) -> None:
        step(stranger)
        getattr(stranger, how)()

    def test_or_falling_silent_ends_each_within_its_limit(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_served, "FAREWELL", 0.5)
        with ServerThread(box, handshake_timeout=1.5, idle_timeout=1.5, run_timeout=1.5) as server:
            clients = []
            for step in STEPS:
                clients.append(RawClient(server.port, authenticated=False))
                step(clients[-1])
            server.until(lambda server: server.connections == 0)
            for client in clients:
                client.close()


class TestDribbling:
    def test_does_no_harm(self, stranger: RawClient) -> None:
        stranger.dribble(encode_token(FIRST) + encode_token(CONTEXT, stranger.first_context_token()))
        stranger.finish_handshake()
        stranger.dribble(stranger.wrapped(SAY_HELLO) + stranger.wrapped(NOOP))
        assert stranger.answer() == HELLO
        assert stranger.hear() == NOOP

    def test_nor_does_saying_all_at_once(self, stranger: RawClient) -> None:
        stranger.send(encode_token(FIRST) + encode_token(CONTEXT, stranger.first_context_token()))
        stranger.finish_handshake()
        stranger.say(SAY_HELLO, NOOP, SAY_HELLO, QUIT)
        assert stranger.rest() == [*HELLO, NOOP, *HELLO]


def refused_by_kerberos(client: RawClient) -> bool:
    """Whether the server closes the connection, after Kerberos' own word on why."""
    flags, token = client.receive_token()
    assert flags == CONTEXT
    with pytest.raises(gssapi.raw.GSSError):
        client.context.step(token)
    return client.ended()


class TestHandshake:
    @pytest.mark.parametrize("flags", [0x00, 0x01, 0x10, 0x11, 0x41, 0x50, 0x42, 0x44, 0x53, 0xD1, 0xFF])
    def test_has_to_begin_with_its_first_token(self, stranger: RawClient, flags: int) -> None:
        stranger.send_token(flags)
        assert stranger.ended()

    def test_begins_with_a_token_that_is_empty(self, stranger: RawClient) -> None:
        stranger.send_token(FIRST, b"x")
        assert stranger.ended()

    @pytest.mark.parametrize("flags", [0x00, 0x02, 0x44, 0x46, 0x51, 0x62, 0xC2])
    def test_goes_on_with_context_tokens(self, stranger: RawClient, flags: int) -> None:
        stranger.send_token(FIRST)
        stranger.send_token(flags, stranger.first_context_token())
        assert stranger.ended()

    @pytest.mark.parametrize("payload", [b"", b"x", b"\x60" + bytes(100), os.urandom(CONTEXT_LIMIT)])
    def test_ends_with_a_token_of_garbage(
        self, stranger: RawClient, payload: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        stranger.send_token(FIRST)
        stranger.send_token(CONTEXT, payload)
        assert stranger.ended()
        assert "somebody from 127.0.0.1: authentication failed: GSS-API error" in caplog.text

    @pytest.mark.parametrize("length", [CONTEXT_LIMIT + 1, MEGABYTE, MEGABYTE + 1, (1 << 32) - 1])
    @pytest.mark.parametrize("at", ["the beginning", "the context token"])
    def test_ends_with_the_header_of_a_token_that_is_too_large(
        self, stranger: RawClient, at: str, length: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        if at == "the context token":
            stranger.send_token(FIRST)
        stranger.send_header(CONTEXT, length)
        assert stranger.ended()
        assert f"a token of {length} bytes came, and at most {CONTEXT_LIMIT} are allowed" in caplog.text

    def test_ends_with_a_context_token_that_was_changed_on_its_way(self, stranger: RawClient) -> None:
        token = bytearray(stranger.first_context_token())
        token[-1] ^= 1
        stranger.send_token(FIRST)
        stranger.send_token(CONTEXT, bytes(token))
        assert refused_by_kerberos(stranger)

    def test_ends_with_a_context_token_that_was_used_before(
        self, server: ServerThread, stranger: RawClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = stranger.first_context_token()
        stranger.send_token(FIRST)
        stranger.send_token(CONTEXT, token)
        stranger.finish_handshake()
        assert stranger.run(b"example", b"hello") == HELLO
        with RawClient(server.port, authenticated=False) as thief:
            thief.send_token(FIRST)
            thief.first_context_token()
            thief.send_token(CONTEXT, token)
            assert refused_by_kerberos(thief)
        assert "somebody from 127.0.0.1: authentication failed" in caplog.text

    def test_without_mutual_authentication_ends_without_a_word(
        self, server: ServerThread, caplog: pytest.LogCaptureFixture
    ) -> None:
        with RawClient(server.port, authenticated=False, mutual=False) as client:
            client.send_token(FIRST)
            client.send_token(CONTEXT, client.first_context_token())
            assert client.ended()
        assert "the security context lacks mutual authentication" in caplog.text

    def test_is_over_when_it_is_over(self, client: RawClient) -> None:
        client.send_token(CONTEXT, b"one more")
        assert client.rest() == INVALID_TOKEN


class TestTokens:
    @pytest.mark.parametrize("flags", [0x00, 0x04, 0x24, 0x42, 0x51, 0x64, 0xC4, 0xFF])
    def test_with_wrong_flags_end_the_session(self, client: RawClient, flags: int) -> None:
        client.send_token(flags, client.wrap(SAY_HELLO))
        assert client.rest() == INVALID_TOKEN

    @pytest.mark.parametrize("payload", [b"", b"x", bytes(1000), os.urandom(MEGABYTE)])
    def test_of_garbage_end_the_session(self, client: RawClient, payload: bytes) -> None:
        client.send_token(DATA, payload)
        assert client.rest() == INVALID_TOKEN

    @pytest.mark.parametrize("length", [MEGABYTE + 1, (1 << 32) - 1])
    def test_that_are_too_large_end_the_session_by_their_header(self, client: RawClient, length: int) -> None:
        client.send_header(DATA, length)
        assert client.rest() == INVALID_TOKEN

    @pytest.mark.parametrize("place", [20, -1])
    def test_that_were_changed_on_their_way_end_the_session(self, client: RawClient, place: int) -> None:
        payload = bytearray(client.wrap(SAY_HELLO))
        payload[place] ^= 1
        client.send_token(DATA, bytes(payload))
        assert client.rest() == INVALID_TOKEN

    def test_that_come_again_end_the_session(self, client: RawClient) -> None:
        token = client.wrapped(SAY_HELLO)
        client.send(token * 2)
        assert client.rest() == HELLO + INVALID_TOKEN

    def test_that_change_places_end_the_session(self, client: RawClient) -> None:
        first, second = client.wrapped(SAY_HELLO), client.wrapped(SAY_HELLO)
        client.send(second + first)
        assert client.rest() == INVALID_TOKEN

    def test_of_which_one_is_missing_end_the_session(self, client: RawClient) -> None:
        client.wrap(SAY_HELLO)
        client.say(SAY_HELLO)
        assert client.rest() == INVALID_TOKEN

    def test_of_another_session_end_the_session(self, server: ServerThread, client: RawClient) -> None:
        with RawClient(server.port) as other:
            client.send(other.wrapped(SAY_HELLO))
            assert client.rest() == INVALID_TOKEN
            assert other.context.complete

    def test_that_are_signed_but_not_encrypted_end_the_session(
        self, client: RawClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.send_token(DATA, client.wrap(SAY_HELLO, encrypt=False))
        assert client.rest() == INVALID_TOKEN
        assert "user@SANDBOX.TEST from 127.0.0.1: a token came that was not encrypted" in caplog.text

    def test_that_are_wrong_in_the_middle_of_a_command_end_the_session(self, client: RawClient) -> None:
        client.say(encode_piece(encode_words(b"example", b"hello"), BEGIN))
        client.send_token(DATA, b"garbage")
        assert client.rest() == INVALID_TOKEN

    def test_are_not_looked_at_before_the_answer_to_the_command_before(self, client: RawClient) -> None:
        client.send(client.wrapped(SAY_HELLO) + encode_token(DATA, b"garbage"))
        assert client.rest() == HELLO + INVALID_TOKEN


def answered(client: RawClient, message: bytes, answer: bytes) -> None:
    """Check the one answer to a message, and that the session goes on."""
    client.say(message)
    assert client.hear() == answer
    assert client.run(b"example", b"hello") == HELLO


class TestMessages:
    @pytest.mark.parametrize("version", [0, 1, 4, 255])
    @pytest.mark.parametrize("kind", [1, 2, 7, 99])
    def test_of_another_version_are_answered_with_the_highest(self, client: RawClient, version: int, kind: int) -> None:
        answered(client, bytes([version, kind]), VERSION)

    @pytest.mark.parametrize("kind", [0, 3, 4, 5, 6, 8, 255])
    def test_of_unknown_type_are_answered_so(self, client: RawClient, kind: int) -> None:
        answered(
            client,
            bytes([2, kind]) + b"anything",
            error(ErrorCode.UNKNOWN_MESSAGE, f"Unknown message type: {kind}"),
        )

    @pytest.mark.parametrize("message", [b"", b"\x02"])
    def test_without_a_type_are_answered_so(self, client: RawClient, message: bytes) -> None:
        text = "Invalid token: a message has at least a version and a type"
        answered(client, message, error(ErrorCode.BAD_TOKEN, text))

    def test_may_have_64_kib_and_no_more(self, client: RawClient) -> None:
        most = 65536 - len(encode_command(b"example", b"cat", b""))
        assert client.run(b"example", b"cat", bytes(most))[-1] == status(0)
        answered(
            client,
            encode_command(b"example", b"cat", bytes(most + 1)),
            error(ErrorCode.TOOMUCH_DATA, "Too much data: a message has 65536 bytes at the most"),
        )

    @pytest.mark.parametrize("message", [b"\x02\x07", b"\x03\x07", b"\x03\x07and more"])
    def test_of_noop_are_answered_in_kind(self, client: RawClient, message: bytes) -> None:
        answered(client, message, NOOP)

    @pytest.mark.parametrize("message", [b"\x02\x02", b"\x03\x02", b"\x02\x02and more"])
    def test_of_quit_end_the_session(self, client: RawClient, message: bytes) -> None:
        client.say(message, SAY_HELLO)
        assert client.rest() == []

    def test_of_version_3_may_be_commands(self, client: RawClient) -> None:
        client.say(b"\x03" + SAY_HELLO[1:])
        assert client.answer() == HELLO

    def test_that_are_wrong_may_be_many(self, client: RawClient) -> None:
        client.say(*[b"\x02\x63", b"\x09\x01", b"", NOOP] * 500)
        for _ in range(500):
            assert [client.hear()[1] for _ in range(4)] == [5, 6, 5, 7]
        assert client.run(b"example", b"hello") == HELLO


def bad_command(text: str) -> bytes:
    """What is answered to a command that cannot be understood."""
    return error(ErrorCode.BAD_COMMAND, f"Invalid command format: {text}")


class TestCommands:
    @pytest.mark.parametrize(
        ("body", "answer"),
        [
            (b"", bad_command("no number of arguments")),
            (b"\0\0\0", bad_command("no number of arguments")),
            (b"\0\0\0\0", error(ErrorCode.UNKNOWN_COMMAND, "Unknown command: the command is empty")),
            (b"\0\0\0\1", bad_command("an argument is missing")),
            (b"\0\0\0\2\0\0\0\1a", bad_command("an argument is missing")),
            (b"\0\0\0\1\0\0\0\2a", bad_command("an argument is cut off")),
            (b"\0\0\0\1\xff\xff\xff\xffa", bad_command("an argument is cut off")),
            (b"\0\0\0\1\0\0\0\1ab", bad_command("something follows the arguments")),
            (
                b"\xff\xff\xff\xff",
                error(ErrorCode.TOOMANY_ARGS, "Too many arguments: 4294967295, and at most 4096 are allowed"),
            ),
        ],
    )
    @pytest.mark.parametrize("pieces", [False, True])
    def test_that_make_no_sense_are_answered_so(
        self, client: RawClient, body: bytes, answer: bytes, pieces: bool
    ) -> None:
        if pieces:
            client.say(*(encode_piece(body[n : n + 1], MIDDLE if n else BEGIN) for n in range(max(1, len(body)))))
            answered(client, encode_piece(b"", END), answer)
        else:
            answered(client, encode_piece(body, WHOLE), answer)

    @pytest.mark.parametrize("message", [b"\x02\x01", b"\x02\x01\x01"])
    def test_that_are_too_short_are_answered_so(self, client: RawClient, message: bytes) -> None:
        answered(client, message, bad_command("the message is too short"))

    @pytest.mark.parametrize("place", [4, 0x7F, 0x80, 0xFF])
    def test_with_an_unknown_place_are_answered_so(self, client: RawClient, place: int) -> None:
        answered(client, encode_piece(b"", place), bad_command(f"continue status {place}"))

    @pytest.mark.parametrize("place", [MIDDLE, END])
    def test_that_go_on_without_a_beginning_are_answered_so(self, client: RawClient, place: int) -> None:
        answered(client, encode_piece(b"", place), bad_command(f"unexpected continue status {place}"))

    @pytest.mark.parametrize("place", [WHOLE, BEGIN])
    def test_that_begin_twice_are_answered_once(self, client: RawClient, place: int) -> None:
        body = encode_words(b"example", b"hello")
        client.say(encode_piece(body, BEGIN))
        client.say(encode_piece(body, place))
        assert client.hear() == bad_command(f"unexpected continue status {place}")
        client.say(encode_piece(body, MIDDLE), encode_piece(body, END))
        assert client.run(b"example", b"hello") == HELLO

    @pytest.mark.parametrize("message", [NOOP, b"\x02\x63"])
    def test_with_something_else_between_their_pieces_end_the_session(self, client: RawClient, message: bytes) -> None:
        client.say(encode_piece(b"", BEGIN), message, SAY_HELLO)
        assert client.rest() == [error(ErrorCode.UNEXPECTED_MESSAGE, "Unexpected message: a command is not complete")]

    def test_with_another_version_between_their_pieces_end_the_session(self, client: RawClient) -> None:
        client.say(encode_piece(b"", BEGIN), bytes([4, COMMAND]), SAY_HELLO)
        assert client.rest() == [VERSION]

    def test_with_quit_between_their_pieces_end_the_session(self, client: RawClient) -> None:
        client.say(encode_piece(b"", BEGIN), QUIT, SAY_HELLO)
        assert client.rest() == []

    def test_may_be_cut_anywhere(self, client: RawClient) -> None:
        body = encode_words(b"example", b"hello")
        client.say(
            encode_piece(b"", BEGIN),
            *(encode_piece(bytes([byte]), MIDDLE) for byte in body),
            encode_piece(b"", END),
        )
        assert client.answer() == HELLO

    def test_stay_open_as_their_last_piece_says(self, client: RawClient) -> None:
        body = encode_words(b"example", b"hello")
        client.say(encode_piece(body[:5], BEGIN, keep_alive=0), encode_piece(body[5:], END, keep_alive=2))
        assert client.answer() == HELLO
        client.say(encode_piece(body[:5], BEGIN, keep_alive=1), encode_piece(body[5:], END, keep_alive=0), SAY_HELLO)
        assert client.rest() == HELLO


def resident() -> int:
    """Bytes of memory that this process has, after what can be freed was freed."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class TestCrowd:
    def test_of_a_thousand_handshakes_that_do_not_end_leaves_room_for_a_client(self, box: Sandbox) -> None:
        with ServerThread(box, max_connections=2000) as server:
            before = resident()
            crowd = list(strangers(server.port, 1000))
            for number, sock in enumerate(crowd):
                sock.sendall([b"", b"\x51", encode_token(FIRST), encode_token(FIRST) + b"\x42\0\1\0\0x"][number % 4])
            server.until(lambda server: server.connections == 1000)
            result = remctl.remctl("localhost", server.port, box.principal, ["example", "hello"], timeout=30)
            assert result.stdout == b"hello world\n"
            assert resident() - before < 100 * MEGABYTE
            for sock in crowd:
                sock.close()
            server.until(lambda server: server.connections == 0)

    def test_that_floods_a_full_server_is_let_go_as_a_whole(self, box: Sandbox) -> None:
        with (
            ServerThread(box, max_connections=100) as server,
            Remctl("localhost", server.port, box.principal) as session,
        ):
            crowd = list(strangers(server.port, 1000))
            assert session.run(["example", "hello"], timeout=30).stdout == b"hello world\n"
            for sock in crowd[:901]:
                with contextlib.suppress(ConnectionError):
                    assert sock.recv(1) == b""
            for sock in crowd:
                sock.close()
            server.until(lambda server: server.connections == 1)

    def test_of_sessions_leaves_nothing_behind(self, box: Sandbox) -> None:
        with ServerThread(box) as server:

            def visit() -> None:
                with RawClient(server.port) as client:
                    assert client.run(b"example", b"cat", bytes(10_000))[-1] == status(0)

            for _ in range(30):
                visit()
            before = resident()
            for _ in range(150):
                visit()
            server.until(lambda server: server.connections == 0)
            assert resident() - before < 3 * MEGABYTE
