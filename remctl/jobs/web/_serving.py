"""The HTTP server: listens where the configuration says, and has uvicorn speak HTTP with the application."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import h11
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from remctl.exceptions import RemctlError
from remctl.jobs._place import FILE
from remctl.jobs.service import Service
from remctl.jobs.settings import Settings
from remctl.jobs.web._application import application

logger = logging.getLogger(__name__)

GRACE: Final = 5
"""Seconds that running requests have to end when the server stops."""

KEEP_ALIVE: Final = 5
"""Seconds that a connection stays open between two requests."""

PATIENCE: Final = 30.0
"""Seconds that a client has to send the head of a request."""

CONNECTIONS: Final = 2000
"""Connections at the same time; requests on others are answered with 503."""


class ServingError(RemctlError):
    """The server cannot begin: an address is not to be had, or a certificate; the text names the key in `[server]`."""


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[str]:
    """Serve while the `async with` lasts; at its end running requests have some seconds to end.

    Signals are left to the caller.

    Args:
        service: what is served, with the settings that say where.

    Yields:
        The URL under which this machine reaches it, with the port that it has in truth, without a slash at the end.

    Raises:
        ServingError: it cannot listen, or its certificate cannot be used; nothing was started.
    """
    app = application(service)
    context = await run_in_threadpool(_tls, service.settings)
    sockets = await run_in_threadpool(_bound, service.settings)
    url = _url(service.settings, sockets[0].getsockname()[1])
    server = _Server(
        uvicorn.Config(
            _Logged(app),
            http=_Connection,
            ws="none",
            lifespan="on",
            workers=1,
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # anybody on this machine could say who they are
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
    )
    running = asyncio.create_task(server.serve(sockets), name="remctl-jobs-server")
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if server.ready.is_set():
            logger.info("serving %s", url)
            yield url
    finally:
        ready.cancel()
        server.should_exit = True
        try:
            await running
            await server.give_up()
        finally:
            for sock in sockets:
                sock.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are those of whoever serves."""
        yield

    async def give_up(self) -> None:
        """End what has not ended in time, and was told to."""
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=GRACE)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Connection(H11Protocol):
    """Closes a connection on which no request comes, or comes too slowly."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(PATIENCE, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Logged:
    """Writes a line into the log for each request, without its query, which may hold what is nobody's business."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = 0

        async def marked(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, marked)
        finally:
            took = (time.monotonic() - begun) * 1000
            path = scope["raw_path"].decode("ascii", "backslashreplace")
            address = scope["client"][0] if scope["client"] else "unknown"  # it may be gone already
            logger.debug("%s %s %s: %d in %.0f ms", address, scope["method"], path, status, took)


# Where and how it listens


def _bound(settings: Settings) -> list[socket.socket]:
    """Bind all addresses; those that a name has and this machine has not are left out, as long as there is another."""
    listen, port = settings.server.listen, settings.server.port
    try:
        found = socket.getaddrinfo(listen or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _refusal(settings, error) from error
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        same = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(socket.create_server((address[0], same, *address[2:]), family=family))
            # asyncio sees to that for sockets that it has made alone; else an answer waits for 40 ms now and then.
            sockets[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            if error.errno not in _ABSENT:
                for sock in sockets:
                    sock.close()
                raise _refusal(settings, error) from error
            absent = error
    if not sockets:
        assert absent is not None
        raise _refusal(settings, absent) from absent
    return sockets


_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _refusal(settings: Settings, error: Exception) -> ServingError:
    server = settings.server
    number = (isinstance(error, OSError) and error.errno) or 0
    reason = os.strerror(number) if number > 0 else getattr(error, "strerror", "it is no host name")  # gaierror has -2
    where = f"{server.listen or 'all addresses'} port {server.port}"
    hint = _HINTS.get(number, "see [server] listen")
    return ServingError(f"cannot listen on {where}: {reason}", hint=f"{hint} in {settings.folder / FILE}")


_HINTS: Final = {
    errno.EADDRINUSE: "another program listens there; give another [server] port",
    errno.EACCES: "ports below 1024 are for root; give another [server] port",
    errno.EADDRNOTAVAIL: "this machine has no such address; see [server] listen",
}


def _tls(settings: Settings) -> ssl.SSLContext | None:
    server = settings.server
    if server.certificate is None or server.key is None:
        return None
    certificate, key = settings.path(server.certificate), settings.path(server.key)
    for name, path in (("certificate", certificate), ("key", key)):
        try:
            path.read_bytes()  # since what reads both below does not say which one is missing
        except OSError as error:
            raise ServingError(f"[server] {name}: {path}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=str)  # an empty one, where OpenSSL would ask the terminal
    except ssl.SSLError as error:
        raise ServingError(
            f"[server] certificate and key: {certificate} and {key} cannot be used: {error.reason or error}",
            hint="both are PEM, belong together, and the key has no password",
        ) from error
    return context


def _url(settings: Settings, port: int) -> str:
    """What this machine reaches the server by."""
    listen = settings.server.listen
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)  # noqa: S104  # not to listen on
    return f"{'https' if settings.server.certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
