"""Commands and tokens on their way: a TCP connection, and libremctl's side of the protocol over it.

Below `_connection`, which says who may use it and when; one thread at a time does.

libremctl reads and writes by blocking, so it is only called where it cannot block: for a token that has arrived as a
whole, or with a command that fits the socket's buffer.  Everything else runs on a thread that can be left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Final

from remctl import _hints
from remctl._arguments import Command
from remctl._connecting import connect
from remctl._connection_base import Target
from remctl._handshake import Handshake, error_text
from remctl._libremctl import ffi, lib
from remctl._waiting import HANGUP, READABLE, Waiter, check_job, succeeded, wait_for
from remctl.exceptions import (
    ENDED,
    LOST,
    UNASKED,
    RemctlAuthenticationError,
    RemctlConnectionError,
    RemctlError,
    RemctlProtocolError,
)
from remctl.types import V1_REFUSED, ErrorCode, Output, OutputType, Stream

if TYPE_CHECKING:
    from remctl._libremctl import CData

DIRECT_SIZE: Final = 8192
"""Bytes of a command that a socket which polls as writable takes without blocking."""

_UNREADABLE: Final = "the answer could not be read"

_STREAMS: Final = (None, Stream.STDOUT, Stream.STDERR)


class Wire:
    """See the module.

    Args:
        target: whom to talk to.
        sock: a connected stream socket to use, which the wire then owns; None makes one.
    """

    port: int
    """The port connected to; until then the one asked for, 0 for the defaults."""
    protocol: int
    """The protocol version: 1, 2 ("2 or later", all that the server tells), or 3 once a NOOP was answered; 0 before."""
    refused: bool
    """Whether the last status is the one that, in protocol 1, marks the output before it as the text of an error."""

    def __init__(self, target: Target, sock: socket.socket | None) -> None:
        self.port = target.port
        self.protocol = 0
        self.refused = False
        self._target = target
        self._sock = sock
        self._theirs = -1
        self._session = ffi.NULL
        self._handshake: Handshake | None = None
        self._tokens: list[Output] = []
        self._slot = ffi.new("struct remctl_output **")
        self._batch = ffi.gc(ffi.new("struct batch *"), lib.batch_free)
        self._collected = ffi.gc(ffi.new("struct answer *"), lib.answer_free)

    def open(self, waiter: Waiter) -> None:
        """Connect and authenticate."""
        target = self._target
        target.check_ccache()
        self._session = self._new_session()
        given = self._sock is not None
        self._handshake = Handshake(self._session)
        self._handshake.start()  # so that GSS-API, and perhaps the KDC, are at work while the connection is made
        if self._sock is None:
            self._sock, self.port = connect(target.host, target.port, target.source_ip, waiter)
        self._theirs, self.protocol = self._handshake.run(self._sock, waiter)
        self._handshake.close()
        if self.protocol < min(target.min_protocol, 2):
            raise RemctlProtocolError(
                f"the server, or something between, speaks protocol 1, and min_protocol is {target.min_protocol}"
            )
        if self.protocol == 1 and not given:
            self._leave_it_to_libremctl(waiter)
        else:
            lib.prepare_socket(self.fileno())

    def _new_session(self) -> CData:
        target = self._target
        principal = ffi.NULL if target.principal is None else target.principal.encode()
        session = lib.session_new(target.host.encode(), principal)
        if not session:
            raise MemoryError
        if target.ccache is not None and not lib.remctl_set_ccache(session.r, os.fsencode(target.ccache)):
            error = RemctlAuthenticationError(error_text(session))
            lib.session_free(session)
            raise error
        return session

    def _leave_it_to_libremctl(self, waiter: Waiter) -> None:
        """Let libremctl connect by itself: in protocol 1 it hands out no exit status over a connection of others.

        It then makes a new connection for each further command, as protocol 1 demands.
        """
        self.close(in_step=True)
        self._sock, self._theirs, self._handshake = None, -1, None
        self._session = self._new_session()
        if self._target.source_ip is not None:
            lib.remctl_set_source_ip(self._session.r, self._target.source_ip.encode())
        if not succeeded(self._session, lib.job_connect(self._session, self.port), waiter):
            raise RemctlConnectionError(f"connecting with protocol 1 failed: {error_text(self._session)}")

    def send(self, command: Command, waiter: Waiter) -> None:
        """Send a command.

        Raises:
            NothingSent: the server has ended, or is out of step; the command did not leave.
            RemctlProtocolError: the command may have left in part.
            Expired, Cancelled: see `Waiter.poll`.
        """
        words = b"".join(command.words), list(map(len, command.words)), len(command.words)
        answer = lib.SEND_FULL
        if command.size <= DIRECT_SIZE and self.protocol > 1:
            answer = lib.session_send(self._session, self.fileno(), *words)
        elif self.protocol > 1 and self._spoken():
            answer = lib.SEND_UNQUIET
        if answer == lib.SEND_UNQUIET:
            raise NothingSent(self._unquiet())
        if answer == lib.SEND_FULL:
            answer = self._wait_for_send(lib.job_send(self._session, *words), waiter)
        if not answer:
            raise self._error("the command could not be sent")

    def _wait_for_send(self, job: CData, waiter: Waiter) -> bool:
        """Wait until a command is sent; a server that ends meanwhile may never make room for the rest of it."""
        check_job(job)
        if self._sock is not None:
            ready = waiter.poll({job.finished: select.POLLIN, self.fileno(): HANGUP})
            if job.finished not in ready:
                self.shutdown()
        return succeeded(self._session, job, waiter)

    def receive(self, waiter: Waiter, ahead: int = 1) -> Output:
        """Wait for the next token.  Whatever interrupts this, no token is lost: the next call returns it.

        Args:
            waiter: the call's patience.
            ahead: how many tokens may be taken off the connection at once, if they are there already.
        """
        if not self._tokens:
            self._fill(waiter, ahead)
        tokens = self._tokens
        token = tokens[0]
        del tokens[0]
        return token

    def collect(self, waiter: Waiter, out: list[bytes], err: list[bytes]) -> Output:
        """Wait for the token that ends the answer, and collect the output before it."""
        collected, slot, fd = self._collected, self._slot, self.fileno()
        while True:
            if self.protocol > 1:
                answer = lib.session_collect(self._session, fd, waiter.milliseconds(), collected, slot)
                if collected.out.length:
                    out.append(_take_pieces(collected.out))
                if collected.err.length:
                    err.append(_take_pieces(collected.err))
                if answer == lib.TOKEN_AGAIN:
                    continue
                if answer == lib.TOKEN_TAKEN:
                    if not slot[0]:
                        raise self._error(_UNREADABLE)
                    token = self._token(slot[0])
                    slot[0] = ffi.NULL
                    return token
            token = self.receive(waiter)
            if token.type is not OutputType.OUTPUT:
                return token
            (err if token.stream is Stream.STDERR else out).append(token.output or b"")

    def noop(self, waiter: Waiter) -> None:
        """Make a round trip."""
        if self._spoken():
            raise self._unquiet()
        if not succeeded(self._session, lib.job_noop(self._session), waiter):
            raise self._error("noop() failed")
        self.protocol = 3

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when closed."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def blocked(self) -> bool:
        """Whether a call on a thread is under way, so that the connection cannot go on without its end."""
        return bool(self._session and self._session.job)

    # The end

    def close(self, *, in_step: bool) -> None:
        """Close the connection; with a farewell to the server, unless the two sides are out of step."""
        session, self._session = self._session, ffi.NULL
        if self._handshake is not None:
            self._handshake.close()
        left_behind = bool(session) and lib.session_leave(session)
        if left_behind or not in_step:
            self.shutdown()  # so that neither a blocked thread nor libremctl's farewell waits for the server
        if session and not left_behind:
            lib.session_free(session)
        if self._sock is not None:
            self._sock.close()

    def shutdown(self) -> None:
        """End the connection under whoever uses it; may be called from any thread."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """In a forked child: let go of the descriptors, and leave the parent's connection and libremctl alone."""
        if self._sock is not None:
            self._sock.close()
        if self._theirs >= 0:
            os.close(self._theirs)

    # Tokens and errors

    def _fill(self, waiter: Waiter, ahead: int) -> None:
        """Wait for tokens, and put them into `_tokens`."""
        batch, slot = self._batch, self._slot
        if not (batch.count or slot[0] or batch.failed):
            self._take(waiter, ahead)
        tokens = []
        position = 0
        for number in range(batch.count):
            length = batch.lengths[number]
            data = ffi.buffer(batch.data.data + position, length)[:]
            tokens.append(Output(OutputType.OUTPUT, data, _STREAMS[batch.streams[number]]))
            position += length
        if slot[0]:
            tokens.append(self._token(slot[0]))
        elif not tokens:
            raise self._error(_UNREADABLE)
        # Nothing can interrupt between these, so that no token is lost or there twice.
        self._tokens = tokens
        batch.count = 0
        slot[0] = ffi.NULL

    def _take(self, waiter: Waiter, ahead: int) -> None:
        batch, slot = self._batch, self._slot
        answer = lib.TOKEN_AGAIN if self.protocol > 1 else lib.TOKEN_STUCK  # libremctl has the connection to itself
        while answer == lib.TOKEN_AGAIN:
            answer = lib.session_take(self._session, self.fileno(), waiter.milliseconds(), ahead, batch, slot)
        if answer == lib.TOKEN_STUCK:
            slot[0] = wait_for(lib.job_output(self._session), waiter).output
            lib.session_leave(self._session)
        elif answer != lib.TOKEN_TAKEN:
            code = ffi.errno if answer == lib.TOKEN_FAILED else errno.ECONNRESET
            raise RemctlConnectionError(f"{LOST}: {os.strerror(code)}", errno=code)

    def _token(self, output: CData) -> Output:
        kind = output.type
        if kind == lib.REMCTL_OUT_STATUS:
            self.refused = output.status == V1_REFUSED and self.protocol == 1
            return Output(OutputType.STATUS, None, None, output.status & 0xFF)
        text = ffi.buffer(output.data, output.length)[:]
        if kind == lib.REMCTL_OUT_OUTPUT:
            return Output(OutputType.OUTPUT, text, _STREAMS[output.stream])
        return Output(OutputType.ERROR, text, error=ErrorCode.lookup(output.error & 0xFFFFFFFF))

    def _spoken(self) -> bool:
        """Whether the server has said something, or ended, since its last answer."""
        poller = select.poll()
        poller.register(self.fileno(), READABLE)
        return bool(poller.poll(0))

    def _unquiet(self) -> RemctlProtocolError:
        if self._at_end():
            return RemctlConnectionError(ENDED)
        return RemctlProtocolError(UNASKED)

    def _at_end(self) -> bool:
        if self._sock is None:
            return False
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _error(self, what: str) -> RemctlError:
        """Make the error for a call that libremctl refused."""
        text = error_text(self._session)
        if self._at_end():
            return RemctlConnectionError(f"{what}: {ENDED}")
        if "GSS-API" in text:
            return RemctlAuthenticationError(f"{what}: {text}", hint=_hints.for_authentication(text))
        return RemctlProtocolError(f"{what}: {text}")


class NothingSent(Exception):
    """A command was not sent, because of the error that is the one argument."""


def _take_pieces(pieces: CData) -> bytes:
    data: bytes = ffi.buffer(pieces.data, pieces.length)[:]
    pieces.length = 0
    return data
