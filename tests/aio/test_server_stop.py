"""How a server ends, and what becomes of its clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from rawclient import RawClient, encode_command, output, status
from serving import PATIENCE, Gate, ServerThread

import remctl
import remctl.aio
from remctl.aio import Request, Server, _served, serve
from remctl.aio import server as server_module
from remctl.testing import Sandbox
from remctl.testing.example import example

SHORT = 0.2
"""A time limit that is to pass."""


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Have all of the server's log caught."""
    caplog.set_level(logging.INFO, "remctl.aio")
    return caplog


class Stopping:
    """A call of `stop` on the server's loop, which the test does not wait for yet."""

    def __init__(self, server: ServerThread, timeout: float | None = None) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.stop, args=[timeout])
        self._thread.start()
        server.until(lambda server: server.addresses == [])

    @property
    def over(self) -> bool:
        """Whether it has returned."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait until it returns."""
        self._thread.join(PATIENCE)
        assert self.over


class TestGraceful:
    @pytest.fixture
    def gate(self) -> Gate:
        """Give a handler that waits."""
        return Gate()

    @pytest.fixture
    def server(self, box: Sandbox, gate: Gate) -> Iterator[ServerThread]:
        """Give its server."""
        with ServerThread(box, gate) as server:
            yield server

    def test_lets_running_commands_end(self, server: ServerThread, gate: Gate) -> None:
        with RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            stopping = Stopping(server)
            assert not stopping.over
            gate.open(server)
            assert client.rest() == [status(Gate.STATUS)]
            stopping.wait()

    def test_closes_idle_sessions_and_strangers_meanwhile(
        self, server: ServerThread, gate: Gate, logged: pytest.LogCaptureFixture
    ) -> None:
        with (
            RawClient(server.port) as busy,
            RawClient(server.port) as idle,
            RawClient(server.port, authenticated=False) as stranger,
        ):
            busy.command(b"test")
            assert gate.begun.wait(PATIENCE)
            server.until(lambda server: server.connections == 3)
            stopping = Stopping(server)
            assert idle.ended()
            assert stranger.ended()
            assert not stopping.over
            assert "user@SANDBOX.TEST from 127.0.0.1: the server is stopping" in logged.text
            gate.open(server)
            assert busy.rest() == [status(Gate.STATUS)]
            stopping.wait()

    def test_takes_no_new_connections_meanwhile(self, server: ServerThread, gate: Gate) -> None:
        with RawClient(server.port) as client:
            port = server.port
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            stopping = Stopping(server)
            with pytest.raises(ConnectionRefusedError):
                RawClient(port)
            gate.open(server)
            stopping.wait()

    def test_takes_no_new_commands_meanwhile(self, server: ServerThread, gate: Gate) -> None:
        with RawClient(server.port) as client:
            client.say(*[encode_command(b"test")] * 3)
            assert gate.begun.wait(PATIENCE)
            stopping = Stopping(server)
            gate.open(server)
            assert client.rest() == [status(Gate.STATUS)]
            stopping.wait()
            assert gate.ended == 1

    def test_gives_up_after_its_time_limit(self, server: ServerThread, gate: Gate) -> None:
        with RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            begin = time.monotonic()
            server.stop(SHORT)
            assert SHORT <= time.monotonic() - begin < PATIENCE
            assert gate.cancelled.is_set()
            assert client.rest() == []

    def test_gives_up_at_once_with_0(self, server: ServerThread, gate: Gate, logged: pytest.LogCaptureFixture) -> None:
        with RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            server.stop(0)
            assert gate.cancelled.is_set()
            assert client.rest() == []
            assert "user@SANDBOX.TEST from 127.0.0.1: the server has stopped" in logged.text
            assert server.server.connections == 0

    def test_can_be_cut_short_by_stopping_again(self, server: ServerThread, gate: Gate) -> None:
        with RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            stopping = Stopping(server)
            server.stop(0)
            stopping.wait()
            assert gate.cancelled.is_set()

    def test_twice_is_harmless(self, server: ServerThread) -> None:
        server.stop()
        server.stop()
        server.stop(0)
        assert (server.server.addresses, server.server.connections) == ([], 0)

    def test_that_is_cancelled_can_be_done_again(self, server: ServerThread, gate: Gate) -> None:
        async def impatient() -> None:
            async with asyncio.timeout(SHORT):
                await server.server.stop()

        with RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            with pytest.raises(TimeoutError):
                server.call(impatient())
            server.stop(0)
            assert gate.cancelled.is_set()
            assert client.rest() == []


class TestTimeLimit:
    def test_is_the_one_that_the_server_was_made_with(self, box: Sandbox) -> None:
        gate = Gate()
        with ServerThread(box, gate, stop_timeout=SHORT) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            server.stop()
            assert gate.cancelled.is_set()


class TestWith:
    def test_stops_at_its_end(self, box: Sandbox) -> None:
        async def scenario() -> Server:
            async with serve(example, "127.0.0.1", 0, keytab=box.keytab) as server:
                session = remctl.aio.Remctl("localhost", server.port, box.principal)
                await session.__aenter__()
                assert (await session.run(["example", "hello"])).status == 0
            with pytest.raises(remctl.RemctlConnectionError):
                await session.run(["example", "hello"])
            await session.close()
            return server

        assert asyncio.run(scenario()).connections == 0

    def test_waits_for_commands_at_its_end(self, box: Sandbox) -> None:
        async def scenario() -> None:
            begun = asyncio.Event()

            async def handler(request: Request) -> int:
                begun.set()
                await asyncio.sleep(SHORT)
                await request.send(b"done")
                return 0

            async with serve(handler, "127.0.0.1", 0, keytab=box.keytab) as server:
                call = asyncio.create_task(remctl.aio.remctl("localhost", server.port, box.principal, ["test"]))
                await begun.wait()
            assert (await call).stdout == b"done"

        asyncio.run(scenario())

    def test_cancels_commands_when_an_exception_leaves_it(self, box: Sandbox) -> None:
        gate = Gate()

        async def scenario() -> None:
            with pytest.raises(ZeroDivisionError):
                async with serve(gate, "127.0.0.1", 0, keytab=box.keytab) as server:
                    call = asyncio.create_task(remctl.aio.remctl("localhost", server.port, box.principal, ["test"]))
                    await asyncio.to_thread(gate.begun.wait, PATIENCE)
                    raise ZeroDivisionError
            assert gate.cancelled.is_set()
            with pytest.raises(remctl.RemctlConnectionError):
                await call

        asyncio.run(scenario())

    def test_serves_until_it_is_cancelled(self, box: Sandbox) -> None:
        async def scenario() -> None:
            started: asyncio.Future[Server] = asyncio.get_running_loop().create_future()

            async def service() -> None:
                async with serve(example, "127.0.0.1", 0, keytab=box.keytab) as server:
                    started.set_result(server)
                    await server.serve_forever()

            task = asyncio.create_task(service())
            server = await started
            result = await remctl.aio.remctl("localhost", server.port, box.principal, ["example", "hello"])
            assert result.status == 0
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (server.addresses, server.connections) == ([], 0)

        asyncio.run(scenario())

    def test_that_is_forgotten_ends_with_the_loop_and_without_a_word(
        self, box: Sandbox, capfd: pytest.CaptureFixture[str], logged: pytest.LogCaptureFixture
    ) -> None:
        gate = Gate()
        given = socket.create_server(("127.0.0.1", 0))
        clients: list[RawClient] = []

        async def scenario() -> Server:
            server = serve(gate, sock=given, keytab=box.keytab)
            await server.start()
            clients.extend([await asyncio.to_thread(RawClient, server.port) for _ in range(3)])
            clients[0].command(b"test")
            await asyncio.to_thread(gate.begun.wait, PATIENCE)
            return server

        with given:
            server = asyncio.run(scenario())
        assert gate.cancelled.is_set()
        for client in clients:
            assert client.ended()
            client.close()
        assert server.connections == 0
        assert capfd.readouterr().err == ""
        assert {record.levelname for record in logged.records} == {"INFO"}


class TestStubbornHandlers:
    def test_that_swallow_the_cancellation_once_are_waited_for(self, box: Sandbox) -> None:
        swallowed = threading.Event()
        gate, second = Gate(), Gate()

        async def handler(request: Request) -> int:
            try:
                return await gate(request)
            except asyncio.CancelledError:
                swallowed.set()
                return await second(request)

        with ServerThread(box, handler) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            stopping = Stopping(server, 0)
            assert swallowed.wait(PATIENCE)
            second.open(server)
            stopping.wait()
            assert second.ended == 1

    def test_that_outlive_their_client_are_cancelled_again_at_the_end(self, box: Sandbox) -> None:
        gate, second = Gate(), Gate()

        async def handler(request: Request) -> int:
            try:
                return await gate(request)
            except asyncio.CancelledError:
                return await second(request)

        with ServerThread(box, handler) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            client.close()
            assert second.begun.wait(PATIENCE)
            stopping = Stopping(server, 0)
            try:
                assert second.cancelled.wait(2)
            finally:
                second.open(server)
                stopping.wait()

    def test_that_never_give_in_are_left_behind(
        self, box: Sandbox, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(server_module, "FAREWELL", SHORT)
        begun, release = threading.Event(), asyncio.Event()

        async def handler(request: Request) -> int:
            begun.set()
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()
            return 0

        with ServerThread(box, handler) as server, RawClient(server.port) as client:
            client.command(b"test")
            assert begun.wait(PATIENCE)
            server.stop(0)
            assert "a command of user@SANDBOX.TEST does not end" in logged.text
            with pytest.raises(ConnectionError):
                client.hear()
            server.soon(release.set)
            server.until(lambda server: server.connections == 0)

    def test_that_swallow_a_run_timeout_give_their_answer(self, box: Sandbox) -> None:
        async def handler(request: Request) -> int:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await request.send(b"what there was")
            return 0

        with ServerThread(box, handler, run_timeout=SHORT) as server, RawClient(server.port) as client:
            assert client.run(b"test") == [output(b"what there was"), status(0)]
            assert client.run(b"test") == [output(b"what there was"), status(0)]


class TestSlowClients:
    def test_get_the_last_of_their_output(self, box: Sandbox) -> None:
        size = 300_000

        async def handler(request: Request) -> int:
            await request.send(bytes(size))
            return 0

        with ServerThread(box, handler) as server, RawClient(server.port, receive_buffer=4096) as client:
            client.command(b"test", keep_alive=0)
            server.until(lambda server: True)
            *heard, last = client.answer()
            assert sum(len(message) - 7 for message in heard) == size
            assert last == status(0)
            assert client.ended()

    def test_do_not_hold_up_the_end_for_long(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_served, "FAREWELL", SHORT)
        gate = Gate()

        async def handler(request: Request) -> int:
            gate.begun.set()
            while True:
                await request.send(bytes(65536))

        with ServerThread(box, handler) as server, RawClient(server.port, receive_buffer=4096) as client:
            client.command(b"test")
            assert gate.begun.wait(PATIENCE)
            begin = time.monotonic()
            server.stop(0)
            assert time.monotonic() - begin < 15


class TestFromAHandler:
    def test_lets_the_handler_end(self, box: Sandbox) -> None:
        servers: list[ServerThread] = []

        async def last_orders(request: Request) -> int:
            await servers[0].server.stop()
            await request.send(b"closed\n")
            return 3

        with ServerThread(box, last_orders, stop_timeout=None) as server:
            servers.append(server)
            result = remctl.remctl("localhost", server.port, box.principal, ["stop"], timeout=PATIENCE)
            assert (result.stdout, result.status) == (b"closed\n", 3)
            server.until(lambda server: server.connections == 0)
            with pytest.raises(remctl.RemctlConnectionError):
                remctl.remctl("localhost", servers[0].port, box.principal, ["stop"], timeout=PATIENCE)
