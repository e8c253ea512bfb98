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
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn, TypeVar

from remctl._arguments import Words
from remctl._connecting import connect
from remctl._handshake import HEADER, Handshake, error_text
from remctl._libremctl import ffi, lib
from remctl._limits import MAX_V1_COMMAND_SIZE, command_size
from remctl._waiting import READABLE, Cancelled, Expired, Offload, Waiter
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
from remctl.types import DONE, ErrorCode, Output, OutputType, Stream

E = TypeVar("E", bound=RemctlError)
T = TypeVar("T")

logger = logging.getLogger(__name__)

DIRECT_SIZE: Final = 8192
"""Bytes of a command that a socket which polls as writable takes without blocking."""

HELP_WORDS: Final = 3
"""Words of a help command that remctld takes: past it remctld 3.18 sends an error and then an answer all the same."""

V1_REFUSED: Final = -1
"""The status that comes with the text of an error in protocol 1, and without text when a signal ended the command."""

_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)

_STREAMS: Final = (None, Stream.STDOUT, Stream.STDERR)

_NOT_OPEN: Final = "no currently open connection"


class Target(NamedTuple):
    """Whom to talk to and how, as `_arguments` has checked it."""

    host: str
    port: int
    principal: str | None
    ccache: str | None
    source_ip: str | None
    min_protocol: int


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
    refused: bool
    """Whether the last answer, in protocol 1, was the text of an error."""
    closed: str | None = "it was never opened"
    """Why the connection is closed; None while it is open."""

    def __init__(self, target: Target, sock: socket.socket | None = None) -> None:
        self.target = target
        self.port = target.port
        self.protocol = 0
        self.pending = False
        self.refused = False
        self.closed = None
        self._sock = sock
        self._fd = -1
        self._r = ffi.NULL
        self._job: Handshake | Offload[int] | Offload[ffi.CData] | None = None
        self._host = ffi.new("char[]", target.host.encode())
        self._principal = ffi.new("char[]", target.principal.encode()) if target.principal else ffi.NULL
        self._slot = ffi.new("struct remctl_output **")
        self._words: Words = ()
        self._got_output = False
        self._sent = False
        self._serial = 0
        self._asked = threading.local()
        self._lock = threading.Lock()
        self._holder = 0
        self._closing = False
        self._pid = os.getpid()

    # What the faces do with a connection

    def open(self, waiter: Waiter) -> None:
        """Connect and authenticate.  Any failure closes the connection."""
        self._take(waiter)
        try:
            _check_ccache(self.target.ccache)
            if self._sock is None:
                self._sock, self.port = connect(self.target.host, self.target.port, self.target.source_ip, waiter)
            self._authenticate(waiter)
        except BaseException as error:
            self._fail(error, "opening the connection", waiter)
        finally:
            self._drop()
        if self.protocol == 1:
            logger.warning("%s:%d speaks protocol 1: no error codes, no streams apart", self.target.host, self.port)
        if self.target.min_protocol > 2:
            self.noop(waiter)

    def send(self, words: Words, waiter: Waiter) -> None:
        """Send a command, at most once."""
        self._take(waiter)
        try:
            self._check_idle("command()")
            if self.protocol == 1 and command_size(words) > MAX_V1_COMMAND_SIZE:
                raise ValueError(f"command has {command_size(words)} bytes, and protocol 1 takes {MAX_V1_COMMAND_SIZE}")
            self._words, self._sent = words, False
            try:
                self._write(waiter)
            except BaseException as error:
                self._fail(error, "sending the command", waiter)
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
            try:
                return self._read(waiter)
            except BaseException as error:
                ours = isinstance(error, RemctlError | Expired | Cancelled)
                if not ours and self._job is None:
                    raise  # an interrupted wait has taken nothing off the connection
                self._fail(error, "waiting for output", waiter)
        finally:
            self._drop()

    def noop(self, waiter: Waiter) -> None:
        """Make a round trip; needs a server of protocol 3."""
        self._take(waiter)
        try:
            self._check_idle("noop()")
            if self.protocol == 1:
                raise self.with_evidence(RemctlProtocolError("the server speaks protocol 1, which has no NOOP"))
            try:
                self._check_quiet()
                if not self._on_thread(lib.quiet_noop, waiter):
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
        self._closing = True
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

    def give_up(self, reason: str) -> None:
        """Close the connection if this thread's command is unanswered, so that nobody takes the rest for an answer."""
        if self.pending and self._owner():
            self.close(reason)

    def refusal(
        self, words: Words, text: bytes, code: ErrorCode | int | None, stdout: bytes, stderr: bytes
    ) -> RemctlCommandError:
        """Make the error for a command that the server refused."""
        hint = _hints.for_command(code) if code is not None else None
        error = RemctlCommandError(
            text.decode("utf-8", "backslashreplace").rstrip("\n"), stdout=stdout, stderr=stderr, hint=hint
        )
        error.code = code
        return self.with_evidence(error, words)

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when closed."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def spent(self) -> bool:
        """Whether a further command needs a further connection, as in protocol 1."""
        return self.protocol == 1 and self._serial > 0 and not self.pending

    def __del__(self) -> None:
        if self.closed is None:
            self.close("nobody held it any more")

    # The state

    def _take(self, waiter: Waiter) -> None:
        if os.getpid() != self._pid:
            raise self.with_evidence(RemctlNotOpenedError(f"{_NOT_OPEN}: it belongs to process {self._pid}"))
        waiter.cancelled = self._is_closing
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

    def _is_closing(self) -> bool:
        return self._closing

    def _not_open(self) -> RemctlNotOpenedError:
        reason = f": {self.closed}" if self.closed else ""
        return self.with_evidence(RemctlNotOpenedError(f"{_NOT_OPEN}{reason}"))

    def _check_idle(self, call: str) -> None:
        if self.pending:
            if not self._owner():
                self._asked.serial = 0  # so that this thread does not read another's answer for its own
            raise self.with_evidence(RemctlError(f"{call} while the previous command has output left: read it first"))

    def _owner(self, by_default: bool = False) -> bool:
        """Whether the last command is this thread's; of a thread that never asked for one, `by_default` is said."""
        return bool(getattr(self._asked, "serial", self._serial if by_default else 0) == self._serial)

    def _check_quiet(self) -> bool:
        """Make sure that the server has said nothing since the last answer; say whether the socket takes data."""
        assert self._sock is not None
        poller = select.poll()
        poller.register(self._sock, READABLE | select.POLLOUT)
        ready = poller.poll(0)
        events = ready[0][1] if ready else 0
        if events & ~select.POLLOUT:
            if self._at_end():
                raise RemctlConnectionError("the server has closed the connection")
            raise RemctlProtocolError("the server sent something nobody asked for, as it does when it ends idle sessions")
        return bool(events)

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
        if self._closing:
            typed: RemctlError = RemctlNotOpenedError(f"{_NOT_OPEN}: it was closed while {doing}")
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

    def with_evidence(self, error: E, words: Words = ()) -> E:
        """Add to an error whom it concerns, and which command: the one under way, or the one given."""
        error.host = self.target.host
        error.port = self.port or None
        error.principal = self.target.principal
        if words := words or self._words:
            error.command = b" ".join(words[:2]).decode("utf-8", "backslashreplace")
            error.sent = self._sent
        return error

    def _end(self, reason: str) -> None:
        if self.closed is None:
            self.closed = reason
        self._words = ()
        job, self._job = self._job, None
        r, self._r = self._r, ffi.NULL
        left_behind = job is not None and job.abandon()
        if self.pending or left_behind:
            self._shutdown()  # so that neither a blocked thread nor libremctl's farewell waits for the server
        if r and not left_behind:
            lib.quiet_close(r)
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

    def _authenticate(self, waiter: Waiter) -> None:
        assert self._sock is not None
        self._r = lib.remctl_new()
        if not self._r:
            raise MemoryError
        if self.target.ccache is not None and not lib.remctl_set_ccache(self._r, os.fsencode(self.target.ccache)):
            raise RemctlAuthenticationError(error_text(self._r))
        self._job = handshake = Handshake(
            self._sock, self._r, self._host, self._principal, self.target.min_protocol
        )
        self._fd, self.protocol = handshake.run(waiter)
        self._job = None
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, HEADER)
        logger.debug("connected to %s:%d, protocol %d", self.target.host, self.port, self.protocol)

    def _write(self, waiter: Waiter) -> None:
        writable = self._check_quiet()
        words = self._words
        buffers = [ffi.from_buffer(word) for word in words]
        vector = ffi.new("struct iovec[]", [(buffer, len(word)) for buffer, word in zip(buffers, words, strict=True)])
        self._serial += 1
        self._asked.serial = self._serial
        self.pending = self._sent = True
        self.refused = self._got_output = False
        if writable and self.protocol > 1 and command_size(words) <= DIRECT_SIZE:
            okay = lib.quiet_commandv(self._r, vector, len(words))
        else:
            okay = self._on_thread(lambda r: lib.quiet_commandv(r, vector, len(words)), waiter)
        if not okay:
            raise self._error("the command could not be sent")

    def _read(self, waiter: Waiter) -> Output:
        size = lib.ready_output(self._r, self._fd, self._slot)
        awaited = 0
        while size > 0:
            if size == awaited:  # the socket's buffer cannot hold it all, or the server has ended in mid-token
                self._slot[0] = self._on_thread(lib.quiet_output, waiter)
                break
            self._await(size, waiter)
            awaited, size = size, lib.ready_output(self._r, self._fd, self._slot)
        if size < 0:
            raise _lost(ffi.errno if size == lib.TOKEN_FAILED else errno.ECONNRESET)
        output = self._slot[0]
        if not output:
            raise self._error("the answer could not be read")
        return self._token(output)

    def _token(self, output: ffi.CData) -> Output:
        kind = output.type
        if kind == lib.REMCTL_OUT_OUTPUT:
            self._got_output = True
            return Output(OutputType.OUTPUT, ffi.buffer(output.data, output.length)[:], _STREAMS[output.stream])
        words, self._words = self._words, ()
        self.pending = False
        if kind == lib.REMCTL_OUT_STATUS:
            self.refused = self._got_output and output.status == V1_REFUSED and self.protocol == 1
            return Output(OutputType.STATUS, status=output.status & 0xFF)
        if output.error == ErrorCode.TOOMANY_ARGS and words[0] == b"help" and len(words) > HELP_WORDS:
            self._end("remctld answers a help command of so many words twice, and the second answer was not waited for")
        text = ffi.buffer(output.data, output.length)[:]
        return Output(OutputType.ERROR, text, error=ErrorCode.lookup(output.error))

    def _await(self, size: int, waiter: Waiter) -> None:
        """Wait until so many bytes can be read, or the server has ended, or the socket's buffer is full."""
        assert self._sock is not None
        if _QUICKACK is not None:
            # remctld sends a command's output and its status as two small segments and leaves Nagle's algorithm on:
            # without an acknowledgement at once, the second one waits 40 ms.
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        if size <= HEADER:
            waiter.poll({self._sock.fileno(): READABLE})
            return
        try:
            self._low_water(size)
            waiter.poll({self._sock.fileno(): READABLE})
        finally:
            self._low_water(HEADER)

    def _low_water(self, size: int) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _on_thread(self, call: Callable[[ffi.CData], T], waiter: Waiter) -> T:
        r = self._r
        self._job = job = Offload(lambda: call(r), lambda: lib.quiet_close(r))
        job.start()
        result = job.join(waiter)
        self._job = None
        return result

    def _error(self, what: str) -> RemctlError:
        """Make the error for a call that libremctl refused."""
        text = error_text(self._r)
        if self._at_end():
            return RemctlConnectionError(f"{what}: the server has closed the connection")
        if "GSS-API" in text:
            return RemctlAuthenticationError(f"{what}: {text}", hint=_hints.for_authentication(text))
        return RemctlProtocolError(f"{what}: {text}")


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
