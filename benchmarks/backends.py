"""Backends to measure: the command `example hello` as a coroutine function and as a blocking one.

    backends.py PRINCIPAL KEYTAB

serves each on a port of its own on 127.0.0.1, prints the two ports in that order, and ends with its standard input.
"""

import asyncio
import sys

from remctl.aio import serve
from remctl.backend import Backend

coroutine = Backend("example")
blocking = Backend("example")


@coroutine.command("hello")
async def hello_in_the_loop() -> str:
    """Say hello."""
    return "hello world\n"


@blocking.command("hello")
def hello_on_a_thread() -> str:
    """Say hello."""
    return "hello world\n"


async def main(principal: str, keytab: str) -> None:
    async with (
        serve(coroutine, "127.0.0.1", 0, principal=principal, keytab=keytab) as one,
        serve(blocking, "127.0.0.1", 0, principal=principal, keytab=keytab) as other,
    ):
        print(one.port, other.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
