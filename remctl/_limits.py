"""The limits of a command's size, each with its source."""

from __future__ import annotations

from typing import Final

MAX_WORDS: Final = 4096
"""Words in a command, the command word included: remctld's limit (it answers TOOMANY_ARGS past it)."""

MAX_COMMAND_SIZE: Final = 100 * 1024 * 1024
"""Bytes of a whole command, which has to stay below: remctld's limit (it answers TOOMUCH_DATA)."""

MAX_V1_COMMAND_SIZE: Final = 64 * 1024
"""Bytes of a whole command in protocol 1, which cannot split one over several tokens."""
