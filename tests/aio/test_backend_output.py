"""The output of a backend in a server in the program: how it gets to the client, and when it does not."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from rawclient import RawClient, error, output, status
from serving import PATIENCE

from aio.backends import HELLO, Serve, Waiting, WithBackend
from remctl import ErrorCode, Remctl, Stream
from remctl.aio import _served
from remctl.aio._backend import AHEAD
from remctl.backend import Backend, Context, OutputLostError

MEGABYTE: Final = 1 << 20

BUFFERS: Final = 16 * MEGABYTE
"""Bytes that the system and the transport may hold, beyond what is counted."""


class TestOutput(WithBackend):
    @pytest.mark.parametrize("kind", ["written", "generated", "coroutine", "asynchronous generator"])
    def test_arrives_while_the_function_runs(self, backend: Backend, serve: Serve, waiting: Waiting, kind: str) -> None:
        async def opened() -> None:
            await asyncio.get_running_loop().run_in_executor(None, waiting.wait)

        @backend.command
        def written(context: Context) -> None:
            context.write("first")
            waiting.wait()
            context.write("last", Stream.STDERR)

        @backend.command
        def generated(context: Context) -> Iterator[str]:
            yield "first"
            waiting.wait()
            context.write("last", Stream.STDERR)

        @backend.command
        async def coroutine(context: Context) -> None:
            context.write("first")
            await opened()
            context.write("last", Stream.STDERR)

        @backend.command("asynchronous")
        async def asynchronous(context: Context) -> AsyncIterator[str]:
            yield "first"
            await opened()
            context.write("last", Stream.STDERR)

        with RawClient(serve().port) as client:
            client.command(b"test", kind.split()[0].encode())
            assert client.hear() == output(b"first")
            assert waiting.came()
            waiting.open()
            assert client.answer() == [output(b"last", 2), status(0)]

    def test_much_of_a_coroutine_arrives_while_it_runs(self, backend: Backend, serve: Serve, waiting: Waiting) -> None:
        @backend.command
        async def talk(context: Context) -> None:
            context.write(bytes(MEGABYTE))
            context.write("more")
            await asyncio.get_running_loop().run_in_executor(None, waiting.wait)

        with RawClient(serve().port) as client:
            client.command(b"test", b"talk")
            assert waiting.came()
            client.socket.settimeout(5)
            heard = b""
            while not heard.endswith(b"more"):
                heard += client.hear()
            waiting.open()
            assert client.answer() == [status(0)]

    def test_of_several_tasks_is_not_mixed_within_a_write(self, backend: Backend, serve: Serve) -> None:
        @backend.command
        async def talk(context: Context) -> None:
            async def one(letter: str, size: int) -> None:
                context.write(letter * size)
                await context.drain()

            await asyncio.gather(one("a", 4 * MEGABYTE), one("b", 1), one("c", 4 * MEGABYTE), one("d", 1))

        with Remctl("localhost", serve().port, "host/localhost@SANDBOX.TEST") as session:
            result = session.run(["test", "talk"])
        assert result == (b"a" * 4 * MEGABYTE + b"b" + b"c" * 4 * MEGABYTE + b"d", b"", 0)

    @pytest.mark.parametrize("command", ["write", "generate"])
    def test_is_held_back_when_the_client_does_not_read(self, backend: Backend, serve: Serve, command: str) -> None:
        sent = 0
        total = 64 * MEGABYTE
        piece = bytes(50_000)

        @backend.command
        def write(context: Context) -> None:
            nonlocal sent
            while sent < total:
                context.write(piece)
                sent += len(piece)

        @backend.command
        def generate() -> Iterator[bytes]:
            nonlocal sent
            while sent < total:
                yield piece
                sent += len(piece)

        with RawClient(serve().port, receive_buffer=MEGABYTE) as client:
            client.command(b"test", command.encode())
            before, still = 0, 0
            while still < 20:
                time.sleep(0.01)  # that nothing happens has no event
                still = still + 1 if sent == before > 0 else 0
                before = sent
            assert sent < BUFFERS + AHEAD < total
            received = 0
            while (message := client.hear())[1] == 3:
                received += len(message) - 7
            assert message == status(0)
        assert received == sent >= total

    def test_of_two_hundred_megabytes_needs_little_memory(self, backend: Backend, serve: Serve) -> None:
        size = 200 * MEGABYTE
        kept = 0

        @backend.command
        def generate() -> Iterator[bytes]:
            for _ in range(size // MEGABYTE):
                yield bytes(MEGABYTE)

        def watch() -> None:
            nonlocal kept
            kept = max(kept, int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"))

        with Remctl("localhost", serve().port, "host/localhost@SANDBOX.TEST") as session:
            gc.collect()
            watch()
            before, received = kept, 0
            for each in session.stream(["test", "generate"]):
                received += len(each.output or b"")
                watch()
        assert received == size
        assert kept - before < 50 * MEGABYTE

    @pytest.mark.parametrize("command", ["large", "small", "returned"])
    def test_that_is_large_does_not_hold_the_loop(self, backend: Backend, serve: Serve, command: str) -> None:
        size = 100 * MEGABYTE
        done = threading.Event()

        @backend.command
        async def large(context: Context) -> None:
            context.write(bytes(size))
            await context.drain()
            done.set()

        @backend.command
        async def small(context: Context) -> Iterator[bytes]:
            def pieces() -> Iterator[bytes]:
                for _ in range(size // 50_000):
                    yield bytes(50_000)
                done.set()

            return pieces()

        @backend.command
        async def returned() -> bytes:
            return bytes(size)

        server = serve()
        arrived = threading.Event()
        received = 0

        def read() -> None:
            nonlocal received
            with Remctl("localhost", server.port, "host/localhost@SANDBOX.TEST") as reader:
                for each in reader.stream(["test", command]):
                    received += len(each.output or b"")
                    arrived.set()
            done.set()

        with Remctl("localhost", server.port, "host/localhost@SANDBOX.TEST") as session:
            session.noop()
            thread = threading.Thread(target=read)
            thread.start()
            assert arrived.wait(PATIENCE)
            longest, answers, started = 0.0, 0, time.monotonic()
            while not done.is_set():
                begin = time.monotonic()
                session.noop()
                longest = max(longest, time.monotonic() - begin)
                answers += 1
            took = time.monotonic() - started
            thread.join()
        assert received >= size - 50_000
        assert answers > 3
        assert longest < took / 2


class TestVanishedClient(WithBackend):
    @pytest.fixture
    def vanished(self, backend: Backend, serve: Serve, waiting: Waiting) -> Callable[[bytes], None]:
        """Give a function that runs a command, and has its client vanish in the middle."""
        server = serve()

        def run(command: bytes) -> None:
            with RawClient(server.port) as client:
                client.command(b"test", command)
                assert waiting.came()
            server.until(lambda server: server.connections == 0)
            waiting.open()
            assert waiting.ended.wait(PATIENCE)

        return run

    def test_cancels_a_coroutine(self, backend: Backend, waiting: Waiting, vanished: Callable[[bytes], None]) -> None:
        @backend.command
        async def wait(context: Context) -> None:
            with waiting.watched():
                await waiting.wait_in_loop()

        vanished(b"wait")
        assert isinstance(waiting.failure, asyncio.CancelledError)

    def test_closes_an_asynchronous_generator(
        self, backend: Backend, waiting: Waiting, vanished: Callable[[bytes], None]
    ) -> None:
        @backend.command
        async def wait() -> AsyncIterator[str]:
            with waiting.watched():
                yield "x"
                await waiting.wait_in_loop()

        vanished(b"wait")
        assert isinstance(waiting.failure, asyncio.CancelledError)

    def test_fails_the_next_write_of_a_blocking_function(
        self,
        backend: Backend,
        waiting: Waiting,
        vanished: Callable[[bytes], None],
        logged: pytest.LogCaptureFixture,
    ) -> None:
        @backend.command
        def wait(context: Context) -> None:
            waiting.wait()
            with waiting.watched():
                context.write("x")

        vanished(b"wait")
        assert isinstance(waiting.failure, OutputLostError)
        assert "the function of 'test wait' goes on for nobody" in logged.text
        assert "Traceback" not in logged.text

    def test_closes_a_generator(self, backend: Backend, waiting: Waiting, vanished: Callable[[bytes], None]) -> None:
        @backend.command
        def wait() -> Iterator[str]:
            with waiting.watched():
                waiting.wait()
                yield "x"

        vanished(b"wait")
        assert isinstance(waiting.failure, GeneratorExit)

    def test_ends_a_function_that_waits_for_it_to_read(self, backend: Backend, serve: Serve, waiting: Waiting) -> None:
        @backend.command
        def talk(context: Context) -> None:
            with waiting.watched():
                while True:
                    context.write(bytes(100_000))

        with RawClient(serve().port) as client:
            client.command(b"test", b"talk")
            client.hear()
        assert waiting.ended.wait(PATIENCE)
        assert isinstance(waiting.failure, OutputLostError)

    def test_harms_no_coroutine_that_says_goodbye(
        self,
        backend: Backend,
        waiting: Waiting,
        vanished: Callable[[bytes], None],
        logged: pytest.LogCaptureFixture,
    ) -> None:
        @backend.command
        async def wait(context: Context) -> None:
            try:
                await waiting.wait_in_loop()
            finally:
                with waiting.watched():
                    context.write("goodbye")
                    context.write(bytes(MEGABYTE))

        vanished(b"wait")
        assert waiting.failure is None or isinstance(waiting.failure, OutputLostError)
        assert "Traceback" not in logged.text


class TestLimits(WithBackend):
    def test_a_blocking_function_is_left_behind_when_its_time_is_over(
        self, backend: Backend, serve: Serve, waiting: Waiting
    ) -> None:
        @backend.command
        def wait(context: Context) -> None:
            waiting.wait()
            with waiting.watched():
                context.write("too late")

        with RawClient(serve(run_timeout=0.2).port) as client:
            assert client.run(b"test", b"wait") == [error(ErrorCode.INTERNAL, "The command was stopped after 0.2 s")]
            assert client.run(b"test", b"hello") == HELLO
            waiting.open()
            assert waiting.ended.wait(PATIENCE)
            assert isinstance(waiting.failure, OutputLostError)
            assert client.run(b"test", b"hello") == HELLO

    @pytest.mark.parametrize("command", ["talk", "chat"])
    def test_a_client_that_takes_nothing_is_left(
        self,
        backend: Backend,
        serve: Serve,
        waiting: Waiting,
        monkeypatch: pytest.MonkeyPatch,
        logged: pytest.LogCaptureFixture,
        command: str,
    ) -> None:
        @backend.command
        def talk(context: Context) -> None:
            with waiting.watched():
                while True:
                    context.write(bytes(100_000))

        @backend.command
        async def chat(context: Context) -> None:
            with waiting.watched():
                while True:
                    context.write(bytes(100_000))
                    await context.drain()

        monkeypatch.setattr(_served, "FAREWELL", 0.2)
        server = serve(idle_timeout=0.2)
        with RawClient(server.port) as client:
            client.command(b"test", command.encode())
            assert waiting.ended.wait(PATIENCE)
            server.until(lambda server: server.connections == 0)
        assert "it took nothing for 0.2 s" in logged.text
        assert isinstance(waiting.failure, OutputLostError | asyncio.CancelledError)

    def test_a_server_that_stops_waits_for_a_blocking_function_only_so_long(
        self, backend: Backend, serve: Serve, waiting: Waiting, logged: pytest.LogCaptureFixture
    ) -> None:
        @backend.command
        def wait() -> None:
            waiting.wait()

        server = serve()
        with RawClient(server.port) as client:
            client.command(b"test", b"wait")
            assert waiting.came()
            begin = time.monotonic()
            server.stop(0.1)
            assert time.monotonic() - begin < 5
            assert client.ended()
        assert "does not end" not in logged.text
        assert "the function of 'test wait' goes on for nobody" in logged.text

    def test_a_server_that_stops_lets_a_blocking_function_end(
        self, backend: Backend, serve: Serve, waiting: Waiting
    ) -> None:
        @backend.command
        def wait() -> str:
            waiting.wait()
            return "waited\n"

        server = serve()
        with RawClient(server.port) as client:
            client.command(b"test", b"wait")
            assert waiting.came()
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            waiting.open()
            assert client.rest() == [output(b"waited\n"), status(0)]
            stopping.join()
