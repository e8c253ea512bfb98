"""What became of one host: its state, and all that is known besides.

Lowest layer of the fan-out: every other module hands these objects on, and none of them changes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from remctl.exceptions import RemctlError, RemctlStatusError
from remctl.types import Result


class HostState(enum.StrEnum):
    """How it ended with one host; each member equals its string."""

    OK = "ok"
    """The command ran, and its exit status is 0."""
    NONZERO = "nonzero"
    """The command ran, and its exit status is another."""
    DNS = "dns"
    """The name service does not know the host, or does not answer."""
    REFUSED = "refused"
    """No connection came about, or the server closed it before the command was sent."""
    CONNECT_TIMEOUT = "connect-timeout"
    """The time limit for connecting passed before the command was sent."""
    AUTH = "auth"
    """Kerberos: no ticket, an unknown principal, a wrong clock, no KDC; the error says which."""
    DENIED = "denied"
    """The server answered with an error instead of running the command."""
    PROTOCOL = "protocol"
    """What answers is no remctl server, or it broke the protocol before the command was sent."""
    LOST = "lost-after-send"
    """The command was sent, and the connection ended before the exit status came."""
    TIMEOUT = "timeout"
    """The command was sent, and the time limit passed before the exit status came."""
    CANCELLED = "cancelled"
    """It was under way when the run was cancelled."""
    SKIPPED = "skipped"
    """The command was not sent: a stop rule, the run's deadline, a cancelled run, or a host named twice; or
    `before_send`, which raised."""


NOT_STARTED: Final = frozenset({HostState.DNS, HostState.REFUSED, HostState.CONNECT_TIMEOUT})
"""The states in which the command cannot have started, and trying again may help."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a host that was not the last one."""

    state: HostState
    error: RemctlError | None
    duration: float
    """Seconds, from its beginning to its end."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of the last attempt went, in seconds; 0.0 for what was not reached."""

    connecting: float = 0.0
    """Name service, TCP and authentication."""
    running: float = 0.0
    """From sending the command to its end."""


@dataclass(frozen=True, slots=True)
class HostResult:
    """What became of one host.  Pickles."""

    host: str
    """As the caller named it."""
    state: HostState
    status: int | None = None
    """The exit status, 0 to 255; None if none came."""
    stdout: bytes = b""
    """What came of it, up to the run's `max_output`; also when there is an error."""
    stderr: bytes = b""
    error: RemctlError | None = None
    """Why there is no exit status, or that `on_output` raised; None if neither."""
    port: int | None = None
    """The TCP port that it was asked on; None while it was not known."""
    index: int = 0
    """Its place among the hosts of the run, from 0."""
    attempts: tuple[Attempt, ...] = ()
    """The attempts before the last one."""
    timings: Timings = Timings()
    stdout_size: int = 0
    """Bytes that came, of which `stdout` holds the first."""
    stderr_size: int = 0
    may_be_running: bool = False
    """Whether the command was sent and no exit status came, in the last attempt or in one before: nobody knows whether
    it ran, or still runs."""

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.state is HostState.OK

    @property
    def truncated(self) -> bool:
        """Whether more output came than is kept."""
        return self.stdout_size > len(self.stdout) or self.stderr_size > len(self.stderr)

    def check(self) -> Result:
        """Return the command's result when its exit status is 0.

        Raises:
            RemctlStatusError: it is another.
            RemctlError: there is none; `error`, with the output that came.
        """
        if self.error is not None:
            raise self.error
        if self.status is None:
            raise RemctlError(f"there is no exit status: {self.state}", host=self.host, port=self.port)
        result = Result(self.stdout, self.stderr, self.status)
        try:
            return result.check()
        except RemctlStatusError as error:
            error.host, error.port = self.host, self.port
            raise
