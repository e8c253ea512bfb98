"""One attempt at one host: what it tells the engine while it goes on, and what is kept of the output."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from remctl.exceptions import RemctlError
from remctl.fanout._hosts import Target
from remctl.fanout._options import OnOutput
from remctl.fanout._results import Timings
from remctl.types import Stream

Transport = Callable[["Visit"], Coroutine[Any, Any, None]]
"""Makes one attempt: connects, says `await visit.connected(port)`, says `visit.sending()` and sends the command, hands
each piece of output to `visit.output`, and sets `visit.status`.

Its errors are `RemctlError`, and their `sent` can be relied on.  It may be cancelled anywhere, and leaves nothing.
"""


class Kept:
    """The first bytes of a stream, and how many there were."""

    __slots__ = ("_limit", "data", "size")

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.size = 0
        self._limit = limit

    def add(self, data: bytes) -> None:
        """Take what has come."""
        self.size += len(data)
        if room := self._limit - len(self.data):
            self.data += data[:room]


class Visit:
    """See the module.

    Args:
        target: the host.
        clock: the event loop's.
        ready: called when the host is connected; returns when the command may be sent.
        limit: bytes to keep of each stream.
        on_output: the caller's function for output as it comes.
    """

    __slots__ = (
        "_clock", "_on_output", "_ready", "begun", "failure", "opened", "port", "sent", "status", "stderr",
        "stdout", "target",
    )  # fmt: skip

    port: int
    """The port connected to; until then the one asked for, 0 for the defaults."""
    opened: float | None
    """When it was connected; None until then."""
    sent: float | None
    """When the command was sent; None until then."""
    status: int | None
    """The exit status; None until it has come."""
    failure: RemctlError | None
    """What came of the caller's function, if it raised."""

    def __init__(
        self,
        target: Target,
        clock: Callable[[], float],
        ready: Callable[[Visit], Awaitable[None]],
        limit: int,
        on_output: OnOutput | None,
    ) -> None:
        self.target = target
        self.port = target.port
        self.begun = clock()
        self.opened = None
        self.sent = None
        self.status = None
        self.stdout = Kept(limit)
        self.stderr = Kept(limit)
        self.failure = None
        self._clock = clock
        self._ready = ready
        self._on_output = on_output

    async def connected(self, port: int) -> None:
        """Say that the connection is there; returns when the command may be sent."""
        self.port = port
        self.opened = self._clock()
        await self._ready(self)

    def sending(self) -> None:
        """Say that the command is sent from here on."""
        self.sent = self._clock()

    def output(self, stream: Stream, data: bytes) -> None:
        """Hand over output that has come."""
        (self.stderr if stream is Stream.STDERR else self.stdout).add(data)
        if self._on_output is None or self.failure is not None:
            return
        try:
            self._on_output(self.target.host, stream, data)
        except Exception as error:
            self.failure = RemctlError(f"on_output raised {error!r}", sent=True)
            self.failure.__cause__ = error

    def timings(self) -> Timings:
        """Return where the time went until now."""
        now = self._clock()
        connecting = (now if self.opened is None else self.opened) - self.begun
        return Timings(connecting, 0.0 if self.sent is None else now - self.sent)
