"""Arguments of a command that are not on the command line: from standard input, files, and questions on the terminal.

`--stdin` appends all of standard input.  `--expand` gives words that begin with @ a meaning:

    @FILE       what is in the file
    @-          standard input
    @?PROMPT    what is typed on the terminal, which does not show it
    @@WORD      @WORD

Without it @ means nothing: a command line that is put together from words of strangers must not read files.  No message
and no log has what was read.
"""

from __future__ import annotations

import getpass
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from remctl._limits import MAX_COMMAND_SIZE
from remctl.cli._text import safe
from remctl.exceptions import RemctlError


class ArgumentError(RemctlError):
    """An argument cannot be got; nothing was sent."""


def collect(words: Sequence[str], *, expand: bool = False, stdin: bool = False) -> list[bytes]:
    """Return the words of a command as they are to be sent.

    Args:
        words: as they are on the command line.
        expand: whether those that begin with @ stand for something else; see the module.
        stdin: whether standard input is one more, the last one.

    Raises:
        ArgumentError: a file cannot be read, there is no terminal, standard input is wanted twice, or it is too much.
    """
    sources = _Sources()
    collected = [sources.get(word) if expand else os.fsencode(word) for word in words]
    if stdin:
        collected.append(sources.get("@-"))
    return collected


class _Sources:
    """Where the arguments of one command come from; together they have no more bytes than a command may."""

    def __init__(self) -> None:
        self._left = MAX_COMMAND_SIZE
        self._stdin = False

    def get(self, word: str) -> bytes:
        if not word.startswith("@"):
            return os.fsencode(word)
        source = word[1:]
        if source.startswith("@"):
            return os.fsencode(source)
        if source.startswith("?"):
            return _ask(source[1:])
        if source == "-":
            return self._take_stdin()
        if not source:
            raise ArgumentError("@ stands for a file, and none is named", hint="@@ is the word @")
        return self._read(source, source)

    def _take_stdin(self) -> bytes:
        if self._stdin:
            raise ArgumentError("standard input can be one argument alone")
        self._stdin = True
        return self._read(0, "standard input")

    def _read(self, file: str | int, name: str) -> bytes:
        try:
            with _open(file) as stream:
                data = stream.read(self._left + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise ArgumentError(f"an argument cannot be read from {name}: {reason}") from None
        if len(data) > self._left:
            raise ArgumentError(f"{name} has too much for a command, which has less than {MAX_COMMAND_SIZE} bytes")
        self._left -= len(data)
        return data


def _open(file: str | int) -> IO[bytes]:
    return Path(file).open("rb") if isinstance(file, str) else os.fdopen(file, "rb", closefd=False)


def _ask(prompt: str) -> bytes:
    shown = safe(prompt) or "Argument"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would go on, and show what is typed
            return os.fsencode(getpass.getpass(f"{shown}: "))
    except (getpass.GetPassWarning, EOFError):
        hint = "@FILE and @- take an argument from elsewhere"
        raise ArgumentError(f"there is no terminal to ask for '{shown}' on", hint=hint) from None
