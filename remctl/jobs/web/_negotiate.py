"""Kerberos for the page: who has sent a ticket, and whose password it is that somebody has typed.

Both end in the same proof: a ticket for our own HTTP principal that our own key opens.  Nothing here knows of HTTP; all
calls may block, for as long as Kerberos tries to reach a KDC.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import gssapi
from gssapi import raw
from gssapi.raw.exceptions import BadNameError
from gssapi.raw.ext_rfc4178 import set_neg_mechs
from gssapi.raw.misc import GSSError

from remctl._arguments import printable
from remctl.exceptions import RemctlError
from remctl.jobs.settings import Settings

logger = logging.getLogger(__name__)

_KERBEROS: Final = gssapi.MechType.kerberos

_SPNEGO: Final = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")

_KRB5: Final = -1765328384
"""Where krb5's error codes begin."""

_WRONG: Final = "wrong name or password"

_REFUSALS: Final = {
    1: "this account has expired",  # KDC_ERR_NAME_EXP
    6: _WRONG,  # KDC_ERR_C_PRINCIPAL_UNKNOWN
    18: "this account is locked",  # KDC_ERR_CLIENT_REVOKED
    23: "the password of this account has expired: change it with kpasswd",  # KDC_ERR_KEY_EXP
    24: _WRONG,  # KDC_ERR_PREAUTH_FAILED
    31: _WRONG,  # KRB_AP_ERR_BAD_INTEGRITY: the KDC's answer is for another password
    154: "there is no such realm, or no server of it is known here",  # KRB5_REALM_UNKNOWN
}
"""What the error codes mean that are about the person who signs in."""

_UNREACHABLE: Final = 156  # KRB5_KDC_UNREACH


class RefusedError(RemctlError):
    """Somebody did not prove who they are; the text is for them."""


class UnavailableError(RemctlError):
    """Nobody can sign in at the moment; the text is for people, and the log says more."""


class NotSetUpError(UnavailableError):
    """The server has no key, and an administrator has to give it one."""


class Caller(NamedTuple):
    """Somebody who has proved who they are."""

    principal: str
    """user@REALM."""
    lifetime: float
    """Seconds until the ticket ends."""
    answer: bytes | None
    """What proves to the caller in turn who we are, if that was asked for."""


class Gate:
    """What is asked who somebody is; any number of threads may use it.

    Args:
        settings: the configuration: where the keys are, and the name that people reach the server by.
    """

    def __init__(self, settings: Settings) -> None:
        keytab = settings.server.keytab
        self._keytab = None if keytab is None else settings.path(keytab)
        self._service = f"HTTP@{host_of(settings)}"

    def check(self) -> None:
        """Look whether there is a key at all.

        Raises:
            NotSetUpError: there is none.
        """
        self._acceptor()

    def by_token(self, token: bytes) -> Caller:
        """Return who has sent a token of HTTP Negotiate.

        Raises:
            RefusedError: it is no token, or for another server, too old, or a copy.
            NotSetUpError: there is no key.
        """
        acceptor = self._acceptor()
        try:
            return _accepted(token, acceptor)
        except GSSError as error:
            logger.warning("a ticket was refused: %s", _words(error))
            raise RefusedError("your Kerberos ticket was not accepted") from error

    def by_password(self, name: str, password: str) -> Caller:
        """Return who somebody is, by name and password.

        No ticket cache is read or written but one of its own in memory, which is gone in the end.

        Args:
            name: a principal; without realm it is of the default one.
            password: never logged, and in no error.

        Raises:
            RefusedError: the password is wrong, or the account may not be used.
            UnavailableError: no KDC answers, or its answer does not fit our key.
            NotSetUpError: there is no key.
        """
        acceptor = self._acceptor()
        if not password or "\0" in name + password:
            raise RefusedError(_WRONG)
        try:
            token = self._ticket(name, password)
        except (BadNameError, UnicodeEncodeError) as error:
            raise RefusedError(_WRONG) from error
        except GSSError as error:
            logger.warning("%s: a ticket for %s failed: %s", printable(name.encode()), self._service, _words(error))
            raise _refusal(error) from error
        try:
            return _accepted(token, acceptor)
        except GSSError as error:  # it was no KDC of ours that said so, or we have an old key
            logger.error("the KDC's ticket for %s does not fit the key here: %s", self._service, _words(error))  # noqa: TRY400
            raise UnavailableError("signing in does not work: the Kerberos server is not the right one") from error

    def _ticket(self, name: str, password: str) -> bytes:
        user = gssapi.Name(name, gssapi.NameType.kerberos_principal)
        got = raw.acquire_cred_with_password(user, password.encode(), usage="initiate", mechs=[_KERBEROS])
        service = gssapi.Name(self._service, gssapi.NameType.hostbased_service)
        begun = raw.init_sec_context(service, got.creds, None, _KERBEROS, ())
        assert begun.token is not None
        return begun.token

    def _acceptor(self) -> gssapi.Credentials:
        """Any key of HTTP: a server may have several names, and its keytab the keys of other services."""
        store: dict[str | bytes, str | bytes] | None = None
        if self._keytab is not None:
            store = {"keytab": os.fsencode(self._keytab)}
        try:
            name = gssapi.Name("HTTP", gssapi.NameType.hostbased_service)
            found = gssapi.Credentials(name=name, usage="accept", mechs=[_KERBEROS, _SPNEGO], store=store)
            set_neg_mechs(found, [_KERBEROS])
        except GSSError as error:
            where = self._keytab or "the system's keytab"
            logger.error("nobody can sign in, there is no key for HTTP in %s: %s", where, _words(error))  # noqa: TRY400
            raise NotSetUpError("Kerberos is not set up here") from error
        return found


def host_of(settings: Settings) -> str:
    """Return the name that people reach the server by: the URL's host, or the machine's name if that is an address."""
    host = urlsplit(settings.url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host or socket.getfqdn()
    return socket.getfqdn()


def _accepted(token: bytes, acceptor: gssapi.Credentials) -> Caller:
    result = raw.accept_sec_context(token, acceptor)
    if result.more_steps:  # of which HTTP has only one
        raise RefusedError("your browser did not send a Kerberos ticket")
    principal = raw.display_name(result.initiator_name, name_type=False).name.decode("utf-8", "replace")
    return Caller(principal, float(result.lifetime), result.token)


def _refusal(error: GSSError) -> RemctlError:
    code = (error.min_code - (1 << 32) if error.min_code >> 31 else error.min_code) - _KRB5
    if text := _REFUSALS.get(code):
        return RefusedError(text)
    if code == _UNREACHABLE:
        return UnavailableError("no Kerberos server can be reached: try again later")
    return UnavailableError("signing in does not work: the log of this server says why")


def _words(error: GSSError) -> str:
    return "; ".join(
        str(text)
        for code, major in ((error.maj_code, True), (error.min_code, False))
        if code
        for text in error.get_all_statuses(code, major)
    )
