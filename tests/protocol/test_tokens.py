"""Tokens: their bytes, and reading them from a stream that is cut anywhere."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.memory import FEW, bytewise, cut_at, traced
from remctl.exceptions import RemctlProtocolError
from remctl.protocol import tokens
from remctl.protocol.tokens import Token, TokenReader

CONTEXT_LIMIT = 131_072
TOKEN_LIMIT = 1_048_576

LITERALS = [
    pytest.param(Token(0x51, b""), b"\x51\0\0\0\0", id="empty"),
    pytest.param(Token(0x44, b"\0"), b"\x44\0\0\0\x01\0", id="a zero byte"),
    pytest.param(Token(0x42, b"abc"), b"\x42\0\0\0\x03abc", id="three bytes"),
    pytest.param(Token(0x44, bytes(256)), b"\x44\0\0\x01\0" + bytes(256), id="256 bytes"),
    pytest.param(Token(0x44, bytes(65_536)), b"\x44\0\x01\0\0" + bytes(65_536), id="64 KiB"),
    pytest.param(Token(0x00, b"x"), b"\0\0\0\0\x01x", id="no flags"),
    pytest.param(Token(0xFF, b"x"), b"\xff\0\0\0\x01x", id="all flags"),
]

any_tokens = st.lists(st.builds(Token, st.integers(0, 255), st.binary(max_size=300)), max_size=8)


def read_all(reader: TokenReader) -> list[Token]:
    found = []
    while (token := reader.next()) is not None:
        found.append(token)
    return found


class TestBytes:
    def test_the_flags_are_those_of_the_specification(self) -> None:
        assert {flag.name: int(flag) for flag in tokens.Flag} == {
            "NOOP": 0x01,
            "CONTEXT": 0x02,
            "DATA": 0x04,
            "MIC": 0x08,
            "CONTEXT_NEXT": 0x10,
            "SEND_MIC": 0x20,
            "PROTOCOL": 0x40,
        }

    def test_the_combinations_in_use(self) -> None:
        assert (tokens.FIRST, tokens.CONTEXT, tokens.DATA) == (0x51, 0x42, 0x44)
        assert (tokens.V1_FIRST, tokens.V1_CONTEXT) == (0x11, 0x02)
        assert (tokens.V1_COMMAND, tokens.V1_MIC, tokens.V1_RESULT) == (0x24, 0x08, 0x04)

    @pytest.mark.parametrize(("token", "data"), LITERALS)
    def test_a_token_travels_as_flags_length_and_payload(self, token: Token, data: bytes) -> None:
        assert token.encode() == data

    @given(st.integers(0, 255), st.binary(max_size=2000))
    def test_what_was_encoded_is_read_again(self, flags: int, payload: bytes) -> None:
        reader = TokenReader()
        reader.feed(Token(flags, payload).encode())
        assert read_all(reader) == [Token(flags, payload)]
        assert reader.buffered == 0


class TestReading:
    @pytest.mark.parametrize(("token", "data"), LITERALS)
    def test_a_token_that_comes_whole(self, token: Token, data: bytes) -> None:
        reader = TokenReader()
        reader.feed(data)
        assert reader.next() == token
        assert reader.next() is None

    @pytest.mark.parametrize(("token", "data"), LITERALS)
    def test_a_token_that_comes_byte_by_byte_is_there_with_its_last_byte(self, token: Token, data: bytes) -> None:
        reader = TokenReader()
        for piece in bytewise(data[:-1]):
            reader.feed(piece)
            assert reader.next() is None
        reader.feed(data[-1:])
        assert reader.next() == token

    @pytest.mark.parametrize(("token", "data"), LITERALS)
    @pytest.mark.parametrize("trailing", [b"\x44", b"\x44\0\0\0", b"\x44\0\0\0\x02", b"\x44\0\0\0\x02h"])
    def test_the_beginning_of_the_next_token_waits(self, token: Token, data: bytes, trailing: bytes) -> None:
        reader = TokenReader()
        reader.feed(data + trailing)
        assert reader.next() == token
        assert reader.next() is None
        assert reader.buffered == len(trailing)
        reader.feed(b"\x44\0\0\0\x02hi"[len(trailing) :])
        assert reader.next() == Token(0x44, b"hi")

    @FEW
    @given(any_tokens, st.lists(st.integers(0), max_size=20))
    def test_a_stream_that_is_cut_anywhere(self, sent: list[Token], places: list[int]) -> None:
        reader, found = TokenReader(), []
        data = b"".join(token.encode() for token in sent)
        for piece in cut_at(places)(data) if data else []:
            reader.feed(piece)
            found += read_all(reader)
        assert found == sent
        assert reader.buffered == 0

    @FEW
    @given(any_tokens)
    def test_tokens_that_come_faster_than_they_are_read(self, sent: list[Token]) -> None:
        reader = TokenReader()
        for token in sent:
            reader.feed(token.encode())
        assert read_all(reader) == sent

    def test_nothing_is_no_token(self) -> None:
        reader = TokenReader()
        reader.feed(b"")
        assert reader.next() is None
        assert reader.buffered == 0

    def test_a_long_backlog_is_read_in_order_while_more_arrives(self) -> None:
        reader, found = TokenReader(), []
        sent = [Token(number % 256, bytes([number % 256]) * 1000) for number in range(1000)]
        for first, second in zip(sent[::2], sent[1::2], strict=True):
            reader.feed(first.encode() + second.encode())
            token = reader.next()
            assert token is not None
            found.append(token)
        assert found + read_all(reader) == sent

    def test_payloads_are_bytes_of_their_own(self) -> None:
        reader = TokenReader()
        reader.feed(b"\x44\0\0\0\x02hi")
        token = reader.next()
        reader.feed(b"\x44\0\0\0\x02ho")
        assert token == (0x44, b"hi")
        assert type(token.payload) is bytes


class TestLimits:
    def test_a_stranger_may_send_128_kib(self) -> None:
        assert TokenReader().limit == CONTEXT_LIMIT

    @pytest.mark.parametrize("limit", [0, 1, CONTEXT_LIMIT, TOKEN_LIMIT])
    def test_a_token_at_the_limit_is_taken(self, limit: int) -> None:
        reader = TokenReader()
        reader.limit = limit
        reader.feed(struct.pack(">BI", 0x44, limit) + bytes(limit))
        assert reader.next() == Token(0x44, bytes(limit))

    @pytest.mark.parametrize("limit", [0, 1, CONTEXT_LIMIT, TOKEN_LIMIT])
    @pytest.mark.parametrize("excess", [1, 2, 4_293_918_719])
    def test_a_token_over_the_limit_is_refused_by_its_header(self, limit: int, excess: int) -> None:
        reader = TokenReader()
        reader.limit = limit
        header = struct.pack(">BI", 0x44, min(limit + excess, 0xFFFFFFFF))
        reader.feed(header[:4])
        assert reader.next() is None
        reader.feed(header[4:])
        with pytest.raises(RemctlProtocolError, match=f"at most {limit} are allowed"):
            reader.next()
        assert reader.buffered == 5

    def test_a_length_of_4_gib_takes_no_memory(self) -> None:
        with traced() as held:
            reader = TokenReader()
            reader.feed(b"\x44\xff\xff\xff\xff")
            with pytest.raises(RemctlProtocolError, match="a token of 4294967295 bytes came"):
                reader.next()
            assert held() < 50_000

    def test_tokens_before_the_one_that_is_too_large_are_handed_out(self) -> None:
        reader = TokenReader()
        reader.feed(b"\x42\0\0\0\x02hi" + b"\x42\0\x02\0\x01")
        assert reader.next() == Token(0x42, b"hi")
        for _ in range(2):
            with pytest.raises(RemctlProtocolError):
                reader.next()

    def test_a_limit_holds_from_the_next_token_on(self) -> None:
        reader = TokenReader()
        data = struct.pack(">BI", 0x44, CONTEXT_LIMIT + 1) + bytes(CONTEXT_LIMIT + 1)
        reader.feed(b"\x42\0\0\0\0" + data)
        assert reader.next() == Token(0x42, b"")
        reader.limit = TOKEN_LIMIT
        assert reader.next() == Token(0x44, bytes(CONTEXT_LIMIT + 1))


class TestMemory:
    @FEW
    @given(any_tokens, st.lists(st.integers(0), max_size=20))
    def test_buffered_counts_what_was_not_handed_out(self, sent: list[Token], places: list[int]) -> None:
        reader = TokenReader()
        data = b"".join(token.encode() for token in sent)
        fed = handed_out = 0
        for piece in cut_at(places)(data) if data else []:
            reader.feed(piece)
            fed += len(piece)
            assert reader.buffered == fed - handed_out
            for token in read_all(reader):
                handed_out += 5 + len(token.payload)
            assert reader.buffered == fed - handed_out

    def test_what_was_read_is_let_go_while_more_comes(self) -> None:
        token = struct.pack(">BI", 0x44, 50_000) + bytes(50_000)
        with traced() as held:
            reader = TokenReader()
            reader.feed(token[:100])
            for _ in range(200):
                reader.feed(token[100:] + token[:100])
                assert reader.next() is not None
            assert reader.buffered == 100
            assert held() < 500_000

    def test_what_was_read_is_let_go_when_no_more_comes(self) -> None:
        token = struct.pack(">BI", 0x44, TOKEN_LIMIT) + bytes(TOKEN_LIMIT)
        with traced() as held:
            reader = TokenReader()
            reader.limit = TOKEN_LIMIT
            reader.feed(token)
            assert reader.next() is not None
            assert held() < 50_000
