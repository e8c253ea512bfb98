"""One small driver for each client of remctl, so that the same tests run with all of them."""

from __future__ import annotations

import asyncio
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import remctl
import remctl.aio

T = TypeVar("T")


class Address(NamedTuple):
    """Where a server is, and who."""

    host: str
    port: int
    principal: str


class Answer(NamedTuple):
    """What came of a command."""

    stdout: bytes
    stderr: bytes
    status: int


class Refusal(NamedTuple):
    """The error that a server answered with."""

    code: int | None
    """None if the client does not show it."""
    text: str


class Driver(ABC):
    """A client and its session with a server; closed at the end of `with`."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def run(self, *words: bytes) -> Answer:
        """Run a command."""

    @abstractmethod
    def refused(self, *words: bytes) -> Refusal:
        """Run a command that is refused."""

    def noop(self) -> None:
        """Make a round trip."""
        raise NotImplementedError


class Program(Driver):
    """The C program, with a connection for each command."""

    def run(self, *words: bytes) -> Answer:
        """Run a command."""
        host, port, principal = self.address
        done = subprocess.run(
            [b"remctl", b"-p", str(port).encode(), b"-s", principal.encode(), host.encode(), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return Answer(done.stdout, done.stderr, done.returncode)

    def refused(self, *words: bytes) -> Refusal:
        """Run a command that is refused."""
        stdout, stderr, status = self.run(*words)
        assert (stdout, status) == (b"", 255)
        return Refusal(None, stderr.decode().rstrip("\n"))


class Blocking(Driver):
    """libremctl, through the blocking face."""

    def __enter__(self) -> Self:
        self._session = remctl.Remctl(*self.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()

    def run(self, *words: bytes) -> Answer:
        """Run a command."""
        return Answer(*self._session.run(words))

    def refused(self, *words: bytes) -> Refusal:
        """Run a command that is refused."""
        self._session.command(words)
        token = self._session.output()
        assert token.type == "error"
        return Refusal(token.error, (token.output or b"").decode())

    def noop(self) -> None:
        """Make a round trip."""
        self._session.noop()


class Asynchronous(Driver):
    """The asyncio client, on a loop of its own."""

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner(debug=False)  # which would cost most of the time of much output
        self._session = remctl.aio.Remctl()
        self._wait(self._session.open(*self.address))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wait(self._session.close())
        self._runner.close()

    def run(self, *words: bytes) -> Answer:
        """Run a command."""
        return Answer(*self._wait(self._session.run(words)))

    def refused(self, *words: bytes) -> Refusal:
        """Run a command that is refused."""
        self._wait(self._session.command(words))
        token = self._wait(self._session.output())
        assert token.type == "error"
        return Refusal(token.error, (token.output or b"").decode())

    def noop(self) -> None:
        """Make a round trip."""
        self._wait(self._session.noop())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)


class Perl(Driver):
    """Net::Remctl, in a process that is told line by line what to do."""

    SCRIPT: Final = Path(__file__).with_name("client.pl")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["perl", self.SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1 << 16
        )
        host, port, principal = self.address
        self._tell("open", host, str(port), principal)
        assert self._line() == ["ok"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, *words: bytes) -> Answer:
        """Run a command."""
        self._tell("run", *(word.hex() or "-" for word in words))
        streams: dict[str, list[bytes]] = {"1": [], "2": []}
        while (line := self._line())[0] == "output":
            streams[line[1]].append(_data(line[2]))
        assert line[0] == "status", line
        return Answer(b"".join(streams["1"]), b"".join(streams["2"]), int(line[1]) & 0xFF)  # a char, which has a sign

    def refused(self, *words: bytes) -> Refusal:
        """Run a command that is refused."""
        self._tell("run", *(word.hex() or "-" for word in words))
        kind, code, text = self._line()
        assert kind == "error"
        return Refusal(int(code), _data(text).decode())

    def noop(self) -> None:
        """Make a round trip."""
        self._tell("noop")
        assert self._line() == ["ok"]

    def _tell(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().split()
        assert line, "the Perl program has ended"
        if line[0] == "failed":
            raise AssertionError(_data(line[1]).decode())
        return line


def _data(text: str) -> bytes:
    return b"" if text == "-" else bytes.fromhex(text)
