"""Whose tickets a run uses, and the secret file that they may come from.

The file is a keytab, so every Kerberos program can use it: it holds a key that is made of the password (`_key`), never
the password.  The key is as good as the password all the same, so a file that anybody else may read or may have put
there is refused.  POSIX is needed: what says whose a file is on other systems is not looked at.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
import shlex
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gssapi.raw.misc import GSSError

from remctl.exceptions import RemctlAuthenticationError
from remctl.jobs.headless import _key
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.security import Credentials

_MODE: Final = 0o400

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_LARGEST: Final = 64 * 1024
"""Bytes; a keytab of one principal has some hundred."""

_TRIES: Final = 3

_AGAIN: Final = "remove it, and start once on a terminal, which makes a new one"


# The tickets


@contextlib.contextmanager
def credentials(auth_type: str, user: str | None, secret: Path | None) -> Iterator[Credentials]:
    """Give the tickets of a run, for the length of a `with`.  May block for as long as Kerberos tries.

    Args:
        auth_type: "osuser" takes the tickets of who is logged in; "challenge" gets its own with the key in the secret
            file, in memory, and touches no other cache.
        user: the principal, with or without its realm.  With "osuser" the tickets have to be its own; None takes them
            whosever they are.
        secret: the secret file, which has to be there; not looked at with "osuser".

    Raises:
        HeadlessError: PARAMETER: an argument is wrong or missing, or the secret file is refused.  AUTHENTICATION: the
            tickets, or the keys, are another principal's.
        RemctlAuthenticationError: with "osuser" and a user: there are no tickets.
    """
    if auth_type == "osuser":
        yield _logged_in(user)
    elif auth_type != "challenge":
        raise HeadlessError(f"there is no login {auth_type!r}", code=Code.PARAMETER, hint="it is osuser or challenge")
    elif not user or secret is None:
        raise HeadlessError("the login 'challenge' needs a user and a secret file", code=Code.PARAMETER)
    else:
        principal = _key.principal(user)
        with _key.held(_read(secret), principal, _named(secret)) as keytab:
            yield Credentials.from_keytab(keytab, principal)


def _logged_in(user: str | None) -> Credentials:
    found = Credentials.default()
    if user is None:
        return found
    wanted = _key.principal(user)
    acquired = found.acquire()
    try:
        owner = str(acquired.name)
    except GSSError as error:
        raise RemctlAuthenticationError(
            f"the tickets here cannot be used: {error.gen_message()}", hint="run kinit"
        ) from error
    if owner != wanted:
        raise HeadlessError(
            f"the tickets here are those of {owner}, not of {wanted}",
            code=Code.AUTHENTICATION,
            hint=f"run kinit {wanted}, or name no user",
        )
    return found


# The file is read


def _read(secret: Path) -> bytes:
    """Return what is in a secret file, all of it from the descriptor that was checked."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its other end.
        descriptor = os.open(secret, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(secret, "is a symbolic link", "name the file itself") from None
        raise _refused(secret, f"cannot be opened: {error.strerror}") from None
    try:
        _check(secret, os.fstat(descriptor))
        content = os.read(descriptor, _LARGEST + 1)
    finally:
        os.close(descriptor)
    if not content:
        raise _refused(secret, "is empty", _AGAIN)
    if len(content) > _LARGEST:
        raise _refused(secret, f"is larger than {_LARGEST} bytes, and no secret file of ours", "name another file")
    return content


def _check(secret: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _refused(secret, "is no regular file", "name a file, or a name that is free, on a terminal")
    if found.st_uid != os.geteuid():
        raise _refused(
            secret,
            f"belongs to the user {found.st_uid}, and this is the user {os.geteuid()}",
            "every account makes a secret file of its own",
        )
    if mode := found.st_mode & _OTHERS:
        raise _refused(
            secret,
            f"is open to other users (mode {stat.S_IMODE(found.st_mode):04o}: {mode:03o} of it)",
            f"chmod 400 {shlex.quote(str(secret))}",
        )
    if found.st_nlink != 1:
        raise _refused(secret, f"has {found.st_nlink} names (hard links)", f"remove the others, or {_AGAIN}")


# The file is made


def missing(secret: Path) -> bool:
    """Whether the secret file has to be made, and can be: to be asked before the password is.

    A symbolic link that leads nowhere is not missing.

    Raises:
        HeadlessError: PARAMETER: its folder is not there, or cannot be written to.
    """
    try:
        secret.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(secret, f"cannot be looked at: {error.strerror}") from None
    else:
        return False
    try:
        tempfile.TemporaryFile(dir=secret.parent).close()
    except OSError as error:
        raise _unwritten(secret, error) from None
    return True


def ask(user: str) -> str:
    """Ask for the password on the terminal, twice, without showing it.

    Args:
        user: the principal, with or without its realm.

    Raises:
        HeadlessError: PARAMETER: there is no terminal, nothing was typed, or three times not the same twice.
    """
    principal = _key.principal(user)
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise HeadlessError(
            "the secret file is missing, and there is no terminal to ask for the password on",
            code=Code.PARAMETER,
            hint="start once on a terminal, which makes it",
        )
    before = ""
    for _ in range(_TRIES):
        password = _typed(f"{before}Password for {principal}: ")
        if not password:
            before = "That was empty. "
        elif _typed("The same again: ") == password:
            return password
        else:
            before = "These were not the same. "
    raise HeadlessError("no password was typed twice alike", code=Code.PARAMETER)


def _typed(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # where it would be shown
            return getpass.getpass(prompt)
    except (EOFError, OSError, getpass.GetPassWarning, UnicodeDecodeError) as error:
        why = type(error).__name__
    # Not within `except`: the last of these holds what was typed.
    raise HeadlessError(f"no password could be read from the terminal ({why})", code=Code.PARAMETER)


def create(secret: Path, user: str, password: str) -> None:
    """Make a secret file, if a login with the password succeeds.  May block for as long as Kerberos tries.

    It is written completely or not at all, for its owner to read (mode 0400), and never over another.

    Args:
        secret: its name, which must be free.
        user: the principal, with or without its realm.
        password: the principal's.

    Raises:
        HeadlessError: PARAMETER: the file cannot be written, or is there by now, or the password cannot be one.
            CONNECTION: no KDC answers.  AUTHENTICATION: the KDC does not take that principal with that password.
    """
    content = _key.make(_key.principal(user), password)
    try:
        _write(secret, content)
    except FileExistsError:
        raise _refused(secret, "has appeared meanwhile, and is left as it is") from None
    except OSError as error:
        raise _unwritten(secret, error) from None


def _write(secret: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".remctl-secret-", dir=secret.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _MODE)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        secret.hardlink_to(temporary)  # which, other than a renaming, replaces nothing
    finally:
        Path(temporary).unlink()
    folder = os.open(secret.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# The errors


def _named(secret: Path) -> str:
    return f"the secret file {os.fspath(secret)!r}"


def _refused(secret: Path, why: str, hint: str | None = None) -> HeadlessError:
    return HeadlessError(f"{_named(secret)} {why}", code=Code.PARAMETER, hint=hint)


def _unwritten(secret: Path, error: OSError) -> HeadlessError:
    return _refused(secret, f"cannot be made in its folder: {error.strerror}")
