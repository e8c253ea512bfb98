"""The authentication of a new connection: libremctl at one end of a socket pair, the server at the other end of TCP.

libremctl authenticates in one blocking call, which may look for a KDC for minutes and never tells which protocol came
out of it.  So the call runs on a thread against one end of a socket pair, and this side carries the bytes between the
other end and the server: it keeps the time limit, can be interrupted, and reads the protocol version off the flags of
the server's tokens.  When the call has succeeded, the TCP connection takes the place of the pair in the descriptor
that libremctl holds.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from remctl import _hints
from remctl._libremctl import ffi, lib
from remctl._waiting import Waiter, check_job, succeeded
from remctl.exceptions import RemctlAuthenticationError, RemctlConnectionError, RemctlProtocolError

if TYPE_CHECKING:
    from remctl._libremctl import CData

_TRANSPORT_TROUBLE: Final = ("error receiving", "error sending", "unexpected token")
"""How libremctl begins a text when the connection failed it; all other texts are about GSS-API or the ticket cache."""


class Handshake:
    """One authentication: `start()`, `run()`, and in any case `close()`.

    Args:
        session: the C session, fresh.
    """

    def __init__(self, session: CData) -> None:
        self._session = session
        self._relay = ffi.NULL
        self._ours, self._theirs = socket.socketpair()
        self._fd = self._theirs.fileno()

    def start(self) -> None:
        """Let libremctl begin; what it has to say waits in the pair."""
        check_job(lib.job_open(self._session, self._theirs.detach()))

    def run(self, sock: socket.socket, waiter: Waiter) -> tuple[int, int]:
        """Authenticate over a connection, and put it in the pair's place.

        Args:
            sock: the TCP connection, in blocking mode.
            waiter: the call's patience.

        Returns:
            libremctl's descriptor, and the protocol version: 1, or 2 for "2 or later".

        Raises:
            RemctlAuthenticationError: GSS-API or the ticket cache refused.
            RemctlConnectionError: the server closed the connection.
            RemctlProtocolError: what answers is no remctl server.
            Expired, Cancelled: see `Waiter.poll`.
        """
        self._relay = lib.relay_new(self._ours.fileno(), sock.fileno())
        if not self._relay:
            raise MemoryError
        while lib.relay_step(self._relay, waiter.milliseconds()) == lib.RELAY_AGAIN:
            pass
        if not succeeded(self._session, self._session.job, waiter):
            raise self._error(error_text(self._session))
        if lib.relay_unread(self._relay) or self._unread():
            raise RemctlProtocolError("the server sent something before it was asked for anything")
        os.dup2(sock.fileno(), self._fd, inheritable=False)
        return self._fd, int(lib.relay_protocol(self._relay))

    def close(self) -> None:
        """Be done with it, at its end or before, as long as the session still has its job; twice is harmless."""
        self._ours.close()
        self._theirs.close()
        relay, self._relay = self._relay, ffi.NULL
        if relay:
            lib.relay_free(relay)

    def _unread(self) -> bytes:
        """Return what lies in libremctl's end of the pair, to which nobody writes any more."""
        with socket.socket(fileno=os.dup(self._fd)) as theirs:
            try:
                return theirs.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return b""

    def _error(self, text: str) -> RemctlProtocolError:
        if not text.startswith(_TRANSPORT_TROUBLE):
            return RemctlAuthenticationError(f"authentication failed: {text}", hint=_hints.for_authentication(text))
        if lib.relay_malformed(self._relay) or not lib.relay_server_ended(self._relay):
            return RemctlProtocolError(
                f"authentication failed: {text}", hint="check that a remctl server has this port"
            )
        return RemctlConnectionError(
            f"the server closed the connection during authentication: {text}",
            errno=errno.ECONNRESET,
            hint="the server's log says why",
        )


def error_text(session: CData) -> str:
    """Return libremctl's text for its last failure; bytes that are no UTF-8 are shown escaped."""
    return ffi.string(lib.remctl_error(session.r)).decode("utf-8", "backslashreplace")
