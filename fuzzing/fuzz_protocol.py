"""Fuzzes the protocol core: one side of a connection against a peer that says anything.

An input is a script: the role, how the connection begins, what the program of this side does, and what the peer says,
from well-formed messages to raw bytes.  It is played three times, with the peer's bytes in one piece, in crumbs and cut
at places of the input's choice.  This has to hold:

- `next_event` raises nothing but the errors that it documents, and is closed by each of them;
- what it returns fits the state: PAUSED while an answer is owed, Closed when closed, NEED_DATA otherwise;
- a context that expires closes the connection, whatever it was needed for;
- a connection holds no more bytes than its limits allow, and none once it is closed;
- events, errors, and bytes sent are the same however the peer's bytes were cut.

See `running` for the command line.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import atheris
import running

sys.path.append(str(running.HERE.parent / "tests"))

with atheris.instrument_imports(include=["remctl.protocol"]):
    from protocol.memory import Cut, MemoryContext, cut_at, token, whole

    from remctl.exceptions import RemctlAuthenticationError, RemctlConnectionError, RemctlError, RemctlProtocolError
    from remctl.protocol import (
        NEED_DATA,
        PAUSED,
        ClientConnection,
        Closed,
        CommandReceived,
        ServerConnection,
        State,
        Step,
    )
    from remctl.types import Stream

MAX_WORDS: Final = 3
MAX_COMMAND_SIZE: Final = 24
OWED: Final = (State.ANSWER, State.MIC)

LS: Final = b"\0\0\0\x01\0\0\0\x02ls"
MESSAGES: Final = [
    b"\x02\x01\x01\x00" + LS,
    b"\x02\x01\x00\x00" + LS,
    b"\x02\x01\x01\x01" + LS,
    b"\x02\x01\x01\x02",
    b"\x02\x01\x01\x03",
    b"\x02\x01\x00\x03",
    b"\x02\x02",
    b"\x03\x07",
    b"\x02\x03\x01\0\0\0\x03out",
    b"\x02\x03\x02\0\0\0\x03err",
    b"\x02\x04\x00",
    b"\x02\x05\0\0\0\x05\0\0\0\x02no",
    b"\x02\x06\x02",
    b"\x04\x01",
    b"\x02\x63",
    LS,
    b"\0\0\0\0\0\0\0\x02hi",
    b"\xff\xff\xff\xff\0\0\0\x03no\n",
    b"",
]
FLAGS: Final = [0x51, 0x42, 0x44, 0x11, 0x02, 0x24, 0x08, 0x04]


def crumbs(data: bytes) -> Iterable[bytes]:
    """Cut bytes into single ones, or, where these would be very many, into few."""
    size = 1 + len(data) // 1000
    return (data[place : place + size] for place in range(0, len(data), size))


class Script:
    """What both sides do, as far as an input decides it.

    Args:
        choices: the input.
    """

    def __init__(self, choices: atheris.FuzzedDataProvider) -> None:
        self.client = choices.ConsumeBool()
        self.rounds = choices.ConsumeIntInRange(1, 4)
        self.lacking = ("integrity",) if choices.ConsumeIntInRange(0, 15) == 0 else ()
        self.option = choices.ConsumeIntInRange(0, 3)
        self.plan = [choices.ConsumeIntInRange(0, 7) for _ in range(choices.ConsumeIntInRange(0, 6))]
        self.ended = choices.ConsumeBool()
        self.places = [choices.ConsumeIntInRange(0, 65_535) for _ in range(choices.ConsumeIntInRange(0, 6))]
        self.expires = choices.ConsumeIntInRange(0, 12)
        self.old = choices.ConsumeBool()
        self.stream = self._handshake(choices) + self._rest(choices)

    def _handshake(self, choices: atheris.FuzzedDataProvider) -> bytes:
        """Return the peer's part of the handshake, or its beginning."""
        begin = [] if self.client else [token(0x11 if self.old else 0x51)]
        numbers = range(1 if self.client else 0, self.rounds, 2)
        tokens = [*begin, *(token(0x02 if self.old else 0x42, b"context %d" % number) for number in numbers)]
        if choices.ConsumeIntInRange(0, 7) == 0 and tokens:
            tokens.pop()
        return b"".join(tokens)

    def _rest(self, choices: atheris.FuzzedDataProvider) -> bytes:
        peer = MemoryContext(not self.client)
        data = (0x04 if self.client else 0x24) if self.old else 0x44
        said = []
        while choices.remaining_bytes():
            kind = choices.ConsumeIntInRange(0, 40)
            flags = choices.PickValueInList(FLAGS) if kind % 8 else choices.ConsumeIntInRange(0, 255)
            if kind < 16:
                said.append(token(data, peer.wrap(self._message(choices))))
            elif kind < 20:
                said.append(token(flags, peer.wrap(self._message(choices))))
            elif kind < 30:
                kind = choices.ConsumeIntInRange(3, 7) if self.client else 1
                head = bytes([2, kind, choices.ConsumeBool(), choices.ConsumeIntInRange(0, 4)])
                said.append(token(data, peer.wrap(head + choices.ConsumeBytes(choices.ConsumeIntInRange(0, 12)))))
            elif kind < 33:
                said.append(token(0x08, peer.sign(LS)))
            elif kind < 36:
                said.append(token(flags, choices.ConsumeBytes(choices.ConsumeIntInRange(0, 40))))
            elif kind < 38:
                said.append(bytes([flags]) + choices.ConsumeIntInRange(0, 2**32 - 1).to_bytes(4, "big"))
            elif kind < 40:
                said.append(choices.ConsumeBytes(choices.ConsumeIntInRange(0, 12)))
            else:
                size = choices.ConsumeIntInRange(65_530, 65_540)
                said.append(token(data, peer.wrap(choices.PickValueInList(MESSAGES).ljust(size, b"\0"))))
        return b"".join(said)

    @staticmethod
    def _message(choices: atheris.FuzzedDataProvider) -> bytes:
        message = bytearray(choices.PickValueInList(MESSAGES))
        spoil = choices.ConsumeIntInRange(0, 7)
        if spoil == 1:
            message += choices.ConsumeBytes(choices.ConsumeIntInRange(1, 4))
        elif spoil in (2, 3) and message:
            place = choices.ConsumeIntInRange(0, len(message) - 1)
            message[place : place + 1 if spoil == 2 else None] = choices.ConsumeBytes(1)
        return bytes(message)

    def play(self, cut: Cut) -> list[object]:
        """Return all that happens when the peer's bytes come so cut."""
        actor: Actor = ClientActor(self) if self.client else ServerActor(self)
        if self.stream:
            for piece in cut(self.stream):
                actor.connection.receive_data(piece)
                actor.settle()
        if self.ended:
            actor.connection.receive_eof()
            actor.settle()
        while actor.send():
            pass
        return [*actor.happened, b"".join(actor.sent)]


class Actor:
    """A program that feeds a connection, and writes down what happens.

    Args:
        script: the input.
        context: the security context of the connection.
        connection: the connection, fresh.
        documented: the errors that `next_event` may raise.
    """

    def __init__(
        self,
        script: Script,
        context: MemoryContext,
        connection: ClientConnection | ServerConnection,
        documented: tuple[type[RemctlError], ...],
    ) -> None:
        self.context = context
        self.connection = connection
        self.documented = documented
        self.happened: list[object] = []
        self.sent: list[bytes] = []
        self._expires = script.expires

    def send(self) -> bool:
        """Take what is due for the peer, and tell whether there was anything."""
        data = b""
        with self._protected():
            data = self.connection.data_to_send()
        self.sent.append(data)
        return bool(data)

    def settle(self) -> None:
        """Take every event that there is, and do what the script says about it."""
        while True:
            try:
                event = self.connection.next_event()
            except RemctlError as error:
                if type(error) not in self.documented:
                    raise
                self.happened.append((type(error), str(error)))
                assert self.connection.state is State.CLOSED, "open after an error"
                continue
            if event is NEED_DATA:
                limit = 131_076 if self.connection.state in (State.START, State.NEGOTIATING) else 1_048_580
                assert self.connection.buffered <= limit, "holds too much"
                assert self.connection.state is not State.CLOSED
                return
            if isinstance(event, Closed):
                assert self.connection.state is State.CLOSED
                assert self.connection.buffered == 0, "holds bytes when closed"
                return
            if isinstance(event, Step):
                self._step(event)
            else:
                self.happened.append((type(event), event))
            self._expires -= 1
            self.context.expired |= self._expires == 0
            with self._protected():
                if isinstance(event, CommandReceived):
                    self.answer(event)
                elif self.connection.state is State.IDLE:
                    self.speak()

    @contextlib.contextmanager
    def _protected(self) -> Iterator[None]:
        try:
            yield
        except RemctlAuthenticationError as error:
            self.happened.append(str(error))
            assert self.connection.state is State.CLOSED, "open after an error"

    def _step(self, event: Step) -> None:
        try:
            established = self.connection.stepped(self.context.step(event.token))
        except RemctlAuthenticationError as error:
            self.happened.append(str(error))
            self.connection.close()
        else:
            self.happened.append(established)

    def answer(self, command: CommandReceived) -> None:
        """Do what the program of a server does with a command."""

    def speak(self) -> None:
        """Do what the program of a client does when it may speak."""


class ClientActor(Actor):
    """Does what the plan says whenever it may speak.

    Args:
        script: the input.
    """

    def __init__(self, script: Script) -> None:
        context = MemoryContext(True, script.rounds, script.lacking)
        self.client = ClientConnection(context, min_protocol=script.option)
        super().__init__(
            script, context, self.client, (RemctlProtocolError, RemctlAuthenticationError, RemctlConnectionError)
        )
        self._plan = iter(script.plan)
        self.client.start()

    def speak(self) -> None:
        """Say the next thing of the plan."""
        action = next(self._plan, None)
        if action is None:
            return
        if action < 3 or self.client.protocol == 1:
            self.client.send_command([b"ls"], keep_alive=action != 2)
        elif action < 5:
            self.client.send_noop()
        elif action < 7:
            self.client.send_command([bytes(300_000)])
            if action == 6:
                self.send()
        else:
            self.client.send_quit()


class ServerActor(Actor):
    """Answers every command as the plan says.

    Args:
        script: the input.
    """

    def __init__(self, script: Script) -> None:
        context = MemoryContext(False, script.rounds, script.lacking)
        self.server = ServerConnection(
            context, allow_v1=script.option > 0, max_words=MAX_WORDS, max_command_size=MAX_COMMAND_SIZE
        )
        super().__init__(script, context, self.server, (RemctlProtocolError, RemctlAuthenticationError))
        self._plan = iter(script.plan)

    def settle(self) -> None:
        """Also see to the limit of a command."""
        super().settle()
        assert self.server.receiving < MAX_COMMAND_SIZE, "a command is too large"

    def answer(self, command: CommandReceived) -> None:
        """Give the next answer of the plan."""
        assert 0 < len(command.words) <= MAX_WORDS
        assert self.server.state in OWED
        assert self.server.next_event() is PAUSED
        action = next(self._plan, 0)
        for _ in range(action % 3):
            self.server.send_output(bytes(action * 10_000), Stream.STDERR)
        if action > 4:
            self.server.send_error(action, "refused")
        else:
            self.server.send_status(action)


def play(data: bytes) -> None:
    """Play one input."""
    script = Script(atheris.FuzzedDataProvider(data))
    expected = script.play(whole)
    assert script.play(crumbs) == expected, "bytes that come in crumbs make a difference"
    assert script.play(cut_at(script.places)) == expected, f"bytes cut at {script.places} make a difference"


if __name__ == "__main__":
    running.run("protocol", play)
