"""What a session knows and can be asked without talking to anybody; the same in both faces.

`session` and `aio.client` add the talking.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

from remctl import _arguments
from remctl._connection_base import NOT_OPEN, ConnectionBase, Target
from remctl.exceptions import RemctlError, RemctlNotOpenedError

C = TypeVar("C", bound=ConnectionBase)

NO_ERROR = "no error"

Word = str | bytes | bytearray | memoryview | int | float | os.PathLike[str] | os.PathLike[bytes]
"""What a word of a command may be: text is sent as UTF-8, numbers as their decimal text, bytes as they are."""


class Settings(Generic[C]):
    """How to connect, and at most one connection, which can be made again and again."""

    error: str
    """The text of the last failure."""
    connection: C | None
    """The present connection, open or closed; None before the first."""

    def __init__(self) -> None:
        self.error = NO_ERROR
        self.connection = None
        self.timeout: float | None = None
        self.ccache: str | None = None
        self.source_ip: str | None = None
        self.min_protocol = 1

    def configure(self, *, timeout: object, ccache: object, source_ip: object, min_protocol: object) -> None:
        """Take all settings, as users write them."""
        self.timeout = _arguments.check_timeout(timeout)
        self.ccache = _arguments.check_ccache(ccache)
        self.source_ip = _arguments.check_source_ip(source_ip)
        self.min_protocol = _arguments.check_min_protocol(min_protocol)

    def target(self, host: str, port: int, principal: str | None) -> Target:
        """Return all that a connection has to know."""
        return Target(host, port, principal, self.ccache, self.source_ip, self.min_protocol)

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        """Keep the text of a failure, for `error`."""
        try:
            yield
        except RemctlError as error:
            self.error = str(error)
            raise

    def opened(self) -> C:
        """Return the present connection, open or closed; raises if there never was one."""
        if self.connection is None:
            raise RemctlNotOpenedError(NOT_OPEN)
        return self.connection


class Face(Generic[C]):
    """See the module."""

    _NAME: ClassVar[str]
    _handle: Settings[C]

    # Settings

    def set_timeout(self, timeout: float | None) -> None:
        """Limit each call that talks to the server, from now on.

        Args:
            timeout: seconds for the whole of each call, fractions included; None or 0 is without limit.

        Raises:
            TypeError, ValueError: not a number, or negative.
        """
        self._handle.timeout = _arguments.check_timeout(timeout)

    def set_ccache(self, ccache: str | os.PathLike[str] | None) -> None:
        """Use a ticket cache for the connections that `open` makes from now on; that it exists is checked there.

        Args:
            ccache: name (FILE:/path, KEYRING:..., MEMORY:...) or path; None is the default cache.

        Raises:
            TypeError, ValueError: no text, or empty.
        """
        self._handle.ccache = _arguments.check_ccache(ccache)

    def set_source_ip(self, source: str | None) -> None:
        """Connect from a local address, from the next `open` on.

        Args:
            source: an IPv4 or IPv6 address; None leaves it to the system.

        Raises:
            TypeError, ValueError: not an IP address.
        """
        self._handle.source_ip = _arguments.check_source_ip(source)

    # What it is

    @property
    def opened(self) -> bool:
        """Whether a connection is open."""
        connection = self._handle.connection
        return connection is not None and connection.closed is None

    @property
    def host(self) -> str | None:
        """The host of the last `open`; None before the first."""
        connection = self._handle.connection
        return None if connection is None else connection.target.host

    @property
    def port(self) -> int | None:
        """The port connected to; None before the first `open`."""
        connection = self._handle.connection
        return None if connection is None else connection.port

    @property
    def protocol(self) -> int:
        """The protocol version of the connection: 1, 2 or 3.

        A server says only whether it speaks protocol 1 or a later one: 2 stands for "2 or later" until a `noop()`, or
        `min_protocol=3`, has shown that it speaks 3.

        Raises:
            RemctlNotOpenedError: no connection is open.
        """
        return self._connection().protocol

    def error(self) -> str:
        """Return the text of the session's last error, or "no error"."""
        return self._handle.error

    def __repr__(self) -> str:
        connection = self._handle.connection
        if connection is None:
            return f"<{self._NAME}, never opened>"
        state = f"closed: {connection.closed}" if connection.closed else f"protocol {connection.protocol}"
        port = f":{connection.port}" if connection.port else ""
        return f"<{self._NAME} {connection.target.host}{port}, {state}>"

    def _connection(self) -> C:
        connection = self._handle.opened()
        if connection.closed is not None:
            raise RemctlNotOpenedError(f"{NOT_OPEN}: {connection.closed}")
        return connection
