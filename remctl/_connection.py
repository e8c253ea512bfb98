"""One connection to one server: who may use it, and when.

Between `_wire`, which moves the bytes, and the faces (`_remctl`, `session`).  A connection is opened once and closed
once, never opened again: libremctl leaks and confuses descriptors when a struct is reused.  All state of a session is
here: whether an answer is pending, whose it is, and why the connection was closed.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Final, NoReturn, TypeVar

from remctl import _hints
from remctl._arguments import Command
from remctl._limits import MAX_V1_COMMAND_SIZE
from remctl._waiting import Cancelled, Expired, Waiter
from remctl._wire import NothingSent, Target, Wire
from remctl.exceptions import (
    RemctlCommandError,
    RemctlError,
    RemctlNotOpenedError,
    RemctlProtocolError,
    RemctlTimeoutError,
)
from remctl.types import DONE, ErrorCode, Output, OutputType, Result

E = TypeVar("E", bound=RemctlError)

logger = logging.getLogger(__name__)

HELP_WORDS: Final = 3
"""Words of a help command that remctld takes: past it remctld 3.18 sends an error and then an answer all the same."""

NOT_OPEN: Final = "no currently open connection"


class Connection:
    """See the module.  Every method may be called from any thread; one works at a time, the others wait.

    Args:
        target: whom to talk to.
        sock: a connected stream socket to use, which the connection then owns; None makes one.
    """

    pending: bool
    """Whether a command was sent whose answer has not been read to its end."""
    closing: bool
    """Whether `close()` was called, perhaps while another thread is in a call."""
    closed: str | None = "it was never opened"
    """Why the connection is closed; None while it is open."""

    def __init__(self, target: Target, sock: socket.socket | None = None) -> None:
        self.target = target
        self.pending = False
        self.closing = False
        self._wire = Wire(target, sock)
        self._command: Command | None = None
        self._sent = False
        self._serial = 0
        self._asked = threading.local()
        self._lock = threading.Lock()
        self._holder = 0
        self._pid = os.getpid()
        self.closed = None

    # What the faces do with a connection

    def open(self, waiter: Waiter) -> None:
        """Connect and authenticate.  Any failure closes the connection."""
        self._take(waiter)
        try:
            self._wire.open(waiter)
        except BaseException as error:
            self._fail(error, "opening the connection", waiter)
        finally:
            self._drop()
        logger.debug("connected to %s:%d, protocol %d", self.target.host, self.port, self.protocol)
        if self.protocol == 1:
            logger.warning("%s:%d speaks protocol 1: no error codes, no streams apart", self.target.host, self.port)
        if self.target.min_protocol > 2:
            self.noop(waiter)

    def send(self, command: Command, waiter: Waiter) -> None:
        """Send a command, at most once."""
        self._take(waiter)
        try:
            self._send(command, waiter, "command()")
        finally:
            self._drop()

    def receive(self, waiter: Waiter, ahead: int = 1) -> Output:
        """Return the next token of the pending answer, or DONE after its end; see `Wire.receive`."""
        self._take(waiter)
        try:
            if not self.pending:
                if not self._serial:
                    raise self.with_evidence(RemctlError("output() before any command was sent"))
                return DONE
            if not self._owner(by_default=True):
                raise self.with_evidence(RemctlError("output() while the answer to another thread's command is read"))
            try:
                token = self._wire.receive(waiter, ahead)
            except BaseException as error:
                if not isinstance(error, RemctlError | Expired | Cancelled) and not self._wire.blocked:
                    raise  # an interrupted wait has lost nothing
                self._fail(error, "waiting for output", waiter)
            if token.type is not OutputType.OUTPUT:
                self._answered(token)
            return token
        finally:
            self._drop()

    def run(self, command: Command, waiter: Waiter) -> Result:
        """Send a command and collect its answer; nobody comes between."""
        out: list[bytes] = []
        err: list[bytes] = []
        self._take(waiter)
        try:
            self._send(command, waiter, "run()")
            try:
                token = self._wire.collect(waiter, out, err)
            except BaseException as error:
                self._fail(error, "waiting for output", waiter)
            self._answered(token)
        except RemctlError as error:
            error.stdout, error.stderr = b"".join(out), b"".join(err)
            raise
        finally:
            self._drop()
        stdout, stderr = b"".join(out), b"".join(err)
        if token.status is None or (self._wire.refused and stdout):
            raise self.refusal(command, token, stdout, stderr)
        return Result(stdout, stderr, token.status)

    def noop(self, waiter: Waiter) -> None:
        """Make a round trip; needs a server of protocol 3."""
        self._take(waiter)
        try:
            if self.pending:
                raise self._busy("noop()")
            if self.protocol == 1:
                raise self.with_evidence(RemctlProtocolError("the server speaks protocol 1, which has no NOOP"))
            try:
                self._wire.noop(waiter)
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
            self._wire.shutdown()
            self._lock.acquire()
        self._holder = threading.get_ident()
        try:
            self._end(reason)
        finally:
            self._drop()

    def refusal(self, command: Command, token: Output, stdout: bytes = b"", stderr: bytes = b"") -> RemctlCommandError:
        """Make the error for a command that the server refused: with an error token, or in protocol 1 with output."""
        text = (stdout if token.output is None else token.output).decode("utf-8", "backslashreplace").rstrip("\n")
        hint = None if token.error is None else _hints.for_command(token.error)
        error = RemctlCommandError(text, stdout=stdout, stderr=stderr, hint=hint)
        error.code = token.error
        return self.with_evidence(error, command)

    @property
    def refused(self) -> bool:
        """Whether the last status marks the output before it, if there was any, as the text of an error."""
        return self._wire.refused

    @property
    def port(self) -> int:
        """The port connected to; until then the one asked for, 0 for the defaults."""
        return self._wire.port

    @property
    def protocol(self) -> int:
        """The protocol version, 1 to 3; see `Wire.protocol`."""
        return self._wire.protocol

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when closed."""
        return self._wire.fileno()

    def __del__(self) -> None:
        if self.closed is None:
            self.close("nobody held it any more")

    # One at a time

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
                raise self._expired(waiter, "another thread used the session") from None
            except Cancelled:
                raise self._not_open() from None
        self._holder = threading.get_ident()
        if self.closed is not None:
            self._drop()
            raise self._not_open()

    def _drop(self) -> None:
        self._holder = 0
        self._lock.release()

    def _owner(self, by_default: bool = False) -> bool:
        """Whether the last command is this thread's; of a thread that never asked for one, `by_default` is said."""
        return bool(getattr(self._asked, "serial", self._serial if by_default else 0) == self._serial)

    # From command to answer

    def _send(self, command: Command, waiter: Waiter, call: str) -> None:
        if self.pending:
            raise self._busy(call)
        if self.protocol == 1 and command.size > MAX_V1_COMMAND_SIZE:
            raise ValueError(f"command has {command.size} bytes, and protocol 1 takes {MAX_V1_COMMAND_SIZE}")
        self._command = command
        self._serial += 1
        self._asked.serial = self._serial
        self.pending = self._sent = True
        try:
            self._wire.send(command, waiter)
        except NothingSent as error:
            self._sent = False
            self._fail(error.args[0], "sending the command", waiter)
        except BaseException as error:
            self._fail(error, "sending the command", waiter)

    def _answered(self, token: Output) -> None:
        command, self._command = self._command, None
        self.pending = False
        if token.error == ErrorCode.TOOMANY_ARGS and command is not None and _answered_twice(command):
            self._end("remctld answers a help command of so many words twice, and the second answer was not waited for")

    # Errors, and the end

    def _fail(self, error: BaseException, doing: str, waiter: Waiter) -> NoReturn:
        """Close the connection over an error, and raise the typed one that says what happened."""
        if self.closing:
            typed: RemctlError = RemctlNotOpenedError(f"{NOT_OPEN}: it was closed while {doing}")
        elif isinstance(error, RemctlError):
            typed = error
        elif isinstance(error, Expired):
            typed = self._expired(waiter, doing)
        else:
            self._end(f"interrupted while {doing}")
            raise error
        self.with_evidence(typed)
        self._end(typed.reason)
        raise typed from error.__cause__

    def _expired(self, waiter: Waiter, doing: str) -> RemctlTimeoutError:
        error = RemctlTimeoutError(f"the time limit of {waiter.limit:g} s passed while {doing}")
        error.timeout = waiter.limit
        self.with_evidence(error)
        if error.sent:
            error.hint = "the command may still be running on the server"
        return error

    def _not_open(self) -> RemctlNotOpenedError:
        reason = f": {self.closed}" if self.closed else ""
        return self.with_evidence(RemctlNotOpenedError(f"{NOT_OPEN}{reason}"))

    def _busy(self, call: str) -> RemctlError:
        if not self._owner():
            self._asked.serial = 0  # so that this thread does not read another's answer for its own
        return self.with_evidence(RemctlError(f"{call} while the previous command has output left: read it first"))

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
            self._wire.close(in_step=not self.pending)

    def _forget(self) -> None:
        if self.closed is None:
            self.closed = f"it belongs to process {self._pid}"
            self._wire.forget()


def _answered_twice(command: Command) -> bool:
    return command.word(0) == b"help" and len(command.lengths) > HELP_WORDS
