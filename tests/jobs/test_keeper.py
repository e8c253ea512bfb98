"""What a keeper does with a script: how it starts it, how it ends it, and that nothing stays."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.attempts import LIMIT, Attempts, Fifo, children_of, ended, lives, output, watched
from remctl.jobs.attempt import Attempt, Ending, Limits, Reason, read_ending, start_time

SOON = 1.5
"""Seconds by which something may take longer than it has to."""

IGNORE = "trap '' TERM; "

HANG = "echo $$ > $said; exec sleep 1000"
"""Says who it is, and does not end."""

DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(3):
            os.close(number)
        open(os.environ["said"], "w").write(str(os.getpid()))
        import time
        time.sleep(1000)
    os._exit(0)
os.wait()
"""


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    """Give what makes attempts; all of them are over in the end."""
    with Attempts(tmp_path) as made:
        yield made


class TestGate:
    def test_nothing_runs_before_the_release(self, attempts: Attempts, tmp_path: Path) -> None:
        attempt = attempts.prepare("echo ran > marker")
        assert os.readlink(f"/proc/{attempt.pid}/exe") == os.path.realpath(sys.executable)
        assert attempt.wait(0) is None
        assert not (tmp_path / "marker").exists()
        started = start_time(attempt.pid)
        attempt.release()
        assert ended(attempt).reason is Reason.EXIT
        assert (tmp_path / "marker").read_text() == "ran\n"
        assert attempt.started == started

    def test_the_process_is_the_same_before_and_after(self, attempts: Attempts) -> None:
        attempt = attempts.begin("echo $$ > $said; read word < $gate")
        assert attempts.said.hear_number() == attempt.pid
        assert start_time(attempt.pid) == attempt.started
        attempts.gate.say()
        ended(attempt)
        assert start_time(attempt.pid) is None

    @pytest.mark.parametrize(("how", "reason"), [("stop", Reason.STOPPED), ("abort", Reason.ABORTED)])
    def test_what_is_stopped_before_never_runs(
        self, attempts: Attempts, tmp_path: Path, how: str, reason: Reason
    ) -> None:
        attempt = attempts.prepare("echo ran > marker")
        getattr(attempt, how)()
        attempt.release()
        ending = ended(attempt)
        assert (ending.reason, ending.started, ending.duration) == (reason, False, 0)
        assert not (tmp_path / "marker").exists()

    def test_a_process_that_is_killed_at_the_gate_has_not_started(self, attempts: Attempts) -> None:
        attempt = attempts.prepare("echo ran")
        os.kill(attempt.pid, signal.SIGTERM)
        ending = ended(attempt)
        attempt.release()
        assert (ending.reason, ending.signal, ending.started) == (Reason.SIGNAL, signal.SIGTERM, False)
        assert output(attempt, "stdout") == b""


class TestNotStarted:
    @pytest.mark.parametrize(
        ("content", "mode", "error"),
        [
            (None, 0, "No such file or directory"),
            ("#!/bin/sh\n", 0o644, "Permission denied"),
            ("#!/no/such/interpreter\n", 0o755, "No such file or directory"),
            ("no program", 0o755, "Exec format error"),
        ],
    )
    def test_says_why(self, attempts: Attempts, tmp_path: Path, content: str | None, mode: int, error: str) -> None:
        program = tmp_path / "program"
        if content is not None:
            program.write_text(content)
            program.chmod(mode)
        ending = attempts.run([str(program)])[0]
        assert (ending.reason, ending.started) == (Reason.NOT_STARTED, False)
        assert (ending.status, ending.signal) == (None, None)
        assert ending.error == f"{error}: {program}"

    def test_a_program_is_not_looked_up(self, attempts: Attempts) -> None:
        assert attempts.run(["sh", "-c", "exit"])[0].reason is Reason.NOT_STARTED

    def test_arguments_that_are_too_long(self, attempts: Attempts) -> None:
        assert "too long" in str(attempts.run(["/bin/true", "x" * 5_000_000])[0].error)

    def test_a_folder_that_is_not_there_ends_it_before_the_release(self, attempts: Attempts, tmp_path: Path) -> None:
        attempt = attempts.prepare("echo ran", cwd=tmp_path / "none")
        ending = ended(attempt)
        assert ending.reason is Reason.NOT_STARTED
        assert ending.error == f"No such file or directory: {tmp_path}/none"


class TestSurroundings:
    def test_the_environment_is_what_was_given(self, attempts: Attempts) -> None:
        env = {
            "A": "1",
            "EMPTY": "",
            "LONG": "x" * 100_000,
            "LINES": "a\nb",
            "BYTES": os.fsdecode(b"\xff\xfe"),
            "Ü": "ü",
        }
        text = attempts.run(["/usr/bin/env", "-0"], env=env, output=1_000_000)[1]
        assert sorted(text.split(b"\0")[:-1]) == sorted(os.fsencode(f"{name}={value}") for name, value in env.items())
        assert attempts.run(["/usr/bin/env", "-0"], env={})[1] == b""

    def test_so_are_the_arguments(self, attempts: Attempts) -> None:
        words = ["", " ", "$HOME", "a\nb", "ü", os.fsdecode(b"\xff"), "-x"]
        text = attempts.run(["/usr/bin/printf", "%s\\0", *words])[1]
        assert text.split(b"\0")[:-1] == [os.fsencode(word) for word in words]

    def test_standard_input_is_empty_and_other_descriptors_are_closed(self, attempts: Attempts) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            os.set_inheritable(theirs.fileno(), True)
            code = (
                "import os\n"
                "for n in range(3000):\n"
                "    try: print(n, os.stat(n).st_mode >> 12)\n"
                "    except OSError: pass\n"
                "print(os.readlink('/proc/self/fd/0'))"
            )
            text = attempts.run([sys.executable, "-c", code])[1]
        assert text == b"0 2\n1 1\n2 1\n/dev/null\n"

    def test_signals_are_as_they_are_by_default(self, attempts: Attempts) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN), signal.signal(signal.SIGHUP, signal.SIG_IGN)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
        try:
            text = attempts.run(["/bin/cat", "/proc/self/status"])[1].decode()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.signal(signal.SIGUSR1, before[0])
            signal.signal(signal.SIGHUP, before[1])
        lines = dict(line.split(":", 1) for line in text.splitlines())
        reserved = 0b11 << 31  # the signals 32 and 33 are the C library's, and Python cannot set them
        assert [int(lines[name], 16) & ~reserved for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]

    def test_umask_folder_session_and_core_files(self, attempts: Attempts, tmp_path: Path) -> None:
        cores = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (cores[1], cores[1]))
        try:
            text = attempts.run("umask; pwd; ulimit -c; cut -d' ' -f5,6 /proc/$$/stat; echo $$ $$")[1].decode()
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, cores)
        umask, folder, core, session, pid = text.splitlines()
        assert (int(umask, 8), folder, core) == (0o077, str(tmp_path), "0")
        assert session == pid

    def test_a_secret_is_in_the_environment_of_the_script_alone(self, attempts: Attempts) -> None:
        canary = "canary" + os.urandom(8).hex()
        env = {"SECRET": canary, "said": str(attempts.said.path), "PATH": os.defpath}
        attempt = attempts.begin(HANG, env=env)
        assert attempts.said.hear_number() == attempt.pid
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            for name in "cmdline", "environ":
                try:
                    if canary.encode() in (path / name).read_bytes():
                        found.add((int(path.name), name))
                except OSError:
                    continue
        assert found == {(attempt.pid, "environ")}
        attempt.stop()
        ended(attempt)
        files = [path for path in attempt.folder.rglob("*") if path.is_file()]
        assert len(files) == 4
        assert not any(canary.encode() in path.read_bytes() for path in files)
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    def test_the_keeper_has_nothing_of_the_runner(self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PASSWORD", "xyzzy")
        attempt = attempts.prepare("exit")
        names = Path(f"/proc/{attempt.keeper}/environ").read_bytes().split(b"\0")
        assert not [name for name in names if name and not name.startswith((b"LD_LIBRARY_PATH=", b"LC_CTYPE="))]
        links = {os.readlink(path) for path in Path(f"/proc/{attempt.keeper}/fd").iterdir() if int(path.name) < 3}
        assert links == {"/dev/null"}

    def test_the_keeper_loads_neither_the_package_nor_what_takes_long(self, attempts: Attempts) -> None:
        attempt = attempts.prepare("exit")
        maps = Path(f"/proc/{attempt.keeper}/maps").read_text()
        assert "_libremctl" not in maps
        assert "_cffi" not in maps


class TestEndings:
    def test_every_exit_status_and_no_zombies(self, attempts: Attempts, tmp_path: Path) -> None:
        def run(status: int) -> int | None:
            folder = tmp_path / f"status{status}"
            with Attempt.prepare(
                folder,
                ["/bin/sh", "-c", f"(true &) & exit {status}"],
                env={},
                cwd=tmp_path,
                limits=Limits(None, LIMIT, LIMIT, 100),
            ) as attempt:
                attempt.release()
                ending = ended(attempt)
                assert ending == read_ending(folder)
                assert (ending.reason, ending.leftovers) == (Reason.EXIT, False)
                assert not lives(attempt.keeper)
                return ending.status

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(run, range(256))) == list(range(256))
        assert attempts.left() == []

    @pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "ABRT", "KILL", "SEGV", "PIPE", "TERM", "USR1"])
    def test_signals(self, attempts: Attempts, name: str) -> None:
        ending = attempts.run(f"kill -{name} $$")[0]
        assert (ending.reason, ending.status) == (Reason.SIGNAL, None)
        assert ending.signal == signal.Signals[f"SIG{name}"]

    def test_times(self, attempts: Attempts) -> None:
        before = time.time()
        ending = attempts.run("read word < $gate", run_time=0.2)[0]
        assert before <= ending.began <= ending.ended <= time.time()
        assert 0.2 <= ending.duration < 0.2 + SOON
        assert ending.ended - ending.began == pytest.approx(ending.duration, abs=0.1)
        assert ending.program == "/bin/sh"

    def test_orphans_of_a_running_script_are_reaped(self, attempts: Attempts) -> None:
        attempt = attempts.begin("for i in $(seq 300); do (true &); done; echo > $said; read word < $gate")
        attempts.said.hear()
        end = time.monotonic() + LIMIT
        while children_of(attempt.keeper) != [attempt.pid]:
            assert time.monotonic() < end
            os.sched_yield()
        attempts.gate.say()
        assert ended(attempt).status == 0


class TestStopping:
    def test_reaches_the_whole_tree(self, attempts: Attempts) -> None:
        attempt = attempts.begin("trap '' CHLD; setsid sh -c 'echo $$ > $said; exec sleep 1000' & wait; wait")
        child = attempts.said.hear_number()
        attempt.stop()
        ending = ended(attempt)
        assert (ending.reason, ending.signal, ending.leftovers) == (Reason.STOPPED, signal.SIGTERM, False)
        assert not lives(child)

    def test_a_script_may_tidy_up(self, attempts: Attempts) -> None:
        attempt = attempts.begin("trap 'echo tidy; exit 7' TERM; echo > $said; read word < $gate")
        attempts.said.hear()
        attempt.stop()
        ending = ended(attempt)
        assert (ending.reason, ending.status) == (Reason.STOPPED, 7)
        assert output(attempt, "stdout") == b"tidy\n"

    def test_so_may_processes_that_outlive_the_main_one(self, attempts: Attempts) -> None:
        child = "trap 'sleep 0.5; echo tidy > tidied; exit' TERM; echo > $said; read word < $gate"
        attempt = attempts.begin(f'sh -c "{child}" > /dev/null 2>&1 & wait')
        attempts.said.hear()
        attempt.stop()
        assert ended(attempt).leftovers is False
        assert (attempts.folder / "tidied").read_text() == "tidy\n"

    def test_kills_what_does_not_listen(self, attempts: Attempts) -> None:
        attempt = attempts.begin(IGNORE + "sh -c 'echo $$ > $said; read word < $gate'; exit 1", grace=0.3)
        child = attempts.said.hear_number()
        begin = time.monotonic()
        attempt.stop()
        ending = ended(attempt)
        assert 0.3 <= time.monotonic() - begin < 0.3 + SOON
        assert (ending.reason, ending.signal) == (Reason.STOPPED, signal.SIGKILL)
        assert not lives(child)

    def test_wakes_what_is_halted(self, attempts: Attempts) -> None:
        attempt = attempts.begin(HANG)
        attempts.said.hear()
        os.kill(attempt.pid, signal.SIGSTOP)
        attempt.stop()
        assert ended(attempt).signal == signal.SIGTERM

    def test_abort_does_not_ask(self, attempts: Attempts) -> None:
        attempt = attempts.begin("trap 'echo tidy' TERM; setsid sh -c 'echo $$ > $said; read word < $gate' & wait")
        child = attempts.said.hear_number()
        attempt.abort()
        ending = ended(attempt)
        assert (ending.reason, ending.signal, ending.leftovers) == (Reason.ABORTED, signal.SIGKILL, False)
        assert output(attempt, "stdout") == b""
        assert not lives(child)

    def test_abort_cuts_a_stop_short(self, attempts: Attempts) -> None:
        attempt = attempts.begin(IGNORE + HANG)
        attempts.said.hear()
        attempt.stop()
        attempt.stop()
        attempt.abort()
        ending = ended(attempt)
        assert (ending.reason, ending.signal) == (Reason.STOPPED, signal.SIGKILL)

    def test_after_the_end_nothing_happens(self, attempts: Attempts) -> None:
        attempt = attempts.begin("exit 3")
        ending = ended(attempt)
        attempt.stop()
        attempt.abort()
        attempt.release()
        assert attempt.wait() == ending
        assert ending.reason is Reason.EXIT

    @pytest.mark.parametrize("how", ["stop", "abort"])
    def test_at_the_moment_of_the_end_gives_one_of_two_endings(self, attempts: Attempts, how: str) -> None:
        for _ in range(15):
            attempt = attempts.begin("exit 3")
            getattr(attempt, how)()
            ending = ended(attempt)
            if ending.reason is Reason.EXIT:
                assert (ending.status, ending.signal) == (3, None)
            else:
                assert ending.reason in (Reason.STOPPED, Reason.ABORTED)
                assert ending.status in (3, None)
            assert read_ending(attempt.folder) == ending

    def test_the_time_limit_counts_from_the_release(self, attempts: Attempts) -> None:
        attempt = attempts.prepare("exec sleep 1000", run_time=0.2)
        assert attempt.wait(0.3) is None
        attempt.release()
        ending = ended(attempt)
        assert (ending.reason, ending.signal) == (Reason.TIME_LIMIT, signal.SIGTERM)
        assert 0.2 <= ending.duration < 0.2 + SOON

    def test_the_time_limit_is_enforced(self, attempts: Attempts) -> None:
        ending = attempts.run(IGNORE + "while :; do :; done", run_time=0.1, grace=0.2)[0]
        assert (ending.reason, ending.signal) == (Reason.TIME_LIMIT, signal.SIGKILL)
        assert 0.3 <= ending.duration < 0.3 + SOON

    def test_limits_of_years_are_none(self, attempts: Attempts) -> None:
        assert attempts.run("exit 4", run_time=9e8, grace=9e8, drain=9e8)[0].status == 4

    def test_the_keeper_does_not_listen_to_signals(self, attempts: Attempts) -> None:
        attempt = attempts.begin("echo > $said; read word < $gate; exit 5")
        attempts.said.hear()
        assert os.getsid(attempt.keeper) == attempt.keeper
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGPIPE:
            os.kill(attempt.keeper, number)
        attempts.gate.say()
        assert ended(attempt).status == 5


class TestLeftovers:
    def test_who_left_the_session_is_gone_before_the_ending(self, attempts: Attempts) -> None:
        attempt = attempts.begin([sys.executable, "-c", DAEMON])
        daemon = attempts.said.hear_number()
        ending = ended(attempt)
        assert not lives(daemon)
        assert (ending.reason, ending.status, ending.leftovers) == (Reason.EXIT, 0, True)

    def test_who_holds_the_output_has_the_drain_time(self, attempts: Attempts) -> None:
        begin = time.monotonic()
        ending, text, _ = attempts.run(IGNORE + "sleep 1000 & echo done", drain=0.3)
        assert 0.3 <= time.monotonic() - begin < 0.3 + SOON
        assert (ending.status, ending.leftovers) == (0, True)
        assert ending.duration < 0.3
        assert text == b"done\n"

    def test_who_ends_in_that_time_is_heard(self, attempts: Attempts) -> None:
        ending, text, _ = attempts.run("(read word < $gate; echo late) & echo word > $gate & exit 2")
        assert (ending.status, ending.leftovers) == (2, False)
        assert text == b"late\n"

    @pytest.mark.parametrize("how", ["stop", "abort"])
    def test_the_drain_can_be_cut_short(self, attempts: Attempts, how: str) -> None:
        attempt = attempts.prepare("sleep 1000 & exit 6")
        with watched(attempt.pid) as wait:
            attempt.release()
            wait()
        getattr(attempt, how)()
        ending = ended(attempt)
        assert (ending.reason, ending.status, ending.leftovers) == (Reason.EXIT, 6, True)

    def test_a_deep_tree(self, attempts: Attempts) -> None:
        code = "my $n = 40; while ($n--) { setpgrp; $SIG{TERM} = 'IGNORE'; fork and last } sleep 1000"
        attempt = attempts.begin(["/usr/bin/perl", "-e", code + " if $n >= 0; print 'deep'; sleep 1000"])
        while output(attempt, "stdout") != b"" or len(tree_of(attempt.pid)) < 40:
            os.sched_yield()
        pids = tree_of(attempt.pid)
        attempt.abort()
        ended(attempt)
        assert not [pid for pid in pids if lives(pid)]

    def test_who_forks_all_the_time(self, attempts: Attempts) -> None:
        attempt = attempts.begin(
            [
                "/usr/bin/perl",
                "-e",
                "use POSIX; fork and exit; setsid; close STDOUT; close STDERR; while (1) { fork and exit }",
            ]
        )
        ending = ended(attempt)
        assert (ending.status, ending.leftovers) == (0, True)
        assert not children_of(attempt.keeper)


class TestAnotherUser:
    """A keeper that is not root's, and a script that becomes root by a program that is set-uid."""

    def test_whom_nobody_may_kill_is_counted(self, common: Path) -> None:
        perl = common / "perl"
        shutil.copy("/usr/bin/perl", perl)
        perl.chmod(0o4755)
        said = Fifo(common / "said")
        said.path.chmod(0o666)
        child = f"$< = $>; open(F, q(>), q({said.path})); print F $$; close F; close STDOUT; close STDERR; sleep 1000"
        ending, pid = as_nobody(common, f"{perl} -e '{child}' & read word < gate; exit 2", said)
        try:
            assert lives(pid)
        finally:
            os.kill(pid, signal.SIGKILL)
        assert (ending.status, ending.leftovers, ending.survivors) == (2, True, 1)

    def test_without_privileges_all_is_the_same(self, common: Path) -> None:
        said = Fifo(common / "said")
        said.path.chmod(0o666)
        ending, pid = as_nobody(
            common, "(trap '' TERM; sh -c 'echo $$ > said; exec sleep 1000') & read word < gate", said
        )
        assert not lives(pid)
        assert (ending.status, ending.leftovers, ending.survivors) == (0, True, 0)


@pytest.fixture
def common() -> Iterator[Path]:
    """Give a folder in which anybody may write."""
    if os.getuid() != 0:
        pytest.skip("only root may become somebody else")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def as_nobody(folder: Path, script: str, said: Fifo) -> tuple[Ending, int]:
    """Have a runner without privileges run a script that says a process ID and waits for the fifo `gate`."""
    gate = Fifo(folder / "gate")
    gate.path.chmod(0o666)
    code = (
        "import sys; from pathlib import Path; from remctl.jobs.attempt import *\n"
        "folder = Path(sys.argv[1])\n"
        "with Attempt.prepare(folder / 'attempt', ['/bin/sh', '-c', sys.argv[2]], env={}, cwd=folder,"
        " limits=Limits(None, 1, 0.1, 100)) as attempt:\n"
        "    assert attempt.started\n"
        "    attempt.release(); attempt.wait()"
    )
    capability = "-all,+dac_read_search"  # to find this Python, wherever it is
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody += [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
    with subprocess.Popen([*nobody, sys.executable, "-c", code, str(folder), script]) as process:
        pid = said.hear_number()
        gate.say()
        assert process.wait(LIMIT) == 0
    ending = read_ending(folder / "attempt")
    assert ending is not None
    return ending, pid


def tree_of(parent: int) -> list[int]:
    """Return a process and all of its descendants."""
    found = [parent]
    for pid in found:
        found += children_of(pid)
    return found
