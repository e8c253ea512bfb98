"""From a host and a port to a TCP connection, within a time limit.

libremctl could connect by itself, but it cannot be interrupted there, selects on descriptors and so breaks above 1024
of them, and tries the second port after any failure, an unknown host included.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from remctl._libremctl import ffi, lib
from remctl._waiting import Waiter, check_job, wait_for
from remctl.exceptions import RemctlConnectionError

DEFAULT_PORTS: Final = (int(lib.REMCTL_PORT), int(lib.REMCTL_PORT_OLD))
"""4373, and the port from before there was a registered one; the second is tried where the first does not connect."""


class Endpoint(NamedTuple):
    family: int
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


def connect(host: str, port: int, source_ip: str | None, waiter: Waiter) -> tuple[socket.socket, int]:
    """Connect to the first address of the host that answers.

    Args:
        host: name or address.
        port: 0 stands for `DEFAULT_PORTS`.
        source_ip: the local address to connect from; None leaves it to the system.
        waiter: the call's patience.  Every address gets an equal share of what is left of it.

    Returns:
        The connected socket, in blocking mode, and the port that it is connected to.

    Raises:
        RemctlConnectionError: the name is unknown, or no address could be connected to.
        Expired, Cancelled: see `Waiter.poll`.
    """
    failures: list[tuple[Endpoint, int]] = []
    endpoints = list(_endpoints(host, (port,) if port else DEFAULT_PORTS, source_ip, waiter))
    for number, endpoint in enumerate(endpoints):
        left = waiter.remaining()
        share = None if left is None else left / (len(endpoints) - number)
        outcome = _connect_to(endpoint, source_ip, waiter, share)
        if isinstance(outcome, socket.socket):
            return outcome, endpoint.port
        failures.append((endpoint, outcome))
    tried = "; ".join(f"{endpoint}: {os.strerror(code)}" for endpoint, code in failures)
    source = f" from {source_ip}" if source_ip is not None else ""
    refusal = RemctlConnectionError(f"cannot connect{source}: {tried}")
    refusal.errno = failures[0][1]
    raise refusal


def _endpoints(host: str, ports: Sequence[int], source_ip: str | None, waiter: Waiter) -> Iterator[Endpoint]:
    family = socket.AF_UNSPEC
    if source_ip is not None:
        family = socket.AF_INET6 if ":" in source_ip else socket.AF_INET
    addresses = _resolve(host, family, waiter)
    for port in ports:
        for found, text in addresses:
            yield Endpoint(found, text, port)


def _resolve(host: str, family: int, waiter: Waiter) -> list[tuple[int, str]]:
    try:
        name = host.encode("ascii" if host.isascii() else "idna")
    except UnicodeError as error:
        raise ValueError(f"host is not a valid name: {host!r}") from error
    job = lib.job_resolve(name, family)
    check_job(job)
    try:
        if wait_for(job, waiter).okay != 0:
            reason = ffi.string(lib.gai_strerror(job.okay)).decode("utf-8", "backslashreplace")
            raise RemctlConnectionError(
                f"unknown host: {reason}", hint="check the name, and the name service of this machine"
            )
        found = [job.addresses[number] for number in range(job.count)]
        return [(address.family, ffi.string(address.text).decode()) for address in found]
    finally:
        lib.job_leave(job)


def _connect_to(endpoint: Endpoint, source_ip: str | None, waiter: Waiter, share: float | None) -> socket.socket | int:
    """Return the connected socket, or the system's number for the failure."""
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        code = _begin(sock, endpoint, source_ip)
        if code == errno.EINPROGRESS:
            ready = waiter.poll({sock.fileno(): select.POLLOUT}, share)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else errno.ETIMEDOUT
    except BaseException:
        sock.close()
        raise
    if code:
        sock.close()
        return code
    sock.setblocking(True)
    return sock


def _begin(sock: socket.socket, endpoint: Endpoint, source_ip: str | None) -> int:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if source_ip is not None:
        try:
            sock.bind((source_ip, 0))
        except OSError as error:
            return error.errno or errno.EADDRNOTAVAIL
    return sock.connect_ex((endpoint.address, endpoint.port))
