"""From a host and a port to a TCP connection, without blocking the event loop; the twin of `remctl._connecting`."""

from __future__ import annotations

import asyncio
import errno
import socket

from remctl._endpoints import (
    NO_ANSWER,
    Endpoint,
    address_of,
    encode_host,
    endpoints,
    family_of,
    number_of,
    unknown_host,
    unreachable,
)
from remctl.aio._deadline import Deadline
from remctl.aio._offload import network
from remctl.aio._turns import turn
from remctl.exceptions import RemctlConnectionError


async def connect(host: str, port: int, source_ip: str | None, deadline: Deadline) -> tuple[socket.socket, int]:
    """Connect to the first address of the host that answers.

    Args:
        host: name or address.
        port: 0 stands for the default ports.
        source_ip: the local address to connect from; None leaves it to the system.
        deadline: the call's.  Every address gets an equal share of what is left until then.

    Returns:
        The connected socket, non-blocking, and the port that it is connected to.

    Raises:
        RemctlConnectionError: the name is unknown, or no address could be connected to.
    """
    failures: list[tuple[Endpoint, int]] = []
    candidates = list(endpoints(await _resolve(host, family_of(source_ip)), port))
    await turn()
    for number, endpoint in enumerate(candidates):
        left = deadline.remaining()
        share = None if left is None else left / (len(candidates) - number)
        outcome = await _connect_to(endpoint, source_ip, share)
        if isinstance(outcome, socket.socket):
            return outcome, endpoint.port
        failures.append((endpoint, outcome))
    raise unreachable(failures, source_ip)


async def _resolve(host: str, family: int) -> list[tuple[int, str]]:
    if address := address_of(host, family):
        return address
    try:
        found = await network.run(socket.getaddrinfo, encode_host(host), None, family, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise unknown_host(error.strerror or str(error)) from None
    except OSError as error:
        raise RemctlConnectionError(f"{NO_ANSWER}: {error.strerror}", errno=error.errno) from None
    return [(kind, str(address[0])) for kind, _, _, _, address in found]


async def _connect_to(endpoint: Endpoint, source_ip: str | None, share: float | None) -> socket.socket | int:
    """Return the connected socket, or the system's number for the failure."""
    try:
        sock = endpoint.new_socket(source_ip)
    except OSError as error:
        return number_of(error)
    try:
        async with asyncio.timeout(share) as limit:
            await asyncio.get_running_loop().sock_connect(sock, (endpoint.address, endpoint.port))
    except OSError as error:  # TimeoutError is one
        sock.close()
        return errno.ETIMEDOUT if limit.expired() else number_of(error)
    except BaseException:
        sock.close()
        raise
    return sock
