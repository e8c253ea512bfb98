"""The states of a connection, as tables: who may say what, and what comes of it.

Everything that decides the state of a connection is here, and nothing else is.  `client` and `server` each keep a
`Machine` and tell it what was said, by either side; the machine answers with an error when the table has no such entry.

A connection of protocol 2 or 3 goes

::

    START ── first token ──> NEGOTIATING ── context tokens, to and fro ──> IDLE
    IDLE ── COMMAND in pieces ──> PIECES ── last piece ──> ANSWER ── OUTPUT... STATUS or ERROR ──> IDLE
    IDLE ── NOOP ──> NOOP ── NOOP ──> IDLE
    IDLE ── QUIT ──> CLOSED

and one of protocol 1 ends after its one command: IDLE, COMMAND, MIC, ANSWER, CLOSED.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from remctl.exceptions import RemctlError, RemctlProtocolError


class LocalProtocolError(RemctlError):
    """The program asked a connection for what its state does not allow; nothing was sent."""


class State(enum.Enum):
    """Where a connection stands."""

    START = "start"
    """Nothing was said yet."""
    NEGOTIATING = "negotiating"
    """The two sides authenticate."""
    IDLE = "idle"
    """The client may speak."""
    PIECES = "pieces"
    """A command is under way, and has not come to its last piece."""
    DISCARDING = "discarding"
    """The server has refused a command whose remaining pieces are still coming."""
    MIC = "mic"
    """Protocol 1: the server owes the MIC of the command."""
    ANSWER = "answer"
    """The server owes the answer to a command."""
    NOOP = "noop"
    """The server owes the answer to a NOOP."""
    CLOSED = "closed"
    """Nothing more can be said."""


class Said(enum.Enum):
    """What one side said to the other, as far as it matters for the state."""

    # The handshake
    FIRST = "the first token"
    CONTEXT = "a context token"
    ESTABLISHED = "the end of the handshake"
    # The client
    COMMAND = "a command"
    FIRST_PIECE = "the first piece of a command"
    MIDDLE_PIECE = "a middle piece of a command"
    LAST_PIECE = "the last piece of a command"
    NOOP = "a NOOP"
    QUIT = "a QUIT"
    # The server
    OUTPUT = "output"
    STATUS = "an exit status"
    ERROR = "an error"
    VERSION = "its highest version"
    NOOP_ANSWER = "the answer to a NOOP"
    MIC = "a MIC"
    RESULT = "a result"


Table = Mapping[State, Mapping[Said, State]]

_HANDSHAKE: Final[Table] = {
    State.START: {Said.FIRST: State.NEGOTIATING},
    State.NEGOTIATING: {Said.CONTEXT: State.NEGOTIATING, Said.ESTABLISHED: State.IDLE},
}

CLIENT: Final[Table] = {
    **_HANDSHAKE,
    State.IDLE: {
        Said.COMMAND: State.ANSWER,
        Said.FIRST_PIECE: State.PIECES,
        Said.NOOP: State.NOOP,
        Said.QUIT: State.CLOSED,
    },
    State.PIECES: {
        Said.MIDDLE_PIECE: State.PIECES,
        Said.LAST_PIECE: State.ANSWER,
        # Refused before it was sent: how the server takes the rest, or the next command, the specification leaves open.
        Said.ERROR: State.CLOSED,
        Said.QUIT: State.CLOSED,
    },
    State.ANSWER: {
        Said.OUTPUT: State.ANSWER,
        Said.STATUS: State.IDLE,
        Said.ERROR: State.IDLE,
        Said.VERSION: State.CLOSED,  # a server that does not speak 2 has nothing else to offer
    },
    State.NOOP: {
        Said.NOOP_ANSWER: State.IDLE,
        Said.VERSION: State.IDLE,  # the server does not speak 3
        Said.ERROR: State.CLOSED,  # what remctld says to a session that was idle for too long
    },
}
"""What a client of protocol 2 or 3 says and hears."""

SERVER: Final[Table] = {
    **_HANDSHAKE,
    State.IDLE: {
        Said.COMMAND: State.ANSWER,
        Said.FIRST_PIECE: State.PIECES,
        Said.NOOP: State.NOOP,
        Said.QUIT: State.CLOSED,
        Said.ERROR: State.IDLE,
    },
    State.PIECES: {
        Said.MIDDLE_PIECE: State.PIECES,
        Said.LAST_PIECE: State.ANSWER,
        Said.QUIT: State.CLOSED,
        Said.ERROR: State.DISCARDING,
    },
    State.DISCARDING: {
        # One refusal is enough for a command: its remaining pieces get no further answer.
        Said.MIDDLE_PIECE: State.DISCARDING,
        Said.LAST_PIECE: State.IDLE,
        Said.COMMAND: State.ANSWER,
        Said.FIRST_PIECE: State.PIECES,
        Said.NOOP: State.NOOP,
        Said.QUIT: State.CLOSED,
        Said.ERROR: State.IDLE,
    },
    State.ANSWER: {
        Said.OUTPUT: State.ANSWER,
        Said.STATUS: State.IDLE,
        Said.ERROR: State.IDLE,
    },
    State.NOOP: {
        Said.NOOP_ANSWER: State.IDLE,
    },
}
"""What a server of protocol 2 or 3 hears and says."""

V1_CLIENT: Final[Table] = {
    **_HANDSHAKE,
    State.IDLE: {Said.COMMAND: State.MIC, Said.QUIT: State.CLOSED},
    State.MIC: {Said.MIC: State.ANSWER},
    State.ANSWER: {Said.RESULT: State.CLOSED},
}
"""What a client of protocol 1 says and hears; its QUIT is the end of the connection alone."""

V1_SERVER: Final[Table] = {
    **_HANDSHAKE,
    State.IDLE: {Said.COMMAND: State.MIC, Said.RESULT: State.CLOSED},
    State.MIC: {Said.MIC: State.ANSWER, Said.RESULT: State.CLOSED},
    State.ANSWER: {Said.RESULT: State.CLOSED},
}
"""What a server of protocol 1 hears and says; the MIC is left out for a client that did not ask for it."""


class Machine:
    """One connection's state.

    Args:
        table: the transitions to begin with.
    """

    state: State
    keep_alive: bool
    """Whether the connection stays open after the answer that is owed."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.state = State.START
        self.keep_alive = True

    def say(self, said: Said) -> None:
        """Move on after something that this side is about to say.

        Raises:
            LocalProtocolError: the state does not allow it.
        """
        following = self._following(said)
        if following is None:
            raise LocalProtocolError(f"{said.value} cannot be sent: the connection's state is {self.state.value!r}")
        self.state = following

    def hear(self, said: Said) -> None:
        """Move on after something that the other side said.

        Raises:
            RemctlProtocolError: the state does not allow it.
        """
        following = self._following(said)
        if following is None:
            raise RemctlProtocolError(f"{said.value} came that nobody had asked for (state {self.state.value!r})")
        self.state = following

    def allows(self, said: Said) -> bool:
        """Whether the table has an entry for this."""
        return self._following(said) is not None

    def close(self) -> None:
        """End it."""
        self.state = State.CLOSED

    def _following(self, said: Said) -> State | None:
        following = self.table.get(self.state, {}).get(said)
        if following is State.IDLE and self.state is State.ANSWER and not self.keep_alive:
            return State.CLOSED
        return following
