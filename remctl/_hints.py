"""What to do about a failure, where that is known: the last part of an error's text.

The texts of MIT Kerberos are matched only to choose a hint, never to choose the class of an error: they change with
release and language, and a hint that is missing misleads nobody.
"""

from __future__ import annotations

from remctl.types import ErrorCode

_AUTHENTICATION = (
    (("No Kerberos credentials", "No credentials cache", "credentials cache file"), "no ticket: run kinit"),
    (("Ticket expired", "expired"), "the ticket has expired: run kinit"),
    (
        ("not found in Kerberos database", "Cannot determine realm"),
        "the KDC does not know the server's principal: check the host name, or name the principal",
    ),
    (
        ("ticket isn't for us", "Wrong principal", "No key table entry", "Decrypt integrity check failed"),
        "the server's keytab does not fit that principal: name the principal it runs as, or renew keytab and ticket",
    ),
    (("Clock skew", "not yet valid"), "the clocks differ: set the time on this machine and the server"),
    (
        ("Cannot contact any KDC", "Cannot find KDC", "Cannot resolve network address for KDC"),
        "no KDC answers for the realm: check krb5.conf and the network",
    ),
)

_COMMAND = {
    ErrorCode.UNKNOWN_COMMAND: "the command 'help' lists what the server offers, where it offers help",
    ErrorCode.ACCESS: "the command's ACL does not admit your principal (klist shows it)",
}


def for_authentication(text: str) -> str | None:
    """Return the hint for a GSS-API or Kerberos message, or None."""
    return next((hint for signs, hint in _AUTHENTICATION if any(sign in text for sign in signs)), None)


def for_command(code: int) -> str | None:
    """Return the hint for the code of an error token, or None."""
    return _COMMAND.get(code)  # type: ignore[call-overload, no-any-return]  # an IntEnum key is found by its number
