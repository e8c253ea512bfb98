"""Who may do something: ACLs in remctld's syntax, from remctld's files, decided as remctld decides.

For servers in a program, so that one ACL file serves them and remctld alike.  It stands on the argument checks, and
where an entry asks for them on the extension (`regex:`) and libkrb5 (`localgroup:`); below `backend` and `aio`.
"""

from __future__ import annotations

import enum
import logging
import operator
import os
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from remctl._arguments import check_text, decoded, encoded

__all__ = ["ANONYMOUS", "EVERYONE", "Acl"]

logger = logging.getLogger(__name__)

ANONYMOUS: Final = "WELLKNOWN/ANONYMOUS@"
"""How the principal of those begins whose realm lets everybody in without a name (RFC 8062)."""

_LINE: Final = 8191
"""Bytes of a line in a file, its newline included, that are too many for remctld."""

_DEPTH: Final = 50
"""So many files may include one another: files that do so in a circle end there, where remctld crashes."""

_MESSAGE: Final = 256
"""Bytes of what libc says about a regular expression."""

_SHOWN: Final = 200
"""Characters of an entry that cannot work, in the error."""

_WORD: Final = re.compile(r"[^ \t]+")

_INCLUDED: Final = re.compile(r"[A-Za-z0-9_-]+")
"""The names that count in a directory."""


class Acl:
    """Who may do something, in remctld's syntax.

        >>> Acl("deny:princ:eve@EXAMPLE.ORG ANYUSER").allows("alice@EXAMPLE.ORG")
        True

    Args:
        entries: one or more entries, each METHOD:DATA, the path of a file or directory, or ANYUSER; a str may hold
            several between blanks, as the end of a line in remctld's configuration does.

    The entries are tried in order, and the first that matches decides: it grants, and behind `deny:` it refuses.  What
    cannot be decided, such as a file that is missing, refuses too, whatever comes behind it.  All that is as remctld
    does it, with these differences:

    - `pcre:` and `gput:` are not supported, and refuse, as they do in a remctld built without them.
    - A directory's files are read in the order of their names; remctld takes them as they come.
    - A path must be absolute, an entry shorter than 8 KiB outside files too, and a file without NUL; files that include
      one another in a circle refuse.

    An Acl never changes, and all threads may use it; the files are read anew by each check.

    Raises:
        TypeError, ValueError: there is no entry, or one that can never work; no file is looked at.
    """

    __slots__ = ("_parsed", "entries", "waits")

    entries: tuple[str, ...]
    """Each by itself, as it was written."""
    waits: bool
    """Whether a check may read files or ask a name service, and so belongs on a thread."""

    def __init__(self, *entries: str) -> None:
        self.entries = tuple(word for text in entries for word in _WORD.findall(check_text("acl", text)))
        if not self.entries:
            raise ValueError(f"acl must have an entry: {entries!r}")
        self._parsed = tuple(_check_entry(text) for text in self.entries)
        self.waits = any(entry.method in ("file", "localgroup") for entry in self._parsed)

    def allows(self, principal: str) -> bool:
        """Return whether the principal, as user@REALM, may; blocks while it reads files.

        What cannot be decided is logged as an error, with the file and line, and refuses.
        """
        for text, entry in zip(self.entries, self._parsed, strict=True):
            try:
                verdict = _decide(entry, principal)
            except _Undecidable as error:
                logger.error("%r is refused: ACL entry %s: %s", principal, text, error)  # noqa: TRY400  # it says where
                return False
            if verdict is not _Verdict.NEITHER:
                return verdict is _Verdict.GRANTED
        return False

    def __str__(self) -> str:
        """Return what means the same at the end of a line in remctld's configuration."""
        return " ".join(self.entries)

    def __repr__(self) -> str:
        return f"Acl({', '.join(map(repr, self.entries))})"

    def __eq__(self, other: object) -> bool:
        return self.entries == other.entries if isinstance(other, Acl) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.entries)


class _Verdict(enum.Enum):
    GRANTED = enum.auto()
    DENIED = enum.auto()
    NEITHER = enum.auto()


class _Undecidable(Exception):
    """An entry is broken, or what it needs is not to be had; the text says where and why."""


class _Entry(NamedTuple):
    denials: int
    """How many `deny:` stand before it."""
    method: str
    data: str
    where: str = ""
    """What an error's text begins with: the file and line."""
    depth: int = 0
    """How many files it is in."""


def _parse(text: str, default: str, where: str = "", depth: int = 0) -> _Entry:
    denials = 0
    while text.startswith("deny:"):
        denials, text, default = denials + 1, text.removeprefix("deny:"), "princ"
    if text == "ANYUSER":
        text = "anyuser:auth"
    method, colon, data = text.partition(":")
    return _Entry(denials, method, data, where, depth) if colon else _Entry(denials, default, text, where, depth)


def _check_entry(text: str) -> _Entry:
    """Parse an entry that the program gives, of which more is asked than of a line in a file."""
    entry = _parse(text, "file")
    try:
        _check_form(entry)
        if not entry.data:
            raise ValueError(f"nothing stands behind {entry.method}:")
        if len(text) >= _LINE:
            raise ValueError("it is longer than a line in a file may be")  # libc's stack has an end too
        if "\n" in text:
            raise ValueError("there is a newline in it")
        if text.endswith("\\"):
            raise ValueError("at the end of its line remctld would read on in the next")
        if entry.method == "princ" and entry.data.startswith("/"):
            raise ValueError("behind deny: a path is written file:PATH")
        if entry.method == "regex":
            _matches_regex(entry.data, "")
    except ValueError as error:
        raise ValueError(f"acl has an entry that cannot work, {error}: {text[:_SHOWN]!r}") from None
    return entry


def _check_form(entry: _Entry) -> None:
    if entry.method not in _METHODS:
        raise ValueError(f"there is no method {entry.method!r}")
    if entry.method == "anyuser" and entry.data not in ("auth", "anonymous"):
        raise ValueError("anyuser: takes auth or anonymous")
    if entry.method == "file" and not entry.data.startswith("/"):
        raise ValueError("a path must be absolute, and a principal is written princ:NAME")


def _decide(entry: _Entry, principal: str) -> _Verdict:
    try:
        _check_form(entry)
        if "\0" in principal:
            raise ValueError("there is a NUL in the principal's name")  # C would see what is before it
        if entry.method == "file":
            verdict = _look_up(entry.data, entry.depth + 1, principal)
        elif (matches := _METHODS[entry.method]) is None:
            raise ValueError(f"the method {entry.method!r} is not supported")
        else:
            verdict = _Verdict.GRANTED if matches(entry.data, principal) else _Verdict.NEITHER
    except (OSError, ValueError) as error:
        raise _Undecidable(f"{entry.where}{error}") from error
    if entry.denials == 0:
        return verdict
    # deny: only ever denies, and takes a denial inside it, its own or a file's, for no match.
    return _Verdict.DENIED if entry.denials == 1 and verdict is _Verdict.GRANTED else _Verdict.NEITHER


# The methods


def _matches_anyuser(who: str, principal: str) -> bool:
    return who == "anonymous" or not principal.startswith(ANONYMOUS)


def _matches_localgroup(group: str, principal: str) -> bool:
    from remctl._libremctl import lib
    from remctl._localname import local_name

    if _group_has(group, "") == lib.GROUP_UNKNOWN:  # then it does not matter what the principal is
        return False
    name = local_name(principal)
    return name is not None and _group_has(group, name) == lib.GROUP_WITH


def _group_has(group: str, name: str) -> int:
    from remctl._libremctl import lib

    answer = lib.group_has(encoded(group), encoded(name))
    if answer < 0:
        raise OSError(-answer, f"the group cannot be looked up: {os.strerror(-answer)}")
    return answer


def _matches_regex(pattern: str, text: str) -> bool:
    """Whether the text has a match in it, as libc's POSIX extended regular expressions have it."""
    from remctl._libremctl import ffi, lib

    message = ffi.new(f"char[{_MESSAGE}]")
    found = lib.regex_matches(encoded(pattern), encoded(text), message, _MESSAGE)
    if found < 0:
        raise ValueError(ffi.string(message).decode("utf-8", "backslashreplace"))
    return found == 1


_METHODS: Final[dict[str, Callable[[str, str], bool] | None]] = {
    "anyuser": _matches_anyuser,
    "file": None,  # it may also deny, and is looked up apart from the others
    "gput": None,
    "localgroup": _matches_localgroup,
    "pcre": None,
    "princ": operator.eq,
    "regex": _matches_regex,
}


# Files


def _look_up(path: str, depth: int, principal: str) -> _Verdict:
    if depth > _DEPTH:
        raise ValueError(f"a file includes itself, or {_DEPTH} include one another: {path!r}")
    try:
        names = os.listdir(path)  # noqa: PTH208  # a Path drops a slash at the end, and finds more than remctld
    except NotADirectoryError:
        return _read(path, depth, principal)
    # A denial in any of the files counts for more than a match in another, wherever it stands.
    verdict = _Verdict.NEITHER
    for name in sorted(filter(_INCLUDED.fullmatch, names)):
        try:
            one = _read(f"{path}/{name}", depth, principal)
        except IsADirectoryError:
            continue  # a directory in a directory has no lines for remctld
        if one is _Verdict.DENIED:
            return one
        if one is _Verdict.GRANTED:
            verdict = one
    return verdict


def _read(path: str, depth: int, principal: str) -> _Verdict:
    with open(path, "rb") as file:  # noqa: PTH123  # as above
        for number, line in enumerate(iter(lambda: file.readline(_LINE), b""), 1):
            entry = _parse_line(line, f"{path}:{number}: ", depth)
            verdict = _decide(entry, principal) if entry else _Verdict.NEITHER
            if verdict is not _Verdict.NEITHER:
                return verdict
    return _Verdict.NEITHER


def _parse_line(line: bytes, where: str, depth: int) -> _Entry | None:
    """None if there is nothing in it."""
    if len(line) >= _LINE:
        raise _Undecidable(f"{where}the line is too long")
    if b"\0" in line:
        raise _Undecidable(f"{where}there is a NUL in it")
    text = decoded(line.strip())
    if not text or text.startswith("#"):
        return None
    if " " not in text:
        return _parse(text, "princ", where, depth)
    words = _WORD.findall(text)
    if len(words) != 2 or words[0] != "include":
        raise _Undecidable(f"{where}a line is one entry, or include and an entry")
    return _parse(words[1], "file", where, depth)


EVERYONE: Final = Acl("ANYUSER")
"""Who may do something where nothing says so: all who have authenticated, under a name."""
