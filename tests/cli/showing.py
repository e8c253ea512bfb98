"""A display over two buffers, and results to put into it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from remctl.cli._display import make_display
from remctl.cli._shown import Shown
from remctl.exceptions import RemctlConnectionError, RemctlError
from remctl.fanout._results import HostResult, HostState
from remctl.types import Stream

OUT, ERR = Stream.STDOUT, Stream.STDERR


class Showing:
    """A display, and what it has written."""

    def __init__(self, *, environ: dict[str, str] | None = None, **options: Any) -> None:
        self._out, self._err = io.BytesIO(), io.BytesIO()
        self.display = make_display(Shown(**options), self._out, self._err, environ or {})
        self._index = 0

    @property
    def out(self) -> bytes:
        return self._out.getvalue()

    @property
    def err(self) -> str:
        return self._err.getvalue().decode()

    def output(self, host: str, *pieces: bytes, stream: Stream = OUT) -> None:
        for piece in pieces:
            self.display.output(host, stream, piece)

    def end(self, host: str, status: int | None = 0, **members: Any) -> None:
        """Give the host's result, as the engine would after what `output` said."""
        members.setdefault("state", HostState.NONZERO if status else HostState.OK)
        self.display.result(made(host, status, index=self._index, **members))
        self._index += 1

    def ran(self, host: str, stdout: bytes = b"", stderr: bytes = b"", status: int = 0) -> None:
        """Let a host run its command."""
        for stream, data in ((OUT, stdout), (ERR, stderr)):
            if data:
                self.output(host, data, stream=stream)
        self.end(host, status, stdout=stdout, stderr=stderr)

    def close(self, *, interrupted: bool = False, status: int | None = None) -> None:
        self.display.close(interrupted=interrupted, status=status)


def made(host: str, status: int | None = 0, **members: Any) -> HostResult:
    """Make a result whose sizes are those of its output."""
    members.setdefault("state", HostState.OK)
    members.setdefault("stdout_size", len(members.get("stdout", b"")))
    members.setdefault("stderr_size", len(members.get("stderr", b"")))
    return HostResult(host, status=status, **members)


def refused(address: str) -> RemctlError:
    """Make the error that a host gives where nobody listens."""
    return RemctlConnectionError(f"cannot connect: {address} port 4373: Connection refused", hint="is remctld running")


def shown(results: Iterable[tuple[str, bytes, bytes, int]], **options: Any) -> Showing:
    """Show hosts that ran their commands, to the end."""
    showing = Showing(**options)
    for host, stdout, stderr, status in results:
        showing.ran(host, stdout, stderr, status)
    showing.close()
    return showing
