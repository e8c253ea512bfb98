"""A remctl server inside the program: `serve()`, and what its handler gets.

`_served` has the life of one connection; here is what all of them share: the sockets, the limits, the end.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Final, Self

from remctl import _arguments
from remctl._endpoints import DEFAULT_PORTS
from remctl._limits import MAX_COMMAND_SIZE, MAX_WORDS
from remctl.acl import EVERYONE, Acl
from remctl.aio._backend import BackendHandler
from remctl.aio._offload import local, network
from remctl.aio._served import FAREWELL, Access, Handler, Limits, Request, Served
from remctl.aio._turns import AT_ONCE
from remctl.backend import Backend
from remctl.security import ServerCredentials

__all__ = ["Handler", "Request", "Server", "serve"]

logger = logging.getLogger(__name__)

_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

BACKLOG: Final = 1024
"""Connections that the system holds until the server takes them."""


def serve(
    handler: Handler | Backend,
    host: str | None = "localhost",
    port: int = DEFAULT_PORTS[0],
    *,
    principal: str | None = None,
    keytab: str | os.PathLike[str] | None = None,
    acl: Collection[str] | Access | None = None,
    sock: socket.socket | None = None,
    allow_v1: bool = False,
    max_connections: int = 1000,
    max_words: int = MAX_WORDS,
    max_command_size: int = MAX_COMMAND_SIZE,
    max_total_size: int = 4 * MAX_COMMAND_SIZE,
    handshake_timeout: float | None = 30,
    idle_timeout: float | None = 3600,
    run_timeout: float | None = None,
    stop_timeout: float | None = 30,
) -> Server:
    """Serve commands; use it as `async with serve(...) as server`.

    Args:
        handler: a coroutine function that runs one command: see `Request` for what it gets and may do.  It returns the
            exit status, 0 to 255, or None for 0; to refuse a command it raises `RemctlCommandError` with a code.
            Another exception is logged, and the client is told of an internal failure without its text.  Or a
            `Backend`, whose functions run in the event loop if they are coroutine functions, else on threads.
        host: name or address to listen on, all addresses of a name; None is every address of this machine.
        port: the TCP port, by default 4373; 0 takes a free one, which `Server.port` tells.
        principal: the server's principal; None accepts clients of every key in the keytab.
        keytab: path of the keytab; None is the system's default.
        acl: who may run commands: an `Acl` in remctld's syntax, a collection of principals, or a function (or
            coroutine function) that gets the request and says whether to allow it.  None leaves it to the handler:
            everyone who authenticates is let in, except under an anonymous principal; a backend has ACLs of its own,
            which are asked in any case.
        sock: a listening socket to use instead of host and port; the server closes it.
        allow_v1: whether to take clients of protocol 1, the old one: one command of 64 KiB, one result of 64 KiB.
        max_connections: connections at the same time.  Past it a new one takes the place of the oldest that has not
            authenticated; if all have, it is closed at once.
        max_words: words of a command.
        max_command_size: bytes of a command.
        max_total_size: bytes of all commands together, those that are coming in and those that run.
        handshake_timeout: seconds from the connection to the end of authentication; None is without limit.
        idle_timeout: seconds that a client may say nothing, or take nothing of what it is sent; None is without limit.
        run_timeout: seconds that a command may run; then it is cancelled, and its client gets an error.  None is
            without limit.
        stop_timeout: seconds that commands have to end when the server stops; None is without limit.

    Raises:
        TypeError, ValueError: an argument makes no sense.

    A client that vanishes cancels its command: the handler gets a CancelledError.
    """
    shown: Callable[[Sequence[bytes]], str] = _arguments.label
    access = _check_acl(acl)
    if isinstance(handler, Backend):
        handler = BackendHandler(handler)
        shown = handler.shown
    elif access is None:
        access = EVERYONE
    if not callable(handler):
        raise TypeError(f"handler must be a coroutine function or a Backend: {handler!r}")
    return Server(
        handler,
        shown,
        None if host is None else _arguments.check_host(host),
        _arguments.check_port(port),
        _check_socket(sock),
        ServerCredentials(keytab, principal),
        access,
        Limits(
            allow_v1=allow_v1,
            connections=_arguments.check_count("max_connections", max_connections),
            words=_arguments.check_count("max_words", max_words),
            command_size=_arguments.check_count("max_command_size", max_command_size),
            total_size=_arguments.check_count("max_total_size", max_total_size),
            handshake=_arguments.check_timeout(handshake_timeout, "handshake_timeout"),
            idle=_arguments.check_timeout(idle_timeout, "idle_timeout"),
            run=_arguments.check_timeout(run_timeout, "run_timeout"),
            stop=_arguments.check_timeout(stop_timeout, "stop_timeout"),
        ),
    )


class Server:
    """A server, made by `serve`; an asynchronous context manager, which starts and stops it."""

    handler: Handler
    """What runs a command."""
    shown: Callable[[Sequence[bytes]], str]
    """Makes of a command what logs show."""
    acl: Access | None
    """Who may run commands; None leaves it to the handler."""
    limits: Limits
    """What a connection may do."""

    def __init__(
        self,
        handler: Handler,
        shown: Callable[[Sequence[bytes]], str],
        host: str | None,
        port: int,
        sock: socket.socket | None,
        credentials: ServerCredentials,
        acl: Access | None,
        limits: Limits,
    ) -> None:
        self.handler = handler
        self.shown = shown
        self._host = host
        self._port = port
        self._given = sock
        self._credentials = credentials
        self.acl = acl
        self.limits = limits
        self._servers: list[asyncio.Server] = []
        self._served: dict[Served, None] = {}
        self._held = 0
        self._listened: int | None = None

    # Life

    async def start(self) -> None:
        """Listen, and serve from now on; again after a stop, unless the socket was given.

        Raises:
            RuntimeError: it serves already.
            RemctlAuthenticationError: there is no such keytab, or no such key in it.
            OSError: the address cannot be listened on, or the host is not known (`socket.gaierror`).
        """
        if self._servers:
            raise RuntimeError("the server is running already")
        loop = asyncio.get_running_loop()
        sockets = [] if self._given is None else [self._given]
        try:
            credentials = await local.run(self._credentials.acquire)
            sockets = sockets or await self._listen()
            for sock in sockets:
                # asyncio takes as many connections in one round of the loop as its backlog; the system's may be larger.
                server = await loop.create_server(lambda: Served(self, credentials).channel, sock=sock, backlog=AT_ONCE)
                self._servers.append(server)
                sock.listen(BACKLOG)
        except BaseException:
            await self.stop(0)
            for sock in sockets:
                sock.close()
            raise
        self._listened = next((port for _, port in self.addresses), 0)
        where = [f"{address} port {port}" for address, port in self.addresses]
        logger.info("serving on %s", ", ".join(where) or "the socket that was given")

    async def stop(self, timeout: float | None = None) -> None:
        """Stop: take no new connections and no new commands, let those that run come to their end, and close.

        Args:
            timeout: seconds for that, after which commands are cancelled; None takes `stop_timeout`, 0 cancels at once.

        Stopping twice is harmless.  A command that does not let itself be cancelled is left behind after some seconds,
        with a warning in the log.
        """
        limit = self.limits.stop if timeout is None else _arguments.check_timeout(timeout)
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        running = list(self._served)
        for served in running:
            served.stop()
        # A handler may stop its own server, and then goes on itself.
        others = [served for served in running if served.task is not asyncio.current_task()]
        if timeout != 0:
            await _ended(others, limit)
        for served in others:
            served.abort("the server has stopped")
        await _ended(others, 2 * FAREWELL)
        for served in others:
            if served.task is not None and not served.task.done():
                logger.warning("a command of %s does not end", served.principal)
                served.channel.abort()
        if len(others) == len(running):
            for server in servers:
                await server.wait_closed()

    async def serve_forever(self) -> None:
        """Wait until this is cancelled; the server goes on until its `with` ends, or `stop`."""
        await asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop(None if error is None else 0)

    # What it is

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses and ports that it listens on; empty before the start and after the stop."""
        names = [sock.getsockname() for server in self._servers for sock in server.sockets]
        return [name[:2] for name in names if isinstance(name, tuple)]

    @property
    def port(self) -> int:
        """The TCP port, after the stop too; 0 for a socket that has none.

        Raises:
            RuntimeError: the server was never started.
        """
        if self._listened is None:
            raise RuntimeError("the server has not been started")
        return self._listened

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._served)

    # What the connections share

    def admit(self, served: Served) -> bool:
        """Whether there is room for a new connection; if so, it is one of them from here on."""
        if not self._servers:
            return False
        if len(self._served) >= self.limits.connections:
            stranger = next((other for other in self._served if other.principal is None), None)
            if stranger is None:
                logger.warning("refused a connection: there are %d", len(self._served))
                return False
            stranger.abort("the server is full, and it has not authenticated")
            self.dismiss(stranger)
        self._served[served] = None
        return True

    def dismiss(self, served: Served) -> None:
        """Forget a connection that has ended."""
        self._served.pop(served, None)

    def reserve(self, size: int) -> bool:
        """Count bytes of a command, if there is room for them; a negative number gives them back."""
        if size > 0 and self._held + size > self.limits.total_size:
            return False
        self._held += size
        return True

    async def _listen(self) -> list[socket.socket]:
        found = await network.run(
            socket.getaddrinfo, self._host, self._port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        absent: OSError | None = None
        try:
            for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
                port = sockets[0].getsockname()[1] if sockets else self._port
                try:
                    sockets.append(socket.create_server((address[0], port, *address[2:]), family=family))
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise
                    absent = error  # a name may have addresses that this machine does not
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        if absent is not None and not sockets:
            raise absent
        return sockets


async def _ended(connections: list[Served], timeout: float | None) -> None:
    """Wait until the connections have ended, or so many seconds have passed."""
    if tasks := [served.task for served in connections if served.task is not None]:
        await asyncio.wait(tasks, timeout=timeout)


def _check_socket(sock: object) -> socket.socket | None:
    if sock is not None and not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket: {sock!r}")
    return sock


def _check_acl(acl: object) -> Access | None:
    if acl is None or isinstance(acl, Acl) or callable(acl):
        return acl
    if isinstance(acl, str | bytes) or not isinstance(acl, Collection):
        raise TypeError(f"acl must be an Acl, a collection of principals, or a function: {acl!r}")
    if wrong := [each for each in acl if not isinstance(each, str)]:
        raise TypeError(f"acl must hold principals, which are str: {wrong[0]!r}")
    return frozenset(acl)
