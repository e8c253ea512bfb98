"""A server and clients of protocol 1: turned away, unless they are asked in."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator

import pytest
from doubles import Relay, downgrading
from rawclient import RawClient, encode_words
from serving import PATIENCE, Gate, ServerThread

import remctl
from remctl import Remctl, RemctlCommandError
from remctl.aio import Request
from remctl.testing import Sandbox
from remctl.testing.example import example
from remctl.types import Stream

FIRST, CONTEXT, COMMAND, MIC, RESULT = 0x11, 0x02, 0x24, 0x08, 0x04

MOST = 65528
"""Bytes of output that a result has room for."""


def result(status: int, data: bytes) -> bytes:
    """The one message with which a server answers, in plain."""
    return struct.pack(">iI", status, len(data)) + data


class OldClient(RawClient):
    """A client of protocol 1."""

    def handshake(self, first: int = FIRST, context: int = CONTEXT) -> None:
        """Go through it with the old flags."""
        super().handshake(first, context)

    def ask(self, *words: bytes, flags: int = COMMAND) -> None:
        """Send the command."""
        self.send_token(flags, self.wrap(encode_words(*words)))

    def verified(self, *words: bytes) -> bool:
        """Take the MIC of the command, and tell whether it is authentic."""
        flags, mic = self.receive_token()
        self.context.verify_signature(encode_words(*words), mic)
        return flags == MIC

    def result(self) -> bytes:
        """Return the result, in plain, after which the server closes the connection."""
        flags, payload = self.receive_token()
        assert flags == RESULT
        message = self.unwrap(payload)
        assert self.ended()
        return message


async def talkative(request: Request) -> int:
    """Say more than a result has room for, on both streams in turn."""
    for number in range(10):
        await request.send(bytes([number]) * 10_000, Stream.STDERR if number % 2 else Stream.STDOUT)
    return 200


@pytest.fixture
def server(box: Sandbox, caplog: pytest.LogCaptureFixture) -> Iterator[ServerThread]:
    """Give a server that takes protocol 1."""
    caplog.set_level(logging.INFO, "remctl.aio")
    with ServerThread(box, allow_v1=True) as server:
        yield server


def test_is_refused_by_default(box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "remctl.aio")
    with ServerThread(box) as server, OldClient(server.port, authenticated=False) as client:
        client.send_token(FIRST)
        assert client.ended()
    assert "somebody from 127.0.0.1: the first token has the flags 0x11" in caplog.text


class TestRawClient:
    def test_gets_a_mic_and_a_result(self, server: ServerThread) -> None:
        with OldClient(server.port) as client:
            client.ask(b"example", b"hello")
            assert client.verified(b"example", b"hello")
            assert client.result() == result(0, b"hello world\n")

    def test_gets_no_mic_that_it_did_not_ask_for(self, server: ServerThread) -> None:
        with OldClient(server.port) as client:
            client.ask(b"example", b"hello", flags=RESULT)
            assert client.result() == result(0, b"hello world\n")

    def test_gets_both_streams_as_one_and_as_much_as_there_is_room_for(
        self, box: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        said = b"".join(bytes([number]) * 10_000 for number in range(10))
        with ServerThread(box, talkative, allow_v1=True) as server, OldClient(server.port) as client:
            client.ask(b"test", b"word", b"secret", flags=RESULT)
            assert client.result() == result(200, said[:MOST])
        assert f"protocol 1 had no room for {100_000 - MOST} bytes of output of 'test word'" in caplog.text

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (encode_words(b"bogus"), b"Unknown command\n"),
            (b"\0\0\0\0", b"Unknown command: the command is empty\n"),
            (b"\0\0", b"Invalid command format: no number of arguments\n"),
            (encode_words(*[b""] * 4097), b"Too many arguments: 4097, and at most 4096 are allowed\n"),
            (encode_words(b"example", bytes(65536)), b"Too much data\n"),
        ],
    )
    def test_gets_the_text_of_a_refusal(self, server: ServerThread, body: bytes, text: bytes) -> None:
        with OldClient(server.port) as client:
            client.send_token(RESULT, client.wrap(body))
            assert client.result() == result(-1, text)

    @pytest.mark.parametrize("flags", [0x00, 0x44, 0x64, 0x02])
    def test_has_to_keep_to_its_flags(self, server: ServerThread, flags: int) -> None:
        with OldClient(server.port) as client:
            client.send_token(flags, client.wrap(encode_words(b"example", b"hello")))
            assert client.result() == result(-1, b"Invalid token\n")

    def test_cannot_change_the_protocol_in_the_middle(self, server: ServerThread) -> None:
        for first, context in ((0x11, 0x42), (0x51, 0x02)):
            with OldClient(server.port, authenticated=False) as client:
                client.send_token(first)
                client.send_token(context, client.first_context_token())
                assert client.ended()

    def test_has_one_command(self, server: ServerThread) -> None:
        with OldClient(server.port) as client:
            client.ask(b"example", b"hello", flags=RESULT)
            client.ask(b"example", b"hello", flags=RESULT)
            assert client.result() == result(0, b"hello world\n")

    def test_that_vanishes_cancels_its_command(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate, allow_v1=True) as server, OldClient(server.port) as client:
            client.ask(b"test")
            assert gate.begun.wait(PATIENCE)
            client.close()
            assert gate.cancelled.wait(PATIENCE)

    def test_is_told_of_a_failure_without_its_text(self, box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(request: Request) -> int:
            await request.send(b"half an answer")
            raise ValueError("sesame")

        with ServerThread(box, handler, allow_v1=True) as server, OldClient(server.port) as client:
            client.ask(b"test", flags=RESULT)
            assert client.result() == result(-1, b"Internal failure\n")
        assert "sesame" in caplog.text

    def test_is_checked_by_the_same_access_control(self, box: Sandbox) -> None:
        with ServerThread(box, example, allow_v1=True, acl=[]) as server, OldClient(server.port) as client:
            client.ask(b"example", b"hello", flags=RESULT)
            assert client.result() == result(-1, b"Access denied\n")

    def test_may_sit_beside_newer_ones(self, server: ServerThread) -> None:
        with OldClient(server.port) as old, RawClient(server.port) as new:
            new.say(b"\x03\x07")
            assert new.hear() == b"\x03\x07"
            old.ask(b"example", b"hello", flags=RESULT)
            assert old.result() == result(0, b"hello world\n")
            assert len(new.run(b"example", b"hello")) == 2


@pytest.fixture
def downgraded(server: ServerThread) -> Iterator[int]:
    """Give the port of a relay that takes the later protocol's flag off both sides."""
    with downgrading(server.port) as relay:
        yield relay.port


class TestLibremctl:
    def test_falls_back_and_is_served(self, box: Sandbox, downgraded: int) -> None:
        with Remctl("localhost", downgraded, box.principal) as session:
            assert session.protocol == 1
            assert session.run(["example", "hello"]).stdout == b"hello world\n"
            assert session.run(["example", "count", 2]).stdout == b"line 1\nline 2\ncounted to 2\n"
            assert [session.run(["example", "status", number]).status for number in (0, 1, 127, 200, 255)] == [
                *(0, 1, 127, 200, 255)
            ]
            with pytest.raises(RemctlCommandError, match="Unknown command"):
                session.run(["bogus"])

    def test_finds_no_such_server_otherwise(self, box: Sandbox) -> None:
        def strip(data: bytes) -> bytes:
            return bytes([data[0] & ~0x40]) + data[1:] if data[0] in (0x51, 0x42) else data

        with ServerThread(box) as server, Relay(server.port) as relay:
            relay.up = relay.down = strip
            with pytest.raises(remctl.RemctlError):
                Remctl("localhost", relay.port, box.principal)
