"""What is kept of the streams: the last bytes, while they come and afterwards, however many there are."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.attempts import LIMIT, Attempts, ended, output
from remctl.jobs.attempt import DamagedEndingError, Reason, read_ending, read_output
from remctl.jobs.attempt._record import Progress, Tail
from remctl.jobs.attempt._results import progress

LINES = "my $n = 0; $| = 0; while ($n < {count}) {{ printf '%07d\n', $n++ }}"
"""Writes lines of eight bytes, each of which tells where it stands."""


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    """Give what makes attempts; all of them are over in the end."""
    with Attempts(tmp_path) as made:
        yield made


class TestTail:
    @given(
        room=st.integers(0, 20),
        pieces=st.lists(st.binary(max_size=50), max_size=12),
        offset=st.integers(0, 200),
        limit=st.integers(0, 30),
    )
    @settings(max_examples=300, deadline=None)
    def test_keeps_the_last_bytes(self, room: int, pieces: list[bytes], offset: int, limit: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with tail(folder, room) as kept:
                whole = b""
                for piece in pieces:
                    kept.add(memoryview(piece))
                    whole += piece
                    begin = max(0, len(whole) - room)
                    found = read_output(folder, "stderr")
                    assert found == (begin, whole[begin:], len(whole))
                begin = max(0, len(whole) - room)
                start = min(max(begin, offset), len(whole))
                found = read_output(folder, "stderr", offset, limit)
                assert found == (start, whole[start : start + limit], len(whole))
                assert kept.summary() == {"size": len(whole), "kept": len(whole) - begin, "lost": None}
            assert (folder / "stderr").stat().st_size <= room

    @pytest.mark.parametrize("size", [1, 7, 10, 11, 35])
    def test_says_what_it_gives_up_before_it_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        room, write, overwritten = 10, os.pwrite, 0

        def pwrite(number: int, data: bytes | memoryview, place: int) -> int:
            nonlocal overwritten
            if number == kept._file:
                _, begin, end, _ = progress(tmp_path, "stderr")
                for at in range(begin, end):
                    assert not place <= at % room < place + len(data)
                overwritten += min(place + len(data), end) > place
            return write(number, data, place)

        with tail(tmp_path, room) as kept:
            monkeypatch.setattr(os, "pwrite", pwrite)
            for _ in range(20):
                kept.add(memoryview(bytes(size)))
        assert overwritten

    def test_a_damaged_file_is_an_error(self, tmp_path: Path) -> None:
        with tail(tmp_path, 20) as kept:
            kept.add(memoryview(b"text"))
        (tmp_path / "stderr").write_bytes(b"te")
        with pytest.raises(DamagedEndingError, match="shorter"):
            read_output(tmp_path, "stderr")
        (tmp_path / "progress").write_bytes(b"x" * 68)
        with pytest.raises(DamagedEndingError, match="sum"):
            read_output(tmp_path, "stderr")

    def test_before_there_is_any(self, tmp_path: Path) -> None:
        assert read_output(tmp_path, "stdout") is None


class TestStreams:
    def test_both_are_kept_apart_and_as_they_are(self, attempts: Attempts) -> None:
        ending, out, err = attempts.run(r"printf 'a\0\377\r\nb'; printf 'no newline' >&2")
        assert (out, err) == (b"a\0\xff\r\nb", b"no newline")
        assert not ending.stdout.truncated
        assert (ending.stdout, ending.stderr) == ((6, 6, None), (10, 10, None))

    def test_one_may_be_closed(self, attempts: Attempts) -> None:
        ending, out, _ = attempts.run("exec 2>&-; sleep 0.05; echo out")
        assert (ending.status, ending.leftovers, out) == (0, False, b"out\n")

    def test_a_gigabyte_in_bounded_memory(self, attempts: Attempts) -> None:
        script = (
            "head -c 1000000000 /dev/zero >&2 & head -c 300000000 /dev/zero; wait;"
            "printf 'the end' >&2; printf end; echo > $said; read word < $gate"
        )
        attempt = attempts.begin(script, output=100_000)
        attempts.said.hear()
        memory = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{attempt.keeper}/status").read_text())
        attempts.gate.say()
        ending = ended(attempt)
        assert memory is not None
        assert int(memory[1]) < 40_000
        assert ending.stderr.truncated
        assert ending.stderr == (1_000_000_007, 100_000, None)
        assert ending.stdout == (300_000_003, 100_000, None)
        assert output(attempt, "stderr") == bytes(99_993) + b"the end"
        assert output(attempt, "stdout") == bytes(99_997) + b"end"
        assert {(attempt.folder / name).stat().st_size for name in ("stdout", "stderr")} == {100_000}

    def test_none_is_kept_if_none_is_wanted(self, attempts: Attempts) -> None:
        ending, out, _ = attempts.run("echo text", output=0)
        assert (ending.stdout, out) == ((5, 0, None), b"")

    def test_what_comes_in_the_last_moment_is_kept(self, attempts: Attempts) -> None:
        ending, out, _ = attempts.run("(head -c 200000 /dev/zero; sleep 1000) & head -c 1 /dev/zero", drain=0.3)
        assert ending.leftovers
        assert (len(out), ending.stdout.size) == (100_000, 200_001)


class TestFollowing:
    def test_each_piece_is_there_as_it_comes(self, attempts: Attempts) -> None:
        attempt = attempts.begin("printf one; read word < $gate; printf two")
        end = time.monotonic() + LIMIT
        while (piece := read_output(attempt.folder, "stdout")) is None or not piece.data:
            assert time.monotonic() < end
        assert piece == (0, b"one", 3)
        assert read_output(attempt.folder, "stdout", 3) == (3, b"", 3)
        attempts.gate.say()
        ended(attempt)
        assert read_output(attempt.folder, "stdout", 3) == (3, b"two", 6)
        assert read_output(attempt.folder, "stdout", 2, 2) == (2, b"et", 6)

    @pytest.mark.parametrize("room", [1000, 100_000])
    def test_nothing_is_ever_in_a_wrong_place(self, attempts: Attempts, room: int) -> None:
        count = 3_000_000
        attempt = attempts.begin(["/usr/bin/perl", "-e", LINES.format(count=count)], output=room)
        offset = reads = given_up = 0
        while True:
            over = attempt.wait(0)
            piece = read_output(attempt.folder, "stdout", offset, 50_000)
            assert piece is not None
            assert piece.offset >= offset
            given_up += piece.offset - offset
            if piece.data:
                first = piece.offset // 8
                expected = b"".join(b"%07d\n" % number for number in range(first, first + len(piece.data) // 8 + 2))
                start = piece.offset % 8
                assert piece.data == expected[start : start + len(piece.data)]
                reads += 1
            offset = piece.offset + len(piece.data)
            if over and offset == piece.size:
                break
        assert offset == count * 8
        assert reads
        assert given_up


class TestDiskFull:
    def test_the_script_goes_on_and_the_ending_is_there(self, attempts: Attempts, small_disk: Path) -> None:
        script = "head -c 1000000 /dev/zero; printf 'the end'; exit 3"
        ending, out, err = attempts.run(script, folder=small_disk / "attempt", output=1_000_000)
        assert (ending.reason, ending.status) == (Reason.EXIT, 3)
        assert ending.stdout.lost == "No space left on device"
        assert ending.stdout.truncated
        assert (ending.stdout.size, err) == (1_000_007, b"")
        assert 50_000 < ending.stdout.kept == len(out) < 200_000
        assert out.endswith(b"\0the end")
        assert read_ending(small_disk / "attempt") == ending

    def test_a_disk_without_any_room_left_for_output(self, attempts: Attempts, small_disk: Path) -> None:
        attempt = attempts.prepare("echo text; exit 4", folder=small_disk / "attempt")
        fill(small_disk)
        attempt.release()
        ending = ended(attempt)
        assert (ending.status, ending.stdout) == (4, (5, 0, "No space left on device"))
        assert read_ending(small_disk / "attempt") == ending

    def test_without_room_for_an_ending_nothing_is_started(self, attempts: Attempts, small_disk: Path) -> None:
        fill(small_disk)
        with pytest.raises(OSError, match="No space left"):
            attempts.prepare("exit", folder=small_disk / "attempt")

    def test_an_ending_that_cannot_be_written_is_told(self, attempts: Attempts) -> None:
        attempt = attempts.begin("read word < $gate; exit 7")
        (attempt.folder / "ending.reserved").unlink()
        attempts.gate.say()
        assert ended(attempt).status == 7
        assert read_ending(attempt.folder) is None


@contextmanager
def tail(folder: Path, room: int) -> Iterator[Tail]:
    """Give what keeps stderr in a folder, without a keeper."""
    numbers = Progress(str(folder))
    kept = Tail(str(folder), 1, room, numbers)
    try:
        yield kept
    finally:
        os.close(numbers._file)
        os.close(kept._file)


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with (disk / "filling").open("wb", buffering=0) as file:
        for size in 4096, 1:
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
