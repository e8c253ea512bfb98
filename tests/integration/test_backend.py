"""One backend in all its places: the real remctld, the real remctl-shell, and a server in the program.

`backend_program` has the commands.  What a caller gets is the same everywhere, but for what `ELSEWHERE` lists.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import pytest
from serving import PATIENCE, ServerThread

import remctl
from integration.backend_program import backend
from integration.clients import Answer
from remctl import ErrorCode, Remctl, RemctlCommandError
from remctl.testing import Sandbox, Server

USER: Final = "user@SANDBOX.TEST"

PROGRAM: Final = """\
#!{python}
import logging
import sys

sys.path[:0] = {path}
logging.basicConfig(filename={log})

from integration.backend_program import backend

backend.main()
"""


class Refused(NamedTuple):
    """An error instead of an answer."""

    code: int | None


Outcome = Answer | Refused

USAGE: Final = 64

HANDLER: Final[Any] = backend


class Place:
    """Where the backend runs; this one is reached with a client.

    Args:
        name: which of the three.
        port: the server's TCP port.
        log: gives what was logged so far.
    """

    def __init__(self, name: str, port: int, log: Callable[[], str]) -> None:
        self.name = name
        self.log = log
        self.user = USER  # whom sshd takes the caller for
        self._address = ("localhost", port, "host/localhost@SANDBOX.TEST")

    def run(self, *words: str | bytes, ccache: str | None = None) -> Outcome:
        """Run a command."""
        with Remctl(*self._address, ccache=ccache) as session:
            try:
                result = session.run(words)
            except RemctlCommandError as error:
                return Refused(error.code)
        return Answer(result.stdout, result.stderr, result.status)

    def once(self, *words: str | bytes) -> remctl.RemctlSimpleResult:
        """Run a command with a connection of its own."""
        return remctl.remctl(*self._address, words)


class Shell(Place):
    """remctl-shell, as sshd runs it when it is the forced command of a key."""

    SAYS: ClassVar = {
        b"Access denied\n": Refused(ErrorCode.ACCESS),
        b"Unknown command\n": Refused(ErrorCode.UNKNOWN_COMMAND),
    }
    """Its refusals look like a command's own error output."""

    def __init__(self, config: Path) -> None:
        super().__init__("remctl-shell", 0, str)
        self._config = config

    def run(self, *words: str | bytes, ccache: str | None = None) -> Outcome:
        command = b" ".join(quoted(word.encode() if isinstance(word, str) else word) for word in words)
        program = shutil.which("remctl-shell", path="/usr/sbin:/usr/bin")
        assert program is not None
        done = subprocess.run(
            [program, "-f", str(self._config), "-q", self.user],
            env={b"SSH_ORIGINAL_COMMAND": command, b"SSH_CONNECTION": b"127.0.0.1 4711 127.0.0.1 22"},
            capture_output=True,
            timeout=PATIENCE,
        )
        if done.returncode == 255 and done.stderr in self.SAYS:
            return self.SAYS[done.stderr]
        return Answer(done.stdout, done.stderr, done.returncode)


def quoted(word: bytes) -> bytes:
    """Quote a word for remctl-shell, where a backslash escapes inside single quotes too."""
    return shlex.quote(word.decode("latin-1").replace("\\", "\\\\")).encode("latin-1")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the backend as a program, which logs into a file beside it."""
    path = tmp_path_factory.mktemp("backend") / "account-backend"
    folder = str(Path(__file__).parents[1])
    path.write_text(PROGRAM.format(python=sys.executable, path=[folder], log=repr(str(path.with_suffix(".log")))))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def config(program: Path) -> str:
    """Give the lines that the program prints for remctld's configuration."""
    return subprocess.run(
        [program, "--remctld-config"], check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout


@pytest.fixture(scope="module")
def remctld(box: Sandbox, config: str) -> Iterator[Server]:
    """Give a remctld with those lines."""
    server = box.add_server()
    server.add_config(config)
    yield server
    server.stop()


@pytest.fixture(params=["remctld", "remctl-shell", "in the program"])
def place(
    request: pytest.FixtureRequest, box: Sandbox, config: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Place]:
    """Give each of the places in turn."""
    if request.param == "remctld":
        server: Server = request.getfixturevalue("remctld")
        yield Place(request.param, server.port, lambda: server.log)
    elif request.param == "remctl-shell":
        lines = tmp_path / "remctl.conf"
        lines.write_text(config)
        yield Shell(lines)
    else:
        caplog.set_level(logging.INFO, "remctl")
        with ServerThread(box, HANDLER) as ours:
            yield Place(request.param, ours.port, lambda: caplog.text)


with_servers = pytest.mark.parametrize("place", ["remctld", "in the program"], indirect=True)
"""Where there is a server to speak the protocol with."""


def said(text: str) -> Answer:
    return Answer(text.encode(), b"", 0)


def failed(text: str, status: int) -> Answer:
    return Answer(b"", f"account {text}\n".encode(), status)


def no_word() -> Answer:
    return Answer(b"", b"account: a further word is missing; try help\n", USAGE)


def summed(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


LINES: Final = b"first line\nsecond 'line'\n\\ end"

NUL: Final = bytes(range(256)) * 2

LARGE: Final = bytes(range(256)) * 40_000
"""Ten megabytes."""

CASES: Final[dict[tuple[str | bytes, ...], Outcome]] = {
    ("hello",): said("hello, world\n"),
    ("hello", "M\u00fcller"): said("hello, M\u00fcller\n"),
    ("hello", ""): said("hello, \n"),
    ("hello", b"\xff"): failed("hello: invalid argument <name> '\\xff': it is not UTF-8", USAGE),
    ("hello", "a\nb"): failed("hello: invalid argument <name> 'a\\nb': it has the control character '\\n'", USAGE),
    ("hello", "a", "b"): failed("hello: too many arguments: 1 is taken, and 2 given", USAGE),
    ("echo",): said("\n"),
    ("echo", "it's", "", '"quoted"', "back\\slash", "$HOME"): said('it\'s  "quoted" back\\slash $HOME\n'),
    ("echo", "--words", "--", "-x"): said("--words -- -x\n"),
    ("echo", "--help=account"): said("--help=account\n"),
    ("note", LINES): Answer(LINES, b"", 0),
    ("kinds", "41", "/tmp/caf\u00e9", b"\xff\\"): said("42 caf\u00e9 b'\\xff\\\\' 0.5\n"),
    ("kinds", "-1", ".", "", "2.5e1"): said("0  b'' 25.0\n"),
    ("kinds", "1x", "/", ""): failed("kinds: invalid argument <count> '1x': it is not a whole number", USAGE),
    ("kinds", "1"): failed("kinds: insufficient arguments: <path> is missing", USAGE),
    ("create", "alice"): said("alice  10 bash False\n"),
    ("create", "--quota=5", "--shell", "zsh", "-l", "bob", "wheel", "--locked"): said(
        "bob wheel,--locked 5 zsh True\n"
    ),
    ("create", "-q", "100", "bob"): failed("create: invalid argument --quota '100': it must be 0 to 99", USAGE),
    ("upload", "pic", "data"): said(f"pic  {summed(b'data')}\n"),
    ("upload", "pic", "a", "b", ""): said(f"pic a,b {summed(b'')}\n"),
    ("upload", "pic", LINES): said(f"pic  {summed(LINES)}\n"),
    ("upload", "pic", NUL): said(f"pic  {summed(NUL)}\n"),
    ("upload", "pic", LARGE): said(f"pic  {summed(LARGE)}\n"),
    ("upload",): failed("upload: insufficient arguments: <data> is missing", USAGE),
    ("digest", "data", "pic"): said(f"pic {summed(b'data')}\n"),
    ("digest", NUL, "pic"): said(f"pic {summed(NUL)}\n"),
    ("digest", LARGE, "pic"): said(f"pic {summed(LARGE)}\n"),
    ("digest", "data"): failed("digest: insufficient arguments: <name> is missing", USAGE),
    ("digest",): failed("digest: insufficient arguments: <data> is missing", USAGE),
    ("password", "alice", "pa$$ word"): said("alice 9 none\n"),
    ("password", "alice", "s3cr\x07t"): failed(
        "password: invalid argument <secret>: it has the control character '\\x07'", USAGE
    ),
    ("who", "principal"): said(f"{USER}\n"),
    ("who", "address"): said("127.0.0.1\n"),
    ("who", "host"): said("localhost\n"),
    ("who", "expires"): said("later: True\n"),
    ("who", "command"): said("('account', 'who')\n"),
    ("count", "3"): said("0\n1\n2\n"),
    ("streams",): Answer(b"out\0put\n", b"error\n", 7),
    ("later", "you"): said("wait\nhello, you\n"),
    ("ticks", "2"): said("0\n1\n"),
    ("missing", "money"): failed("missing: there is no money", 3),
    ("crash",): failed("crash: internal error", 70),
    ("status", "0"): said(""),
    ("status", "255"): Answer(b"", b"", 255),
    ("status", "256"): failed("status: internal error", 70),
    ("purge",): Refused(ErrorCode.ACCESS),
    ("beg",): said("please\n"),
    ("internal",): said("hidden\n"),
    ("key",): said("all keys\n"),
    ("key", "add", "rsa"): said("added rsa\n"),
    ("key", "remove-all"): said("removed\n"),
    ("key", "bogus"): failed("key bogus: unknown command; try help", USAGE),
    ("bogus",): failed("bogus: unknown command; try help", USAGE),
    (): no_word(),
}

TOO_LONG: Final = None
"""The system takes no such word in the environment."""

ELSEWHERE: Final[dict[tuple[str, tuple[str | bytes, ...]], Outcome | None]] = {
    # remctld knows a subcommand that is in its configuration, and no other.
    ("remctld", ("bogus",)): Refused(ErrorCode.UNKNOWN_COMMAND),
    ("remctl-shell", ("bogus",)): Refused(ErrorCode.UNKNOWN_COMMAND),
    # A word for standard input that is not there is empty.
    ("remctld", ("digest",)): failed("digest: insufficient arguments: <name> is missing", USAGE),
    ("remctl-shell", ("digest",)): failed("digest: insufficient arguments: <name> is missing", USAGE),
    # Over ssh there is no ticket, and there are no words with NUL, or larger than the environment.
    ("remctl-shell", ("who", "expires")): said("never\n"),
    ("remctl-shell", ("upload", "pic", NUL)): TOO_LONG,
    ("remctl-shell", ("digest", NUL, "pic")): TOO_LONG,
    ("remctl-shell", ("upload", "pic", LARGE)): TOO_LONG,
    ("remctl-shell", ("digest", LARGE, "pic")): TOO_LONG,
}


@pytest.mark.parametrize("words", CASES, ids=lambda words: " ".join(repr(word)[:20] for word in words) or "nothing")
def test_a_command_does_the_same_everywhere(place: Place, words: tuple[str | bytes, ...]) -> None:
    expected = ELSEWHERE.get((place.name, words), CASES[words])
    if expected is TOO_LONG:
        with pytest.raises((OSError, ValueError), match=r"null byte|too long"):  # which the system says to sshd
            place.run("account", *words)
    else:
        assert place.run("account", *words) == expected


class TestHelp:
    """What `backend.help` says, which the unit tests look at."""

    def test_lists_the_commands_that_the_caller_may_run(self, place: Place) -> None:
        expected = backend.help(principal=USER)
        assert "account key add <name>" in expected
        assert "purge" not in expected
        assert place.run("account", "help") == said(expected)

    def test_of_the_whole_server_lists_them_too(self, remctld: Server) -> None:
        place = Place("remctld", remctld.port, str)
        listed = place.run("help")
        assert isinstance(listed, Answer)
        assert (listed.stderr, listed.status) == (b"", 0)
        assert listed.stdout.decode() == backend.summary(["account"], principal=USER)

    @pytest.mark.parametrize("words", [["create"], ["key"], ["key", "add"]], ids=" ".join)
    def test_of_a_command_says_how_it_is_used(self, place: Place, words: list[str]) -> None:
        assert place.run("account", "help", *words) == said(backend.help(["account", *words], principal=USER))

    @pytest.mark.parametrize("words", [["account"], ["account", "create"], ["account", "key"]], ids=" ".join)
    def test_is_what_remctld_shows_at_its_own_command(self, remctld: Server, words: list[str]) -> None:
        place = Place("remctld", remctld.port, str)
        assert place.run("help", *words) == said(backend.help(words, principal=USER))

    def test_shows_each_caller_what_that_one_may_run(self, place: Place, box: Sandbox) -> None:
        place.user = "admin@SANDBOX.TEST"
        admin = ticket(box, "admin")
        listed = place.run("account", "help", ccache=admin)
        assert listed == said(backend.help(principal="admin@SANDBOX.TEST"))
        assert isinstance(listed, Answer)
        assert b"purge" in listed.stdout
        assert b"beg" not in listed.stdout
        assert place.run("account", "help", "purge", ccache=admin) == said(backend.help(["account", "purge"]))
        place.user = USER
        assert place.run("account", "help", "purge") == Answer(b"", b"help: access denied: account purge\n", 77)

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (["bogus"], b"help: unknown command: account bogus\n"),
            (["create", "more"], b"help: unknown command: account create more\n"),
        ],
    )
    def test_of_what_there_is_not_is_a_usage_error(self, place: Place, words: list[str], complaint: bytes) -> None:
        assert place.run("account", "help", *words) == Answer(b"", complaint, USAGE)


class TestAccess:
    def test_is_refused_with_a_code_by_session_and_by_a_single_call(self, box: Sandbox, config: str) -> None:
        remctld = box.add_server()
        remctld.add_config(config)
        with ServerThread(box, HANDLER) as ours:
            for port in (remctld.port, ours.port):
                with pytest.raises(RemctlCommandError) as caught:
                    remctl.remctl("localhost", port, box.principal, ["account", "purge"])
                assert caught.value.code is ErrorCode.ACCESS
                with Remctl("localhost", port, box.principal) as session:
                    with pytest.raises(RemctlCommandError) as caught:
                        session.run(["account", "purge"])
                    assert caught.value.code is ErrorCode.ACCESS
                    assert session.run(["account", "hello"]).status == 0
        remctld.stop()

    @with_servers
    def test_is_for_the_principals_that_the_command_names(self, place: Place, box: Sandbox) -> None:
        admin = ticket(box, "admin")
        assert place.run("account", "purge", ccache=admin) == said("gone\n")
        assert place.run("account", "beg", ccache=admin) == Refused(ErrorCode.ACCESS)


@with_servers
class TestLog:
    def test_shows_a_command_without_its_secret(self, place: Place) -> None:
        place.run("account", "password", "alice", "swordfish", "note")
        assert "account password alice **MASKED** note" in place.log()
        assert "swordfish" not in place.log()

    def test_shows_a_command_without_its_data(self, place: Place) -> None:
        place.run("account", "upload", "pic", "tag", "swordfish")
        place.run("account", "digest", "swordfish", "pic")
        assert "account upload pic tag **DATA**" in place.log()
        assert "account digest **DATA** pic" in place.log()
        assert "swordfish" not in place.log()

    def test_has_no_secret_when_the_command_is_refused(self, place: Place) -> None:
        place.run("account", "password", "alice", "sword\x07fish", "note", "more")
        assert "account password alice **MASKED** note" in place.log()
        assert "fish" not in place.log()


def test_what_fails_unexpectedly_is_in_the_log_of_the_program(place: Place, program: Path) -> None:
    place.run("account", "crash")
    log = place.log() if place.name == "in the program" else program.with_suffix(".log").read_text()
    assert f"command 'account crash' of {USER} failed" in log
    assert "KeyError: 'from the inside'" in log


def ticket(box: Sandbox, name: str) -> str:
    """Return the cache with a ticket of a principal, which is made at the first time."""
    cache = box.path / f"ccache-of-{name}"
    return str(cache) if cache.exists() else box.kinit(box.add_principal(name), ccache=str(cache))
