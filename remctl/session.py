"""The blocking face: `Remctl`, and beside it the one-shot call `remctl()`.

Both check what they are given and work on a `_remctl.Handle`, which does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from remctl import _arguments
from remctl._arguments import Command
from remctl._connection import Connection
from remctl._face import Face, Word
from remctl._remctl import Handle
from remctl._waiting import Waiter
from remctl.exceptions import RemctlError
from remctl.types import Output, OutputType, RemctlSimpleResult, Result

__all__ = ["Remctl", "Word", "remctl"]

AHEAD: Final = 64
"""Tokens that `stream` takes off the connection at once if they are there; `output`, made for select, takes one."""


def remctl(
    host: str,
    port: int | str | None = None,
    principal: str | None = None,
    command: Iterable[Word] = (),
    *,
    timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    min_protocol: int = 1,
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

    Returns:
        stdout and stderr as bytes, None for a stream that carried nothing, and the exit status, 0 to 255.

    Raises:
        TypeError, ValueError: an argument makes no sense; nothing was sent.
        RemctlConnectionError, RemctlAuthenticationError, RemctlTimeoutError: see there.
        RemctlCommandError: the server refused the command.
        RemctlProtocolError: the root of these four, and what the server said cannot be understood.

    The errors carry the output that had arrived.  The command is sent at most once.  May be called from any thread;
    Ctrl-C ends it at once.
    """
    words = _arguments.check_command(command)
    handle = Handle()
    handle.configure(timeout=timeout, ccache=ccache, source_ip=source_ip, min_protocol=min_protocol)
    server = _arguments.check_server(host, port, principal)
    waiter = Waiter(handle.timeout)
    try:
        handle.open(*server, waiter)
        stdout, stderr, status = handle.run(words, waiter)
    finally:
        handle.close("the call is over")
    return RemctlSimpleResult(stdout or None, stderr or None, status)


class Remctl(Face[Connection]):
    """A session with a server: several commands over one connection.

    Args:
        host, port, principal: as for `open`, which is called with them unless the host is None.
        timeout: as for `set_timeout`.
        ccache: as for `set_ccache`.
        source_ip: as for `set_source_ip`.
        min_protocol: the lowest protocol version to accept: 1 takes every server, 2 refuses the old protocol, which
            has no error codes and into which somebody on the network can force a session, 3 wants `noop()` as well.

    A session is a context manager, which closes it at the end.  A command is sent at most once: a lost connection is
    an error, never a silent new one.  (Protocol 1 ends every connection after one answer; there the next command opens
    the next connection.)  An error that leaves the two sides out of step, and every time limit that passes, closes the
    session; calls after that raise `RemctlNotOpenedError` with the cause, until `open` is called again.

    Threads may share a session.  `run` waits for its turn; `command` raises while another thread's answer is pending,
    and `output` hands no thread that sends commands an answer to somebody else's.  `close` from another thread ends a
    blocked call.  A forked child cannot use the session and does not disturb it.

    Every method that talks to the server can be interrupted with Ctrl-C.
    """

    _NAME = "remctl.Remctl"
    _handle: Handle

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
    ) -> None:
        self._handle = Handle()
        self._handle.configure(timeout=timeout, ccache=ccache, source_ip=source_ip, min_protocol=min_protocol)
        if host is not None:
            self.open(host, port, principal)

    # The connection

    def open(self, host: str, port: int | str | None = None, principal: str | None = None) -> None:
        """Connect and authenticate; an open connection is closed first.

        Args:
            host: the server's name or address.
            port: its TCP port, a number or decimal text; None or 0 tries 4373, then 4444 if that does not connect.
            principal: the server's principal; None is host/HOST in the realm that Kerberos gives the host.

        Raises:
            TypeError, ValueError: an argument makes no sense; nothing was sent.
            RemctlConnectionError: unknown host, no connection, or a lost one.
            RemctlAuthenticationError: GSS-API refused, or the ticket cache is not there.
            RemctlTimeoutError: the time limit passed.
            RemctlProtocolError: what answers is no remctl server, or its protocol is below `min_protocol`.
        """
        self._handle.open(*_arguments.check_server(host, port, principal), self._waiter())

    def close(self) -> None:
        """Close the connection; a call that another thread is blocked in raises `RemctlNotOpenedError`.

        Closing twice is harmless, and `open` may follow.  A session that nobody holds any more is closed by itself.
        """
        self._handle.close("close() was called")

    def fileno(self) -> int:
        """Return the socket's descriptor, for select and poll: readable means that `output()` has work to do.

        Raises:
            RemctlNotOpenedError: no connection is open.
            RemctlError: the server speaks protocol 1, where every command has a connection of its own.
        """
        descriptor = self._connection().fileno()
        if descriptor < 0:
            raise RemctlError("protocol 1 has no connection that lasts")
        return descriptor

    # Commands

    def run(self, words: Iterable[Word], *, timeout: float | None = None, check: bool = False) -> Result:
        """Run a command and return all that it gave back.

        Args:
            words: the command, in a sequence or iterator.
            timeout: seconds for the whole command, the wait for other threads' commands included; None is the
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

        The errors carry the output that had arrived.  Ctrl-C closes the session.
        """
        checked = _arguments.check_command(words)
        limit = self._handle.timeout if timeout is None else _arguments.check_timeout(timeout)
        result = self._handle.run(checked, Waiter(limit))
        return self._handle.opened().checked(result, checked) if check else result

    def stream(self, words: Iterable[Word], *, timeout: float | None = None) -> Iterator[Output]:
        """Run a command and yield its tokens as they come: OUTPUT tokens, and the STATUS token last.

        Args:
            words: the command, in a sequence or iterator.  It is sent when the first token is asked for.
            timeout: seconds for the whole command, from then on; None is the session's limit for each token, 0 is
                without limit.

        Raises:
            TypeError, ValueError: an argument makes no sense; raised by the call itself.
            RemctlError and its classes: as `run`, while iterating.

        Whoever stops before the STATUS token leaves an answer pending: read the rest with `output`, or close.
        """
        checked = _arguments.check_command(words)
        limit = _arguments.check_timeout(timeout)
        return self._stream(checked, timeout is not None, limit)

    def _stream(self, command: Command, limited: bool, limit: float | None) -> Iterator[Output]:
        whole = Waiter(limit) if limited else None
        self._handle.command(command, whole or self._waiter())
        text = b""
        while (token := self._handle.output(whole or self._waiter(), AHEAD)).type is OutputType.OUTPUT:
            text = text or token.output or b""
            yield token
        yield self._handle.last(command, token, text)

    def command(self, words: Iterable[Word]) -> None:
        """Send a command; `output` then returns its answer, token by token.

        Args:
            words: the command, in a sequence or iterator.

        Raises:
            TypeError, ValueError: an argument makes no sense; nothing was sent.
            RemctlNotOpenedError: no connection is open.
            RemctlError: an answer before this one has not been read to its end; nothing was sent.
            RemctlConnectionError, RemctlTimeoutError, RemctlProtocolError: see there; the session is closed.
        """
        self._handle.command(_arguments.check_command(words), self._waiter())

    def output(self) -> Output:
        """Wait for the next token of the answer and return it; after the end of the answer, DONE tokens for ever.

        Raises:
            RemctlNotOpenedError: no connection is open, or `close` was called meanwhile.
            RemctlError: no command has been sent yet, or the answer belongs to another thread's command.
            RemctlConnectionError, RemctlTimeoutError, RemctlProtocolError: see there; the session is closed.

        A wait that Ctrl-C interrupts loses nothing: the next call goes on.
        """
        return self._handle.output(self._waiter())

    def noop(self) -> None:
        """Make a round trip, which keeps an idle connection alive; needs a server of protocol 3 (remctld 3.0 or later).

        Raises:
            RemctlNotOpenedError: no connection is open.
            RemctlError: an answer has not been read to its end; nothing was sent.
            RemctlProtocolError: the server does not speak protocol 3.  After protocol 1 the session goes on, otherwise
                it is closed.
            RemctlConnectionError, RemctlTimeoutError: see there; the session is closed.
        """
        self._handle.noop(self._waiter())

    # Manners

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _waiter(self) -> Waiter:
        return Waiter(self._handle.timeout)
