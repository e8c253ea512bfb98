"""A server of `remctl.aio.serve` on an event loop and a thread of its own, for tests that block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from remctl.aio import Request, Server, serve
from remctl.aio.server import Handler
from remctl.backend import Backend
from remctl.testing import Sandbox
from remctl.testing.example import example

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds after which something that should have happened will not happen any more."""


class ServerThread:
    """Starts with `with`, and stops at its end.

    Args:
        box: the sandbox, of which it takes keytab and principal.
        handler: what runs the commands.
        options: further arguments of `serve`.
    """

    server: Server
    failures: list[dict[str, Any]]
    """What reached the loop's exception handler, which nothing should."""

    def __init__(self, box: Sandbox, handler: Handler | Backend = example, **options: Any) -> None:
        self._handler = handler
        self._options = {"principal": box.principal, "keytab": box.keytab, **options}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.failures = []
        self._loop.set_exception_handler(lambda _, context: self.failures.append(context))

    @property
    def port(self) -> int:
        """The TCP port, on 127.0.0.1."""
        return self.server.port

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float = PATIENCE) -> T:
        """Run a coroutine on the server's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called on the server's loop."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def until(self, condition: Callable[[Server], bool], timeout: float = PATIENCE) -> None:
        """Wait until something is so, as seen on the server's loop."""

        async def watch() -> None:
            async with asyncio.timeout(timeout):
                while not condition(self.server):
                    await asyncio.sleep(0.005)

        self.call(watch(), timeout + PATIENCE)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the server's loop for the length of a `with`: what comes meanwhile is there all at once afterwards."""
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait(PATIENCE)

        self.soon(hold)
        assert held.wait(PATIENCE)
        try:
            yield
        finally:
            release.set()

    def stop(self, timeout: float | None = None) -> None:
        """Stop the server."""
        self.call(self.server.stop(timeout))

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> Server:
            server = serve(self._handler, "127.0.0.1", 0, **self._options)
            await server.start()
            return server

        try:
            self.server = self.call(start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop(0)
        finally:
            self._end()
        if error is None:
            assert self.failures == []

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class Gate:
    """A handler that waits: it says when it has begun, goes on when it is told to, and says when it was cancelled."""

    STATUS: Final = 7

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.ended = 0
        self._open = asyncio.Event()

    async def __call__(self, request: Request) -> int:
        """Wait."""
        self.begun.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.ended += 1
        return self.STATUS

    def open(self, server: ServerThread) -> None:
        """Let every command go on, now and later."""
        server.soon(self._open.set)
