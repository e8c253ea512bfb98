"""The client's side: what it sends, what it makes of what a server sends, and how it ends."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.memory import (
    FEW,
    MemoryContext,
    Peer,
    assert_closed,
    assert_fails,
    bytewise,
    cut_at,
    established_client,
    events,
    negotiating_client,
    output,
    status,
    take_step,
    token,
    tokens_in,
    traced,
)
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlConnectionError,
    RemctlProtocolError,
)
from remctl.protocol import (
    NEED_DATA,
    ClientConnection,
    Closed,
    Established,
    HighestVersion,
    LocalProtocolError,
    NoopAnswer,
    State,
    Step,
)
from remctl.types import ErrorCode, Output, OutputType, Stream

PIECE = 65_532
LS = b"\0\0\0\x01\0\0\0\x02ls"

OUTPUT = b"\x02\x03\x01\0\0\0\x03out"
STDERR = b"\x02\x03\x02\0\0\0\x03err"
STATUS = b"\x02\x04\x07"
ERROR = b"\x02\x05\0\0\0\x06\0\0\0\x02no"
VERSION = b"\x02\x06\x02"
NOOP = b"\x03\x07"

REFUSAL = Output(OutputType.ERROR, b"no", error=ErrorCode.ACCESS)


def waiting_client() -> tuple[ClientConnection, Peer]:
    """Return a client that is owed the answer to a command."""
    client, peer = established_client()
    client.send_command([b"ls"])
    assert peer.hears(client.data_to_send()) == [b"\x02\x01\x01\x00" + LS]
    return client, peer


def client_in_pieces(size: int = 10 * PIECE) -> tuple[ClientConnection, Peer]:
    """Return a client that has more of a command to send."""
    client, peer = established_client()
    client.send_command([bytes(size)])
    client.data_to_send()
    assert client.state is State.PIECES
    return client, peer


def nooping_client() -> tuple[ClientConnection, Peer]:
    """Return a client that is owed the answer to a NOOP."""
    client, peer = established_client()
    client.send_noop()
    assert peer.hears(client.data_to_send()) == [NOOP]
    return client, peer


def waiting_v1_client() -> tuple[ClientConnection, Peer]:
    """Return a client of protocol 1 that is owed the MIC of a command, and its result."""
    client, peer = established_client(protocol=1)
    client.send_command([b"ls"])
    assert peer.hears(client.data_to_send(), flags=0x24) == [LS]
    return client, peer


def result(number: int, data: bytes) -> bytes:
    """Return a result of protocol 1."""
    return struct.pack(">iI", number, len(data)) + data


STATES: dict[State, Callable[[], ClientConnection]] = {
    State.START: lambda: ClientConnection(MemoryContext(True)),
    State.NEGOTIATING: negotiating_client,
    State.IDLE: lambda: established_client()[0],
    State.PIECES: lambda: client_in_pieces()[0],
    State.ANSWER: lambda: waiting_client()[0],
    State.NOOP: lambda: nooping_client()[0],
    State.MIC: lambda: waiting_v1_client()[0],
}


class TestHandshake:
    def test_begins_with_a_token_of_flags_alone_and_a_step(self) -> None:
        client = ClientConnection(MemoryContext(True))
        assert client.data_to_send() == b""
        client.start()
        assert client.data_to_send() == b"\x51\0\0\0\0"
        assert events(client) == [Step(None), NEED_DATA]
        assert client.stepped(client.context.step(None)) is None
        assert client.data_to_send() == b"\x42\0\0\0\x09context 0"
        assert (client.state, client.protocol) == (State.NEGOTIATING, 0)

    def test_ends_with_the_servers_token(self) -> None:
        client = negotiating_client()
        client.receive_data(b"\x42\0\0\0\x09context 1")
        assert client.next_event() == Step(b"context 1")
        assert client.stepped(client.context.step(b"context 1")) == Established(2)
        assert (client.state, client.protocol) == (State.IDLE, 2)
        assert client.data_to_send() == b""
        assert client.next_event() is NEED_DATA

    @pytest.mark.parametrize("protocol", [1, 2])
    @pytest.mark.parametrize("rounds", range(2, 8))
    def test_takes_as_many_rounds_as_the_context_wants(self, protocol: int, rounds: int) -> None:
        client = negotiating_client(tokens=rounds)
        flags = 0x42 if protocol == 2 else 0x02
        established = None
        for number in range(1, rounds, 2):
            assert established is None
            client.receive_data(token(flags, b"context %d" % number))
            established = take_step(client)
            last = number + 1 == rounds
            assert client.data_to_send() == (b"" if last else token(flags, b"context %d" % (number + 1)))
        assert established == Established(protocol)

    def test_may_need_no_token_of_the_server_at_all(self) -> None:
        client = ClientConnection(MemoryContext(True, tokens=1))
        client.start()
        assert take_step(client) == Established(2)

    def test_that_comes_byte_by_byte(self) -> None:
        client = negotiating_client()
        for piece in bytewise(b"\x42\0\0\0\x09context 1"):
            assert client.next_event() is NEED_DATA
            client.receive_data(piece)
        assert take_step(client) == Established(2)

    def test_falls_back_to_protocol_1_when_the_server_does_not_know_better(self) -> None:
        client = negotiating_client(tokens=3)
        client.receive_data(b"\x02\0\0\0\x09context 1")
        assert take_step(client) == Established(1)
        assert client.data_to_send() == b"\x02\0\0\0\x09context 2"
        assert client.protocol == 1

    @pytest.mark.parametrize("min_protocol", [2, 3])
    def test_refuses_protocol_1_where_more_is_demanded(self, min_protocol: int) -> None:
        client = negotiating_client(min_protocol=min_protocol)
        client.receive_data(token(0x02, b"context 1"))
        assert_fails(client, RemctlProtocolError, f"speaks protocol 1, and min_protocol is {min_protocol}")
        assert client.data_to_send() == b""

    @pytest.mark.parametrize("min_protocol", [1, 2, 3])
    def test_takes_protocol_2_whatever_is_demanded_since_3_shows_later(self, min_protocol: int) -> None:
        client = negotiating_client(min_protocol=min_protocol)
        client.receive_data(token(0x42, b"context 1"))
        assert take_step(client) == Established(2)

    @pytest.mark.parametrize(("first", "second"), [(0x42, 0x02), (0x02, 0x42)])
    def test_may_not_change_the_protocol_on_its_way(self, first: int, second: int) -> None:
        client = negotiating_client(tokens=4)
        client.receive_data(token(first, b"context 1"))
        assert take_step(client) is None
        client.receive_data(token(second, b"context 3"))
        assert_fails(client, RemctlProtocolError, "the protocol version changed")

    @pytest.mark.parametrize("flags", [0x00, 0x01, 0x04, 0x11, 0x44, 0x51, 0x43, 0x06, 0x62, 0xC2, 0xFF])
    def test_takes_context_tokens_alone(self, flags: int) -> None:
        client = negotiating_client()
        client.receive_data(token(flags, b"context 1"))
        assert_fails(client, RemctlProtocolError, f"flags 0x{flags:02x}")

    @pytest.mark.parametrize("lacking", [("mutual authentication",), ("confidentiality", "integrity")])
    def test_fails_with_a_context_that_does_not_protect(self, lacking: tuple[str, ...]) -> None:
        client = negotiating_client(lacking=lacking)
        client.receive_data(token(0x42, b"context 1"))
        with pytest.raises(RemctlAuthenticationError, match=" and ".join(lacking)):
            take_step(client)
        assert_closed(client)

    def test_of_protocol_1_demands_no_protections(self) -> None:
        client = negotiating_client(lacking=("mutual authentication",))
        client.receive_data(token(0x02, b"context 1"))
        assert take_step(client) == Established(1)

    def test_takes_no_token_over_128_kib(self) -> None:
        client = negotiating_client()
        client.receive_data(b"\x42\0\x02\0\x00" + bytes(131_072))
        assert client.next_event() == Step(bytes(131_072))
        client = negotiating_client()
        client.receive_data(b"\x42\0\x02\0\x01")
        assert_fails(client, RemctlProtocolError, "131073 bytes came")

    def test_is_begun_once(self) -> None:
        client = negotiating_client()
        with pytest.raises(LocalProtocolError):
            client.start()

    def test_takes_no_step_that_is_not_due(self) -> None:
        client = established_client()[0]
        with pytest.raises(LocalProtocolError):
            client.stepped(b"late")
        assert client.data_to_send() == b""


class TestCommand:
    @pytest.mark.parametrize(("keep_alive", "byte"), [(True, b"\x01"), (False, b"\x00")])
    def test_that_is_small_is_one_message(self, keep_alive: bool, byte: bytes) -> None:
        client, peer = established_client()
        client.send_command([b"test", b"", b"\0\xff"], keep_alive=keep_alive)
        assert client.state is State.ANSWER
        body = b"\0\0\0\x03\0\0\0\x04test\0\0\0\0\0\0\0\x02\0\xff"
        assert peer.hears(client.data_to_send()) == [b"\x02\x01" + byte + b"\x00" + body]
        assert client.data_to_send() == b""

    @pytest.mark.parametrize(
        ("size", "bodies"),
        [
            pytest.param(PIECE, [(0, PIECE)], id="just fits one message"),
            pytest.param(PIECE + 1, [(1, PIECE), (3, 1)], id="one byte more"),
            pytest.param(2 * PIECE, [(1, PIECE), (3, PIECE)], id="just fits two"),
            pytest.param(2 * PIECE + 1, [(1, PIECE), (2, PIECE), (3, 1)], id="two and a byte"),
            pytest.param(9 * PIECE, [(1, PIECE), *[(2, PIECE)] * 7, (3, PIECE)], id="nine"),
        ],
    )
    def test_that_is_large_is_cut_into_pieces(self, size: int, bodies: list[tuple[int, int]]) -> None:
        client, peer = established_client()
        word = bytes(number % 251 for number in range(size - 8))
        client.send_command([word], keep_alive=False)
        sent = b""
        while data := client.data_to_send():
            sent += data
        pieces = peer.hears(sent)
        assert [(piece[3], len(piece) - 4) for piece in pieces] == bodies
        assert {piece[:3] for piece in pieces} == {b"\x02\x01\x00"}
        assert b"".join(piece[4:] for piece in pieces) == b"\0\0\0\x01" + struct.pack(">I", len(word)) + word
        assert client.state is State.ANSWER

    def test_of_20_mb_is_encrypted_as_it_is_asked_for(self) -> None:
        client, _ = established_client()
        client.send_command([bytes(20_000_000)])
        sizes = []
        while data := client.data_to_send():
            sizes.append(len(data))
        assert max(sizes) < 350_000
        assert sum(sizes) > 20_000_000
        assert client.state is State.ANSWER

    def test_that_was_sent_is_forgotten(self) -> None:
        with traced() as held:
            client, _ = established_client()
            client.send_command([bytes(2_000_000)])
            while client.data_to_send():
                pass
            assert held() < 200_000

    def test_that_was_refused_halfway_is_forgotten(self) -> None:
        with traced() as held:
            client, peer = client_in_pieces(2_000_000)
            client.receive_data(peer.says(ERROR))
            assert events(client) == [REFUSAL, Closed()]
            assert held() < 200_000

    def test_of_no_words_is_for_the_server_to_refuse(self) -> None:
        client, peer = established_client()
        client.send_command([])
        assert peer.hears(client.data_to_send()) == [b"\x02\x01\x01\x00\0\0\0\0"]

    def test_is_not_sent_when_the_context_can_no_longer_protect_it(self) -> None:
        client, _ = established_client()
        client.context = expired = MemoryContext(True)
        expired.expired = True
        with pytest.raises(RemctlAuthenticationError):
            client.send_command([b"ls"])
        assert client.data_to_send() == b""
        assert_closed(client)

    def test_is_broken_off_when_the_context_can_no_longer_protect_it(self) -> None:
        client, _ = client_in_pieces()
        client.context = expired = MemoryContext(True)
        expired.expired = True
        with pytest.raises(RemctlAuthenticationError):
            client.data_to_send()
        assert client.data_to_send() == b""
        assert_closed(client)


class TestAnswer:
    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            pytest.param([STATUS], [status(7)], id="a status"),
            pytest.param(
                [OUTPUT, STDERR, STATUS], [output(b"out"), output(b"err", Stream.STDERR), status(7)], id="output"
            ),
            pytest.param([ERROR], [REFUSAL], id="an error"),
            pytest.param([OUTPUT, ERROR], [output(b"out"), REFUSAL], id="output and an error"),
            pytest.param(
                [b"\x02\x05\0\0\x03\xe7\0\0\0\0"], [Output(OutputType.ERROR, b"", error=999)], id="an unknown error"
            ),
        ],
    )
    def test_is_handed_out_message_by_message(self, messages: list[bytes], expected: list[Output]) -> None:
        for cut in (None, bytewise):
            client, peer = waiting_client()
            data = peer.says(*messages)
            found: list[object] = []
            for piece in cut(data) if cut else [data]:
                client.receive_data(piece)
                found += events(client)[:-1]
            assert found == expected
            assert client.state is State.IDLE
            assert client.next_event() is NEED_DATA

    @FEW
    @given(st.lists(st.binary(max_size=100), max_size=5), st.integers(0, 255), st.lists(st.integers(0), max_size=10))
    def test_is_the_same_however_it_is_cut(self, parts: list[bytes], number: int, places: list[int]) -> None:
        client, peer = waiting_client()
        said = [b"\x02\x03\x01" + struct.pack(">I", len(part)) + part for part in parts]
        found: list[object] = []
        for piece in cut_at(places)(peer.says(*said, bytes([2, 4, number]))):
            client.receive_data(piece)
            found += events(client)[:-1]
        assert found == [*map(output, parts), status(number)]

    @pytest.mark.parametrize("end", [STATUS, ERROR])
    def test_is_followed_by_the_next_command(self, end: bytes) -> None:
        client, peer = waiting_client()
        for _ in range(3):
            client.receive_data(peer.says(OUTPUT, end))
            assert len(events(client)) == 3
            client.send_command([b"ls"])
            assert len(peer.hears(client.data_to_send())) == 1

    @pytest.mark.parametrize("end", [STATUS, ERROR])
    def test_is_the_last_without_keep_alive(self, end: bytes) -> None:
        client, peer = established_client()
        client.send_command([b"ls"], keep_alive=False)
        client.receive_data(peer.says(OUTPUT, end))
        found = events(client)
        assert len(found) == 3
        assert isinstance(found[-1], Closed)
        assert_closed(client)
        with pytest.raises(LocalProtocolError):
            client.send_command([b"ls"])

    @pytest.mark.parametrize("end", [STATUS, ERROR])
    @pytest.mark.parametrize("more", [OUTPUT, STATUS, ERROR, NOOP, VERSION])
    def test_has_one_end(self, end: bytes, more: bytes) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(end, more))
        assert isinstance(client.next_event(), Output)
        assert_fails(client, RemctlProtocolError, "nobody asked for")

    def test_may_be_a_lower_version_which_ends_the_connection(self) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(VERSION))
        event = client.next_event()
        assert isinstance(event, HighestVersion)
        assert event.version == 2
        assert_closed(client)

    def test_is_not_a_noop(self) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(NOOP))
        assert_fails(client, RemctlProtocolError, "nobody had asked for")

    def test_may_be_an_error_before_the_last_piece_which_ends_the_connection(self) -> None:
        client, peer = client_in_pieces()
        client.receive_data(peer.says(ERROR))
        assert client.next_event() == REFUSAL
        assert client.data_to_send() == b""
        assert_closed(client)

    @pytest.mark.parametrize("message", [OUTPUT, STATUS, NOOP, VERSION])
    def test_is_nothing_else_before_the_last_piece(self, message: bytes) -> None:
        client, peer = client_in_pieces()
        client.receive_data(peer.says(message))
        assert_fails(client, RemctlProtocolError, "nobody had asked for")
        assert client.data_to_send() == b""

    @pytest.mark.parametrize("message", [b"", b"\x02", b"\x02\x01\x01\x00", b"\x02\x02", b"\x02\x04", b"\x09\x04\x00"])
    def test_that_cannot_be_understood_is_an_error(self, message: bytes) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(message))
        assert_fails(client, RemctlProtocolError, "cannot be understood")

    @pytest.mark.parametrize("flags", [0x00, 0x04, 0x08, 0x24, 0x42, 0x45, 0x51, 0x64, 0xC4])
    def test_comes_in_data_tokens_alone(self, flags: int) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(STATUS, flags=flags))
        assert_fails(client, RemctlProtocolError, f"flags 0x{flags:02x}")

    @pytest.mark.parametrize("payload", [b"", b"forged", b"W\0\0\0\x02" + STATUS])
    def test_that_is_not_authentic_is_an_error(self, payload: bytes) -> None:
        client, _ = waiting_client()
        client.receive_data(token(0x44, payload))
        assert_fails(client, RemctlAuthenticationError)

    def test_that_comes_twice_is_an_error(self) -> None:
        client, peer = waiting_client()
        data = peer.says(OUTPUT)
        client.receive_data(data + data)
        assert client.next_event() == output(b"out")
        assert_fails(client, RemctlAuthenticationError)

    def test_in_a_token_over_1_mib_is_an_error_by_its_header(self) -> None:
        client, _ = waiting_client()
        client.receive_data(b"\x44\0\x10\0\x01")
        assert_fails(client, RemctlProtocolError, "1048577 bytes came")

    def test_may_come_in_a_token_of_1_mib(self) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(b"\x02\x03\x01" + struct.pack(">I", 1_048_564) + bytes(1_048_564)))
        assert client.next_event() == output(bytes(1_048_564))


class TestIdle:
    @pytest.mark.parametrize("message", [OUTPUT, STATUS, ERROR, NOOP, VERSION, b"", b"garbage"])
    def test_nothing_is_taken_that_nobody_asked_for(self, message: bytes) -> None:
        client, peer = established_client()
        client.receive_data(peer.says(message))
        assert_fails(client, RemctlProtocolError, "nobody asked for")

    def test_a_context_token_too_many_is_an_error(self) -> None:
        client, _ = established_client()
        client.receive_data(token(0x42, b"context 2"))
        assert_fails(client, RemctlProtocolError)

    def test_a_server_that_speaks_first_is_an_error(self) -> None:
        client = ClientConnection(MemoryContext(True))
        client.receive_data(token(0x42, b"context 1"))
        assert_fails(client, RemctlProtocolError)

    def test_quit_is_the_end(self) -> None:
        client, peer = established_client()
        client.send_quit()
        assert peer.hears(client.data_to_send()) == [b"\x02\x02"]
        assert_closed(client)

    def test_quit_ends_a_command_that_is_not_complete(self) -> None:
        client, _ = client_in_pieces()
        client.send_quit()
        assert len(tokens_in(client.data_to_send())) == 1
        assert client.data_to_send() == b""
        assert_closed(client)

    def test_quit_forgets_a_command_that_is_not_complete(self) -> None:
        with traced() as held:
            client, _ = client_in_pieces(2_000_000)
            client.send_quit()
            client.data_to_send()
            assert held() < 200_000


class TestNoop:
    def test_is_answered_by_a_server_of_protocol_3(self) -> None:
        client, peer = nooping_client()
        client.receive_data(peer.says(NOOP))
        assert type(client.next_event()) is NoopAnswer
        assert (client.state, client.protocol) == (State.IDLE, 3)
        assert client.next_event() is NEED_DATA

    def test_is_not_known_to_a_server_of_protocol_2(self) -> None:
        client, peer = nooping_client()
        client.receive_data(peer.says(VERSION))
        assert type(client.next_event()) is HighestVersion
        assert (client.state, client.protocol) == (State.IDLE, 2)
        client.send_command([b"ls"])

    def test_may_meet_the_farewell_of_a_server(self) -> None:
        client, peer = nooping_client()
        client.receive_data(peer.says(ERROR))
        assert client.next_event() == REFUSAL
        assert_closed(client)

    @pytest.mark.parametrize("message", [OUTPUT, STATUS])
    def test_is_not_answered_otherwise(self, message: bytes) -> None:
        client, peer = nooping_client()
        client.receive_data(peer.says(message))
        assert_fails(client, RemctlProtocolError, "nobody had asked for")


class TestEnd:
    def test_of_an_idle_connection_is_no_error(self) -> None:
        client, _ = established_client()
        client.receive_eof()
        assert type(client.next_event()) is Closed
        assert_closed(client)

    @pytest.mark.parametrize("state", [state for state in STATES if state is not State.IDLE])
    @pytest.mark.parametrize("data", [b"", b"\x44\0\0\0\x05W"])
    def test_at_any_other_time_is_a_lost_connection(self, state: State, data: bytes) -> None:
        client = STATES[state]()
        client.receive_data(data)
        client.receive_eof()
        assert_fails(client, RemctlConnectionError)

    @pytest.mark.parametrize("reason", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT])
    def test_has_the_systems_reason(self, reason: int) -> None:
        client, _ = waiting_client()
        client.receive_eof(reason)
        with pytest.raises(RemctlConnectionError, match=os.strerror(reason)) as caught:
            client.next_event()
        assert caught.value.errno == reason

    @pytest.mark.parametrize("state", [State.START, State.NEGOTIATING])
    def test_before_a_command_is_not_told_as_the_end_of_an_answer(self, state: State) -> None:
        client = STATES[state]()
        client.receive_eof()
        with pytest.raises(RemctlConnectionError) as caught:
            client.next_event()
        assert "answer" not in str(caught.value)

    def test_comes_after_what_was_said_before(self) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(OUTPUT, STATUS))
        client.receive_eof()
        found = events(client)
        assert found[:2] == [output(b"out"), status(7)]
        assert type(found[2]) is Closed

    def test_in_the_middle_of_an_answer_comes_after_its_beginning(self) -> None:
        client, peer = waiting_client()
        client.receive_data(peer.says(OUTPUT, STATUS)[:-1])
        client.receive_eof()
        assert client.next_event() == output(b"out")
        assert_fails(client, RemctlConnectionError, "lost before the end of the answer")

    @pytest.mark.parametrize("state", STATES)
    def test_that_the_program_makes_is_the_end(self, state: State) -> None:
        client = STATES[state]()
        client.receive_data(token(0x44, b"late"))
        client.close()
        assert_closed(client)
        assert client.data_to_send() == b""

    def test_that_the_program_makes_cancels_the_step_that_was_due(self) -> None:
        client = ClientConnection(MemoryContext(True))
        client.start()
        client.close()
        assert type(client.next_event()) is Closed

    def test_nothing_is_kept_that_comes_after_it(self) -> None:
        client, _ = established_client()
        client.close()
        for _ in range(10):
            client.receive_data(bytes(1000))
            assert type(client.next_event()) is Closed
        assert client.buffered == 0

    @pytest.mark.parametrize("state", [*STATES, State.CLOSED])
    def test_calls_that_the_state_does_not_allow_change_nothing(self, state: State) -> None:
        calls: dict[Callable[[ClientConnection], object], set[State]] = {
            lambda client: client.start(): {State.START},
            lambda client: client.send_command([b"ls"]): {State.IDLE},
            lambda client: client.send_command([bytes(PIECE - 7)]): {State.IDLE},
            lambda client: client.send_noop(): {State.IDLE},
            lambda client: client.send_quit(): {State.IDLE, State.PIECES},
            lambda client: client.stepped(b"context"): {State.NEGOTIATING},
        }
        for call, allowed in calls.items():
            if state in allowed:
                continue
            client = STATES[state]() if state in STATES else established_client()[0]
            if state is State.CLOSED:
                client.close()
            before = client.protocol
            with pytest.raises(LocalProtocolError):
                call(client)
            assert (client.state, client.protocol) == (state, before)

    def test_says_whether_the_command_may_have_been_run(self) -> None:
        for (client, _), sent in ((waiting_client(), True), (client_in_pieces(), True), (nooping_client(), False)):
            client.receive_eof()
            with pytest.raises(RemctlConnectionError) as caught:
                client.next_event()
            assert caught.value.sent is sent


class TestProtocol1:
    def test_has_its_mic_before_its_result(self) -> None:
        client, peer = waiting_v1_client()
        client.receive_data(token(0x08, peer.context.sign(LS)))
        assert client.next_event() is NEED_DATA
        client.receive_data(peer.says(result(0, b"hi\n"), flags=0x04))
        assert events(client) == [output(b"hi\n"), status(0), Closed()]
        assert not client.refused

    def test_has_the_mic_checked_before_the_result_is_decrypted(self) -> None:
        client, peer = waiting_v1_client()
        mic = token(0x08, peer.context.sign(LS))
        data = mic + peer.says(result(0, b"hi\n"), flags=0x04)
        client.receive_data(data)
        assert client.next_event() == output(b"hi\n")

    def test_that_comes_byte_by_byte(self) -> None:
        client, peer = waiting_v1_client()
        found: list[object] = []
        for piece in bytewise(token(0x08, peer.context.sign(LS)) + peer.says(result(3, b"hi\n"), flags=0x04)):
            client.receive_data(piece)
            found += [event for event in events(client) if isinstance(event, Output)]
        assert found == [output(b"hi\n"), status(3)]

    @pytest.mark.parametrize(
        ("number", "data", "expected", "refused"),
        [
            pytest.param(0, b"", [status(0)], False, id="silent"),
            pytest.param(200, b"x", [output(b"x"), status(200)], False, id="status 200"),
            pytest.param(255, b"", [status(255)], False, id="status 255"),
            pytest.param(-1, b"no\n", [output(b"no\n"), status(255)], True, id="an error"),
            pytest.param(-1, b"", [status(255)], True, id="ended by a signal"),
            pytest.param(256 + 7, b"", [status(7)], False, id="a status of more than a byte"),
            pytest.param(-2, b"", [status(254)], False, id="a negative status"),
        ],
    )
    def test_results(self, number: int, data: bytes, expected: list[Output], refused: bool) -> None:
        client, peer = waiting_v1_client()
        client.receive_data(token(0x08, peer.context.sign(LS)) + peer.says(result(number, data), flags=0x04))
        assert events(client) == [*expected, Closed()]
        assert client.refused == refused
        assert_closed(client)

    @pytest.mark.parametrize(
        "mic",
        [
            pytest.param(token(0x08), id="empty"),
            pytest.param(token(0x08, b"M\0\0\0\x01" + bytes(32)), id="of something else"),
            pytest.param(token(0x08, b"M\0\0\0\x02" + bytes(32)), id="out of order"),
        ],
    )
    def test_a_mic_that_is_not_authentic_is_an_error(self, mic: bytes) -> None:
        client, _ = waiting_v1_client()
        client.receive_data(mic)
        assert_fails(client, RemctlAuthenticationError)

    @pytest.mark.parametrize("flags", [0x00, 0x02, 0x04, 0x24, 0x28, 0x44, 0x48])
    def test_a_mic_has_its_own_flags(self, flags: int) -> None:
        client, peer = waiting_v1_client()
        client.receive_data(token(flags, peer.context.sign(LS)))
        assert_fails(client, RemctlProtocolError, f"flags 0x{flags:02x}")

    def test_a_mic_has_10_kib_at_the_most(self) -> None:
        client, _ = waiting_v1_client()
        client.receive_data(token(0x08, bytes(10_240)))
        assert_fails(client, RemctlAuthenticationError)
        client, _ = waiting_v1_client()
        client.receive_data(token(0x08, bytes(10_241)))
        assert_fails(client, RemctlProtocolError)

    @pytest.mark.parametrize("flags", [0x00, 0x08, 0x24, 0x44])
    def test_a_result_has_its_own_flags(self, flags: int) -> None:
        client, peer = waiting_v1_client()
        client.receive_data(token(0x08, peer.context.sign(LS)) + peer.says(result(0, b""), flags=flags))
        assert_fails(client, RemctlProtocolError, f"flags 0x{flags:02x}")

    @pytest.mark.parametrize("message", [b"", result(0, b"x")[:-1], result(0, b"") + b"x"])
    def test_a_result_that_cannot_be_understood_is_an_error(self, message: bytes) -> None:
        client, peer = waiting_v1_client()
        client.receive_data(token(0x08, peer.context.sign(LS)) + peer.says(message, flags=0x04))
        assert_fails(client, RemctlProtocolError, "cannot be understood")

    def test_a_result_that_is_lost_is_a_lost_connection(self) -> None:
        client, peer = waiting_v1_client()
        client.receive_data(token(0x08, peer.context.sign(LS)))
        client.receive_eof()
        assert_fails(client, RemctlConnectionError)

    def test_a_command_has_64_kib_at_the_most(self) -> None:
        client, peer = established_client(protocol=1)
        with pytest.raises(ValueError, match="65537 bytes, and protocol 1 takes 65536"):
            client.send_command([bytes(65_529)])
        assert client.state is State.IDLE
        client.send_command([bytes(65_528)])
        assert len(peer.hears(client.data_to_send(), flags=0x24)[0]) == 65_536

    def test_has_one_command_no_noop_and_a_silent_end(self) -> None:
        client, _ = established_client(protocol=1)
        with pytest.raises(LocalProtocolError):
            client.send_noop()
        client.send_quit()
        assert client.data_to_send() == b""
        assert_closed(client)


class TestAnything:
    @FEW
    @given(st.sampled_from(list(STATES)), st.binary(max_size=60), st.lists(st.integers(0), max_size=8), st.booleans())
    def test_random_bytes_are_events_or_errors(self, state: State, data: bytes, places: list[int], ended: bool) -> None:
        client = STATES[state]()
        try:
            for piece in cut_at(places)(data) if data else []:
                client.receive_data(piece)
                client.next_event()
            if ended:
                client.receive_eof()
                client.next_event()
        except RemctlProtocolError:
            assert_closed(client)

    @FEW
    @given(
        st.sampled_from([State.IDLE, State.PIECES, State.ANSWER, State.NOOP]),
        st.lists(st.sampled_from([OUTPUT, STDERR, STATUS, ERROR, VERSION, NOOP]) | st.binary(max_size=12), max_size=6),
    )
    def test_random_messages_are_events_or_errors(self, state: State, messages: list[bytes]) -> None:
        client, data = STATES[state](), Peer().says(*messages)
        client.receive_data(data)
        try:
            found = events(client)
        except RemctlProtocolError:
            assert_closed(client)
        else:
            assert client.state is State.CLOSED or found[-1] is NEED_DATA
            assert client.state is State.CLOSED or client.buffered == 0
