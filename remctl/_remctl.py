"""The low-level interface: libremctl's functions by their C names, on a handle.

Nothing here raises for what happens on the network: functions return 1 or 0 (`remctl_output` an empty tuple) and
`remctl_error` has the text, as in C.  What raises is an argument of the wrong type, a handle that was closed, and lack
of memory.  The functions keep C's meaning, with four differences for the better: they can be interrupted, time limits
cover whole calls, nothing reconnects silently, and no argument is cut at a NUL.

`ffi` and `lib` are the binding itself, for whoever needs libremctl bare.  The stock package's `import _remctl` finds
this module.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from remctl import _arguments
from remctl._arguments import Command
from remctl._connection import Connection
from remctl._face import Settings
from remctl._libremctl import ffi, lib
from remctl._waiting import Waiter
from remctl.exceptions import RemctlError
from remctl.types import Output, Result

__all__ = [
    "Handle",
    "ffi",
    "lib",
    "remctl",
    "remctl_close",
    "remctl_command",
    "remctl_commandv",
    "remctl_error",
    "remctl_new",
    "remctl_noop",
    "remctl_open",
    "remctl_open_fd",
    "remctl_output",
    "remctl_set_ccache",
    "remctl_set_source_ip",
    "remctl_set_timeout",
]


class Handle(Settings[Connection]):
    """What `struct remctl` is in C: settings, and at most one connection, which can be opened again and again.

    The blocking faces stand on it.  Methods raise the typed errors; the module's functions turn them into C's answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.freed = False

    def open(
        self, host: str, port: int, principal: str | None, waiter: Waiter, sock: socket.socket | None = None
    ) -> None:
        """Connect and authenticate, over `sock` if there is one; closes the connection of before."""
        self.close("open() was called again")
        self.connection = Connection(self.target(host, port, principal), sock)
        with self.remembered():
            self.connection.open(waiter)

    def command(self, command: Command, waiter: Waiter) -> None:
        """Send a command."""
        with self.remembered():
            self.opened().send(command, waiter)

    def output(self, waiter: Waiter, ahead: int = 1) -> Output:
        """Return the next token of the answer; see `Wire.receive`."""
        with self.remembered():
            return self.opened().receive(waiter, ahead)

    def last(self, command: Command, token: Output, text: bytes) -> Output:
        """Return the token that ended an answer; see `ConnectionBase.last`."""
        with self.remembered():
            return self.opened().last(command, token, text)

    def noop(self, waiter: Waiter) -> None:
        """Make a round trip."""
        with self.remembered():
            self.opened().noop(waiter)

    def run(self, command: Command, waiter: Waiter) -> Result:
        """Send a command and collect its answer; interrupted in between, the session is closed."""
        try:  # as `remembered` does, whose calls would show in the speed of commands
            return self.opened().run(command, waiter)
        except RemctlError as error:
            self.error = str(error)
            raise

    def close(self, reason: str) -> None:
        """Close the connection, if there is one."""
        if self.connection is not None:
            self.connection.close(reason)


def remctl_new() -> Handle:
    """Make a handle; `remctl_close` frees it."""
    return Handle()


def remctl_set_timeout(handle: Handle, seconds: float) -> int:
    """Set the time limit of each call, in seconds; 0 is without limit.  Returns 1, or 0 for a negative one."""
    return _status(handle, lambda: setattr(handle, "timeout", _arguments.check_timeout(seconds)))


def remctl_set_ccache(handle: Handle, name: str) -> int:
    """Set the ticket cache for the next `remctl_open`.  Returns 1, or 0 when the name is empty."""
    return _status(handle, lambda: setattr(handle, "ccache", _arguments.check_ccache(name)))


def remctl_set_source_ip(handle: Handle, ip: str | None) -> int:
    """Set the local address to connect from; None leaves it to the system.  Returns 1, or 0 for no IP address."""
    return _status(handle, lambda: setattr(handle, "source_ip", _arguments.check_source_ip(ip)))


def remctl_open(handle: Handle, host: str, port: int = 0, principal: str | None = None) -> int:
    """Connect and authenticate; port 0 is 4373 and then 4444, principal None is host/HOST.  Returns 1 or 0."""
    return _status(
        handle,
        lambda: handle.open(
            _arguments.check_host(host),
            _arguments.check_port(port),
            _arguments.check_principal(principal),
            Waiter(handle.timeout),
        ),
    )


def remctl_open_fd(handle: Handle, host: str, fd: int, principal: str | None = None) -> int:
    """Authenticate over a connected stream socket, which the handle owns from here on.  Returns 1 or 0."""
    if not isinstance(fd, int):
        raise TypeError(f"fd must be a descriptor: {fd!r}")

    def open_fd() -> None:
        checked = _arguments.check_host(host), 0, _arguments.check_principal(principal)
        sock = socket.socket(fileno=fd)
        sock.setblocking(True)
        handle.open(*checked, Waiter(handle.timeout), sock)

    return _status(handle, open_fd)


def remctl_commandv(handle: Handle, command: list[bytes]) -> int:
    """Send a command, a list of bytes.  Returns 1 or 0."""
    _check_list(command)
    return _status(handle, lambda: handle.command(_arguments.check_command(command), Waiter(handle.timeout)))


def remctl_command(handle: Handle, command: list[bytes]) -> int:
    """Do what `remctl_commandv` does: C's difference between the two, that this one ends words at a NUL, is a trap."""
    return remctl_commandv(handle, command)


def remctl_output(handle: Handle) -> Output | tuple[()]:
    """Return the next token of the answer, or an empty tuple after a failure."""
    tokens: list[Output] = []
    return tokens[0] if _status(handle, lambda: tokens.append(handle.output(Waiter(handle.timeout)))) else ()


def remctl_noop(handle: Handle) -> int:
    """Make a round trip, which keeps an idle connection alive.  Returns 1 or 0."""
    return _status(handle, lambda: handle.noop(Waiter(handle.timeout)))


def remctl_error(handle: Handle) -> str:
    """Return the text of the handle's last failure, or "no error"."""
    return _live(handle).error


def remctl_close(handle: Handle) -> None:
    """Close the connection and free the handle, which cannot be used any more; freeing it again is harmless."""
    if not isinstance(handle, Handle):
        raise TypeError(f"handle must come from remctl_new(): {handle!r}")
    handle.freed = True
    handle.close("remctl_close() was called")


def remctl(
    host: str, port: int, principal: str | None, command: list[bytes]
) -> tuple[str | None, bytes | None, bytes | None, int | None]:
    """Run one command.  Returns error, stdout, stderr, status; a stream that carried nothing is None.

    After an error the status is None, and the streams hold what had arrived.
    """
    _check_list(command)
    handle = remctl_new()
    try:
        if not remctl_open(handle, host, port, principal):
            return handle.error, None, None, None
        stdout, stderr, status = handle.run(_arguments.check_command(command), Waiter(None))
    except RemctlError as error:
        return str(error), error.stdout or None, error.stderr or None, None
    except ValueError as error:
        return str(error), None, None, None
    finally:
        remctl_close(handle)
    return None, stdout or None, stderr or None, status


def _live(handle: Handle) -> Handle:
    if not isinstance(handle, Handle):
        raise TypeError(f"handle must come from remctl_new(): {handle!r}")
    if handle.freed:
        raise ValueError("handle was freed by remctl_close()")
    return handle


def _status(handle: Handle, call: Callable[[], object]) -> int:
    _live(handle)
    try:
        call()
    except (RemctlError, ValueError, OSError) as error:
        handle.error = str(error)
        return 0
    return 1


def _check_list(command: object) -> None:
    if not isinstance(command, list) or not all(isinstance(word, bytes) for word in command):
        raise TypeError(f"command must be a list of bytes: {command!r}")
