"""A backend as a program of its own: by hand, and in an environment like that of remctld's commands."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from remctl.backend import ExitStatus

Env = dict[str, str | None]

PYTHON: Final = (sys.executable, "-X", "dev", "-W", "error")

PATIENCE: Final = 30.0
"""Seconds after which something that should have happened will not happen any more."""

USER: Final = "user@SANDBOX.TEST"

PROGRAM: Final = """
import asyncio, os, sys, threading, time, warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated
from remctl import Stream
from remctl.backend import MULTILINE, STDIN, Backend, CommandError, Context, _syslog

_syslog.SYSLOG = os.environ.get("LOG", "/nowhere/log")
backend = Backend("test")

@backend.command
def echo(*words: str) -> str:
    return " ".join(words) + "\\n"

@backend.command
def who(context: Context) -> str:
    return repr((context.principal, context.address, context.host, context.expires, context.command))

@backend.command
def locate(path: Path, raw: bytes) -> str:
    return f"{os.fsencode(path)!r} {raw!r}"

@backend.command
def take(data: Annotated[bytes, STDIN]) -> str:
    return f"{len(data)}\\n"

@backend.command
def speak(context: Context) -> str:
    print("printed 1")
    context.write("written 2\\n")
    print("printed 3")
    context.write("complaint\\n", Stream.STDERR)
    return "returned 4\\n"

@backend.command
def mutter() -> None:
    print("printed")

@backend.command
def babble() -> None:
    for _ in range(100):
        print("x" * 10_000)

@backend.command
def much() -> Iterator[bytes]:
    while True:
        yield bytes(100_000)

@backend.command
def silence() -> None:
    pass

@backend.command
def leave(status: str) -> None:
    sys.exit({"none": None, "text": "so long"}[status] if status in ("none", "text") else int(status))

@backend.command
def crash() -> None:
    raise KeyError("from the inside")

@backend.command
def fail() -> None:
    raise CommandError("no", status=3)

@backend.command
def wait(context: Context) -> None:
    context.write("begun\\n")
    time.sleep(60)

@backend.command
async def doze(context: Context) -> None:
    context.write("begun\\n")
    await asyncio.sleep(60)

@backend.command
async def later(name: str) -> AsyncIterator[str]:
    yield "hello, "
    await asyncio.sleep(0)
    yield f"{name}\\n"

@backend.command
def stray() -> str:
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("internal matters", stacklevel=1)
    return "done\\n"

notes = backend.group("notes")

@notes.command
def add(text: Annotated[bytes, STDIN]) -> str:
    return f"{len(text)}\\n"

@backend.command
async def cancelled() -> None:
    raise asyncio.CancelledError

@backend.command(acl="princ:admin@SANDBOX.TEST")
def purge() -> str:
    return "gone\\n"
"""

MAIN: Final = "\nbackend.main()\n"

REMOTE: Final = {
    "REMCTL_COMMAND": "test",
    "REMOTE_USER": USER,
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_EXPIRES": "1893456000",
}
"""What remctld tells a command."""


class Done(NamedTuple):
    """How a program ended."""

    stdout: bytes
    stderr: bytes
    status: int


class Program:
    """The program above, in warnings-as-errors and development mode.

    Args:
        path: where it is written.
        text: its source.
    """

    def __init__(self, path: Path, text: str = PROGRAM + MAIN) -> None:
        self.path = path
        path.write_text(text, encoding="utf-8")

    def start(
        self, *words: str | bytes, remote: bool = True, redirections: str = "", env: Env | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start it as remctld does, or by hand; with redirections of a shell."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REMOTE_", "REMCTL_"))}
        inherited.pop("PYTHONUNBUFFERED", None)
        merged = inherited | (REMOTE if remote else {}) | (env or {})
        return subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *PYTHON, self.path, *words],
            env={name: value for name, value in merged.items() if value is not None},
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *words: str | bytes, data: bytes | None = None, **options: Any) -> Done:
        """Run it to its end."""
        if data is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*words, **options) as process:
            stdout, stderr = process.communicate(data, timeout=PATIENCE)
        return Done(stdout or b"", stderr or b"", process.returncode)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give the program."""
    return Program(tmp_path / "backend.py")


class TestByHand:
    """Without remctld, words come from the command line, and whoever calls may do all."""

    def test_takes_its_words_from_the_command_line(self, program: Program) -> None:
        assert program.run("echo", "a", "b c", remote=False) == (b"a b c\n", b"", 0)

    def test_has_a_caller_without_a_name(self, program: Program) -> None:
        assert program.run("who", remote=False).stdout == b"('', '', None, None, ('test', 'who'))"
        assert program.run("purge", remote=False) == (b"gone\n", b"", 0)

    def test_obeys_the_acls_for_a_caller_with_a_name(self, program: Program) -> None:
        denied = Done(b"", b"test purge: access denied\n", ExitStatus.DENIED)
        assert program.run("purge", remote=False, env={"REMOTE_USER": USER}) == denied
        assert program.run("purge", remote=False, env={"REMOTE_USER": "admin@SANDBOX.TEST"}) == (b"gone\n", b"", 0)

    @pytest.mark.parametrize("word", ["help", "--help"])
    def test_helps(self, program: Program, word: str) -> None:
        done = program.run(word, remote=False)
        assert (done.stderr, done.status) == (b"", 0)
        assert b"test echo [<words> ...]\n" in done.stdout
        assert b"test purge\n" in done.stdout

    def test_without_a_word_says_how_to_go_on(self, program: Program) -> None:
        assert program.run(remote=False) == (b"", b"test: a further word is missing; try help\n", ExitStatus.USAGE)

    def test_reads_data_from_standard_input(self, program: Program) -> None:
        assert program.run("take", data=b"\0" * 1000, remote=False) == (b"1000\n", b"", 0)
        assert program.run("take", redirections="<&-", remote=False) == (b"0\n", b"", 0)

    def test_prints_the_configuration_of_remctld(self, program: Program) -> None:
        done = program.run("--remctld-config", "--program", "/bin/true", remote=False)
        assert (done.stderr, done.status) == (b"", 0)
        lines = done.stdout.decode().splitlines()
        assert "test echo /bin/true help=--help=test summary=--summary=test ANYUSER" in lines
        assert "test take /bin/true stdin=last help=--help=test summary=--summary=test ANYUSER" in lines
        assert "test purge /bin/true help=--help=test summary=--summary=test princ:admin@SANDBOX.TEST" in lines

    def test_configures_itself_and_warns_when_it_cannot_be_run(self, program: Program) -> None:
        done = program.run("--remctld-config", remote=False)
        assert done.stderr == f"warning: {program.path} is not executable, and remctld could not run it\n".encode()
        assert done.stdout.startswith(f"test babble {program.path} ".encode())
        program.path.chmod(0o755)
        assert program.run("--remctld-config", remote=False).stderr == b""

    def test_refuses_a_path_that_a_configuration_cannot_hold(self, program: Program) -> None:
        done = program.run("--remctld-config", "--program", "/opt/my program", remote=False)
        assert done.stdout == b""
        assert done.stderr.startswith(b"--remctld-config: remctld cannot run a program with blanks in its path")
        assert done.status != 0


class TestUnderRemctld:
    def test_knows_who_calls(self, program: Program) -> None:
        who = program.run("who", env={"REMOTE_HOST": "client.example.org"}).stdout
        assert who == f"('{USER}', '192.0.2.1', 'client.example.org', 1893456000.0, ('test', 'who'))".encode()

    @pytest.mark.parametrize("expires", ["0", "", None])
    def test_knows_when_there_is_no_ticket(self, program: Program, expires: str | None) -> None:
        who = program.run("who", env={"REMOTE_EXPIRES": expires}).stdout
        assert who == f"('{USER}', '192.0.2.1', None, None, ('test', 'who'))".encode()

    def test_obeys_the_acls(self, program: Program) -> None:
        assert program.run("purge") == (b"", b"test purge: access denied\n", ExitStatus.DENIED)
        assert program.run("purge", env={"REMOTE_USER": "admin@SANDBOX.TEST"}) == (b"gone\n", b"", 0)

    @pytest.mark.parametrize("user", ["", None])
    def test_lets_nobody_in_who_has_no_name(self, program: Program, user: str | None) -> None:
        assert program.run("purge", env={"REMOTE_USER": user}).status == ExitStatus.DENIED

    def test_does_not_tell_its_configuration(self, program: Program) -> None:
        done = program.run("--remctld-config")
        assert done == (b"", b"test --remctld-config: unknown command; try help\n", ExitStatus.USAGE)

    def test_answers_remctld_when_it_asks_for_help(self, program: Program) -> None:
        asked = {"REMCTL_COMMAND": "help"}
        assert program.run("--summary=test", "echo", env=asked) == (b"test echo [<words> ...]\n", b"", 0)
        assert program.run("--help=test", "echo", env=asked).stdout.startswith(b"test echo [<words> ...]\n")
        assert program.run("--help=test", "purge", env=asked) == (
            b"",
            b"help: access denied: test purge\n",
            ExitStatus.DENIED,
        )

    @pytest.mark.parametrize("word", [b"\xff", b"a\nb"])
    def test_answers_in_one_line_when_asked_for_help_of_nonsense(self, program: Program, word: bytes) -> None:
        done = program.run("--help=test", word, env={"REMCTL_COMMAND": "help"})
        assert done.stdout == b""
        assert done.stderr.startswith(b"help: unknown command: test ")
        assert done.stderr.count(b"\n") == 1
        assert done.status == ExitStatus.USAGE

    def test_keeps_words_that_only_look_like_remctlds_questions(self, tmp_path: Path) -> None:
        program = Program(tmp_path / "single.py", PROGRAM.replace('Backend("test")', "Backend()") + MAIN)
        for word in ("--help=echo", "--summary=echo"):
            assert program.run(word, env={"REMCTL_COMMAND": "echo"}) == (word.encode() + b"\n", b"", 0)

    def test_runs_commands_of_one_word(self, tmp_path: Path) -> None:
        program = Program(tmp_path / "single.py", PROGRAM.replace('Backend("test")', "Backend()") + MAIN)
        assert program.run("a", "b", env={"REMCTL_COMMAND": "echo"}) == (b"a b\n", b"", 0)
        lines = program.run("--remctld-config", "--program", "/bin/true", remote=False).stdout.decode().splitlines()
        assert "take ALL /bin/true stdin=last help=--help=take summary=--summary=take ANYUSER" in lines

    @pytest.mark.parametrize(
        ("words", "piped", "answer"),
        [
            (["take"], b"data", (b"4\n", b"", 0)),
            ([], b"take", (b"", b"test take: insufficient arguments: <data> is missing\n", 64)),
            (["notes"], b"add", (b"", b"test notes add: insufficient arguments: <text> is missing\n", 64)),
            (["notes"], b"bogus", (b"", b"test notes bogus: unknown command; try help\n", 64)),
        ],
    )
    def test_finds_a_subcommand_that_remctld_has_piped_away(
        self, program: Program, words: list[str], piped: bytes, answer: tuple[bytes, bytes, int]
    ) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(piped)
            ours.shutdown(socket.SHUT_WR)
            assert program.run(*words, stdin=theirs) == answer

    def test_helps_where_the_word_for_it_was_piped_away(self, program: Program) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"help")
            ours.shutdown(socket.SHUT_WR)
            assert program.run("notes", stdin=theirs) == (b"test notes add <text>\n", b"", 0)

    def test_keeps_a_failure_outside_of_functions_to_itself(self, tmp_path: Path) -> None:
        text = """
from remctl.acl import Acl
from remctl.backend import Backend

class Broken(Acl):
    def allows(self, principal: str) -> bool:
        raise KeyError(principal)

backend = Backend("test", acl=Broken("ANYUSER"))

@backend.command
def hello() -> None: ...

backend.main()
"""
        done = Program(tmp_path / "broken.py", text).run("hello", env={"LOG": None})
        assert (done.stdout, done.status) == (b"", ExitStatus.INTERNAL)
        assert done.stderr.splitlines()[0] == b"internal error"
        assert b"Traceback" not in done.stderr

    def test_runs_coroutines(self, program: Program) -> None:
        assert program.run("later", "you") == (b"hello, you\n", b"", 0)


class TestOutput:
    def test_comes_in_the_order_in_which_it_was_printed_written_and_returned(self, program: Program) -> None:
        assert program.run("speak") == (b"printed 1\nwritten 2\nprinted 3\nreturned 4\n", b"complaint\n", 0)

    @pytest.mark.parametrize("command", ["echo", "mutter", "babble", "much", "speak"])
    @pytest.mark.parametrize("redirections", [">&-", ">/dev/full"], ids=["closed", "full"])
    def test_that_cannot_be_written_is_an_error(self, program: Program, command: str, redirections: str) -> None:
        done = program.run(command, redirections=redirections)
        assert done.status == ExitStatus.OUTPUT
        assert b"standard output" in done.stderr
        assert done.stderr.count(b"\n") == 1

    @pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
    def test_keeps_its_status_when_errors_cannot_be_written(self, program: Program, redirections: str) -> None:
        assert program.run("bogus", redirections=redirections) == (b"", b"", ExitStatus.USAGE)
        assert program.run("fail", redirections=redirections) == (b"", b"", 3)
        assert program.run("echo", redirections=redirections) == (b"\n", b"", 0)

    @pytest.mark.parametrize("redirections", [">&- 2>&-", ">/dev/full 2>/dev/full"], ids=["closed", "full"])
    def test_is_never_a_success_when_nothing_can_be_written(self, program: Program, redirections: str) -> None:
        for command in ("echo", "mutter", "babble", "much"):
            assert program.run(command, redirections=redirections).status == ExitStatus.OUTPUT

    @pytest.mark.parametrize("words", [["much"], ["babble"], ["later", "you"], ["mutter"]], ids=" ".join)
    def test_ends_when_the_reader_goes_away(self, program: Program, words: list[str]) -> None:
        reading, writing = os.pipe()
        with program.start(*words, stdout=writing) as process:
            os.close(writing)
            if words == ["much"]:
                assert os.read(reading, 1) == b"\0"
            os.close(reading)
            _, complaint = process.communicate(timeout=PATIENCE)
        assert process.returncode == ExitStatus.OUTPUT
        assert complaint.count(b"\n") == 1
        assert b"Broken pipe" in complaint


class TestEnds:
    @pytest.mark.parametrize("command", ["wait", "doze"])
    def test_at_ctrl_c(self, program: Program, command: str) -> None:
        with program.start(command) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
        assert process.returncode == 128 + signal.SIGINT

    def test_with_what_the_function_exits_with(self, program: Program) -> None:
        assert program.run("leave", "none") == (b"", b"", 0)
        assert program.run("leave", "5") == (b"", b"", 5)
        assert program.run("leave", "text") == (b"", b"so long\n", 1)
        assert program.run("leave", "-1").status == ExitStatus.INTERNAL

    def test_with_an_internal_error_when_a_coroutine_was_cancelled_by_nobody(self, program: Program) -> None:
        done = program.run("cancelled")
        assert done.status == ExitStatus.INTERNAL
        assert done.stderr.startswith(b"test cancelled: internal error\n")
        assert b"Traceback" not in done.stderr


class TestLog:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[socket.socket]:
        """Give the system's log."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.bind(str(tmp_path / "log"))
            log.settimeout(PATIENCE)
            yield log

    def test_of_the_system_gets_what_fails_line_by_line(
        self, program: Program, log: socket.socket, tmp_path: Path
    ) -> None:
        with program.start("crash", env={"LOG": str(tmp_path / "log")}) as process:
            assert process.communicate(timeout=PATIENCE) == (b"", b"test crash: internal error\n")
        assert process.returncode == ExitStatus.INTERNAL
        prefix = f"<27>backend.py[{process.pid}]: "
        lines = [f"{prefix}command 'test crash' of {USER} failed", f"{prefix}Traceback (most recent call last):"]
        assert [log.recv(10_000).rstrip(b"\0").decode() for _ in lines] == lines
        line = b""
        while b"KeyError:" not in line:
            line = log.recv(10_000).rstrip(b"\0")
            assert line.startswith(prefix.encode())
            assert b"\n" not in line
        assert line == f"{prefix}KeyError: 'from the inside'".encode()

    def test_gets_warnings_and_the_failures_of_threads_too(self, program: Program) -> None:
        done = program.run("stray")
        assert done == (b"done\n", b"what happened could not be written to the server's log\n", 0)

    def test_that_is_not_there_is_told_to_the_caller(self, program: Program) -> None:
        assert program.run("crash") == (
            b"",
            b"test crash: internal error\nwhat happened could not be written to the server's log\n",
            ExitStatus.INTERNAL,
        )
        assert program.run("fail") == (b"", b"test fail: no\n", 3)

    @pytest.mark.parametrize("remote", [True, False])
    def test_may_be_chosen_by_the_program(self, tmp_path: Path, remote: bool) -> None:
        chosen = f"import logging\nlogging.basicConfig(filename={str(tmp_path / 'file')!r})\n"
        program = Program(tmp_path / "backend.py", PROGRAM + chosen + MAIN)
        assert program.run("crash", remote=remote) == (b"", b"test crash: internal error\n", ExitStatus.INTERNAL)
        text = (tmp_path / "file").read_text()
        assert "Traceback (most recent call last):\n" in text
        assert text.endswith("KeyError: 'from the inside'\n")

    def test_is_the_terminal_by_hand(self, program: Program) -> None:
        done = program.run("crash", remote=False)
        assert b"KeyError: 'from the inside'\n" in done.stderr
        assert done.status == ExitStatus.INTERNAL


class TestLocale:
    """A daemon may be started in the C locale; words are UTF-8 all the same."""

    C: Final[Env] = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": None}

    def test_makes_no_difference_to_words_and_text(self, program: Program) -> None:
        assert program.run("echo", "M\u00fcller", env=self.C) == ("M\u00fcller\n".encode(), b"", 0)
        assert program.run("locate", "caf\u00e9", b"\xff", env=self.C).stdout == b"b'caf\\xc3\\xa9' b'\\xff'"
        assert program.run("echo", b"\xff", env=self.C).stderr == (
            b"test echo: invalid argument <words> '\\xff': it is not UTF-8\n"
        )

    def test_makes_no_difference_to_names(self, tmp_path: Path) -> None:
        text = PROGRAM.replace('Backend("test")', 'Backend("pr\u00fcfung")') + MAIN
        program = Program(tmp_path / "backend.py", text)
        assert program.run("echo", "a", env=self.C) == (b"a\n", b"", 0)
        assert program.run("bogus", env=self.C).stderr == "pr\u00fcfung bogus: unknown command; try help\n".encode()

    def test_makes_no_difference_to_principals(self, tmp_path: Path) -> None:
        text = PROGRAM.replace("princ:admin@", "princ:m\u00fcller@") + MAIN
        program = Program(tmp_path / "backend.py", text)
        assert program.run("purge", env=self.C | {"REMOTE_USER": "m\u00fcller@SANDBOX.TEST"}).status == 0
