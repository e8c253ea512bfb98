"""Markers by themselves: what they refuse, what they complain of, how they are shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.backend import MULTILINE, SECRET, STDIN, Match, Option, Range


@pytest.mark.parametrize("text", ["ab", "aab"])
def test_a_match_is_content_with_what_matches(text: str) -> None:
    assert Match("a+b").complaint(text) is None


@pytest.mark.parametrize("text", ["", "xab", "abx", "ab\n"])
def test_a_match_is_of_the_whole_text(text: str) -> None:
    assert Match("a+b").complaint(text) == "it does not match a+b"


def test_an_alternative_matches_the_whole_text_too() -> None:
    assert Match("a|b").complaint("ab") == "it does not match a|b"


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(re.error):
        Match("(")


def test_a_pattern_of_bytes_is_refused() -> None:
    with pytest.raises(TypeError):
        Match(b"a")  # type: ignore[arg-type]


@given(st.integers(), st.integers(), st.integers())
def test_a_range_is_between_its_ends(value: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert (Range(low, high).complaint(value) is None) == (low <= value <= high)


@pytest.mark.parametrize(
    ("limits", "wrong", "reason"),
    [
        (Range(1, 5), 6, "it must be 1 to 5"),
        (Range(1, 5), 0.5, "it must be 1 to 5"),
        (Range(1), 0, "it must be 1 or more"),
        (Range(high=5), 5.5, "it must be 5 or less"),
        (Range(3, 3), 4, "it must be 3 to 3"),
    ],
    ids=repr,
)
def test_a_range_says_what_it_takes(limits: Range, wrong: float, reason: str) -> None:
    assert limits.complaint(wrong) == reason


@pytest.mark.parametrize("limits", [Range(1, 5), Range(1), Range(high=5)])
def test_an_end_belongs_to_the_range(limits: Range) -> None:
    assert limits.complaint(limits.low if limits.low is not None else limits.high) is None


@pytest.mark.parametrize(("low", "high"), [(None, None), (5, 1), (0.1, 0.0)])
def test_a_range_has_something_in_it(low: float | None, high: float | None) -> None:
    with pytest.raises(ValueError, match=r"^there is no such range: "):
        Range(low, high)


@pytest.mark.parametrize("limit", ["1", b"1", 1j, [1]])
def test_a_range_is_of_numbers(limit: object) -> None:
    with pytest.raises(TypeError):
        Range(limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("-q",), ("--quick",), ("-Q", "--so-quick", "--v2")])
def test_an_option_has_further_names(names: tuple[str, ...]) -> None:
    assert Option(*names).names == names


@pytest.mark.parametrize("name", ["q", "-quick", "--", "-", "", "-5", "--5", "--a=b", "--a b", "---a", "-ä", "-q\n"])
def test_an_option_is_named_like_one(name: str) -> None:
    with pytest.raises(ValueError, match=r"^an option is named like -q or --quick: "):
        Option("-x", name)


def test_an_option_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Option()


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        (STDIN, "STDIN"),
        (SECRET, "SECRET"),
        (MULTILINE, "MULTILINE"),
        (Match("a+"), "Match('a+')"),
        (Range(1, None), "Range(1, None)"),
        (Option("-q", "--quick"), "Option('-q', '--quick')"),
    ],
)
def test_a_marker_is_shown_as_it_is_written(marker: object, text: str) -> None:
    assert repr(marker) == text
