"""Authentication: what goes wrong between the first byte and the first command, and the protocol version."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import HangingUpServer, Listener, Peer, Relay, ScriptedServer, SilentServer

import remctl
from remctl import Remctl
from remctl.testing import Sandbox, Server

ServerArguments = tuple[str, int, str]


class WebServer(Listener):
    """Answers as a web server does to what is no HTTP."""

    def serve(self, connection: socket.socket) -> None:
        """Answer and close."""
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)


class TestAuthenticationErrors:
    def test_no_ticket_cache(self, server: ServerArguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "nothing"))
        with pytest.raises(remctl.RemctlAuthenticationError, match="no ticket: run kinit") as caught:
            Remctl(*server)
        assert (caught.value.host, caught.value.port, caught.value.principal) == server
        assert not caught.value.sent

    def test_a_cache_of_an_unknown_kind(self, server: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlAuthenticationError, match="ticket cache"):
            Remctl(*server, ccache="BOGUS:cache")

    def test_text_that_is_no_utf_8_is_shown_all_the_same(
        self, server: ServerArguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KRB5CCNAME", "/nowhere/\udcff\udcfe")
        with pytest.raises(remctl.RemctlAuthenticationError, match=r"/nowhere/\\xff\\xfe"):
            Remctl(*server)

    def test_an_expired_ticket(self, box: Sandbox, server: ServerArguments, monkeypatch: pytest.MonkeyPatch) -> None:
        ccache = box.kinit(box.add_principal("shortlived"), lifetime="1s")
        monkeypatch.setenv("KRB5CCNAME", ccache)
        deadline = time.monotonic() + 20
        with pytest.raises(remctl.RemctlAuthenticationError, match="the ticket has expired: run kinit"):
            while time.monotonic() < deadline:
                Remctl(*server).close()

    def test_a_principal_that_the_kdc_does_not_know(self, server: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlAuthenticationError, match="KDC does not know") as caught:
            Remctl(server[0], server[1], "host/unknown")
        assert caught.value.principal == "host/unknown"

    def test_a_principal_that_is_not_the_servers(self, box: Sandbox, server: ServerArguments) -> None:
        box.add_principal("host/other")
        with pytest.raises(remctl.RemctlAuthenticationError, match="keytab"):
            Remctl(server[0], server[1], "host/other")

    def test_a_silent_kdc_ends_with_the_time_limit(
        self, box: Sandbox, server: ServerArguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        fresh = box.kinit(box.add_principal("patient"))
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            port = tcp.getsockname()[1]
            udp.bind(("127.0.0.1", port))
            config = tmp_path / "krb5.conf"
            config.write_text(
                f"[libdefaults]\ndefault_realm = {box.realm}\nrdns = false\ndns_canonicalize_hostname = false\n"
                f"[realms]\n{box.realm} = {{\n kdc = 127.0.0.1:{port}\n}}\n"
            )
            monkeypatch.setenv("KRB5_CONFIG", str(config))
            begin = time.monotonic()
            with pytest.raises(remctl.RemctlTimeoutError, match="opening the connection"):
                Remctl(*server, ccache=fresh, timeout=0.5)
            assert time.monotonic() - begin < 0.8


class TestLostConnections:
    def test_a_server_that_hangs_up(self, server: ServerArguments) -> None:
        with HangingUpServer() as peer, pytest.raises(remctl.RemctlConnectionError, match="during authentication"):
            Remctl("localhost", peer.port, server[2])

    def test_a_connection_cut_in_the_servers_answer(self, relay: Relay, server: ServerArguments) -> None:
        relay.down = lambda data: None
        with pytest.raises(remctl.RemctlConnectionError, match="closed the connection during authentication"):
            Remctl("localhost", relay.port, server[2])

    def test_a_server_of_another_protocol(self, server: ServerArguments) -> None:
        with (
            WebServer() as peer,
            pytest.raises(remctl.RemctlProtocolError, match="check that a remctl server") as caught,
        ):
            Remctl("localhost", peer.port, server[2])
        assert not isinstance(caught.value, remctl.RemctlConnectionError)

    def test_a_server_that_speaks_before_it_is_asked(self, server: ServerArguments, box: Sandbox) -> None:
        with Relay(box.port) as relay:
            relay.down = lambda data: data + b"\x44\0\0\0\1x"
            with pytest.raises(remctl.RemctlProtocolError, match="before it was asked"):
                Remctl("localhost", relay.port, server[2])

    def test_a_handshake_that_arrives_byte_by_byte(self, relay: Relay, server: ServerArguments) -> None:
        connections = []

        def whole(data: bytes) -> bytes:
            connections.append(data)
            return data

        relay.down = whole
        with Remctl("localhost", relay.port, server[2]) as session:
            assert session.run(["example", "hello"]).status == 0
        handshake = connections[0]

        class Trickle(Listener):
            def serve(self, connection: socket.socket) -> None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in handshake:
                    connection.sendall(bytes([byte]))

        with Trickle() as peer, pytest.raises(remctl.RemctlAuthenticationError):
            Remctl("localhost", peer.port, server[2])  # an answer to somebody else, but read to its end


@pytest.fixture
def old_server(box: Sandbox) -> Iterator[Relay]:
    """Give a server of protocol 1: the real one behind a relay that takes the later protocol's flag off both sides."""

    def strip(data: bytes) -> bytes:
        return bytes([data[0] & ~0x40]) + data[1:] if data[0] in (0x51, 0x42) else data

    with Relay(box.port) as relay:

        def up(data: bytes) -> bytes:
            first = strip(data)
            return first[:5] + strip(first[5:]) if first[0] == 0x11 and len(first) > 5 else first

        relay.up, relay.down = up, strip
        yield relay


class TestProtocol1:
    def test_is_noticed_and_logged(
        self, old_server: Relay, server: ServerArguments, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "remctl"), Remctl("localhost", old_server.port, server[2]) as session:
            assert session.protocol == 1
        assert "speaks protocol 1" in caplog.text

    @pytest.mark.parametrize("version", [2, 3])
    def test_can_be_refused(self, old_server: Relay, server: ServerArguments, version: int) -> None:
        with pytest.raises(remctl.RemctlProtocolError, match=f"speaks protocol 1, and min_protocol is {version}"):
            Remctl("localhost", old_server.port, server[2], min_protocol=version)

    def test_every_command_has_a_connection_of_its_own(self, old_server: Relay, server: ServerArguments) -> None:
        with Remctl("localhost", old_server.port, server[2], timeout=20) as session:
            for number in range(3):
                assert session.run(["example", "echo", number]).stdout == f"{number}\n".encode()
            assert old_server.accepted == 4  # the first one finds the protocol out
            assert session.opened
            with pytest.raises(remctl.RemctlError, match="no connection that lasts"):
                session.fileno()

    def test_tokens_and_statuses_come_out_as_in_later_protocols(
        self, old_server: Relay, server: ServerArguments
    ) -> None:
        with Remctl("localhost", old_server.port, server[2]) as session:
            session.command(["example", "hello"])
            tokens = [session.output() for _ in range(5)]
            assert [token.type for token in tokens] == ["output", "status", "done", "done", "done"]
            assert session.run(["example", "status", 200]).status == 200
            assert [token.status for token in session.stream(["example", "status", 255])][-1] == 255
        assert remctl.remctl("localhost", old_server.port, server[2], ["example", "hello"]).stdout == b"hello world\n"

    def test_the_text_of_an_error_is_raised(self, old_server: Relay, server: ServerArguments) -> None:
        with Remctl("localhost", old_server.port, server[2]) as session:
            with pytest.raises(remctl.RemctlCommandError, match="Unknown command") as caught:
                session.run(["bogus"])
            assert caught.value.code is None
            with pytest.raises(remctl.RemctlCommandError, match="Unknown command"):
                list(session.stream(["bogus"]))
            assert session.run(["example", "hello"]).status == 0

    def test_limits_and_lacks_are_named(self, old_server: Relay, server: ServerArguments) -> None:
        with Remctl("localhost", old_server.port, server[2]) as session:
            with pytest.raises(remctl.RemctlProtocolError, match="no NOOP"):
                session.noop()
            with pytest.raises(ValueError, match="protocol 1 takes 65536"):
                session.run(["example", "cat", bytes(70_000)])
            assert session.run(["example", "hello"]).status == 0

    def test_a_time_limit_holds(self, old_server: Relay, server: ServerArguments) -> None:
        with Remctl("localhost", old_server.port, server[2]) as session:
            begin = time.monotonic()
            with pytest.raises(remctl.RemctlTimeoutError):
                session.run(["example", "sleep", 20], timeout=0.4)
            assert time.monotonic() - begin < 0.7

    def test_descriptors_of_others_are_left_alone(
        self, old_server: Relay, server: ServerArguments, tmp_path: Path
    ) -> None:
        with Remctl("localhost", old_server.port, server[2]) as session:
            session.command(["example", "hello"])
            session.output()
            files = [(tmp_path / str(number)).open("wb") for number in range(10)]
            assert session.output().status == 0
            session.close()
            for file in files:
                file.write(b"mine")
                file.close()


class TestLongAnswers:
    def test_a_server_that_ends_after_authentication(self, box: Sandbox, server: ServerArguments) -> None:
        def leave(peer: Peer) -> None:
            peer.socket.shutdown(socket.SHUT_RDWR)

        with ScriptedServer(leave) as peer, Remctl("localhost", peer.port, server[2]) as session:
            with pytest.raises(remctl.RemctlConnectionError) as caught:
                session.run(["example", "hello"])
            assert not session.opened
            assert "closed" in str(caught.value) or "lost" in str(caught.value)

    def test_many_openings_leave_no_descriptor(self, server: ServerArguments) -> None:
        def count() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        Remctl(*server).close()
        before = count()
        with SilentServer() as silent:
            extra = count() - before
            for _ in range(5):
                with pytest.raises(remctl.RemctlTimeoutError):
                    Remctl("localhost", silent.port, server[2], timeout=0.05)
            for _ in range(5):
                Remctl(*server).close()
            for _ in range(5):
                with pytest.raises(remctl.RemctlAuthenticationError):
                    Remctl(server[0], server[1], "host/unknown")
            deadline = time.monotonic() + 10
            while count() > before + extra + 5 and time.monotonic() < deadline:  # 5 connections the double holds
                os.sched_yield()
            assert count() <= before + extra + 5


def test_add_server_with_a_principal_of_its_own(box: Sandbox) -> None:
    server: Server = box.add_server(principal="remctl/localhost")
    try:
        server.add_command("a", "b", "/bin/true")
        assert remctl.remctl("localhost", server.port, "remctl/localhost", ["a", "b"]).status == 0
    finally:
        server.stop()
