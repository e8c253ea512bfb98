"""How these tests call a function as a command, and read the complaint that comes back."""

from __future__ import annotations

from collections.abc import Callable

from remctl.acl import EVERYONE
from remctl.backend import Backend
from remctl.backend._command import Command
from remctl.types import Result

Function = Callable[..., object]


def backend_of(function: Function, name: str = "cmd") -> Backend:
    """A backend with one command, `test cmd`."""
    backend = Backend("test")
    backend.command(name)(function)
    return backend


def call(function: Function, *words: str | bytes) -> Result:
    """Call a function as the command `test cmd`."""
    return backend_of(function).call(["test", "cmd", *words])


def command_of(function: Function) -> Command:
    """What the package knows of a function."""
    return Command(("test", "cmd"), function, EVERYONE)


def output(function: Function, *words: str | bytes) -> str:
    """What a command that succeeds, and complains of nothing, writes."""
    result = call(function, *words)
    assert (result.stderr, result.status) == (b"", 0)
    return result.stdout.decode()


def complaint(function: Function, *words: str | bytes) -> str:
    """The one line that a command refuses its words with, which has status 64 and names the command."""
    return refusal(call(function, *words)).removeprefix("test cmd: ")


def refusal(result: Result) -> str:
    """The one line of a result with status 64."""
    assert (result.status, result.stdout) == (64, b"")
    text = result.stderr.decode()
    assert text.endswith("\n")
    assert text[:-1].isprintable(), text
    return text[:-1]


def takes(annotation: object) -> Function:
    """A function whose parameter `x` is annotated so; it returns what it got, as Python writes it."""

    def cmd(x: object) -> str:
        return repr(x)

    cmd.__annotations__ = {"x": annotation}
    return cmd


def takes_option(annotation: object, default: object = None) -> Function:
    """A function whose option `--x` is annotated so; it returns what it got, as Python writes it."""

    def cmd(*, x: object = default) -> str:
        return repr(x)

    cmd.__annotations__ = {"x": annotation}
    return cmd
