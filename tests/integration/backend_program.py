"""Commands of every kind, which the tests run under remctld, under remctl-shell, and in a server in the program."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from remctl import Stream
from remctl.backend import MULTILINE, SECRET, STDIN, Backend, CommandError, Context, Option, Range

backend = Backend("account", banner="Accounts of the sandbox:")


@backend.command
def hello(name: str = "world") -> str:
    """Say hello."""
    return f"hello, {name}\n"


@backend.command
def echo(*words: str) -> str:
    """Say the words again."""
    return " ".join(words) + "\n"


@backend.command
def note(text: Annotated[str, MULTILINE]) -> str:
    """Say a text with lines again."""
    return text


@backend.command
def kinds(count: int, path: Path, raw: bytes, share: float = 0.5) -> str:
    """Show the values of arguments."""
    return f"{count + 1} {path.name} {raw!r} {share}\n"


@backend.command
def create(
    name: Annotated[str, "the login name"],
    *groups: str,
    quota: Annotated[int, Option("-q"), Range(0, 99), "in gigabytes"] = 10,
    shell: Literal["bash", "zsh"] = "bash",
    locked: Annotated[bool, Option("-l")] = False,
) -> str:
    """Create an account.

    It is there at once.
    """
    return f"{name} {','.join(groups)} {quota} {shell} {locked}\n"


@backend.command
def upload(name: str, *tags: str, data: Annotated[bytes, STDIN]) -> str:
    """Take data that comes last."""
    return f"{name} {','.join(tags)} {len(data)} {hashlib.sha256(data).hexdigest()}\n"


@backend.command
def digest(data: Annotated[BinaryIO, STDIN], name: str) -> str:
    """Take data that comes first, a piece at a time."""
    whole = hashlib.sha256()
    size = 0
    while piece := data.read(65536):
        size += len(piece)
        whole.update(piece)
    return f"{name} {size} {whole.hexdigest()}\n"


@backend.command
def password(name: str, secret: Annotated[str, SECRET], note: str = "none") -> str:
    """Change a password."""
    return f"{name} {len(secret)} {note}\n"


@backend.command
def who(context: Context, what: Literal["principal", "address", "host", "expires", "command"]) -> str:
    """Show who calls."""
    if what == "expires":
        return "never\n" if context.expires is None else f"later: {context.expires > time.time()}\n"
    return f"{getattr(context, what)}\n"


@backend.command
def count(number: int) -> Iterator[str]:
    """Count, a line at a time."""
    for each in range(number):
        yield f"{each}\n"


@backend.command
def streams(context: Context) -> int:
    """Write to both streams, and end with a status."""
    context.write(b"out\0put\n")
    context.write("error\n", Stream.STDERR)
    return 7


@backend.command
async def later(context: Context, name: str) -> str:
    """Say hello from an event loop."""
    context.write("wait\n")
    await asyncio.sleep(0)
    return f"hello, {name}\n"


@backend.command
async def ticks(number: int) -> AsyncIterator[str]:
    """Count in an event loop."""
    for each in range(number):
        await asyncio.sleep(0)
        yield f"{each}\n"


@backend.command
def missing(name: str) -> None:
    """Fail as planned."""
    raise CommandError(f"there is no {name}", status=3)


@backend.command
def crash() -> None:
    """Fail in an unexpected way."""
    raise KeyError("from the inside")


@backend.command
def status(number: int) -> int:
    """End with a status."""
    return number


@backend.command(acl="princ:admin@SANDBOX.TEST")
def purge() -> str:
    """Delete everything."""
    return "gone\n"


@backend.command(acl="deny:princ:admin@SANDBOX.TEST ANYUSER")
def beg() -> str:
    """Ask an administrator."""
    return "please\n"


@backend.command(hidden=True)
def internal() -> str:
    """Be left out of the help."""
    return "hidden\n"


key = backend.group("key")


@key.default
def keys() -> str:
    """List all keys."""
    return "all keys\n"


@key.command
def add(name: str) -> str:
    """Add a key."""
    return f"added {name}\n"


@key.command("remove-all")
def remove() -> str:
    """Remove all keys."""
    return "removed\n"
