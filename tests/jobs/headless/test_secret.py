"""The secret file, the question for the password, and whose tickets a run uses."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import pty
import secrets
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from jobs.runners import until
from remctl._kerberos import unreachable
from remctl.exceptions import RemctlAuthenticationError
from remctl.jobs.headless import _secret
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.security import AcceptorContext, Credentials, InitiatorContext, ServerCredentials
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal

NOBODY: Final = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")


@pytest.fixture
def alice(box: Sandbox) -> Principal:
    return box.add_principal(f"alice-{secrets.token_hex(4)}")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Give the name of a secret file that is not there yet, alone in its folder."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "secret"


@pytest.fixture
def made(alice: Principal, secret: Path) -> Path:
    """Give alice's secret file."""
    _secret.create(secret, alice.name, alice.password)
    return secret


def refusal(call: Callable[[], object], code: Code = Code.PARAMETER) -> HeadlessError:
    with pytest.raises(HeadlessError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def entering(*arguments: Any) -> Callable[[], object]:
    def enter() -> None:
        with _secret.credentials(*arguments):
            pass

    return enter


def authenticated(box: Sandbox, credentials: Credentials) -> str:
    """Return as whom a server knows the owner of credentials."""
    ours = InitiatorContext("localhost", box.principal, credentials)
    theirs = AcceptorContext(ServerCredentials(box.keytab, box.principal).acquire())
    token = ours.step(None)
    while not (ours.complete and theirs.complete):
        answer = theirs.step(token)
        token = ours.step(answer) if answer else None
    return theirs.principal


def kinit(name: str, keytab: Path, cache: Path) -> None:
    subprocess.run(["kinit", "-kt", keytab, "-c", cache, name], check=True, capture_output=True)


class TestMaking:
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777], ids=oct)
    def test_file_is_for_its_owner_to_read_whatever_the_umask(
        self, alice: Principal, secret: Path, tmp_path: Path, umask: int
    ) -> None:
        before = os.umask(umask)
        try:
            assert _secret.missing(secret)
            _secret.create(secret, alice.name, alice.password)
        finally:
            os.umask(before)
        found = secret.stat()
        assert (found.st_mode & 0o7777, found.st_nlink, found.st_uid) == (0o400, 1, os.geteuid())
        assert os.listdir(secret.parent) == [secret.name]
        assert alice.password.encode() not in secret.read_bytes()
        kinit(alice.name, secret, tmp_path / "cache")

    def test_user_may_be_without_a_realm(self, alice: Principal, secret: Path, tmp_path: Path) -> None:
        _secret.create(secret, alice.name.partition("@")[0], alice.password)
        kinit(alice.name, secret, tmp_path / "cache")

    def test_file_may_be_named_from_the_current_folder(
        self, alice: Principal, secret: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(secret.parent)
        assert _secret.missing(Path("secret"))
        _secret.create(Path("secret"), alice.name, alice.password)
        assert secret.exists()

    def test_nothing_is_written_for_a_wrong_password(self, alice: Principal, secret: Path) -> None:
        refusal(lambda: _secret.create(secret, alice.name, "wrong"), Code.AUTHENTICATION)
        assert not os.listdir(secret.parent)

    def test_a_file_that_is_there_is_never_overwritten(self, alice: Principal, secret: Path) -> None:
        """As one that has appeared while the password was typed."""
        assert _secret.missing(secret)
        secret.write_text("of somebody else")
        assert not _secret.missing(secret)
        error = refusal(lambda: _secret.create(secret, alice.name, alice.password))
        assert "has appeared meanwhile" in error.reason
        assert secret.read_text() == "of somebody else"
        assert os.listdir(secret.parent) == [secret.name]

    def test_nor_is_a_link_that_leads_nowhere(self, alice: Principal, secret: Path) -> None:
        secret.symlink_to(secret.parent / "elsewhere")
        assert not _secret.missing(secret)
        refusal(lambda: _secret.create(secret, alice.name, alice.password))
        assert os.listdir(secret.parent) == [secret.name]

    def test_nothing_is_there_when_the_disk_is_full(self, alice: Principal, small_disk: Path) -> None:
        with contextlib.suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(4096))
        secret = small_disk / "secret"
        error = refusal(lambda: _secret.create(secret, alice.name, alice.password))
        assert error.reason == f"the secret file {str(secret)!r} cannot be made in its folder: No space left on device"
        assert os.listdir(small_disk) == ["filling"]


class TestMissing:
    def test_leaves_nothing_behind(self, secret: Path) -> None:
        assert _secret.missing(secret)
        assert not os.listdir(secret.parent)

    def test_a_folder_that_is_not_there_is_refused(self, secret: Path) -> None:
        error = refusal(lambda: _secret.missing(secret / "secret"))
        assert error.reason.endswith("cannot be made in its folder: No such file or directory")

    def test_a_folder_that_is_a_file_is_refused(self, secret: Path) -> None:
        secret.touch()
        assert "Not a directory" in refusal(lambda: _secret.missing(secret / "secret")).reason

    @as_root
    def test_a_folder_of_somebody_else_is_refused(self, secret: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        os.seteuid(NOBODY)
        try:
            unwritable = refusal(lambda: _secret.missing(Path("/usr/a-secret-of-nobody")))
            unseen = refusal(lambda: _secret.missing(secret))
        finally:
            os.seteuid(0)
        assert unwritable.reason.endswith("cannot be made in its folder: Permission denied")
        assert unseen.reason.endswith("cannot be looked at: Permission denied")


class TestRefusals:
    def refused(self, secret: Path) -> HeadlessError:
        error = refusal(entering("challenge", "alice", secret))
        assert error.reason.startswith(f"the secret file {str(secret)!r} ")
        return error

    @pytest.mark.parametrize("mode", [0o440, 0o404, 0o420, 0o410, 0o644, 0o402, 0o777], ids=oct)
    def test_a_file_that_is_open_to_others(self, made: Path, mode: int) -> None:
        made.chmod(mode)
        error = self.refused(made)
        assert f"open to other users (mode {mode:04o}" in error.reason
        assert error.hint == f"chmod 400 {made}"

    def test_the_hint_can_be_given_to_a_shell(self, made: Path) -> None:
        renamed = made.rename(made.parent / "a secret's $name")
        renamed.chmod(0o444)
        hint = self.refused(renamed).hint
        assert hint is not None
        subprocess.run(hint, shell=True, check=True)
        with _secret.credentials("challenge", self.owner(renamed), renamed):
            pass

    @staticmethod
    def owner(secret: Path) -> str:
        listed = subprocess.run(["klist", "-k", secret], check=True, capture_output=True, text=True).stdout
        return listed.split()[-1]

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o700], ids=oct)
    def test_what_the_owner_may_do_does_not_matter(self, alice: Principal, made: Path, mode: int) -> None:
        made.chmod(mode)
        entering("challenge", alice.name, made)()

    @as_root
    def test_a_file_of_somebody_else(self, made: Path) -> None:
        os.chown(made, NOBODY, -1)
        assert f"belongs to the user {NOBODY}, and this is the user 0" in self.refused(made).reason

    def test_a_symbolic_link(self, made: Path) -> None:
        link = made.parent / "link"
        link.symlink_to(made)
        assert "is a symbolic link" in self.refused(link).reason

    def test_a_symbolic_link_that_leads_nowhere(self, secret: Path) -> None:
        secret.symlink_to(secret.parent / "elsewhere")
        assert "is a symbolic link" in self.refused(secret).reason

    def test_a_second_name_of_a_file(self, made: Path) -> None:
        os.link(made, made.parent / "other")
        assert "has 2 names (hard links)" in self.refused(made).reason

    def test_a_fifo(self, secret: Path) -> None:
        os.mkfifo(secret, 0o400)
        assert "is no regular file" in self.refused(secret).reason

    def test_a_folder_and_a_device(self, secret: Path) -> None:
        assert "is no regular file" in self.refused(secret.parent).reason
        assert "is no regular file" in self.refused(Path("/dev/null")).reason

    def test_an_empty_file(self, secret: Path) -> None:
        secret.touch(0o400)
        error = self.refused(secret)
        assert error.reason.endswith("is empty")
        assert error.hint == "remove it, and start once on a terminal, which makes a new one"

    def test_a_file_that_holds_something_else(self, secret: Path) -> None:
        secret.touch(0o600)
        secret.write_text("the password\n")
        error = self.refused(secret)
        assert "is no keytab" in error.reason
        assert "the password" not in str(error)

    def test_a_file_that_is_too_large(self, secret: Path) -> None:
        secret.touch(0o600)
        secret.write_bytes(b"\5\2" + bytes(64 * 1024 - 1))
        assert "is larger than 65536 bytes" in self.refused(secret).reason

    def test_a_file_that_is_not_there(self, secret: Path) -> None:
        assert "cannot be opened: No such file or directory" in self.refused(secret).reason

    def test_a_file_of_another_principal(self, alice: Principal, made: Path) -> None:
        error = refusal(entering("challenge", "bob", made), Code.AUTHENTICATION)
        assert error.reason.endswith(f"has no key of bob@SANDBOX.TEST, but of {alice.name}")

    def test_arguments_that_do_not_fit_together(self, box: Sandbox, made: Path) -> None:
        refusal(entering("challenge", None, made))
        refusal(entering("challenge", "alice", None))
        refusal(entering("password", "alice", made))


class TestChallenge:
    def test_authenticates_and_touches_no_other_cache(self, box: Sandbox, alice: Principal, made: Path) -> None:
        before = Path(box.ccache).read_bytes()
        with _secret.credentials("challenge", alice.name, made) as credentials:
            assert authenticated(box, credentials) == alice.name
        assert Path(box.ccache).read_bytes() == before

    @pytest.mark.parametrize("name", ["FILE:{}/cache", "DIR:{}/caches", "NONSENSE:{}"])
    def test_needs_no_default_cache(
        self, box: Sandbox, alice: Principal, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setenv("KRB5CCNAME", name.format(tmp_path))
        with _secret.credentials("challenge", alice.name.partition("@")[0], made) as credentials:
            assert authenticated(box, credentials) == alice.name
        assert sorted(tmp_path.rglob("*")) == before

    def test_uses_the_file_that_was_checked_whatever_comes_to_its_name(
        self, box: Sandbox, alice: Principal, made: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check = _secret._check

        def replacing(secret: Path, found: os.stat_result) -> None:
            check(secret, found)
            (secret.parent / "other").write_text("something else")
            (secret.parent / "other").replace(secret)

        monkeypatch.setattr(_secret, "_check", replacing)
        with _secret.credentials("challenge", alice.name, made) as credentials:
            assert authenticated(box, credentials) == alice.name
        assert made.read_text() == "something else"

    def test_leaves_no_descriptor_open(self, alice: Principal, made: Path) -> None:
        before = os.listdir("/proc/self/fd")
        with _secret.credentials("challenge", alice.name, made):
            assert os.listdir("/proc/self/fd") == before

    def test_another_file_of_the_same_name_has_no_share_in_the_tickets(
        self, box: Sandbox, alice: Principal, made: Path
    ) -> None:
        with _secret.credentials("challenge", alice.name, made) as credentials:
            credentials.acquire()
        made.unlink()
        box._realm().run_kadminl(["cpw", "-pw", "another", alice.name])
        _secret.create(made, alice.name, "another")
        box._realm().run_kadminl(["cpw", "-pw", "a-third", alice.name])
        with (
            _secret.credentials("challenge", alice.name, made) as credentials,
            pytest.raises(RemctlAuthenticationError),
        ):
            credentials.acquire()

    @pytest.mark.parametrize("change", [["cpw", "-pw", "changed"], ["modprinc", "-expire", "2000-01-01"]], ids=str)
    def test_is_an_authentication_error_when_the_kdc_takes_the_key_no_more(
        self, box: Sandbox, alice: Principal, made: Path, change: list[str]
    ) -> None:
        box._realm().run_kadminl([*change, alice.name])
        with (
            _secret.credentials("challenge", alice.name, made) as credentials,
            pytest.raises(RemctlAuthenticationError) as caught,
        ):
            credentials.acquire()
        assert not unreachable(caught.value)


class TestLoggedIn:
    @pytest.mark.parametrize("user", [None, "user", "user@SANDBOX.TEST"])
    def test_uses_the_tickets_that_are_there(self, box: Sandbox, user: str | None) -> None:
        with _secret.credentials("osuser", user, None) as credentials:
            assert authenticated(box, credentials) == box.user

    def test_refuses_those_of_another(self, box: Sandbox) -> None:
        error = refusal(entering("osuser", "bob", None), Code.AUTHENTICATION)
        assert error.reason == f"the tickets here are those of {box.user}, not of bob@SANDBOX.TEST"

    def test_refuses_those_of_another_realm(self, box: Sandbox) -> None:
        refusal(entering("osuser", "user@OTHER.TEST", None), Code.AUTHENTICATION)

    def test_reads_nothing_without_a_user(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KRB5CCNAME", "/nowhere/cache")
        entering("osuser", None, None)()

    def test_has_an_error_where_there_are_no_tickets(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KRB5CCNAME", "/nowhere/cache")
        with pytest.raises(RemctlAuthenticationError, match="run kinit"):
            entering("osuser", "user", None)()

    def test_has_an_error_where_the_tickets_have_ended(
        self, box: Sandbox, alice: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ccache = box.kinit(alice, lifetime="1s")
        monkeypatch.setenv("KRB5CCNAME", ccache)
        until(lambda: subprocess.run(["klist", "-s"], check=False).returncode)
        with pytest.raises(RemctlAuthenticationError, match=r"has expired.*run kinit"):
            entering("osuser", alice.name, None)()


class Terminal:
    """A program that asks for a password on a terminal of its own.

    Args:
        controlling: whether the terminal is the one that /dev/tty stands for.
    """

    PROGRAM: Final = textwrap.dedent(
        """
        import sys
        from remctl.jobs.headless import _secret
        from remctl.jobs.headless._codes import HeadlessError
        try:
            print("PASSWORD", ascii(_secret.ask("alice")), file=open(sys.argv[1], "w"))
        except HeadlessError as error:
            print(error.code.name, error, file=open(sys.argv[1], "w"))
        """
    )

    def __init__(self, result: Path, *, controlling: bool) -> None:
        self._result = result
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [*(["setsid", "--ctty"] if controlling else []), sys.executable, "-c", self.PROGRAM, str(result)],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            start_new_session=not controlling,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        os.close(theirs)
        self.shown = b""

    def expect(self, text: bytes) -> None:
        """Wait until a text is shown that was not there when the last was waited for."""
        deadline = time.monotonic() + 20
        seen = b""
        while text not in seen:
            assert select.select([self._ours], [], [], deadline - time.monotonic())[0], self.shown
            seen += os.read(self._ours, 1000)
        self.shown += seen

    def type(self, typed: bytes) -> None:
        os.write(self._ours, typed)

    def result(self) -> str:
        """Return what the program says of it in the end."""
        assert self._process.wait(20) == 0
        with contextlib.suppress(OSError):  # which it is when the other end is closed
            while rest := os.read(self._ours, 1000):
                self.shown += rest
        return self._result.read_text().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@pytest.fixture(params=[True, False], ids=["controlling", "standard-input-alone"])
def terminal(box: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    started = Terminal(tmp_path / "result", controlling=request.param)
    yield started
    started.close()


class TestAsking:
    def test_takes_what_is_typed_twice_and_shows_none_of_it(self, terminal: Terminal) -> None:
        terminal.expect(b"Password for alice@SANDBOX.TEST: ")
        terminal.type("pässwörd\n".encode())
        terminal.expect(b"The same again: ")
        terminal.type("pässwörd\n".encode())
        assert terminal.result() == "PASSWORD 'p\\xe4ssw\\xf6rd'"
        assert b"ssw" not in terminal.shown.replace(b"Password for", b"")

    def test_asks_anew_after_a_difference_and_after_nothing(self, terminal: Terminal) -> None:
        terminal.expect(b"Password for alice@SANDBOX.TEST: ")
        terminal.type(b"one\n")
        terminal.expect(b"The same again: ")
        terminal.type(b"other\n")
        terminal.expect(b"These were not the same. Password for alice@SANDBOX.TEST: ")
        terminal.type(b"\n")
        terminal.expect(b"That was empty. Password for alice@SANDBOX.TEST: ")
        terminal.type(b"third\n")
        terminal.expect(b"The same again: ")
        terminal.type(b"third\n")
        assert terminal.result() == "PASSWORD 'third'"

    def test_gives_up_after_three_times(self, terminal: Terminal) -> None:
        for _ in range(3):
            terminal.expect(b"Password for alice@SANDBOX.TEST: ")
            terminal.type(b"one\n")
            terminal.expect(b"The same again: ")
            terminal.type(b"other\n")
        assert terminal.result() == "PARAMETER no password was typed twice alike"

    def test_an_end_of_the_input_is_no_password(self, terminal: Terminal) -> None:
        terminal.expect(b"Password for alice@SANDBOX.TEST: ")
        terminal.type(b"\x04")
        assert terminal.result() == "PARAMETER no password could be read from the terminal (EOFError)"

    @pytest.mark.parametrize("terminal", [True], indirect=True)
    def test_what_is_no_text_is_no_password(self, terminal: Terminal) -> None:
        terminal.expect(b"Password for alice@SANDBOX.TEST: ")
        terminal.type(b"p\xffq\n")
        assert terminal.result() == "PARAMETER no password could be read from the terminal (UnicodeDecodeError)"

    def test_is_refused_without_a_terminal(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = io.StringIO()
        closed.close()
        for stdin in (None, closed, io.StringIO("password\npassword\n")):
            monkeypatch.setattr(sys, "stdin", stdin)
            error = refusal(lambda: _secret.ask("alice"))
            assert "there is no terminal" in error.reason
            assert error.hint == "start once on a terminal, which makes it"

    def test_is_refused_on_a_terminal_that_would_show_the_password(
        self, box: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Showing(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stdin", Showing("password\npassword\n"))
        monkeypatch.setattr(getpass, "getpass", getpass.fallback_getpass)  # type: ignore[attr-defined]
        assert "GetPassWarning" in refusal(lambda: _secret.ask("alice")).reason

    def test_is_refused_to_whom_is_no_principal(self, box: Sandbox) -> None:
        assert "is no principal" in refusal(lambda: _secret.ask("a@b@c")).reason
