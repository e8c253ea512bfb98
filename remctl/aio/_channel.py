"""Between asyncio's transports and the protocol core: bytes to and fro, and how to wait for them.

Client and server each put one round their core.  There is one reader at a time, and any number of writers.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final, cast
from weakref import WeakKeyDictionary

from remctl.protocol.base import BaseConnection

READ_AHEAD: Final = 128 * 1024
"""Bytes that may lie unread in the core before the transport stops reading; the other side then waits."""

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)

_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)


class Channel(asyncio.BufferedProtocol):
    """Carries bytes between a transport and a core.

    Args:
        core: the connection's state machine.
        made: called when the transport is there.
        gone: called when the other side has ended the connection.
    """

    transport: asyncio.Transport
    lost: bool
    """Whether the connection has ended."""
    writing: bool
    """Whether the transport takes more; if not, the other side does not read as fast."""

    def __init__(
        self,
        core: BaseConnection,
        made: Callable[[], None] = lambda: None,
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self.lost = False
        self.writing = True
        self._core = core
        self._made = made
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._buffer = _buffer_of(self._loop)
        self._reader: asyncio.Future[None] | None = None
        self._writers: set[asyncio.Future[None]] = set()
        self._enough: Callable[[], bool]
        self._reading = True
        self._closed: asyncio.Future[None] = self._loop.create_future()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        if self.sock.family in _INTERNET:  # asyncio does so for sockets that say they are TCP's; accepted ones do not
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._made()

    def get_buffer(self, _: int) -> memoryview:
        """Lend the buffer that all channels of the loop read into."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """Feed the core; stop reading when it has plenty."""
        self._core.receive_data(self._buffer[:size])
        if self._core.buffered > READ_AHEAD and self._reading:
            self._reading = False
            self.transport.pause_reading()
        self._wake()
        self._wake_writers()

    def eof_received(self) -> None:
        """Tell the core; the transport closes by itself."""
        self._end(errno.ECONNRESET)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the core, and whoever waits."""
        self._end(getattr(error, "errno", None) or errno.ECONNRESET)
        self._wake_writers()
        if not self._closed.done():
            self._closed.set_result(None)
        self._gone = self._made = lambda: None  # they refer back to whoever made this

    def pause_writing(self) -> None:
        """Hold whoever writes: the other side does not read as fast."""
        self.writing = False

    def resume_writing(self) -> None:
        """Let them go on."""
        self.writing = True
        self._wake_writers()

    # What the faces call

    async def received(self, enough: Callable[[], bool] = lambda: True) -> None:
        """Wait until something more has come, or the connection has ended.  Cancelling it loses nothing.

        Args:
            enough: called each time that something has come, without a round of the event loop in between; the wait
                goes on until it returns True.  What it raises is raised here.
        """
        if self.lost:
            return
        self._resume()
        self._enough = enough
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def flush(self) -> None:
        """Hand what the core has to send to the transport."""
        if (data := self._core.data_to_send()) and not self.transport.is_closing():
            self.transport.write(data)

    async def drained(self, *, or_received: bool = False) -> None:
        """Wait until the transport takes more, or the connection has ended.  Cancelling it loses nothing.

        Args:
            or_received: whether to go on as well when the other side has said something.
        """
        while not (self.writing or self.lost or (or_received and self._core.buffered)):
            writer = self._loop.create_future()
            self._writers.add(writer)
            try:
                await writer
            finally:
                self._writers.discard(writer)

    def acknowledge(self) -> None:
        """Have the answer to what was just sent acknowledged at once.

        remctld sends output and exit status in two small writes, the second of which waits for the first one's
        acknowledgement: 40 ms, unless the system is told each time not to delay it.
        """
        if _QUICKACK is not None:
            sock = self.sock
            if sock.family in _INTERNET and not self.lost:
                sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def close(self, *, farewell: bool) -> None:
        """Close the connection at once; a farewell is sent if the system takes it without waiting."""
        if farewell and not self.transport.get_write_buffer_size():
            self.flush()
        if farewell and not self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection, if it is still there: a transport that has closed by itself cannot be asked to."""
        if not self._closed.done():
            self.transport.abort()

    async def closed(self) -> None:
        """Wait until the transport is gone."""
        await asyncio.shield(self._closed)

    @property
    def sock(self) -> socket.socket:
        """The socket, for options and poll."""
        sock: socket.socket = self.transport.get_extra_info("socket")
        return sock

    def _end(self, reason: int) -> None:
        if not self.lost:
            self.lost = True
            self._core.receive_eof(reason)
            self._wake()
            self._gone()

    def _wake(self) -> None:
        if self._reader is None or self._reader.done():
            return
        try:
            enough = self._enough()
        except Exception as error:
            self._reader.set_exception(error)
            return
        if enough or self.lost:
            self._reader.set_result(None)
        else:
            self._resume()

    def _wake_writers(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)

    def _resume(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()


_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Return the loop's buffer: between reading into it and feeding the core nothing else runs."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(READ_AHEAD))
    return buffer
