"""One connection of a server, from the first token to the end, and what a handler sees of it.

Between `server`, which has what all connections share, and the protocol core with its channel.  Each connection is one
task; its commands run in it, one after the other, as the protocol has it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Set
from typing import TYPE_CHECKING, Final, NamedTuple

from remctl._arguments import label
from remctl._limits import MAX_MESSAGE_SIZE, MAX_OUTPUT_SIZE
from remctl.acl import Acl
from remctl.aio._channel import Channel
from remctl.aio._offload import local, network
from remctl.aio._turns import turn
from remctl.exceptions import RemctlCommandError, RemctlError
from remctl.protocol import NEED_DATA, Closed, CommandReceived, ServerConnection, State, Step
from remctl.protocol.server import Event
from remctl.security import AcceptorContext
from remctl.types import ErrorCode, Stream

if TYPE_CHECKING:
    import gssapi

    from remctl.aio.server import Server

logger = logging.getLogger(__name__)

COALESCE: Final = MAX_OUTPUT_SIZE
"""Bytes of output that are kept back until the handler waits for something, so that little ones travel together."""

NO_ROOM: Final = "Too much data: the server has no room for it at the moment"

FAREWELL: Final = 5
"""Seconds that a client has to take the last of what it is sent, before the connection is cut."""


class Limits(NamedTuple):
    """What a server puts up with; see the arguments of `serve`."""

    allow_v1: bool
    connections: int
    words: int
    command_size: int
    total_size: int
    handshake: float | None
    idle: float | None
    run: float | None
    stop: float | None


class Request:
    """A command that a client sent, and the way to answer it."""

    __slots__ = ("_served", "address", "command", "expires", "principal")

    command: tuple[bytes, ...]
    """The words, at least one; any bytes, NUL too."""
    principal: str
    """Who sent it, as the KDC vouches: user@REALM."""
    address: str
    """The client's IP address; empty over a socket that has none."""
    expires: float
    """When the client's ticket ends, in seconds since the epoch."""

    def __init__(
        self, served: Served, command: tuple[bytes, ...], principal: str, address: str, expires: float
    ) -> None:
        self._served: Served | None = served
        self.command = command
        self.principal = principal
        self.address = address
        self.expires = expires

    async def send(self, data: bytes | bytearray | memoryview, stream: Stream = Stream.STDOUT) -> None:
        """Send output; waits while the client takes it more slowly than it comes.

        Args:
            data: any number of bytes.
            stream: which of the two streams it belongs to.

        Raises:
            TypeError, ValueError: the data is not bytes, or there is no such stream.
            RuntimeError: the handler has returned already.

        Cancelling it may leave part of the data sent.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, and is {type(data).__name__}")
        data, stream = bytes(data), Stream(stream)
        for begin in range(0, len(data) or 1, COALESCE):
            self.write(data[begin : begin + COALESCE], stream)
            await self.drain()

    def write(self, data: bytes, stream: Stream) -> None:
        """Send output without waiting: the first half of `send`, for those who wait by themselves."""
        if self._served is None:
            raise RuntimeError("the command has been answered already")
        self._served.write(data, stream)

    async def drain(self) -> None:
        """Wait while the client takes output more slowly than it comes: the second half of `send`."""
        if self._served is not None:
            await self._served.drain()

    def done(self) -> None:
        """Let nothing more be sent."""
        self._served = None

    def __repr__(self) -> str:
        return f"<remctl.aio.Request '{label(self.command)}' of {self.principal} from {self.address}>"


Handler = Callable[[Request], Awaitable[int | None]]
Access = Set[str] | Acl | Callable[[Request], bool | Awaitable[bool]]


async def permitted(acl: Acl, principal: str) -> bool:
    """Whether a principal is let in; what has to be read for it, or looked up, is so on a thread."""
    return await network.run(acl.allows, principal) if acl.waits else acl.allows(principal)


class Served:
    """See the module.

    Args:
        server: what all connections share.
        credentials: the server's key.
    """

    principal: str | None
    """The client; None until it has authenticated."""
    task: asyncio.Task[None] | None
    """Its life; None before it has begun."""

    def __init__(self, server: Server, credentials: gssapi.Credentials) -> None:
        limits = server.limits
        self.principal = None
        self._server = server
        self._limits = limits
        self._context = AcceptorContext(credentials)
        self._core = ServerConnection(
            self._context, allow_v1=limits.allow_v1, max_words=limits.words, max_command_size=limits.command_size
        )
        self.channel = Channel(self._core, self._begin, self._vanished)
        self.task = None
        self._address = ""
        self._expires = 0.0
        self._alive = False
        self._running = False
        self._stopping = False
        self._reason = ""
        self._held = 0
        self._flush_due = False

    # What the server tells it

    def stop(self) -> None:
        """End it, after the command that runs."""
        self._stopping = True
        if not self._running:
            self.abort("the server is stopping")

    def abort(self, reason: str) -> None:
        """End it at once."""
        self._reason = self._reason or reason
        if self.task is not None and self._alive:  # a task that is cancelled before it begins would never clean up
            self.task.cancel()

    # What the channel tells it

    def _begin(self) -> None:
        if not self._server.admit(self):
            self.channel.transport.abort()
            return
        peer = self.channel.transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        self.task = asyncio.get_running_loop().create_task(self._live())

    def _vanished(self) -> None:
        if self._running:
            self.abort("the client has vanished, and its command was cancelled")

    # Its life

    async def _live(self) -> None:
        self._alive = True
        try:
            if not self._reason and await self._handshake():
                await self._converse()
        except RemctlError as error:
            self._reason = str(error)
        except Exception:
            self._reason = "internal failure"
            logger.exception("the connection of %s failed", self.principal or "somebody")
        except asyncio.CancelledError:
            if not self._reason:  # it was not us: the loop is being torn down
                self._reason = "the program is ending"
                raise
        finally:
            self._alive = False
            logger.info("%s from %s: %s", self.principal or "somebody", self._address, self._reason or "closed")
            self._hold(0)
            try:
                await self._leave()
            finally:
                self._server.dismiss(self)

    async def _handshake(self) -> bool:
        try:
            async with asyncio.timeout(self._limits.handshake):
                while isinstance(event := await self._event(None), Step):
                    answer = await local.run(self._context.step, event.token)
                    await turn()
                    established = self._core.stepped(answer)
                    self.channel.flush()
                    if established is not None:
                        self.principal = self._context.principal
                        self._expires = time.time() + self._context.lifetime
                        return True
        except TimeoutError:
            self._reason = f"it did not authenticate within {self._limits.handshake:g} s"
        return False

    async def _converse(self) -> None:
        while not (self._core.state is State.CLOSED or self._stopping or self._reason):
            try:
                event = await self._event(self._limits.idle)
            except TimeoutError:
                self._reason = f"it was idle for {self._limits.idle:g} s"
                return
            if isinstance(event, Closed):
                return
            assert isinstance(event, CommandReceived)
            if self.channel.lost:  # it does not wait for the answers to what it sent ahead
                self._reason = "the client has vanished"
                return
            await self._run(event.words)

    async def _event(self, idle: float | None) -> Event:
        """Wait for the next event; what the core answers by itself is sent on the way.

        Raises:
            TimeoutError: the client said nothing, or took nothing, for so many seconds.
        """
        while True:
            if not self.channel.writing:  # nothing more is begun for a client that does not take what it is sent
                async with asyncio.timeout(idle):
                    await self.channel.drained()
            try:
                event = self._core.next_event()
            finally:
                self.channel.flush()
            if event is NEED_DATA:
                if not self._hold(self._core.receiving):
                    self._core.refuse(ErrorCode.TOOMUCH_DATA, NO_ROOM)
                    continue
                async with asyncio.timeout(idle):
                    await self.channel.drained()
                    await self.channel.received()
            else:
                assert isinstance(event, Step | CommandReceived | Closed)
                return event

    async def _leave(self) -> None:
        """Close the connection, once the client has taken what it was sent."""
        transport = self.channel.transport
        try:
            self.channel.flush()
            transport.close()
            if transport.get_write_buffer_size():
                async with asyncio.timeout(FAREWELL):
                    await self.channel.closed()
        except TimeoutError:
            pass
        finally:
            self.channel.abort()

    # A command

    async def _run(self, words: tuple[bytes, ...]) -> None:
        request = Request(self, words, self.principal or "", self._address, self._expires)
        if logger.isEnabledFor(logging.INFO):
            logger.info("command '%s' of %s from %s", self._server.shown(words), self.principal, self._address)
        size = sum(map(len, words))
        if not self._hold(size if size > MAX_MESSAGE_SIZE else 0):  # for what fits a message there is always room
            self._core.send_error(ErrorCode.TOOMUCH_DATA, NO_ROOM)
            return
        self._running = True
        try:
            try:
                self._core.send_status(await self._answer(request))
            except RemctlCommandError as refusal:
                self._core.send_error(ErrorCode.INTERNAL if refusal.code is None else refusal.code, refusal.reason)
        except (Exception, asyncio.CancelledError) as error:
            assert self.task is not None
            if isinstance(error, asyncio.CancelledError) and self.task.cancelling():
                raise
            logger.exception("the handler failed at the command '%s' of %s", self._server.shown(words), self.principal)
            if self._core.state is not State.CLOSED:  # as it is when GSS-API can protect nothing any more
                self._core.send_error(ErrorCode.INTERNAL, "Internal failure")
        finally:
            self._running = False
            request.done()
            self._hold(0)
        if self._core.cut:
            cut, shown = self._core.cut, self._server.shown(words)
            logger.warning("protocol 1 had no room for %d bytes of output of '%s'", cut, shown)
        self.channel.flush()
        if self._core.buffered:
            await asyncio.sleep(0)  # a client that sends ahead does not keep the others waiting

    async def _answer(self, request: Request) -> int:
        try:
            async with asyncio.timeout(self._limits.run) as limit:
                if not await self._allowed(request):
                    raise RemctlCommandError("Access denied", code=ErrorCode.ACCESS)
                answer = self._server.handler(request)
                if not inspect.isawaitable(answer):
                    raise TypeError(f"a handler is a coroutine function, and this one returned {type(answer).__name__}")
                status = await answer
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"The command was stopped after {self._limits.run:g} s"
            raise RemctlCommandError(text, code=ErrorCode.INTERNAL) from None
        if status is None:
            return 0
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"a handler returns its exit status as int, or None: {status!r}")
        return int(status)

    async def _allowed(self, request: Request) -> bool:
        acl = self._server.acl
        if acl is None:
            return True
        if isinstance(acl, Acl):
            return await permitted(acl, request.principal)
        if not callable(acl):
            return request.principal in acl
        try:
            answer = acl(request)
            return bool(await answer) if inspect.isawaitable(answer) else bool(answer)
        except Exception:
            shown = self._server.shown(request.command)
            logger.exception("the acl failed at the command '%s' of %s", shown, request.principal)
            return False

    def write(self, data: bytes, stream: Stream) -> None:
        """Send output of the command that runs."""
        self._core.send_output(data, stream)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def drain(self) -> None:
        """Wait while the client takes output more slowly than it comes."""
        if self._core.unsent >= COALESCE:
            self.channel.flush()
            await asyncio.sleep(0)
        if self.channel.writing:
            return
        try:
            async with asyncio.timeout(self._limits.idle):
                await self.channel.drained()
        except TimeoutError:
            self.abort(f"it took nothing for {self._limits.idle:g} s")
            await asyncio.sleep(0)  # which is where the cancellation arrives

    def _flush(self) -> None:
        self._flush_due = False
        self.channel.flush()

    def _hold(self, size: int) -> bool:
        """Count so many bytes of a command against what all connections may hold, instead of those before."""
        if not self._server.reserve(size - self._held):
            self._server.reserve(-self._held)
            self._held = 0
            return False
        self._held = size
        return True
