"""The runner's handle: how it waits, and what becomes of an attempt when the runner or the keeper dies."""

from __future__ import annotations

import asyncio
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.attempts import LIMIT, Attempts, ended, lives, output, watched
from remctl.jobs.attempt import (
    Attempt,
    DamagedEndingError,
    Ending,
    KeeperError,
    Limits,
    Reason,
    boot_id,
    is_kept,
    read_ending,
    start_time,
)

SOON = 1.5
"""Seconds by which something may take longer than it has to."""

RUNNER = """
import sys
from pathlib import Path
from remctl.jobs.attempt import Attempt, Limits
folder, script, grace, drain, release = sys.argv[1:]
attempt = Attempt.prepare(
    Path(folder, "attempt"), ["/bin/sh", "-c", script], env={"said": folder + "/said", "gate": folder + "/gate"},
    cwd=Path(folder), limits=Limits(None, float(grace), float(drain), 1000),
)
if release == "release":
    attempt.release()
print(attempt.pid, attempt.keeper, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    """Give what makes attempts; all of them are over in the end."""
    with Attempts(tmp_path) as made:
        yield made


class TestWait:
    def test_asks_waits_and_remembers(self, attempts: Attempts) -> None:
        attempt = attempts.begin("read word < $gate; exit 4")
        assert attempt.wait(0) is None
        begin = time.monotonic()
        assert attempt.wait(0.1) is None
        assert 0.1 <= time.monotonic() - begin < 0.1 + SOON
        attempts.gate.say()
        ending = attempt.wait()
        assert ending is not None
        assert ending.status == 4
        assert attempt.wait(0) is ending
        attempt.close()
        assert attempt.wait(0) is ending

    def test_a_selector_knows_when(self, attempts: Attempts) -> None:
        attempt = attempts.begin("read word < $gate")
        assert select.select([attempt], [], [], 0) == ([], [], [])
        attempts.gate.say()
        assert select.select([attempt], [], [], LIMIT) == ([attempt], [], [])
        assert attempt.wait(0) is not None

    def test_an_event_loop_knows_when(self, attempts: Attempts) -> None:
        attempt = attempts.begin("read word < $gate; exit 9")

        async def main() -> Ending | None:
            loop = asyncio.get_running_loop()
            readable = asyncio.Event()
            loop.add_reader(attempt, readable.set)
            await asyncio.to_thread(attempts.gate.say)
            async with asyncio.timeout(LIMIT):
                await readable.wait()
            loop.remove_reader(attempt)
            return attempt.wait(0)

        ending = asyncio.run(main())
        assert ending is not None
        assert ending.status == 9

    def test_leaves_no_zombie(self, attempts: Attempts) -> None:
        attempt = attempts.begin("exit")
        ended(attempt)
        with pytest.raises(ChildProcessError):
            os.waitpid(attempt.keeper, os.WNOHANG)

    def test_a_keeper_that_somebody_else_has_reaped_is_none_the_worse(self, attempts: Attempts) -> None:
        attempt = attempts.begin("exit 8")
        os.waitpid(attempt.keeper, 0)
        assert ended(attempt).status == 8


class TestPrepare:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"argv": []},
            {"argv": [""]},
            {"argv": ["/bin/true", "a\0b"]},
            {"env": {"A": "a\0b"}},
            {"env": {"": "a"}},
            {"env": {"A=B": "a"}},
            {"cwd": Path("here")},
            {"run_time": -1.0},
            {"grace": float("nan")},
            {"drain": float("inf")},
            {"output": -1},
        ],
    )
    def test_what_makes_no_sense_is_refused_before_anything_happens(
        self, attempts: Attempts, wrong: dict[str, object]
    ) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # there is one text for each
            attempts.prepare(**{"argv": "exit", **wrong})  # type: ignore[arg-type]  # as it should be
        assert not (attempts.folder / "attempt0").exists()

    def test_a_string_is_no_list_of_words(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="list of words"):
            Attempt.prepare(tmp_path / "a", "/bin/true", env={}, cwd=tmp_path, limits=Limits(None, 1, 1, 1))

    def test_a_folder_serves_one_attempt(self, attempts: Attempts) -> None:
        first = attempts.begin("read word < $gate; exit 1")
        with pytest.raises(FileExistsError):
            attempts.prepare("exit 2", folder=first.folder)
        attempts.gate.say()
        assert ended(first).status == 1
        with pytest.raises(FileExistsError):
            attempts.prepare("exit 2", folder=first.folder)
        assert read_ending(first.folder) == ended(first)
        assert attempts.left() == []

    def test_a_folder_that_cannot_be_made(self, attempts: Attempts) -> None:
        (attempts.folder / "file").touch()
        with pytest.raises(NotADirectoryError):
            attempts.prepare("exit", folder=attempts.folder / "file" / "folder")

    def test_a_keeper_that_does_not_come_up(self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(KeeperError, match="exit code 1"):
            attempts.prepare("exit")
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(FileNotFoundError):
            attempts.prepare("exit")
        assert attempts.left() == []

    def test_as_a_module_by_hand(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "remctl.jobs.attempt.keeper"],
            capture_output=True,
            check=False,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("usage: ")

    def test_tells_runs_of_the_machine_apart(self) -> None:
        assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert start_time(os.getpid()) == start_time(os.getpid())
        assert start_time(0) is None


class TestClose:
    def test_stops_the_script_and_leaves_no_zombie(self, attempts: Attempts) -> None:
        attempt = attempts.begin("trap 'exit 5' TERM; echo > $said; read word < $gate")
        attempts.said.hear()
        with watched(attempt.keeper) as wait:
            attempt.close()
            wait()
        ending = read_ending(attempt.folder)
        assert ending is not None
        assert (ending.reason, ending.status) == (Reason.RUNNER_LOST, 5)
        attempts.prepare("exit").close()
        with pytest.raises(ChildProcessError):
            os.waitpid(attempt.keeper, os.WNOHANG)

    def test_twice_and_what_comes_after(self, attempts: Attempts) -> None:
        with attempts.prepare("exit") as attempt:
            pass
        attempt.close()
        attempt.release()
        attempt.stop()
        attempt.abort()
        with pytest.raises(ValueError, match="closed"):
            attempt.wait(0)


class TestRunnerKilled:
    def test_before_the_release_nothing_ever_runs(self, attempts: Attempts) -> None:
        with runner(attempts, "echo ran > marker", release=False) as (pid, folder):
            pass
        ending = read_ending(folder)
        assert ending is not None
        assert (ending.reason, ending.started) == (Reason.RUNNER_LOST, False)
        assert not lives(pid)
        assert not (attempts.folder / "marker").exists()

    def test_after_it_the_script_is_stopped(self, attempts: Attempts) -> None:
        with runner(attempts, "trap 'exit 3' TERM; echo > $said; read word < $gate"):
            attempts.said.hear()
        ending = read_ending(attempts.folder / "attempt")
        assert ending is not None
        assert (ending.reason, ending.started, ending.status) == (Reason.RUNNER_LOST, True, 3)

    def test_a_script_that_does_not_listen_is_killed(self, attempts: Attempts) -> None:
        script = "trap '' TERM; setsid sh -c 'echo $$ > $said; read word < $gate' & wait; read word < $gate"
        with runner(attempts, script, grace=0.2) as (pid, folder):
            child = attempts.said.hear_number()
            assert is_kept(folder)
            assert read_ending(folder) is None
        ending = read_ending(folder)
        assert ending is not None
        assert (ending.reason, ending.signal) == (Reason.RUNNER_LOST, signal.SIGKILL)
        assert not lives(pid)
        assert not lives(child)
        assert not is_kept(folder)

    def test_a_script_that_had_ended_by_itself_keeps_its_ending(self, attempts: Attempts) -> None:
        with (
            runner(attempts, "sleep 1000 & read word < $gate; exit 5", drain=0.3) as (pid, folder),
            watched(pid) as wait,
        ):
            attempts.gate.say()
            wait()
        ending = read_ending(folder)
        assert ending is not None
        assert (ending.reason, ending.status, ending.leftovers) == (Reason.EXIT, 5, True)


class TestKeeperKilled:
    def test_the_script_dies_and_the_ending_is_lost(self, attempts: Attempts) -> None:
        attempt = attempts.begin("echo out; trap '' TERM; (echo > $said; read word < $gate) & wait; read word < $gate")
        attempts.said.hear()
        with watched(attempt.pid) as wait:
            os.kill(attempt.keeper, signal.SIGKILL)
            wait()
        ending = ended(attempt)
        assert (ending.reason, ending.started, ending.status) == (Reason.LOST, True, None)
        assert ending.stdout.size == len(output(attempt, "stdout"))
        assert read_ending(attempt.folder) is None
        assert not is_kept(attempt.folder)

    def test_what_is_left_of_the_session_dies_too(self, attempts: Attempts) -> None:
        attempt = attempts.begin("(trap '' TERM; exec sh -c 'echo $$ > $said; exec sleep 1000') & wait")
        child = attempts.said.hear_number()
        os.kill(attempt.keeper, signal.SIGKILL)
        assert ended(attempt).reason is Reason.LOST
        assert not lives(child)
        assert not lives(attempt.pid)

    def test_before_the_release_nothing_ever_runs(self, attempts: Attempts) -> None:
        attempt = attempts.prepare("echo ran > marker")
        with watched(attempt.pid) as wait:
            os.kill(attempt.keeper, signal.SIGKILL)
            wait()
        attempt.stop()
        ending = ended(attempt)
        assert (ending.reason, ending.started) == (Reason.LOST, False)
        assert not (attempts.folder / "marker").exists()

    def test_an_ending_that_was_written_counts(self, attempts: Attempts) -> None:
        attempt = attempts.prepare("exit")
        other = attempts.run("exit 6")[0]
        (attempts.folder / "attempt1" / "ending.json").rename(attempt.folder / "ending.json")
        os.kill(attempt.keeper, signal.SIGKILL)
        assert ended(attempt) == other

    def test_another_process_with_the_same_number_is_left_alone(self, attempts: Attempts) -> None:
        with subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True) as innocent:
            attempt = attempts.begin("read word < $gate")
            os.kill(attempt.pid, signal.SIGKILL)
            os.kill(attempt.keeper, signal.SIGKILL)
            attempt.pid = innocent.pid
            assert ended(attempt).reason in (Reason.LOST, Reason.SIGNAL)
            assert innocent.poll() is None
            innocent.kill()

    def test_a_fault_of_the_keeper_is_told(self, attempts: Attempts) -> None:
        attempt = attempts.begin("read word < $gate")
        attempt._line.sendall(b"no JSON\n")
        ending = ended(attempt)
        assert ending.reason is Reason.LOST
        assert ending.error is not None
        assert "Expecting value" in ending.error
        assert "_keeping.py" in (attempt.folder / "keeper.log").read_text()
        assert not lives(attempt.pid)


class TestReadEnding:
    def test_of_an_empty_folder(self, tmp_path: Path) -> None:
        assert read_ending(tmp_path) is None
        assert not is_kept(tmp_path)

    def test_all_of_it_survives(self, attempts: Attempts) -> None:
        program = attempts.folder / os.fsdecode(b"\xff" * 200)
        program.write_text("#!/bin/sh\necho text; kill -KILL $$\n")
        program.chmod(0o700)
        ending = attempts.run([str(program)])[0]
        assert ending.program == str(program)
        assert read_ending(attempts.made[0].folder) == ending

    def test_half_a_file_and_garbage_are_errors(self, attempts: Attempts) -> None:
        attempts.run("exit 1")
        path = attempts.made[0].folder / "ending.json"
        text = path.read_text()
        for length in range(len(text)):
            path.write_text(text[:length])
            with pytest.raises(DamagedEndingError):
                read_ending(path.parent)
        for garbage in (
            b"\xff\xfe",
            b"[]",
            b"{}",
            b"null",
            b"[" * 30_000,
            b" " * 100_000,
            text.replace('"exit"', '"tired"').encode(),
            text.replace('"status": 1', '"status": "1"').encode(),
            text.replace('"started": true', '"started": 1').encode(),
            text.replace('"size": 0', '"size": -0.5').encode(),
        ):
            path.write_bytes(garbage)
            with pytest.raises(DamagedEndingError) as caught:
                read_ending(path.parent)
            assert caught.value.path == path
            assert str(path) in str(caught.value)
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        path.write_text(text)
        assert read_ending(path.parent) == ended(attempts.made[0])


@contextmanager
def runner(
    attempts: Attempts, script: str, *, release: bool = True, grace: float = LIMIT, drain: float = LIMIT
) -> Iterator[tuple[int, Path]]:
    """Have another process run a script; kill it in the end, and wait for the keeper.

    Yields:
        The script's process ID and the attempt's folder.
    """
    with subprocess.Popen(
        [
            sys.executable,
            *("-c", RUNNER, str(attempts.folder), script, str(grace), str(drain), "release" if release else "hold"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, keeper = map(int, process.stdout.readline().split())
        with watched(keeper) as wait:
            try:
                yield pid, attempts.folder / "attempt"
            finally:
                process.kill()
            wait()
