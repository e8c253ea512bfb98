#!/usr/bin/env python3
"""The commands of accounts.py in a server of its own, without remctld.

    KRB5_KTNAME=/etc/accounts.keytab ACCOUNTS=/var/lib/accounts python3 serve_accounts.py 4373

It listens on all addresses, or on those of the host that is named after the port.  SIGTERM and Ctrl-C end it: commands
that run come to their end before, for half a minute at the most.
"""

import asyncio
import logging
import signal
import sys

from accounts import backend

from remctl.aio import serve


async def main(port: int, host: str | None = None) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(backend, host, port):
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
