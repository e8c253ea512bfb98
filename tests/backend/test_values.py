"""From the bytes of an argument to a value: what each type takes, what it refuses, and with which words."""

from __future__ import annotations

import enum
import math
import os
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.backend._values import Reader, Unreadable, unwrap


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def refuses(reader: Reader, word: bytes) -> str:
    """Why a reader does not take a word."""
    with pytest.raises(Unreadable) as caught:
        reader.read(word)
    return str(caught.value)


# Text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_arrives_as_it_was_sent(text: str) -> None:
    assert Reader(str).read(text.encode()) == text


@pytest.mark.parametrize("word", [b"\xff", b"\xc3", b"a\xed\xa0\x80"])
@pytest.mark.parametrize("wanted", [str, int, float, bool, Size, Literal["a"]])
def test_bytes_that_are_no_utf_8_are_no_text(wanted: object, word: bytes) -> None:
    assert refuses(Reader(wanted), word) == "it is not UTF-8"


@pytest.mark.parametrize("character", [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))], ids=ascii)
def test_a_text_has_no_control_characters(character: str) -> None:
    assert refuses(Reader(str), f"a{character}b".encode()) == f"it has the control character {character!a}"


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb\tc\n", "\n"])
def test_line_ends_and_tabs_may_be_allowed(text: str) -> None:
    assert Reader(str, lines=True).read(text.encode()) == text


@pytest.mark.parametrize("word", [b"\0", b"\x1b[2J", b"\x0b", b"\x0c", b"\x7f", "\x85".encode()])
def test_other_control_characters_are_refused_even_then(word: bytes) -> None:
    assert refuses(Reader(str, lines=True), word).startswith("it has the control character '\\x")


@given(st.binary())
def test_bytes_arrive_as_they_were_sent(word: bytes) -> None:
    assert Reader(bytes).read(word) == word
    assert Reader(BinaryIO).read(word) == word


# Numbers


@given(st.integers())
def test_a_whole_number_is_read_as_it_is_written(number: int) -> None:
    assert Reader(int).read(b"%d" % number) == number


@pytest.mark.parametrize(("word", "number"), [(b"+5", 5), (b"-5", -5), (b"007", 7), (b"-0", 0)])
def test_a_whole_number_may_have_a_sign_and_zeros(word: bytes, number: int) -> None:
    assert Reader(int).read(word) == number


@pytest.mark.parametrize("text", ["", " 5", "5 ", "1_000", "0x10", "1.0", "1e3", "٤٣", "²", "+-1", "one"])
def test_what_else_python_takes_for_a_number_is_none(text: str) -> None:
    assert refuses(Reader(int), text.encode()) == "it is not a whole number"


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    assert refuses(Reader(int), b"9" * 5000) == "it has too many digits"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_it_is_written(number: float) -> None:
    assert Reader(float).read(repr(number).encode()) == number


@pytest.mark.parametrize(("word", "number"), [(b".5", 0.5), (b"5.", 5.0), (b"-1E3", -1000.0), (b"+2e-1", 0.2)])
def test_a_number_may_be_short(word: bytes, number: float) -> None:
    assert Reader(float).read(word) == number


@pytest.mark.parametrize("text", ["", ".", "nan", "inf", "-Infinity", "1_0.0", "1,5", "e5", " 1", "0x1p3", "٤"])
def test_what_is_no_decimal_number_is_refused(text: str) -> None:
    assert refuses(Reader(float), text.encode()) == "it is not a number"


def test_a_number_beyond_all_floats_is_refused() -> None:
    assert refuses(Reader(float), b"1e999") == "it is too large"


@given(st.text())
def test_no_text_is_read_as_infinite_or_not_a_number(text: str) -> None:
    try:
        number = Reader(float).read(text.encode("utf-8", "surrogatepass"))
    except Unreadable:
        return
    assert isinstance(number, float)
    assert math.isfinite(number)


# Few values


@pytest.mark.parametrize("word", [b"true", b"YES", b"on", b"1", b"True"])
def test_what_is_true(word: bytes) -> None:
    assert Reader(bool).read(word) is True


@pytest.mark.parametrize("word", [b"false", b"No", b"off", b"0"])
def test_what_is_false(word: bytes) -> None:
    assert Reader(bool).read(word) is False


@pytest.mark.parametrize("word", [b"", b"2", b"t", b"none"])
def test_what_is_neither(word: bytes) -> None:
    assert refuses(Reader(bool), word) == "it must be true or false (or yes, no, on, off, 1, 0)"


def test_an_enum_is_written_by_its_values_if_they_are_text() -> None:
    assert Reader(Size).read(b"large") is Size.LARGE
    assert refuses(Reader(Size), b"LARGE") == "it must be one of small, large"


def test_another_enum_is_written_by_its_names() -> None:
    assert Reader(Level).read(b"HIGH") is Level.HIGH
    assert refuses(Reader(Level), b"2") == "it must be one of LOW, HIGH"


def test_a_literal_is_written_as_its_values() -> None:
    reader = Reader(Literal["all", 5])
    assert reader.read(b"all") == "all"
    assert reader.read(b"5") == 5
    assert refuses(reader, b"") == "it must be one of all, 5"


@pytest.mark.parametrize("wanted", [Literal[b"a"], Literal["a", None], Literal[Level.LOW, b"x"]])
def test_a_literal_is_of_text_or_numbers(wanted: object) -> None:
    with pytest.raises(TypeError, match=r"^a Literal is of str or int: (b'a'|None|b'x')$"):
        Reader(wanted)


class Empty(enum.Enum):
    pass


class Twice(enum.Enum):
    A = "B"
    B = 1


@pytest.mark.parametrize("wanted", [Literal["a\nb"], Literal["\x1b"], Literal[1, "1"], Empty, Twice], ids=repr)
def test_choices_that_nobody_can_make_are_refused_at_once(wanted: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Reader(wanted)


# Paths


@given(st.binary(min_size=1).filter(lambda word: not any(byte < 0x20 or byte == 0x7F for byte in word)))
def test_a_path_keeps_the_bytes_of_its_name(word: bytes) -> None:
    try:
        path = Reader(Path).read(word)
    except Unreadable:
        assert any(0x80 <= ord(c) < 0xA0 for c in os.fsdecode(word))
    else:
        assert path == Path(os.fsdecode(word))


def test_a_path_need_not_be_utf_8() -> None:
    path = Reader(Path).read(b"/tmp/\xff")
    assert isinstance(path, Path)
    assert os.fsencode(path) == b"/tmp/\xff"


@pytest.mark.parametrize("word", [b"a\0b", b"a\nb", b"\x1b"])
def test_a_path_has_no_control_characters(word: bytes) -> None:
    assert refuses(Reader(Path), word).startswith("it has the control character ")


def test_nothing_is_no_path() -> None:
    # pathlib would make the current directory of it.
    with pytest.raises(Unreadable):
        Reader(Path).read(b"")


# Which types there are


@pytest.mark.parametrize("wanted", [object, list, list[str], int | str, complex, None, type(None), "str", tuple, [int]])
def test_another_type_cannot_be_read(wanted: object) -> None:
    with pytest.raises(TypeError):
        Reader(wanted)


@pytest.mark.parametrize(
    ("annotation", "wanted", "marks"),
    [
        (str, str, ()),
        (int | None, int, ()),
        (Optional[int], int, ()),  # noqa: UP045
        (Annotated[str, 1], str, (1,)),
        (Annotated[str | None, 1], str, (1,)),
        (Annotated[str, 1] | None, str, (1,)),
        (Annotated[Annotated[str, 1] | None, 2], str, (2, 1)),
        (Union[int, str], Union[int, str], ()),  # noqa: UP007
        (int | str | None, int | str | None, ()),
    ],
    ids=repr,
)
def test_what_stands_around_a_type_is_taken_off(annotation: object, wanted: object, marks: tuple[object, ...]) -> None:
    found, around = unwrap(annotation)
    assert found == wanted
    assert sorted(map(repr, around)) == sorted(map(repr, marks))


# The way back, for help


@pytest.mark.parametrize(
    ("wanted", "value", "text"),
    [
        (str, "x", "x"),
        (int, 5, "5"),
        (bool, True, "true"),
        (Size, Size.SMALL, "small"),
        (Literal["a", 1], 1, "1"),
        (bytes, b"\xff", "\\xff"),
        (Path, Path("/tmp"), "/tmp"),
        (int, [1, 2], "1 2"),
        (int, (1,), "1"),
        (Size, "other", "other"),
    ],
    ids=repr,
)
def test_a_default_is_written_as_it_would_be_typed(wanted: object, value: object, text: str) -> None:
    assert Reader(wanted).written(value) == text
