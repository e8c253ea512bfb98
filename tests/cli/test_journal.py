"""The journal of a run: what it keeps, and what of it can be trusted after the worst."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.showing import made
from remctl.cli._journal import Journal, JournalError, Past
from remctl.fanout import HostState

COMMAND = [b"user", b"create", b"secret\xff"]
SERVER = {"port": None, "service": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def started(path: Path, targets: str = "abc", command: list[bytes] = COMMAND, **server: object) -> Journal:
    journal = Journal(str(path))
    try:
        journal.start(list(targets), command, {**SERVER, **server})
    except BaseException:
        journal.close()
        raise
    return journal


def begin(journal: Journal, *targets: str) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*map(journal.begin, targets))

    asyncio.run(all_of_them())


def pasts(path: Path, targets: str = "abc") -> dict[str, Past]:
    journal = started(path, targets)
    found = {target: journal.past(target) for target in targets}
    journal.close()
    return found


class TestPast:
    def test_knows_where_it_ended_and_where_it_was_begun(self, path: Path) -> None:
        journal = started(path, "abcdefg")
        begin(journal, *"abcdg")
        journal.end(made("a", 3, state=HostState.NONZERO))
        journal.end(made("b", None, state=HostState.TIMEOUT, may_be_running=True))
        journal.end(made("c", None, state=HostState.CANCELLED))
        journal.end(made("e", None, state=HostState.SKIPPED))
        journal.end(made("g", None, state=HostState.SKIPPED))  # the run was stopped just before it was sent
        journal.close()
        assert pasts(path, "abcdefg") == {
            "a": Past.ENDED,
            "b": Past.UNKNOWN,
            "c": Past.OPEN,
            "d": Past.UNKNOWN,
            "e": Past.OPEN,
            "f": Past.OPEN,
            "g": Past.OPEN,
        }
        again = started(path, "abcdefg")
        assert list(again.statuses) == [3]
        again.close()

    def test_the_last_word_on_a_host_counts(self, path: Path) -> None:
        for state in (HostState.REFUSED, HostState.OK):
            journal = started(path)
            begin(journal, "a")
            journal.end(made("a", 0 if state is HostState.OK else None, state=state))
            journal.close()
        assert pasts(path)["a"] is Past.ENDED

    def test_is_there_without_any_record(self, path: Path) -> None:
        started(path).close()
        assert set(pasts(path).values()) == {Past.OPEN}


class TestSecrecy:
    def test_the_command_is_not_in_the_file(self, path: Path) -> None:
        started(path).close()
        assert b"secret" not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_the_same_command_has_another_digest_in_another_file(self, path: Path) -> None:
        digests = set()
        for name in "xy":
            file = path.with_name(name)
            started(file).close()
            digests.add(json.loads(file.read_text())["command"])
        assert len(digests) == 2


class TestAnotherRun:
    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"command": [b"user", b"create", b"other"]}, "command"),
            ({"command": [b"user", b"createsecret\xff"]}, "command"),
            ({"targets": "ab"}, "set of hosts"),
            ({"targets": "abcd"}, "set of hosts"),
            ({"port": "4444"}, "port or principal"),
        ],
    )
    def test_is_refused(self, path: Path, change: dict[str, Any], what: str) -> None:
        started(path).close()
        before = path.read_bytes()
        with pytest.raises(JournalError, match=f"is of a run with another {what}"):
            started(path, **change)
        assert path.read_bytes() == before

    def test_at_the_same_time_is_refused(self, path: Path) -> None:
        journal = started(path)
        with pytest.raises(JournalError, match="another pyremctl is at it"):
            Journal(str(path))
        journal.close()
        pasts(path)


class TestDamage:
    def prepared(self, path: Path) -> bytes:
        journal = started(path)
        begin(journal, "a", "b")
        journal.end(made("a"))
        journal.close()
        return path.read_bytes()

    def test_of_the_last_line_by_a_sudden_end_is_mended_at_every_byte(self, path: Path) -> None:
        whole = self.prepared(path)
        header = whole.index(b"\n") + 1
        for size in [*range(0, header, 29), *range(header - 1, len(whole), 2)]:
            path.write_bytes(whole[:size])
            found = pasts(path)
            lines = whole[:size].count(b"\n")
            if size >= header:
                assert path.read_bytes() == whole[: whole[:size].rindex(b"\n") + 1]
            assert sum(past is not Past.OPEN for past in found.values()) == max(0, min(lines - 1, 2))
            assert (found["a"] is Past.ENDED) == (lines == 4)

    def test_and_what_is_written_after_it_is_whole(self, path: Path) -> None:
        whole = self.prepared(path)
        path.write_bytes(whole[:-3])
        journal = started(path)
        begin(journal, "c")
        journal.close()
        assert pasts(path) == {"a": Past.UNKNOWN, "b": Past.UNKNOWN, "c": Past.UNKNOWN}

    @pytest.mark.parametrize(
        ("line", "text"),
        [
            (0, b"{}"),
            (0, b'{"pyremctl":2,"targets":["a","b","c"],"salt":"00","command":"","server":{}}'),
            (0, b'{"pyremctl":1,"targets":[1],"salt":"00","command":"","server":{}}'),
            (0, b"once upon a time"),
            (1, b""),
            (1, b"\x00\x00"),
            (1, b'{"begin":"stranger"}'),
            (1, b'{"begin":["a"]}'),
            (1, b'{"end":"a","state":"happy"}'),
            (1, b'{"end":"a","state":"ok","status":256}'),
            (1, b'{"end":"a"}'),
            (2, b"[]"),
            (2, b"17"),
        ],
    )
    def test_elsewhere_is_an_error(self, path: Path, line: int, text: bytes) -> None:
        lines = self.prepared(path).split(b"\n")
        lines[line] = text
        damaged = b"\n".join(lines)
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=f"line {line + 1} is damaged, or it is no journal"):
            Journal(str(path))
        assert path.read_bytes() == damaged

    @pytest.mark.parametrize("text", [b"precious", b'{"pyremote"', b"\x00\x00"])
    def test_other_files_are_left_alone(self, path: Path, text: bytes) -> None:
        path.write_bytes(text)
        with pytest.raises(JournalError, match="it is no journal"):
            Journal(str(path))
        assert path.read_bytes() == text


class TestDisk:
    def test_a_host_is_on_it_before_begin_returns_and_many_share_the_wait(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        targets = [f"h{number}" for number in range(200)]
        journal = Journal(str(path))
        journal.start(targets, COMMAND, SERVER)
        synced: list[bytes] = []
        real = os.fsync

        def watched(descriptor: int) -> None:
            content = path.read_bytes()
            real(descriptor)
            synced.append(content)

        monkeypatch.setattr(os, "fsync", watched)

        async def begun(target: str) -> None:
            await journal.begin(target)
            assert f'{{"begin":"{target}"}}\n'.encode() in synced[-1]

        async def main() -> None:
            await asyncio.gather(*map(begun, targets))

        asyncio.run(main())
        assert 1 <= len(synced) <= 20
        journal.close()

    def test_begin_may_be_cancelled(self, path: Path) -> None:
        journal = started(path)

        async def main() -> None:
            task = asyncio.create_task(journal.begin("a"))
            other = asyncio.create_task(journal.begin("b"))
            await asyncio.sleep(0)
            task.cancel()
            await other

        asyncio.run(main())
        journal.close()
        assert pasts(path)["b"] is Past.UNKNOWN

    @pytest.mark.parametrize("call", ["write", "fsync"])
    def test_that_fails_keeps_the_command_from_being_sent(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        journal = started(path)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            for target in "ab":
                with pytest.raises(JournalError, match="cannot be used: No space left on device"):
                    begin(journal, target)
        assert journal.fault is not None
        journal.end(made("a"))  # goes nowhere: there may be half a line before it
        journal.close()
        assert pasts(path)["a"] in (Past.OPEN, Past.UNKNOWN)

    def test_that_is_full_in_the_middle_of_a_line_leaves_a_journal_that_can_be_read(self, path: Path) -> None:
        """The file may be so large and no larger: the write is cut where the limit is."""
        started(path, "abc").close()
        program = (
            "import asyncio, resource, signal, sys\n"
            "from remctl.cli._journal import *\n"
            "journal = Journal(sys.argv[1])\n"
            "journal.start(list('abc'), [b'user', b'create', b'secret\\xff'], {'port': None, 'service': None})\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "size = os.stat(sys.argv[1]).st_size\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 25, size + 25))\n"
            "asyncio.run(journal.begin('a'))\n"
            "try: asyncio.run(journal.begin('b'))\n"
            "except JournalError as error: print(error)\n"
            "journal.close()\n"
        )
        said = subprocess.check_output([sys.executable, "-c", program, str(path)], text=True)
        assert "cannot be used" in said
        assert not path.read_bytes().endswith(b"\n")
        assert pasts(path) == {"a": Past.UNKNOWN, "b": Past.OPEN, "c": Past.OPEN}

    @pytest.mark.parametrize("name", ["/nowhere/journal", "/dev/null", "/proc/self/stat", "/"])
    def test_files_that_cannot_be_journals_are_refused(self, name: str) -> None:
        with pytest.raises(JournalError, match=f"the journal {name} cannot be used"):
            started(Path(name))

    def test_one_that_is_not_started_leaves_no_file_and_takes_none_away(self, path: Path) -> None:
        Journal(str(path)).close()
        assert not path.exists()
        path.touch()
        Journal(str(path)).close()
        assert path.exists()
