"""The steps of a check that are about tickets: the user's own, and one for the server.

The ticket for the server is asked for anew, in a cache of its own: one that is in the user's cache already would hide
that no KDC answers, and the user's cache stays as it is.

Needs pykrb5 and python-gssapi: `pip install 'remctl-cffi[fanout]'`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final

import krb5

from remctl.cli._steps import LATE, Step, brief, failed, ok, skipped, warning, within
from remctl.exceptions import RemctlAuthenticationError
from remctl.fanout import AuthReason, reason_of
from remctl.fanout._sources import Ticket, lifetime, read
from remctl.security import Credentials, InitiatorContext

SOON: Final = 300
"""Seconds before its end at which a ticket is worth a word."""

WEAK: Final = ("des", "arcfour", "rc4")
"""How the names of kinds of keys begin that nobody should use any more."""

_MENDS: Final = {
    AuthReason.NO_TICKET: "run kinit",
    AuthReason.EXPIRED: "run kinit",
    AuthReason.UNKNOWN_SERVER: "check the host's name, or name the principal with -s",
    AuthReason.UNKNOWN_CLIENT: "the KDC does not know your principal: run kinit as another one",
    AuthReason.CLOCK: "set the clock of this machine, or that of the KDC",
    AuthReason.NO_KDC: "check krb5.conf, and whether the KDC runs and can be reached from here",
}


def examine(host: str, principal: str | None, limit: float) -> Generator[Step, None, None]:
    """Look at the tickets.

    Args:
        host: the server's.
        principal: the server's; None is host/HOST.
        limit: seconds that a step may take.
    """
    credentials = yield from _own(limit)
    if credentials is None:
        yield skipped("service", "not asked for, since there is no ticket")
    else:
        yield from _service(host, principal, credentials, limit)


def _own(limit: float) -> Generator[Step, None, Ticket | Credentials | None]:
    """Return the ticket-granting ticket, or where tickets are if there is no such one among them."""
    source = Credentials.default()
    try:
        ticket, name = within(limit, lambda: _look(source))
    except RemctlAuthenticationError as error:
        yield _refused("ticket", error)
        return None
    except LATE:
        yield _late("ticket", limit)
        return None
    if ticket is None:
        text = f"{name} has tickets for services alone, and no ticket-granting ticket to get others with"
        yield warning("ticket", text, "run kinit, unless somebody gave you exactly these")
        return source
    text = f"{ticket.principal}, in {name}, until {_clock(ticket.end)}"
    yield ok("ticket", text) if ticket.left > SOON else warning("ticket", text, "it ends soon: run kinit")
    return ticket


def _look(source: Credentials) -> tuple[Ticket | None, str]:
    """Return the ticket-granting ticket, if there is one, and the name of the cache."""
    lifetime(source)
    context = krb5.init_context()
    cache = krb5.cc_default(context)
    kind, name = (krb5.cc_get_type(context, cache) or b"").decode(), krb5.cc_get_name(context, cache).decode()
    return read(source), f"{kind}:{name}"


def _service(
    host: str, principal: str | None, source: Ticket | Credentials, limit: float
) -> Generator[Step, None, None]:
    try:
        step = within(limit, lambda: _ask(host, principal, source))
    except RemctlAuthenticationError as error:
        yield _refused("service", error)
    except LATE:
        yield _late("service", limit)
    else:
        yield step


def _ask(host: str, principal: str | None, source: Ticket | Credentials) -> Step:
    if isinstance(source, Credentials):
        InitiatorContext(host, principal, source).step(None)
        return ok("service", "there is a ticket for it")
    context = source.context
    cache = krb5.cc_new_unique(context, b"MEMORY")
    try:
        krb5.cc_initialize(context, cache, source.creds.client)
        krb5.cc_store_cred(context, cache, source.creds)
        name = krb5.cc_get_name(context, cache).decode()
        InitiatorContext(host, principal, Credentials.from_ccache(f"MEMORY:{name}")).step(None)
        *_, got = (each for each in cache if not str(each.server).startswith("krbtgt/"))
        key = krb5.enctype_to_name(got.keyblock.enctype)
    finally:
        krb5.cc_destroy(context, cache)
    text = f"{got.server}, key {key}, until {_clock(got.times.endtime)}"
    if key.startswith(WEAK):
        return warning("service", text, "such keys can be broken: have the server's principal given an AES key")
    return ok("service", text)


def _refused(name: str, error: RemctlAuthenticationError) -> Step:
    reason = reason_of(error)
    return failed(name, brief(error.reason), _MENDS.get(reason) or error.hint, reason)


def _late(name: str, limit: float) -> Step:
    return failed(name, f"no answer within {limit:g} s", _MENDS[AuthReason.NO_KDC], AuthReason.NO_KDC)


def _clock(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
