"""A server of `remctl.aio.serve` on an event loop and a thread of its own, for tests that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from remctl.aio import Server, serve
from remctl.aio.server import Handler
from remctl.testing import Sandbox
from remctl.testing.example import example

T = TypeVar("T")


class ServerThread:
    """Starts with `with`, and stops at its end.

    Args:
        box: the sandbox, of which it takes keytab and principal.
        handler: what runs the commands.
        options: further arguments of `serve`.
    """

    server: Server

    def __init__(self, box: Sandbox, handler: Handler = example, **options: Any) -> None:
        self._handler = handler
        self._options = {"principal": box.principal, "keytab": box.keytab, **options}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def port(self) -> int:
        """The TCP port, on 127.0.0.1."""
        return self.server.port

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> Server:
            server = serve(self._handler, "127.0.0.1", 0, **self._options)
            await server.start()
            return server

        self.server = self.call(start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.call(self.server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
