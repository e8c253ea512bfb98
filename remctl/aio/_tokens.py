"""The core of a client's connection, which logs its tokens where somebody looks for what goes wrong.

Between the protocol core, which does not log, and `_connection`.  What is in a token is never shown: it may be secret.
"""

from __future__ import annotations

import logging
from typing import Final, Literal

from remctl.protocol import ClientConnection, HighestVersion, NoopAnswer, Step, tokens
from remctl.protocol.client import Event
from remctl.protocol.events import Pause
from remctl.protocol.messages import MessageType
from remctl.protocol.security import SecurityContext
from remctl.protocol.tokens import Token
from remctl.types import Output

logger = logging.getLogger("remctl.aio.tokens")

_BY_FLAGS: Final = {
    tokens.FIRST: "FIRST",
    tokens.CONTEXT: "CONTEXT",
    tokens.V1_CONTEXT: "CONTEXT",
    tokens.V1_COMMAND: "COMMAND",
    tokens.V1_MIC: "MIC",
    tokens.V1_RESULT: "RESULT",
}
"""What tokens are that hold no message with a type of its own."""


def core_of(context: SecurityContext, *, min_protocol: int) -> ClientConnection:
    """Return a connection's core; it logs its tokens to `remctl.aio.tokens` if that takes DEBUG by now."""
    kind = _LoggedConnection if logger.isEnabledFor(logging.DEBUG) else ClientConnection
    return kind(context, min_protocol=min_protocol)


class _LoggedConnection(ClientConnection):
    _saying = ""  # the type of the message that was wrapped last

    def _wrap(self, message: bytes) -> bytes:
        if self.protocol != 1:
            self._saying = MessageType(message[1]).name
        return super()._wrap(message)

    def _send(self, flags: int, payload: bytes) -> None:
        _log("sent", _BY_FLAGS.get(flags, self._saying), Token(flags, payload))
        super()._send(flags, payload)

    def _negotiate(self, token: Token) -> Step:
        _log("received", _BY_FLAGS.get(token.flags, _UNREADABLE), token)
        return super()._negotiate(token)

    def _answer(self, token: Token) -> Event:
        name = _UNREADABLE
        try:
            event = super()._answer(token)
            name = event.type.name if isinstance(event, Output) else _BY_EVENT[type(event)]
        finally:
            _log("received", name, token)
        return event

    def _v1_answer(self, token: Token) -> Event | Literal[Pause.NEED_DATA]:
        _log("received", _BY_FLAGS.get(token.flags, _UNREADABLE), token)
        return super()._v1_answer(token)


_BY_EVENT: Final[dict[type, str]] = {NoopAnswer: MessageType.NOOP.name, HighestVersion: MessageType.VERSION.name}

_UNREADABLE: Final = "unreadable"


def _log(direction: str, name: str, token: Token) -> None:
    logger.debug("%s %s: flags 0x%02x, %d bytes", direction, name, token.flags, len(token.payload))
