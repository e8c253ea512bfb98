"""The transport of a run: one attempt over a session of `remctl.aio`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from remctl.aio.client import Remctl
from remctl.exceptions import RemctlConnectionError, RemctlError, RemctlProtocolError, RemctlTimeoutError
from remctl.fanout._options import Options
from remctl.fanout._visit import Visit
from remctl.security import Credentials
from remctl.types import OutputType, Stream

Lease = Callable[[], AbstractAsyncContextManager[Credentials]]
"""Gives credentials for one handshake: see `remctl.fanout._tickets`."""


class RemctlTransport:
    """Talks to remctl servers.

    Args:
        options: the run's.
        lease: whose tickets to use.
    """

    def __init__(self, options: Options, lease: Lease) -> None:
        self._options = options
        self._lease = lease

    async def __call__(self, visit: Visit) -> None:
        """Make an attempt; see `Transport`."""
        options = self._options
        session: Remctl | None = None
        try:
            async with asyncio.timeout(options.connect_timeout), self._lease() as credentials:
                session = Remctl(
                    timeout=options.connect_timeout,  # of which each address of the host gets a share
                    source_ip=options.source_ip,
                    min_protocol=options.min_protocol,
                    credentials=credentials,
                )
                target = visit.target
                await session.open(target.host.name, target.port, target.principal)
            await visit.connected(session.port or 0)
            await self._run(session, visit)
        except RemctlError:
            raise
        except Exception as error:
            self._translate(error, visit)
        finally:
            if session is not None:
                await session.close()

    async def _run(self, session: Remctl, visit: Visit) -> None:
        visit.sending()
        async for token in session.stream(visit.target.command.words, timeout=self._options.timeout or 0):
            if token.type is OutputType.OUTPUT:
                visit.output(token.stream or Stream.STDOUT, token.output or b"")
            else:
                visit.status = token.status

    def _translate(self, error: Exception, visit: Visit) -> NoReturn:
        """Raise the error of this package for another one, if there is one."""
        ours: RemctlError
        if visit.sent is not None and isinstance(error, OSError):  # after which the command must not be sent again
            ours = RemctlConnectionError(error.strerror or str(error), errno=error.errno, sent=True)
        elif isinstance(error, TimeoutError):
            limit = self._options.connect_timeout
            ours = RemctlTimeoutError(
                f"the time limit of {limit:g} s passed while opening the connection", timeout=limit
            )
        elif isinstance(error, OSError):
            ours = RemctlConnectionError(error.strerror or str(error), errno=error.errno)
        elif isinstance(error, ValueError) and visit.opened is None:  # which only looking for the name shows
            ours = RemctlConnectionError(f"unknown host: {error}")
        elif isinstance(error, ValueError):  # the command is too large for protocol 1
            ours = RemctlProtocolError(str(error))
        else:
            raise error
        raise ours from error


def credentials_of(options: Options) -> Credentials:
    """Return whose tickets a run uses."""
    if options.credentials is not None:
        return options.credentials
    return Credentials.default() if options.ccache is None else Credentials.from_ccache(options.ccache)
