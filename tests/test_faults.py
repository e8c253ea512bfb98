"""What both faces make of a server that misbehaves, at each step of the handshake and of a command.

The server authenticates with the real GSS-API and speaks real tokens, up to the fault.  Each fault ends the call within
its time limit, in a documented error with what had come before it, and closes the session, which then says why.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from doubles import Peer, ScriptedServer, framed
from faces import Face, Session

import remctl
from remctl import Output, OutputType
from remctl import RemctlAuthenticationError as Authentication
from remctl import RemctlConnectionError as Connection
from remctl import RemctlProtocolError as Protocol
from remctl import RemctlTimeoutError as Timeout

ServerArguments = tuple[str, int, str]
Script = Callable[[Peer], None]
Scripted = Callable[..., ScriptedServer]

SILENCE = 0.3
"""The time limit, in seconds, where the server says nothing more."""

PATIENCE = 20.0
"""The time limit, in seconds, where it says something that ends the call at once."""

PROMPT = 0.5
"""Seconds by which a call may outlive its time limit."""

DATA = 0x44
CONTEXT = 0x42

MIB = 1024 * 1024

HTTP = b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n<html>Bad Request</html>\r\n"

STATUS = b"\2\4\0"


class Fault(NamedTuple):
    """What a server does, and the class of the error that both faces, or each of them, make of it."""

    script: Script
    error: type[Protocol]
    libremctl: type[Protocol] | None = None
    """What the blocking face makes of it, where libremctl tells less or waits longer."""

    def expected(self, face: Face) -> type[Protocol]:
        return self.libremctl or self.error if face.name == "remctl.Remctl" else self.error


def output(data: bytes, stream: int = 1) -> bytes:
    """Return an OUTPUT message."""
    return b"\2\3" + struct.pack(">BI", stream, len(data)) + data


def raw(data: bytes) -> Script:
    """Say something that is no token of ours."""
    return lambda peer: peer.socket.sendall(data)


def header(flags: int, length: int) -> Script:
    """Announce a token, and send 100 bytes of it at most."""
    return raw(struct.pack(">BI", flags, length) + bytes(min(length, 100)))


def message(*messages: bytes) -> Script:
    """Send messages, each properly encrypted."""

    def send(peer: Peer) -> None:
        for each in messages:
            peer.send_token(DATA, peer.wrap(each))

    return send


def token(change: Callable[[bytes], bytes], flags: int = DATA) -> Script:
    """Send a proper token, changed on its way."""
    return lambda peer: peer.send_token(flags, change(peer.wrap(STATUS)))


def close(peer: Peer) -> None:
    peer.socket.close()


def reset(peer: Peer) -> None:
    peer.reset()


def stall(peer: Peer) -> None:
    pass


def both(one: Script, then: Script) -> Script:
    """Do one thing and then another."""

    def script(peer: Peer) -> None:
        one(peer)
        then(peer)

    return script


def half(end: Script) -> Script:
    """Send half a token, and then end."""

    def send(peer: Peer) -> None:
        whole = framed(DATA, peer.wrap(STATUS))
        peer.socket.sendall(whole[: len(whole) // 2])
        end(peer)

    return send


def replay(peer: Peer) -> None:
    payload = peer.wrap(output(b"again"))
    peer.send_token(DATA, payload)
    peer.send_token(DATA, payload)


def reorder(peer: Peer) -> None:
    first, second = peer.wrap(output(b"first")), peer.wrap(STATUS)
    peer.send_token(DATA, second)
    peer.send_token(DATA, first)


def take_message(peer: Peer) -> None:
    peer.receive()


def received(then: Script) -> Script:
    """Take a message."""
    return both(take_message, then)


def flip(payload: bytes) -> bytes:
    """Change the last bit."""
    return payload[:-1] + bytes([payload[-1] ^ 1])


@pytest.fixture(autouse=True)
def bystander(face: Face, server: ServerArguments) -> Iterator[None]:
    """Have another session with an answer pending, which nothing here disturbs."""
    with face.session(*server, timeout=PATIENCE) as session:
        session.command(["example", "echo", "undisturbed"])
        yield
        assert session.output().output == b"undisturbed\n"
        assert session.output().status == 0
        assert session.run(["example", "hello"]).stdout == b"hello world\n"


def fails(call: Callable[[], object], fault: Fault, face: Face, limit: float) -> Protocol:
    """Check that a call fails as it should, in time, and return the error."""
    begin = time.monotonic()
    with pytest.raises(remctl.RemctlError) as caught:
        call()
    taken = time.monotonic() - begin
    assert type(caught.value) is fault.expected(face), caught.value
    assert taken < (limit if limit == SILENCE else 5) + PROMPT
    return caught.value


def closed(session: Session, error: remctl.RemctlError) -> None:
    """Check that a session is closed, and says why."""
    assert not session.opened
    calls: tuple[Callable[[], object], ...] = (
        session.output,
        session.noop,
        lambda: session.command(["x"]),
        lambda: session.run(["x"]),
    )
    for call in calls:
        with pytest.raises(remctl.RemctlNotOpenedError, match=re.escape(error.reason)):
            call()


def each(faults: dict[str, Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults.values(), ids=list(faults))


def limit_of(fault: Fault, face: Face) -> float:
    return SILENCE if fault.expected(face) is Timeout else PATIENCE


def take_token(peer: Peer) -> None:
    peer.receive_token()


def first(then: Script) -> Script:
    """Take the first token."""
    return both(take_token, then)


def context(then: Script) -> Script:
    """Take the first token and the client's context token."""
    return first(first(then))


def accepted(change: Callable[[bytes], bytes]) -> Script:
    """Do the handshake, and change the bytes of the last token."""
    return lambda peer: peer.socket.sendall(change(framed(CONTEXT, peer.accept())))


def reflect(peer: Peer) -> None:
    """Send the client's own token back."""
    peer.receive_token()
    peer.send_token(*peer.receive_token())


HANDSHAKE = {
    "closes at once": Fault(close, Connection),
    "resets at once": Fault(reset, Connection),
    "stalls at once": Fault(stall, Timeout),
    "closes after the first token": Fault(first(close), Connection),
    "resets after the first token": Fault(first(reset), Connection),
    "stalls after the first token": Fault(first(stall), Timeout),
    "closes after the client's token": Fault(context(close), Connection),
    "resets after the client's token": Fault(context(reset), Connection),
    "closes in the middle of its token": Fault(
        context(both(raw(framed(CONTEXT, bytes(200))[:100]), close)), Connection
    ),
    "stalls in the middle of its token": Fault(accepted(lambda sent: sent[:100]), Timeout),
    "stalls in the middle of a header": Fault(accepted(lambda sent: sent[:3]), Timeout),
    "is a web server": Fault(raw(HTTP), Protocol),
    "is a web server that waits for a request": Fault(context(raw(HTTP)), Protocol),
    "sends an empty token": Fault(context(header(CONTEXT, 0)), Authentication),
    "sends garbage in a token": Fault(context(header(CONTEXT, 100)), Authentication),
    "announces 128 KiB and a byte": Fault(context(header(CONTEXT, 128 * 1024 + 1)), Protocol, Timeout),
    "announces 1 MiB": Fault(context(header(CONTEXT, MIB)), Protocol, Timeout),
    "announces 1 MiB and a byte": Fault(context(header(CONTEXT, MIB + 1)), Protocol),
    "announces 4 GiB": Fault(context(header(CONTEXT, 0xFFFFFFFF)), Protocol),
    "sends a forged answer": Fault(accepted(flip), Authentication),
    "sends the client's own token back": Fault(reflect, Authentication),
    "goes on talking": Fault(accepted(lambda sent: sent + b"\0"), Protocol),
    "goes on with a whole token": Fault(accepted(lambda sent: sent + framed(DATA, b"x" * 60)), Protocol),
}


class TestHandshake:
    @each(HANDSHAKE)
    def test_with_a_server_that(self, fault: Fault, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        peer = scripted(fault.script, authenticate=False)
        limit = limit_of(fault, face)
        session = face.session(timeout=limit)
        error = fails(lambda: session.open("localhost", peer.port, server[2]), fault, face, limit)
        assert (error.host, error.port, error.principal, error.command) == ("localhost", peer.port, server[2], None)
        assert not error.sent
        assert session.error() == str(error)
        closed(session, error)
        session.open(*server)
        assert session.run(["example", "hello"]).status == 0
        session.close()

    @each({name: HANDSHAKE[name] for name in ("closes after the client's token", "is a web server")})
    def test_in_a_one_shot_call_with_a_server_that(
        self, fault: Fault, face: Face, scripted: Scripted, server: ServerArguments
    ) -> None:
        peer = scripted(fault.script, authenticate=False)
        call = lambda: face.remctl("localhost", peer.port, server[2], ["x"], timeout=PATIENCE)  # noqa: E731
        error = fails(call, fault, face, PATIENCE)
        assert not error.sent

    def test_that_comes_byte_by_byte_succeeds(self, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        def dribble(peer: Peer) -> None:
            for byte in framed(CONTEXT, peer.accept()):
                peer.socket.sendall(bytes([byte]))
            assert peer.receive().endswith(b"hello")
            peer.send_output(b"hello")
            peer.send_status(0)

        port = scripted(dribble, authenticate=False).port
        assert face.remctl("localhost", port, server[2], ["hello"], timeout=PATIENCE).stdout == b"hello"

    @pytest.mark.parametrize("flags", [DATA, 0x4A, 0x00], ids=hex)
    def test_with_other_flags_is_taken_by_libremctl_alone(
        self, face: Face, scripted: Scripted, server: ServerArguments, flags: int
    ) -> None:
        peer = scripted(lambda peer: peer.authenticate(flags), authenticate=False)
        session = face.session(timeout=PATIENCE)
        if face.name == "remctl.Remctl":
            session.open("localhost", peer.port, server[2])
            assert session.protocol == (2 if flags & 0x40 else 1)
            session.close()
        else:
            with pytest.raises(Protocol, match=f"unexpected token with the flags 0x{flags:02x}") as caught:
                session.open("localhost", peer.port, server[2])
            closed(session, caught.value)

    def test_that_falls_back_to_protocol_1_is_accepted_unless_refused(
        self, face: Face, scripted: Scripted, server: ServerArguments
    ) -> None:
        peer = scripted(lambda peer: peer.authenticate(0x02), authenticate=False)
        with face.session("localhost", peer.port, server[2], timeout=PATIENCE) as session:
            assert session.protocol == 1
        for version in (2, 3):
            with pytest.raises(Protocol, match=f"speaks protocol 1, and min_protocol is {version}") as caught:
                face.session("localhost", peer.port, server[2], timeout=PATIENCE, min_protocol=version)
            assert type(caught.value) is Protocol
            assert not caught.value.sent


ANSWER = {
    "closes": Fault(close, Connection),
    "resets": Fault(reset, Connection),
    "stalls": Fault(stall, Timeout),
    "closes in the middle of a token": Fault(half(close), Connection),
    "resets in the middle of a token": Fault(half(reset), Connection),
    "stalls in the middle of a token": Fault(half(stall), Timeout),
    "stalls in the middle of a header": Fault(raw(b"\x44\0"), Timeout),
    "announces a token of no bytes": Fault(header(DATA, 0), Authentication),
    "announces a token of 1 MiB and stalls": Fault(header(DATA, MIB), Timeout),
    "announces a token of 1 MiB and a byte": Fault(header(DATA, MIB + 1), Protocol),
    "announces a token of 4 GiB": Fault(header(DATA, 0xFFFFFFFF), Protocol),
    "forgets a flag": Fault(token(bytes, 0x04), Protocol),
    "sends another flag too": Fault(token(bytes, 0x64), Protocol),
    "sends a context token": Fault(token(bytes, CONTEXT), Protocol),
    "is a web server after all": Fault(raw(HTTP), Protocol),
    "sends a forged token": Fault(token(flip), Authentication),
    "sends a token cut short": Fault(token(lambda payload: payload[:-1]), Authentication),
    "sends garbage in a token": Fault(token(lambda payload: bytes(len(payload))), Authentication),
    "sends plain text": Fault(token(lambda payload: STATUS), Authentication),
    "sends a MIC for a token": Fault(lambda peer: peer.send_token(DATA, peer.sign(STATUS)), Authentication),
    "repeats a token": Fault(replay, Authentication),
    "changes the order of its tokens": Fault(reorder, Authentication),
    "sends an empty message": Fault(message(b""), Protocol),
    "sends a message of a byte": Fault(message(b"\2"), Protocol),
    "sends a message of version 1": Fault(message(b"\1\4\0"), Protocol),
    "sends a message of version 4": Fault(message(b"\4\4\0"), Protocol),
    "speaks another version": Fault(message(b"\2\6\1"), Protocol),
    "sends an unknown message": Fault(message(b"\2\x63"), Protocol),
    "sends a command": Fault(message(b"\2\1\1\0\0\0\0\1\0\0\0\1x"), Protocol),
    "sends the answer to a NOOP": Fault(message(b"\3\7"), Protocol),
    "sends a status without its number": Fault(message(b"\2\4"), Protocol),
    "sends a status that is too long": Fault(message(b"\2\4\0\0"), Protocol),
    "sends output for an unknown stream": Fault(message(output(b"x", 3)), Protocol),
    "sends less output than it says": Fault(message(b"\2\3\1\0\0\0\4abc"), Protocol),
    "sends more output than it says": Fault(message(b"\2\3\1\0\0\0\2abc"), Protocol),
    "says that it sends 4 GiB of output": Fault(message(b"\2\3\1\xff\xff\xff\xffabc"), Protocol),
    "sends output without its length": Fault(message(b"\2\3\1"), Protocol),
    "sends less text of an error than it says": Fault(message(b"\2\5\0\0\0\1\0\0\0\4abc"), Protocol),
    "sends more text of an error than it says": Fault(message(b"\2\5\0\0\0\1\0\0\0\2abc"), Protocol),
    "sends an error without its text": Fault(message(b"\2\5\0\0\0\1"), Protocol),
}

BEFORE = {"repeats a token": b"beforeagain"}
"""Output that comes before the fault, where it is more than "before"."""


def answering(script: Script) -> Script:
    """Begin an answer."""

    def answer(peer: Peer) -> None:
        peer.receive()
        peer.send_output(b"before")
        peer.send_output(b"warned", 2)
        script(peer)

    return answer


class TestAnswer:
    @each(ANSWER)
    def test_of_a_server_that(
        self,
        fault: Fault,
        face: Face,
        scripted: Scripted,
        server: ServerArguments,
        request: pytest.FixtureRequest,
    ) -> None:
        peer = scripted(answering(fault.script))
        limit = limit_of(fault, face)
        with face.session("localhost", peer.port, server[2]) as session:
            error = fails(lambda: session.run(["a", "b", "secret"], timeout=limit), fault, face, limit)
            assert session.error() == str(error)
            closed(session, error)
        name = next(name for name, each in ANSWER.items() if each is fault)
        assert (error.stdout, error.stderr) == (BEFORE.get(name, b"before"), b"warned")
        assert (error.host, error.port, error.principal) == ("localhost", peer.port, server[2])
        assert error.command == "a b"
        assert error.sent
        assert peer.accepted == 1

    @each({name: ANSWER[name] for name in ("closes", "stalls", "sends a forged token", "speaks another version")})
    def test_read_token_by_token_of_a_server_that(
        self, fault: Fault, face: Face, scripted: Scripted, server: ServerArguments
    ) -> None:
        peer = scripted(answering(fault.script))
        limit = limit_of(fault, face)
        with face.session("localhost", peer.port, server[2]) as session:
            session.command(["a", "b", "secret"])
            assert [session.output().output for _ in range(2)] == [b"before", b"warned"]
            session.set_timeout(limit)
            error = fails(session.output, fault, face, limit)
            assert error.sent
            assert error.command == "a b"
            closed(session, error)
            session.open("localhost", peer.port, server[2])
            tokens = session.stream(["a", "b"])
            assert [next(tokens).output for _ in range(2)] == [b"before", b"warned"]
            closed(session, fails(lambda: next(tokens), fault, face, limit))

    def test_that_comes_byte_by_byte_is_read(self, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        def dribble(peer: Peer) -> None:
            for payload in (peer.wrap(output(b"drip")), peer.wrap(b"\2\4\7")):
                for byte in framed(DATA, payload):
                    peer.socket.sendall(bytes([byte]))

        port = scripted(answering(dribble)).port
        with face.session("localhost", port, server[2], timeout=PATIENCE) as session:
            assert session.run(["x"]) == (b"beforedrip", b"warned", 7)

    def test_that_dribbles_without_end_is_cut_off(
        self, face: Face, scripted: Scripted, server: ServerArguments
    ) -> None:
        def dribble(peer: Peer) -> None:
            peer.socket.sendall(struct.pack(">BI", DATA, MIB))
            peer.socket.settimeout(0.01)
            while True:
                peer.socket.sendall(b"\0")
                try:
                    if not peer.socket.recv(1):
                        return
                except TimeoutError:
                    pass

        port = scripted(answering(dribble)).port
        fault = Fault(dribble, Timeout)
        with face.session("localhost", port, server[2]) as session:
            closed(session, fails(lambda: session.run(["x"], timeout=SILENCE), fault, face, SILENCE))

    def test_that_is_authentic_but_not_encrypted_is_taken_by_libremctl_alone(
        self, face: Face, scripted: Scripted, server: ServerArguments
    ) -> None:
        def plain(peer: Peer) -> None:
            peer.send_token(DATA, peer.wrap(STATUS, encrypt=False))

        with face.session("localhost", scripted(answering(plain)).port, server[2], timeout=PATIENCE) as session:
            if face.name == "remctl.Remctl":
                assert session.run(["x"]) == (b"before", b"warned", 0)
            else:
                with pytest.raises(Authentication, match="not encrypted") as caught:
                    session.run(["x"])
                closed(session, caught.value)

    def test_in_tokens_as_large_as_they_may_be(self, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        blob = bytes(range(256)) * 255 + bytes(249)

        def answer(peer: Peer) -> None:
            peer.receive()
            for stream in (1, 2, 1):
                peer.send_output(blob, stream)
            peer.send_output(b"", 1)
            peer.send_status(255)

        with face.session("localhost", scripted(answer).port, server[2], timeout=PATIENCE) as session:
            assert session.run(["x"]) == (blob * 2, blob, 255)

    def test_with_an_error_of_an_unknown_code_leaves_the_session_open(
        self, face: Face, scripted: Scripted, server: ServerArguments
    ) -> None:
        def answer(peer: Peer) -> None:
            answering(lambda peer: peer.send_error(77, b"caf\xe9 closed\n"))(peer)
            answering(lambda peer: peer.send_error(0xFFFFFFFF, b""))(peer)
            peer.receive()
            peer.send_status(3)

        with face.session("localhost", scripted(answer).port, server[2], timeout=PATIENCE) as session:
            with pytest.raises(remctl.RemctlCommandError) as caught:
                session.run(["a", "b"])
            error = caught.value
            assert (error.code, error.reason, error.hint) == (77, r"caf\xe9 closed", None)
            assert (error.stdout, error.stderr) == (b"before", b"warned")
            tokens: list[Output] = []
            session.command(["c"])
            while not tokens or tokens[-1].type is OutputType.OUTPUT:
                tokens.append(session.output())
            assert tokens[-1] == ("error", b"", None, None, 0xFFFFFFFF)
            assert session.run(["d"]).status == 3

    @pytest.mark.parametrize("call", ["run", "command", "noop"])
    def test_that_comes_twice_is_no_answer_to_what_follows(
        self, face: Face, scripted: Scripted, server: ServerArguments, call: str
    ) -> None:
        def twice(peer: Peer) -> None:  # at once, so that the second one is there when the first one is
            peer.socket.sendall(b"".join(framed(DATA, peer.wrap(each)) for each in (STATUS, output(b"wrong"), STATUS)))

        peer = scripted(answering(twice))
        with face.session("localhost", peer.port, server[2], timeout=PATIENCE) as session:
            assert session.run(["x"]) == (b"before", b"warned", 0)
            calls: dict[str, Callable[[], object]] = {
                "run": lambda: session.run(["y"]),
                "command": lambda: session.command(["y"]),
                "noop": session.noop,
            }
            with pytest.raises(Protocol, match="sent something nobody asked for") as caught:
                calls[call]()
            assert type(caught.value) is Protocol
            assert not caught.value.sent
            closed(session, caught.value)


NOOP = {
    "closes": Fault(close, Connection),
    "resets": Fault(reset, Connection),
    "stalls": Fault(stall, Timeout),
    "sends an error": Fault(message(b"\2\5\0\0\0\2\0\0\0\4idle"), Protocol),
    "sends an exit status": Fault(message(STATUS), Protocol),
    "sends output": Fault(message(output(b"x")), Protocol),
    "sends a forged token": Fault(token(flip), Authentication),
    "sends a message of version 4": Fault(message(b"\4\7"), Protocol),
    "is a web server after all": Fault(raw(HTTP), Protocol),
}


class TestNoop:
    @each(NOOP)
    def test_with_a_server_that(self, fault: Fault, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        peer = scripted(received(fault.script))
        limit = limit_of(fault, face)
        with face.session("localhost", peer.port, server[2], timeout=limit) as session:
            error = fails(session.noop, fault, face, limit)
            assert (error.command, error.sent) == (None, False)
            closed(session, error)
        with pytest.raises(fault.expected(face)):
            face.session("localhost", peer.port, server[2], timeout=limit, min_protocol=3)

    def test_with_a_server_that_has_none_says_so(self, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        def answer(peer: Peer) -> None:
            assert peer.receive() == b"\3\7"
            peer.send(6, b"\2")
            peer.receive()
            peer.send_status(0)

        peer = scripted(answer)
        with face.session("localhost", peer.port, server[2], timeout=PATIENCE) as session:
            with pytest.raises(Protocol) as caught:
                session.noop()
            assert type(caught.value) is Protocol
            if face.name == "remctl.Remctl":  # libremctl does not tell this from other failures
                closed(session, caught.value)
            else:
                assert "speaks protocol 2, which has no NOOP" in caught.value.reason
                assert session.run(["x"]).status == 0
        with pytest.raises(Protocol):
            face.session("localhost", peer.port, server[2], timeout=PATIENCE, min_protocol=3)


SENDING = {
    "closes": Fault(received(close), Connection),
    "resets": Fault(received(reset), Connection),
    "stalls": Fault(received(stall), Timeout),
    "closes without reading": Fault(close, Connection),
    "never reads": Fault(stall, Timeout),
}


class TestLargeCommand:
    @each(SENDING)
    def test_to_a_server_that(self, fault: Fault, face: Face, scripted: Scripted, server: ServerArguments) -> None:
        peer = scripted(fault.script)
        limit = limit_of(fault, face)
        blob = bytes(30_000_000)
        with face.session("localhost", peer.port, server[2], timeout=PATIENCE) as session:
            with pytest.raises(remctl.RemctlError) as caught:
                session.run(["a", "b", blob], timeout=limit)
            error = caught.value
            assert type(error) is fault.expected(face)
            assert (error.command, error.stdout, error.stderr) == ("a b", b"", b"")
            if fault.script is not close:
                assert error.sent
            closed(session, error)
