"""What the two roles have in common: tokens in, tokens out, the handshake's steps, and the end.

Below `client` and `server`.
"""

from __future__ import annotations

import errno

from remctl._limits import MAX_TOKEN_SIZE
from remctl.exceptions import RemctlAuthenticationError
from remctl.protocol import tokens
from remctl.protocol.events import Established
from remctl.protocol.security import SecurityContext
from remctl.protocol.state import Machine, Said, State, Table
from remctl.protocol.tokens import Token, TokenReader


class BaseConnection:
    """One end of a connection, without the connection.

    Args:
        context: this side's security context.
        table: the role's transitions in protocols 2 and 3.
        v1_table: those in protocol 1.
    """

    context: SecurityContext
    protocol: int
    """1, 2 ("2 or later"), or 3 once a NOOP was seen; 0 before the handshake has told."""

    def __init__(self, context: SecurityContext, table: Table, v1_table: Table) -> None:
        self.context = context
        self.protocol = 0
        self._machine = Machine(table)
        self._v1_table = v1_table
        self._reader = TokenReader()
        self._out: list[bytes] = []
        self._ended = 0

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._machine.state

    @property
    def buffered(self) -> int:
        """Bytes that were received and not yet turned into events."""
        return self._reader.buffered

    @property
    def unsent(self) -> int:
        """Bytes that `data_to_send` has ready."""
        return sum(map(len, self._out))

    def receive_data(self, data: bytes | memoryview) -> None:
        """Take bytes from the other side, in pieces of any size; then ask `next_event` until it wants more."""
        if self.state is not State.CLOSED:
            self._reader.feed(data)

    def receive_eof(self, reason: int = errno.ECONNRESET) -> None:
        """Take note that the other side has said its last.

        Args:
            reason: the system's number for why.
        """
        self._ended = reason

    def data_to_send(self) -> bytes:
        """Return bytes for the other side, each once, in the order in which they have to leave; empty if none are due.

        Ask until it is empty: a large command comes out in parts.
        """
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def close(self) -> None:
        """End the connection without a word: nothing is taken or sent any more."""
        self._machine.close()
        self._reader.clear()

    def stepped(self, answer: bytes | None) -> Established | None:
        """Take the security context's answer to a `Step`.

        Returns:
            The event, if the handshake is over.

        Raises:
            RemctlAuthenticationError: the context lacks a protection that protocols 2 and 3 demand.
        """
        if answer:
            self._machine.say(Said.CONTEXT)
            self._send(tokens.V1_CONTEXT if self.protocol == 1 else tokens.CONTEXT, answer)
        try:
            if not self.context.complete:
                return None
        except RemctlAuthenticationError:
            self.close()
            raise
        if self.protocol != 1 and self.context.lacking:
            self.close()
            raise RemctlAuthenticationError(f"the security context lacks {' and '.join(self.context.lacking)}")
        return self._establish()

    def _establish(self) -> Established:
        if self.protocol == 1:
            self._machine.table = self._v1_table
        else:
            self.protocol = 2
        self._machine.say(Said.ESTABLISHED)
        self._reader.limit = MAX_TOKEN_SIZE
        return Established(self.protocol)

    def _wrap(self, message: bytes) -> bytes:
        """Return a message encrypted; a context that cannot any more ends the connection."""
        try:
            return self.context.wrap(message)
        except RemctlAuthenticationError:
            self.close()
            raise

    def _send(self, flags: int, payload: bytes) -> None:
        self._out.append(Token(flags, payload).encode())
