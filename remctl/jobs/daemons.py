"""The processes that go on: the runner, the HTTP server and the remctl server, each alone or all in one process.

They live by one event loop in the main thread; the runner has a thread.  A first SIGTERM or SIGINT lets what is under
way come to its end, and a second one stops it.  The HTTP server is the last to go, since scripts report to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from remctl.aio import Server, serve
from remctl.exceptions import RemctlError
from remctl.jobs._place import FILE
from remctl.jobs.command import backend
from remctl.jobs.runner import Runner
from remctl.jobs.service import Service
from remctl.jobs.settings import Settings
from remctl.jobs.store import Store
from remctl.jobs.web import serving

logger = logging.getLogger(__name__)

COMMANDS: Final = 30.0
"""Seconds that commands of the remctl server have to end when it stops and no job runs any more."""

FOR_EVER: Final = 365 * 86400.0
"""Seconds that they have until then."""


class Part(enum.Enum):
    """What a daemon does."""

    HTTP = "HTTP server"
    DOOR = "remctl server"
    RUNNER = "runner"


class DaemonError(RemctlError):
    """A daemon cannot start; the text says why."""


def run(service: Service, parts: Collection[Part], *, drain: float | None = None) -> None:
    """Work until SIGTERM or SIGINT; for the main thread of a process that does nothing else.

    Args:
        service: what all parts work for.
        parts: which there are; if one cannot start, or the runner fails, all end.
        drain: seconds that jobs have to end after the signal, before they are stopped as by a second one; None waits
            for as long as they run.

    Raises:
        DaemonError: the remctl server cannot listen.
        RemctlAuthenticationError: there is no key for the remctl server.
        ServingError: the HTTP server cannot start.
        RunnerError: another runner works in the folder.
    """
    asyncio.run(_Daemon(service, drain).work(parts))


class _Daemon:
    """One process."""

    def __init__(self, service: Service, drain: float | None) -> None:
        self._service = service
        self._drain = drain
        self._ending = asyncio.Event()
        self._hurried = asyncio.Event()
        self._runner: Runner | None = None
        self._running: asyncio.Task[None] | None = None
        self._door: Server | None = None

    async def work(self, parts: Collection[Part]) -> None:
        self._heed_signals()
        settings = self._service.settings
        async with AsyncExitStack() as stack:
            if Part.HTTP in parts:
                settings = _reached_by(settings, await stack.enter_async_context(serving(self._service)))
            if Part.DOOR in parts:
                self._door = await stack.enter_async_context(_serving_commands(self._service))
            if Part.RUNNER in parts:
                working = await stack.enter_async_context(_running(settings, self._ending))
                self._runner, self._running = working
                self._running.add_done_callback(lambda _: self._ending.set())
            logger.info("ready: %s", ", ".join(part.value for part in Part if part in parts))
            notify("READY=1")
            await self._ending.wait()
            notify("STOPPING=1")
            await self._finish()

    async def _finish(self) -> None:
        """Take nothing new, and let what is under way come to its end."""
        ends: list[asyncio.Task[None]] = []
        if self._runner is not None and self._running is not None:
            self._runner.drain()
            ends.append(self._running)
        if self._door is not None:
            ends.append(asyncio.create_task(self._close(self._door)))
        hurry = asyncio.create_task(self._hurry())
        try:
            await asyncio.gather(*ends)
        finally:
            hurry.cancel()

    async def _close(self, door: Server) -> None:
        """Let commands end: those that wait for a job of this process have its end, and then COMMANDS seconds."""
        if self._running is not None:
            closing = asyncio.create_task(door.stop(FOR_EVER))
            await asyncio.wait([self._running, closing], return_when=asyncio.FIRST_COMPLETED)
        await door.stop()

    async def _hurry(self) -> None:
        """Stop what is under way, when somebody wants that or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain):
                await self._hurried.wait()
        logger.info("what is under way is stopped")
        if self._runner is not None:
            self._runner.stop()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=self._service.settings.runner.grace + 5)
        if self._door is not None:
            await self._door.stop(2)

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, logger.info, "SIGHUP changes nothing: a restart reads the settings")

    def _end(self) -> None:
        if self._ending.is_set():
            self._hurried.set()
        else:
            logger.info("ending: nothing new is taken, and what is under way comes to its end")
            self._ending.set()


# The parts


@asynccontextmanager
async def _running(settings: Settings, ending: asyncio.Event) -> AsyncIterator[tuple[Runner, asyncio.Task[None]]]:
    """Have a runner work on a thread; gives it, and the task that ends with it.

    Its connections to the database are its own: requests that wait for one do not keep it from giving signs of life.
    """
    store = Store(settings.database_url)
    ready = asyncio.Event()
    runner = Runner(settings, store, partial(asyncio.get_running_loop().call_soon_threadsafe, ready.set))
    running = asyncio.create_task(asyncio.to_thread(runner.run))
    waiting = [asyncio.create_task(event.wait()) for event in (ready, ending)]
    try:
        await asyncio.wait([running, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield runner, running
    finally:
        for task in waiting:
            task.cancel()
        runner.stop()
        await asyncio.wait([running])
        store.close()


@asynccontextmanager
async def _serving_commands(service: Service) -> AsyncIterator[Server]:
    """Serve the command `job` over remctl."""
    settings = service.settings.door
    keytab = None if settings.keytab is None else service.settings.path(settings.keytab)
    server = serve(backend(service), settings.listen or None, settings.port, keytab=keytab, stop_timeout=COMMANDS)
    try:
        await server.start()
    except OSError as error:
        raise _refusal(service.settings, error) from error
    try:
        yield server
    except BaseException:
        await server.stop(0)
        raise
    await server.stop()


def _refusal(settings: Settings, error: OSError) -> DaemonError:
    door = settings.door
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    hint = f"give another [remctl] listen or port in {settings.folder / FILE}"
    if error.errno == errno.EADDRINUSE:
        hint = f"another program listens there; {hint}"
    return DaemonError(f"cannot listen on {door.listen or 'all addresses'} port {door.port}: {reason}", hint=hint)


def _reached_by(settings: Settings, url: str) -> Settings:
    """The settings with the URL of the server, where they leave its port to the system: scripts report there."""
    if settings.server.url is not None or settings.server.port != 0:
        return settings
    return settings._replace(server=msgspec.structs.replace(settings.server, url=url))


def notify(state: str) -> None:
    """Tell systemd how things stand, if it has started this process and wants to know.

    Args:
        state: READY=1 or STOPPING=1.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        logger.warning("systemd cannot be told %s: %s", state, error)
