"""The command `example` for a server in the program: what example-commands.sh is for remctld, word for word.

    python -m remctl.testing.example [--port PORT] [--principal PRINCIPAL] [--keytab FILE]

serves it on loopback, prints the port, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from remctl._limits import MAX_OUTPUT_SIZE
from remctl.aio import Request, serve
from remctl.exceptions import RemctlCommandError
from remctl.types import ErrorCode, Stream


async def example(request: Request) -> int:
    """Run `example hello`, `echo WORD...`, `status N`, `count N`, `sleep SECONDS`, `bytes N` or `cat WORD`."""
    if len(request.command) < 2 or request.command[0] != b"example":
        raise RemctlCommandError("Unknown command", code=ErrorCode.UNKNOWN_COMMAND)
    subcommand, *words = request.command[1:]
    match subcommand:
        case b"hello":
            await request.send(b"hello world\n")
        case b"echo":
            await request.send(b" ".join(words) + b"\n")
        case b"status":
            return int(words[0])
        case b"count":
            for number in range(1, int(words[0]) + 1):
                await request.send(b"line %d\n" % number)
            await request.send(b"counted to %s\n" % words[0], Stream.STDERR)
        case b"sleep":
            await asyncio.sleep(float(words[0]))
        case b"bytes":
            left = int(words[0])
            while left > 0:
                await request.send(bytes(min(left, MAX_OUTPUT_SIZE)))
                left -= MAX_OUTPUT_SIZE
        case b"cat":
            await request.send(words[-1])
        case _:
            await request.send(b"example: unknown subcommand: %s\n" % subcommand, Stream.STDERR)
            return 64
    return 0


async def _serve(port: int, principal: str | None, keytab: str | None, connections: int) -> None:
    async with serve(
        example, "127.0.0.1", port, principal=principal, keytab=keytab, max_connections=connections
    ) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Serve the command `example` on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="the TCP port; by default a free one")
    parser.add_argument("--principal", help="the server's principal; by default every key in the keytab")
    parser.add_argument("--keytab", help="path of the keytab; by default the system's")
    parser.add_argument("--connections", type=int, default=1000, help="how many at the same time")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.principal, options.keytab, options.connections))


if __name__ == "__main__":
    main()
