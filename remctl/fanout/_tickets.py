"""The tickets of a run: for each host the same work, however many hosts there are.

Beside the engine, which asks for credentials before each handshake.  Kerberos looks through a ticket cache for each
ticket that it wants and adds each one that it gets, so with one cache for all hosts the time grows with the square of
their number.  Here the ticket-granting ticket of the caller's source (`_sources`) goes alone into a cache in memory,
which a number of handshakes share, and which is destroyed when the last of them is over.

The source is read and never written to: no service ticket goes there.  GSS-API alone may do so, before the run: where
the default cache has no good ticket and there is a client keytab (KRB5_CLIENT_KTNAME), it gets one, as it does for
every program.  Of a collection of caches the primary one is used, whatever the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import krb5

from remctl.aio._offload import local, network
from remctl.exceptions import RemctlAuthenticationError
from remctl.fanout import _sources
from remctl.fanout._auth import AuthReason, reason_of
from remctl.fanout._sources import Ticket
from remctl.security import Credentials

logger = logging.getLogger(__name__)

LEASES: Final = 64
"""Handshakes that share a cache.  With more, tickets take longer to find; with fewer, hosts share fewer of them."""

LOOK: Final = 1.0
"""Seconds from one look at a cache whose ticket ends to the next."""

RETRY: Final = 10.0
"""Seconds after which a key or password that got no ticket is tried again."""

PATIENCE: Final = 1.0
"""Seconds that a handshake waits for another attempt, when the one before has failed."""


class Tickets:
    """The tickets of one run, in one event loop; closed by `close`, or by the end of an `async with`.

    Args:
        credentials: whose tickets to use.  With a key or a password a ticket-granting ticket is got when it is first
            needed, and another one before it ends.  A cache is looked at again when its ticket is about to end, and
            what somebody has renewed is used from then on.  A cache without a ticket-granting ticket, which holds
            service tickets alone, is used as it is.
        leases: handshakes that share a cache.
    """

    principal: str | None = None
    """Whose tickets they are; None while that is not known, and for a cache that is used as it is."""

    def __init__(self, credentials: Credentials, leases: int = LEASES) -> None:
        self._credentials = credentials
        self._leases = leases
        self._by_key = credentials._kind in ("keytab", "password")
        self._as_it_is = False
        self._ticket: Ticket | None = None
        self._failure: RemctlAuthenticationError | None = None
        self._next = -math.inf  # when another ticket may be looked for, by the monotonic clock
        self._looking: asyncio.Task[None] | None = None
        self._cache: _Cache | None = None

    async def check(self, seconds: float | None = None) -> bool:
        """Get the tickets, before anything is sent, and warn if they end too early.

        Args:
            seconds: for how long they will be needed; None is an unknown time.

        Returns:
            Whether they last for so long, as far as can be told.  Those of a key or a password do: they are renewed.

        Raises:
            RemctlAuthenticationError: there is no ticket, it has ended, or none is to be had.
        """
        ticket = await self._current()
        if self._by_key or seconds is None:
            return True
        left = ticket.left if ticket is not None else await network.run(_sources.lifetime, self._credentials)
        if left is None or left >= seconds:
            return True
        logger.warning("the tickets end in %.0f s, and may be needed for %.0f s: renew them in time", left, seconds)
        return False

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Credentials]:
        """Give credentials for one handshake; they are good until the end of the `async with`.

        If a ticket-granting ticket has to be got, this waits as long as Kerberos tries; where the attempt before has
        failed, for a second at the most.

        Raises:
            RemctlAuthenticationError: there is no ticket, it has ended, or none is to be had.
        """
        ticket = await self._current()
        if ticket is None:
            yield self._credentials
            return
        cache = self._cache
        if cache is None or cache.ticket is not ticket or cache.given >= self._leases:
            self._retire()
            cache = self._cache = _Cache(ticket)
        cache.give()
        try:
            yield Credentials.from_ccache(cache.name)  # one each: those who share one ask the KDC one after the other
        finally:
            cache.take_back()

    async def close(self) -> None:
        """Destroy the caches; one that is in use then, when it is no longer."""
        self._retire()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _retire(self) -> None:
        if self._cache is not None:
            self._cache.retire()
            self._cache = None

    # The ticket-granting ticket

    async def _current(self) -> Ticket | None:
        """Return the ticket to make caches with, or None if the source is used as it is."""
        if not self._as_it_is and (self._ticket is None or self._ticket.ending):
            await self._look()
        if self._ended and not self._as_it_is:
            failure = self._failure or _sources.expired()
            raise RemctlAuthenticationError(failure.reason, code=failure.code, hint=failure.hint) from failure.__cause__
        return self._ticket

    @property
    def _ended(self) -> bool:
        return self._ticket is None or self._ticket.left <= 0

    async def _look(self) -> None:
        """If it is time, look for another ticket; one look serves all who ask meanwhile, and outlives them."""
        if self._looking is None:
            if time.monotonic() < self._next:
                return
            self._looking = asyncio.create_task(self._renew())
        done, _ = await asyncio.wait({self._looking}, timeout=None if self._failure is None else PATIENCE)
        for looking in done:
            looking.result()

    async def _renew(self) -> None:
        try:
            self._take(await (network.run(_sources.get, self._credentials) if self._by_key else self._read()))
            self._failure = None
            self._next = time.monotonic() + LOOK
        except RemctlAuthenticationError as error:
            if self._failure is None and not self._ended:
                logger.warning("no new ticket, and that of %s ends soon: %s", self.principal, error)
            self._failure = error
            self._next = time.monotonic() + self._pause(error)
        finally:
            self._looking = None

    async def _read(self) -> Ticket | None:
        ticket = await local.run(_sources.read, self._credentials)
        if ticket is not None and ticket.left > 0:
            return ticket
        await network.run(_sources.lifetime, self._credentials)  # says what is wrong, or gets a ticket
        return await local.run(_sources.read, self._credentials)

    def _take(self, ticket: Ticket | None) -> None:
        """Use a ticket that was found, if it is better than the one before."""
        old = self._ticket
        if ticket is None:
            self._as_it_is = old is None
        elif old is None or (ticket.principal == old.principal and ticket.end > old.end):
            self._ticket, self.principal = ticket, ticket.principal
        elif ticket.principal != old.principal:
            text = f"the ticket cache is now that of {ticket.principal}, and the run is that of {old.principal}"
            raise RemctlAuthenticationError(text, hint="use a cache of its own for the run")

    def _pause(self, error: RemctlAuthenticationError) -> float:
        """Return for how many seconds nothing is tried after a failure."""
        if not self._by_key:
            return LOOK
        return math.inf if reason_of(error) is AuthReason.WRONG_KEY else RETRY  # wrong passwords lock accounts


class _Cache:
    """A cache in memory, made of a ticket-granting ticket."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.given = 0
        """Leases so far."""
        self._out = 0
        self._retired = False
        context = ticket.context
        self._cache = krb5.cc_new_unique(context, b"MEMORY")
        krb5.cc_initialize(context, self._cache, ticket.creds.client)
        krb5.cc_store_cred(context, self._cache, ticket.creds)
        self.name = f"MEMORY:{krb5.cc_get_name(context, self._cache).decode()}"

    def give(self) -> None:
        """Take note of a lease."""
        self.given += 1
        self._out += 1

    def take_back(self) -> None:
        """Take note of the end of a lease."""
        self._out -= 1
        self._destroy()

    def retire(self) -> None:
        """Destroy it as soon as no lease is out."""
        self._retired = True
        self._destroy()

    def _destroy(self) -> None:
        if self._retired and not self._out:
            krb5.cc_destroy(self.ticket.context, self._cache)
