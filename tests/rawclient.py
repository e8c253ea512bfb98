"""A client that says anything at all: a blocking socket and the real GSS-API, with nothing between.

What a well-behaved client never does to a server (wrong flags, torn tokens, messages that do not exist) is one line
with it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

import gssapi

PATIENCE: Final = 30.0
"""Seconds after which something that should have come will not come any more."""

FIRST: Final = 0x51
CONTEXT: Final = 0x42
DATA: Final = 0x44

COMMAND, QUIT, OUTPUT, STATUS, ERROR, VERSION, NOOP = range(1, 8)
WHOLE, BEGIN, MIDDLE, END = range(4)

_FLAGS: Final = (
    gssapi.RequirementFlag.mutual_authentication,
    gssapi.RequirementFlag.confidentiality,
    gssapi.RequirementFlag.integrity,
    gssapi.RequirementFlag.replay_detection,
    gssapi.RequirementFlag.out_of_sequence_detection,
)


def encode_token(flags: int, payload: bytes = b"") -> bytes:
    """A token as it travels."""
    return struct.pack(">BI", flags, len(payload)) + payload


def encode_words(*words: bytes) -> bytes:
    """The body of a command."""
    return struct.pack(">I", len(words)) + b"".join(struct.pack(">I", len(word)) + word for word in words)


def encode_command(*words: bytes, keep_alive: int = 1, place: int = WHOLE) -> bytes:
    """A COMMAND message with a whole command."""
    return encode_piece(encode_words(*words), place, keep_alive)


def encode_piece(body: bytes, place: int, keep_alive: int = 1) -> bytes:
    """A COMMAND message with a piece of a command."""
    return bytes([2, COMMAND, keep_alive, place]) + body


def error(code: int, text: str) -> bytes:
    """An ERROR message, as it is expected of the server."""
    return struct.pack(">BBII", 2, ERROR, code, len(text)) + text.encode()


def output(data: bytes, stream: int = 1) -> bytes:
    """An OUTPUT message, as it is expected of the server."""
    return struct.pack(">BBBI", 2, OUTPUT, stream, len(data)) + data


def status(number: int = 0) -> bytes:
    """A STATUS message, as it is expected of the server."""
    return bytes([2, STATUS, number])


class RawClient:
    """A connection, closed at the end of `with`.

    Args:
        port: the server's TCP port, on 127.0.0.1.
        principal: the server's principal.
        authenticated: whether to go through the handshake at once.
        mutual: whether to ask for mutual authentication.
        receive_buffer: bytes that the system may take for us before we read them; None leaves it to the system.
        ccache: the ticket cache; None is the default one.
    """

    def __init__(
        self,
        port: int,
        principal: str = "host/localhost@SANDBOX.TEST",
        *,
        authenticated: bool = True,
        mutual: bool = True,
        receive_buffer: int | None = None,
        ccache: str | None = None,
    ) -> None:
        store: Any = None if ccache is None else {"ccache": ccache}
        self.context: Any = gssapi.SecurityContext(
            name=gssapi.Name(principal, gssapi.NameType.kerberos_principal),
            creds=gssapi.Credentials(usage="initiate", store=store),
            usage="initiate",
            mech=gssapi.MechType.kerberos,
            flags=sum(_FLAGS if mutual else _FLAGS[1:]),
        )
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(("127.0.0.1", port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if authenticated:
                self.handshake()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # The handshake

    def handshake(self, first: int = FIRST, context: int = CONTEXT) -> None:
        """Go through it."""
        self.send_token(first)
        self.send_token(context, self.first_context_token())
        self.finish_handshake()

    def first_context_token(self) -> bytes:
        """Begin with GSS-API, and return what it has for the server."""
        return bytes(self.context.step())

    def finish_handshake(self) -> None:
        """Take the server's part of it."""
        while not self.context.complete:
            _, answer = self.receive_token()
            more = self.context.step(answer)
            assert not more, "the handshake has one round"

    # Bytes and tokens

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def dribble(self, data: bytes) -> None:
        """Send bytes one at a time, each in a packet of its own."""
        for byte in data:
            self.socket.sendall(bytes([byte]))

    def send_token(self, flags: int, payload: bytes = b"") -> None:
        """Send a token."""
        self.send(encode_token(flags, payload))

    def send_header(self, flags: int, length: int) -> None:
        """Send the beginning of a token whose payload does not follow."""
        self.send(struct.pack(">BI", flags, length))

    def receive_token(self) -> tuple[int, bytes]:
        """Return the flags and the payload of the next token; ConnectionError if there is none."""
        flags, size = struct.unpack(">BI", self._receive_exactly(5))
        return flags, self._receive_exactly(size)

    def _receive_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise ConnectionError(f"the server has closed the connection, {size - len(data)} bytes early")
            data += piece
        return bytes(data)

    # Messages

    def wrap(self, message: bytes, encrypt: bool = True) -> bytes:
        """Return a message as the payload of a token."""
        return bytes(self.context.wrap(message, encrypt).message)

    def wrapped(self, message: bytes) -> bytes:
        """Return a message as a token."""
        return encode_token(DATA, self.wrap(message))

    def say(self, *messages: bytes) -> None:
        """Send messages, all at once."""
        self.send(b"".join(map(self.wrapped, messages)))

    def command(self, *words: bytes, keep_alive: int = 1) -> None:
        """Send a command."""
        self.say(encode_command(*words, keep_alive=keep_alive))

    def hear(self) -> bytes:
        """Return the next message."""
        flags, payload = self.receive_token()
        assert flags == DATA
        return self.unwrap(payload)

    def unwrap(self, payload: bytes) -> bytes:
        """Return what is in the payload of a token."""
        return bytes(self.context.unwrap(payload).message)

    def answer(self) -> list[bytes]:
        """Return the messages of an answer, the last of which is a STATUS or an ERROR."""
        heard = [self.hear()]
        while heard[-1][1] == OUTPUT:
            heard.append(self.hear())
        return heard

    def run(self, *words: bytes) -> list[bytes]:
        """Send a command and return the messages of the answer."""
        self.command(*words)
        return self.answer()

    # The end

    def rest(self) -> list[bytes]:
        """Return the messages that come until the server closes the connection."""
        heard = []
        with contextlib.suppress(ConnectionError):
            while True:
                heard.append(self.hear())
        return heard

    def ended(self) -> bool:
        """Whether the server closes the connection, and says no more before it does."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def hang_up(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Cut the connection with a reset, as a program does that is killed with unread data."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def strangers(port: int, number: int) -> Iterable[socket.socket]:
    """Open connections that say nothing."""
    for _ in range(number):
        yield socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
