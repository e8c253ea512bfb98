"""Which of its things `pyremctl` is asked to do, and which words of its command line are its own.

Lowest layer of the command line: words go in, words come out.  Options end at the first word that is none, as with the
C client; everything after that belongs to the command, whatever it looks like.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence, Set
from typing import Final, NamedTuple


class Mode(enum.Enum):
    """What is asked for."""

    ONE = enum.auto()
    """A command on one host."""
    MANY = enum.auto()
    """A command on many hosts."""
    CHECK = enum.auto()
    """What is right and wrong between here and a host."""
    COMPLETION = enum.auto()
    """A shell's completion script."""


class Line(NamedTuple):
    """A command line."""

    mode: Mode
    options: list[str]
    """The words before the first one that is no option; all words where no command follows."""
    rest: list[str]
    """What follows: a host and a command, or a command alone."""


TARGETS: Final = frozenset({"-w", "-g", "-a", "--hostfile", "--resume"})
"""The options that name many hosts."""

_COMMON: Final = frozenset({"-p", "-s", "-t", "--source", "--port", "--service", "--completion"})

VALUED_BY_ONE: Final = _COMMON | {"-b", "--timeout"}
"""Options that take a value where a command is for one host."""

VALUED_BY_MANY: Final = _COMMON | {
    *("-w", "-x", "-g", "-X", "--hostfile", "--pick"),
    *("-f", "-u", "--deadline", "--retries", "--max-fail", "--canary", "--batch", "--pause", "--starts", "--resume"),
    *("--outdir", "--errdir", "--max-output", "--color"),
}
"""And where it is for many: -b, which has none there, is another option."""


def split(words: Sequence[str]) -> Line:
    """Return what a command line asks for.

    Args:
        words: the command line, without the name of the program.
    """
    count, names = _scan(words, VALUED_BY_MANY)
    if TARGETS & names:
        return _cut(Mode.MANY, words, count)
    count, names = _scan(words, VALUED_BY_ONE)
    if "--check" in names:
        return Line(Mode.CHECK, list(words), [])
    if "--completion" in names:
        return Line(Mode.COMPLETION, list(words), [])
    return _cut(Mode.ONE, words, count)


def _cut(mode: Mode, words: Sequence[str], count: int) -> Line:
    rest = words[count + 1 :] if words[count : count + 1] == ["--"] else words[count:]
    return Line(mode, list(words[:count]), list(rest))


def _scan(words: Sequence[str], valued: Set[str]) -> tuple[int, set[str]]:
    """Return how many words are options and their values, and the names of the options."""
    names: set[str] = set()
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] not in ("-", "--"):
        found, wants = _names(words[position], valued)
        names.update(found)
        position += 2 if wants else 1
    return min(position, len(words)), names


def _names(word: str, valued: Set[str]) -> tuple[list[str], bool]:
    """Return the options in a word, and whether the value of the last one is in the next word."""
    if word.startswith("--"):
        name, equals, _ = word.partition("=")
        return [name], not equals and name in valued
    names = []
    for place, letter in enumerate(word[1:], 2):
        names.append(f"-{letter}")
        if names[-1] in valued:
            return names, place == len(word)
    return names, False
