"""The client's side of the protocol: bytes in, tokens of answers out; commands in, bytes out.

Feed it with `receive_data`, ask it with `next_event`, and send what `data_to_send` returns; `base` has these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal

from remctl._limits import MAX_MIC_SIZE, MAX_V1_COMMAND_SIZE
from remctl.exceptions import LOST, UNASKED, RemctlConnectionError, RemctlError, RemctlProtocolError
from remctl.protocol import messages, tokens
from remctl.protocol.base import BaseConnection
from remctl.protocol.events import NEED_DATA, Closed, HighestVersion, NoopAnswer, Pause, Step
from remctl.protocol.messages import PIECE_SIZE, Body, Continue, Piece
from remctl.protocol.security import SecurityContext
from remctl.protocol.state import CLIENT, V1_CLIENT, Said, State
from remctl.protocol.tokens import Token
from remctl.types import V1_REFUSED, Output, OutputType, Stream

Event = Output | Step | NoopAnswer | HighestVersion | Closed

PIECES_AT_ONCE: Final = 4
"""Pieces of a command that are encrypted in one go, a quarter of a megabyte: about a millisecond's work."""

_SAID: Final = {
    OutputType.OUTPUT: Said.OUTPUT,
    OutputType.STATUS: Said.STATUS,
    OutputType.ERROR: Said.ERROR,
}


class ClientConnection(BaseConnection):
    """See the module.

    Args:
        context: the initiator's security context, fresh.
        min_protocol: the lowest protocol version to accept; from 2 on a server of protocol 1 is refused.
    """

    refused: bool
    """Whether the last status is the one that, in protocol 1, marks the output before it as the text of an error."""

    def __init__(self, context: SecurityContext, *, min_protocol: int = 1) -> None:
        super().__init__(context, CLIENT, V1_CLIENT)
        self.refused = False
        self._min_protocol = min_protocol
        self._start_due = False
        self._body: Body | None = None
        self._v1_body = b""
        self._held: Output | None = None

    # What the program asks for

    def start(self) -> None:
        """Begin the handshake; the first event is a `Step`."""
        self._machine.say(Said.FIRST)
        self._send(tokens.FIRST, b"")
        self._start_due = True

    def send_command(self, words: Sequence[bytes], *, keep_alive: bool = True) -> None:
        """Send a command, in pieces if it is large: `data_to_send` goes on to return them until it is empty.

        Args:
            words: the command; in protocol 1 at most MAX_V1_COMMAND_SIZE bytes with their lengths.
            keep_alive: whether the server shall keep the connection open after the answer.

        Raises:
            LocalProtocolError: the state does not allow it.
            ValueError: the command is too large for protocol 1.
        """
        if self.protocol == 1:
            self._send_v1_command(messages.encode_words(words))
            return
        body = Body(words)
        large = body.size > PIECE_SIZE
        self._machine.say(Said.FIRST_PIECE if large else Said.COMMAND)
        self._machine.keep_alive = keep_alive
        self._send_piece(body, Continue.FIRST if large else Continue.WHOLE)
        if large:
            self._body = body

    def send_noop(self) -> None:
        """Ask for a sign of life; the event is a `NoopAnswer`, or `HighestVersion` of a server before protocol 3.

        Raises:
            LocalProtocolError: the state, or protocol 1, does not allow it.
        """
        self._machine.say(Said.NOOP)
        self._send(tokens.DATA, self._wrap(messages.NOOP))

    def send_quit(self) -> None:
        """Say farewell, which in protocol 1 is silent.

        Raises:
            LocalProtocolError: the state does not allow it.
        """
        self._machine.say(Said.QUIT)
        self._body = None
        if self.protocol != 1:
            self._send(tokens.DATA, self._wrap(messages.QUIT))

    def data_to_send(self) -> bytes:
        """See `BaseConnection.data_to_send`; the pieces of a large command are made as they are asked for."""
        for _ in range(PIECES_AT_ONCE):
            body = self._body
            if body is None:
                break
            last = body.size <= PIECE_SIZE
            self._machine.say(Said.LAST_PIECE if last else Said.MIDDLE_PIECE)
            self._send_piece(body, Continue.LAST if last else Continue.MIDDLE)
            if last:
                self._body = None
        return super().data_to_send()

    def close(self) -> None:
        """See `BaseConnection.close`; what is left of a large command is forgotten."""
        super().close()
        self._body = None
        self._v1_body = b""
        self._held = None
        self._start_due = False

    def _send_piece(self, body: Body, place: Continue) -> None:
        self._send(tokens.DATA, self._wrap(Piece(self._machine.keep_alive, place, body.take(PIECE_SIZE)).encode()))

    # What the server says

    def next_event(self) -> Event | Literal[Pause.NEED_DATA]:
        """Return what the bytes received so far amount to, or NEED_DATA.

        Raises:
            RemctlProtocolError: the server does not keep to the protocol.
            RemctlAuthenticationError: a token of the server is not authentic.
            RemctlConnectionError: the server has ended the connection before its time.

        Every error closes the connection.
        """
        if self._held is not None:
            held, self._held = self._held, None
            return held
        if self._start_due:
            self._start_due = False
            return Step(None)
        if self.state is State.CLOSED:
            self.close()
            return Closed()
        try:
            token = self._reader.next()
            if token is None:
                return self._at_end() if self._ended else NEED_DATA
            if self.state is State.NEGOTIATING:
                return self._negotiate(token)
            if self.state in (State.START, State.IDLE):
                raise RemctlProtocolError(UNASKED)
            return self._answer(token) if self.protocol != 1 else self._v1_answer(token)
        except RemctlError as error:
            if self.state is State.NEGOTIATING and not self.protocol and error.hint is None:
                error.hint = "check that a remctl server has this port"
            self.close()
            raise

    def _at_end(self) -> Closed:
        if self.state in (State.START, State.NEGOTIATING):
            raise RemctlConnectionError(
                "the server closed the connection during authentication",
                errno=self._ended,
                hint="the server's log says why",
            )
        if self.state is not State.IDLE:
            sent = self.state is not State.NOOP
            raise RemctlConnectionError(f"{LOST}: {os.strerror(self._ended)}", errno=self._ended, sent=sent)
        self.close()
        return Closed()

    def _negotiate(self, token: Token) -> Step:
        if token.flags not in (tokens.CONTEXT, tokens.V1_CONTEXT):
            raise RemctlProtocolError(f"unexpected token with the flags 0x{token.flags:02x}")
        protocol = 1 if token.flags == tokens.V1_CONTEXT else 2
        if self.protocol not in (0, protocol):
            raise RemctlProtocolError("the protocol version changed during the handshake")
        self.protocol = protocol
        if protocol < min(self._min_protocol, 2):
            raise RemctlProtocolError(
                f"the server, or something between, speaks protocol 1, and min_protocol is {self._min_protocol}"
            )
        self._machine.hear(Said.CONTEXT)
        return Step(token.payload)

    def _answer(self, token: Token) -> Event:
        if token.flags != tokens.DATA:
            raise RemctlProtocolError(f"unexpected token with the flags 0x{token.flags:02x}")
        message = messages.decode_from_server(self.context.unwrap(token.payload))
        if isinstance(message, Output):
            self._machine.hear(_SAID[message.type])
            if self.state is State.CLOSED:
                self._body = None
        elif isinstance(message, NoopAnswer):
            self._machine.hear(Said.NOOP_ANSWER)
            self.protocol = 3
        else:
            self._machine.hear(Said.VERSION)
        return message

    # Protocol 1

    def _send_v1_command(self, body: bytes) -> None:
        if len(body) > MAX_V1_COMMAND_SIZE:
            raise ValueError(f"command has {len(body)} bytes, and protocol 1 takes {MAX_V1_COMMAND_SIZE}")
        self._machine.say(Said.COMMAND)
        self._v1_body = body
        self._send(tokens.V1_COMMAND, self._wrap(body))

    def _v1_answer(self, token: Token) -> Event | Literal[Pause.NEED_DATA]:
        if self.state is State.MIC:
            # Before the result is unwrapped: GSS-API takes the two in the order in which they were made.
            if token.flags != tokens.V1_MIC or len(token.payload) > MAX_MIC_SIZE:
                raise RemctlProtocolError(f"unexpected token with the flags 0x{token.flags:02x}")
            self.context.verify(self._v1_body, token.payload)
            self._machine.hear(Said.MIC)
            return self.next_event()
        if token.flags != tokens.V1_RESULT:
            raise RemctlProtocolError(f"unexpected token with the flags 0x{token.flags:02x}")
        status, data = messages.decode_v1_result(self.context.unwrap(token.payload))
        self._machine.hear(Said.RESULT)
        self.refused = status == V1_REFUSED
        end = Output(OutputType.STATUS, None, None, status & 0xFF)
        if not data:
            return end
        self._held = end
        return Output(OutputType.OUTPUT, data, Stream.STDOUT)
