"""The options of a command, read by argparse, which is loaded when the first command that has some is called."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, NoReturn

from remctl._arguments import decoded, encoded, printable
from remctl.backend._errors import UsageError
from remctl.backend._parameters import REQUIRED, Parameter

_REST = "*"
"""What no parameter is called."""


JOINED: Final = 100
"""Flags of one letter that may be joined in a word."""


class Options:
    """Takes options off the front of a command's arguments; the first word that is none ends them, as does `--`.

    Args:
        parameters: those that are options.
        secret: whether any word may be secret, and no message may show one.
    """

    def __init__(self, parameters: Sequence[Parameter], *, secret: bool = False) -> None:
        self._secret = secret
        self._parameters = parameters
        self._letters = {flag[1].encode() for each in parameters if each.flag for flag in each.flags if len(flag) == 2}
        self._parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        for parameter in parameters:
            required = parameter.default is REQUIRED
            if parameter.flag:
                # Not BooleanOptionalAction, for which --no-color of a parameter no_color says False.
                self._parser.add_argument(*parameter.flags, dest=parameter.name, action="store_true")
                self._parser.add_argument(*parameter.negations, dest=parameter.name, action="store_false")
            else:
                action = "append" if parameter.repeated else "store"
                self._parser.add_argument(*parameter.flags, dest=parameter.name, action=action, required=required)
        self._parser.add_argument(_REST, nargs=argparse.REMAINDER)

    def take(self, words: Sequence[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """Return the options that were given, by their parameters' names, and the words that follow them.

        Raises:
            UsageError: there is no such option, or its value is missing or wrong.
        """
        for word in words:  # for which argparse takes the square of its length
            if not word.startswith(b"-"):
                break
            if word[1:2] in self._letters and len(word) > JOINED:
                raise UsageError(f"more than {JOINED} letters in one word: {word[:2].decode()}")
        try:
            found = vars(self._parser.parse_args(list(map(decoded, words))))
        except UsageError:
            if self._secret:
                raise UsageError("the options are wrong; try help") from None
            raise
        rest = [encoded(word) for word in found.pop(_REST)]
        if rest[:1] == [b"--"]:
            del rest[0]
        values: dict[str, object] = {}
        for parameter in self._parameters:
            if parameter.name not in found:
                continue
            value = found[parameter.name]
            if parameter.repeated:
                values[parameter.name] = [parameter.read(_value(each)) for each in value]
            else:
                values[parameter.name] = value if parameter.flag else parameter.read(_value(value))
        return values, rest


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print, and end the program for."""

    def error(self, message: str) -> NoReturn:
        # A word that looks like an option may hold a value, which may be secret.
        words = (word.partition("=")[0] if word.startswith("--") else word for word in message.split(" "))
        raise UsageError(" ".join(printable(encoded(word)) for word in words))


def _value(found: object) -> bytes:
    """An option's value; argparse before 3.13 loses `--`, as which it takes the end of the options."""
    return b"--" if found == [] else encoded(str(found))
