"""What the asyncio face has beyond the blocking one: sockets of the caller's, credentials, `async with`."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import HangingUpServer, Peer, Relay, ScriptedServer
from serving import ServerThread

import remctl
from aio.running import asynchronous, descriptors
from remctl.aio import Remctl, Request
from remctl.security import Credentials
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal

ServerArguments = tuple[str, int, str]
Serving = Callable[..., ServerThread]


async def whoami(request: Request) -> None:
    await request.send(request.principal.encode())


class TestManners:
    @asynchronous
    async def test_async_with_opens_and_closes_again_and_again(self, server: ServerArguments) -> None:
        session = Remctl(*server)
        assert repr(session) == "<remctl.aio.Remctl, never opened>"
        for _ in range(3):
            async with session as entered:
                assert entered is session
                assert session.opened
                assert (await session.run(["example", "hello"])).status == 0
            assert not session.opened

    @asynchronous
    async def test_async_with_leaves_an_open_session_as_it_is(self, server: ServerArguments) -> None:
        session = Remctl(*server)
        await session.open(*server)
        await session.command(["example", "echo", "kept"])
        async with session:
            assert (await session.output()).output == b"kept\n"

    @asynchronous
    async def test_async_with_without_a_host_opens_nothing(self, server: ServerArguments) -> None:
        async with Remctl() as session:
            assert not session.opened
            await session.open(*server)
        assert not session.opened

    @asynchronous
    async def test_a_session_is_made_without_waiting_and_needs_no_loop(self, server: ServerArguments) -> None:
        session = await asyncio.get_running_loop().run_in_executor(None, lambda: Remctl(*server, timeout=20))
        async with session:
            assert (await session.run(["example", "hello"])).status == 0

    def test_a_session_serves_one_loop_after_the_other(self, server: ServerArguments) -> None:
        session = Remctl(*server)

        async def use() -> bytes:
            async with session:
                return (await session.run(["example", "hello"])).stdout

        assert [asyncio.run(use()) for _ in range(2)] == [b"hello world\n"] * 2

    @asynchronous
    async def test_commands_on_many_hosts_at_once(self, server: ServerArguments) -> None:
        calls = (remctl.aio.remctl(*server, ["example", "echo", number]) for number in range(50))
        results = await asyncio.gather(*calls)
        assert [result.stdout for result in results] == [b"%d\n" % number for number in range(50)]

    @asynchronous
    async def test_a_stream_that_is_closed_early_leaves_the_rest_for_output(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            tokens = session.stream(["example", "bytes", 100_000])
            total = len((await anext(tokens)).output or b"")
            assert isinstance(tokens, AsyncIterator)
            await tokens.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
            while (token := await session.output()).type == "output":
                total += len(token.output or b"")
            assert total == 100_000


@pytest.fixture
def connected(box: Sandbox) -> Callable[[], socket.socket]:
    """Give a function that connects to the first server."""
    return lambda: socket.create_connection(("127.0.0.1", box.port))


class TestSocket:
    @asynchronous
    async def test_a_connected_one_is_used_and_closed(
        self, connected: Callable[[], socket.socket], server: ServerArguments
    ) -> None:
        sock = connected()
        session = Remctl(timeout=20)
        await session.open(*server, sock=sock)
        assert (await session.run(["example", "hello"])).stdout == b"hello world\n"
        assert (await session.run(["example", "cat", bytes(1_000_000)])).stdout == bytes(1_000_000)
        assert sock.fileno() >= 0
        await session.close()
        assert sock.fileno() == -1

    @asynchronous
    async def test_a_tunnel_over_a_pair_of_unix_sockets(self, relay: Relay, server: ServerArguments) -> None:
        sock = relay.tunnel()
        assert sock.family == socket.AF_UNIX
        async with Remctl(*server, timeout=20, sock=sock) as session:
            assert (await session.run(["example", "cat", bytes(1_000_000)])).stdout == bytes(1_000_000)
            await session.noop()
            relay.cut()
            with pytest.raises(remctl.RemctlConnectionError, match=r"lost|closed"):
                await session.run(["example", "hello"])
        assert sock.fileno() == -1

    @asynchronous
    async def test_the_one_shot_call_takes_one(self, relay: Relay, server: ServerArguments) -> None:
        sock = relay.tunnel()
        result = await remctl.aio.remctl(*server, ["example", "hello"], sock=sock, timeout=20)
        assert result.stdout == b"hello world\n"
        assert sock.fileno() == -1

    @asynchronous
    async def test_host_and_principal_say_who_is_at_the_other_end(self, relay: Relay, server: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlAuthenticationError, match="KDC does not know") as caught:
            await Remctl().open("far.away.invalid", 99, "host/unknown", sock=relay.tunnel())
        assert (caught.value.host, caught.value.port) == ("far.away.invalid", 99)
        async with Remctl("far.away.invalid", 99, server[2], sock=relay.tunnel()) as session:
            assert (await session.run(["example", "hello"])).status == 0
            assert repr(session) == "<remctl.aio.Remctl far.away.invalid:99, protocol 2>"

    @pytest.mark.parametrize("failure", ["no cache", "no principal", "time limit", "lost", "cancelled"])
    @asynchronous
    async def test_is_closed_after_a_failure_too(self, failure: str, server: ServerArguments) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            session = Remctl(
                timeout=0.1 if failure == "time limit" else 20, ccache="/nowhere" if failure == "no cache" else None
            )
            if failure == "lost":
                theirs.close()
            principal = "host/unknown" if failure == "no principal" else server[2]
            opening = asyncio.ensure_future(session.open(*server[:2], principal, sock=ours))
            if failure == "cancelled":
                await asyncio.sleep(0)
                opening.cancel()
            await asyncio.wait([opening])
            if failure == "cancelled":
                assert opening.cancelled()
            else:
                assert isinstance(opening.exception(), remctl.RemctlError)
            fileno = ours.fileno()
            ours.close()
            assert fileno == -1

    @asynchronous
    async def test_one_that_is_no_plain_stream_socket_is_refused_and_left_alone(self, server: ServerArguments) -> None:
        session = Remctl()
        with (
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
            ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="localhost") as tls,
        ):
            wrongs: tuple[tuple[Any, type[Exception]], ...] = (
                ("socket", TypeError),
                (5, TypeError),
                (object(), TypeError),
                (tls, TypeError),
                (datagrams, ValueError),
            )
            for wrong, error in wrongs:
                with pytest.raises(error, match="sock must be a"):
                    await session.open(*server, sock=wrong)
                with pytest.raises(error, match="sock must be a"):
                    Remctl(*server, sock=wrong)
                with pytest.raises(error, match="sock must be a"):
                    await remctl.aio.remctl(*server, ["x"], sock=wrong)
            assert datagrams.fileno() >= 0
            assert tls.fileno() >= 0

    @asynchronous
    async def test_one_that_is_not_connected_is_refused_and_left_to_the_caller(self, server: ServerArguments) -> None:
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="sock must be open and connected"):
                await Remctl(timeout=20).open(*server, sock=sock)
            assert sock.fileno() != -1

    @asynchronous
    async def test_one_that_is_closed_is_refused(self, server: ServerArguments) -> None:
        sock = socket.socket()
        sock.close()
        with pytest.raises(ValueError, match="sock must be open and connected"):
            await Remctl(timeout=20).open(*server, sock=sock)

    @asynchronous
    async def test_one_of_the_constructor_is_not_passed_by(self, server: ServerArguments) -> None:
        sock = socket.create_connection(("127.0.0.1", server[1]))
        session = Remctl(*server, sock=sock)
        with pytest.raises(ValueError, match="sock was given to Remctl"):
            await session.open(*server)
        await session.close()
        assert sock.fileno() == -1

    @asynchronous
    async def test_one_without_a_host_makes_no_sense(self) -> None:
        with socket.socket() as sock, pytest.raises(ValueError, match="sock"):
            Remctl(sock=sock)

    @asynchronous
    async def test_one_serves_once(self, relay: Relay, server: ServerArguments) -> None:
        session = Remctl(*server, sock=relay.tunnel())
        async with session:
            assert (await session.run(["example", "hello"])).status == 0
        with pytest.raises((remctl.RemctlConnectionError, ValueError)):
            await session.__aenter__()
        assert not session.opened

    @asynchronous
    async def test_with_protocol_1_serves_for_one_command(
        self, scripted: Callable[..., ScriptedServer], server: ServerArguments
    ) -> None:
        def old(peer: Peer) -> None:
            peer.authenticate(0x02)
            command = peer.receive()
            peer.send_token(0x08, peer.sign(command))
            peer.send_token(0x04, peer.wrap(b"\0\0\0\7\0\0\0\3old"))

        sock = socket.create_connection(("127.0.0.1", scripted(old, authenticate=False).port))
        async with Remctl(*server, sock=sock, timeout=20) as session:
            assert await session.run(["x"]) == (b"old", b"", 7)
            with pytest.raises(remctl.RemctlConnectionError, match="this one was handed over") as caught:
                await session.run(["x"])
            assert not caught.value.sent
            assert not session.opened


class TestProtocol1:
    @asynchronous
    async def test_makes_a_connection_for_each_command(
        self, scripted: Callable[..., ScriptedServer], server: ServerArguments, caplog: pytest.LogCaptureFixture
    ) -> None:
        def old(peer: Peer) -> None:
            peer.authenticate(0x02)
            command = peer.receive()
            peer.send_token(0x08, peer.sign(command))
            peer.send_token(0x04, peer.wrap(b"\0\0\0\7\0\0\0\3old"))
            peer.socket.close()

        peer = scripted(old, authenticate=False)
        before = descriptors()
        async with Remctl("localhost", peer.port, server[2], timeout=20) as session:
            for _ in range(5):
                assert await session.run(["x"]) == (b"old", b"", 7)
            assert [token.output async for token in session.stream(["x"])] == [b"old", None]
            assert session.protocol == 1
            assert peer.accepted == 6
            with pytest.raises(remctl.RemctlProtocolError, match="no NOOP"):
                await session.noop()
            assert session.opened
            assert descriptors() <= before + 2
        assert "speaks protocol 1" in caplog.text

    @pytest.mark.parametrize("fault", ["MIC of another command", "no MIC", "large MIC", "no result", "cut result"])
    @asynchronous
    async def test_answers_that_are_wrong(
        self, fault: str, scripted: Callable[..., ScriptedServer], server: ServerArguments
    ) -> None:
        def old(peer: Peer) -> None:
            peer.authenticate(0x02)
            command = peer.receive()
            mic = peer.sign(command + b"x" if fault == "MIC of another command" else command)
            if fault == "large MIC":
                mic += bytes(11_000)
            if fault != "no MIC":
                peer.send_token(0x08, mic)
            if fault == "cut result":
                peer.send_token(0x04, peer.wrap(b"\0\0\0\7\0\0\0\4old"))
            elif fault != "no result":
                peer.send_token(0x04, peer.wrap(b"\0\0\0\7\0\0\0\3old"))
            peer.socket.close()

        port = scripted(old, authenticate=False).port
        async with Remctl("localhost", port, server[2], timeout=20) as session:
            with pytest.raises(remctl.RemctlProtocolError) as caught:
                await session.run(["x"])
            assert caught.value.sent
            assert not session.opened


@pytest.fixture(scope="module")
def people(box: Sandbox) -> tuple[Principal, Principal]:
    """Give two principals."""
    return box.add_principal("bob"), box.add_principal("carol")


class TestCredentials:
    @asynchronous
    async def test_of_each_kind_at_once_do_not_touch_each_other(
        self, serving: Serving, box: Sandbox, people: tuple[Principal, Principal]
    ) -> None:
        bob, carol = people
        address = ("localhost", serving(whoami).port, box.principal)
        each = {
            Credentials.default(): box.user,
            Credentials.from_keytab(bob.keytab, bob.name): bob.name,
            Credentials.from_keytab(carol.keytab, carol.name): carol.name,
            Credentials.from_password(bob.name, bob.password): bob.name,
            Credentials.from_password(carol.name, carol.password): carol.name,
            Credentials.from_ccache(box.kinit(bob)): bob.name,
            Credentials.from_ccache(Path(box.kinit(carol))): carol.name,
        }
        before = Path(box.ccache).read_bytes()
        for _ in range(2):
            calls = [remctl.aio.remctl(*address, ["who"], credentials=credentials) for credentials in each]
            results = await asyncio.gather(*calls)
            assert [(result.stdout or b"").decode() for result in results] == list(each.values())
        assert Path(box.ccache).read_bytes() == before

    @pytest.mark.parametrize("kind", ["keytab", "password"])
    @asynchronous
    async def test_with_key_or_password_need_no_default_cache_and_make_none(
        self,
        kind: str,
        serving: Serving,
        box: Sandbox,
        people: tuple[Principal, Principal],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        bob = people[0]
        monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "cache"))
        credentials = (
            Credentials.from_keytab(bob.keytab, bob.name)
            if kind == "keytab"
            else Credentials.from_password(bob.name, bob.password)
        )
        address = ("localhost", serving(whoami).port, box.principal)
        async with Remctl(*address, credentials=credentials) as session:
            assert (await session.run(["who"])).stdout.decode() == bob.name
        assert os.listdir(tmp_path) == []

    @asynchronous
    async def test_of_one_object_serve_many_sessions(
        self, serving: Serving, box: Sandbox, people: tuple[Principal, Principal]
    ) -> None:
        bob = people[0]
        credentials = Credentials.from_password(bob.name, bob.password)
        address = ("localhost", serving(whoami).port, box.principal)
        calls = (remctl.aio.remctl(*address, ["who"], credentials=credentials) for _ in range(20))
        assert {result.stdout for result in await asyncio.gather(*calls)} == {bob.name.encode()}

    @asynchronous
    async def test_that_are_wrong_are_an_authentication_error(
        self, server: ServerArguments, people: tuple[Principal, Principal]
    ) -> None:
        bob = people[0]
        with pytest.raises(remctl.RemctlAuthenticationError, match="password") as caught:
            await remctl.aio.remctl(*server, ["x"], credentials=Credentials.from_password(bob.name, "secret-wrong"))
        assert (caught.value.host, caught.value.port, caught.value.principal) == server
        assert not caught.value.sent
        assert "secret-wrong" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {vars(caught.value)}"

    @asynchronous
    async def test_are_checked_when_the_session_is_made(self, box: Sandbox) -> None:
        wrongs: tuple[Any, ...] = ("cache", 5, object())
        for wrong in wrongs:
            with pytest.raises(TypeError, match="credentials must be"):
                Remctl(credentials=wrong)
            with pytest.raises(TypeError, match="credentials must be"):
                await remctl.aio.remctl("localhost", command=["x"], credentials=wrong)
        with pytest.raises(ValueError, match="exclude each other"):
            Remctl(credentials=Credentials.default(), ccache=box.ccache)

    @asynchronous
    async def test_exclude_a_cache_that_is_set_later(self, box: Sandbox) -> None:
        session = Remctl(credentials=Credentials.default())
        with pytest.raises(ValueError, match="exclude each other"):
            session.set_ccache(box.ccache)

    @asynchronous
    async def test_that_have_expired_say_so(self, box: Sandbox, server: ServerArguments) -> None:
        credentials = Credentials.from_ccache(box.kinit(box.add_principal("hasty"), lifetime="1s"))
        with pytest.raises(remctl.RemctlAuthenticationError, match="the ticket has expired: run kinit"):
            while True:
                await remctl.aio.remctl(*server, ["example", "hello"], credentials=credentials)


class TestLostConnections:
    @asynchronous
    async def test_while_idle_are_noticed_before_a_command_is_sent(self, relay: Relay, server: ServerArguments) -> None:
        calls: tuple[Callable[[Remctl], Any], ...] = (
            lambda session: session.run(["example", "hello"]),
            lambda session: session.command(["example", "cat", bytes(1_000_000)]),
            lambda session: session.noop(),
        )
        for call in calls:
            async with Remctl("localhost", relay.port, server[2], timeout=20) as session:
                await session.run(["example", "hello"])
                relay.cut()
                connection = session._handle.opened()
                while not connection._readable():  # without a turn of the loop, which would notice it anyway
                    pass
                with pytest.raises(remctl.RemctlConnectionError, match="server has closed the connection") as caught:
                    await call(session)
                assert not caught.value.sent
                assert not session.opened

    @asynchronous
    async def test_nothing_reconnects_by_itself(self, relay: Relay, server: ServerArguments) -> None:
        async with Remctl("localhost", relay.port, server[2], timeout=20) as session:
            await session.run(["example", "hello"])
            relay.cut()
            for _ in range(3):
                with pytest.raises(remctl.RemctlError):
                    await session.run(["example", "hello"])
            assert relay.accepted == 1

    @asynchronous
    async def test_leave_no_descriptor(self, server: ServerArguments) -> None:
        with HangingUpServer() as peer:
            before = descriptors()
            for _ in range(10):
                with pytest.raises(remctl.RemctlConnectionError, match="during authentication"):
                    await remctl.aio.remctl("localhost", peer.port, server[2], ["x"])
            peer.cut()
            assert descriptors() <= before + 10  # those that the double holds
