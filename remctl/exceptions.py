"""Every error of this package, under one root.

::

    RemctlError
    ├── RemctlNotOpenedError                        no connection is open
    ├── RemctlStatusError                           the exit status is not 0 (only where asked: check=True)
    └── RemctlProtocolError                         anything that went wrong talking to the server
        ├── RemctlConnectionError(ConnectionError)      name lookup, TCP, a lost connection
        ├── RemctlAuthenticationError                   GSS-API refused: no ticket, expired, wrong principal, clock
        ├── RemctlTimeoutError(TimeoutError)            a time limit passed
        └── RemctlCommandError                          the server answered with an error token

An error holds its data as attributes; the text is made from them when it is asked for.  Arguments that make no sense
are not among these: they raise `TypeError` or `ValueError` before anything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict, Unpack

if TYPE_CHECKING:
    from remctl.types import ErrorCode, Result

__all__ = [
    "RemctlAuthenticationError",
    "RemctlCommandError",
    "RemctlConnectionError",
    "RemctlError",
    "RemctlNotOpenedError",
    "RemctlProtocolError",
    "RemctlStatusError",
    "RemctlTimeoutError",
]


# Sentences that more than one layer says.
ENDED: Final = "the server has closed the connection"
LOST: Final = "the connection was lost before the end of the answer"
UNASKED: Final = "the server sent something nobody asked for, as it does when it ends idle sessions"


class Evidence(TypedDict, total=False):
    """The keyword arguments that every error takes; see the attributes of `RemctlError`."""

    host: str | None
    port: int | None
    principal: str | None
    command: str | None
    sent: bool
    stdout: bytes
    stderr: bytes
    hint: str | None


class RemctlError(Exception):
    """Root of all errors of this package.  Pickles with all of its attributes."""

    reason: str
    """What went wrong, in the words of the library or of the server."""
    host: str | None
    """The host as the caller named it; None when no host is involved."""
    port: int | None
    """The TCP port; None while it was not known."""
    principal: str | None
    """The server principal the caller asked for; None stands for the default, host/HOST."""
    command: str | None
    """The first two words of the command, for messages; never its further arguments, which may be secret."""
    sent: bool
    """Whether the command may have reached the server: if False, it certainly was not run."""
    stdout: bytes
    """Output that had arrived before the failure (`run()` and the one-shot call; the others have handed it out)."""
    stderr: bytes
    """Error output that had arrived before the failure."""
    hint: str | None
    """What to do about it, where that is known."""

    def __init__(self, reason: str = "", **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.host = evidence.get("host")
        self.port = evidence.get("port")
        self.principal = evidence.get("principal")
        self.command = evidence.get("command")
        self.sent = evidence.get("sent", False)
        self.stdout = evidence.get("stdout", b"")
        self.stderr = evidence.get("stderr", b"")
        self.hint = evidence.get("hint")

    @property
    def value(self) -> str:
        """The message: the same text as `str(error)`."""
        return str(self)

    def __str__(self) -> str:
        text = self.reason
        if where := self._where():
            text += f" ({where})"
        if self.hint:
            text += f"; {self.hint}"
        return text

    def _where(self) -> str:
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        server = f"{host}:{self.port}" if self.port is not None else host
        command = f"command '{self.command}'" if self.command is not None else None
        return " on ".join(part for part in (command, server) if part)


class RemctlNotOpenedError(RemctlError):
    """No connection is open: never opened, closed by the caller, or closed after an error that the text names."""


class RemctlStatusError(RemctlError):
    """The command ran and ended with a status that is not 0."""

    result: Result
    """The whole result."""

    def __init__(self, reason: str = "", *, result: Result | None = None, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        if result is not None:
            self.result = result
            self.stdout = result.stdout
            self.stderr = result.stderr
            self.sent = True


class RemctlProtocolError(RemctlError):
    """Something went wrong talking to the server."""


class RemctlConnectionError(RemctlProtocolError, ConnectionError):
    """The host name is unknown, no connection came about, or the connection was lost."""

    errno: int | None = None
    """The system's number for the failure (`errno.ECONNREFUSED`...), where there is one."""

    def __init__(self, reason: str = "", *, errno: int | None = None, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        self.errno = errno


class RemctlAuthenticationError(RemctlProtocolError):
    """GSS-API refused, on this side or on the server's."""

    code: int | None = None
    """libkrb5's number for the failure (-1765328352 for a ticket that has ended...), where there is one: libremctl, and
    so the blocking session, gives none."""

    def __init__(self, reason: str = "", *, code: int | None = None, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        self.code = code


class RemctlTimeoutError(RemctlProtocolError, TimeoutError):
    """A time limit passed.  The session is closed; if `sent` is True the command may still be running."""

    timeout: float | None
    """The limit that passed, in seconds."""

    def __init__(self, reason: str = "", *, timeout: float | None = None, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        self.timeout = timeout


class RemctlCommandError(RemctlProtocolError):
    """The server answered with an error token instead of running the command."""

    code: ErrorCode | int | None
    """The protocol's number for it; None from a protocol 1 server, which sends text alone."""

    def __init__(self, reason: str = "", *, code: ErrorCode | int | None = None, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        self.code = code
