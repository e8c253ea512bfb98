"""A `Backend` as the handler of a server: coroutine functions run in the event loop, blocking ones on threads.

Between `backend`, which knows nothing of asyncio, and `server`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Final

from remctl.aio._offload import Threads
from remctl.aio._served import Request, permitted
from remctl.backend import Backend, Context, OutputLostError, UsageError
from remctl.backend._command import Command
from remctl.backend._context import Caller
from remctl.backend._running import execute, execute_async, failed
from remctl.exceptions import RemctlCommandError
from remctl.types import ErrorCode, Stream

logger = logging.getLogger(__name__)

AHEAD: Final = 256 * 1024
"""Bytes of output that a function on a thread may be ahead of its client."""

CHUNK: Final = 64 * 1024
"""Bytes that are encrypted at once, while the other connections wait."""

GONE: Final = "the client has vanished, or the command was stopped"


class BackendHandler:
    """Runs the commands of a backend.

    Args:
        backend: the commands.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = Threads(backend.threads)

    def shown(self, words: Sequence[bytes]) -> str:
        """Return a command as logs show it."""
        return self._backend.shown(words)

    async def __call__(self, request: Request) -> int:
        """Run a command.

        Raises:
            RemctlCommandError: the caller may not run it.
        """
        caller = Caller(request.principal, request.address, None, request.expires)
        try:
            command, words = self._backend.find_command(request.command, request.principal)
        except UsageError as error:
            return failed(error, "", Context((), caller, _LoopSink(request)))
        if not await permitted(command.acl, request.principal):
            raise RemctlCommandError("Access denied", code=ErrorCode.ACCESS)
        if command.asynchronous:
            return await self._in_loop(command, words, caller, request)
        return await self._on_thread(command, words, caller, request)

    async def _in_loop(self, command: Command, words: Sequence[bytes], caller: Caller, request: Request) -> int:
        sink = _LoopSink(request)
        try:
            status = await execute_async(command, words, Context(command.path, caller, sink))
            await sink.drain()
            return status
        finally:
            sink.cancel()

    async def _on_thread(self, command: Command, words: Sequence[bytes], caller: Caller, request: Request) -> int:
        sink = _ThreadSink(request)
        running = False

        def run() -> int:
            nonlocal running
            running = True
            try:
                return execute(command, words, Context(command.path, caller, sink))
            finally:
                running = False

        result = self._threads.submit(run)
        try:
            status = await result
            await sink.finish()
            return status
        finally:
            sink.cancel()
            if running:
                logger.warning("the function of '%s' goes on for nobody, until it writes or ends", command.name)


class _LoopSink:
    """Takes the output of a coroutine function, in the event loop.

    Little is sent at once.  What takes long to encrypt is sent in parts by a task, and all that follows goes behind it.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._kept: list[tuple[bytes, Stream]] = []
        self._sender: asyncio.Task[None] | None = None

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:  # noqa: ARG002
        """Send output."""
        if self._sender is not None and self._sender.done():
            _check(self._sender)
            self._sender = None
        if self._sender is not None or len(data) > CHUNK:
            self._kept.append((data, stream))
            self._sender = self._sender or asyncio.get_running_loop().create_task(self._send())
            return
        try:
            self._request.write(data, stream)
        except RuntimeError as error:
            raise OutputLostError(str(error)) from None

    async def drain(self) -> None:
        """Wait until all is sent, and the client takes more."""
        while (sender := self._sender) is not None:
            await asyncio.wait([sender])
            _check(sender)
            if self._sender is sender:  # and no other task of the function has written meanwhile
                self._sender = None
        await self._request.drain()

    def cancel(self) -> None:
        """Send nothing more."""
        if self._sender is not None:
            self._sender.cancel()

    async def _send(self) -> None:
        while self._kept:
            await self._request.send(*self._kept.pop(0))


def _check(sender: asyncio.Task[None]) -> None:
    if sender.cancelled():
        raise OutputLostError(GONE)
    if (error := sender.exception()) is not None:
        raise OutputLostError(str(error)) from error


class _ThreadSink:
    """Takes the output of a function on a thread, and hands it to the event loop."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._room = threading.Condition(threading.Lock())
        self._kept: list[tuple[bytes, Stream]] = []
        self._size = 0
        self._cancelled = False
        self._sender: asyncio.Task[None] | None = None

    # On the thread

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
        """Take output; wait while the client is far behind."""
        with self._room:
            self._room.wait_for(lambda: self._size < AHEAD or self._cancelled)
            if self._cancelled:
                raise OutputLostError(GONE)
            first = not self._kept
            self._kept.append((data, stream))
            self._size += len(data)
        if first and not last:
            self._loop.call_soon_threadsafe(self._begin)

    async def drain(self) -> None:
        """There is room: writing has waited for it."""

    # In the event loop

    async def finish(self) -> None:
        """Send all that was written."""
        if self._sender is not None:
            await self._sender
        await self._send()

    def cancel(self) -> None:
        """Have writing fail from now on."""
        with self._room:
            self._cancelled = True
            self._room.notify_all()
        if self._sender is not None:
            self._sender.cancel()

    def _begin(self) -> None:
        """Send what was written, while the function goes on."""
        if not self._cancelled and (self._sender is None or self._sender.done()):
            self._sender = self._loop.create_task(self._send())
            self._sender.add_done_callback(self._sent)

    async def _send(self) -> None:
        while self._kept:
            with self._room:
                kept, self._kept = self._kept, []
            for data, stream in kept:
                await self._request.send(data, stream)
                with self._room:
                    self._size -= len(data)
                    self._room.notify_all()

    def _sent(self, sender: asyncio.Task[None]) -> None:
        """Let nobody wait for room that there will not be."""
        if sender.cancelled() or sender.exception() is not None:
            self.cancel()
