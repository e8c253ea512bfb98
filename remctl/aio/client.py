"""The asyncio face: `Remctl`, and beside it the one-shot call `remctl()`; the twin of `remctl.session`."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from remctl import _arguments
from remctl._arguments import Command
from remctl._face import Face, Settings, Word
from remctl.aio._connection import Connection
from remctl.aio._deadline import Deadline
from remctl.security import Credentials
from remctl.types import Output, OutputType, RemctlSimpleResult, Result

__all__ = ["Remctl", "remctl"]


async def remctl(
    host: str,
    port: int | str | None = None,
    principal: str | None = None,
    command: Iterable[Word] = (),
    *,
    timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    min_protocol: int = 1,
    credentials: Credentials | None = None,
    sock: socket.socket | None = None,
) -> RemctlSimpleResult:
    """Run one command on a server and return all that it gave back.

    Args:
        host: the server's name or address.
        port: its TCP port, a number or decimal text; None or 0 tries 4373, then 4444 if that does not connect.
        principal: the server's principal; None is host/HOST in the realm that Kerberos gives the host.
        command: the command's words, in a sequence or iterator.
        timeout: seconds for the whole call; None or 0 is without limit.
        ccache: name or path of the ticket cache; None is the default cache.
        source_ip: the local IPv4 or IPv6 address to connect from; None leaves it to the system.
        min_protocol: the lowest protocol version to accept, 1 to 3.
        credentials: whose tickets to use, instead of `ccache`; None is the cache's.
        sock: a connected stream socket to talk over, which the call closes; None connects to host and port.

    Returns:
        stdout and stderr as bytes, None for a stream that carried nothing, and the exit status, 0 to 255.

    Raises:
        TypeError, ValueError: an argument makes no sense; nothing was sent.
        RemctlConnectionError, RemctlAuthenticationError, RemctlTimeoutError: see there.
        RemctlCommandError: the server refused the command.
        RemctlProtocolError: the root of these four, and what the server said cannot be understood.

    The errors carry the output that had arrived.  The command is sent at most once.  Cancelling it closes the
    connection; if the command was sent, it may still be running.
    """
    words = _arguments.check_command(command)
    session = Remctl(
        timeout=timeout, ccache=ccache, source_ip=source_ip, min_protocol=min_protocol, credentials=credentials
    )
    return await session._call(host, port, principal, words, sock)


class Remctl(Face[Connection]):
    """A session with a server: several commands over one connection.

    Args:
        host, port, principal, sock: as for `open`, which `async with` calls with them unless the host is None.
        timeout: as for `set_timeout`.
        ccache: as for `set_ccache`.
        source_ip: as for `set_source_ip`.
        min_protocol: the lowest protocol version to accept: 1 takes every server, 2 refuses the old protocol, which
            has no error codes and into which somebody on the network can force a session, 3 wants `noop()` as well.
        credentials: whose tickets to use, instead of `ccache`; None is the cache's.

    A session is an asynchronous context manager, which opens it at the beginning and closes it at the end.  A command
    is sent at most once: a lost connection is an error, never a silent new one.  (Protocol 1 ends every connection
    after one answer; there the next command opens the next connection.)  An error that leaves the two sides out of
    step, and every time limit that passes, closes the session; calls after that raise `RemctlNotOpenedError` with the
    cause, until `open` is called again.

    Tasks of one event loop may share a session.  `run` waits for its turn; `command` raises while another task's answer
    is pending, and `output` hands no task that sends commands an answer to somebody else's.  `close` from another task
    ends a call that waits.  A forked child cannot use the session and does not disturb it.

    Cancelling `output`, or a call that waits for its turn, loses nothing; cancelling any other call closes the session,
    since the two sides may be out of step, and later calls say so.
    """

    _NAME = "remctl.aio.Remctl"

    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        min_protocol: int = 1,
        credentials: Credentials | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        self._handle = Settings()
        self._handle.configure(timeout=timeout, ccache=ccache, source_ip=source_ip, min_protocol=min_protocol)
        self._credentials = _check_credentials(credentials, ccache)
        if host is None and sock is not None:
            raise ValueError("sock needs a host: it says who is at the other end")
        self._server = None if host is None else (*_arguments.check_server(host, port, principal), _check_socket(sock))

    def set_ccache(self, ccache: str | os.PathLike[str] | None) -> None:
        """See `Face.set_ccache`; a session with credentials has no ticket cache."""
        _check_credentials(self._credentials, ccache)
        super().set_ccache(ccache)

    # The connection

    async def open(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        sock: socket.socket | None = None,
    ) -> None:
        """Connect and authenticate; an open connection is closed first.

        Args:
            host: the server's name or address.
            port: its TCP port, a number or decimal text; None or 0 tries 4373, then 4444 if that does not connect.
            principal: the server's principal; None is host/HOST in the realm that Kerberos gives the host.
            sock: a connected stream socket to talk over, a tunnel's end for example, which the session owns from here
                on; None connects to host and port.

        Raises:
            TypeError, ValueError: an argument makes no sense; nothing was sent.
            RemctlConnectionError: unknown host, no connection, or a lost one.
            RemctlAuthenticationError: GSS-API refused, or the ticket cache is not there.
            RemctlTimeoutError: the time limit passed.
            RemctlProtocolError: what answers is no remctl server, or its protocol is below `min_protocol`.
        """
        if sock is None and self._server is not None and self._server[-1] is not None:
            raise ValueError("sock was given to Remctl(), which `async with` opens")
        await self._open(*_arguments.check_server(host, port, principal), _check_socket(sock), self._deadline())

    async def close(self) -> None:
        """Close the connection; a call that another task waits in raises `RemctlNotOpenedError`.

        Closing twice is harmless, and `open` may follow.
        """
        if self._server is not None and self._server[-1] is not None:
            self._server[-1].close()
        await self._close("close() was called")

    # Commands

    async def run(self, words: Iterable[Word], *, timeout: float | None = None, check: bool = False) -> Result:
        """Run a command and return all that it gave back.

        Args:
            words: the command, in a sequence or iterator.
            timeout: seconds for the whole command, the wait for other tasks' commands included; None is the
                session's limit, 0 is without limit.
            check: whether a status that is not 0 raises.

        Raises:
            TypeError, ValueError: an argument makes no sense; nothing was sent.
            RemctlNotOpenedError: no connection is open, or `close` was called meanwhile.
            RemctlCommandError: the server refused the command; the session goes on.
            RemctlStatusError: `check` is set, and the status is not 0.
            RemctlTimeoutError: the time limit passed; the session is closed, the command may still be running.
            RemctlConnectionError: the connection was lost.
            RemctlError: an answer before this one has not been read to its end.

        The errors carry the output that had arrived.  Cancelling it closes the session, unless it still waits for its
        turn.
        """
        checked = _arguments.check_command(words)
        limit = self._handle.timeout if timeout is None else _arguments.check_timeout(timeout)
        with self._handle.remembered():
            result = await self._handle.opened().run(checked, Deadline(limit))
        return self._handle.opened().checked(result, checked) if check else result

    def stream(self, words: Iterable[Word], *, timeout: float | None = None) -> AsyncIterator[Output]:
        """Run a command and yield its tokens as they come: OUTPUT tokens, and the STATUS token last.

        Args:
            words: the command, in a sequence or iterator.  It is sent when the first token is asked for.
            timeout: seconds for the whole command, from then on; None is the session's limit for each token, 0 is
                without limit.

        Raises:
            TypeError, ValueError: an argument makes no sense; raised by the call itself.
            RemctlError and its classes: as `run`, while iterating.

        Whoever stops before the STATUS token leaves an answer pending: read the rest with `output`, or close.  The same
        goes for a wait that is cancelled.
        """
        checked = _arguments.check_command(words)
        limit = _arguments.check_timeout(timeout)
        return self._stream(checked, timeout is not None, limit)

    async def _stream(self, command: Command, limited: bool, limit: float | None) -> AsyncIterator[Output]:
        whole = Deadline(limit) if limited else None
        with self._handle.remembered():
            connection = self._handle.opened()
            await connection.send(command, whole or self._deadline())
        text = b""
        while (token := await self._next(connection, whole)).type is OutputType.OUTPUT:
            text = text or token.output or b""
            yield token
        with self._handle.remembered():
            last = connection.last(command, token, text)
        yield last

    async def command(self, words: Iterable[Word]) -> None:
        """Send a command; `output` then returns its answer, token by token.

        Args:
            words: the command, in a sequence or iterator.

        Raises:
            TypeError, ValueError: an argument makes no sense; nothing was sent.
            RemctlNotOpenedError: no connection is open.
            RemctlError: an answer before this one has not been read to its end; nothing was sent.
            RemctlConnectionError, RemctlTimeoutError, RemctlProtocolError: see there; the session is closed.

        Cancelling it closes the session.
        """
        checked = _arguments.check_command(words)
        with self._handle.remembered():
            await self._handle.opened().send(checked, self._deadline())

    async def output(self) -> Output:
        """Wait for the next token of the answer and return it; after the end of the answer, DONE tokens for ever.

        Raises:
            RemctlNotOpenedError: no connection is open, or `close` was called meanwhile.
            RemctlError: no command has been sent yet, or the answer belongs to another task's command.
            RemctlConnectionError, RemctlTimeoutError, RemctlProtocolError: see there; the session is closed.

        Cancelling it loses nothing: the next call goes on.
        """
        return await self._next(None, None)

    async def noop(self) -> None:
        """Make a round trip, which keeps an idle connection alive; needs a server of protocol 3 (remctld 3.0 or later).

        Raises:
            RemctlNotOpenedError: no connection is open.
            RemctlError: an answer has not been read to its end; nothing was sent.
            RemctlProtocolError: the server does not speak protocol 3; the session goes on.
            RemctlConnectionError, RemctlTimeoutError: see there; the session is closed.

        Cancelling it closes the session.
        """
        with self._handle.remembered():
            await self._handle.opened().noop(self._deadline())

    # Manners

    async def __aenter__(self) -> Self:
        if self._server is not None and not self.opened:
            await self._open(*self._server, self._deadline())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self, host: str, port: int | str | None, principal: str | None, words: Command, sock: socket.socket | None
    ) -> RemctlSimpleResult:
        """Do what the one-shot call does, all within one time limit."""
        server = _arguments.check_server(host, port, principal)
        deadline = self._deadline()
        try:
            await self._open(*server, _check_socket(sock), deadline)
            stdout, stderr, status = await self._handle.opened().run(words, deadline)
        finally:
            await self._close("the call is over")
        return RemctlSimpleResult(stdout or None, stderr or None, status)

    async def _open(
        self, host: str, port: int, principal: str | None, sock: socket.socket | None, deadline: Deadline
    ) -> None:
        while (before := self._handle.connection) is not None:
            await before.close("open() was called again")
            if self._handle.connection is before:
                break  # and no other task has opened one meanwhile
        target = self._handle.target(host, port, principal)
        credentials = self._credentials
        if credentials is None:
            ccache = target.ccache
            credentials = Credentials.default() if ccache is None else Credentials.from_ccache(ccache)
        self._handle.connection = Connection(target, credentials, sock)
        with self._handle.remembered():
            await self._handle.connection.open(deadline)

    async def _close(self, reason: str) -> None:
        if self._handle.connection is not None:
            await self._handle.connection.close(reason)

    async def _next(self, connection: Connection | None, deadline: Deadline | None) -> Output:
        with self._handle.remembered():
            return await (connection or self._handle.opened()).receive(deadline or self._deadline())

    def _deadline(self) -> Deadline:
        return Deadline(self._handle.timeout)


def _check_credentials(credentials: object, ccache: object) -> Credentials | None:
    if credentials is None:
        return None
    if not isinstance(credentials, Credentials):
        raise TypeError(f"credentials must be remctl.security.Credentials: {credentials!r}")
    if ccache is not None:
        raise ValueError(f"credentials and ccache exclude each other: {credentials!r}, {ccache!r}")
    return credentials


def _check_socket(sock: object) -> socket.socket | None:
    if sock is None:
        return None
    if not isinstance(sock, socket.socket) or type(sock).__module__ == "ssl":
        raise TypeError(f"sock must be a plain socket: {sock!r}")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"sock must be a stream socket: {sock!r}")
    try:
        sock.getpeername()
    except OSError:
        raise ValueError(f"sock must be open and connected: {sock!r}") from None
    sock.setblocking(False)
    return sock
