"""Messages: every format, written out by hand as the specification has it, and everything that is none."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.memory import output, status
from remctl.exceptions import RemctlProtocolError
from remctl.protocol import messages
from remctl.protocol.messages import (
    Continue,
    HighestVersion,
    MessageType,
    NoopAnswer,
    Piece,
    Refused,
    WrongVersion,
    decode_from_client,
    decode_from_server,
    decode_v1_result,
    decode_words,
)
from remctl.types import ErrorCode, Output, OutputType, Stream

WORDS = [
    pytest.param((b"ls",), b"\0\0\0\x01\0\0\0\x02ls", id="one"),
    pytest.param((b"a", b"bcd"), b"\0\0\0\x02\0\0\0\x01a\0\0\0\x03bcd", id="two"),
    pytest.param((b"",), b"\0\0\0\x01\0\0\0\0", id="an empty one"),
    pytest.param((b"a", b"", b""), b"\0\0\0\x03\0\0\0\x01a\0\0\0\0\0\0\0\0", id="empty ones at the end"),
    pytest.param((b"\0\xff",), b"\0\0\0\x01\0\0\0\x02\0\xff", id="any bytes"),
    pytest.param((bytes(300),), b"\0\0\0\x01\0\0\x01\x2c" + bytes(300), id="300 bytes"),
]

FROM_CLIENT = [
    pytest.param(b"\x02\x01\x01\x00body", Piece(True, Continue.WHOLE, b"body"), id="a command"),
    pytest.param(b"\x02\x01\x00\x00body", Piece(False, Continue.WHOLE, b"body"), id="a last command"),
    pytest.param(b"\x02\x01\x01\x01body", Piece(True, Continue.FIRST, b"body"), id="a first piece"),
    pytest.param(b"\x02\x01\x01\x02body", Piece(True, Continue.MIDDLE, b"body"), id="a middle piece"),
    pytest.param(b"\x02\x01\x00\x03body", Piece(False, Continue.LAST, b"body"), id="a last piece"),
    pytest.param(b"\x02\x01\x01\x02", Piece(True, Continue.MIDDLE, b""), id="an empty piece"),
    pytest.param(b"\x02\x02", MessageType.QUIT, id="QUIT"),
    pytest.param(b"\x03\x07", MessageType.NOOP, id="NOOP"),
]

# What is taken without being what this package sends.
ALSO_FROM_CLIENT = [
    pytest.param(b"\x03\x01\x01\x00body", Piece(True, Continue.WHOLE, b"body"), id="a command of version 3"),
    pytest.param(b"\x02\x01\x02\x00body", Piece(True, Continue.WHOLE, b"body"), id="keep-alive 2"),
    pytest.param(b"\x02\x01\xff\x00body", Piece(True, Continue.WHOLE, b"body"), id="keep-alive 255"),
    pytest.param(b"\x03\x02", MessageType.QUIT, id="QUIT of version 3"),
    pytest.param(b"\x02\x07", MessageType.NOOP, id="NOOP of version 2"),
    pytest.param(b"\x02\x02trailing", MessageType.QUIT, id="QUIT with more"),
    pytest.param(b"\x03\x07trailing", MessageType.NOOP, id="NOOP with more"),
]

REFUSED_FROM_CLIENT = [
    pytest.param(b"", ErrorCode.BAD_TOKEN, id="empty"),
    pytest.param(b"\x02", ErrorCode.BAD_TOKEN, id="one byte"),
    pytest.param(b"\x09", ErrorCode.BAD_TOKEN, id="one byte of another version"),
    pytest.param(b"\x02\x01", ErrorCode.BAD_COMMAND, id="a command cut before keep-alive"),
    pytest.param(b"\x02\x01\x01", ErrorCode.BAD_COMMAND, id="a command cut before continue"),
    pytest.param(b"\x02\x01\x01\x04", ErrorCode.BAD_COMMAND, id="continue 4"),
    pytest.param(b"\x02\x01\x01\x80", ErrorCode.BAD_COMMAND, id="continue 128"),
    pytest.param(b"\x02\x01\x01\xff", ErrorCode.BAD_COMMAND, id="continue 255"),
    pytest.param(b"\x02\x00", ErrorCode.UNKNOWN_MESSAGE, id="type 0"),
    pytest.param(b"\x02\x03\x01\0\0\0\x01x", ErrorCode.UNKNOWN_MESSAGE, id="OUTPUT"),
    pytest.param(b"\x02\x04\x00", ErrorCode.UNKNOWN_MESSAGE, id="STATUS"),
    pytest.param(b"\x02\x05\0\0\0\x01\0\0\0\0", ErrorCode.UNKNOWN_MESSAGE, id="ERROR"),
    pytest.param(b"\x02\x06\x03", ErrorCode.UNKNOWN_MESSAGE, id="VERSION"),
    pytest.param(b"\x03\x08", ErrorCode.UNKNOWN_MESSAGE, id="type 8"),
    pytest.param(b"\x02\xff", ErrorCode.UNKNOWN_MESSAGE, id="type 255"),
    pytest.param(b"\x02\x01\x01\x00" + bytes(65_533), ErrorCode.TOOMUCH_DATA, id="a command too large"),
    pytest.param(b"\x02\x02" + bytes(65_535), ErrorCode.TOOMUCH_DATA, id="QUIT too large"),
    pytest.param(b"\x04\x01" + bytes(65_535), ErrorCode.TOOMUCH_DATA, id="another version too large"),
]

FROM_SERVER = [
    pytest.param(b"\x02\x03\x01\0\0\0\x03out", output(b"out"), id="output"),
    pytest.param(b"\x02\x03\x02\0\0\0\x03err", output(b"err", Stream.STDERR), id="error output"),
    pytest.param(b"\x02\x03\x01\0\0\0\0", output(b""), id="empty output"),
    pytest.param(b"\x02\x03\x01\0\0\xff\xf9" + bytes(65_529), output(bytes(65_529)), id="the largest output"),
    pytest.param(b"\x02\x04\x00", status(0), id="status 0"),
    pytest.param(b"\x02\x04\xff", status(255), id="status 255"),
    pytest.param(
        b"\x02\x05\0\0\0\x05\0\0\0\x03who",
        Output(OutputType.ERROR, b"who", error=ErrorCode.UNKNOWN_COMMAND),
        id="an error",
    ),
    pytest.param(
        b"\x02\x05\0\0\0\x0a\0\0\0\0",
        Output(OutputType.ERROR, b"", error=ErrorCode.NO_HELP),
        id="an error without text",
    ),
    pytest.param(
        b"\x02\x05\xff\xff\xff\xff\0\0\0\x01\xff",
        Output(OutputType.ERROR, b"\xff", error=0xFFFFFFFF),
        id="an error without a name",
    ),
    pytest.param(b"\x02\x06\x03", HighestVersion(3), id="VERSION"),
    pytest.param(b"\x02\x06\x02", HighestVersion(2), id="VERSION of an older server"),
    pytest.param(b"\x03\x07", NoopAnswer(), id="NOOP"),
    pytest.param(b"\x02\x07", NoopAnswer(), id="NOOP of version 2"),
    pytest.param(b"\x03\x07trailing", NoopAnswer(), id="NOOP with more"),
    pytest.param(b"\x03\x04\x07", status(7), id="status of version 3"),
]

MALFORMED_FROM_SERVER = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\x02", id="one byte"),
    pytest.param(b"\x00\x04\x00", id="version 0"),
    pytest.param(b"\x01\x04\x00", id="version 1"),
    pytest.param(b"\x04\x04\x00", id="version 4"),
    pytest.param(b"\x02\x00", id="type 0"),
    pytest.param(b"\x02\x01\x01\x00", id="COMMAND"),
    pytest.param(b"\x02\x02", id="QUIT"),
    pytest.param(b"\x02\x08", id="type 8"),
    pytest.param(b"\x02\x03", id="output cut before its stream"),
    pytest.param(b"\x02\x03\x01\0\0\0", id="output cut in its length"),
    pytest.param(b"\x02\x03\x00\0\0\0\x01x", id="output of stream 0"),
    pytest.param(b"\x02\x03\x03\0\0\0\x01x", id="output of stream 3"),
    pytest.param(b"\x02\x03\x01\0\0\0\x02x", id="output shorter than it says"),
    pytest.param(b"\x02\x03\x01\xff\xff\xff\xffx", id="output of 4 GiB, it says"),
    pytest.param(b"\x02\x03\x01\0\0\0\x01xy", id="output longer than it says"),
    pytest.param(b"\x02\x04", id="status without its byte"),
    pytest.param(b"\x02\x04\0\0", id="status with more"),
    pytest.param(b"\x02\x05", id="error without its code"),
    pytest.param(b"\x02\x05\0\0\0\x01\0\0\0", id="error cut in its length"),
    pytest.param(b"\x02\x05\0\0\0\x01\0\0\0\x02x", id="error shorter than it says"),
    pytest.param(b"\x02\x05\0\0\0\x01\0\0\0\0x", id="error longer than it says"),
    pytest.param(b"\x02\x06", id="VERSION without its byte"),
    pytest.param(b"\x02\x06\x03\x03", id="VERSION with more"),
]

V1_RESULTS = [
    pytest.param(b"\0\0\0\0\0\0\0\x02hi", (0, b"hi"), id="success"),
    pytest.param(b"\0\0\0\xc8\0\0\0\0", (200, b""), id="status 200"),
    pytest.param(b"\xff\xff\xff\xff\0\0\0\x03no\n", (-1, b"no\n"), id="an error"),
    pytest.param(b"\x80\0\0\0\0\0\0\0", (-(2**31), b""), id="the lowest status"),
    pytest.param(b"\x7f\xff\xff\xff\0\0\0\0", (2**31 - 1, b""), id="the highest status"),
]


class TestWords:
    @pytest.mark.parametrize(("words", "body"), WORDS)
    def test_travel_counted_and_each_with_its_length(self, words: tuple[bytes, ...], body: bytes) -> None:
        assert messages.encode_words(words) == body
        assert decode_words(body, 10) == words

    @given(st.lists(st.binary(max_size=50), min_size=1, max_size=20))
    def test_come_back_as_they_were(self, words: list[bytes]) -> None:
        assert decode_words(messages.encode_words(words), 20) == tuple(words)

    def test_are_at_most_as_many_as_allowed(self) -> None:
        body = messages.encode_words([b"x"] * 4096)
        assert len(decode_words(body, 4096)) == 4096
        with pytest.raises(Refused, match="Too many arguments: 4096, and at most 4095 are allowed") as caught:
            decode_words(body, 4095)
        assert caught.value.code is ErrorCode.TOOMANY_ARGS

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            pytest.param(b"", ErrorCode.BAD_COMMAND, id="nothing"),
            pytest.param(b"\0\0\0", ErrorCode.BAD_COMMAND, id="cut in the number of words"),
            pytest.param(b"\0\0\0\0", ErrorCode.UNKNOWN_COMMAND, id="no words"),
            pytest.param(b"\0\0\0\0\0\0\0\x01x", ErrorCode.UNKNOWN_COMMAND, id="no words, and one"),
            pytest.param(b"\0\0\0\x01", ErrorCode.BAD_COMMAND, id="a word that is missing"),
            pytest.param(b"\0\0\0\x01\0\0\0", ErrorCode.BAD_COMMAND, id="cut in a length"),
            pytest.param(b"\0\0\0\x01\0\0\0\x02x", ErrorCode.BAD_COMMAND, id="cut in a word"),
            pytest.param(b"\0\0\0\x01\xff\xff\xff\xffx", ErrorCode.BAD_COMMAND, id="a word of 4 GiB, it says"),
            pytest.param(b"\0\0\0\x02\0\0\0\x01x", ErrorCode.BAD_COMMAND, id="one word for two"),
            pytest.param(b"\0\0\0\x01\0\0\0\x01xy", ErrorCode.BAD_COMMAND, id="a byte more"),
            pytest.param(b"\0\0\0\x01\0\0\0\x01x\0\0\0\x01y", ErrorCode.BAD_COMMAND, id="a word more"),
            pytest.param(b"\xff\xff\xff\xff", ErrorCode.TOOMANY_ARGS, id="4 billion words, it says"),
        ],
    )
    def test_that_do_not_fit_their_lengths_are_refused(self, body: bytes, code: ErrorCode) -> None:
        with pytest.raises(Refused) as caught:
            decode_words(body, 4096)
        assert caught.value.code is code

    @given(st.binary(max_size=40))
    def test_of_random_bytes_are_words_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(Refused):
            assert messages.encode_words(decode_words(body, 4096)) == body


class TestFromClient:
    @pytest.mark.parametrize(("message", "said"), FROM_CLIENT)
    def test_each_message(self, message: bytes, said: Piece | MessageType) -> None:
        assert decode_from_client(message) == said

    @pytest.mark.parametrize(("message", "said"), FROM_CLIENT)
    def test_is_sent_as_the_specification_has_it(self, message: bytes, said: Piece | MessageType) -> None:
        if isinstance(said, Piece):
            assert said.encode() == message
        else:
            assert {MessageType.QUIT: messages.QUIT, MessageType.NOOP: messages.NOOP}[said] == message

    @pytest.mark.parametrize(("message", "said"), ALSO_FROM_CLIENT)
    def test_what_other_clients_may_send_is_taken_too(self, message: bytes, said: Piece | MessageType) -> None:
        assert decode_from_client(message) == said

    def test_the_largest_piece_is_a_message_of_64_kib(self) -> None:
        assert messages.PIECE_SIZE == 65_532
        piece = Piece(True, Continue.MIDDLE, bytes(65_532))
        assert len(piece.encode()) == 65_536
        assert decode_from_client(piece.encode()) == piece

    @pytest.mark.parametrize(("message", "code"), REFUSED_FROM_CLIENT)
    def test_what_makes_no_sense_is_refused(self, message: bytes, code: ErrorCode) -> None:
        with pytest.raises(Refused) as caught:
            decode_from_client(message)
        assert caught.value.code is code
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("version", [0, 1, 4, 255])
    @pytest.mark.parametrize("kind", [0, 1, 2, 7, 99])
    def test_any_other_version_is_told_apart_whatever_follows(self, version: int, kind: int) -> None:
        with pytest.raises(WrongVersion):
            decode_from_client(bytes([version, kind]))

    @given(st.booleans(), st.sampled_from(Continue), st.binary(max_size=300))
    def test_pieces_come_back_as_they_were(self, keep_alive: bool, place: Continue, body: bytes) -> None:
        piece = Piece(keep_alive, place, body)
        assert decode_from_client(piece.encode()) == piece

    @given(st.binary(max_size=12) | st.builds(bytes.__add__, st.just(b"\x02\x01"), st.binary(max_size=12)))
    def test_random_bytes_are_a_message_or_refused(self, message: bytes) -> None:
        with contextlib.suppress(Refused, WrongVersion):
            assert isinstance(decode_from_client(message), Piece | MessageType)


class TestFromServer:
    @pytest.mark.parametrize(("message", "said"), FROM_SERVER)
    def test_each_message(self, message: bytes, said: object) -> None:
        decoded = decode_from_server(message)
        assert decoded == said
        assert type(decoded) is type(said)

    def test_is_sent_as_the_specification_has_it(self) -> None:
        assert messages.encode_output(b"out", Stream.STDOUT) == b"\x02\x03\x01\0\0\0\x03out"
        assert messages.encode_output(b"err", Stream.STDERR) == b"\x02\x03\x02\0\0\0\x03err"
        assert messages.encode_status(255) == b"\x02\x04\xff"
        assert messages.encode_error(ErrorCode.UNKNOWN_COMMAND, "who") == b"\x02\x05\0\0\0\x05\0\0\0\x03who"
        assert messages.encode_version() == b"\x02\x06\x03"
        assert messages.NOOP == b"\x03\x07"

    @pytest.mark.parametrize("message", MALFORMED_FROM_SERVER)
    def test_what_makes_no_sense_is_an_error(self, message: bytes) -> None:
        with pytest.raises(RemctlProtocolError, match="a message came that cannot be understood"):
            decode_from_server(message)

    def test_an_error_describes_a_message_without_quoting_it(self) -> None:
        with pytest.raises(RemctlProtocolError, match=r"understood: version 2, type 3, 14 bytes$"):
            decode_from_server(b"\x02\x03\x01\0\0\0\x63secret!")
        with pytest.raises(RemctlProtocolError, match=r"understood: 1 bytes$"):
            decode_from_server(b"\x02")

    @given(st.binary(max_size=300), st.sampled_from(Stream))
    def test_output_comes_back_as_it_was(self, data: bytes, stream: Stream) -> None:
        assert decode_from_server(messages.encode_output(data, stream)) == output(data, stream)

    @given(st.integers(0, 255))
    def test_a_status_comes_back_as_it_was(self, number: int) -> None:
        assert decode_from_server(messages.encode_status(number)) == status(number)

    @given(st.integers(0, 2**32 - 1), st.text())
    def test_an_error_comes_back_as_it_was(self, code: int, text: str) -> None:
        decoded = decode_from_server(messages.encode_error(code, text))
        assert decoded == Output(OutputType.ERROR, text.encode("utf-8", "backslashreplace"), error=code)

    def test_known_error_codes_are_enums(self) -> None:
        for code in ErrorCode:
            decoded = decode_from_server(messages.encode_error(code, ""))
            assert isinstance(decoded, Output)
            assert decoded.error is code

    def test_an_errors_text_is_cut_to_what_fits_a_message(self) -> None:
        message = messages.encode_error(1, "x" * 65_526 + "cut")
        assert message == b"\x02\x05\0\0\0\x01\0\0\xff\xf6" + b"x" * 65_526
        assert len(message) == 65_536

    def test_a_surrogate_in_an_errors_text_is_escaped(self) -> None:
        assert messages.encode_error(1, "\udcff").endswith(b"\\udcff")

    @given(st.binary(max_size=16) | st.builds(bytes.__add__, st.just(b"\x02"), st.binary(max_size=16)))
    def test_random_bytes_are_a_message_or_an_error(self, message: bytes) -> None:
        with contextlib.suppress(RemctlProtocolError):
            assert isinstance(decode_from_server(message), Output | HighestVersion | NoopAnswer)


class TestProtocol1:
    @pytest.mark.parametrize(("message", "result"), V1_RESULTS)
    def test_a_result(self, message: bytes, result: tuple[int, bytes]) -> None:
        assert messages.encode_v1_result(*result) == message
        assert decode_v1_result(message) == result

    @given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=300))
    def test_a_result_comes_back_as_it_was(self, number: int, data: bytes) -> None:
        assert decode_v1_result(messages.encode_v1_result(number, data)) == (number, data)

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"\0\0\0\0",
            b"\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\x01",
            b"\0\0\0\0\0\0\0\0x",
            struct.pack(">iI", 0, 2**32 - 1),
        ],
    )
    def test_a_result_that_does_not_fit_its_length_is_an_error(self, message: bytes) -> None:
        with pytest.raises(RemctlProtocolError, match="a result came that cannot be understood"):
            decode_v1_result(message)

    @given(st.binary(max_size=16))
    def test_random_bytes_are_a_result_or_an_error(self, message: bytes) -> None:
        with contextlib.suppress(RemctlProtocolError):
            assert messages.encode_v1_result(*decode_v1_result(message)) == message
