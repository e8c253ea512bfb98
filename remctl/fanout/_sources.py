"""Where the ticket-granting ticket of a run comes from: a ticket cache, a keytab, or a password.

Below `_tickets`.  All that is called here may block: for a file, or for as long as Kerberos tries to reach a KDC.

Needs pykrb5: `pip install 'remctl-cffi[fanout]'`.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from gssapi.raw.misc import GSSError

from remctl import _kerberos
from remctl._kerberos import Code
from remctl.exceptions import RemctlAuthenticationError
from remctl.security import Credentials

try:
    import krb5
except ImportError as missing:
    raise ImportError("pykrb5 is missing: pip install 'remctl-cffi[fanout]'") from missing

MARGIN: Final = 60
"""Seconds before its end at which a ticket counts as one that ends, unless that is more than a tenth of its life."""


class Ticket:
    """A ticket-granting ticket, and the context that it came in.

    The context knows how far the clock here is off the KDC's, and hands that on to the caches that are made with it.
    It must not be used on two threads at the same time.
    """

    def __init__(self, context: krb5.Context, creds: krb5.Creds) -> None:
        self.context = context
        self.creds = creds
        self.principal = str(creds.client)
        times = creds.times
        self.end = times.endtime
        self._margin = min(MARGIN, (times.endtime - (times.starttime or times.authtime)) / 10)

    @property
    def left(self) -> float:
        """Seconds until it ends, by the KDC's clock; negative when it has ended."""
        seconds, microseconds = krb5.us_timeofday(self.context)
        return self.end - seconds - microseconds / 1e6

    @property
    def ending(self) -> bool:
        """Whether it is time for another one."""
        return self.left < self._margin


def read(credentials: Credentials) -> Ticket | None:
    """Return the ticket-granting ticket of a cache, the one that ends last; None if there is none, or no such cache.

    All of the cache is read, which takes a while if many thousand service tickets are in it.
    """
    try:
        context = krb5.init_context()
        name = credentials._name
        cache = krb5.cc_resolve(context, os.fsencode(name)) if name else krb5.cc_default(context)
        owner = krb5.cc_get_principal(context, cache)
        granting = f"krbtgt/{owner.realm.decode()}@{owner.realm.decode()}"
        found = [each for each in cache if str(each.server) == granting and str(each.client) == str(owner)]
    except krb5.Krb5Error:
        return None  # `lifetime` says why
    return Ticket(context, max(found, key=lambda each: each.times.endtime)) if found else None


def lifetime(credentials: Credentials) -> float | None:
    """Return for how many seconds there are tickets; None if they do not end.

    This is where GSS-API gets a ticket-granting ticket for a default cache that has none, if there is a client keytab.

    Raises:
        RemctlAuthenticationError: there is no ticket, or it has ended.
    """
    with contextlib.suppress(GSSError):  # they have ended
        left: float | None = Credentials(credentials._kind, credentials._name).acquire().lifetime
        return left
    raise expired()


def get(credentials: Credentials) -> Ticket:
    """Get a ticket-granting ticket with a key or a password.

    Raises:
        RemctlAuthenticationError: there is no such key, the KDC does not take it, or none answers.
    """
    try:
        context = krb5.init_context()
        owner = krb5.parse_name_flags(context, credentials._principal.encode())
        options = krb5.get_init_creds_opt_alloc(context)
        if credentials._kind == "keytab":
            keytab = krb5.kt_resolve(context, os.fsencode(credentials._name))
            krb5.kt_get_entry(context, keytab, owner)  # without a key the KDC is not asked
            return Ticket(context, krb5.get_init_creds_keytab(context, owner, options, keytab))
        secret = credentials._secret.encode()
        return Ticket(context, krb5.get_init_creds_password(context, owner, options, secret))
    except krb5.Krb5Error as error:
        raise _refused(error) from error


def expired() -> RemctlAuthenticationError:
    """Make the error for a ticket that has ended."""
    return _refused(krb5.Krb5Error(krb5.init_context(), Code.TKT_EXPIRED))


def _refused(cause: krb5.Krb5Error) -> RemctlAuthenticationError:
    code = cause.err_code
    text = f"authentication failed: {_kerberos.words(cause)}"
    error = RemctlAuthenticationError(text, code=code, hint=_kerberos.hint_for_login(code))
    error.__cause__ = cause
    return error
