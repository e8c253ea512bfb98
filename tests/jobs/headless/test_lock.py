"""One run of a job at a time: while its client lives, and while the job does."""

from __future__ import annotations

import os
import pwd
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.headless.place import Place
from jobs.runners import working
from remctl.jobs.headless import Code, HeadlessError
from remctl.jobs.headless._lock import held
from remctl.jobs.headless._options import Options, parsed

WORDS = ("-m", "slow", "--lock")


def options(*words: str) -> Options:
    found = parsed(["-s", "host", "-m", "x", *words])
    assert isinstance(found, Options)
    return found


def refused(file: Path, code: Code = Code.PARAMETER) -> str:
    with pytest.raises(HeadlessError) as caught, held(options(f"--lock={file}")):
        pass
    assert caught.value.code is code
    return str(caught.value)


def linked(file: Path) -> None:
    file.touch()
    Path(f"{file}2").hardlink_to(file)


def given_away(file: Path) -> None:
    file.touch()
    os.chown(file, 1, 1)


def opened_up(file: Path) -> None:
    file.touch()
    file.chmod(0o666)


class TestARun:
    def test_does_not_start_while_another_lives(self, still: Place) -> None:
        with working(still.site):
            first = still.start(*still.service, *WORDS, "-t", "-1")
            still.site.begun()
            assert still.code(*still.service, *WORDS, "-t", "-1") == Code.TIMEOUT
            still.site.open()
            assert first.wait(20) == Code.OK
            assert first.communicate() == (b"", b"")
        assert len(still.site.store.jobs.listed()) == 1

    def test_does_not_start_while_the_job_of_one_that_was_killed_goes_on(self, still: Place) -> None:
        with working(still.site):
            first = still.start(*still.service, *WORDS, "-t", "-1")
            still.site.begun()
            first.kill()
            first.communicate()
            assert still.code(*still.service, *WORDS, "-t", "-1") == Code.TIMEOUT
            still.site.open()
            still.site.over(1)
            assert still.code(*still.service, *WORDS, "-t", "-1") == Code.OK
        assert len(still.site.store.jobs.listed()) == 2

    def test_does_not_start_while_a_job_that_nobody_waits_for_goes_on(self, still: Place) -> None:
        assert still.code(*still.service, *WORDS) == Code.OK
        ended = still.run(*still.service, *WORDS, "-v")
        assert ended.returncode == Code.TIMEOUT
        assert b"job 1 of an earlier run goes on: Pending" in ended.stderr
        assert still.code(*still.service, "-m", "good", "--lock") == Code.OK

    def test_starts_where_the_server_does_not_know_the_job_of_before(self, still: Place, tmp_path: Path) -> None:
        file = tmp_path / "lock"
        file.write_text(f"{uuid.uuid4()}\n")
        file.chmod(0o600)
        assert still.code(*still.service, "-m", "good", f"--lock={file}") == Code.OK
        (job,) = still.site.store.jobs.listed()
        assert file.read_text() == f"{job.guid}\n"


class TestTheFile:
    @pytest.fixture(autouse=True)
    def _home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

    def files(self, tmp_path: Path) -> list[str]:
        return [each.name for each in (tmp_path / ".local/state/remctl-headless").iterdir()]

    def test_is_one_for_each_job_and_tells_nothing(self, tmp_path: Path) -> None:
        each = [(), ("-i", "swordfish"), ("-u", "me"), ("-c", "1"), ("-f", __file__), ("-m", "y"), ("-s", "host:1")]
        for words in [*each, *each]:
            with held(options(*words, "--lock")):
                pass
        assert len(self.files(tmp_path)) == len(each)
        assert not any("swordfish" in name for name in self.files(tmp_path))

    def test_is_where_the_variable_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        with held(options("--lock")):
            assert (tmp_path / "state/remctl-headless").stat().st_mode & 0o777 == 0o700

    def test_is_in_the_home_that_the_system_knows(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("HOME")
        known = pwd.struct_passwd(("me", "x", os.getuid(), 0, "", str(tmp_path), "/bin/sh"))
        monkeypatch.setattr(pwd, "getpwuid", {os.getuid(): known}.__getitem__)
        with held(options("--lock")):
            assert self.files(tmp_path)
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
        with pytest.raises(HeadlessError, match="name another file with --lock=FILE"), held(options("--lock")):
            pass

    def test_is_held_once(self, tmp_path: Path) -> None:
        with held(options(f"--lock={tmp_path / 'lock'}")):
            assert "an earlier run has the lock" in refused(tmp_path / "lock", Code.TIMEOUT)

    def test_remembers_what_was_written(self, tmp_path: Path) -> None:
        guid = str(uuid.uuid4())
        with held(options(f"--lock={tmp_path / 'lock'}")) as lock:
            assert lock is not None
            assert lock.guid is None
            lock.write(guid)
        with held(options(f"--lock={tmp_path / 'lock'}")) as lock:
            assert lock is not None
            assert lock.guid == guid

    @pytest.mark.parametrize("text", ["", "\0" * 37, "6f1"])
    def test_may_have_been_torn_by_a_power_failure(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "lock").write_text(text)
        with held(options(f"--lock={tmp_path / 'lock'}")) as lock:
            assert lock is not None
            assert lock.guid is None

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda file: file.symlink_to("/etc/passwd"), "symbolic links"),
            (lambda file: file.mkdir(), "directory"),
            (lambda file: file.write_text("127.0.0.1 localhost\n"), "something else"),
            (linked, "several names"),
            (given_away, "another user's"),
            (os.mkfifo, "it is no file"),
            (opened_up, "others may write"),
            (lambda file: file.parent.rmdir(), "No such file"),
        ],
    )
    def test_is_refused_where_it_is_no_lock(
        self, tmp_path: Path, make: Callable[[Path], object], complaint: str
    ) -> None:
        file = tmp_path / "folder" / "lock"
        file.parent.mkdir()
        make(file)
        assert complaint in refused(file)

    def test_is_refused_where_there_is_no_place_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
        with pytest.raises(HeadlessError, match="/dev/null/state cannot be used") as caught, held(options("--lock")):
            pass
        assert caught.value.code is Code.PARAMETER

    def test_is_not_made_unless_it_is_wanted(self, tmp_path: Path) -> None:
        with held(options()) as lock:
            assert lock is None
        assert not (tmp_path / ".local").exists()
