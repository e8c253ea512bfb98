"""The local account of a principal, as the system's Kerberos has it: for `acl`, and below it.

libkrb5 is called through ctypes and not through the extension, so that building this package needs no headers of it; it
is in the process already, beneath libremctl.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import ExitStack
from typing import Final

from remctl._arguments import decoded, encoded

_LIBRARY: Final = "libkrb5.so.3"

_NO_LOCAL_NAME: Final = {-1765328227, -1765328208}
"""KRB5_NO_LOCALNAME and KRB5_LNAME_NOTRANS: there is no account for that principal, which is no failure."""

_NAME: Final = 8192
"""Bytes of a local name, more than any system has."""


def local_name(principal: str) -> str | None:
    """Return the local account's name, or None if the principal has none.

    It follows `auth_to_local` of krb5.conf; by default name@REALM is `name` in the default realm, and all others have
    none.  May read files.  Any thread may call it: each call has a Kerberos context of its own.

    Raises:
        OSError: libkrb5 is not there.
        ValueError: it cannot read its configuration, or the principal; the text is its own.
    """
    krb5 = _libkrb5()
    context, parsed, name = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.create_string_buffer(_NAME)

    def check(code: int) -> None:
        if code != 0:
            text = krb5.krb5_get_error_message(context, code)
            undo.callback(krb5.krb5_free_error_message, context, text)
            raise ValueError(ctypes.string_at(text.value).decode("utf-8", "backslashreplace"))

    with ExitStack() as undo:
        check(krb5.krb5_init_context(ctypes.byref(context)))
        undo.callback(krb5.krb5_free_context, context)
        check(krb5.krb5_parse_name(context, encoded(principal), ctypes.byref(parsed)))
        undo.callback(krb5.krb5_free_principal, context, parsed)
        code = krb5.krb5_aname_to_localname(context, parsed, _NAME, name)
        if code in _NO_LOCAL_NAME:
            return None
        check(code)
        return decoded(name.value)


@functools.cache
def _libkrb5() -> ctypes.CDLL:
    """All other functions return an int, as ctypes supposes, or nothing that is looked at."""
    library = ctypes.CDLL(_LIBRARY)
    library.krb5_get_error_message.restype = _Message
    return library


class _Message(ctypes.c_void_p):
    """A subclass, since ctypes turns a plain c_void_p that is returned into an int, which it would pass on cut."""
