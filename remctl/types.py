"""What commands give back: tokens, results, and the numbers of the protocol.

Lowest layer together with `exceptions`; every face (blocking, asyncio, server) hands out these same objects.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from remctl.exceptions import RemctlStatusError

__all__ = ["ErrorCode", "Output", "OutputType", "RemctlSimpleResult", "Result", "Stream"]


_MESSAGE: Final = 200
"""Bytes of a command's last line of error output that an error's text shows."""


V1_REFUSED: Final = -1
"""The status of protocol 1 that comes with the text of an error, and without text when a signal ended the command."""


class OutputType(enum.StrEnum):
    """The kind of a token; each member equals its string, so `token.type == "output"` holds."""

    OUTPUT = "output"
    STATUS = "status"
    ERROR = "error"
    DONE = "done"


class Stream(enum.IntEnum):
    """Which of the command's two streams an output token carries."""

    STDOUT = 1
    STDERR = 2


class ErrorCode(enum.IntEnum):
    """Why the server refused a command.  1 to 9 are the protocol's, 10 is sent by remctld since 3.0.

    A server may send numbers that are not listed here; they are handed on as plain `int`.
    """

    INTERNAL = 1
    BAD_TOKEN = 2
    UNKNOWN_MESSAGE = 3
    BAD_COMMAND = 4
    UNKNOWN_COMMAND = 5
    ACCESS = 6
    TOOMANY_ARGS = 7
    TOOMUCH_DATA = 8
    UNEXPECTED_MESSAGE = 9
    NO_HELP = 10

    @classmethod
    def lookup(cls, number: int) -> ErrorCode | int:
        """Return the member with this number, or the number itself if the protocol does not name it."""
        try:
            return cls(number)
        except ValueError:
            return number


class Output(NamedTuple):
    """One token of a command's answer; members that do not apply to its type are None.

    An answer is any number of OUTPUT tokens and then one STATUS, or else one ERROR.
    """

    type: OutputType
    output: bytes | None = None
    """The data of an OUTPUT token; the server's English text of an ERROR token."""
    stream: Stream | None = None
    """OUTPUT: which stream the data belongs to."""
    status: int | None = None
    """STATUS: the exit status, 0 to 255 (255 also for a command that a signal ended)."""
    error: ErrorCode | int | None = None
    """ERROR: the protocol's number for it."""


DONE: Final = Output(OutputType.DONE)
"""What `output()` keeps returning after the end of an answer."""


class Result(NamedTuple):
    """All that a finished command gave back."""

    stdout: bytes
    stderr: bytes
    status: int
    """The exit status, 0 to 255."""

    def check(self) -> Result:
        """Return the result itself when the status is 0.

        Raises:
            RemctlStatusError: the status is not 0; the error's `result` is this one.
        """
        if self.status != 0:
            last = self.stderr.rstrip().rpartition(b"\n")[2][:_MESSAGE].decode("utf-8", "backslashreplace")
            raise RemctlStatusError(f"exit status {self.status}" + (f": {last}" if last else ""), result=self)
        return self


class RemctlSimpleResult:
    """What the one-shot call returns: `Result`'s three attributes, where a stream that carried nothing is None."""

    def __init__(self, stdout: bytes | None = None, stderr: bytes | None = None, status: int | None = None) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.status = status

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemctlSimpleResult):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # its attributes can be set, as the stock binding's can

    def __repr__(self) -> str:
        return f"RemctlSimpleResult(stdout={self.stdout!r}, stderr={self.stderr!r}, status={self.status!r})"
