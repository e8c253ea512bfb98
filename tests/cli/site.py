"""Many hosts for `pyremctl`: one server of our own on many addresses of loopback, and programs under way."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Self

from serving import ServerThread

from cli.programs import PYREMCTL, Ended, pyremctl
from remctl.aio import Request
from remctl.testing import Sandbox
from remctl.types import Stream

PATIENCE: Final = 20.0


class Deeds:
    """A handler that does what its command says, counts, and knows what runs.

    `say TEXT`, `complain TEXT`, `status N`, `cut` (the connection), and `wait`, which ends with `open`.
    """

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        """How often each command, with the address it came to, was run."""
        self.live = 0
        """Commands that wait now; they go on when their client has gone."""
        self._open = asyncio.Event()

    def open(self, server: ServerThread) -> None:
        """Let those that wait end, and those that come."""
        server.soon(self._open.set)

    async def __call__(self, request: Request) -> int:
        """Do it."""
        verb, *rest = (word.decode() for word in request.command)
        self.ran[verb] += 1
        if verb == "say":
            await request.send(rest[0].encode() + b"\n")
        elif verb == "complain":
            await request.send(rest[0].encode() + b"\n", Stream.STDERR)
        elif verb == "status":
            return int(rest[0])
        elif verb == "cut":
            raise ConnectionResetError
        elif verb == "wait":
            await request.send(b"begun\n")
            self.live += 1
            try:
                await self._open.wait()
            finally:
                self.live -= 1
        return 0


class Site:
    """A server on all of 127.0.0.0/8, and `pyremctl` with the options by which it is reached.

    Args:
        box: the sandbox.
        server: the server.
        deeds: its handler.
    """

    def __init__(self, box: Sandbox, server: ServerThread, deeds: Deeds) -> None:
        self.box = box
        self.server = server
        self.deeds = deeds
        self.reach = ["-p", str(server.port), "-s", box.principal]

    def run(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
        """Run `pyremctl` to its end."""
        return pyremctl(*self.reach, *words, stdin=stdin, env=env)

    @contextmanager
    def started(self, *words: str, terminal: bool = False, env: Mapping[str, str] | None = None) -> Iterator[Started]:
        """Start it, for the length of a `with`."""
        started = Started([*PYREMCTL, *self.reach, *words], terminal=terminal, env=env)
        try:
            yield started
        finally:
            started.end()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        until(condition)


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Started:
    """A program under way, with its standard error, or all of it, on a terminal."""

    def __init__(self, command: list[str], *, terminal: bool, env: Mapping[str, str] | None) -> None:
        self.said = b""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave if terminal else subprocess.DEVNULL,
            stdout=slave if terminal else subprocess.PIPE,
            stderr=slave if terminal else subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", **(env or {})},
            preexec_fn=_controlling if terminal else None,
        )
        os.close(slave)
        assert terminal or self.process.stderr is not None
        self._from = self._master if terminal else self.process.stderr.fileno()  # type: ignore[union-attr]

    def expect(self, text: bytes) -> bytes:
        """Read from the terminal, or from standard error, until a text has come; return all that has."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.said
            data = self._read()
            assert data, self.said
            self.said += data
        return self.said

    def _read(self) -> bytes:
        try:
            return os.read(self._from, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return b""

    def type(self, keys: bytes) -> None:
        """Type on the terminal."""
        os.write(self._master, keys)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> Ended:
        """Wait for the end; return what came on standard output, what on standard error or the terminal, and why."""
        out = b""
        while data := self._read():
            self.said += data
        if self.process.stdout is not None:
            out = self.process.stdout.read()
        return Ended(out, self.said, self.process.wait(PATIENCE))

    def end(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        os.close(self._master)

    def __enter__(self) -> Self:
        return self


def _controlling() -> None:
    """Make the terminal that of a new session, so that its Ctrl-C reaches the program."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
