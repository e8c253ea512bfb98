"""The authentication of a new connection: libremctl at one end of a socket pair, the server at the other end of TCP.

libremctl authenticates in one blocking call, which may look for a KDC for minutes and never tells which protocol came
out of it.  So the call runs on a thread against one end of a socket pair, and this side relays: it keeps the time
limit, can be interrupted, and reads the protocol version off the flags of the server's tokens (remctl's protocol.xml,
"Network Protocol").  When the call has succeeded, the TCP connection takes the place of the pair in the descriptor
that libremctl holds.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Final

from remctl import _hints
from remctl._libremctl import ffi, lib
from remctl._waiting import READABLE, Offload, Waiter
from remctl.exceptions import RemctlAuthenticationError, RemctlConnectionError, RemctlProtocolError

HEADER: Final = 5
"""Bytes before a token's payload: one of flags, four of length."""

FLAG_PROTOCOL: Final = 0x40
"""Set on every token by a server of protocol 2 or later."""

_CHUNK: Final = 65536

_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
"""A program may have set SIGPIPE back to its default, which ends the process."""

_TRANSPORT_TROUBLE: Final = ("error receiving", "error sending", "unexpected token")
"""How libremctl begins a text when the connection failed it; all other texts are about GSS-API or the ticket cache."""


class Handshake:
    """One authentication; `run()` does it all.

    Args:
        sock: the TCP connection, in blocking mode.
        r: the libremctl struct, fresh.  While the call is under way it belongs to the thread: see `abandon()`.
        host, principal: C strings, or NULL; libremctl keeps the pointers for as long as the struct lives.
        min_protocol: the lowest protocol version to go on with.
    """

    def __init__(
        self, sock: socket.socket, r: ffi.CData, host: ffi.CData, principal: ffi.CData, min_protocol: int
    ) -> None:
        self._sock = sock
        self._min_protocol = min_protocol
        self._protocol = 2
        self._unparsed = bytearray()
        self._server_ended = False
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._fd = theirs.detach()
        self._started = False
        self._call = Offload(lambda: _open(r, host, self._fd, principal), lambda: lib.quiet_close(r))

    def run(self, waiter: Waiter) -> tuple[int, int]:
        """Authenticate, and return libremctl's descriptor and the protocol version: 1, or 2 for "2 or later".

        Raises:
            RemctlAuthenticationError: GSS-API or the ticket cache refused.
            RemctlConnectionError: the server closed the connection.
            RemctlProtocolError: what answers is no remctl server, or its protocol is below the lowest allowed.
            Expired, Cancelled: see `Waiter.poll`.
        """
        self._started = True
        self._call.start()
        unread = self._relay(waiter)
        if failure := self._call.join(waiter):
            raise self._error(failure)
        if unread or self._unread():
            raise RemctlProtocolError("the server sent something before it was asked for anything")
        os.dup2(self._sock.fileno(), self._fd, inheritable=False)
        self._ours.close()
        return self._fd, self._protocol

    def abandon(self) -> bool:
        """Give the authentication up.  Says whether the thread still has the struct, and will free it at its end."""
        self._ours.close()
        if not self._started:
            os.close(self._fd)
        return self._call.abandon()

    def _relay(self, waiter: Waiter) -> bytes:
        """Carry bytes both ways until libremctl is done; return what the server sent and libremctl did not take."""
        ours, server = self._ours.fileno(), self._sock.fileno()
        to_server = to_library = b""
        while True:
            wanted = {
                ours: (0 if to_server else select.POLLIN) | (select.POLLOUT if to_library else 0),
                server: (0 if to_library or self._server_ended else READABLE) | (select.POLLOUT if to_server else 0),
            }
            ready = waiter.poll({descriptor: events for descriptor, events in wanted.items() if events})
            if to_server and server in ready:
                to_server = to_server[self._send_to_server(to_server) :]
            elif not to_library and server in ready:
                to_library = self._receive_from_server()
            if to_library and ready.get(ours, 0) & select.POLLOUT:
                to_library = to_library[self._send_to_library(to_library) :]
            if not to_server and ready.get(ours, 0) & ~select.POLLOUT:
                to_server = self._receive_from_library()
                if not to_server:
                    return to_library

    def _receive_from_library(self) -> bytes:
        try:
            return self._ours.recv(_CHUNK)
        except ConnectionResetError:
            return b""

    def _send_to_library(self, data: bytes) -> int:
        try:
            return self._ours.send(data, _NO_SIGNAL)
        except OSError:
            return len(data)

    def _send_to_server(self, data: bytes) -> int:
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT | _NO_SIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self._end_of_server()
            return len(data)

    def _receive_from_server(self) -> bytes:
        try:
            data = self._sock.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if data:
            self._inspect(data)
        else:
            self._end_of_server()
        return data

    def _end_of_server(self) -> None:
        self._server_ended = True
        self._ours.shutdown(socket.SHUT_WR)

    def _inspect(self, data: bytes) -> None:
        self._unparsed += data
        while len(self._unparsed) >= HEADER:
            if not self._unparsed[0] & FLAG_PROTOCOL:
                self._protocol = 1
                if self._min_protocol > 1:
                    raise RemctlProtocolError(
                        f"the server, or something between, speaks protocol 1, and min_protocol is {self._min_protocol}"
                    )
            size = HEADER + int.from_bytes(self._unparsed[1:HEADER])
            if len(self._unparsed) < size:
                break
            del self._unparsed[:size]

    def _unread(self) -> bytes:
        """Return what lies in libremctl's end of the pair, once nobody writes to it any more."""
        theirs = socket.socket(fileno=os.dup(self._fd))
        try:
            return theirs.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        finally:
            theirs.close()

    def _error(self, text: str) -> RemctlProtocolError:
        if not text.startswith(_TRANSPORT_TROUBLE):
            return RemctlAuthenticationError(f"authentication failed: {text}", hint=_hints.for_authentication(text))
        if not self._server_ended:
            return RemctlProtocolError(f"authentication failed: {text}", hint="check that a remctl server has this port")
        error = RemctlConnectionError(
            f"the server closed the connection during authentication: {text}", hint="the server's log says why"
        )
        error.errno = errno.ECONNRESET
        return error


def _open(r: ffi.CData, host: ffi.CData, fd: int, principal: ffi.CData) -> str | None:
    """On the thread: authenticate and return None or libremctl's text; either way the pair's other end sees an end."""
    if not lib.quiet_open_fd(r, host, fd, principal):
        return error_text(r)
    theirs = socket.socket(fileno=fd)
    theirs.shutdown(socket.SHUT_WR)
    theirs.detach()
    return None


def error_text(r: ffi.CData) -> str:
    """Return libremctl's text for the struct's last failure; bytes that are no UTF-8 are shown escaped."""
    return ffi.string(lib.remctl_error(r)).decode("utf-8", "backslashreplace")
