"""What goes over a connection that is open: odd servers, lost connections, sessions out of step."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable

import pytest
from doubles import Peer, Relay, ScriptedServer

import remctl
from remctl import Output, OutputType, Remctl, Stream

ServerArguments = tuple[str, int, str]
Scripted = Callable[[Callable[[Peer], None]], ScriptedServer]


def connect(peer: ScriptedServer, server: ServerArguments) -> Remctl:
    """Open a session with a scripted server."""
    return Remctl("localhost", peer.port, server[2], timeout=20)


class TestAnswers:
    def test_a_token_as_large_as_the_protocol_allows(self, scripted: Scripted, server: ServerArguments) -> None:
        blob = bytes(range(256)) * 255 + bytes(249)

        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send_output(blob)
            peer.send_output(blob, 2)
            peer.send_status(0)

        with connect(scripted(answer), server) as session:
            assert session.run(["x"]) == (blob, blob, 0)

    def test_tokens_that_arrive_byte_by_byte(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            output = peer.wrap(b"\x02\x03\x01" + struct.pack(">I", 4) + b"drip")
            status = peer.wrap(b"\x02\x04\x07")
            for byte in b"".join(struct.pack(">BI", 0x44, len(part)) + part for part in (output, status)):
                peer.socket.sendall(bytes([byte]))

        with connect(scripted(answer), server) as session:
            assert session.run(["x"]) == (b"drip", b"", 7)

    def test_more_output_than_the_sockets_buffer_holds(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            for number in range(300):
                peer.send_output(bytes([number % 256]) * 60_000, 1 + number % 2)
            peer.send_status(1)

        with connect(scripted(answer), server) as session:
            result = session.run(["x"])
        assert result.stdout == b"".join(bytes([number % 256]) * 60_000 for number in range(0, 300, 2))
        assert result.stderr == b"".join(bytes([number % 256]) * 60_000 for number in range(1, 300, 2))
        assert result.status == 1

    def test_error_codes_that_the_protocol_does_not_name(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            for _ in range(2):
                peer.receive()
                peer.send_error(77, b"caf\xe9 closed")

        with connect(scripted(answer), server) as session:
            session.command(["x"])
            assert session.output() == Output(OutputType.ERROR, b"caf\xe9 closed", error=77)
            with pytest.raises(remctl.RemctlCommandError, match=r"caf\\xe9 closed") as caught:
                session.run(["x"])
            assert caught.value.code == 77

    def test_output_before_an_error_is_kept(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send_output(b"half")
            peer.send_output(b"warned", 2)
            peer.send_error(1, b"Internal failure")

        with connect(scripted(answer), server) as session:
            with pytest.raises(remctl.RemctlCommandError) as caught:
                session.run(["x"])
            assert (caught.value.stdout, caught.value.stderr) == (b"half", b"warned")

    def test_commands_arrive_as_they_were_sent(self, scripted: Scripted, server: ServerArguments) -> None:
        got: list[bytes] = []

        def answer(peer: Peer) -> None:
            got.append(peer.receive())
            peer.send_status(0)

        with connect(scripted(answer), server) as session:
            session.run(["w\0rd", b"", "last"])
        words = b"".join(struct.pack(">I", len(word)) + word for word in (b"w\0rd", b"", b"last"))
        assert got == [b"\x02\x01\x01\x00" + struct.pack(">I", 3) + words]


class TestLostConnections:
    def test_output_that_arrived_before_is_on_the_error(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            for number in range(3):
                peer.send_output(b"line %d\n" % number)
            peer.send_output(b"oops", 2)
            peer.socket.close()

        with connect(scripted(answer), server) as session:
            with pytest.raises(remctl.RemctlConnectionError, match="lost before the end of the answer") as caught:
                session.run(["example", "three"])
            assert caught.value.stdout == b"line 0\nline 1\nline 2\n"
            assert caught.value.stderr == b"oops"
            assert caught.value.sent
            assert caught.value.command == "example three"
            with pytest.raises(remctl.RemctlNotOpenedError, match="lost before the end"):
                session.run(["example", "three"])
        with pytest.raises(remctl.RemctlConnectionError) as caught:
            remctl.remctl("localhost", scripted(answer).port, server[2], ["x"])
        assert caught.value.stdout == b"line 0\nline 1\nline 2\n"

    @pytest.mark.parametrize("size", [1, 5, 30])
    def test_in_the_middle_of_a_token(self, scripted: Scripted, server: ServerArguments, size: int) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            token = peer.wrap(b"\x02\x04\x00")
            peer.socket.sendall((struct.pack(">BI", 0x44, len(token)) + token)[:size])
            peer.socket.close()

        with connect(scripted(answer), server) as session:
            with pytest.raises(remctl.RemctlConnectionError):
                session.run(["x"])
            assert not session.opened

    def test_while_idle_is_noticed_before_a_command_is_sent(self, relay: Relay, server: ServerArguments) -> None:
        calls: list[Callable[[Remctl], object]] = [
            lambda session: session.run(["example", "hello"]),
            lambda session: session.run(["example", "cat", bytes(1_000_000)]),
            lambda session: session.noop(),
        ]
        for call in calls:
            with Remctl("localhost", relay.port, server[2]) as session:
                session.run(["example", "hello"])
                relay.cut()
                session.set_timeout(20)
                while not _readable(session):
                    pass
                with pytest.raises(remctl.RemctlConnectionError, match="server has closed the connection") as caught:
                    call(session)
                assert not caught.value.sent
                assert not session.opened

    def test_nothing_reconnects_by_itself(self, relay: Relay, server: ServerArguments) -> None:
        with Remctl("localhost", relay.port, server[2]) as session:
            session.run(["example", "hello"])
            relay.cut()
            with pytest.raises(remctl.RemctlError):
                session.run(["example", "hello"])
            with pytest.raises(remctl.RemctlNotOpenedError):
                session.run(["example", "hello"])
            assert relay.accepted == 1

    def test_while_a_large_command_is_sent(self, relay: Relay, server: ServerArguments) -> None:
        with Remctl("localhost", relay.port, server[2]) as session:
            passed = 0

            def cut_after_a_while(data: bytes) -> bytes | None:
                nonlocal passed
                passed += len(data)
                return data if passed < 500_000 else None

            relay.up = cut_after_a_while
            with pytest.raises(remctl.RemctlConnectionError) as caught:
                session.run(["example", "cat", bytes(20_000_000)])
            assert caught.value.sent
            assert not session.opened

    def test_by_a_server_that_ends_without_reading_a_large_command(
        self, scripted: Scripted, server: ServerArguments
    ) -> None:
        def end(peer: Peer) -> None:
            select.select([peer.socket], [], [])
            peer.socket.shutdown(socket.SHUT_WR)

        with Remctl("localhost", scripted(end).port, server[2]) as session:
            with pytest.raises(remctl.RemctlConnectionError, match="could not be sent") as caught:
                session.run(["example", "cat", bytes(50_000_000)])
            assert caught.value.sent


class TestOutOfStep:
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda token: struct.pack(">BI", 0x44, 0),
            lambda token: struct.pack(">BI", 0x44, 2_000_000) + bytes(100),
            lambda token: struct.pack(">BI", 0x04, len(token)) + token,
            lambda token: struct.pack(">BI", 0x44, len(token)) + token[:-1] + bytes([token[-1] ^ 1]),
            lambda token: struct.pack(">BI", 0x44, 5) + b"plain",
        ],
        ids=["empty", "too large", "wrong flags", "forged", "not encrypted"],
    )
    def test_a_malformed_token_closes_the_session(
        self, scripted: Scripted, server: ServerArguments, spoil: Callable[[bytes], bytes]
    ) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.socket.sendall(spoil(peer.wrap(b"\x02\x04\x00")))
            peer.receive_token()

        with connect(scripted(answer), server) as session:
            session.set_timeout(1)
            with pytest.raises(remctl.RemctlProtocolError):
                session.run(["x"])
            with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection: "):
                session.run(["x"])

    @pytest.mark.parametrize(
        "message",
        [b"\x02\x06\x03", b"\x02\x63", b"\x02\x03\x07\0\0\0\1x", b"\x02\x03\x01\0\0\0\x63x", b"\x02\x04"],
        ids=["version", "unknown type", "unknown stream", "length beyond the end", "cut"],
    )
    def test_a_message_that_makes_no_sense_closes_the_session(
        self, scripted: Scripted, server: ServerArguments, message: bytes
    ) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send_token(0x44, peer.wrap(message))
            peer.receive_token()

        with connect(scripted(answer), server) as session:
            for call in ("run", "output"):
                if call == "output":
                    session.open("localhost", scripted(answer).port, server[2])
                    session.command(["x"])
                with pytest.raises(remctl.RemctlProtocolError):
                    session.run(["x"]) if call == "run" else session.output()
                assert not session.opened

    def test_what_nobody_asked_for_is_no_answer_to_the_next_command(
        self, scripted: Scripted, server: ServerArguments
    ) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send_status(0)
            peer.send_error(2, b"idle for too long")
            peer.receive_token()

        with connect(scripted(answer), server) as session:
            session.run(["x"])
            while not _readable(session):
                pass
            with pytest.raises(remctl.RemctlProtocolError, match="nobody asked for") as caught:
                session.run(["y"])
            assert not caught.value.sent

    def test_a_server_of_protocol_2_has_no_noop(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send(6, b"\x02")
            peer.receive_token()

        with connect(scripted(answer), server) as session:
            with pytest.raises(remctl.RemctlProtocolError, match=r"noop\(\) failed"):
                session.noop()
            assert not session.opened
        with pytest.raises(remctl.RemctlProtocolError, match=r"noop\(\) failed"):
            Remctl("localhost", scripted(answer).port, server[2], min_protocol=3)


class TestStreams:
    def test_are_enums(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send_output(b"", 1)
            peer.send_output(b"e", 2)
            peer.send_status(0)

        with connect(scripted(answer), server) as session:
            tokens = list(session.stream(["x"]))
        assert [token.stream for token in tokens] == [Stream.STDOUT, Stream.STDERR, None]
        assert tokens[0].output == b""


def _readable(session: Remctl) -> bool:
    return bool(select.select([session], [], [], 10)[0])
