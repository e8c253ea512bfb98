"""The limits of the protocol and of a command's size, each with its source."""

from __future__ import annotations

from typing import Final

# Commands

MAX_WORDS: Final = 4096
"""Words in a command, the command word included: remctld's limit (it answers TOOMANY_ARGS past it)."""

MAX_COMMAND_SIZE: Final = 100 * 1024 * 1024
"""Bytes of a whole command, which has to stay below: remctld's limit (it answers TOOMUCH_DATA)."""

MAX_V1_COMMAND_SIZE: Final = 64 * 1024
"""Bytes of a whole command in protocol 1, which cannot split one over several tokens."""

# Tokens and messages

MAX_TOKEN_SIZE: Final = 1024 * 1024
"""Bytes of a token's payload: the specification's limit, read as remctl's C code does, without the header of 5."""

MAX_CONTEXT_SIZE: Final = 128 * 1024
"""Bytes of a token before authentication, where a stranger may have sent it: ours.  Twice the largest Kerberos token
that Active Directory makes (MaxTokenSize, 65,535)."""

MAX_MESSAGE_SIZE: Final = 64 * 1024
"""Bytes of a message before encryption: the specification's limit."""

MAX_OUTPUT_SIZE: Final = MAX_MESSAGE_SIZE - 7
"""Bytes of output in one OUTPUT message, whose header has 7."""

MAX_V1_OUTPUT_SIZE: Final = MAX_MESSAGE_SIZE - 8
"""Bytes of output in the one result of protocol 1, whose header has 8; what is more, servers cut off."""

MAX_MIC_SIZE: Final = 10 * 1024
"""Bytes of protocol 1's MIC token: libremctl's limit."""
