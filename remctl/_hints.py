"""What to do about a failure, where that is known: the last part of an error's text.

The texts of MIT Kerberos are matched only to choose a hint, never to choose the class of an error: they change with
release and language, and a hint that is missing misleads nobody.
"""

from __future__ import annotations

from remctl.types import ErrorCode

_AUTHENTICATION = (
    (("Unknown credential cache type",), "there is no such kind of ticket cache here: check its name"),
    (("No Kerberos credentials", "No credentials cache", "credentials cache file"), "no ticket: run kinit"),
    (("Ticket expired", "expired"), "the ticket has expired: run kinit"),
    (
        ("not found in Kerberos database", "Cannot determine realm"),
        "the KDC does not know the server's principal: check the host name, or name the principal",
    ),
    (
        (
            "ticket isn't for us",
            "Wrong principal",
            "No key table entry",
            "Key version",
            "Decrypt integrity check failed",
        ),
        "the server's keytab does not fit that principal: name the principal it runs as, or renew keytab and ticket",
    ),
    (("Clock skew", "not yet valid"), "the clocks differ: set the time on this machine and the server"),
    (
        ("Cannot contact any KDC", "Cannot find KDC", "Cannot resolve network address for KDC"),
        "no KDC answers for the realm: check krb5.conf and the network",
    ),
    (("No credentials were supplied",), "no ticket: run kinit"),
)

_CREDENTIALS = (
    (("entry in database has expired",), "the account has expired: ask who keeps the realm"),
    (("Password has expired",), "the password has expired: change it with kpasswd"),
    (("have been revoked",), "the account is locked or disabled: ask who keeps the realm"),
    (("not found in Kerberos database",), "the KDC does not know that principal"),
    (
        ("Decrypt integrity check failed", "Preauthentication failed", "Password incorrect"),
        "the password, or the key in the keytab, is not the principal's",
    ),
)

_KEYTAB = "klist -k shows whether the keytab has a key of the principal"

_COMMAND = {
    ErrorCode.UNKNOWN_COMMAND: "the command 'help' lists what the server offers, where it offers help",
    ErrorCode.ACCESS: "the command's ACL does not admit your principal (klist shows it)",
}


def for_authentication(text: str) -> str | None:
    """Return the hint for a GSS-API or Kerberos message, or None."""
    return _find(_AUTHENTICATION, text)


def for_credentials(kind: str, text: str) -> str | None:
    """Return the hint for a message that came when tickets were asked for: with a "keytab", or with something else."""
    if hint := _find(_CREDENTIALS, text):
        return hint
    return _KEYTAB if kind == "keytab" and "No credentials cache" in text else for_authentication(text)


def for_command(code: int) -> str | None:
    """Return the hint for the code of an error token, or None."""
    return _COMMAND.get(code)  # type: ignore[call-overload, no-any-return]  # an IntEnum key is found by its number


def _find(table: tuple[tuple[tuple[str, ...], str], ...], text: str) -> str | None:
    return next((hint for signs, hint in table if any(sign in text for sign in signs)), None)
