"""Fuzzes the asyncio server: its connections, in memory, against clients that say and do anything.

An input is a script: a few clients, what they say (from well-formed commands to raw bytes), how they take what they are
sent, how they break off, what the handler does with each command, when time passes, and when the server stops.  Nothing
is real but the server: the event loop has a clock of its own, which jumps to whatever comes next, transports are lists,
and the security contexts only number their tokens.  This has to hold:

- nothing reaches the loop's exception handler, and the log has no exception but those that the handler raised;
- what a client is sent are whole tokens, in order, and nothing after the end;
- a connection holds no more bytes than its limits allow, in either direction;
- every connection ends when its client ends, and the server's stop ends all: in a time that has a limit;
- after that nothing is left: no task, no connection, no bytes that count as held.

See `running` for the command line.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import struct
import sys
import types
from collections.abc import Callable, Coroutine
from typing import Any, Final

import atheris
import running

sys.path.append(str(running.HERE.parent / "tests"))

with atheris.instrument_imports(include=["remctl.aio", "remctl.protocol"]):
    from protocol.memory import MemoryContext, token

    from remctl.aio import Request, Server, _served, serve
    from remctl.aio._channel import Channel
    from remctl.exceptions import RemctlCommandError
    from remctl.protocol.state import State
    from remctl.types import Stream

RUN: Final = 10.0
IDLE: Final = 20.0
HANDSHAKE: Final = 5.0
LIMIT: Final = RUN + IDLE + HANDSHAKE + 5 * _served.FAREWELL
"""Seconds, of the loop's own clock, in which everything has to end."""

HIGH_WATER: Final = 64 * 1024
HELD_TO_SEND: Final = 1024 * 1024
"""Bytes that may wait for a client; three tasks of a handler fill the transport past its mark, each by one piece."""

FLAGS: Final = [0x44, 0x44, 0x44, 0x44, 0x51, 0x42, 0x11, 0x02, 0x24, 0x08, 0x04]

COMMAND: Final = b"\0\0\0\x02\0\0\0\x03run\0\0\0\x01"
MESSAGES: Final = [
    b"\x03\x07",
    b"\x02\x02",
    b"\x02\x01\x01\x01" + COMMAND,
    b"\x02\x01\x01\x02",
    b"\x02\x01\x01\x03\x05",
    b"\x02\x01\x00\x03\x02",
    b"\x02\x01\x01\x01" + bytes(3000),
    b"\x02\x01\x01\x02" + bytes(3000),
    b"\x04\x01",
    b"\x02\x63",
    b"\x02\x01\x01\x00\xff\xff\xff\xff",
    b"\x02\x01\x01\x00" + COMMAND + bytes(70_000),
    b"",
]


class Planned(Exception):
    """What a handler raises on purpose."""


# The surroundings of a server


class Clock(selectors.SelectSelector):
    """Lets no time pass: where the loop would wait, the clock is moved on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready at once."""
        found = super().select(0)
        if not found:
            assert timeout is not None, "something waits for ever"
            self.now += max(timeout, 0.0)
        return found


class Loop(asyncio.SelectorEventLoop):
    """An event loop with such a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        """Return the seconds that have passed by that clock, which the loop rounds to its resolution."""
        return self.clock.now


class Threads:
    """Stands for the threads of the server: calls at once, after a round of the loop."""

    async def run(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call it."""
        await asyncio.sleep(0)
        return function(*arguments)


class Context(MemoryContext):
    """An acceptor's context without cryptography."""

    principal = "user@REALM"
    lifetime = 600.0

    def __init__(self, _: object) -> None:
        super().__init__(False)


class Listener:
    """Stands for a listening socket."""

    sockets: Final[list[socket.socket]] = []

    def close(self) -> None:
        """Close it."""

    async def wait_closed(self) -> None:
        """Wait for that."""


class Pipe(asyncio.Transport):
    """A transport that ends in this process: what is written lies in a list until the client takes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Channel) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._coming = bytearray()
        self._written = bytearray()
        self._reading = True
        self._closing = False
        self._held = False
        self._eof = False
        self.taken = bytearray()
        self.ended = False

    # What the server calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes for the client."""
        assert not self._closing, "written after the end"
        self._written += data
        assert len(self._written) < HELD_TO_SEND, "holds too much for its client"
        if len(self._written) > HIGH_WATER and not self._held:
            self._held = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        """Whether the server has ended it."""
        return self._closing

    def close(self) -> None:
        """End it when the client has taken everything."""
        self._closing = True
        if not self._written:
            self._end(None)

    def abort(self) -> None:
        """End it now."""
        self._closing = True
        self._written.clear()
        self._end(None)

    def pause_reading(self) -> None:
        """Take nothing from the client."""
        assert self._reading
        self._reading = False

    def resume_reading(self) -> None:
        """Take it again."""
        if not self._closing:
            assert not self._reading
            self._reading = True
            self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        """Return how much the client has not taken."""
        return len(self._written)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the socket that is not there."""
        sock = types.SimpleNamespace(family=socket.AF_UNIX, type=socket.SOCK_STREAM, proto=0)
        return {"peername": ("192.0.2.1", 5), "socket": sock}.get(name, default)

    # What the client does

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self._coming += data
        self._deliver()

    def take(self, size: int) -> None:
        """Receive bytes."""
        self.taken += self._written[:size]
        del self._written[:size]
        if self._held and len(self._written) <= HIGH_WATER // 4:
            self._held = False
            self._protocol.resume_writing()
        if self._closing and not self._written:
            self._end(None)

    def hang_up(self) -> None:
        """End it, as a socket does that is closed."""
        self._eof = True
        self._deliver()

    def reset(self) -> None:
        """End it with an error."""
        self._closing = True
        self._written.clear()
        self._end(ConnectionResetError(104, "reset"))

    def _deliver(self) -> None:
        while self._coming and self._reading and not self._closing:
            buffer = self._protocol.get_buffer(-1)
            size = min(len(buffer), len(self._coming))
            buffer[:size] = self._coming[:size]
            del self._coming[:size]
            self._protocol.buffer_updated(size)
        if self._eof and self._reading and not self._closing:
            self._protocol.eof_received()
            self.close()

    def _end(self, error: Exception | None) -> None:
        if not self.ended:
            self.ended = True
            self._loop.call_soon(self._protocol.connection_lost, error)


# The script


async def handle(request: Request) -> Any:
    """Do what the last byte of the command says."""
    plan = request.command[-1][-1] if request.command[-1] else 0
    stream = Stream.STDERR if plan & 0x80 else Stream.STDOUT
    match plan & 0x0F:
        case 1:
            await request.send(b"output", stream)
        case 2:
            await request.send(bytes(200_000), stream)
        case 3:
            for _ in range(plan):
                await request.send(b"little", stream)
        case 4:
            await asyncio.gather(*(request.send(bytes(100_000), each) for each in (*Stream, stream)))
        case 5:
            await asyncio.sleep(plan / 16)
        case 6:
            await asyncio.sleep(RUN * 100)
        case 7:
            raise Planned
        case 8:
            await request.send(b"half an answer")
            raise RemctlCommandError("refused", code=plan)
        case 9:
            return plan * 2
        case 10:
            try:
                await asyncio.sleep(RUN / 2)
            except asyncio.CancelledError:
                await request.send(bytes(plan * 300))
        case 11:
            try:
                await request.send(bytes(200_000))
            finally:
                await asyncio.sleep(plan / 64)
        case 12:
            task = asyncio.create_task(asyncio.sleep(RUN * 100))
            try:
                async with asyncio.timeout(plan / 64):
                    await task
            except TimeoutError:
                await request.send(b"too late", stream)
    return plan


class Client:
    """One client, and what it is sent."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.served = _served.Served(server, None)  # type: ignore[arg-type]  # our context needs no credentials
        self.pipe = Pipe(loop, self.served.channel)
        self.context = MemoryContext(True)
        self.served.channel.connection_made(self.pipe)
        self._core = self.served._core

    def handshake(self, old: bool) -> None:
        """Authenticate."""
        first = self.context.step(None)
        self.context.step(b"context 1")
        self.pipe.say(token(0x11 if old else 0x51) + token(0x02 if old else 0x42, first or b""))

    def check(self) -> None:
        """Check the bytes that are held."""
        limit = (128 if self._core.state in (State.START, State.NEGOTIATING) else 1024) * 1024
        assert self._core.buffered <= limit + 2 * 256 * 1024, "holds too much of what came"
        assert self._core.receiving < 10_000, "holds too much of a command"

    def check_tokens(self) -> None:
        """Check what was sent: whole tokens but for the last, which may be cut off by the end; numbered in order."""
        data, place, number = self.pipe.taken, 0, 0
        while len(data) - place >= 5:
            flags, size = data[place], int.from_bytes(data[place + 1 : place + 5], "big")
            payload = bytes(data[place + 5 : place + 5 + size])
            place += 5 + size
            if flags in (0x42, 0x02):
                assert payload == b"context 1"
                assert number == 0
            else:
                assert flags in (0x44, 0x04, 0x08), f"a token with the flags {flags}"
                number += 1
                assert len(payload) < 5 or payload[1:5] == number.to_bytes(4, "big"), "a token is out of order"


class Script:
    """Plays an input."""

    def __init__(self, choices: atheris.FuzzedDataProvider, loop: Loop) -> None:
        self._choices = choices
        self._loop = loop
        self._clients: list[Client] = []
        self._stopping: list[asyncio.Task[None]] = []

    async def play(self) -> None:
        """Play it, and then end what is left."""
        server = self._server()
        while self._choices.remaining_bytes():
            await self._next(server)
            for client in self._clients:
                client.check()
        stopping = self._choices.ConsumeBool()
        if not stopping:
            for client in self._clients:
                client.pipe.hang_up() if client.pipe._reading else client.pipe.reset()
        await self._end(server, stopping)

    def _server(self) -> Server:
        server = serve(
            handle,
            acl=self._allow if self._choices.ConsumeBool() else None,
            allow_v1=self._choices.ConsumeBool(),
            max_connections=3,
            max_words=3,
            max_command_size=9_000,
            max_total_size=12_000,
            handshake_timeout=HANDSHAKE,
            idle_timeout=IDLE,
            run_timeout=RUN,
            stop_timeout=RUN,
        )
        server._servers = [Listener()]  # type: ignore[list-item]  # nothing of it is used but these
        return server

    async def _allow(self, request: Request) -> bool:
        if request.command[0] == b"\0":
            raise Planned
        await asyncio.sleep(0)
        return request.command[0] != b"no"

    async def _next(self, server: Server) -> None:
        choices = self._choices
        action = choices.ConsumeIntInRange(0, 15)
        if action == 0 or not self._clients:
            if len(self._clients) < 8:
                self._clients.append(Client(server, self._loop))
                if choices.ConsumeIntInRange(0, 7):
                    self._clients[-1].handshake(choices.ConsumeIntInRange(0, 7) == 0)
            return
        client = self._clients[choices.ConsumeIntInRange(0, len(self._clients) - 1)]
        if action == 1:
            await asyncio.sleep(choices.ConsumeIntInRange(0, 255) / 32)
        elif action in (2, 3):
            for _ in range(choices.ConsumeIntInRange(1, 8)):
                await asyncio.sleep(0)
        elif action in (4, 5):
            client.pipe.take(choices.ConsumeIntInRange(0, 255) * 1024)
        elif action == 6:
            client.pipe.hang_up() if choices.ConsumeBool() else client.pipe.reset()
        elif action == 7 and not self._stopping:
            coroutine: Coroutine[Any, Any, None] = server.stop(choices.ConsumeIntInRange(0, 12))
            self._stopping.append(self._loop.create_task(coroutine))
        else:
            client.pipe.say(self._said(client, action))

    def _said(self, client: Client, action: int) -> bytes:
        choices = self._choices
        flags = FLAGS[choices.ConsumeIntInRange(0, len(FLAGS) - 1)]
        if action == 8:
            return bytes(choices.ConsumeBytes(choices.ConsumeIntInRange(0, 12)))
        if action == 9:
            return token(flags, choices.ConsumeBytes(choices.ConsumeIntInRange(0, 12)))
        if action == 10:
            return struct.pack(">BI", flags, choices.ConsumeIntInRange(0, 2**32 - 1))
        if action in (11, 12):
            message = MESSAGES[choices.ConsumeIntInRange(0, len(MESSAGES) - 1)]
            return token(flags, client.context.wrap(message)) * int(choices.ConsumeIntInRange(1, 2))
        body = COMMAND + choices.ConsumeBytes(1)
        if flags != 0x44 and action == 13:
            return token(flags, client.context.wrap(body))
        return token(0x44, client.context.wrap(b"\x02\x01" + bytes([choices.ConsumeIntInRange(0, 3) > 0, 0]) + body))

    async def _end(self, server: Server, stopping: bool) -> None:
        try:
            async with asyncio.timeout(LIMIT):
                if stopping:
                    await server.stop()
                for task in self._stopping:
                    await task
                while server.connections or not all(client.pipe.ended for client in self._clients):
                    await asyncio.sleep(0.5)
        except TimeoutError:
            left = [client.served.task for client in self._clients if client.served in server._served]
            raise AssertionError(f"it does not end: {left}") from None
        await asyncio.sleep(_served.FAREWELL)
        for client in self._clients:
            assert client.served.channel.lost, "a connection is left"
            client.check_tokens()
        assert server._held == 0, f"{server._held} bytes count as held"
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, f"tasks are left: {tasks}"


class Log(logging.Handler):
    """Keeps the exceptions that were logged and not planned."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        planned = isinstance(error, Planned) or "must be 0 to 255" in str(error)
        if error is not None and not planned:
            self.found.append(error)


def play(data: bytes) -> None:
    """Play one input."""
    log.found.clear()
    reached: list[dict[str, Any]] = []
    loop = Loop()
    loop.set_exception_handler(lambda _, context: reached.append(context))
    try:
        loop.run_until_complete(Script(atheris.FuzzedDataProvider(data), loop).play())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    for error in log.found:
        raise AssertionError("logged") from error
    assert not reached, reached


log = Log()

if __name__ == "__main__":
    vars(_served).update(AcceptorContext=Context, local=Threads())
    logging.getLogger("remctl").addHandler(log)
    logging.getLogger("remctl").setLevel(logging.INFO)
    logging.getLogger("remctl").propagate = False
    running.run("server", play)
