"""Arguments from elsewhere: what they become, and what is refused before anything is sent."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remctl.cli import _arguments
from remctl.cli._arguments import ArgumentError, collect


@contextmanager
def stdin(data: bytes) -> Iterator[None]:
    """Have descriptor 0 read as these bytes."""
    before = os.dup(0)
    ours, theirs = os.pipe()
    os.write(theirs, data)
    os.close(theirs)
    os.dup2(ours, 0)
    os.close(ours)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_without_expand_at_means_nothing() -> None:
    words = ["@/etc/passwd", "@-", "@?", "@@x", "@"]
    assert collect(words) == [word.encode() for word in words]


def test_words_are_the_bytes_that_they_were() -> None:
    assert collect([os.fsdecode(b"\xff\0x"[:1]), "ä"], expand=True) == [b"\xff", "ä".encode()]


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "@odd name").write_bytes(b"\0\xff\n")
    assert collect([f"@{tmp_path}/@odd name"], expand=True) == [b"\0\xff\n"]


def test_two_ats_are_one_and_nothing_is_expanded_twice(tmp_path: Path) -> None:
    (tmp_path / "word").write_bytes(b"@-")
    assert collect(["@@-", "@@@", f"@{tmp_path}/word", "a@b"], expand=True) == [b"@-", b"@@", b"@-", b"a@b"]


def test_standard_input_is_the_last_one_or_where_it_is_named() -> None:
    with stdin(b"in\n"):
        assert collect(["a"], stdin=True) == [b"a", b"in\n"]
    with stdin(b""):
        assert collect(["a"], stdin=True) == [b"a", b""]
    with stdin(b"in\n"):
        assert collect(["@-", "a"], expand=True) == [b"in\n", b"a"]


@pytest.mark.parametrize(("words", "appended"), [(["@-", "@-"], False), (["@-"], True)])
def test_standard_input_cannot_be_two_arguments(words: list[str], appended: bool) -> None:
    with stdin(b""), pytest.raises(ArgumentError, match="standard input can be one argument alone"):
        collect(words, expand=True, stdin=appended)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("@/no/such/file", "cannot be read from /no/such/file: No such file"),
        ("@/", "cannot be read from /: Is a directory"),
        ("@a\0b", "embedded null byte"),
        ("@", "@ stands for a file, and none is named; @@ is the word @"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(word: str, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        collect([word], expand=True)


def test_no_more_is_read_than_a_command_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_arguments, "MAX_COMMAND_SIZE", 10)
    (tmp_path / "six").write_bytes(b"secret")
    six = f"@{tmp_path}/six"
    assert collect([six], expand=True) == [b"secret"]
    with pytest.raises(ArgumentError, match="has too much for a command, which has less than 10 bytes") as caught:
        collect([six, six], expand=True)
    assert "secret" not in str(caught.value)
    with pytest.raises(ArgumentError, match="/dev/zero has too much"):
        collect(["@/dev/zero"], expand=True)
    with stdin(b"more than ten bytes"), pytest.raises(ArgumentError, match="standard input has too much"):
        collect([], stdin=True)


def test_what_is_asked_for_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", refuse)  # there is no /dev/tty for a job of cron's
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"not from here\n")))
    with pytest.raises(ArgumentError, match="there is no terminal to ask for 'PIN' on; @FILE and @-"):
        collect(["@?PIN"], expand=True)


def refuse(*arguments: object) -> int:
    raise OSError
