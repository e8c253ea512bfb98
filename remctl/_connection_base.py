"""What a connection knows about itself, whatever carries its bytes; the two faces' connections stand on it.

All state of a session that is no machinery is here: whether an answer is pending, whose it is, and why the connection
was closed; and with it the errors that tell of it, so that they are the same in both faces.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, TypeVar

from remctl import _hints
from remctl._arguments import Command
from remctl._limits import MAX_V1_COMMAND_SIZE
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlError,
    RemctlNotOpenedError,
    RemctlProtocolError,
    RemctlStatusError,
    RemctlTimeoutError,
)
from remctl.types import DONE, ErrorCode, Output, OutputType, Result, Stream

E = TypeVar("E", bound=RemctlError)

HELP_WORDS: Final = 3
"""Words of a help command that remctld takes: past it remctld 3.18 sends an error and then an answer all the same."""

NOT_OPEN: Final = "no currently open connection"

# What a call was doing when it failed.
OPENING: Final = "opening the connection"
SENDING: Final = "sending the command"
RECEIVING: Final = "waiting for output"
PINGING: Final = "waiting for the answer to a NOOP"


class Target(NamedTuple):
    """Whom to talk to and how, as `_arguments` has checked it."""

    host: str
    port: int
    principal: str | None
    ccache: str | None
    source_ip: str | None
    min_protocol: int

    def check_ccache(self) -> None:
        """Find out that a ticket cache in the file system is not there before anything is sent."""
        name = self.ccache
        if name is None:
            return
        kind, colon, rest = name.partition(":")
        path = (
            rest.removeprefix(":") if kind in ("FILE", "DIR") else name if not colon or name.startswith("/") else None
        )
        if path is not None and not Path(path).exists():
            raise RemctlAuthenticationError(f"ccache {name!r} is not there", hint="no ticket: run kinit")


class ConnectionBase:
    """See the module.

    Args:
        target: whom to talk to.
    """

    caller: ClassVar[str]
    """What may share a connection: "thread" or "task"."""
    logger: ClassVar[logging.Logger]
    """Which is told of the connection and its commands; of these the first two words alone, as others may be secret."""

    port: int
    """The port connected to; until then the one asked for, 0 for the defaults."""
    protocol: int
    """The protocol version: 1, 2 ("2 or later", all that the server tells), or 3 once a NOOP was answered; 0 before."""
    refused: bool
    """Whether the last status is the one that, in protocol 1, marks the output before it as the text of an error."""

    pending: bool
    """Whether a command was sent whose answer has not been read to its end."""
    closing: bool
    """Whether the connection is being closed, perhaps while somebody else is in a call."""
    closed: str | None = "it was never opened"
    """Why the connection is closed; None while it is open."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = target.port
        self.protocol = 0
        self.refused = False
        self.pending = False
        self.closing = False
        self._command: Command | None = None
        self._sent = False
        self._sizes: list[int] | None = None  # of stdout and stderr so far; None where nobody looks
        self._serial = 0
        self._pid = os.getpid()
        self.closed = None

    # What each face does in its own way

    def _asked(self) -> int | None:
        """Return the serial number of the last command that the present caller sent; None if it never sent one."""
        raise NotImplementedError

    def _set_asked(self, serial: int) -> None:
        """Remember it."""
        raise NotImplementedError

    def _close_wire(self, *, in_step: bool) -> None:
        """Close what carries the bytes; with a farewell to the server, unless the two sides are out of step."""
        raise NotImplementedError

    # From command to answer

    def _log_opened(self) -> None:
        self.logger.debug("connected to %s:%d, protocol %d", self.target.host, self.port, self.protocol)
        if self.protocol == 1:
            text = "%s:%d speaks protocol 1: no error codes, no streams apart"
            self.logger.warning(text, self.target.host, self.port)

    def _begin(self, command: Command, call: str) -> None:
        """Take note of a command that is about to be sent."""
        if self.pending:
            raise self._busy(call)
        if self.protocol == 1 and command.size > MAX_V1_COMMAND_SIZE:
            raise ValueError(f"command has {command.size} bytes, and protocol 1 takes {MAX_V1_COMMAND_SIZE}")
        self._command = command
        self._serial += 1
        self._set_asked(self._serial)
        self.pending = self._sent = True
        self._sizes = [0, 0] if self.logger.isEnabledFor(logging.DEBUG) else None
        if self._sizes is not None:
            self.logger.debug("command '%s': %d words, %d bytes", command.label(), len(command.words), command.size)

    def _check_output(self) -> Output | None:
        """Return what `output()` gives without waiting, if it does."""
        if not self.pending:
            if not self._serial:
                raise self.with_evidence(RemctlError("output() before any command was sent"))
            return DONE
        if self._asked() not in (None, self._serial):
            error = RemctlError(f"output() while the answer to another {self.caller}'s command is read")
            raise self.with_evidence(error, waiting=True)
        return None

    def _check_noop(self) -> None:
        if self.pending:
            raise self._busy("noop()")
        if self.protocol == 1:
            raise self.with_evidence(RemctlProtocolError("the server speaks protocol 1, which has no NOOP"))

    def _count(self, token: Output) -> None:
        """Take note of output that is handed out as it comes."""
        if self._sizes is not None:
            self._sizes[token.stream is Stream.STDERR] += len(token.output or b"")

    def _answered(self, token: Output, out: Sequence[bytes] = (), err: Sequence[bytes] = ()) -> None:
        """Take note of the token that ends an answer, and of output that was collected."""
        command, self._command = self._command, None
        self.pending = False
        if self._sizes is not None and command is not None:
            error = getattr(token.error, "name", token.error)
            how = f"exit status {token.status}" if error is None else f"error {error}"
            sizes = (size + sum(map(len, more)) for size, more in zip(self._sizes, (out, err), strict=True))
            text = "command '%s' has ended: %s, %d bytes of stdout, %d of stderr"
            self.logger.debug(text, command.label(), how, *sizes)
        if token.error == ErrorCode.TOOMANY_ARGS and command is not None and _answered_twice(command):
            self._end("remctld answers a help command of so many words twice, and the second answer was not waited for")

    def result(self, command: Command, token: Output, stdout: bytes, stderr: bytes) -> Result:
        """Return the result of a command, by the token that ended the answer and the output before it."""
        if token.status is None or (self.refused and stdout):
            raise self.refusal(command, token, stdout, stderr)
        return Result(stdout, stderr, token.status)

    def checked(self, result: Result, command: Command) -> Result:
        """Return the result if its status is 0; raises with all that is known about it if not."""
        try:
            return result.check()
        except RemctlStatusError as error:
            self.with_evidence(error, command)
            raise

    def last(self, command: Command, token: Output, text: bytes) -> Output:
        """Return the token that ended an answer, if it is none to raise; `text` is the first output before it."""
        if token.type is OutputType.ERROR or (self.refused and text):
            raise self.refusal(command, token, stdout=text if self.refused else b"")
        return token

    def refusal(self, command: Command, token: Output, stdout: bytes = b"", stderr: bytes = b"") -> RemctlCommandError:
        """Make the error for a command that the server refused: with an error token, or in protocol 1 with output."""
        text = (stdout if token.output is None else token.output).decode("utf-8", "backslashreplace").rstrip("\n")
        hint = None if token.error is None else _hints.for_command(token.error)
        error = RemctlCommandError(text, code=token.error, stdout=stdout, stderr=stderr, hint=hint)
        return self.with_evidence(error, command)

    # Errors, and the end

    def with_evidence(self, error: E, command: Command | None = None, *, waiting: bool = False) -> E:
        """Add to an error whom it concerns, and which command: the one under way, or the one given.

        Args:
            error: the error, which is returned.
            command: a command that is not under way any more.
            waiting: whether the call had not begun, so that the command under way is somebody else's.
        """
        error.host = self.target.host
        error.port = self.port or None
        error.principal = self.target.principal
        if not waiting and (command := command or self._command):
            error.command = command.label()
            error.sent = self._sent
        return error

    def _failed(self, error: RemctlError | None, doing: str) -> RemctlError:
        """Close the connection over an error, and return it, or the one that says that the call was cut off.

        Args:
            error: None if all that is known is that somebody else has closed the connection.
            doing: what the call was doing.
        """
        if self.closing or error is None:
            error = RemctlNotOpenedError(f"{NOT_OPEN}: it was closed while {doing}")
        self.with_evidence(error)
        self._end(error.reason.removeprefix(f"{NOT_OPEN}: "))
        return error

    def _expired(self, limit: float | None, doing: str, *, waiting: bool = False) -> RemctlTimeoutError:
        error = RemctlTimeoutError(f"the time limit of {limit:g} s passed while {doing}", timeout=limit)
        self.with_evidence(error, waiting=waiting)
        if error.sent:
            error.hint = "the command may still be running on the server"
        return error

    def _not_open(self) -> RemctlNotOpenedError:
        reason = f": {self.closed}" if self.closed else ""
        return self.with_evidence(RemctlNotOpenedError(f"{NOT_OPEN}{reason}"))

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise self.with_evidence(RemctlNotOpenedError(f"{NOT_OPEN}: it belongs to process {self._pid}"))

    def _busy(self, call: str) -> RemctlError:
        if (self._asked() or 0) != self._serial:
            self._set_asked(0)  # so that this caller does not read another's answer for its own
        error = RemctlError(f"{call} while the previous command has output left: read it first")
        return self.with_evidence(error, waiting=True)

    def _end(self, reason: str) -> None:
        if self.closed is None:
            self.closed = reason
            self._command = None
            self._close_wire(in_step=not self.pending)
            self.logger.debug("the connection to %s:%d is over: %s", self.target.host, self.port, reason)


def _answered_twice(command: Command) -> bool:
    return command.words[0] == b"help" and len(command.words) > HELP_WORDS
