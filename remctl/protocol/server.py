"""The server's side of the protocol: bytes in, commands out; answers in, bytes out.

Feed it with `receive_data`, ask it with `next_event`, and send what `data_to_send` returns; `base` has these.  NOOPs,
and whatever a client may not say, are answered here; the program sees commands alone.
"""

from __future__ import annotations

from typing import Final

from remctl._limits import (
    MAX_COMMAND_SIZE,
    MAX_OUTPUT_SIZE,
    MAX_V1_COMMAND_SIZE,
    MAX_V1_OUTPUT_SIZE,
    MAX_WORDS,
)
from remctl.exceptions import RemctlError, RemctlProtocolError
from remctl.protocol import messages, tokens
from remctl.protocol.base import BaseConnection
from remctl.protocol.events import NEED_DATA, PAUSED, Closed, CommandReceived, Pause, Step
from remctl.protocol.messages import Continue, MessageType, Piece, Refused, WrongVersion
from remctl.protocol.security import SecurityContext
from remctl.protocol.state import SERVER, V1_SERVER, LocalProtocolError, Said, State
from remctl.protocol.tokens import Flag, Token
from remctl.types import V1_REFUSED, ErrorCode, Stream

Event = Step | CommandReceived | Closed

_PLACES: Final = {
    Continue.WHOLE: Said.COMMAND,
    Continue.FIRST: Said.FIRST_PIECE,
    Continue.MIDDLE: Said.MIDDLE_PIECE,
    Continue.LAST: Said.LAST_PIECE,
}


class ServerConnection(BaseConnection):
    """See the module.

    Args:
        context: the acceptor's security context, fresh.
        allow_v1: whether to take clients of protocol 1, for whom the command's integrity hangs on an old handshake.
        max_words: words that a command may have.
        max_command_size: bytes that a command may have, its words with four bytes for the length of each.
    """

    receiving: int
    """Bytes of the command that is coming in pieces, so far."""
    cut: int
    """Bytes of output that the one result of protocol 1 had no room for."""

    def __init__(
        self,
        context: SecurityContext,
        *,
        allow_v1: bool = False,
        max_words: int = MAX_WORDS,
        max_command_size: int = MAX_COMMAND_SIZE,
    ) -> None:
        super().__init__(context, SERVER, V1_SERVER)
        self.receiving = 0
        self.cut = 0
        self._allow_v1 = allow_v1
        self._max_words = max_words
        self._max_command_size = max_command_size
        self._pieces = bytearray()
        self._v1_output = bytearray()

    # What the client says

    def next_event(self) -> Event | Pause:
        """Return what the bytes received so far amount to, or NEED_DATA, or PAUSED while an answer is owed.

        Raises:
            RemctlProtocolError, RemctlAuthenticationError: the client does not keep to the protocol, or sent a token
                that is not authentic.  The connection is closed; what `data_to_send` still has tells the client why.
        """
        while True:
            if self.state is State.CLOSED:
                self.close()
                return Closed()
            if self.state in (State.ANSWER, State.MIC):
                return PAUSED
            try:
                token = self._next_token()
                if token is None:
                    if not self._ended:
                        return NEED_DATA
                    self.close()
                    return Closed()
                event = self._receive(token)
            except RemctlError:
                self.close()
                raise
            if event is not None:
                return event

    def _next_token(self) -> Token | None:
        try:
            return self._reader.next()
        except RemctlProtocolError:
            self._complain()
            raise

    def _receive(self, token: Token) -> Event | None:
        if self.state is State.START:
            self._first(token)
            return None
        if self.state is State.NEGOTIATING:
            return self._negotiate(token)
        if self.protocol == 1:
            return self._v1_command(token)
        return self._message(self._unwrapped(token, (tokens.DATA,)))

    def _first(self, token: Token) -> None:
        if token.flags not in ((tokens.FIRST, tokens.V1_FIRST) if self._allow_v1 else (tokens.FIRST,)) or token.payload:
            raise RemctlProtocolError(
                f"the first token has the flags 0x{token.flags:02x} and {len(token.payload)} bytes"
            )
        if token.flags == tokens.V1_FIRST:
            self.protocol = 1
        self._machine.hear(Said.FIRST)

    def _negotiate(self, token: Token) -> Step:
        if token.flags != (tokens.V1_CONTEXT if self.protocol == 1 else tokens.CONTEXT):
            raise RemctlProtocolError(f"a context token has the flags 0x{token.flags:02x}")
        self._machine.hear(Said.CONTEXT)
        return Step(token.payload)

    def _unwrapped(self, token: Token, allowed: tuple[int, ...]) -> bytes:
        try:
            if token.flags not in allowed:
                raise RemctlProtocolError(f"a data token has the flags 0x{token.flags:02x}")
            return self.context.unwrap(token.payload)
        except RemctlProtocolError:
            self._complain()
            raise

    def _message(self, message: bytes) -> Event | None:
        try:
            said = messages.decode_from_client(message)
            if isinstance(said, Piece):
                return self._piece(said)
        except WrongVersion:
            self._send_message(messages.encode_version())
            if self.state is State.PIECES:
                raise RemctlProtocolError("something of another version came in the middle of a command") from None
            return None
        except Refused as refusal:
            if refusal.code is ErrorCode.UNKNOWN_MESSAGE:
                self._check_complete()
            self.refuse(refusal.code, str(refusal))
            return None
        if said is MessageType.QUIT:
            self._machine.hear(Said.QUIT)
            self.close()
            return Closed()
        self._check_complete()
        self._machine.hear(Said.NOOP)
        self.protocol = 3
        self._send_message(messages.NOOP)
        self._machine.say(Said.NOOP_ANSWER)
        return None

    def _check_complete(self) -> None:
        """Only a QUIT may come between the pieces of a command."""
        if self.state is State.PIECES:
            self.refuse(ErrorCode.UNEXPECTED_MESSAGE, "Unexpected message: a command is not complete")
            raise RemctlProtocolError("something else came in the middle of a command")

    def _piece(self, piece: Piece) -> Event | None:
        said = _PLACES[piece.place]
        if not self._machine.allows(said):
            raise Refused(ErrorCode.BAD_COMMAND, f"Invalid command format: unexpected continue status {piece.place}")
        discarding = self.state is State.DISCARDING
        self._machine.hear(said)
        if discarding and said in (Said.MIDDLE_PIECE, Said.LAST_PIECE):
            if said is Said.LAST_PIECE and not piece.keep_alive:
                self.close()
            return None
        self._machine.keep_alive = piece.keep_alive
        self._pieces += piece.body
        self.receiving += len(piece.body)
        if self.receiving >= self._max_command_size:
            raise Refused(
                ErrorCode.TOOMUCH_DATA, f"Too much data: a command has less than {self._max_command_size} bytes"
            )
        if self.state is not State.ANSWER:
            return None
        body, self._pieces = self._pieces, bytearray()
        self.receiving = 0
        return CommandReceived(messages.decode_words(memoryview(body), self._max_words), piece.keep_alive)

    def _forget(self) -> None:
        self._pieces = bytearray()
        self.receiving = 0

    # What the program answers

    def send_output(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Send output of the command, in as many messages as it takes; in protocol 1, keep it for the result.

        Raises:
            LocalProtocolError: no answer is owed.
            ValueError: there is no such stream.
        """
        stream = Stream(stream)
        self._check_owed()
        if self.protocol == 1:
            room = MAX_V1_OUTPUT_SIZE - len(self._v1_output)
            self._v1_output += data[:room]
            self.cut += max(0, len(data) - room)
            return
        for begin in range(0, len(data), MAX_OUTPUT_SIZE):
            self._machine.say(Said.OUTPUT)
            self._send_message(messages.encode_output(data[begin : begin + MAX_OUTPUT_SIZE], stream))

    def send_status(self, status: int) -> None:
        """End the answer with an exit status.

        Args:
            status: 0 to 255.

        Raises:
            LocalProtocolError: no answer is owed.
            ValueError: the status is out of range.
        """
        if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
            raise ValueError(f"status must be 0 to 255: {status!r}")
        self._check_owed()
        if self.protocol == 1:
            self._v1_result(status, bytes(self._v1_output))
        else:
            self._machine.say(Said.STATUS)
            self._send_message(messages.encode_status(status))

    def send_error(self, code: int, text: str) -> None:
        """End the answer with an error, which protocol 1 sends as status -1 with the text for output.

        Args:
            code: an `ErrorCode`, or another number of 32 bits.
            text: for people; cut to what fits a message.

        Raises:
            LocalProtocolError: no answer is owed.
            ValueError: the code is out of range.
        """
        if not (isinstance(code, int) and 0 <= code < 2**32):
            raise ValueError(f"code must be a number of 32 bits: {code!r}")
        self._check_owed()
        self._say_error(code, text)

    def refuse(self, code: ErrorCode, text: str) -> None:
        """Send an error instead of taking what the client says; the rest of a command in pieces is then discarded."""
        self._forget()
        self._say_error(code, text)

    def close(self) -> None:
        """See `BaseConnection.close`; the pieces of a command that is not complete are forgotten."""
        super().close()
        self._forget()

    def _check_owed(self) -> None:
        if self.state not in (State.ANSWER, State.MIC):
            raise LocalProtocolError(f"no answer is owed: the connection's state is {self.state.value!r}")

    def _say_error(self, code: int, text: str) -> None:
        if self.protocol == 1:
            self._v1_result(V1_REFUSED, f"{text}\n".encode("utf-8", "backslashreplace")[:MAX_V1_OUTPUT_SIZE])
        else:
            message = messages.encode_error(code, text)
            self._machine.say(Said.ERROR)
            self._send_message(message)

    def _complain(self) -> None:
        """Say a last word about a bad token, to a client that can understand it."""
        if self.state in (State.IDLE, State.PIECES, State.DISCARDING):
            self.refuse(ErrorCode.BAD_TOKEN, "Invalid token")

    def _send_message(self, message: bytes) -> None:
        self._send(tokens.DATA, self._wrap(message))

    # Protocol 1

    def _v1_command(self, token: Token) -> Event | None:
        body = self._unwrapped(token, (tokens.V1_COMMAND, tokens.V1_RESULT))
        self._machine.hear(Said.COMMAND)
        if token.flags & Flag.SEND_MIC:
            self._send(tokens.V1_MIC, self.context.sign(body))
            self._machine.say(Said.MIC)
        try:
            if len(body) > MAX_V1_COMMAND_SIZE or len(body) >= self._max_command_size:
                raise Refused(ErrorCode.TOOMUCH_DATA, "Too much data")
            return CommandReceived(messages.decode_words(body, self._max_words), keep_alive=False)
        except Refused as refusal:
            self.send_error(refusal.code, str(refusal))
            return None

    def _v1_result(self, status: int, data: bytes) -> None:
        self._machine.say(Said.RESULT)
        self._send(tokens.V1_RESULT, self._wrap(messages.encode_v1_result(status, data)))
