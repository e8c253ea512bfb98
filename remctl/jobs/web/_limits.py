"""What the server takes from anybody: bodies of a sane size within a sane time, and few wrong passwords.

`Limits` is an ASGI middleware for all that is served; it also has every answer say what browsers are not to do with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY: Final = 2 << 20
"""Bytes of a request's body."""

PATIENCE: Final = 60.0
"""Seconds that a client has to send a request's body."""

FAILURES: Final = 10
"""Wrong passwords from an address within a `WINDOW`, after which there are no more answers."""

WINDOW: Final = 60.0
"""Seconds."""

ADDRESSES: Final = 1000
"""Addresses of which wrong passwords are remembered, the latest ones."""

HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
"""What every answer has."""


class Limits:
    """Refuses bodies that are too large (413) or too slow (408).

    Args:
        app: the application.
        body: bytes of a body, at the most.
        patience: seconds for all of it.
    """

    def __init__(self, app: ASGIApp, body: int = BODY, patience: float = PATIENCE) -> None:
        self._app = app
        self._body = body
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if int(Headers(scope=scope).get("content-length", 0)) > self._body:
            refusal = too_large(self._body)
            await PlainTextResponse(refusal.detail, refusal.status_code)(scope, receive, marked)
        else:
            await self._app(scope, self._measured(receive), marked)

    def _measured(self, receive: Receive) -> Receive:
        """What gives the body to the application, which raises `HTTPException` in it."""
        deadline = asyncio.get_running_loop().time() + self._patience
        size, complete = 0, False

        async def measured() -> Message:
            nonlocal size, complete
            if complete:  # what comes now is that the client goes away, which is in nobody's hands
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body has not come within {self._patience:g} seconds") from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self._body:
                raise too_large(self._body)
            return message

        return measured


def too_large(limit: int) -> HTTPException:
    """Return the refusal of a body that has more bytes than the limit."""
    return HTTPException(413, f"the body has more than {limit} bytes")


class Failures:
    """Counts wrong passwords, so that they cannot be guessed; for one thread.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def add(self, address: str) -> None:
        """Count one."""
        times = self._times.pop(address, None) or deque(maxlen=FAILURES)
        times.append(self._clock())
        self._times[address] = times  # as the latest
        if len(self._times) > ADDRESSES:
            del self._times[next(iter(self._times))]

    def wait(self, address: str) -> float:
        """Return for how many seconds an address gets no more answers; 0 if it may go on."""
        times = self._times.get(address)
        if times is None or len(times) < FAILURES:
            return 0.0
        return max(0.0, times[0] + WINDOW - self._clock())
