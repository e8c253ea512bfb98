"""How a server starts: its arguments, its key, and the addresses it listens on."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from rawclient import RawClient
from serving import ServerThread

import remctl
import remctl.aio
from remctl import RemctlAuthenticationError
from remctl.aio import Server, serve
from remctl.security import AcceptorContext
from remctl.testing import Sandbox
from remctl.testing.example import example


async def hello(host: str, port: int, principal: str) -> bytes | None:
    """Run a command."""
    result = await remctl.aio.remctl(host, port, principal, ["example", "hello"])
    return result.stdout


def descriptors() -> set[str]:
    """What this process has open, sockets by their numbers."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


def occupied(address: str, port: int = 0) -> socket.socket:
    """A listening socket."""
    return socket.create_server(
        (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=128
    )


@pytest.fixture
def two_families(monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a name that stands for loopback in IPv6 and IPv4, which not every machine's `localhost` does."""
    name = "both.sandbox.test"
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host != name:
            return list(real(host, *arguments, **options))
        return [entry for each in ("::1", "127.0.0.1") for entry in real(each, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return name


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "kind", "text"),
        [
            ({"handler": None}, TypeError, "handler must be a coroutine function or a Backend: None"),
            ({"handler": "example"}, TypeError, "handler must be a coroutine function or a Backend: 'example'"),
            ({"host": ""}, ValueError, "host must not be empty: ''"),
            ({"host": 5}, TypeError, "host must be a str: 5"),
            ({"host": "a\0b"}, ValueError, r"host must not contain NUL: 'a\\x00b'"),
            ({"port": 65536}, ValueError, "invalid port number: 65536"),
            ({"port": -1}, ValueError, "invalid port number: -1"),
            ({"port": "http"}, TypeError, "port must be a number: 'http'"),
            ({"port": True}, TypeError, "port must be a number: True"),
            ({"principal": ""}, ValueError, "principal must not be empty: ''"),
            ({"principal": b"host/x"}, TypeError, "principal must be a str: b'host/x'"),
            ({"keytab": ""}, ValueError, "keytab must not be empty: ''"),
            ({"keytab": 5}, TypeError, "keytab must be a str: 5"),
            (
                {"acl": "user@SANDBOX.TEST"},
                TypeError,
                "acl must be an Acl, a collection of principals, or a function: 'user@S",
            ),
            ({"acl": b"user"}, TypeError, "acl must be an Acl, a collection of principals, or a function: b'user'"),
            ({"acl": 5}, TypeError, "acl must be an Acl, a collection of principals, or a function: 5"),
            ({"acl": ["user@SANDBOX.TEST", b"user"]}, TypeError, "acl must hold principals, which are str: b'user'"),
            ({"sock": "socket"}, TypeError, "sock must be a socket: 'socket'"),
            ({"max_connections": 0}, ValueError, "max_connections must be 1 or more: 0"),
            ({"max_words": -5}, ValueError, "max_words must be 1 or more: -5"),
            ({"max_command_size": 0}, ValueError, "max_command_size must be 1 or more: 0"),
            ({"max_total_size": 0}, ValueError, "max_total_size must be 1 or more: 0"),
            ({"max_words": 1.5}, TypeError, r"max_words must be a number: 1\.5"),
            ({"max_connections": None}, TypeError, "max_connections must be a number: None"),
            ({"max_connections": True}, TypeError, "max_connections must be a number: True"),
            ({"handshake_timeout": -1}, ValueError, "handshake_timeout must be 0 or more: -1"),
            ({"idle_timeout": "60"}, TypeError, "idle_timeout must be a number of seconds or None: '60'"),
            ({"run_timeout": float("nan")}, ValueError, "run_timeout must be 0 or more: nan"),
            ({"stop_timeout": True}, TypeError, "stop_timeout must be a number of seconds or None: True"),
        ],
    )
    def test_that_make_no_sense_are_named_with_their_value(
        self, options: dict[str, Any], kind: type[Exception], text: str
    ) -> None:
        with pytest.raises(kind, match=text):
            serve(**{"handler": example, **options})

    def test_of_stop_are_checked(self, box: Sandbox) -> None:
        with ServerThread(box) as server:
            with pytest.raises(ValueError, match="timeout must be 0 or more: -1"):
                server.stop(-1)
            with pytest.raises(TypeError, match="timeout must be a number of seconds or None: '1'"):
                server.stop("1")  # type: ignore[arg-type]  # that is the point
            assert server.port


class TestKey:
    def test_must_be_in_a_keytab_that_is_there(self) -> None:
        server = serve(example, "127.0.0.1", 0, keytab="/nowhere/keytab")
        with pytest.raises(RemctlAuthenticationError, match="keytab '/nowhere/keytab' cannot be read: No such file"):
            asyncio.run(server.start())

    def test_must_be_in_the_keytab(self, box: Sandbox) -> None:
        server = serve(example, "127.0.0.1", 0, keytab=box.keytab, principal="host/elsewhere@SANDBOX.TEST")
        with pytest.raises(RemctlAuthenticationError, match=r"no key for host/elsewhere@SANDBOX\.TEST in the keytab /"):
            asyncio.run(server.start())

    def test_may_be_any_of_the_keytab(self, box: Sandbox) -> None:
        other = box.add_principal("service/any")

        async def scenario() -> None:
            async with serve(example, "127.0.0.1", 0, keytab=Path(other.keytab)) as server:
                assert await hello("localhost", server.port, other.name) == b"hello world\n"

        asyncio.run(scenario())

    def test_is_of_the_default_keytab_if_none_is_named(self, box: Sandbox) -> None:
        async def scenario() -> None:
            async with serve(example, "127.0.0.1", 0) as server:
                assert await hello("localhost", server.port, box.principal) == b"hello world\n"

        asyncio.run(scenario())

    def test_of_another_principal_is_no_way_in(self, box: Sandbox) -> None:
        other = box.add_principal("service/other")
        with (
            ServerThread(box, keytab=other.keytab, principal=other.name) as server,
            pytest.raises(remctl.RemctlError),
        ):
            remctl.remctl("localhost", server.port, box.principal, ["example", "hello"])

    def test_that_is_missing_leaves_nothing_open(self, box: Sandbox) -> None:
        before = descriptors()
        given = occupied("127.0.0.1")
        server = serve(example, sock=given, keytab="/nowhere/keytab")
        with pytest.raises(RemctlAuthenticationError):
            asyncio.run(server.start())
        assert descriptors() == before


class TestAddress:
    def test_with_port_0_is_a_free_port_which_the_server_tells(self, box: Sandbox) -> None:
        async def scenario() -> None:
            server = serve(example, "127.0.0.1", 0, keytab=box.keytab)
            assert server.addresses == []
            with pytest.raises(RuntimeError, match="not been started"):
                assert server.port
            async with server as entered:
                assert entered is server
                assert server.addresses == [("127.0.0.1", server.port)]
                assert await hello("localhost", server.port, box.principal) == b"hello world\n"
                with pytest.raises(RuntimeError, match="running already"):
                    await server.start()
            assert server.addresses == []
            with pytest.raises(remctl.RemctlConnectionError):  # and not whatever has the default port
                await hello("localhost", server.port, box.principal)

        asyncio.run(scenario())

    def test_may_be_a_name_in_both_families_with_one_port(self, box: Sandbox, two_families: str) -> None:
        async def scenario() -> None:
            async with serve(example, two_families, 0, keytab=box.keytab) as server:
                assert server.addresses == [("::1", server.port), ("127.0.0.1", server.port)]
                for address in ("::1", "127.0.0.1"):
                    assert await hello(address, server.port, box.principal) == b"hello world\n"

        asyncio.run(scenario())

    def test_may_be_every_one_of_the_machine(self, box: Sandbox) -> None:
        async def scenario() -> None:
            async with serve(example, None, 0, keytab=box.keytab) as server:
                assert {host for host, _ in server.addresses} <= {"0.0.0.0", "::"}
                assert {port for _, port in server.addresses} == {server.port}
                assert await hello("127.0.0.1", server.port, box.principal) == b"hello world\n"

        asyncio.run(scenario())

    def test_of_a_client_of_the_other_family_is_told_to_the_handler(self, box: Sandbox) -> None:
        async def who(request: remctl.aio.Request) -> None:
            await request.send(request.address.encode())

        async def scenario() -> None:
            async with serve(who, "::1", 0, keytab=box.keytab) as server:
                result = await remctl.aio.remctl("::1", server.port, box.principal, ["who"])
                assert result.stdout == b"::1"

        asyncio.run(scenario())

    def test_that_is_in_use_is_an_error(self, box: Sandbox) -> None:
        before = descriptors()
        with occupied("127.0.0.1") as other:
            server = serve(example, "127.0.0.1", other.getsockname()[1], keytab=box.keytab)
            with pytest.raises(OSError, match="in use"):
                asyncio.run(server.start())
        assert descriptors() == before

    def test_of_which_a_part_is_in_use_is_an_error_and_leaves_nothing_open(
        self, box: Sandbox, two_families: str
    ) -> None:
        before = descriptors()
        with occupied("127.0.0.1") as other:
            server = serve(example, two_families, other.getsockname()[1], keytab=box.keytab)
            with pytest.raises(OSError, match="in use"):
                asyncio.run(server.start())
            assert server.addresses == []
        assert descriptors() == before

    def test_that_is_unknown_is_an_error(self, box: Sandbox) -> None:
        with pytest.raises(socket.gaierror):
            asyncio.run(serve(example, "no.such.host.invalid", 0, keytab=box.keytab).start())

    def test_that_was_served_can_be_served_again_at_once(self, box: Sandbox) -> None:
        async def scenario() -> None:
            async with serve(example, "127.0.0.1", 0, keytab=box.keytab) as server:
                port = server.port
                assert await hello("localhost", port, box.principal) == b"hello world\n"
            async with serve(example, "127.0.0.1", port, keytab=box.keytab):
                assert await hello("localhost", port, box.principal) == b"hello world\n"

        asyncio.run(scenario())


class TestName:
    """Names with several addresses, of which this machine may not have all."""

    def listen(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
        """Serve on a name with these addresses, and return those that are listened on."""
        found = [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in addresses
        ]

        async def scenario() -> list[str]:
            with monkeypatch.context() as patched:
                patched.setattr(socket, "getaddrinfo", lambda *_, **__: found)
                server = serve(example, "many.invalid", 0, keytab=box.keytab)
                await server.start()
            try:
                return [address for address, _ in server.addresses]
            finally:
                await server.stop(0)

        return asyncio.run(scenario())

    def test_that_is_there_twice_is_listened_on_once(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.listen(box, monkeypatch, "127.0.0.1", "127.0.0.1") == ["127.0.0.1"]

    def test_that_this_machine_does_not_have_is_passed_over(
        self, box: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.listen(box, monkeypatch, "198.51.100.1", "127.0.0.1") == ["127.0.0.1"]

    def test_none_of_which_is_there_is_an_error(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OSError, match="assign requested address"):
            self.listen(box, monkeypatch, "198.51.100.1", "198.51.100.2")

    def test_none_asks_for_every_address(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def lookup(host: object, *_: object) -> list[Any]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.3", 0))]

        async def scenario() -> None:
            async with serve(example, None, 0, keytab=box.keytab) as server:
                assert server.addresses[0][0] == "127.0.0.3"

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        asyncio.run(scenario())
        assert asked == [None]


class TestGivenSocket:
    def test_is_served_and_closed(self, box: Sandbox) -> None:
        given = occupied("127.0.0.1")
        port = given.getsockname()[1]

        async def scenario() -> None:
            async with serve(example, sock=given, keytab=box.keytab) as server:
                assert server.addresses == [("127.0.0.1", port)]
                assert await hello("localhost", port, box.principal) == b"hello world\n"

        asyncio.run(scenario())
        assert given.fileno() == -1

    def test_may_have_clients_waiting_already(self, box: Sandbox) -> None:
        given = occupied("127.0.0.1")
        with RawClient(given.getsockname()[1], authenticated=False) as client:

            async def scenario() -> None:
                async with serve(example, sock=given, keytab=box.keytab):
                    await asyncio.to_thread(client.handshake)
                    heard = await asyncio.to_thread(client.run, b"example", b"hello")
                    assert len(heard) == 2

            asyncio.run(scenario())

    def test_may_be_in_the_file_system(self, box: Sandbox, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        given = socket.socket(socket.AF_UNIX)
        given.bind(path)

        async def who(request: remctl.aio.Request) -> None:
            await request.send(repr((request.address, request.principal)).encode())

        async def scenario() -> None:
            async with serve(who, sock=given, keytab=box.keytab) as server:
                assert (server.port, server.addresses) == (0, [])
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                result = await remctl.aio.remctl("localhost", None, box.principal, ["who"], sock=client)
                assert result.stdout == b"('', 'user@SANDBOX.TEST')"

        asyncio.run(scenario())


class TestConnections:
    def test_send_little_pieces_without_delay(self, box: Sandbox) -> None:
        options: list[int] = []

        class Watching(Server):
            def admit(self, served: Any) -> bool:
                options.append(served.channel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                return super().admit(served)

        async def scenario() -> None:
            server = serve(example, "127.0.0.1", 0, keytab=box.keytab)
            server.__class__ = Watching
            async with server:
                assert await hello("localhost", server.port, box.principal) == b"hello world\n"

        asyncio.run(scenario())
        assert options
        assert all(options)

    def test_are_counted(self, box: Sandbox) -> None:
        with ServerThread(box) as server:
            assert server.server.connections == 0
            with RawClient(server.port), RawClient(server.port, authenticated=False):
                server.until(lambda server: server.connections == 2)
            server.until(lambda server: server.connections == 0)

    def test_do_not_wait_for_each_others_handshake(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        held, release = threading.Event(), threading.Event()
        real = AcceptorContext.step

        def step(self: AcceptorContext, token: bytes | None) -> bytes | None:
            if not held.is_set():
                held.set()
                release.wait()
            return real(self, token)

        monkeypatch.setattr(AcceptorContext, "step", step)
        with ServerThread(box) as server, RawClient(server.port, authenticated=False) as slow:
            slow.send_token(0x51)
            slow.send_token(0x42, slow.first_context_token())
            assert held.wait(30)
            with RawClient(server.port) as quick:
                assert len(quick.run(b"example", b"hello")) == 2
            release.set()
            slow.finish_handshake()
            assert len(slow.run(b"example", b"hello")) == 2
