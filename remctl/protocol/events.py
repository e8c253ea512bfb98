"""What a connection tells the program that feeds it; all of it immutable.

Besides these, a client's connection hands out `remctl.types.Output`: the tokens of an answer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from remctl.protocol.messages import HighestVersion, NoopAnswer

__all__ = ["NEED_DATA", "PAUSED", "Closed", "CommandReceived", "Established", "HighestVersion", "NoopAnswer", "Step"]


class Pause(enum.Enum):
    """Why there is no event."""

    NEED_DATA = "need data"
    """More bytes have to come first."""
    PAUSED = "paused"
    """A server owes an answer: what its client has said meanwhile waits until it is given."""


NEED_DATA: Final = Pause.NEED_DATA
PAUSED: Final = Pause.PAUSED


@dataclass(frozen=True, slots=True)
class Step:
    """The security context is due: hand its answer to `stepped()`, as in `stepped(context.step(token))`.

    The call may block, and so is the program's to place.
    """

    token: bytes | None


@dataclass(frozen=True, slots=True)
class Established:
    """The two sides have authenticated."""

    protocol: int
    """1, or 2 for "2 or later", which is all that the handshake tells."""


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A client sent a command, and is owed an answer."""

    words: tuple[bytes, ...]
    keep_alive: bool
    """Whether the client wants the connection to stay open after the answer."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The other side has ended the connection, in a state where it may."""
