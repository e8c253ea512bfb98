"""Every state of a host, from the real cause: real servers, and real ones that misbehave."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aio.running import CancelledAt, asynchronous, descriptors, until
from doubles import HangingUpServer, Peer, ScriptedServer, framed
from serving import Gate, ServerThread

import remctl
from fanout.memory import all_of
from remctl.fanout import Host, HostResult, HostState
from remctl.fanout._attempt import RemctlTransport
from remctl.fanout._visit import Visit
from remctl.security import Credentials
from remctl.testing import Sandbox

Scripted = Callable[..., ScriptedServer]
Serving = Callable[..., ServerThread]


async def result_of(host: str, command: list[Any], **arguments: Any) -> HostResult:
    """Run a command on one host, and see that nothing is left of it."""
    before = descriptors()
    (result,) = await all_of(remctl.aio.run_many([host], command, backoff=0.01, **arguments))
    assert descriptors() <= before + 1  # the resolver's, and the like
    return result


@pytest.fixture
def there(box: Sandbox) -> dict[str, Any]:
    """Give the arguments for the first server."""
    return {"port": box.port, "principal": box.principal}


class TestRemctld:
    @asynchronous
    async def test_ok(self, there: dict[str, Any]) -> None:
        result = await result_of("localhost", ["example", "count", 3], **there)
        assert (result.state, result.status, result.stdout, result.stderr) == (
            HostState.OK,
            0,
            b"line 1\nline 2\nline 3\n",
            b"counted to 3\n",
        )
        assert result.ok
        assert result.check().stdout == result.stdout
        assert result.timings.connecting > 0
        assert result.timings.running > 0
        assert result.port == there["port"]

    @asynchronous
    async def test_nonzero(self, there: dict[str, Any]) -> None:
        result = await result_of("localhost", ["example", "status", 255], **there)
        assert (result.state, result.status, result.error, result.attempts) == ("nonzero", 255, None, ())
        with pytest.raises(remctl.RemctlStatusError, match="255"):
            result.check()

    @asynchronous
    async def test_denied(self, there: dict[str, Any]) -> None:
        result = await result_of("localhost", ["no-such", "command"], **there)
        assert (result.state, result.status, result.may_be_running, result.attempts) == ("denied", None, False, ())
        assert isinstance(result.error, remctl.RemctlCommandError)
        assert result.error.code == remctl.ErrorCode.UNKNOWN_COMMAND
        with pytest.raises(remctl.RemctlCommandError):
            result.check()

    @asynchronous
    async def test_auth(self, there: dict[str, Any]) -> None:
        result = await result_of("localhost", ["example", "hello"], port=there["port"], principal="host/unknown")
        assert (result.state, result.status, result.may_be_running, result.attempts) == ("auth", None, False, ())
        assert "the KDC does not know" in str(result.error)

    @asynchronous
    async def test_timeout(self, box: Sandbox, there: dict[str, Any], tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        box.add_command("late", "touch", f"#!/bin/sh\necho begun; sleep 1; touch {marker}\n")
        result = await result_of("localhost", ["late", "touch"], timeout=0.5, **there)
        assert (result.state, result.status, result.may_be_running, result.attempts) == ("timeout", None, True, ())
        assert result.stdout == b"begun\n"
        assert "the time limit of 0.5 s passed" in str(result.error)
        assert "may still be running" in str(result.error)
        assert not marker.exists()
        await until(marker.exists)

    @asynchronous
    async def test_cancelled(self, box: Sandbox, there: dict[str, Any]) -> None:
        box.add_command("late", "end", "#!/bin/sh\necho begun; sleep 2\n")
        begun = asyncio.Event()
        async with remctl.aio.run_many(
            ["localhost"], ["late", "end"], on_output=lambda *_: begun.set(), **there
        ) as run:
            waiting = asyncio.ensure_future(anext(run))
            await begun.wait()
            run.cancel()
            result = await waiting
        assert (result.state, result.status, result.may_be_running) == ("cancelled", None, True)
        assert result.stdout == b"begun\n"

    @asynchronous
    async def test_much_output_is_cut_and_counted(self, there: dict[str, Any]) -> None:
        came: list[int] = []
        result = await result_of(
            "localhost",
            ["example", "bytes", 3_000_000],
            max_output=1000,
            on_output=lambda host, stream, data: came.append(len(data)),
            **there,
        )
        assert (result.state, len(result.stdout), result.stdout_size, result.truncated) == ("ok", 1000, 3_000_000, True)
        assert sum(came) == 3_000_000

    @asynchronous
    async def test_every_host_has_a_port_a_principal_and_a_command_of_its_own(
        self, box: Sandbox, everywhere: Serving
    ) -> None:
        other = everywhere()
        hosts: list[str | Host] = [
            Host("localhost", box.port, box.principal, ["example", "echo", "remctld"]),
            Host("127.0.0.5", other.port, command=["example", "echo", b"ours"]),
            f"127.0.0.6:{other.port}",
        ]
        run = remctl.aio.run_many(hosts, ["example", "hello"], principal=box.principal, ordered=True)
        results = await all_of(run)
        assert [result.stdout for result in results] == [b"remctld\n", b"ours\n", b"hello world\n"]
        assert [result.port for result in results] == [box.port, other.port, other.port]


class TestReaching:
    @asynchronous
    async def test_dns(self) -> None:
        result = await result_of("no-such-host.invalid", ["x"])
        assert (result.state, result.port, len(result.attempts)) == ("dns", None, 1)
        assert result.attempts[0].state == "dns"
        result = await result_of("b\u00fccher" + "x" * 80, ["x"], retries=0)
        assert result.state == "dns"

    @asynchronous
    async def test_refused(self, there: dict[str, Any]) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            result = await result_of(f"localhost:{unused.getsockname()[1]}", ["x"], principal=there["principal"])
        assert (result.state, len(result.attempts), result.may_be_running) == ("refused", 1, False)

    @asynchronous
    async def test_connect_timeout(self, full: int, there: dict[str, Any]) -> None:
        result = await result_of(
            f"127.0.0.1:{full}", ["x"], connect_timeout=0.2, retries=0, principal=there["principal"]
        )
        assert (result.state, result.may_be_running) == ("connect-timeout", False)

    @asynchronous
    async def test_a_source_address_that_is_not_ours_is_no_reason_to_wait(self, there: dict[str, Any]) -> None:
        begun = time.monotonic()
        result = await result_of("127.0.0.1", ["x"], source_ip="192.0.2.1", **there)
        assert (result.state, len(result.attempts)) == ("refused", 1)
        assert time.monotonic() - begun < 5

    @asynchronous
    async def test_without_a_ticket_nothing_is_begun(self, there: dict[str, Any], tmp_path: Path) -> None:
        for source in ({"ccache": "/nowhere"}, {"credentials": Credentials.from_ccache(tmp_path / "none")}):
            with HangingUpServer() as server:
                run = remctl.aio.run_many(["localhost"], ["x"], port=server.port, **source)
                with pytest.raises(remctl.RemctlAuthenticationError):
                    await anext(run)
                assert server.accepted == 0

    @asynchronous
    async def test_the_time_limit_for_connecting_holds_while_the_kdc_is_silent(
        self, silent_kdc: socket.socket, there: dict[str, Any]
    ) -> None:
        begun = time.monotonic()
        result = await result_of("localhost", ["x"], connect_timeout=0.3, retries=0, **there)
        assert result.state in ("connect-timeout", "auth")
        assert time.monotonic() - begun < 5


def dribbling(peer: Peer) -> None:
    """Announce a token, and send a byte of it from time to time, for ever."""
    peer.socket.sendall(framed(0x42, bytes(1000))[:5])
    while True:
        peer.socket.sendall(b"x")
        time.sleep(0.01)


def saying(data: bytes) -> Callable[[Peer], None]:
    """Say something."""
    return lambda peer: peer.socket.sendall(data)


def silent(peer: Peer) -> None:
    """Say nothing."""


class TestHandshake:
    @pytest.mark.parametrize(
        ("script", "state"),
        [
            (silent, "connect-timeout"),
            (dribbling, "connect-timeout"),
            (saying(b"\x42\xff\xff\xff\xff"), "protocol"),
            (saying(b"\x42\x00\x10\x00\x01"), "protocol"),
            (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol"),
            (saying(framed(0x42, b"x" * 100)), "auth"),
        ],
        ids=["silent", "dribbling", "4 GiB", "1 MiB and a byte", "a web server", "garbage"],
    )
    @asynchronous
    async def test_with_a_server_that_is(
        self, script: Callable[[Peer], None], state: str, scripted: Scripted, there: dict[str, Any]
    ) -> None:
        server = scripted(script, authenticate=False)
        result = await result_of(
            f"localhost:{server.port}", ["x"], principal=there["principal"], connect_timeout=0.5, retries=0
        )
        assert (result.state, result.status, result.may_be_running) == (state, None, False)
        assert result.error is not None
        assert not result.error.sent

    @asynchronous
    async def test_a_host_that_misbehaves_does_not_hold_up_the_others(
        self, scripted: Scripted, there: dict[str, Any]
    ) -> None:
        bad = [f"localhost:{scripted(script, authenticate=False).port}" for script in (silent, dribbling)]
        async with remctl.aio.run_many([*bad, "localhost"], ["example", "hello"], connect_timeout=10, **there) as run:
            assert (await anext(run)).ok


def after_nothing(peer: Peer) -> None:
    peer.reset()


def after_the_first_token(peer: Peer) -> None:
    peer.receive_token()
    peer.reset()


def after_authentication(peer: Peer) -> None:
    peer.authenticate()
    peer.reset()


def after_the_command(peer: Peer) -> None:
    peer.authenticate()
    peer.receive()
    peer.reset()


def after_some_output(peer: Peer) -> None:
    peer.authenticate()
    peer.receive()
    peer.send_output(b"some")
    peer.send_output(b"more", 2)
    peer.socket.shutdown(socket.SHUT_WR)


def in_the_middle_of_the_status(peer: Peer) -> None:
    peer.authenticate()
    peer.receive()
    peer.send_output(b"some")
    peer.send_output(b"more", 2)
    peer.socket.sendall(framed(0x44, peer.wrap(b"\2\4\0"))[:20])
    peer.socket.shutdown(socket.SHUT_WR)


class TestLosing:
    @pytest.mark.parametrize("script", [after_nothing, after_the_first_token])
    @asynchronous
    async def test_the_connection_before_the_command_was_sent_is_tried_again(
        self, script: Callable[[Peer], None], scripted: Scripted, there: dict[str, Any]
    ) -> None:
        server = scripted(script, authenticate=False)
        result = await result_of(f"localhost:{server.port}", ["x"], principal=there["principal"])
        assert (result.state, result.status, result.may_be_running) == ("refused", None, False)
        assert (len(result.attempts), server.accepted) == (1, 2)

    @asynchronous
    async def test_the_connection_after_authentication_is_one_or_the_other(
        self, scripted: Scripted, there: dict[str, Any]
    ) -> None:
        server = scripted(after_authentication, authenticate=False)
        result = await result_of(f"localhost:{server.port}", ["x"], principal=there["principal"])
        assert result.status is None
        assert result.state == ("lost-after-send" if result.may_be_running else "refused")
        assert result.error is not None
        assert result.error.sent is result.may_be_running

    @pytest.mark.parametrize("script", [after_the_command, after_some_output, in_the_middle_of_the_status])
    @asynchronous
    async def test_the_connection_after_the_command_was_sent_leaves_it_open(
        self, script: Callable[[Peer], None], scripted: Scripted, there: dict[str, Any]
    ) -> None:
        server = scripted(script, authenticate=False)
        result = await result_of(f"localhost:{server.port}", ["x"], principal=there["principal"], retries=5)
        assert (result.state, result.status, result.may_be_running) == ("lost-after-send", None, True)
        assert not result.ok
        assert (result.attempts, server.accepted) == ((), 1)
        if script is not after_the_command:
            assert (result.stdout, result.stderr) == (b"some", b"more")
        with pytest.raises(remctl.RemctlConnectionError) as caught:
            result.check()
        assert caught.value.stdout == result.stdout

    @asynchronous
    async def test_the_connection_is_tried_again_after_that_if_it_is_asked_for(
        self, scripted: Scripted, there: dict[str, Any]
    ) -> None:
        server = scripted(after_the_command, authenticate=False)
        retry_on = [HostState.LOST]
        result = await result_of(
            f"localhost:{server.port}", ["x"], principal=there["principal"], retries=2, retry_on=retry_on
        )
        assert ([attempt.state for attempt in result.attempts], server.accepted) == ([HostState.LOST] * 2, 3)

    @asynchronous
    async def test_a_broken_token_after_the_command_leaves_it_open_too(
        self, scripted: Scripted, there: dict[str, Any]
    ) -> None:
        def garbage(peer: Peer) -> None:
            peer.receive()
            peer.send_token(0x44, b"x" * 100)

        server = scripted(garbage)
        result = await result_of(f"localhost:{server.port}", ["x"], principal=there["principal"])
        assert (result.state, result.may_be_running) == ("lost-after-send", True)


class TestCancelling:
    @asynchronous
    async def test_a_visit_at_any_wait_leaves_nothing(
        self, there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        visit = RemctlTransport.__call__
        number = 0

        async def cancelled(transport: RemctlTransport, this: Visit) -> None:
            await CancelledAt(visit(transport, this), number)

        monkeypatch.setattr(RemctlTransport, "__call__", cancelled)
        states: list[str] = []
        while "ok" not in states:
            number += 1
            result = await result_of("localhost", ["example", "hello"], **there)
            assert len(asyncio.all_tasks()) == 1
            states.append(str(result.state))
        assert states == [*["cancelled"] * (number - 1), "ok"]
        assert number > 2

    @pytest.mark.parametrize("rounds", [2**number for number in range(13)])
    @asynchronous
    async def test_a_run_in_any_round_of_the_loop_leaves_nothing(self, rounds: int, there: dict[str, Any]) -> None:
        before = descriptors()
        async with remctl.aio.run_many(["localhost", "127.0.0.1"] * 4, ["example", "hello"], **there) as run:
            waiting = asyncio.ensure_future(anext(run))
            for _ in range(rounds):
                await asyncio.sleep(0)
            run.cancel()
            results = [await waiting, *[result async for result in run]]
            assert len(asyncio.all_tasks()) == 1
        assert descriptors() <= before + 1
        assert len(results) == 8
        for result in results:
            assert (result.status is None) is (result.state != "ok")
            assert result.state == "cancelled" or not result.may_be_running


class TestWaiting:
    @asynchronous
    async def test_commands_that_were_cut_are_named_as_perhaps_running(self, everywhere: Serving, box: Sandbox) -> None:
        gate = Gate()
        server = everywhere(gate)
        hosts = [f"127.0.0.{number}" for number in range(2, 12)]
        run = remctl.aio.run_many(hosts, ["x"], port=server.port, principal=box.principal, timeout=0.5, running=4)
        results = await all_of(run)
        assert {(result.state, result.may_be_running) for result in results} == {(HostState.TIMEOUT, True)}
        assert len(results) == 10
        await until(gate.cancelled.is_set)  # this server ends what nobody waits for; remctld does not

    @asynchronous
    async def test_a_run_that_is_left_early_leaves_no_connection(self, everywhere: Serving, box: Sandbox) -> None:
        server = everywhere(Gate())
        before = descriptors()
        hosts = (f"127.0.1.{number}" for number in range(1, 200))
        async with remctl.aio.run_many(hosts, ["x"], port=server.port, principal=box.principal, running=50) as run:
            waiting = asyncio.ensure_future(anext(run))
            await until(lambda: run.progress.working == 50)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert run.progress.working == 0
        assert descriptors() <= before + 1
        await asyncio.to_thread(server.until, lambda server: not server.connections)
