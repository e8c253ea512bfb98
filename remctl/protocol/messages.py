"""Messages, the payloads of data tokens before encryption: from values to bytes and back.

Above `tokens`, below `client` and `server`; knows the format of each message, and nothing about when it is due.  All
messages of protocols 2 and 3 begin with a version byte and a type byte (specification, section "Message Format");
protocol 1 has two messages, without that header.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from remctl._limits import MAX_MESSAGE_SIZE
from remctl.exceptions import RemctlProtocolError
from remctl.types import ErrorCode, Output, OutputType, Stream

VERSION: Final = 2
"""The version byte of every message but NOOP."""

HIGHEST_VERSION: Final = 3
"""The highest version there is; NOOP is what it added."""

_NUMBER: Final = struct.Struct(">I")
_OUTPUT: Final = struct.Struct(">BBBI")
_STATUS: Final = struct.Struct(">BBB")
_ERROR: Final = struct.Struct(">BBII")
_PIECE: Final = struct.Struct(">BBBB")
_V1_RESULT: Final = struct.Struct(">iI")

PIECE_SIZE: Final = MAX_MESSAGE_SIZE - _PIECE.size
"""Bytes of a command's body that fit one message."""


class MessageType(enum.IntEnum):
    """The second byte of a message."""

    COMMAND = 1
    QUIT = 2
    OUTPUT = 3
    STATUS = 4
    ERROR = 5
    VERSION = 6
    NOOP = 7


class Continue(enum.IntEnum):
    """Which piece of a command a COMMAND message holds."""

    WHOLE = 0
    FIRST = 1
    MIDDLE = 2
    LAST = 3


class Piece(NamedTuple):
    """A COMMAND message: the body of a command, or a piece of it."""

    keep_alive: bool
    place: Continue
    body: bytes

    def encode(self) -> bytes:
        """Return the message."""
        return _PIECE.pack(VERSION, MessageType.COMMAND, self.keep_alive, self.place) + self.body


class Refused(Exception):
    """What a client said cannot be taken, and the server answers so.  Never leaves the protocol core."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class WrongVersion(Exception):
    """A client's message is of a version that does not exist.  Never leaves the protocol core."""


# Commands


def encode_words(words: Sequence[bytes]) -> bytes:
    """Return the body of a command: the number of words, and each with its length before it."""
    return b"".join(_parts(words))


class Body:
    """The body of a command, cut off piece by piece, so that a large one is not there twice."""

    def __init__(self, words: Sequence[bytes]) -> None:
        parts = _parts(words)
        self._parts = deque(memoryview(part) for part in parts)
        self.size = sum(map(len, parts))

    def take(self, size: int) -> bytes:
        """Return the next bytes, so many or what is left."""
        taken = []
        while size and self._parts:
            part = self._parts[0]
            taken.append(part[:size])
            if len(part) > size:
                self._parts[0] = part[size:]
            else:
                self._parts.popleft()
            size -= len(taken[-1])
        piece = b"".join(taken)
        self.size -= len(piece)
        return piece


def _parts(words: Sequence[bytes]) -> list[bytes]:
    return [_NUMBER.pack(len(words)), *(part for word in words for part in (_NUMBER.pack(len(word)), word))]


def decode_words(body: bytes | memoryview, max_words: int) -> tuple[bytes, ...]:
    """Return the words of a command's body.

    Raises:
        Refused: the lengths do not fit the body, or there are no words, or too many.
    """
    if len(body) < _NUMBER.size:
        raise Refused(ErrorCode.BAD_COMMAND, "Invalid command format: no number of arguments")
    (count,) = _NUMBER.unpack_from(body)
    if count == 0:
        raise Refused(ErrorCode.UNKNOWN_COMMAND, "Unknown command: the command is empty")
    if count > max_words:
        raise Refused(ErrorCode.TOOMANY_ARGS, f"Too many arguments: {count}, and at most {max_words} are allowed")
    words = []
    position = _NUMBER.size
    for _ in range(count):
        begin = position + _NUMBER.size
        if begin > len(body):
            raise Refused(ErrorCode.BAD_COMMAND, "Invalid command format: an argument is missing")
        (length,) = _NUMBER.unpack_from(body, position)
        position = begin + length
        if position > len(body):
            raise Refused(ErrorCode.BAD_COMMAND, "Invalid command format: an argument is cut off")
        words.append(bytes(body[begin:position]))
    if position != len(body):
        raise Refused(ErrorCode.BAD_COMMAND, "Invalid command format: something follows the arguments")
    return tuple(words)


# What a client says

QUIT: Final = bytes([VERSION, MessageType.QUIT])
NOOP: Final = bytes([HIGHEST_VERSION, MessageType.NOOP])
"""Also the server's answer to it."""


def decode_from_client(message: bytes) -> Piece | MessageType:
    """Return what a client of protocol 2 or 3 said: a piece of a command, or the type QUIT or NOOP.

    Raises:
        WrongVersion: the message is of a version that does not exist.
        Refused: the message cannot be understood.
    """
    if len(message) > MAX_MESSAGE_SIZE:
        raise Refused(ErrorCode.TOOMUCH_DATA, f"Too much data: a message has {MAX_MESSAGE_SIZE} bytes at the most")
    if len(message) < 2:
        raise Refused(ErrorCode.BAD_TOKEN, "Invalid token: a message has at least a version and a type")
    version, kind = message[0], message[1]
    if version not in (VERSION, HIGHEST_VERSION):
        raise WrongVersion
    if kind == MessageType.COMMAND:
        if len(message) < _PIECE.size:
            raise Refused(ErrorCode.BAD_COMMAND, "Invalid command format: the message is too short")
        if message[3] > Continue.LAST:
            raise Refused(ErrorCode.BAD_COMMAND, f"Invalid command format: continue status {message[3]}")
        return Piece(bool(message[2]), Continue(message[3]), message[_PIECE.size :])
    if kind in (MessageType.QUIT, MessageType.NOOP):
        return MessageType(kind)
    raise Refused(ErrorCode.UNKNOWN_MESSAGE, f"Unknown message type: {kind}")


# What a server says


def encode_output(data: bytes, stream: Stream) -> bytes:
    """Return an OUTPUT message; the data has at most MAX_OUTPUT_SIZE bytes."""
    return _OUTPUT.pack(VERSION, MessageType.OUTPUT, stream, len(data)) + data


def encode_status(status: int) -> bytes:
    """Return a STATUS message; the status is 0 to 255."""
    return _STATUS.pack(VERSION, MessageType.STATUS, status)


def encode_error(code: int, text: str) -> bytes:
    """Return an ERROR message, its text cut to what fits a message."""
    data = text.encode("utf-8", "backslashreplace")[: MAX_MESSAGE_SIZE - _ERROR.size]
    return _ERROR.pack(VERSION, MessageType.ERROR, code, len(data)) + data


def encode_version() -> bytes:
    """Return a VERSION message with the highest version there is."""
    return bytes([VERSION, MessageType.VERSION, HIGHEST_VERSION])


@dataclass(frozen=True, slots=True)
class HighestVersion:
    """What a server answers to a message whose version it does not speak."""

    version: int


@dataclass(frozen=True, slots=True)
class NoopAnswer:
    """The server's answer to a NOOP."""


_STREAMS: Final = {1: Stream.STDOUT, 2: Stream.STDERR}


def decode_from_server(message: bytes) -> Output | HighestVersion | NoopAnswer:
    """Return what a server of protocol 2 or 3 said.

    Raises:
        RemctlProtocolError: the message cannot be understood.
    """
    size = len(message)
    kind = message[1] if size >= 2 and message[0] in (VERSION, HIGHEST_VERSION) else 0
    if kind == MessageType.OUTPUT and size >= _OUTPUT.size:
        _, _, stream, length = _OUTPUT.unpack_from(message)
        if stream in _STREAMS and length == size - _OUTPUT.size:
            return Output(OutputType.OUTPUT, message[_OUTPUT.size :], _STREAMS[stream])
    elif kind == MessageType.STATUS and size == _STATUS.size:
        return Output(OutputType.STATUS, None, None, message[2])
    elif kind == MessageType.ERROR and size >= _ERROR.size:
        _, _, code, length = _ERROR.unpack_from(message)
        if length == size - _ERROR.size:
            return Output(OutputType.ERROR, message[_ERROR.size :], error=ErrorCode.lookup(code))
    elif kind == MessageType.VERSION and size == 3:
        return HighestVersion(message[2])
    elif kind == MessageType.NOOP:
        return NoopAnswer()
    raise RemctlProtocolError(f"a message came that cannot be understood: {_described(message)}")


def _described(message: bytes) -> str:
    if len(message) < 2:
        return f"{len(message)} bytes"
    return f"version {message[0]}, type {message[1]}, {len(message)} bytes"


# Protocol 1


def encode_v1_result(status: int, data: bytes) -> bytes:
    """Return the result of protocol 1; the data has at most MAX_V1_OUTPUT_SIZE bytes."""
    return _V1_RESULT.pack(status, len(data)) + data


def decode_v1_result(message: bytes) -> tuple[int, bytes]:
    """Return the status, signed and of 32 bits, and the output of a result of protocol 1.

    Raises:
        RemctlProtocolError: the message cannot be understood.
    """
    if len(message) >= _V1_RESULT.size:
        status, length = _V1_RESULT.unpack_from(message)
        if length == len(message) - _V1_RESULT.size:
            return status, message[_V1_RESULT.size :]
    raise RemctlProtocolError(f"a result came that cannot be understood: {len(message)} bytes")
