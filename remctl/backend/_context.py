"""What a command's function may ask for: who calls it, and the way to answer while it runs."""

from __future__ import annotations

import socket
from typing import NamedTuple, Protocol

from remctl._arguments import encoded
from remctl.types import Stream


class Caller(NamedTuple):
    """Who runs a command; see the attributes of `Context`."""

    principal: str
    address: str
    host: str | None
    """Empty if it has no name; None if nobody has looked."""
    expires: float | None


class Sink(Protocol):
    """Where output goes."""

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
        """Take output.

        Args:
            data: any number of bytes.
            stream: which of the two streams it belongs to.
            last: whether the command ends with it, and it may travel with the exit status.

        Raises:
            OutputLostError: nobody takes it any more.
        """

    async def drain(self) -> None:
        """Wait until there is room for more."""


class Context:
    """Who calls a command, and the way to answer while it runs.

    A function that has a parameter annotated with `Context` gets it.  It is for that one call.
    """

    __slots__ = ("_caller", "_sink", "command")

    command: tuple[str, ...]
    """The words that chose the command: ("account", "create").  The first is the command word of remctl."""

    def __init__(self, command: tuple[str, ...], caller: Caller, sink: Sink) -> None:
        self.command = command
        self._caller = caller
        self._sink = sink

    @property
    def principal(self) -> str:
        """Who calls, as the KDC vouches: user@REALM (REMOTE_USER); empty when the program is run by hand."""
        return self._caller.principal

    @property
    def address(self) -> str:
        """The caller's IP address (REMOTE_ADDR); empty where there is none."""
        return self._caller.address

    @property
    def host(self) -> str | None:
        """The name of the caller's host, if its address has one (REMOTE_HOST).  The caller controls it: for logs only.

        A server in the program looks it up here, which may wait for a name service: in a coroutine function, ask
        for it on a thread.
        """
        if self._caller.host is not None or not self._caller.address:
            return self._caller.host or None
        try:
            return socket.getnameinfo((self._caller.address, 0), socket.NI_NAMEREQD)[0]
        except (OSError, UnicodeError):
            return None

    @property
    def expires(self) -> float | None:
        """When the caller's ticket ends, in seconds since the epoch (REMOTE_EXPIRES); None where there is no ticket."""
        return self._caller.expires

    def write(self, data: str | bytes | bytearray | memoryview, stream: Stream = Stream.STDOUT) -> None:
        """Send output; it is on its way at once.

        Args:
            data: any number of bytes, or a text, which is sent as UTF-8; nothing is added to it.
            stream: which of the two streams it belongs to.

        Raises:
            TypeError, ValueError: the data is neither, or there is no such stream.
            OutputLostError: nobody takes it any more.

        In a blocking function it waits while the caller takes output more slowly than it comes, and may be called from
        any thread.  A coroutine function calls it in the event loop, and awaits `drain` now and then.
        """
        self._sink.write(as_bytes(data), Stream(stream))

    def finish(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send the last output, to standard output; see `write`."""
        self._sink.write(as_bytes(data), Stream.STDOUT, last=True)

    async def drain(self) -> None:
        """In a coroutine function: wait while the caller takes output more slowly than it comes."""
        await self._sink.drain()

    def __repr__(self) -> str:
        return f"<remctl.backend.Context of {' '.join(self.command)!r} for {self.principal or 'somebody'}>"


def as_bytes(data: object) -> bytes:
    """Return what a function writes as it is sent."""
    if isinstance(data, str):
        return encoded(data)
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"data must be bytes or str, and is {type(data).__name__}")
