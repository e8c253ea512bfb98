"""One connection to one server: a TCP socket and the libremctl struct that speaks over it.

Between the binding (`_libremctl`) and the faces (`_remctl`, `session`).  A connection is opened once and closed once,
never opened again: libremctl leaks and confuses descriptors when a struct is reused.  All state of a session is here:
whether an answer is pending, whose it is, and why the connection was closed.

libremctl reads and writes by blocking, so it is only called where it cannot block: for a token that has arrived as a
whole, or with a command that fits the socket's buffer.  Everything else runs on a thread that can be left behind.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import socket
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn, TypeVar

from remctl._arguments import Command
from remctl._connecting import connect
from remctl._handshake import Handshake, error_text
from remctl._libremctl import ffi, lib
from remctl._limits import MAX_V1_COMMAND_SIZE
from remctl._waiting import READABLE, Cancelled, Expired, Job, Waiter
from remctl import _hints
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlConnectionError,
    RemctlError,
    RemctlNotOpenedError,
    RemctlProtocolError,
    RemctlTimeoutError,
)
from remctl.types import DONE, ErrorCode, Output, OutputType, Result, Stream

E = TypeVar("E", bound=RemctlError)

logger = logging.getLogger(__name__)

DIRECT_SIZE: Final = 8192
"""Bytes of a command that a socket which polls as writable takes without blocking."""

HELP_WORDS: Final = 3
"""Words of a help command that remctld takes: past it remctld 3.18 sends an error and then an answer all the same."""

V1_REFUSED: Final = -1
"""The status that comes with the text of an error in protocol 1, and without text when a signal ended the command."""

_STREAMS: Final = (None, Stream.STDOUT, Stream.STDERR)

NOT_OPEN: Final = "no currently open connection"


class Target(NamedTuple):
    """Whom to talk to and how, as `_arguments` has checked it."""

    host: str
    port: int
    principal: str | None
    ccache: str | None
    source_ip: str | None
    min_protocol: int


class Outcome(NamedTuple):
    """What a call on a thread came to."""

    okay: int
    output: ffi.CData


class Spent(Exception):
    """The connection has given its one answer (protocol 1); the command was not sent."""


class Connection:
    """See the module.  Every method may be called from any thread; one works at a time, the others wait.

    Args:
        target: whom to talk to.
        sock: a connected stream socket to use, which the connection then owns; None makes one.
    """

    port: int
    """The port connected to; until then the one asked for, 0 for the defaults."""
    protocol: int
    """The protocol version: 1, 2 ("2 or later", all that the server tells), or 3 once a NOOP was answered; 0 before."""
    pending: bool
    """Whether a command was sent whose answer has not been read to its end."""
    status: int
    """The exit status of the last command that had one, 0 to 255."""
    refused: bool
    """Whether the last answer's status is the one that, in protocol 1, marks its output as the text of an error."""
    closing: bool
    """Whether `close()` was called, perhaps while another thread is in a call."""
    closed: str | None = "it was never opened"
    """Why the connection is closed; None while it is open."""

    def __init__(self, target: Target, sock: socket.socket | None = None) -> None:
        self.target = target
        self.port = target.port
        self.protocol = 0
        self.pending = False
        self.status = 0
        self.refused = False
        self._sock = sock
        self._fd = -1
        self._session = ffi.NULL
        self._job: Handshake | Job | None = None
        self._slot = ffi.new("struct remctl_output **")
        self._collected = ffi.gc(ffi.new("struct answer *"), lib.answer_free)
        self._command: Command | None = None
        self._sent = False
        self._serial = 0
        self._asked = threading.local()
        self._lock = threading.Lock()
        self._holder = 0
        self.closing = False
        self._pid = os.getpid()
        self.closed = None

    # What the faces do with a connection

    def open(self, waiter: Waiter) -> None:
        """Connect and authenticate.  Any failure closes the connection."""
        self._take(waiter)
        try:
            self._open(waiter)
        except BaseException as error:
            self._fail(error, "opening the connection", waiter)
        finally:
            self._drop()
        if self.protocol == 1:
            logger.warning("%s:%d speaks protocol 1: no error codes, no streams apart", self.target.host, self.port)
        if self.target.min_protocol > 2:
            self.noop(waiter)

    def send(self, command: Command, waiter: Waiter) -> None:
        """Send a command, at most once; raises `Spent` when a protocol 1 server has closed after its answer."""
        self._take(waiter)
        try:
            self._send(command, waiter)
        finally:
            self._drop()

    def receive(self, waiter: Waiter) -> Output:
        """Return the next token of the pending answer, or DONE after its end."""
        self._take(waiter)
        try:
            if not self.pending:
                if not self._serial:
                    raise self.with_evidence(RemctlError("output() before any command was sent"))
                return DONE
            if not self._owner(by_default=True):
                raise self.with_evidence(RemctlError("output() while the answer to another thread's command is read"))
            return self._receive(waiter)
        finally:
            self._drop()

    def run(self, command: Command, waiter: Waiter) -> Result:
        """Send a command and collect its answer; nobody comes between.  See `send`."""
        out: list[bytes] = []
        err: list[bytes] = []
        self._take(waiter)
        try:
            self._send(command, waiter)
            refusal = self._collect(waiter, out, err)
        except RemctlError as error:
            error.stdout, error.stderr = b"".join(out), b"".join(err)
            raise
        except BaseException:
            if self.pending and self._owner():
                self._end("the wait for a command's answer was interrupted")
            raise
        finally:
            self._drop()
        stdout, stderr = b"".join(out), b"".join(err)
        if refusal is not None or (self.refused and stdout):
            text, code = (stdout, None) if refusal is None else (refusal.output or b"", refusal.error)
            raise self.refusal(command, text, code, stdout, stderr)
        return Result(stdout, stderr, self.status)

    def noop(self, waiter: Waiter) -> None:
        """Make a round trip; needs a server of protocol 3."""
        self._take(waiter)
        try:
            if self.pending:
                raise self._busy("noop()")
            if self.protocol == 1:
                raise self.with_evidence(RemctlProtocolError("the server speaks protocol 1, which has no NOOP"))
            try:
                if self._spoken():
                    raise self._unquiet()
                if not self._wait_for(lib.job_noop(self._session), waiter).okay:
                    raise self._error("noop() failed")
                self.protocol = 3
            except BaseException as error:
                self._fail(error, "waiting for the answer to a NOOP", waiter)
        finally:
            self._drop()

    def close(self, reason: str) -> None:
        """Close the connection; a call that another thread is blocked in ends at once.  Closing twice is harmless."""
        if os.getpid() != self._pid:
            self._forget()
            return
        self.closing = True
        if not self._lock.acquire(blocking=False):
            if self._holder == threading.get_ident():
                return  # a signal handler, inside a call of this thread, which will see the flag
            self._shutdown()
            self._lock.acquire()
        self._holder = threading.get_ident()
        try:
            self._end(reason)
        finally:
            self._drop()

    def refusal(
        self, command: Command, text: bytes, code: ErrorCode | int | None, stdout: bytes, stderr: bytes
    ) -> RemctlCommandError:
        """Make the error for a command that the server refused."""
        hint = _hints.for_command(code) if code is not None else None
        error = RemctlCommandError(
            text.decode("utf-8", "backslashreplace").rstrip("\n"), stdout=stdout, stderr=stderr, hint=hint
        )
        error.code = code
        return self.with_evidence(error, command)

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when closed."""
        return -1 if self._sock is None else self._sock.fileno()

    def __del__(self) -> None:
        if self.closed is None:
            self.close("nobody held it any more")

    # The state

    def _take(self, waiter: Waiter) -> None:
        if os.getpid() != self._pid:
            raise self.with_evidence(RemctlNotOpenedError(f"{NOT_OPEN}: it belongs to process {self._pid}"))
        waiter.watched = self
        if not self._lock.acquire(blocking=False):
            if self._holder == threading.get_ident():
                raise self.with_evidence(RemctlError("the session is in the middle of a call of this thread"))
            try:
                waiter.acquire(self._lock)
            except Expired:
                raise self.expired(waiter, "another thread used the session") from None
            except Cancelled:
                raise self._not_open() from None
        self._holder = threading.get_ident()
        if self.closed is not None:
            self._drop()
            raise self._not_open()

    def _drop(self) -> None:
        self._holder = 0
        self._lock.release()

    def _not_open(self) -> RemctlNotOpenedError:
        reason = f": {self.closed}" if self.closed else ""
        return self.with_evidence(RemctlNotOpenedError(f"{NOT_OPEN}{reason}"))

    def _busy(self, call: str) -> RemctlError:
        if not self._owner():
            self._asked.serial = 0  # so that this thread does not read another's answer for its own
        return self.with_evidence(RemctlError(f"{call} while the previous command has output left: read it first"))

    def _owner(self, by_default: bool = False) -> bool:
        """Whether the last command is this thread's; of a thread that never asked for one, `by_default` is said."""
        return bool(getattr(self._asked, "serial", self._serial if by_default else 0) == self._serial)

    def _spoken(self) -> bool:
        """Whether the server has said something, or ended, since its last answer."""
        assert self._sock is not None
        poller = select.poll()
        poller.register(self._sock, READABLE)
        return bool(poller.poll(0))

    def _unquiet(self) -> RemctlProtocolError:
        if self._at_end():
            return RemctlConnectionError("the server has closed the connection")
        return RemctlProtocolError("the server sent something nobody asked for, as it does when it ends idle sessions")

    def _at_end(self) -> bool:
        assert self._sock is not None
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _fail(self, error: BaseException, doing: str, waiter: Waiter) -> NoReturn:
        """Close the connection over an error, and raise the typed one that says what happened."""
        if self.closing:
            typed: RemctlError = RemctlNotOpenedError(f"{NOT_OPEN}: it was closed while {doing}")
        elif isinstance(error, RemctlError):
            typed = error
        elif isinstance(error, Expired):
            typed = self.expired(waiter, doing)
        else:
            self._end(f"interrupted while {doing}")
            raise error
        self.with_evidence(typed)
        self._end(typed.reason)
        raise typed from error.__cause__

    def expired(self, waiter: Waiter, doing: str) -> RemctlTimeoutError:
        """Make the error for a time limit that passed."""
        error = RemctlTimeoutError(f"the time limit of {waiter.limit:g} s passed while {doing}")
        error.timeout = waiter.limit
        self.with_evidence(error)
        if error.sent:
            error.hint = "the command may still be running on the server"
        return error

    def with_evidence(self, error: E, command: Command | None = None) -> E:
        """Add to an error whom it concerns, and which command: the one under way, or the one given."""
        error.host = self.target.host
        error.port = self.port or None
        error.principal = self.target.principal
        if command := command or self._command:
            error.command = command.label()
            error.sent = self._sent
        return error

    def _end(self, reason: str) -> None:
        if self.closed is None:
            self.closed = reason
        self._command = None
        job, self._job = self._job, None
        session, self._session = self._session, ffi.NULL
        left_behind = job is not None and job.leave()
        if self.pending or left_behind:
            self._shutdown()  # so that neither a blocked thread nor libremctl's farewell waits for the server
        if session and not left_behind:
            lib.session_free(session)
        if self._sock is not None:
            self._sock.close()

    def _shutdown(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        """In a forked child: let go of the descriptors, and leave the parent's session and libremctl alone."""
        if self.closed is None:
            self.closed = f"it belongs to process {self._pid}"
            if self._sock is not None:
                self._sock.close()
            if self._fd >= 0:
                os.close(self._fd)

    # The wire

    def _open(self, waiter: Waiter) -> None:
        target = self.target
        _check_ccache(target.ccache)
        principal = ffi.NULL if target.principal is None else target.principal.encode()
        self._session = lib.session_new(target.host.encode(), principal)
        if not self._session:
            raise MemoryError
        if target.ccache is not None and not lib.remctl_set_ccache(self._session.r, os.fsencode(target.ccache)):
            raise RemctlAuthenticationError(error_text(self._session))
        self._job = handshake = Handshake(self._session)
        handshake.start()  # so that GSS-API, and perhaps the KDC, are at work while the connection is made
        if self._sock is None:
            self._sock, self.port = connect(target.host, target.port, target.source_ip, waiter)
        self._fd, self.protocol = handshake.run(self._sock, waiter)
        self._job = None
        handshake.leave()
        if self.protocol < min(target.min_protocol, 2):
            raise RemctlProtocolError(
                f"the server, or something between, speaks protocol 1, and min_protocol is {target.min_protocol}"
            )
        logger.debug("connected to %s:%d, protocol %d", target.host, self.port, self.protocol)

    def _send(self, command: Command, waiter: Waiter) -> None:
        if self.pending:
            raise self._busy("command()")
        if self.protocol == 1:
            if self._serial:
                raise Spent
            if command.size > MAX_V1_COMMAND_SIZE:
                raise ValueError(f"command has {command.size} bytes, and protocol 1 takes {MAX_V1_COMMAND_SIZE}")
        self._command = command
        self._serial += 1
        self._asked.serial = self._serial
        self.pending = self._sent = True
        self.refused = False
        try:
            words = command.data, command.lengths, len(command.lengths)
            answer = lib.SEND_FULL
            if command.size <= DIRECT_SIZE and self.protocol > 1:
                answer = lib.session_send(self._session, self._fd, *words)
            elif self._spoken():
                answer = lib.SEND_UNQUIET
            if answer == lib.SEND_UNQUIET:
                self._sent = False
                raise self._unquiet()
            if answer == lib.SEND_FULL:
                answer = self._wait_for(lib.job_send(self._session, *words), waiter).okay
            if not answer:
                raise self._error("the command could not be sent")
        except BaseException as error:
            self._fail(error, "sending the command", waiter)

    def _receive(self, waiter: Waiter) -> Output:
        """Wait for the next token."""
        try:
            answer = lib.TOKEN_AGAIN
            while answer == lib.TOKEN_AGAIN:
                answer = lib.session_next(self._session, self._fd, waiter.milliseconds(), self._slot)
            output = self._slot[0] if answer == lib.TOKEN_TAKEN else self._receive_slowly(answer, waiter)
            if not output:
                raise self._error("the answer could not be read")
        except BaseException as error:
            self._interrupted(error, waiter)
        return self._token(output)

    def _collect(self, waiter: Waiter, out: list[bytes], err: list[bytes]) -> Output | None:
        """Collect an answer to its end; return the error token if it ends in one, else leave its `status`."""
        collected = self._collected
        try:
            while True:
                answer = lib.session_collect(self._session, self._fd, waiter.milliseconds(), collected)
                if collected.out.length:
                    out.append(_take_pieces(collected.out))
                if collected.err.length:
                    err.append(_take_pieces(collected.err))
                if answer == lib.TOKEN_AGAIN:
                    continue
                output = collected.last if answer == lib.TOKEN_TAKEN else self._receive_slowly(answer, waiter)
                if not output:
                    raise self._error("the answer could not be read")
                if output.type == lib.REMCTL_OUT_STATUS:
                    self._ended(output)
                    return None
                token = self._token(output)
                if token.type is OutputType.ERROR:
                    return token
                (err if token.stream is Stream.STDERR else out).append(token.output or b"")
        except BaseException as error:
            self._interrupted(error, waiter)

    def _ended(self, output: ffi.CData) -> None:
        self._command = None
        self.pending = False
        self.status = output.status & 0xFF
        self.refused = output.status == V1_REFUSED and self.protocol == 1

    def _receive_slowly(self, answer: int, waiter: Waiter) -> ffi.CData:
        """Take a token that could not be taken at once."""
        if answer == lib.TOKEN_STUCK:
            return self._wait_for(lib.job_output(self._session), waiter).output
        raise _lost(ffi.errno if answer == lib.TOKEN_FAILED else errno.ECONNRESET)

    def _interrupted(self, error: BaseException, waiter: Waiter) -> NoReturn:
        if self._job is None and not isinstance(error, RemctlError | Expired | Cancelled):
            raise error  # an interrupted wait has taken nothing off the connection
        self._fail(error, "waiting for output", waiter)

    def _token(self, output: ffi.CData) -> Output:
        kind = output.type
        if kind == lib.REMCTL_OUT_OUTPUT:
            return Output(OutputType.OUTPUT, ffi.buffer(output.data, output.length)[:], _STREAMS[output.stream])
        command = self._command
        self._ended(output)
        if kind == lib.REMCTL_OUT_STATUS:
            return Output(OutputType.STATUS, status=self.status)
        token = Output(
            OutputType.ERROR, ffi.buffer(output.data, output.length)[:], error=ErrorCode.lookup(output.error)
        )
        if token.error == ErrorCode.TOOMANY_ARGS and command and _answered_twice(command):
            self._end("remctld answers a help command of so many words twice, and the second answer was not waited for")
        return token

    def _wait_for(self, call: ffi.CData, waiter: Waiter) -> Outcome:
        self._job = job = Job(call)
        answer = job.wait(waiter)
        outcome = Outcome(answer.okay, answer.output)
        self._job = None
        job.leave()
        return outcome

    def _error(self, what: str) -> RemctlError:
        """Make the error for a call that libremctl refused."""
        text = error_text(self._session)
        if self._at_end():
            return RemctlConnectionError(f"{what}: the server has closed the connection")
        if "GSS-API" in text:
            return RemctlAuthenticationError(f"{what}: {text}", hint=_hints.for_authentication(text))
        return RemctlProtocolError(f"{what}: {text}")


def _answered_twice(command: Command) -> bool:
    return command.word(0) == b"help" and len(command.lengths) > HELP_WORDS


def _take_pieces(pieces: ffi.CData) -> bytes:
    data = ffi.buffer(pieces.data, pieces.length)[:]
    pieces.length = 0
    return data


def _lost(code: int) -> RemctlConnectionError:
    error = RemctlConnectionError(f"the connection was lost before the end of the answer: {os.strerror(code)}")
    error.errno = code
    return error


def _check_ccache(name: str | None) -> None:
    """Find out that a ticket cache in the file system is not there before anything is sent."""
    if name is None:
        return
    kind, colon, rest = name.partition(":")
    path = rest if colon and kind in ("FILE", "DIR") else name if not colon or name.startswith("/") else None
    if path is not None and not os.path.exists(path.removeprefix(":")):
        raise RemctlAuthenticationError(f"ccache {name!r} is not there", hint="no ticket: run kinit")
