"""Clients and servers that talk to each other, with the bytes between them cut anywhere."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.memory import FEW, Cut, Link, MemoryContext, bytewise, cut_at, downgrade, output, status, whole
from remctl.protocol import (
    ClientConnection,
    CommandReceived,
    Established,
    NoopAnswer,
    ServerConnection,
    State,
)
from remctl.types import Output, OutputType, Stream


class Exchange(NamedTuple):
    """A command, and its answer."""

    words: list[bytes]
    parts: list[tuple[bytes, Stream]]
    end: int
    """The status, or minus the code of an error."""
    noops: int
    """How many NOOPs are sent after it."""


exchanges = st.builds(
    Exchange,
    st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    st.lists(st.tuples(st.binary(min_size=1, max_size=80), st.sampled_from(Stream)), max_size=4),
    st.integers(-20, 255),
    st.integers(0, 2),
)


def link(cut: Cut = whole, protocol: int = 2, tokens: int = 2) -> Link:
    """Return a client and a server that have authenticated."""
    made = Link(
        ClientConnection(MemoryContext(True, tokens)),
        ServerConnection(MemoryContext(False, tokens), allow_v1=protocol == 1),
        cut,
        downgrade if protocol == 1 else bytes,
    )
    made.client.start()
    made.pump()
    assert made.heard == made.commands == [Established(protocol)]
    made.heard.clear()
    made.commands.clear()
    return made


def converse(joined: Link, exchange: Exchange, keep_alive: bool = True) -> tuple[CommandReceived, list[object]]:
    """Return the command as the server got it, and all that the client got in return."""
    joined.client.send_command(exchange.words, keep_alive=keep_alive)
    command = joined.answer()
    for data, stream in exchange.parts:
        joined.server.send_output(data, stream)
        joined.pump()
    if exchange.end < 0:
        joined.server.send_error(-exchange.end, "refused")
    else:
        joined.server.send_status(exchange.end)
    joined.pump()
    for _ in range(exchange.noops):
        joined.client.send_noop()
        joined.pump()
    heard = joined.heard[:]
    joined.heard.clear()
    return command, heard


def answer_to(exchange: Exchange) -> list[object]:
    """Return what the client is to get."""
    end = Output(OutputType.ERROR, b"refused", error=-exchange.end) if exchange.end < 0 else status(exchange.end)
    return [*(output(*part) for part in exchange.parts), end, *[NoopAnswer()] * exchange.noops]


@pytest.mark.parametrize("cut", [whole, bytewise], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("tokens", range(2, 7))
def test_a_handshake_of_any_length(cut: Cut, protocol: int, tokens: int) -> None:
    joined = link(cut, protocol, tokens)
    assert joined.client.protocol == joined.server.protocol == protocol
    assert joined.client.state is joined.server.state is State.IDLE


@FEW
@given(st.lists(exchanges, max_size=4), st.lists(st.integers(0), max_size=12))
def test_a_conversation_is_the_same_however_its_bytes_are_cut(said: list[Exchange], places: list[int]) -> None:
    for joined in (link(), link(bytewise), link(cut_at(places))):
        for exchange in said:
            command, heard = converse(joined, exchange)
            assert command == CommandReceived(tuple(exchange.words), True)
            assert heard == answer_to(exchange)
            assert [type(event) for event in heard] == [type(event) for event in answer_to(exchange)]
        assert {joined.client.state, joined.server.state} == {State.IDLE}
        assert joined.client.buffered == joined.server.buffered == 0
        joined.client.send_quit()
        joined.pump()
        assert joined.client.state is joined.server.state is State.CLOSED


@FEW
@given(exchanges, st.lists(st.integers(0), max_size=12))
def test_the_last_command_ends_both_sides(said: Exchange, places: list[int]) -> None:
    joined = link(cut_at(places))
    command, heard = converse(joined, said._replace(noops=0), keep_alive=False)
    assert command == CommandReceived(tuple(said.words), False)
    assert heard == answer_to(said._replace(noops=0))
    assert joined.client.state is joined.server.state is State.CLOSED


@FEW
@given(exchanges, st.lists(st.integers(0), max_size=12))
def test_protocol_1_has_one_exchange(said: Exchange, places: list[int]) -> None:
    joined = link(cut_at(places), protocol=1)
    command, heard = converse(joined, said._replace(noops=0))
    assert command == CommandReceived(tuple(said.words), False)
    data = b"refused\n" if said.end < 0 else b"".join(part for part, _ in said.parts)
    number = 255 if said.end < 0 else said.end
    assert heard == ([output(data), status(number)] if data else [status(number)])
    assert joined.client.refused == (said.end < 0)
    assert joined.client.state is joined.server.state is State.CLOSED


@pytest.mark.parametrize("size", [65_523, 65_524, 65_525, 131_056, 131_057, 3_000_000])
def test_commands_and_output_of_any_size(size: int) -> None:
    joined = link()
    data = bytes(number % 251 for number in range(1000)) * (size // 1000) + bytes(size % 1000)
    command, heard = converse(joined, Exchange([data, b"end"], [(data, Stream.STDOUT)], 0, 1))
    assert command.words == (data, b"end")
    assert b"".join(part.output or b"" for part in heard if isinstance(part, Output)) == data
    assert heard[-2:] == [status(0), NoopAnswer()]


@pytest.mark.parametrize("cut", [whole, cut_at(range(0, 300_000, 7001))], ids=["whole", "cut"])
def test_a_large_command_that_is_refused_ends_the_client_and_not_the_server(cut: Cut) -> None:
    joined = Link(
        ClientConnection(MemoryContext(True)), ServerConnection(MemoryContext(False), max_command_size=70_000), cut
    )
    joined.client.start()
    joined.pump()
    joined.heard.clear()
    joined.commands.clear()
    joined.client.send_command([bytes(2_000_000)])
    server, client = joined.server, joined.client
    server.receive_data(client.data_to_send())
    joined.pump()
    assert [event.error for event in joined.heard if isinstance(event, Output)] == [8]
    assert joined.commands == []
    assert server.state in (State.DISCARDING, State.IDLE)
    assert server.receiving == server.buffered == 0
