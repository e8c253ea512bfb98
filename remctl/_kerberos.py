"""libkrb5's numbers for what went wrong, and what to do about it.

Lowest layer: an error is looked at, whichever binding raised it, and nothing of Kerberos is imported.  Unlike its
texts, which `_hints` matches, the numbers are the same in all releases and languages.
"""

from __future__ import annotations

import enum
from typing import Final


class Code(enum.IntEnum):
    """The numbers that something is said about here, by libkrb5's names for them."""

    NAME_EXP = -1765328383
    C_PRINCIPAL_UNKNOWN = -1765328378
    S_PRINCIPAL_UNKNOWN = -1765328377
    CLIENT_REVOKED = -1765328366
    KEY_EXP = -1765328361
    PREAUTH_FAILED = -1765328360
    BAD_INTEGRITY = -1765328353
    TKT_EXPIRED = -1765328352
    TKT_NYV = -1765328351
    NOT_US = -1765328349
    SKEW = -1765328347
    MODIFIED = -1765328343
    BADKEYVER = -1765328340
    NOKEY = -1765328339
    CC_UNKNOWN_TYPE = -1765328244
    CC_NOTFOUND = -1765328243
    WRONG_PRINC = -1765328240
    KDCREP_SKEW = -1765328236
    REALM_UNKNOWN = -1765328230
    KDC_UNREACH = -1765328228
    KT_NOTFOUND = -1765328203
    FCC_NOFILE = -1765328189
    HOST_REALM_UNKNOWN = -1765328167
    REALM_CANT_RESOLVE = -1765328164
    KG_EMPTY_CCACHE = 39756044
    """GSS-API's own, as the rest are libkrb5's."""


UNREACHABLE: Final = frozenset({Code.KDC_UNREACH, Code.REALM_UNKNOWN, Code.REALM_CANT_RESOLVE})
"""Nobody has answered who could say whether a ticket is due."""

_NO_KDC: Final = "no KDC answers for the realm: check krb5.conf and the network"

_WRONG: Final = "the password, or the key in the keytab, is not the principal's"

_HINTS: Final = {
    Code.NAME_EXP: "the account has expired: ask who keeps the realm",
    Code.C_PRINCIPAL_UNKNOWN: "the KDC does not know that principal",
    Code.CLIENT_REVOKED: "the account is locked or disabled: ask who keeps the realm",
    Code.KEY_EXP: "the password has expired: change it with kpasswd",
    Code.PREAUTH_FAILED: _WRONG,
    Code.BAD_INTEGRITY: _WRONG,
    Code.TKT_EXPIRED: "the ticket has expired: run kinit",
    Code.SKEW: "the clocks differ: set the time on this machine and the KDC",
    Code.KDCREP_SKEW: "the clocks differ: set the time on this machine and the KDC",
    Code.KT_NOTFOUND: "klist -k shows whether the keytab has a key of the principal",
    **dict.fromkeys(UNREACHABLE, _NO_KDC),
}


def code_of(error: BaseException | None) -> int | None:
    """Return the number of an error, or of the first of its causes that has one; None if none has.

    Args:
        error: one of this package, of pykrb5, or of python-gssapi.
    """
    while error is not None:
        code = getattr(error, "err_code", None) or getattr(error, "min_code", None)
        if code:
            return int(code) - (2**32 if code >= 2**31 else 0)  # GSS-API's are the same numbers without a sign
        error = error.__cause__
    return None


def unreachable(error: BaseException | None) -> bool:
    """Return whether an error is that no KDC answers, or came from one."""
    return code_of(error) in UNREACHABLE


def hint_for_login(code: int | None) -> str | None:
    """Return what to do when no ticket-granting ticket was to be had, or None."""
    return _HINTS.get(code)  # type: ignore[call-overload, no-any-return]  # an IntEnum key is found by its number


def words(error: Exception) -> str:
    """Return libkrb5's words, without the number that pykrb5 puts behind them."""
    return str(error).removesuffix(f" {getattr(error, 'err_code', '')}")
