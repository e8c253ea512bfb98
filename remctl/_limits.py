"""The limits of a command's size, each with its source, and the size of a command as the protocol counts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_WORDS: Final = 4096
"""Words in a command, the command word included: remctld's limit (it answers TOOMANY_ARGS past it)."""

MAX_COMMAND_SIZE: Final = 100 * 1024 * 1024
"""Bytes of a whole command, which has to stay below: remctld's limit (it answers TOOMUCH_DATA)."""

MAX_V1_COMMAND_SIZE: Final = 64 * 1024
"""Bytes of a whole command in protocol 1, which cannot split one over several tokens."""


def command_size(words: Sequence[bytes]) -> int:
    """Return the size in bytes of a command on the wire: a count, then for each word its length and its bytes."""
    return 4 + sum(4 + len(word) for word in words)
