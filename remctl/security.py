"""GSS-API for the protocol: credentials, and the security contexts of both sides, on python-gssapi.

Between `protocol`, which says what it needs as an interface, and `aio`.  Kerberos 5 is the one mechanism, as with
libremctl.  Whatever may talk to a KDC or read a file is left to `step` and `acquire`, which may block for as long as
Kerberos tries; everything else is computing.

Needs python-gssapi: `pip install 'remctl-cffi[aio]'`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Final, NoReturn, cast

from remctl import _arguments, _hints, _kerberos
from remctl.exceptions import RemctlAuthenticationError

try:
    import gssapi
    from gssapi import raw
    from gssapi.raw.misc import GSSError
except ImportError as missing:
    raise ImportError("python-gssapi is missing: pip install 'remctl-cffi[aio]'") from missing

__all__ = ["AcceptorContext", "Credentials", "InitiatorContext", "ServerCredentials"]

_KERBEROS: Final = gssapi.MechType.kerberos

_PROTECTION: Final = {
    gssapi.RequirementFlag.mutual_authentication: "mutual authentication",
    gssapi.RequirementFlag.confidentiality: "confidentiality",
    gssapi.RequirementFlag.integrity: "integrity",
}
"""What both sides must find in a context of protocol 2 or 3."""

_REQUESTED: Final = sum(_PROTECTION) + sum(
    (gssapi.RequirementFlag.replay_detection, gssapi.RequirementFlag.out_of_sequence_detection)
)
"""What a client asks for; remctld takes contexts without the last two."""

_RENEWAL: Final = 60
"""Seconds before their end at which tickets got with a password or a key are replaced."""


class Credentials:
    """Whose tickets a client uses.  Made by the class methods; nothing is read, and no KDC asked, before `acquire`.

    One object may serve many connections, in any threads, which then share the tickets; those of another principal are
    never touched, nor is the default ticket cache, except that `default` reads it and stores service tickets in it, as
    every Kerberos program does.
    """

    def __init__(self, kind: str, name: str = "", principal: str = "", secret: str = "") -> None:
        self._kind = kind
        self._name = name
        self._principal = principal
        self._secret = secret
        self._lock = threading.Lock()
        self._acquired: gssapi.Credentials | None = None

    @classmethod
    def default(cls) -> Credentials:
        """Those of the default ticket cache (the variable KRB5CCNAME, or else krb5.conf's)."""
        return cls("default")

    @classmethod
    def from_ccache(cls, name: str | os.PathLike[str]) -> Credentials:
        """Those of a ticket cache.

        Args:
            name: FILE:/path, KEYRING:..., MEMORY:..., or a path.

        Raises:
            TypeError, ValueError: no text, or empty.
        """
        return cls("ccache", _arguments.check_path("ccache", name))

    @classmethod
    def from_keytab(cls, keytab: str | os.PathLike[str], principal: str) -> Credentials:
        """Tickets got with a key, kept in memory, and replaced before they end.

        All objects for the same keytab and principal share them, for as long as the process lives.

        Args:
            keytab: path of the keytab.
            principal: whose key to use.

        Raises:
            TypeError, ValueError: an argument is no text, or empty.
        """
        path = _absolute(_arguments.check_path("keytab", keytab))
        return cls("keytab", path, _arguments.check_text("principal", principal))

    @classmethod
    def from_password(cls, principal: str, password: str) -> Credentials:
        """Tickets got with a password, kept in memory, and replaced before they end.

        Args:
            principal: whose password it is.
            password: never logged, and in no error.

        Raises:
            TypeError, ValueError: an argument is no text, or empty.
        """
        return cls("password", "", _arguments.check_text("principal", principal), _check_password(password))

    def __repr__(self) -> str:
        return f"<remctl.security.Credentials, {' '.join(filter(None, (self._kind, self._name, self._principal)))}>"

    def acquire(self) -> gssapi.Credentials:
        """Return the GSS-API credentials, from the KDC if need be.  May block; may be called from any thread.

        Raises:
            RemctlAuthenticationError: there is no such cache, key or principal, or no KDC answers.
        """
        with self._lock:
            if self._acquired is None or (self._kind in ("keytab", "password") and self._ending()):
                self._acquired = self._acquire()
            return self._acquired

    def _acquire(self) -> gssapi.Credentials:
        if self._kind == "keytab":
            _check_keytab(self._name)
        try:
            return self._get()
        except GSSError as error:
            text = _text(error)
            hint = _hints.for_credentials(self._kind, text)
            code = _kerberos.code_of(error)
            raise RemctlAuthenticationError(f"authentication failed: {text}", code=code, hint=hint) from error

    def _get(self) -> gssapi.Credentials:
        if self._kind == "default":
            return gssapi.Credentials(usage="initiate", mechs=[_KERBEROS])
        if self._kind == "ccache":
            return gssapi.Credentials(usage="initiate", mechs=[_KERBEROS], store={"ccache": os.fsencode(self._name)})
        name = gssapi.Name(self._principal, gssapi.NameType.kerberos_principal)
        if self._kind == "password":
            got = raw.acquire_cred_with_password(name, self._secret.encode(), usage="initiate", mechs=[_KERBEROS])
            return gssapi.Credentials(base=got.creds)
        # One cache for each key: GSS-API gets, and later replaces, the tickets in it, and memory caches never end.
        digest = hashlib.sha256(f"{self._name}\0{self._principal}".encode("utf-8", "surrogateescape")).hexdigest()
        return gssapi.Credentials(
            name=name,
            usage="initiate",
            mechs=[_KERBEROS],
            store={"client_keytab": os.fsencode(self._name), "ccache": f"MEMORY:remctl-{digest}"},
        )

    def _ending(self) -> bool:
        assert self._acquired is not None
        try:
            lifetime = self._acquired.lifetime
        except GSSError:  # they have ended
            return True
        return lifetime is not None and lifetime < _RENEWAL


class ServerCredentials:
    """The key a server authenticates with.

    Args:
        keytab: path of the keytab; None is the default one (the variable KRB5_KTNAME, or else /etc/krb5.keytab).
        principal: whose key of it to use; None takes whichever a client has a ticket for.

    Raises:
        TypeError, ValueError: an argument is no text, or empty.
    """

    def __init__(self, keytab: str | os.PathLike[str] | None = None, principal: str | None = None) -> None:
        self._keytab = None if keytab is None else _arguments.check_path("keytab", keytab)
        self._principal = _arguments.check_principal(principal)

    def acquire(self) -> gssapi.Credentials:
        """Return the GSS-API credentials.  Reads the keytab, and so may block.

        Raises:
            RemctlAuthenticationError: there is no such keytab, or no such key in it.
        """
        name = None
        if self._keytab is not None:
            _check_keytab(self._keytab)
        try:
            if self._principal is not None:
                name = gssapi.Name(self._principal, gssapi.NameType.kerberos_principal)
            if self._keytab is None:
                return gssapi.Credentials(name=name, usage="accept", mechs=[_KERBEROS])
            store: dict[str | bytes, str | bytes] = {"keytab": os.fsencode(self._keytab)}
            return gssapi.Credentials(name=name, usage="accept", mechs=[_KERBEROS], store=store)
        except GSSError as error:
            text = f"no key for {self._principal or 'a server'} in the keytab {self._keytab or '(default)'}"
            raise RemctlAuthenticationError(
                f"{text}: {_text(error)}", hint="klist -k shows what a keytab holds"
            ) from error


class _Context:
    """What the contexts of both sides have in common; see `remctl.protocol.SecurityContext`."""

    def __init__(self) -> None:
        self._context: raw.SecurityContext | None = None
        self._flags = 0
        self._complete = False
        self._failure: GSSError | None = None

    @property
    def complete(self) -> bool:
        """Whether both sides have authenticated; raises the error of a step that had a token for the other side."""
        if self._failure is not None:
            _refuse("authentication failed", self._failure)
        return self._complete

    @property
    def lacking(self) -> tuple[str, ...]:
        """Which of the required protections a complete context does not give."""
        return tuple(name for flag, name in _PROTECTION.items() if not flag & self._flags)

    def step(self, token: bytes | None) -> bytes | None:
        """See `SecurityContext.step`."""
        try:
            return self._step(token)
        except GSSError as error:
            if not error.token:
                _refuse("authentication failed", error)
            self._failure = error
            return error.token

    def _step(self, token: bytes | None) -> bytes | None:
        raise NotImplementedError

    def wrap(self, message: bytes) -> bytes:
        """Return the message encrypted and authenticated."""
        try:
            token, encrypted = raw.wrap(self._established(), message)
        except GSSError as error:
            _refuse("a message could not be encrypted", error)
        if not encrypted:
            raise RemctlAuthenticationError("a message could not be encrypted")
        return token

    def unwrap(self, token: bytes) -> bytes:
        """Return the message, if it was encrypted, is authentic, and is the next one."""
        try:
            message, encrypted, _ = raw.unwrap(self._established(), token)
        except GSSError as error:
            _refuse("a token is not authentic", error)
        if not encrypted:
            raise RemctlAuthenticationError("a token came that was not encrypted")
        return message

    def sign(self, message: bytes) -> bytes:
        """Return the MIC of a message."""
        try:
            return raw.get_mic(self._established(), message)
        except GSSError as error:
            _refuse("a MIC could not be made", error)

    def verify(self, message: bytes, mic: bytes) -> None:
        """Check the MIC of a message."""
        try:
            raw.verify_mic(self._established(), message, mic)
        except GSSError as error:
            _refuse("a MIC is not authentic", error)

    def _established(self) -> gssapi.SecurityContext:
        assert self._context is not None
        return cast("gssapi.SecurityContext", self._context)  # which is what the stubs ask for, in vain


class InitiatorContext(_Context):
    """A client's side of a security context.

    Args:
        host: the server's host.
        principal: the server's principal; None is host/HOST in the realm that Kerberos gives the host.
        credentials: whose tickets to use.
    """

    def __init__(self, host: str, principal: str | None, credentials: Credentials) -> None:
        super().__init__()
        self._host = host
        self._principal = principal
        self._credentials = credentials
        self._name: gssapi.Name | None = None
        self._acquired: gssapi.Credentials | None = None

    def _step(self, token: bytes | None) -> bytes | None:
        """Compute; the first time, ask a name service and a KDC."""
        if self._name is None:
            self._name = self._import_name()
            self._acquired = self._credentials.acquire()
        result = raw.init_sec_context(
            self._name, self._acquired, self._context, _KERBEROS, _REQUESTED, input_token=token
        )
        self._context, self._flags, self._complete = result.context, int(result.flags), not result.more_steps
        return result.token

    def _import_name(self) -> gssapi.Name:
        if self._principal is None:
            return gssapi.Name(f"host@{self._host}", gssapi.NameType.hostbased_service)
        return gssapi.Name(self._principal, gssapi.NameType.kerberos_principal)


class AcceptorContext(_Context):
    """A server's side of a security context.

    Args:
        credentials: what `ServerCredentials.acquire` returned.
    """

    principal: str
    """The client, once the context is complete: user@REALM."""
    lifetime: float
    """Seconds until the client's ticket ends, once the context is complete; krb5 adds the clock skew that it allows."""

    def __init__(self, credentials: gssapi.Credentials) -> None:
        super().__init__()
        self._credentials = credentials

    def _step(self, token: bytes | None) -> bytes | None:
        """Read the keytab, and write the replay cache."""
        result = raw.accept_sec_context(token or b"", self._credentials, self._context)
        self._context, self._flags, self._complete = result.context, int(result.flags), not result.more_steps
        if self._complete:
            self.principal = raw.display_name(result.initiator_name, name_type=False).name.decode("utf-8", "replace")
            self.lifetime = float(result.lifetime)
        return result.token


def _absolute(keytab: str) -> str:
    """Return a name that means the same in every folder."""
    return keytab if ":" in keytab else str(Path(keytab).absolute())


def _check_keytab(name: str) -> None:
    """GSS-API's words for a keytab that cannot be read are about something else."""
    if ":" in name and not name.startswith(("/", "FILE:")):
        return  # of a kind that is not in the file system
    try:
        Path(name.removeprefix("FILE:")).open("rb").close()
    except OSError as error:
        raise RemctlAuthenticationError(f"the keytab {name!r} cannot be read: {error.strerror}") from None


def _check_password(password: object) -> str:
    """Check it as other texts are, without showing it in an error."""
    if not isinstance(password, str):
        raise TypeError(f"password must be a str, and is a {type(password).__name__}")
    if not password or "\0" in password:
        raise ValueError("password must not be empty, and must not contain NUL")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise ValueError("password is no valid text") from None
    return password


def _refuse(what: str, error: GSSError) -> NoReturn:
    """Raise the error of this package for one of GSS-API's."""
    text = _text(error)
    hint = _hints.for_authentication(text)
    raise RemctlAuthenticationError(f"{what}: {text}", code=_kerberos.code_of(error), hint=hint) from error


def _text(error: GSSError) -> str:
    """Return GSS-API's words, the general first; bytes that are no UTF-8 are shown escaped."""
    codes = ((error.maj_code, True), (error.min_code, False))
    statuses = [status for code, major in codes if code for status in error.get_all_statuses(code, major)]
    return "GSS-API error: " + ", ".join(str(status).strip().rstrip(".") for status in statuses)
