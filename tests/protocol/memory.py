"""Both ends of a connection in memory: a security context without cryptography, and what joins two ends.

Nothing here uses the encoders of the package: tokens are made and cut by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import pytest
from hypothesis import settings

from remctl.exceptions import RemctlAuthenticationError, RemctlError
from remctl.protocol import (
    NEED_DATA,
    PAUSED,
    ClientConnection,
    Closed,
    CommandReceived,
    Established,
    ServerConnection,
    State,
    Step,
)
from remctl.types import Output, OutputType, Stream

Connection = ClientConnection | ServerConnection
Cut = Callable[[bytes], Iterable[bytes]]

FEW: Final = settings(max_examples=60, deadline=None)
"""For properties whose examples are whole conversations."""


# A security context


class MemoryContext:
    """Numbers what it protects, as GSS-API does: what is lost, repeated or out of order is refused.

    Args:
        initiator: whether this is the client's side.
        tokens: context tokens that the two sides exchange in all, the client's first.
        lacking: see `SecurityContext`.
    """

    expired: bool
    """Set it, and everything is refused from then on."""

    def __init__(self, initiator: bool, tokens: int = 2, lacking: tuple[str, ...] = ()) -> None:
        self.expired = False
        self._initiator = initiator
        self._tokens = tokens
        self._lacking = lacking
        self._exchanged = 0
        self._sent = 0
        self._received = 0

    @property
    def complete(self) -> bool:
        return self._exchanged == self._tokens

    @property
    def lacking(self) -> tuple[str, ...]:
        return self._lacking

    def step(self, token: bytes | None) -> bytes | None:
        beginning = self._initiator and self._exchanged == 0
        if self.complete or token != (None if beginning else b"context %d" % self._exchanged):
            raise RemctlAuthenticationError("an invalid context token was supplied")
        answer = self._exchanged + (not beginning)
        self._exchanged = min(answer + 1, self._tokens)
        return b"context %d" % answer if answer < self._tokens else None

    def wrap(self, message: bytes) -> bytes:
        return self._next_sent(b"W") + message

    def unwrap(self, token: bytes) -> bytes:
        self._take_number(b"W", token)
        return token[5:]

    def sign(self, message: bytes) -> bytes:
        return self._next_sent(b"M") + hashlib.sha256(message).digest()

    def verify(self, message: bytes, mic: bytes) -> None:
        self._take_number(b"M", mic)
        if mic[5:] != hashlib.sha256(message).digest():
            raise RemctlAuthenticationError("a token had an invalid MIC")

    def _next_sent(self, kind: bytes) -> bytes:
        self._check()
        self._sent += 1
        return struct.pack(">cI", kind, self._sent)

    def _take_number(self, kind: bytes, token: bytes) -> None:
        self._check()
        if token[:5] != struct.pack(">cI", kind, self._received + 1):
            raise RemctlAuthenticationError("a token is forged, lost, repeated or out of order")
        self._received += 1

    def _check(self) -> None:
        if self.expired:
            raise RemctlAuthenticationError("the context has expired")


# One end, and a peer that is made by hand


def token(flags: int, payload: bytes = b"") -> bytes:
    """Return a token as it travels."""
    return struct.pack(">BI", flags, len(payload)) + payload


def tokens_in(data: bytes) -> list[tuple[int, bytes]]:
    """Cut bytes into flags and payloads; there may be nothing left over."""
    found = []
    while data:
        flags, length = struct.unpack_from(">BI", data)
        assert len(data) >= 5 + length
        found.append((flags, data[5 : 5 + length]))
        data = data[5 + length :]
    return found


class Peer:
    """The other side of an established connection: protects and reads tokens, and keeps to no protocol."""

    def __init__(self) -> None:
        self.context = MemoryContext(initiator=False)

    def says(self, *messages: bytes, flags: int = 0x44) -> bytes:
        """Return the messages as they travel."""
        return b"".join(token(flags, self.context.wrap(message)) for message in messages)

    def hears(self, data: bytes, flags: int = 0x44) -> list[bytes]:
        """Return the messages in bytes that the connection has sent."""
        found = tokens_in(data)
        assert {each for each, _ in found} <= {flags}
        return [self.context.unwrap(payload) for _, payload in found]


def negotiating_client(tokens: int = 2, lacking: tuple[str, ...] = (), min_protocol: int = 1) -> ClientConnection:
    """Return a client that has sent its first context token."""
    client = ClientConnection(MemoryContext(True, tokens, lacking), min_protocol=min_protocol)
    client.start()
    client.next_event()
    client.stepped(client.context.step(None))
    client.data_to_send()
    return client


def established_client(protocol: int = 2) -> tuple[ClientConnection, Peer]:
    """Return a client that may send commands, and its server."""
    client = negotiating_client()
    client.receive_data(token(0x42 if protocol == 2 else 0x02, b"context 1"))
    assert take_step(client) == Established(protocol)
    return client, Peer()


def negotiating_server(
    protocol: int = 2, tokens: int = 2, lacking: tuple[str, ...] = (), allow_v1: bool = True
) -> ServerConnection:
    """Return a server that has got a client's first token."""
    server = ServerConnection(MemoryContext(False, tokens, lacking), allow_v1=allow_v1)
    server.receive_data(token(0x51 if protocol == 2 else 0x11))
    assert server.next_event() is NEED_DATA
    return server


def established_server(
    protocol: int = 2, *, max_words: int = 4096, max_command_size: int = 100 * 1024 * 1024
) -> tuple[ServerConnection, Peer]:
    """Return a server that waits for commands, and its client."""
    server = ServerConnection(
        MemoryContext(False), allow_v1=protocol == 1, max_words=max_words, max_command_size=max_command_size
    )
    flags = (0x51, 0x42) if protocol == 2 else (0x11, 0x02)
    server.receive_data(token(flags[0]) + token(flags[1], b"context 0"))
    assert take_step(server) == Established(protocol)
    server.data_to_send()
    return server, Peer()


def take_step(connection: Connection) -> Established | None:
    """Have the security context take the step that is due."""
    step = connection.next_event()
    assert isinstance(step, Step)
    return connection.stepped(connection.context.step(step.token))


def events(connection: Connection) -> list[object]:
    """Return every event that is there, up to and with what says that there is no further one."""
    found: list[object] = []
    while not found or not (found[-1] in (NEED_DATA, PAUSED) or isinstance(found[-1], Closed)):
        found.append(connection.next_event())
    return found


def assert_fails(connection: Connection, error: type[RemctlError], match: str | None = None) -> None:
    """Assert that the next event is this error, and that the connection is closed by it for good."""
    with pytest.raises(error, match=match) as caught:
        connection.next_event()
    assert type(caught.value) is error
    assert connection.state is State.CLOSED
    assert_closed(connection)


def assert_closed(connection: Connection) -> None:
    """Assert that nothing further is to come."""
    for _ in range(2):
        assert isinstance(connection.next_event(), Closed)
        assert connection.state is State.CLOSED
        connection.receive_data(token(0x44, b"late"))


def output(data: bytes, stream: Stream = Stream.STDOUT) -> Output:
    """Return the token of an answer that holds output."""
    return Output(OutputType.OUTPUT, data, stream)


def status(number: int) -> Output:
    """Return the token of an answer that ends it."""
    return Output(OutputType.STATUS, status=number)


# Two ends


def whole(data: bytes) -> Iterable[bytes]:
    """Leave bytes in one piece."""
    return [data]


def bytewise(data: bytes) -> Iterable[bytes]:
    """Cut bytes into single ones."""
    return (data[place : place + 1] for place in range(len(data)))


def cut_at(places: Iterable[int]) -> Cut:
    """Return what cuts bytes at some places, each taken modulo their number."""
    wanted = list(places)

    def cut(data: bytes) -> Iterable[bytes]:
        ends = sorted({place % len(data) for place in wanted} | {0, len(data)})
        return [data[begin:end] for begin, end in itertools.pairwise(ends)]

    return cut


def downgrade(data: bytes) -> bytes:
    """Take the protocol bit from the tokens of a handshake, as a server of protocol 1 does by not looking at it."""
    return b"".join(token(flags & ~0x40, payload) for flags, payload in tokens_in(data))


class Link:
    """Carries the bytes between a client and a server, and has their security contexts take their steps.

    Args:
        client: the client, fresh.
        server: the server, fresh.
        cut: how the bytes are cut on their way.
        upward: what becomes of the client's bytes on their way.
    """

    heard: list[object]
    """The events of the client."""
    commands: list[object]
    """The events of the server."""

    def __init__(
        self,
        client: ClientConnection,
        server: ServerConnection,
        cut: Cut = whole,
        upward: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.client = client
        self.server = server
        self.heard = []
        self.commands = []
        self._cut = cut
        self._upward = upward

    def pump(self) -> None:
        """Carry bytes until neither side has any."""
        self._settle(self.client, self.heard)
        moved = True
        while moved:
            moved = False
            while data := self.client.data_to_send():
                moved = True
                self._carry(self._upward(data), self.server, self.commands)
            while data := self.server.data_to_send():
                moved = True
                self._carry(data, self.client, self.heard)

    def answer(self) -> CommandReceived:
        """Carry a command, and return it."""
        self.pump()
        command = self.commands.pop()
        assert isinstance(command, CommandReceived)
        assert self.commands == []
        return command

    def _carry(self, data: bytes, to: Connection, found: list[object]) -> None:
        for piece in self._cut(data):
            to.receive_data(piece)
            self._settle(to, found)

    @staticmethod
    def _settle(connection: Connection, found: list[object]) -> None:
        while True:
            event = connection.next_event()
            if isinstance(event, Step):
                established = connection.stepped(connection.context.step(event.token))
                if established is not None:
                    found.append(established)
            elif event is NEED_DATA or event is PAUSED or isinstance(event, Closed):
                return
            else:
                found.append(event)


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Give a function that returns how many bytes what was made in here holds."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
