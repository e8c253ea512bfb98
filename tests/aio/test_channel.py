"""Bytes to and fro: flow control in both directions, and the loop's other tasks meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from doubles import Peer, ScriptedServer
from serving import ServerThread

import remctl
from aio.running import asynchronous, until
from remctl.aio import Remctl, Request
from remctl.aio._channel import READ_AHEAD
from remctl.testing import Sandbox

ServerArguments = tuple[str, int, str]
Serving = Callable[..., ServerThread]
Scripted = Callable[..., ScriptedServer]


class Heartbeat:
    """Measures how long the loop keeps a task waiting, while in its block."""

    longest = 0.0

    async def __aenter__(self) -> Heartbeat:
        self._task = asyncio.ensure_future(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, loop.time() - before)


class TestReading:
    @asynchronous
    async def test_stops_while_nobody_takes_what_has_come_and_goes_on_later(
        self, serving: Serving, box: Sandbox
    ) -> None:
        size, sent = 50_000_000, 0

        async def flood(request: Request) -> None:
            nonlocal sent
            while sent < size:
                await request.send(bytes(100_000))
                sent += 100_000

        async with Remctl("localhost", serving(flood).port, box.principal, timeout=20) as session:
            tokens = session.stream(["x"])
            total = len((await anext(tokens)).output or b"")
            connection = session._handle.opened()
            assert connection._channel is not None
            while not connection._channel._reading or connection._core.buffered < READ_AHEAD:
                if connection._core.buffered >= READ_AHEAD:
                    break
                await asyncio.sleep(0.001)
            before = -1
            while before != sent:  # until the server has filled the system's buffers, and waits
                before = sent
                await asyncio.sleep(0.1)
            assert connection._core.buffered < READ_AHEAD + 512 * 1024
            assert sent < size
            async for token in tokens:
                total += len(token.output or b"")
            assert total == size
            assert (await session.run(["x"])).status == 0

    @asynchronous
    async def test_of_tokens_larger_than_what_is_read_ahead(self, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            peer.receive()
            peer.send_token(0x44, bytes(1024 * 1024))

        async with Remctl("localhost", scripted(answer).port, server[2], timeout=20) as session:
            with pytest.raises(remctl.RemctlAuthenticationError):  # read to its end, and then found out
                await session.run(["x"])

    @asynchronous
    async def test_leaves_the_loop_to_others(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session, Heartbeat() as heartbeat:
            assert len((await session.run(["example", "bytes", 30_000_000])).stdout) == 30_000_000
        assert heartbeat.longest < 0.3


class TestWriting:
    @asynchronous
    async def test_waits_for_a_server_that_does_not_read(self, scripted: Scripted, server: ServerArguments) -> None:
        async with Remctl("localhost", scripted(lambda peer: None).port, server[2], timeout=20) as session:
            sending = asyncio.ensure_future(session.command(["x", bytes(50_000_000)]))
            connection = session._handle.opened()
            await until(lambda: connection._channel is not None and not connection._channel.writing)
            assert connection._channel is not None
            await asyncio.sleep(0.05)
            assert connection._channel.transport.get_write_buffer_size() < 2_000_000
            assert not sending.done()
            await session.close()
            with pytest.raises(remctl.RemctlNotOpenedError, match="closed while sending"):
                await sending

    @asynchronous
    async def test_leaves_the_loop_to_others(self, serving: Serving, box: Sandbox) -> None:
        async def swallow(request: Request) -> None:
            await request.send(b"%d" % len(request.command[1]))

        async with (
            Remctl("localhost", serving(swallow).port, box.principal, timeout=20) as session,
            Heartbeat() as heartbeat,
        ):
            assert (await session.run(["x", bytes(30_000_000)])).stdout == b"30000000"
        assert heartbeat.longest < 0.3


class TestOpening:
    @asynchronous
    async def test_many_leaves_the_loop_to_others(self, serving: Serving, box: Sandbox) -> None:
        address = ("localhost", serving().port, box.principal)
        async with Heartbeat() as heartbeat:
            calls = (remctl.aio.remctl(*address, ["example", "hello"], timeout=20) for _ in range(60))
            assert {result.status for result in await asyncio.gather(*calls)} == {0}
        assert heartbeat.longest < 0.3
