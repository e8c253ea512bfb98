"""The server's side: what it makes of what a client sends, what it answers by itself, and how it ends."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

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
    established_server,
    events,
    negotiating_server,
    take_step,
    token,
    tokens_in,
    traced,
)
from remctl.exceptions import RemctlAuthenticationError, RemctlError, RemctlProtocolError
from remctl.protocol import (
    NEED_DATA,
    PAUSED,
    Closed,
    CommandReceived,
    Established,
    LocalProtocolError,
    ServerConnection,
    State,
    Step,
)
from remctl.types import ErrorCode, Stream

LS = b"\0\0\0\x01\0\0\0\x02ls"
COMMAND = b"\x02\x01\x01\x00" + LS
LAST_COMMAND = b"\x02\x01\x00\x00" + LS
QUIT = b"\x02\x02"
NOOP = b"\x03\x07"
UNKNOWN = b"\x02\x63"
OTHER_VERSION = b"\x04\x01"

VERSION = b"\x02\x06\x03"
INTERNAL, BAD_TOKEN, UNKNOWN_MESSAGE, BAD_COMMAND, UNKNOWN_COMMAND, _, TOOMANY_ARGS, TOOMUCH_DATA, UNEXPECTED = (
    b"\x02\x05\0\0\0" + bytes([code]) for code in range(1, 10)
)


def first(body: bytes = b"", keep_alive: int = 1) -> bytes:
    return bytes([2, 1, keep_alive, 1]) + body


def middle(body: bytes = b"", keep_alive: int = 1) -> bytes:
    return bytes([2, 1, keep_alive, 2]) + body


def last(body: bytes = b"", keep_alive: int = 1) -> bytes:
    return bytes([2, 1, keep_alive, 3]) + body


def words(*sizes: int) -> bytes:
    """Return the body of a command whose words have these sizes."""
    return struct.pack(">I", len(sizes)) + b"".join(struct.pack(">I", size) + bytes(size) for size in sizes)


def result(number: int, data: bytes) -> bytes:
    """Return a result of protocol 1."""
    return struct.pack(">iI", number, len(data)) + data


def brief(answers: Sequence[bytes]) -> list[bytes]:
    """Return messages as they are, and errors without their texts, having checked these."""
    for answer in answers:
        if answer[:2] == b"\x02\x05":
            (length,) = struct.unpack_from(">I", answer, 6)
            assert len(answer) == 10 + length
            assert answer[10:].decode().isprintable()
    return [answer[:6] if answer[:2] == b"\x02\x05" else answer for answer in answers]


def converse(server: ServerConnection, peer: Peer, *messages: bytes) -> tuple[list[object], list[bytes]]:
    """Return the events that messages make, each command being answered with its status 0, and the answers."""
    server.receive_data(peer.says(*messages))
    found: list[object] = []
    while (event := server.next_event()) is not NEED_DATA and not isinstance(event, Closed):
        if event is PAUSED:
            server.send_status(0)
        else:
            found.append(event)
    return found, brief(peer.hears(server.data_to_send()))


def waiting_server(protocol: int = 2, keep_alive: bool = True) -> tuple[ServerConnection, Peer]:
    """Return a server that owes the answer to a command."""
    server, peer = established_server(protocol)
    if protocol == 1:
        server.receive_data(peer.says(LS, flags=0x24))
    else:
        server.receive_data(peer.says(COMMAND if keep_alive else LAST_COMMAND))
    assert events(server) == [CommandReceived((b"ls",), keep_alive and protocol == 2), PAUSED]
    return server, peer


def server_in_pieces() -> ServerConnection:
    server, peer = established_server()
    server.receive_data(peer.says(first(LS[:3])))
    assert server.next_event() is NEED_DATA
    return server


def discarding_server() -> ServerConnection:
    server, peer = established_server(max_command_size=8)
    server.receive_data(peer.says(first(bytes(8))))
    assert server.next_event() is NEED_DATA
    server.data_to_send()
    return server


STATES: dict[State, Callable[[], ServerConnection]] = {
    State.START: lambda: ServerConnection(MemoryContext(False), allow_v1=True),
    State.NEGOTIATING: negotiating_server,
    State.IDLE: lambda: established_server()[0],
    State.PIECES: server_in_pieces,
    State.DISCARDING: discarding_server,
    State.ANSWER: lambda: waiting_server()[0],
}

ANSWERS: list[Callable[[ServerConnection], None]] = [
    lambda server: server.send_status(0),
    lambda server: server.send_error(5, "no"),
    lambda server: server.send_output(b"out"),
]


class TestHandshake:
    @pytest.mark.parametrize("cut", [False, True])
    def test_of_a_client_of_protocol_2_or_3(self, cut: bool) -> None:
        server = ServerConnection(MemoryContext(False))
        data = b"\x51\0\0\0\0" + b"\x42\0\0\0\x09context 0"
        for piece in bytewise(data) if cut else [data]:
            assert server.next_event() is NEED_DATA
            server.receive_data(piece)
        assert events(server) == [Step(b"context 0"), NEED_DATA]
        assert server.stepped(server.context.step(b"context 0")) == Established(2)
        assert server.data_to_send() == b"\x42\0\0\0\x09context 1"
        assert (server.state, server.protocol) == (State.IDLE, 2)

    def test_of_a_client_of_protocol_1_where_that_is_allowed(self) -> None:
        server = ServerConnection(MemoryContext(False), allow_v1=True)
        server.receive_data(b"\x11\0\0\0\0" + b"\x02\0\0\0\x09context 0")
        assert take_step(server) == Established(1)
        assert server.data_to_send() == b"\x02\0\0\0\x09context 1"
        assert (server.state, server.protocol) == (State.IDLE, 1)

    @pytest.mark.parametrize("allow_v1", [False, True])
    @pytest.mark.parametrize("flags", [0x00, 0x01, 0x10, 0x40, 0x41, 0x50, 0x42, 0x44, 0x53, 0x71, 0xD1, 0xFF, 0x47])
    def test_begins_with_nothing_else(self, allow_v1: bool, flags: int) -> None:
        server = ServerConnection(MemoryContext(False), allow_v1=allow_v1)
        server.receive_data(token(flags))
        assert_fails(server, RemctlProtocolError)
        assert server.data_to_send() == b""

    def test_of_a_client_of_protocol_1_is_refused_unless_allowed(self) -> None:
        server = ServerConnection(MemoryContext(False))
        server.receive_data(token(0x11))
        assert_fails(server, RemctlProtocolError)
        assert server.data_to_send() == b""

    @pytest.mark.parametrize("flags", [0x51, 0x11])
    def test_begins_with_a_token_that_is_empty(self, flags: int) -> None:
        server = ServerConnection(MemoryContext(False), allow_v1=True)
        server.receive_data(token(flags, b"x"))
        assert_fails(server, RemctlProtocolError)

    @pytest.mark.parametrize(
        ("protocol", "flags"), [(2, 0x02), (2, 0x44), (2, 0x51), (2, 0x43), (1, 0x42), (1, 0x11), (1, 0x04), (1, 0x03)]
    )
    def test_keeps_to_the_context_tokens_of_its_protocol(self, protocol: int, flags: int) -> None:
        server = negotiating_server(protocol)
        server.receive_data(token(flags, b"context 0"))
        assert_fails(server, RemctlProtocolError, f"flags 0x{flags:02x}")
        assert server.data_to_send() == b""

    @pytest.mark.parametrize("protocol", [1, 2])
    @pytest.mark.parametrize("rounds", range(1, 8))
    def test_takes_as_many_rounds_as_the_context_wants(self, protocol: int, rounds: int) -> None:
        server = negotiating_server(protocol, tokens=rounds)
        flags = 0x42 if protocol == 2 else 0x02
        established = None
        for number in range(0, rounds, 2):
            assert established is None
            server.receive_data(token(flags, b"context %d" % number))
            established = take_step(server)
            silent = number + 1 == rounds
            assert server.data_to_send() == (b"" if silent else token(flags, b"context %d" % (number + 1)))
        assert established == Established(protocol)

    @pytest.mark.parametrize("lacking", [("mutual authentication",), ("confidentiality", "integrity")])
    def test_fails_with_a_context_that_does_not_protect(self, lacking: tuple[str, ...]) -> None:
        server = negotiating_server(lacking=lacking)
        server.receive_data(token(0x42, b"context 0"))
        with pytest.raises(RemctlAuthenticationError, match=" and ".join(lacking)):
            take_step(server)
        assert_closed(server)

    def test_of_protocol_1_demands_no_protections(self) -> None:
        server = negotiating_server(protocol=1, lacking=("mutual authentication",))
        server.receive_data(token(0x02, b"context 0"))
        assert take_step(server) == Established(1)

    @pytest.mark.parametrize("state", [State.START, State.NEGOTIATING])
    def test_takes_no_token_over_128_kib_and_gives_no_reason(self, state: State) -> None:
        server = STATES[state]()
        server.receive_data(b"\x42\0\x02\0\x01")
        assert_fails(server, RemctlProtocolError, "131073 bytes came")
        assert server.data_to_send() == b""

    def test_takes_a_token_of_128_kib(self) -> None:
        server = negotiating_server()
        server.receive_data(b"\x42\0\x02\0\0" + bytes(131_072))
        assert server.next_event() == Step(bytes(131_072))

    def test_a_context_token_too_many_is_a_bad_token(self) -> None:
        server, peer = established_server()
        server.receive_data(token(0x42, b"context 2"))
        assert_fails(server, RemctlProtocolError, "flags 0x42")
        assert brief(peer.hears(server.data_to_send())) == [BAD_TOKEN]


class TestCommand:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param(LS, (b"ls",), id="one word"),
            pytest.param(b"\0\0\0\x03\0\0\0\x01a\0\0\0\0\0\0\0\x02\0\xff", (b"a", b"", b"\0\xff"), id="three words"),
            pytest.param(b"\0\0\0\x01\0\0\0\0", (b"",), id="an empty word"),
        ],
    )
    @pytest.mark.parametrize(("byte", "keep_alive"), [(0, False), (1, True), (2, True), (255, True)])
    def test_in_one_message(self, body: bytes, expected: tuple[bytes, ...], byte: int, keep_alive: bool) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(bytes([2, 1, byte, 0]) + body))
        assert events(server) == [CommandReceived(expected, keep_alive), PAUSED]
        assert server.data_to_send() == b""
        server.send_status(0)
        assert server.state is (State.IDLE if keep_alive else State.CLOSED)

    def test_of_version_3_is_taken(self) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(b"\x03" + COMMAND[1:]))
        assert server.next_event() == CommandReceived((b"ls",), True)

    @pytest.mark.parametrize("place", range(len(LS) + 1))
    def test_in_two_pieces_cut_anywhere(self, place: int) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(first(LS[:place])))
        assert server.next_event() is NEED_DATA
        assert server.receiving == place
        server.receive_data(peer.says(last(LS[place:])))
        assert events(server) == [CommandReceived((b"ls",), True), PAUSED]
        assert server.receiving == 0

    def test_in_pieces_of_a_byte_with_empty_ones_between(self) -> None:
        server, peer = established_server()
        pieces = [piece for byte in bytewise(LS) for piece in (middle(byte), middle())]
        server.receive_data(peer.says(first(), *pieces, last()))
        assert events(server) == [CommandReceived((b"ls",), True), PAUSED]

    @FEW
    @given(st.lists(st.binary(max_size=60), min_size=1, max_size=6), st.lists(st.integers(0), min_size=1, max_size=9))
    def test_cut_anywhere_is_the_same(self, sent: list[bytes], places: list[int]) -> None:
        body = struct.pack(">I", len(sent)) + b"".join(struct.pack(">I", len(word)) + word for word in sent)
        pieces = list(cut_at(places)(body + b"\0"))
        pieces[-1] = pieces[-1][:-1]
        server, peer = established_server()
        server.receive_data(peer.says(first(pieces[0]), *map(middle, pieces[1:]), last()))
        assert events(server) == [CommandReceived(tuple(sent), True), PAUSED]

    @pytest.mark.parametrize("values", [(0, 0, 1), (1, 1, 0), (0, 1, 0), (1, 0, 1)])
    def test_keeps_the_connection_as_its_last_piece_says(self, values: tuple[int, int, int]) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(first(LS[:3], values[0]), middle(LS[3:5], values[1]), last(LS[5:], values[2])))
        assert server.next_event() == CommandReceived((b"ls",), bool(values[2]))
        server.send_status(0)
        assert server.state is (State.IDLE if values[2] else State.CLOSED)

    def test_with_an_old_keep_alive_does_not_end_a_later_one(self) -> None:
        server, peer = established_server()
        found, answers = converse(server, peer, first(LS[:3], 0), first(LS, 0), last(b"", 1), COMMAND, COMMAND)
        assert found == [CommandReceived((b"ls",), True)] * 2
        assert answers == [BAD_COMMAND, b"\x02\x04\x00", b"\x02\x04\x00"]

    def test_has_4096_words_at_the_most(self) -> None:
        server, peer = established_server()
        found, answers = converse(server, peer, b"\x02\x01\x01\x00" + words(*[1] * 4096))
        assert found == [CommandReceived((b"\0",) * 4096, True)]
        found, answers = converse(server, peer, b"\x02\x01\x01\x00" + words(*[1] * 4097), COMMAND)
        assert found == [CommandReceived((b"ls",), True)]
        assert answers == [TOOMANY_ARGS, b"\x02\x04\x00"]

    @pytest.mark.parametrize(("count", "answer"), [(3, b"\x02\x04\x00"), (4, TOOMANY_ARGS)])
    def test_has_as_many_words_as_the_program_allows(self, count: int, answer: bytes) -> None:
        server, peer = established_server(max_words=3)
        assert converse(server, peer, b"\x02\x01\x01\x00" + words(*[0] * count))[1] == [answer]

    @pytest.mark.parametrize(("size", "answer"), [(19, b"\x02\x04\x00"), (20, TOOMUCH_DATA), (21, TOOMUCH_DATA)])
    @pytest.mark.parametrize("cuts", [(), (1,), (5, 9), (18,)])
    def test_stays_below_the_size_that_the_program_allows(
        self, size: int, answer: bytes, cuts: tuple[int, ...]
    ) -> None:
        body = words(size - 8)
        server, peer = established_server(max_command_size=20)
        if cuts:
            pieces = [body[begin:end] for begin, end in zip((0, *cuts), (*cuts, None), strict=True)]
            sent = [first(pieces[0]), *map(middle, pieces[1:-1]), last(pieces[-1])]
        else:
            sent = [b"\x02\x01\x01\x00" + body]
        found, answers = converse(server, peer, *sent, NOOP)
        assert answers == [answer, NOOP]
        assert len(found) == (size < 20)

    def test_of_100_mib_is_refused_before_it_has_come_as_a_whole(self) -> None:
        server, peer = established_server()
        piece = bytes(65_532)
        with traced() as held:
            server.receive_data(peer.says(first(piece)))
            assert server.next_event() is NEED_DATA
            server.receiving += 104_857_600 - 3 * 65_532 - 100
            for size, answers in ((65_532, []), (65_531, []), (100, []), (1, [TOOMUCH_DATA])):
                server.receive_data(peer.says(middle(piece[:size])))
                assert server.next_event() is NEED_DATA
                assert brief(peer.hears(server.data_to_send())) == answers
            assert server.receiving == 0
            assert held() < 200_000

    @pytest.mark.parametrize(
        ("message", "answer"),
        [(COMMAND[:4] + words(65_524), b"\x02\x04\x00"), (COMMAND[:4] + words(65_525), TOOMUCH_DATA)],
    )
    def test_has_64_kib_in_a_message(self, message: bytes, answer: bytes) -> None:
        server, peer = established_server()
        assert converse(server, peer, message)[1] == [answer]

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_in_tiny_pieces_takes_no_more_memory_than_its_bytes(self, size: int) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(first()))
        assert server.next_event() is NEED_DATA
        with traced() as held:
            for _ in range(10_000):
                server.receive_data(peer.says(middle(bytes(size))))
                assert server.next_event() is NEED_DATA
            assert server.receiving == 10_000 * size
            assert held() < 2 * server.receiving + 10_000


class TestRefusals:
    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            pytest.param([UNKNOWN], [UNKNOWN_MESSAGE], id="an unknown message"),
            pytest.param([b"\x02\x03\x01\0\0\0\0"], [UNKNOWN_MESSAGE], id="a message that servers send"),
            pytest.param([OTHER_VERSION], [VERSION], id="a higher version"),
            pytest.param([b"\x01\x01"], [VERSION], id="a lower version"),
            pytest.param([b"\0\0", b"\xff\xff"], [VERSION, VERSION], id="two versions"),
            pytest.param([b""], [BAD_TOKEN], id="an empty message"),
            pytest.param([b"\x02"], [BAD_TOKEN], id="one byte"),
            pytest.param([b"\x02\x01"], [BAD_COMMAND], id="a command of two bytes"),
            pytest.param([b"\x02\x01\x01"], [BAD_COMMAND], id="a command of three bytes"),
            pytest.param([b"\x02\x01\x01\x00"], [BAD_COMMAND], id="a command without words"),
            pytest.param([b"\x02\x01\x01\x00\0\0\0\0"], [UNKNOWN_COMMAND], id="a command of no words"),
            pytest.param([b"\x02\x01\x01\x00" + LS[:-1]], [BAD_COMMAND], id="a command that is cut off"),
            pytest.param([b"\x02\x01\x01\x00" + LS + b"x"], [BAD_COMMAND], id="a command with more"),
            pytest.param([b"\x02\x01\x01\x04" + LS], [BAD_COMMAND], id="continue 4"),
            pytest.param([b"\x02\x01\x01\x80" + LS], [BAD_COMMAND], id="continue 128"),
            pytest.param([middle(LS)], [BAD_COMMAND], id="a middle piece without a first"),
            pytest.param([last(LS)], [BAD_COMMAND], id="a last piece without a first"),
            pytest.param([bytes(65_537)], [TOOMUCH_DATA], id="a message over 64 KiB"),
            pytest.param([first(LS[:5]), last(LS[5:-1])], [BAD_COMMAND], id="pieces that are cut off"),
            pytest.param([first(), last()], [BAD_COMMAND], id="pieces of nothing"),
            pytest.param([first(b"\0\0"), last(b"\0\0")], [UNKNOWN_COMMAND], id="pieces of no words"),
            pytest.param([first(LS), first(LS), last()], [BAD_COMMAND], id="a second first piece"),
            pytest.param(
                [first(LS), first(LS), middle(), middle(LS), last()], [BAD_COMMAND], id="and what is left of it"
            ),
            pytest.param([first(LS), COMMAND, middle(LS), last()], [BAD_COMMAND], id="a whole command among pieces"),
            pytest.param([first(), b"\x02\x01\x01\x04", middle(), last()], [BAD_COMMAND], id="continue 4 among pieces"),
            pytest.param([first(), middle(bytes(65_533)), last()], [TOOMUCH_DATA], id="a piece over 64 KiB"),
            pytest.param([UNKNOWN] * 50, [UNKNOWN_MESSAGE] * 50, id="fifty"),
        ],
    )
    def test_leave_the_connection_open(self, messages: list[bytes], expected: list[bytes]) -> None:
        for cut in (None, bytewise):
            server, peer = established_server()
            data = peer.says(*messages)
            for piece in cut(data) if cut and len(data) < 10_000 else [data]:
                server.receive_data(piece)
                assert server.next_event() is NEED_DATA
            assert brief(peer.hears(server.data_to_send())) == expected
            assert server.state is State.IDLE
            assert converse(server, peer, COMMAND, NOOP) == (
                [CommandReceived((b"ls",), True)],
                [b"\x02\x04\x00", NOOP],
            )

    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            pytest.param([COMMAND], [b"\x02\x04\x00"], id="a command"),
            pytest.param([first(LS), last()], [b"\x02\x04\x00"], id="a command in pieces"),
            pytest.param([NOOP], [NOOP], id="a NOOP"),
            pytest.param([UNKNOWN], [UNKNOWN_MESSAGE], id="an unknown message"),
            pytest.param([OTHER_VERSION, last(), NOOP], [VERSION, NOOP], id="another version"),
        ],
    )
    def test_halfway_let_go_of_the_rest_and_take_what_comes_then(
        self, messages: list[bytes], expected: list[bytes]
    ) -> None:
        server, peer = established_server()
        assert converse(server, peer, first(), first(), middle(), *messages)[1] == [BAD_COMMAND, *expected]

    def test_of_a_command_in_pieces_close_the_connection_after_them_if_it_was_the_last(self) -> None:
        server, peer = established_server(max_command_size=10)
        server.receive_data(peer.says(first(bytes(10), 0), middle(b"x", 0)))
        assert server.next_event() is NEED_DATA
        server.receive_data(peer.says(last(b"x", 0)))
        assert_closed(server)
        assert brief(peer.hears(server.data_to_send())) == [TOOMUCH_DATA]

    @pytest.mark.parametrize("body", [b"", LS[:-1], b"\0\0\0\0", words(*[0] * 5)])
    def test_of_the_last_command_close_the_connection(self, body: bytes) -> None:
        for messages in ([b"\x02\x01\x00\x00" + body], [first(body), last(keep_alive=0)]):
            server, peer = established_server(max_words=4)
            server.receive_data(peer.says(*messages))
            assert_closed(server)
            assert len(peer.hears(server.data_to_send())) == 1

    @pytest.mark.parametrize("message", [NOOP, b"\x02\x07", UNKNOWN, b"\x02\x04\x00", b"\x02\x00"])
    def test_of_something_else_in_the_middle_of_a_command_close_the_connection(self, message: bytes) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(first(LS), middle(), message, last()))
        assert_fails(server, RemctlProtocolError, "in the middle of a command")
        assert brief(peer.hears(server.data_to_send())) == [UNEXPECTED]

    def test_of_another_version_in_the_middle_of_a_command_close_the_connection(self) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(first(LS), OTHER_VERSION, last()))
        assert_fails(server, RemctlProtocolError, "in the middle of a command")
        assert peer.hears(server.data_to_send()) == [VERSION]

    def test_of_the_program_let_go_of_the_rest_of_a_command(self) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(first(LS), middle(LS)))
        assert server.next_event() is NEED_DATA
        server.refuse(ErrorCode.TOOMUCH_DATA, "the server is busy")
        assert server.receiving == 0
        assert converse(server, peer, middle(LS), last(), COMMAND) == (
            [CommandReceived((b"ls",), True)],
            [TOOMUCH_DATA, b"\x02\x04\x00"],
        )

    @pytest.mark.parametrize("state", [State.START, State.NEGOTIATING, State.CLOSED])
    def test_of_the_program_need_someone_to_refuse(self, state: State) -> None:
        server = established_server()[0] if state is State.CLOSED else STATES[state]()
        if state is State.CLOSED:
            server.close()
        server.data_to_send()
        with pytest.raises(LocalProtocolError):
            server.refuse(ErrorCode.TOOMUCH_DATA, "the server is busy")
        assert (server.state, server.data_to_send()) == (state, b"")

    def test_forget_what_had_come_of_the_command(self) -> None:
        server, peer = established_server()
        converse(server, peer, first(LS), first(LS))
        assert server.receiving == 0
        assert converse(server, peer, last(), COMMAND)[0] == [CommandReceived((b"ls",), True)]


class TestNoop:
    @pytest.mark.parametrize("message", [NOOP, b"\x02\x07", NOOP + b"trailing"])
    def test_is_answered_unseen(self, message: bytes) -> None:
        server, peer = established_server()
        assert server.protocol == 2
        assert converse(server, peer, message, message) == ([], [NOOP, NOOP])
        assert (server.protocol, server.state) == (3, State.IDLE)

    def test_waits_for_the_end_of_an_answer(self) -> None:
        server, peer = waiting_server()
        server.receive_data(peer.says(NOOP))
        assert server.next_event() is PAUSED
        assert server.data_to_send() == b""
        server.send_status(0)
        assert server.next_event() is NEED_DATA
        assert peer.hears(server.data_to_send()) == [b"\x02\x04\x00", NOOP]


class TestBadTokens:
    @pytest.mark.parametrize("state", [State.IDLE, State.PIECES, State.DISCARDING])
    @pytest.mark.parametrize(
        ("data", "error"),
        [
            pytest.param(token(0x44), RemctlAuthenticationError, id="empty"),
            pytest.param(token(0x44, b"forged"), RemctlAuthenticationError, id="forged"),
            pytest.param(token(0x44, b"W\0\0\0\x01" + COMMAND), RemctlAuthenticationError, id="repeated"),
            pytest.param(token(0x44, b"W\0\0\0\x09" + COMMAND), RemctlAuthenticationError, id="out of order"),
            pytest.param(b"\x44\0\x10\0\x01", RemctlProtocolError, id="over 1 MiB"),
            pytest.param(b"\x44\xff\xff\xff\xff", RemctlProtocolError, id="of 4 GiB"),
        ],
    )
    def test_are_answered_once_and_close_the_connection(
        self, state: State, data: bytes, error: type[RemctlError]
    ) -> None:
        server = STATES[state]()
        server.context = Worn(server.context)
        server.receive_data(data + data)
        assert_fails(server, error)
        assert brief([payload[5:] for _, payload in tokens_in(server.data_to_send())]) == [BAD_TOKEN]
        assert server.receiving == 0

    @pytest.mark.parametrize("flags", [0x00, 0x04, 0x24, 0x42, 0x45, 0x51, 0x64, 0xC4])
    def test_are_those_of_other_flags_too(self, flags: int) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(COMMAND, flags=flags))
        assert_fails(server, RemctlProtocolError, f"flags 0x{flags:02x}")
        assert brief(peer.hears(server.data_to_send())) == [BAD_TOKEN]

    def test_of_1_mib_are_none(self) -> None:
        server, peer = established_server()
        server.receive_data(peer.says(bytes(1_048_571)))
        assert server.next_event() is NEED_DATA
        assert brief(peer.hears(server.data_to_send())) == [TOOMUCH_DATA]

    @pytest.mark.parametrize(
        "messages", [[NOOP], [UNKNOWN], [OTHER_VERSION], [first(), first()], [first(), NOOP], [first(), OTHER_VERSION]]
    )
    def test_a_context_that_can_no_longer_answer_closes_the_connection(self, messages: list[bytes]) -> None:
        server, peer = established_server()
        server.context = Mute(server.context)
        server.receive_data(peer.says(*messages))
        assert_fails(server, RemctlAuthenticationError)
        assert server.data_to_send() == b""

    @pytest.mark.parametrize("body", [LS, b""])
    @pytest.mark.parametrize("flags", [0x04, 0x24])
    def test_a_context_that_can_no_longer_answer_closes_a_connection_of_protocol_1(
        self, body: bytes, flags: int
    ) -> None:
        server, peer = established_server(protocol=1)
        server.context = Mute(server.context)
        server.receive_data(peer.says(body, flags=flags))
        if (body, flags) == (LS, 0x04):
            assert server.next_event() == CommandReceived((b"ls",), False)
            with pytest.raises(RemctlAuthenticationError):
                server.send_status(0)
            assert_closed(server)
        else:
            assert_fails(server, RemctlAuthenticationError)
        assert server.data_to_send() == b""

    def test_a_context_that_can_do_nothing_any_more_closes_the_connection(self) -> None:
        server, peer = established_server()
        assert isinstance(server.context, MemoryContext)
        server.context.expired = True
        server.receive_data(peer.says(COMMAND))
        assert_fails(server, RemctlAuthenticationError)
        assert server.data_to_send() == b""

    def test_a_context_that_expires_while_an_answer_is_owed_closes_the_connection(self) -> None:
        for call in ANSWERS:
            server, _ = waiting_server()
            assert isinstance(server.context, MemoryContext)
            server.context.expired = True
            with pytest.raises(RemctlAuthenticationError):
                call(server)
            assert_closed(server)
            assert server.data_to_send() == b""


class Worn(MemoryContext):
    """Has taken a token already, whose repetition it notices."""

    def __init__(self, context: object) -> None:
        super().__init__(False)
        assert isinstance(context, MemoryContext)
        self._received = max(context._received, 1)


class Mute(MemoryContext):
    """Can still take messages, and make none."""

    def __init__(self, context: object) -> None:
        super().__init__(False)
        assert isinstance(context, MemoryContext)
        self._received = context._received

    def wrap(self, message: bytes) -> bytes:
        raise RemctlAuthenticationError("the context has expired")

    def sign(self, message: bytes) -> bytes:
        return self.wrap(message)


class TestPipelining:
    def test_commands_wait_for_their_turn(self) -> None:
        server, peer = established_server()
        commands = [b"\x02\x01\x01\x00\0\0\0\x01\0\0\0\x01%d" % number for number in range(5)]
        server.receive_data(peer.says(*commands, QUIT))
        waiting = server.buffered
        for number in range(5):
            assert server.next_event() == CommandReceived((b"%d" % number,), True)
            assert server.next_event() is PAUSED
            assert 0 < server.buffered < waiting
            waiting = server.buffered
            server.send_output(b"%d" % number)
            assert server.next_event() is PAUSED
            server.send_status(number)
        assert type(server.next_event()) is Closed
        expected = [b"\x02\x03\x01\0\0\0\x01%d" % number for number in range(5)]
        assert peer.hears(server.data_to_send()) == [
            message for number, text in enumerate(expected) for message in (text, bytes([2, 4, number]))
        ]

    def test_what_follows_the_last_command_is_not_looked_at(self) -> None:
        server, peer = waiting_server(keep_alive=False)
        server.receive_data(peer.says(COMMAND) + b"garbage")
        assert server.next_event() is PAUSED
        server.send_status(0)
        assert_closed(server)

    def test_a_bad_token_waits_for_its_turn_too(self) -> None:
        server, peer = waiting_server()
        server.receive_data(token(0x44, b"forged"))
        assert server.next_event() is PAUSED
        server.send_status(0)
        assert_fails(server, RemctlAuthenticationError)
        assert brief(peer.hears(server.data_to_send())) == [b"\x02\x04\x00", BAD_TOKEN]


class TestAnswer:
    def test_is_output_and_a_status(self) -> None:
        server, peer = waiting_server()
        server.send_output(b"out")
        server.send_output(b"err", Stream.STDERR)
        server.send_status(3)
        assert peer.hears(server.data_to_send()) == [
            b"\x02\x03\x01\0\0\0\x03out",
            b"\x02\x03\x02\0\0\0\x03err",
            b"\x02\x04\x03",
        ]
        assert server.data_to_send() == b""
        assert server.state is State.IDLE

    def test_is_or_an_error(self) -> None:
        server, peer = waiting_server()
        server.send_output(b"out")
        server.send_error(77, "caf\xe9")
        assert peer.hears(server.data_to_send())[1:] == [b"\x02\x05\0\0\0\x4d\0\0\0\x05caf\xc3\xa9"]
        assert server.state is State.IDLE

    @pytest.mark.parametrize(
        ("size", "sizes"),
        [(0, []), (1, [1]), (65_529, [65_529]), (65_530, [65_529, 1]), (200_000, [65_529, 65_529, 65_529, 3413])],
    )
    def test_has_output_in_as_many_messages_as_it_takes(self, size: int, sizes: list[int]) -> None:
        server, peer = waiting_server()
        data = bytes(number % 251 for number in range(size))
        server.send_output(data, Stream.STDERR)
        heard = peer.hears(server.data_to_send())
        assert [struct.unpack(">BBBI", message[:7]) for message in heard] == [(2, 3, 2, length) for length in sizes]
        assert b"".join(message[7:] for message in heard) == data

    def test_is_counted_until_it_is_sent(self) -> None:
        server, _ = waiting_server()
        assert server.unsent == 0
        for size in (1, 70_000):
            server.send_output(bytes(size))
        unsent = server.unsent
        assert unsent > 70_001
        assert len(server.data_to_send()) == unsent
        assert server.unsent == 0

    def test_has_an_error_text_of_what_fits_a_message(self) -> None:
        server, peer = waiting_server()
        server.send_error(1, "x" * 70_000)
        assert peer.hears(server.data_to_send()) == [b"\x02\x05\0\0\0\x01\0\0\xff\xf6" + b"x" * 65_526]

    @pytest.mark.parametrize("number", [0, 1, 127, 128, 255])
    def test_has_a_status_of_a_byte(self, number: int) -> None:
        server, peer = waiting_server()
        server.send_status(number)
        assert peer.hears(server.data_to_send()) == [bytes([2, 4, number])]

    @pytest.mark.parametrize("protocol", [1, 2])
    @pytest.mark.parametrize("number", [-1, 256, 1000])
    def test_has_no_other_status(self, protocol: int, number: int) -> None:
        server, _ = waiting_server(protocol)
        server.data_to_send()
        with pytest.raises(ValueError, match=f"status must be 0 to 255: {number}"):
            server.send_status(number)
        assert server.state is State.ANSWER
        assert server.data_to_send() == b""

    @pytest.mark.parametrize("state", [state for state in STATES if state is not State.ANSWER])
    @pytest.mark.parametrize("data", [b"", b"out"])
    def test_has_no_output_when_none_is_owed(self, state: State, data: bytes) -> None:
        server = STATES[state]()
        server.data_to_send()
        with pytest.raises(LocalProtocolError):
            server.send_output(data)
        assert (server.state, server.data_to_send()) == (state, b"")

    @pytest.mark.parametrize("state", [state for state in STATES if state is not State.ANSWER])
    def test_has_no_end_when_none_is_owed(self, state: State) -> None:
        for call in ANSWERS[:2]:
            server = STATES[state]()
            server.data_to_send()
            with pytest.raises(LocalProtocolError):
                call(server)
            assert (server.state, server.data_to_send()) == (state, b"")

    def test_has_one_end(self) -> None:
        server, _ = waiting_server()
        server.send_status(0)
        for call in ANSWERS:
            with pytest.raises(LocalProtocolError):
                call(server)

    def test_is_not_sent_on_a_connection_that_was_closed(self) -> None:
        server, _ = waiting_server()
        server.close()
        for call in ANSWERS:
            with pytest.raises(LocalProtocolError):
                call(server)
        assert_closed(server)

    @pytest.mark.parametrize("wrong", [-1, 256, 1.5, True, "0", None])
    def test_with_a_status_that_is_none_is_refused_and_still_owed(self, wrong: Any) -> None:
        server, peer = waiting_server()
        with pytest.raises(ValueError, match="status must be 0 to 255"):
            server.send_status(wrong)
        server.send_status(7)
        assert peer.hears(server.data_to_send()) == [b"\x02\x04\x07"]

    @pytest.mark.parametrize("wrong", [0, 3, 300])
    def test_to_a_stream_that_does_not_exist_is_refused(self, wrong: Any) -> None:
        server, _ = waiting_server()
        with pytest.raises(ValueError, match="Stream"):
            server.send_output(b"data", wrong)
        server.send_status(0)


class TestEnd:
    @pytest.mark.parametrize(
        "messages", [[QUIT], [QUIT + b"trailing"], [b"\x03\x02"], [first(LS), QUIT], [COMMAND, QUIT]]
    )
    def test_is_a_quit(self, messages: list[bytes]) -> None:
        server, peer = established_server()
        found, _ = converse(server, peer, *messages)
        assert len(found) == messages.count(COMMAND)
        assert_closed(server)

    @pytest.mark.parametrize("state", [state for state in STATES if state is not State.ANSWER])
    @pytest.mark.parametrize("data", [b"", b"\x51\0\0"])
    def test_is_the_end_of_the_bytes(self, state: State, data: bytes) -> None:
        server = STATES[state]()
        server.receive_data(data)
        assert server.next_event() is NEED_DATA
        server.receive_eof()
        assert type(server.next_event()) is Closed
        assert_closed(server)

    def test_comes_after_the_answer_that_is_owed(self) -> None:
        server, peer = waiting_server()
        server.receive_data(peer.says(COMMAND))
        server.receive_eof()
        for number in range(2):
            assert server.next_event() is PAUSED
            server.send_status(number)
            event = server.next_event()
            assert type(event) is (Closed if number else CommandReceived)
        assert peer.hears(server.data_to_send()) == [b"\x02\x04\x00", b"\x02\x04\x01"]

    @pytest.mark.parametrize("state", STATES)
    def test_is_when_the_program_says_so(self, state: State) -> None:
        server = STATES[state]()
        server.receive_data(token(0x44, b"late"))
        server.close()
        assert_closed(server)
        assert server.data_to_send() == b""

    def test_nothing_is_kept_that_comes_after_it(self) -> None:
        server, peer = established_server()
        converse(server, peer, QUIT)
        for _ in range(10):
            server.receive_data(bytes(1000))
            assert type(server.next_event()) is Closed
        assert server.buffered == 0

    def test_forgets_the_command_that_was_coming(self) -> None:
        for end in (ServerConnection.close, ServerConnection.receive_eof):
            with traced() as held:
                server, peer = established_server()
                server.receive_data(peer.says(first(bytes(65_000)), *[middle(bytes(65_000))] * 9))
                server.next_event()
                assert held() > 600_000
                end(server)
                assert type(server.next_event()) is Closed
                assert held() < 100_000


class TestProtocol1:
    def test_answers_with_the_mic_and_then_one_result(self) -> None:
        server, peer = established_server(protocol=1)
        server.receive_data(peer.says(LS, flags=0x24))
        assert events(server) == [CommandReceived((b"ls",), False), PAUSED]
        [(flags, mic)] = tokens_in(server.data_to_send())
        assert flags == 0x08
        peer.context.verify(LS, mic)
        server.send_output(b"out")
        server.send_output(b"err", Stream.STDERR)
        assert server.data_to_send() == b""
        server.send_status(200)
        assert peer.hears(server.data_to_send(), flags=0x04) == [b"\0\0\0\xc8\0\0\0\x06outerr"]
        assert_closed(server)

    def test_leaves_out_the_mic_for_a_client_that_asks_for_none(self) -> None:
        server, peer = established_server(protocol=1)
        server.receive_data(peer.says(LS, flags=0x04))
        assert events(server) == [CommandReceived((b"ls",), False), PAUSED]
        assert server.data_to_send() == b""
        server.send_status(0)
        assert peer.hears(server.data_to_send(), flags=0x04) == [result(0, b"")]
        assert_closed(server)

    def test_that_comes_byte_by_byte(self) -> None:
        server, peer = established_server(protocol=1)
        found: list[object] = []
        for piece in bytewise(peer.says(LS, flags=0x24)):
            server.receive_data(piece)
            found.append(server.next_event())
        assert set(found[:-1]) == {NEED_DATA}
        assert found[-1] == CommandReceived((b"ls",), False)

    @pytest.mark.parametrize(
        ("sizes", "kept", "cut"),
        [
            ((65_528,), 65_528, 0),
            ((65_529,), 65_528, 1),
            ((65_000, 1000, 1000), 65_528, 1472),
            ((65_528, 0, 1, 7), 65_528, 8),
            ((200_000, 200_000), 65_528, 334_472),
        ],
    )
    def test_cuts_output_off_and_counts_what_is_lost(self, sizes: tuple[int, ...], kept: int, cut: int) -> None:
        server, peer = waiting_server(protocol=1)
        peer.context.verify(LS, tokens_in(server.data_to_send())[0][1])
        for size in sizes:
            server.send_output(b"x" * size)
        assert server.cut == cut
        server.send_status(0)
        assert peer.hears(server.data_to_send(), flags=0x04) == [result(0, b"x" * kept)]

    def test_has_a_status_of_minus_1_and_a_text_for_errors(self) -> None:
        server, peer = waiting_server(protocol=1)
        peer.context.verify(LS, tokens_in(server.data_to_send())[0][1])
        server.send_output(b"is dropped")
        server.send_error(6, "Access denied")
        assert peer.hears(server.data_to_send(), flags=0x04) == [b"\xff\xff\xff\xff\0\0\0\x0eAccess denied\n"]
        assert_closed(server)

    def test_cuts_the_text_of_an_error(self) -> None:
        server, peer = waiting_server(protocol=1)
        peer.context.verify(LS, tokens_in(server.data_to_send())[0][1])
        server.send_error(1, "x" * 70_000)
        assert peer.hears(server.data_to_send(), flags=0x04) == [result(-1, b"x" * 65_528)]

    @pytest.mark.parametrize("flags", [0x04, 0x24])
    @pytest.mark.parametrize(
        ("body", "match"),
        [
            pytest.param(b"", b"Invalid command format", id="nothing"),
            pytest.param(b"\0\0\0\0", b"Unknown command", id="no words"),
            pytest.param(LS[:-1], b"Invalid command format", id="cut off"),
            pytest.param(LS + b"x", b"Invalid command format", id="with more"),
            pytest.param(words(*[0] * 4097), b"Too many arguments", id="too many words"),
            pytest.param(words(65_529), b"Too much data", id="too large"),
        ],
    )
    def test_refuses_commands_as_others_do(self, flags: int, body: bytes, match: bytes) -> None:
        server, peer = established_server(protocol=1)
        server.receive_data(peer.says(body, flags=flags))
        assert_closed(server)
        sent = tokens_in(server.data_to_send())
        if flags == 0x24:
            assert sent[0][0] == 0x08
            peer.context.verify(body, sent.pop(0)[1])
        [(answer, payload)] = sent
        message = peer.context.unwrap(payload)
        assert answer == 0x04
        assert message[:4] == b"\xff\xff\xff\xff"
        assert struct.unpack(">I", message[4:8]) == (len(message) - 8,)
        assert message[8:].startswith(match)
        assert message.endswith(b"\n")

    def test_takes_a_command_of_64_kib(self) -> None:
        server, peer = established_server(protocol=1)
        server.receive_data(peer.says(words(65_528), flags=0x24))
        assert server.next_event() == CommandReceived((bytes(65_528),), False)

    def test_takes_no_command_as_large_as_the_program_refuses(self) -> None:
        server, peer = established_server(protocol=1, max_command_size=len(LS))
        server.receive_data(peer.says(LS, flags=0x04))
        assert type(server.next_event()) is Closed

    @pytest.mark.parametrize("flags", [0x00, 0x02, 0x08, 0x20, 0x44, 0x64])
    def test_refuses_a_token_of_other_flags_and_closes(self, flags: int) -> None:
        server, peer = established_server(protocol=1)
        server.receive_data(peer.says(LS, flags=flags))
        assert_fails(server, RemctlProtocolError, f"flags 0x{flags:02x}")
        assert peer.hears(server.data_to_send(), flags=0x04) == [result(-1, b"Invalid token\n")]

    def test_refuses_a_token_that_is_not_authentic_and_closes(self) -> None:
        server, peer = established_server(protocol=1)
        server.receive_data(token(0x24, b"forged"))
        assert_fails(server, RemctlAuthenticationError)
        assert peer.hears(server.data_to_send(), flags=0x04) == [result(-1, b"Invalid token\n")]

    def test_has_no_output_when_none_is_owed(self) -> None:
        idle, _ = established_server(protocol=1)
        ended, _ = waiting_server(protocol=1)
        ended.send_status(0)
        closed, _ = waiting_server(protocol=1)
        closed.close()
        for server in (idle, ended, closed):
            for data in (b"out", b""):
                with pytest.raises(LocalProtocolError):
                    server.send_output(data)

    def test_has_no_end_before_a_command(self) -> None:
        server, _ = established_server(protocol=1)
        for call in ANSWERS[:2]:
            with pytest.raises(LocalProtocolError):
                call(server)
        assert server.data_to_send() == b""
        assert server.state is State.IDLE


class TestAnything:
    @FEW
    @given(st.sampled_from(list(STATES)), st.binary(max_size=60), st.lists(st.integers(0), max_size=8), st.booleans())
    def test_random_bytes_are_events_or_errors(self, state: State, data: bytes, places: list[int], ended: bool) -> None:
        server = STATES[state]()
        try:
            for piece in cut_at(places)(data) if data else []:
                server.receive_data(piece)
                events_of_bytes = events_until_step(server)
                assert not any(isinstance(event, CommandReceived) for event in events_of_bytes)
            if ended:
                server.receive_eof()
                assert isinstance(events_until_step(server)[-1], Closed | Step) or server.state is State.ANSWER
        except RemctlProtocolError:
            assert_closed(server)

    @FEW
    @given(
        st.integers(1, 2),
        st.lists(
            st.sampled_from([COMMAND, LAST_COMMAND, first(LS), middle(), last(), QUIT, NOOP, UNKNOWN, OTHER_VERSION])
            | st.binary(max_size=20),
            max_size=12,
        ),
    )
    def test_random_messages_are_commands_or_answered(self, protocol: int, messages: list[bytes]) -> None:
        server, peer = established_server(protocol, max_command_size=40, max_words=3)
        server.receive_data(peer.says(*messages, flags=0x44 if protocol == 2 else 0x04))
        try:
            while (event := server.next_event()) is not NEED_DATA and not isinstance(event, Closed):
                assert event is PAUSED or isinstance(event, CommandReceived)
                assert server.receiving < 40
                if event is PAUSED:
                    server.send_status(0)
        except RemctlProtocolError:
            assert_closed(server)
        assert server.state in (State.IDLE, State.PIECES, State.DISCARDING, State.CLOSED)
        for message in peer.hears(server.data_to_send(), flags=0x44 if protocol == 2 else 0x04):
            assert len(message) >= 2


def events_until_step(server: ServerConnection) -> list[object]:
    """Return events up to a pause, the end, or a step, which random bytes cannot make the context take."""
    found: list[object] = []
    while not found or not (found[-1] in (NEED_DATA, PAUSED) or isinstance(found[-1], Closed | Step)):
        found.append(server.next_event())
    return found
