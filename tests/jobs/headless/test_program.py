"""The program in the hands of a scheduler: what it says, what ends it, and what it never shows."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from doubles import SilentServer

from jobs.headless.place import LIMIT, Place, secret_of, silent
from jobs.runners import until, working
from remctl.jobs.headless import Code
from remctl.jobs.states import Move

CANARY = "Sw0rdf1sh-canary"

STUCK = """
import threading, time
from remctl.jobs.headless import _secret
def stuck(*arguments):
    while True:
        time.sleep(100)
_secret.credentials = lambda *arguments: type("", (), {"__enter__": stuck, "__exit__": stuck})()
"""


def ends(client: subprocess.Popen[bytes], number: int, code: Code) -> None:
    """Send a signal, which ends the client soon, with that code."""
    since = time.monotonic()
    client.send_signal(number)
    assert client.wait(LIMIT) == code
    assert time.monotonic() - since < 1.5  # a second, and what a busy machine takes
    assert client.communicate() == (b"", b"")


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGRTMAX])
    def test_before_the_submission(self, place: Place, number: int) -> None:
        with SilentServer() as server:
            client = place.start(*place.at(server.port), "-m", "good")
            until(lambda: server.accepted)
            ends(client, number, Code.UNEXPECTED)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM])
    def test_after_the_submission(self, still: Place, number: int) -> None:
        client = still.start(*still.service, "-m", "slow", "-t", "-1")
        until(lambda: still.server.call(waits(still)))
        ends(client, number, Code.TIMEOUT)

    def test_while_a_kdc_says_nothing(self, place: Place, elsewhere: tuple[dict[str, str], int]) -> None:
        environment, port = elsewhere
        with silent(port) as kdc:
            client = place.start(*place.service, "-m", "good", environment=environment)
            assert kdc.recv(1)
            ends(client, signal.SIGTERM, Code.UNEXPECTED)

    def test_while_a_library_waits(self, place: Place) -> None:
        client = place.start(*place.service, "-v", "-m", "good", prelude=STUCK)
        assert client.stderr is not None
        assert b"logging in" in client.stderr.readline()
        client.send_signal(signal.SIGTERM)
        assert client.wait(LIMIT) == Code.UNEXPECTED
        assert b"ended by SIGTERM" in client.communicate()[1]

    def test_while_the_program_itself_is_held_up(self, place: Place) -> None:
        prelude = """
from remctl.jobs.headless import _lock
import ctypes, os
def stuck(options):
    os.write(1, b"x")
    while True:
        ctypes.CDLL(None).sleep(1000)  # and again, when a signal has ended it: no handler runs in between
_lock.held = stuck
"""
        client = place.start(*place.service, "-m", "good", prelude=prelude)
        assert client.stdout is not None
        assert client.stdout.read(1) == b"x"
        ends(client, signal.SIGTERM, Code.UNEXPECTED)

    def test_that_are_ignored_stay_so(self, place: Place) -> None:
        client = place.start(
            *place.service,
            *("-t", "-1", "--output", "-c", "import os; print('x', flush=True); open(os.environ['X'])"),
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        )
        assert client.stdout is not None
        assert client.stdout.read(1) == b"x"
        client.send_signal(signal.SIGHUP)
        assert client.wait(LIMIT) == Code.SERVER
        client.communicate()

    def test_tell_which_job_goes_on(self, still: Place) -> None:
        client = still.start(*still.service, "-v", "-m", "slow", "-t", "-1")
        until(lambda: still.server.call(waits(still)))
        client.send_signal(signal.SIGTERM)
        assert client.wait(LIMIT) == Code.TIMEOUT
        assert b"ERROR ended by SIGTERM; job 1 goes on\n" in client.communicate()[1]


async def waits(place: Place) -> bool:
    """Whether somebody waits for a job."""
    return any(each._running for each in place.server.server._served) and bool(place.site.store.jobs.listed())


class TestOutput:
    CODE = (
        "-t",
        "-1",
        "--output",
        "-c",
        "import sys; sys.stdout.buffer.write(b'a\\xff\\n'); print('b', file=sys.stderr)",
    )

    def test_is_printed_byte_for_byte(self, place: Place) -> None:
        ended = place.run(*place.service, *self.CODE)
        assert (ended.returncode, ended.stdout, ended.stderr) == (Code.OK, b"a\xff\n", b"b\n")

    def test_does_not_fit_on_the_disk(self, place: Place) -> None:
        with open("/dev/full", "wb") as full:
            ended = place.run(*place.service, *self.CODE, stdout=full)
            assert (ended.returncode, ended.stderr) == (Code.UNEXPECTED, b"b\n")
            assert (
                place.run(*place.service, "-t", "-1", "--output", "-c", "print(1/0, 'x')", stdout=full).returncode == 8
            )
            assert place.code("--help", stdout=full) == Code.UNEXPECTED

    def test_has_no_reader_any_more(self, place: Place) -> None:
        read, write = os.pipe()
        os.close(read)
        ended = place.run(*place.service, *self.CODE, stdout=write, closed=(0, 2))
        os.close(write)
        assert ended.returncode == Code.UNEXPECTED

    def test_has_a_reader_that_does_not_read(self, place: Place) -> None:
        read, write = os.pipe()
        words = ("-t", "2", "--output", "-c", "print('x' * 500_000)")
        assert place.code(*place.service, *words, stdout=write) == Code.TIMEOUT
        os.close(read)
        os.close(write)

    def test_goes_to_a_pipe_that_does_not_block(self, place: Place) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        client = place.start(*place.service, "-t", "-1", "--output", "-c", "print('x' * 500_000)", stdout=write)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            assert stream.read() == b"x" * 500_000 + b"\n"
        assert client.wait(LIMIT) == Code.OK
        client.communicate()

    @pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
    def test_has_nowhere_to_go(self, place: Place, closed: tuple[int, ...]) -> None:
        assert place.run(*place.service, "-vvv", "-t", "-1", "-m", "good", closed=closed).returncode == Code.OK
        assert place.run(*place.service, *self.CODE, closed=closed).returncode == Code.UNEXPECTED


class TestWords:
    def test_say_what_is_done_and_sent(self, place: Place) -> None:
        said = [
            place.run(*place.service, *level, "-m", "good", "-t", "-1").stderr for level in (["-v"], ["-vv"], ["-vvv"])
        ]
        assert [b"was accepted" in each for each in said] == [True, True, True]
        assert [b"'job submit'" in each for each in said] == [False, True, True]
        assert [b"flags 0x44" in each for each in said] == [False, False, True]
        assert all(
            re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|DEBUG) ", line) for line in said[2].splitlines()
        )

    def test_are_one_line_on_a_terminal(self, place: Place) -> None:
        assert self.on_terminal(place, *place.service, "-m", "none").startswith(
            "remctl-headless: there is no script 'none'"
        )
        assert self.on_terminal(place, "-x").startswith("remctl-headless: there is no option -x")
        assert self.on_terminal(place, *place.service, "-m", "good") == ""
        prelude = "import sys; sys.modules['remctl.jobs.headless._options'] = None"
        assert "import of remctl.jobs.headless._options halted" in self.on_terminal(place, "-x", prelude=prelude)
        for words in ((*place.service, "-q", "-m", "none"), ("-q", "-x")):
            assert self.on_terminal(place, *words) == ""

    def on_terminal(self, place: Place, *words: str, prelude: str = "") -> str:
        ours, theirs = pty.openpty()
        client = place.start(*words, stderr=theirs, prelude=prelude)
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # which is the end of a terminal
            while data := os.read(ours, 1000):
                said += data
        os.close(ours)
        client.communicate(timeout=LIMIT)
        assert said.count(b"\n") < 2
        return said.decode()

    def test_go_to_syslog(self, place: Place, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, socket.socket(type=socket.SOCK_DGRAM) as remote:
            log.bind(str(tmp_path / "log"))
            remote.bind(("127.0.0.1", 0))
            for sock, address in ((log, str(tmp_path / "log")), (remote, f"127.0.0.1:{remote.getsockname()[1]}")):
                assert place.code(*place.service, "-m", "none", f"--syslog={address}") == Code.NO_MODULE
                sock.settimeout(LIMIT)
                self.check_logged([sock.recv(4096) for _ in range(3)])

    def test_go_to_a_syslog_that_takes_streams(self, place: Place, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as log:
            log.bind(str(tmp_path / "log"))
            log.listen()
            log.settimeout(LIMIT)
            assert place.code(*place.service, "-m", "none", f"--syslog={tmp_path / 'log'}") == Code.NO_MODULE
            connection, _ = log.accept()
            with connection, connection.makefile("rb") as stream:
                self.check_logged([line + b"\0" for line in stream.read().split(b"\0")[:-1]])

    def check_logged(self, said: list[bytes]) -> None:
        assert re.fullmatch(rb"<14>remctl-headless\[\d+\]: logging in to localhost\0", said[0])
        assert re.fullmatch(rb"<11>remctl-headless\[\d+\]: there is no script 'none' .*\0", said[2])

    def test_are_there_without_syslog_too(self, place: Place, tmp_path: Path) -> None:
        ended = place.run(*place.service, "-v", "-m", "good", f"--syslog={tmp_path / 'none'}")
        assert ended.returncode == Code.OK
        assert b"WARNING syslog cannot be used: No such file" in ended.stderr

    def test_do_not_hold_it_up_where_syslog_is_stuck(self, place: Place, tmp_path: Path) -> None:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
        ):
            log.bind(str(tmp_path / "log"))
            one.connect(str(tmp_path / "log"))
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    one.send(b"x")
            assert place.code(*place.service, "-m", "good", f"--syslog={tmp_path / 'log'}") == Code.OK


class TestFaults:
    @pytest.mark.parametrize(("module", "text"), [("krb5", b"krb5"), ("gssapi", b"gssapi")])
    def test_a_library_is_missing(self, place: Place, tmp_path: Path, module: str, text: bytes) -> None:
        (tmp_path / f"{module}.py").write_text(f"raise ImportError('No module named {module}')")
        path = f"{tmp_path}:{place.environment['PYTHONPATH']}"
        ended = place.run(*place.service, "-v", "-m", "good", environment={"PYTHONPATH": path})
        assert ended.returncode == Code.UNEXPECTED
        assert b"ERROR a library is missing: No module named " + text in ended.stderr
        assert b"pip install 'remctl-cffi[headless]'" in ended.stderr

    @pytest.mark.parametrize(
        "error", ["SystemExit(77)", "KeyboardInterrupt", "MemoryError", "RecursionError", "OSError"]
    )
    @pytest.mark.parametrize("where", ["_options.parsed", "_logging.logging_to", "_lock.held", "_running.work"])
    def test_whatever_is_raised_has_a_code(self, place: Place, error: str, where: str) -> None:
        module, name = where.split(".")
        prelude = f"""
from remctl.jobs.headless import {module}
def raising(*arguments): raise {error}
{module}.{name} = raising"""
        assert place.code(*place.service, "-m", "good", prelude=prelude) == Code.UNEXPECTED

    def test_a_part_of_it_is_broken(self, place: Place) -> None:
        prelude = "import sys; sys.modules['remctl.jobs.headless._options'] = None"
        assert place.code("--help", prelude=prelude) == Code.UNEXPECTED

    def test_it_needs_nothing_of_the_server(self, place: Place) -> None:
        prelude = """
import sys
for name in ("sqlalchemy", "starlette", "msgspec", "httpx", "remctl.jobs.store", "remctl.jobs.service"):
    sys.modules[name] = None"""
        assert place.code(*place.service, "-m", "good", "--lock", prelude=prelude) == Code.OK

    def test_there_are_no_descriptors(self, place: Place) -> None:
        prelude = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))"
        assert place.code(*place.service, "-m", "good", prelude=prelude) == Code.UNEXPECTED

    def test_the_lock_cannot_be_written(self, place: Place) -> None:
        prelude = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
        assert place.code(*place.service, "-m", "good", "--lock", prelude=prelude) == Code.UNEXPECTED


class TestSecrets:
    def test_are_seen_nowhere(self, still: Place, tmp_path: Path) -> None:
        """But in the words that the user has typed, and in the job."""
        still.site.store.scripts.enable("python", True)
        user = still.box.add_principal("canary")
        key = re.search(rb"[0-9a-f]{32,}", list_keys(user.keytab))
        assert key is not None
        (tmp_path / "code.py").write_text(f"# {CANARY}\nimport time; print(); time.sleep(60)")
        words = ("-u", "canary", "-p", str(secret_of(user.keytab, tmp_path)), "-f", str(tmp_path / "code.py"))
        with working(still.site):
            client = still.start(
                *still.service, "-vvv", *words, "-t", "-1", "--output", "--lock", f"--syslog={tmp_path}/no"
            )
            assert client.stdout is not None
            assert client.stdout.read(1) == b"\n"
            seen = b""
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    seen += (folder / "cmdline").read_bytes()
                if folder.name == str(client.pid):
                    seen += (folder / "environ").read_bytes()
            client.send_signal(signal.SIGTERM)
            seen += b"".join(client.communicate(timeout=LIMIT))
            still.site.store.jobs.ask(1, Move.ABORT, "user")
            still.site.over(1)
        for folder in (still.site.settings.folder / "state").rglob("*.lock"):
            seen += folder.read_bytes() + os.fsencode(folder.name)
        assert b"was accepted" in seen
        assert CANARY.encode() not in seen
        assert user.password.encode() not in seen
        assert key[0] not in seen
        database = b"".join(each.read_bytes() for each in tmp_path.glob("jobs.db*"))
        assert user.password.encode() not in database
        assert key[0] not in database

    def test_may_be_parameters_that_the_script_calls_so(self, still: Place) -> None:
        header = ("[parameters.individual_parameters]", 'type = "secret"')
        still.site.install(f'grep -c {CANARY} "$JOB_PARAMETERS"', *header, name="trusted")
        with working(still.site):
            ended = still.run(*still.service, "-vvv", "-m", "trusted", "-i", CANARY, "-t", "-1", "--output")
        assert (ended.returncode, ended.stdout) == (Code.OK, b"1\n")
        assert CANARY.encode() not in ended.stderr
        assert still.site.store.jobs.get(1).parameters == {}

    def test_are_not_in_complaints(self, place: Place) -> None:
        said = b""
        for words in (
            ["-c", CANARY, "-m", "none"],
            ["-c", "x\0"],
            ["-i", CANARY, "-m", "good"],
            ["-m", "good", CANARY],
        ):
            with contextlib.suppress(ValueError):  # what no command line can hold
                said += place.run(*place.service, "-vvv", *words).stderr
        assert said.count(b"remctl-headless") + said.count(b"ERROR") >= 3
        assert CANARY.encode() not in said


def list_keys(keytab: str) -> bytes:
    return subprocess.run(["klist", "-K", "-k", keytab], check=True, capture_output=True).stdout
