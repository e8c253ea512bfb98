"""From a host and a port to a TCP connection, within a time limit.

libremctl could connect by itself, but it cannot be interrupted there, selects on descriptors and so breaks above 1024
of them, and tries the second port after any failure, an unknown host included.
"""

from __future__ import annotations

import errno
import select
import socket

from remctl._endpoints import Endpoint, encode_host, endpoints, family_of, number_of, unknown_host, unreachable
from remctl._libremctl import ffi, lib
from remctl._waiting import Waiter, check_job, wait_for


def connect(host: str, port: int, source_ip: str | None, waiter: Waiter) -> tuple[socket.socket, int]:
    """Connect to the first address of the host that answers.

    Args:
        host: name or address.
        port: 0 stands for the default ports.
        source_ip: the local address to connect from; None leaves it to the system.
        waiter: the call's patience.  Every address gets an equal share of what is left of it.

    Returns:
        The connected socket, in blocking mode, and the port that it is connected to.

    Raises:
        RemctlConnectionError: the name is unknown, or no address could be connected to.
        Expired, Cancelled: see `Waiter.poll`.
    """
    failures: list[tuple[Endpoint, int]] = []
    candidates = list(endpoints(_resolve(host, family_of(source_ip), waiter), port))
    for number, endpoint in enumerate(candidates):
        left = waiter.remaining()
        share = None if left is None else left / (len(candidates) - number)
        outcome = _connect_to(endpoint, source_ip, waiter, share)
        if isinstance(outcome, socket.socket):
            return outcome, endpoint.port
        failures.append((endpoint, outcome))
    raise unreachable(failures, source_ip)


def _resolve(host: str, family: int, waiter: Waiter) -> list[tuple[int, str]]:
    job = lib.job_resolve(encode_host(host), family)
    check_job(job)
    try:
        if wait_for(job, waiter).okay != 0:
            reason = ffi.string(lib.gai_strerror(job.okay)).decode("utf-8", "backslashreplace")
            raise unknown_host(reason)
        found = [job.addresses[number] for number in range(job.count)]
        return [(address.family, ffi.string(address.text).decode()) for address in found]
    finally:
        lib.job_leave(job)


def _connect_to(endpoint: Endpoint, source_ip: str | None, waiter: Waiter, share: float | None) -> socket.socket | int:
    """Return the connected socket, or the system's number for the failure."""
    try:
        sock = endpoint.new_socket(source_ip)
    except OSError as error:
        return number_of(error)
    try:
        code = sock.connect_ex((endpoint.address, endpoint.port))
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
