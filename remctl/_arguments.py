"""Checks of what callers pass in, before anything is sent; shared by every face.

Each function takes one argument as users write it and returns it as the layers below want it, or raises `TypeError` or
`ValueError` with the argument's name and value.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final

from remctl._limits import MAX_COMMAND_SIZE, MAX_WORDS

PROTOCOLS: Final = (1, 2, 3)

LABEL: Final = 100
"""Bytes of a word that messages and logs show."""


def check_host(host: object) -> str:
    """A host name or an address, not empty."""
    return check_text("host", host)


def check_port(port: object) -> int:
    """A number from 0 to 65535, or its decimal text; 0 and None stand for the default ports."""
    if port is None:
        return 0
    if isinstance(port, str):
        if not (port.isascii() and port.isdigit()):
            raise TypeError(f"port must be a number: {port!r}")
        port = int(port.lstrip("0")[:6] or "0")
    number = _integer("port", port)
    if not 0 <= number <= 65535:
        raise ValueError(f"invalid port number: {_short(number)}")
    return number


def check_principal(principal: object) -> str | None:
    """A principal's name, not empty; None stands for host/HOST."""
    return None if principal is None else check_text("principal", principal)


def check_server(host: object, port: object, principal: object) -> tuple[str, int, str | None]:
    """The three by which callers name a server."""
    return check_host(host), check_port(port), check_principal(principal)


def check_text(name: str, text: object) -> str:
    """A text that is not empty and can be sent as UTF-8."""
    return _utf8(name, _text(name, text))


def check_source_ip(ip: object) -> str | None:
    """An IPv4 or IPv6 address; None stands for the system's choice."""
    if ip is None:
        return None
    text = _text("source_ip", ip)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"source_ip must be an IPv4 or IPv6 address: {ip!r}") from None
    return text


def check_ccache(name: object) -> str | None:
    """A ticket cache's name (FILE:/path, KEYRING:..., a plain path); None stands for the default cache."""
    return None if name is None else check_path("ccache", name)


def check_path(name: str, path: object) -> str:
    """A path, not empty."""
    return _text(name, os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else path)


def check_timeout(timeout: object, name: str = "timeout") -> float | None:
    """Seconds, not negative; None, 0 and infinity stand for no limit, and come back as None."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"{name} must be a number of seconds or None: {timeout!r}")
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = math.inf if timeout > 0 else -math.inf
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name} must be 0 or more: {_short(timeout)}")
    return None if seconds == 0 or math.isinf(seconds) else seconds


def check_min_protocol(version: object) -> int:
    """The lowest protocol version to accept: 1, 2 or 3."""
    number = _integer("min_protocol", version)
    if number not in PROTOCOLS:
        raise ValueError(f"min_protocol must be 1, 2 or 3: {_short(version)}")
    return number


def check_count(name: str, number: object) -> int:
    """A number of things, at least 1."""
    count = _integer(name, number)
    if count < 1:
        raise ValueError(f"{name} must be 1 or more: {_short(number)}")
    return count


class Command:
    """A command that has been checked, in the form in which it is sent."""

    __slots__ = ("size", "words")

    words: list[bytes]
    size: int
    """Bytes on the wire: a count of four, and for each word its length in four bytes, and its bytes."""

    def __init__(self, words: list[bytes]) -> None:
        self.words = words
        self.size = 4 + 4 * len(words) + sum(map(len, words))

    def label(self) -> str:
        """Return the first two words as text, for messages; the others may be secret."""
        return label(self.words)


def label(words: Sequence[bytes]) -> str:
    """Return the first two words of a command as text, for messages; the others may be secret."""
    return " ".join(map(printable, words[:2]))


def encoded(text: str) -> bytes:
    """Return a text as it is sent: in UTF-8, and undecodable file names as they were."""
    return text.encode("utf-8", "surrogateescape")


def decoded(word: bytes) -> str:
    """Return the text of a word, from which `encoded` makes the same word, whatever it is."""
    return word.decode("utf-8", "surrogateescape")


def printable(word: bytes, limit: int | None = LABEL) -> str:
    """Return so many bytes of a word as text that does nothing to a terminal or a log; None is all of them."""
    text = word[:limit].decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def check_command(command: object) -> Command:
    """A sequence or iterator of words: str, sent as UTF-8 (undecodable file names as they were), or `check_word`."""
    ordered = command if isinstance(command, list | tuple) else _check_order(command)
    try:
        words = [
            encoded(word) if isinstance(word, str) else check_word(word, number)
            for number, word in enumerate(itertools.islice(ordered, MAX_WORDS + 1))
        ]
    except UnicodeEncodeError as error:
        raise ValueError(f"command has a word that cannot be sent as UTF-8: {_short(error.object)}") from None
    if not words:
        raise ValueError(f"command must not be empty: {_short(command)}")
    if len(words) > MAX_WORDS:
        raise ValueError(f"command has {len(words)} words or more, and servers take {MAX_WORDS} at the most")
    checked = Command(words)
    if checked.size >= MAX_COMMAND_SIZE:
        raise ValueError(f"command has {checked.size} bytes, and servers take less than {MAX_COMMAND_SIZE}")
    return checked


def _check_order(command: object) -> Iterable[object]:
    if isinstance(command, str | bytes | bytearray | memoryview | Mapping | Set) or not isinstance(command, Iterable):
        raise TypeError(f"command must be a sequence or iterator of words: {_short(command)}")
    return command


def check_word(word: object, number: int) -> bytes:
    """One word that is no str: bytes-like, an int or float, which is sent as decimal text, or a path."""
    if isinstance(word, bytes):
        return word
    if isinstance(word, int | float) and not isinstance(word, bool):
        try:
            return (int.__repr__(word) if isinstance(word, int) else float.__repr__(word)).encode()
        except ValueError:
            raise ValueError(f"command[{number}] has too many digits: {_short(word)}") from None
    if isinstance(word, os.PathLike):
        return os.fsencode(word)
    try:
        return memoryview(word).tobytes()  # type: ignore[arg-type]  # memoryview() itself is the check
    except TypeError:
        raise TypeError(f"command[{number}] must be str, bytes, a number or a path: {_short(word)}") from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str: {_short(value)}")
    if not value:
        raise ValueError(f"{name} must not be empty: {value!r}")
    if "\0" in value:
        raise ValueError(f"{name} must not contain NUL: {value!r}")
    return value


def _utf8(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is no valid text: {_short(text)}") from None
    return text


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a number: {value!r}")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # index() itself is the check
    except TypeError:
        raise TypeError(f"{name} must be a number: {_short(value)}") from None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        text = f"{type(value).__name__} of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
