"""The key that is made of a password, with libkrb5: made as the KDC says, proved by a login, and kept as a keytab.

Beside `_secret`, which keeps the keytab's bytes in a file; what is here knows of no file but those in memory.  Neither
a password nor a key is in any error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from typing import Final

from remctl import _kerberos
from remctl._kerberos import words
from remctl.jobs.headless._codes import Code, HeadlessError

try:
    import krb5
except ImportError as missing:
    raise ImportError("pykrb5 is missing: pip install 'remctl-cffi[headless]'") from missing

_VERSION: Final = b"\x05\x02"
"""How a keytab begins; libkrb5 adds keys to a file that does so, and to no empty one."""

_KVNO: Final = 1

_PROCESS: Final = secrets.token_bytes(32)
"""So that the name of a keytab in memory, which is in logs, is of no use for trying passwords."""


def principal(user: str) -> str:
    """Return a principal's full name.

    Args:
        user: with its realm, or without, which stands for the default realm of krb5.conf.

    Raises:
        HeadlessError: PARAMETER: that is no principal, or there is no default realm.
    """
    context = _context()
    try:
        return str(krb5.parse_name_flags(context, user.encode()))
    except (krb5.Krb5Error, ValueError) as error:
        raise HeadlessError(
            f"{user!r} is no principal: {words(error)}", code=Code.PARAMETER, hint="it is given as user@REALM"
        ) from error


def make(name: str, password: str) -> bytes:
    """Make the key of a password, and log in with it; may block for as long as Kerberos tries.

    The KDC names the salt and the encryption type.  It does not say the key's number (kvno), which is 1 here: who logs
    in is not asked for it.

    Args:
        name: the principal, with its realm.
        password: not empty, without NUL.

    Returns:
        A keytab, as it is in files.

    Raises:
        HeadlessError: PARAMETER: no such password can be.  CONNECTION: no KDC answers.  AUTHENTICATION: the KDC does
            not take that principal with that password.
    """
    encoded = _encoded(password)
    try:
        return _make(name, encoded)
    except krb5.Krb5Error as error:
        reason = f"the login of {name} failed: {words(error)}"
        code = Code.CONNECTION if _kerberos.unreachable(error) else Code.AUTHENTICATION
        raise HeadlessError(reason, code=code, hint=_kerberos.hint_for_login(error.err_code)) from error


def _make(name: str, password: bytes) -> bytes:
    context = _context()
    owner = krb5.parse_name_flags(context, name.encode())
    options = krb5.get_init_creds_opt_alloc(context)
    info = krb5.get_etype_info(context, owner, options)
    if not info.etype:
        raise HeadlessError(
            f"the KDC does not say how the key of {name} is made",
            code=Code.AUTHENTICATION,
            hint="make the keytab with ktutil, and name that",
        )
    key = krb5.c_string_to_key(context, info.etype, password, info.salt or b"", info.s2kparams)
    with _file(_VERSION) as (descriptor, path):
        keytab = krb5.kt_resolve(context, path)
        krb5.kt_add_entry(context, keytab, owner, _KVNO, int(time.time()), key)
        krb5.get_init_creds_keytab(context, owner, options, keytab)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


@contextlib.contextmanager
def held(content: bytes, name: str, source: str) -> Iterator[str]:
    """Hold a principal's keys in memory for the length of a `with`.

    Args:
        content: a keytab, as it is in files.
        name: the principal, with its realm.
        source: what to call the keytab in errors.

    Yields:
        The name of a keytab that every part of this process can use.  It is another for other content: tickets are
        shared by those who hold the same keys, and by nobody else.

    Raises:
        HeadlessError: PARAMETER: that is no keytab.  AUTHENTICATION: it has no key of the principal.
    """
    digest = hashlib.blake2b(name.encode() + b"\0" + content, key=_PROCESS, digest_size=16).hexdigest()
    context = _context()
    keytab = krb5.kt_resolve(context, f"MEMORY:remctl-{digest}".encode())  # it is there until nobody has it resolved
    with _file(content) as (_, path):
        try:
            owners = _copy(context, krb5.kt_resolve(context, path), keytab, name)
        except krb5.Krb5Error as error:
            raise HeadlessError(f"{source} is no keytab: {words(error)}", code=Code.PARAMETER) from error
    if not owners:
        raise HeadlessError(f"{source} is a keytab without keys", code=Code.PARAMETER)
    if name not in owners:
        others = ", ".join(sorted(owners))
        raise HeadlessError(f"{source} has no key of {name}, but of {others}", code=Code.AUTHENTICATION)
    yield f"MEMORY:remctl-{digest}"


def _context() -> krb5.Context:
    try:
        return krb5.init_context()
    except krb5.Krb5Error as error:
        raise HeadlessError(
            f"Kerberos cannot be set up: {words(error)}", code=Code.AUTHENTICATION, hint="check krb5.conf"
        ) from error


def _copy(context: krb5.Context, source: krb5.KeyTab, target: krb5.KeyTab, name: str) -> set[str]:
    """Copy a principal's keys, and return the names of all who have keys there."""
    owners = set()
    for entry in source:
        owners.add(str(entry.principal))
        if str(entry.principal) == name:
            krb5.kt_add_entry(context, target, entry.principal, entry.kvno, entry.timestamp, entry.key)
    return owners


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the descriptor and the name of a file in memory; libkrb5 reads and writes keytab files by name alone."""
    descriptor = os.memfd_create("keytab")
    try:
        os.write(descriptor, content)
        yield descriptor, f"FILE:/proc/self/fd/{descriptor}".encode()
    finally:
        os.close(descriptor)


def _encoded(password: str) -> bytes:
    with contextlib.suppress(UnicodeEncodeError):  # which holds the password
        encoded = password.encode()
        if encoded and b"\0" not in encoded:
            return encoded
    raise HeadlessError("the password is empty, has a NUL in it, or is no valid text", code=Code.PARAMETER)
