"""Why Kerberos refused, for those who count and group: by libkrb5's numbers, never by its words."""

from __future__ import annotations

import enum
from typing import Final

from remctl._kerberos import Code
from remctl.exceptions import RemctlAuthenticationError


class AuthReason(enum.StrEnum):
    """What stood in the way of authentication; each member equals its string."""

    NO_TICKET = "no-ticket"
    """There is no ticket cache, or no ticket in it that would do."""
    EXPIRED = "expired"
    """The ticket has ended."""
    UNKNOWN_SERVER = "unknown-server"
    """The KDC does not know the server's principal, or its realm."""
    UNKNOWN_CLIENT = "unknown-client"
    """The KDC does not know the principal that a ticket was asked for."""
    CLOCK = "clock"
    """The clock of this machine, of the KDC or of the server is wrong."""
    NO_KDC = "no-kdc"
    """No KDC is known for the realm, or none answers."""
    WRONG_KEY = "wrong-key"
    """The password or the key is not the principal's; or the server's keytab has no such key as its ticket needs."""
    OTHER = "other"
    """None of these; the error's text says what."""


_REASONS: Final = {
    Code.FCC_NOFILE: AuthReason.NO_TICKET,
    Code.CC_NOTFOUND: AuthReason.NO_TICKET,
    Code.CC_UNKNOWN_TYPE: AuthReason.NO_TICKET,
    Code.KG_EMPTY_CCACHE: AuthReason.NO_TICKET,
    Code.TKT_EXPIRED: AuthReason.EXPIRED,
    Code.S_PRINCIPAL_UNKNOWN: AuthReason.UNKNOWN_SERVER,
    Code.HOST_REALM_UNKNOWN: AuthReason.UNKNOWN_SERVER,
    Code.C_PRINCIPAL_UNKNOWN: AuthReason.UNKNOWN_CLIENT,
    Code.SKEW: AuthReason.CLOCK,
    Code.KDCREP_SKEW: AuthReason.CLOCK,
    Code.TKT_NYV: AuthReason.CLOCK,
    Code.KDC_UNREACH: AuthReason.NO_KDC,
    Code.REALM_UNKNOWN: AuthReason.NO_KDC,
    Code.REALM_CANT_RESOLVE: AuthReason.NO_KDC,
    Code.PREAUTH_FAILED: AuthReason.WRONG_KEY,
    Code.BAD_INTEGRITY: AuthReason.WRONG_KEY,
    Code.KT_NOTFOUND: AuthReason.WRONG_KEY,
    Code.NOT_US: AuthReason.WRONG_KEY,
    Code.MODIFIED: AuthReason.WRONG_KEY,
    Code.BADKEYVER: AuthReason.WRONG_KEY,
    Code.NOKEY: AuthReason.WRONG_KEY,
    Code.WRONG_PRINC: AuthReason.WRONG_KEY,
}


def reason_of(error: RemctlAuthenticationError) -> AuthReason:
    """Return why authentication failed."""
    return _REASONS.get(error.code, AuthReason.OTHER)  # type: ignore[call-overload, no-any-return]  # by its number
