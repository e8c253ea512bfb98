"""What a command raises to end early, and the exit statuses that the frame itself gives."""

from __future__ import annotations

import enum
from typing import Unpack

from remctl.exceptions import Evidence, RemctlError


class ExitStatus(enum.IntEnum):
    """Exit statuses that do not come from a command's function; the numbers are those of <sysexits.h>."""

    USAGE = 64
    """The words make no sense: an unknown command, too few or too many arguments, a wrong one."""
    INTERNAL = 70
    """The function failed in a way that it did not expect; the server's log says how."""
    OUTPUT = 74
    """Output could not be written."""
    DENIED = 77
    """The caller may not run this command."""


class CommandError(RemctlError):
    """Raised by a command's function: ends the command with one line of error output and an exit status.

    Args:
        reason: what went wrong, for the caller; the command's name is put before it.
        status: the exit status, 1 to 255.

    Raises:
        ValueError: the status is out of range.
    """

    status: int
    """The exit status."""

    def __init__(self, reason: str = "", *, status: int = 1, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"status must be a number: {status!r}")
        if not 1 <= status <= 255:
            raise ValueError(f"status must be 1 to 255: {status}")
        self.status = int(status)


class UsageError(CommandError):
    """The words of a command make no sense; the frame raises it, and a command's function may: exit status 64."""

    def __init__(self, reason: str = "", *, status: int = ExitStatus.USAGE, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, status=status, **evidence)


class OutputLostError(RemctlError):
    """Raised by `Context.write`: nobody takes the output any more.

    In a server, the client has vanished, or the command was stopped; in a program, standard output is closed or full.
    A function need not catch it.
    """
