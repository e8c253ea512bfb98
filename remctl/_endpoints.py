"""From a host and a port to the addresses to connect to, in order, and the errors when that fails; for both faces.

The faces differ in how they wait (`_connecting`, `aio._connecting`), and in nothing else.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from remctl.exceptions import RemctlConnectionError

NO_ANSWER: Final = "the name service cannot be asked"

SHORT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS)
"""The system's numbers for: it is this machine that has no more sockets."""

DEFAULT_PORTS: Final = (4373, 4444)
"""The registered port, and the one from before there was one; the second is tried where the first does not connect."""


class Endpoint(NamedTuple):
    """An address and a port to connect to."""

    family: int
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"

    def new_socket(self, source_ip: str | None) -> socket.socket:
        """Return a non-blocking socket, not connected yet.

        Raises:
            OSError: the source address cannot be used.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if source_ip is not None:
                sock.bind((source_ip, 0))
        except BaseException:
            sock.close()
            raise
        return sock


def endpoints(addresses: Iterable[tuple[int, str]], port: int) -> Iterator[Endpoint]:
    """Return what to try, in order: every address with the port, or with each of `DEFAULT_PORTS` for 0."""
    found = list(addresses)
    for each in (port,) if port else DEFAULT_PORTS:
        for family, address in found:
            yield Endpoint(family, address, each)


def family_of(source_ip: str | None) -> int:
    """Return the family of the addresses that can be connected to from there."""
    if source_ip is None:
        return socket.AF_UNSPEC
    return socket.AF_INET6 if ":" in source_ip else socket.AF_INET


def address_of(host: str, family: int) -> list[tuple[int, str]]:
    """Return the one address of a host that is written as an address, and nothing for a name."""
    for kind in (socket.AF_INET, socket.AF_INET6):
        if family in (kind, socket.AF_UNSPEC):
            try:
                socket.inet_pton(kind, host)
            except (OSError, UnicodeError):
                continue
            return [(kind, host)]
    return []


def encode_host(host: str) -> bytes:
    """Return a host's name as the name service takes it.

    Raises:
        ValueError: it is no name.
    """
    try:
        return host.encode("ascii" if host.isascii() else "idna")
    except UnicodeError as error:
        raise ValueError(f"host is not a valid name: {host!r}") from error


def unknown_host(reason: str) -> RemctlConnectionError:
    """Make the error for a name that the name service does not know."""
    return RemctlConnectionError(f"unknown host: {reason}", hint="check the name, and the name service of this machine")


def unreachable(failures: list[tuple[Endpoint, int]], source_ip: str | None) -> RemctlConnectionError:
    """Make the error for endpoints none of which could be connected to, each with the system's number for why."""
    tried = "; ".join(f"{endpoint}: {os.strerror(code)}" for endpoint, code in failures)
    source = f" from {source_ip}" if source_ip is not None else ""
    short = (code for _, code in failures if code in SHORT)  # which would say more than that another address refused
    return RemctlConnectionError(f"cannot connect{source}: {tried}", errno=next(short, failures[0][1]))


def number_of(error: OSError) -> int:
    """Return the system's number for a failure."""
    return error.errno or errno.EADDRNOTAVAIL
