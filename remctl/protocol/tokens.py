"""Tokens, the packets of the protocol: a byte of flags, a length, a payload.

Lowest layer of the protocol; what the payloads mean is in `messages`, when a token is due in `state`.  All numbers on
the wire are big endian (specification, section "Basic Packet Format").
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from remctl._limits import MAX_CONTEXT_SIZE
from remctl.exceptions import RemctlProtocolError

_HEADER: Final = struct.Struct(">BI")

_KEEP: Final = 65536
"""Bytes that may lie used up at the front of a reader's buffer before it is moved."""


class Flag(enum.IntFlag):
    """The bits of a token's first byte."""

    NOOP = 0x01
    CONTEXT = 0x02
    DATA = 0x04
    MIC = 0x08
    CONTEXT_NEXT = 0x10
    SEND_MIC = 0x20
    PROTOCOL = 0x40


# The combinations in use.  A token of protocol 1 lacks PROTOCOL.
FIRST: Final = int(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL)
CONTEXT: Final = int(Flag.CONTEXT | Flag.PROTOCOL)
DATA: Final = int(Flag.DATA | Flag.PROTOCOL)
V1_FIRST: Final = int(Flag.NOOP | Flag.CONTEXT_NEXT)
V1_CONTEXT: Final = int(Flag.CONTEXT)
V1_COMMAND: Final = int(Flag.DATA | Flag.SEND_MIC)
V1_MIC: Final = int(Flag.MIC)
V1_RESULT: Final = int(Flag.DATA)


class Token(NamedTuple):
    """One packet."""

    flags: int
    payload: bytes

    def encode(self) -> bytes:
        """Return the token as it travels."""
        return _HEADER.pack(self.flags, len(self.payload)) + self.payload


class TokenReader:
    """Cuts a stream of bytes into tokens.

    Holds at most what was fed and not yet asked for; a token whose length is over the limit is refused by its header.
    """

    limit: int
    """Bytes that a payload may have."""

    def __init__(self) -> None:
        self.limit = MAX_CONTEXT_SIZE
        self._buffer = bytearray()
        self._used = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes as they come, in pieces of any size."""
        if self._used > _KEEP:
            del self._buffer[: self._used]
            self._used = 0
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet handed out."""
        return len(self._buffer) - self._used

    def next(self) -> Token | None:
        """Return the next token, or None while it has not come as a whole.

        Raises:
            RemctlProtocolError: it is larger than the limit.
        """
        begin = self._used + _HEADER.size
        if len(self._buffer) < begin:
            return None
        flags, length = _HEADER.unpack_from(self._buffer, self._used)
        if length > self.limit:
            raise RemctlProtocolError(f"a token of {length} bytes came, and at most {self.limit} are allowed")
        end = begin + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[begin:end])
        if end == len(self._buffer):
            self.clear()
        else:
            self._used = end
        return Token(flags, payload)

    def clear(self) -> None:
        """Forget what was not handed out."""
        self._buffer.clear()
        self._used = 0
