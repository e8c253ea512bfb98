"""Tests of accounts.py: commands are run in memory, by `backend.call`, without a server and without Kerberos."""

import importlib
from collections.abc import Callable
from pathlib import Path

import accounts
import pytest

import remctl
from remctl.backend import ExitStatus

ADMIN = "admin@EXAMPLE.ORG"

Call = Callable[..., remctl.Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Give a function that runs a command as an administrator, in a folder of the test's own."""
    monkeypatch.setenv("ACCOUNTS", str(tmp_path))
    (tmp_path / "admins").write_text(f"{ADMIN}\n")
    importlib.reload(accounts)

    def call(*words: str | bytes, principal: str = ADMIN) -> remctl.Result:
        return accounts.backend.call(["account", *words], principal=principal)

    return call


def test_an_account_is_made_changed_and_deleted(call: Call) -> None:
    assert call("create", "ada", "the first") == (b"created ada\n", b"", 0)
    assert call("quota", "set", "ada", "800").status == 0
    assert call("quota", "show", "ada").stdout == b"800\n"
    assert b"shell     /bin/bash\nquota     800 MB\n" in call("show", "ada").stdout
    assert call("delete", "ada").stdout == b"deleted ada\n"
    assert call("list").stdout == b""


def test_options_come_before_the_arguments(call: Call) -> None:
    assert call("create", "--shell", "/bin/sh", "-q", "7", "bob").status == 0
    assert call("list", "--shell=/bin/sh").stdout == b"bob /bin/sh 7\n"
    assert call("list", "--shell=/bin/bash").stdout == b""


def test_a_list_may_be_long(call: Call) -> None:
    table = "".join(f"user{number:04},/bin/sh,1\n" for number in range(accounts.PAGE * 2 + 1))
    assert call("load", table).stdout == b"loaded 1001\n"
    assert len(call("list").stdout.splitlines()) == 1001


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["create", "Ada"], b"account create: invalid argument <name> 'Ada': it does not match"),
        (["create", "--quota", "lots", "ada"], b"account create: invalid argument --quota 'lots': it is not a whole"),
        (["create", "--shell", "/bin/cat", "ada"], b"it must be one of /bin/bash, /bin/sh, /usr/sbin/nologin"),
        (
            ["quota", "set", "ada", "-1"],
            b"account quota set: invalid argument <megabytes> '-1': it must be 0 to 1000000",
        ),
        (["passwd", "ada", "short"], b"account passwd: invalid argument <password>: a password has 8 characters"),
        (["load", "ada,/bin/sh\n"], b"account load: line 1: not enough values"),
        (["load", "ada,/bin/sh,1\nBob,/bin/sh,1\n"], b"account load: line 2: it does not match"),
        (["load", "ada,/bin/sh,-1\n"], b"account load: line 1: it must be 0 to 1000000"),
        (["load", b"ada,/bin/sh,1\n\xff"], b"account load: line "),
        (["delete"], b"account delete: insufficient arguments: <name> is missing"),
    ],
)
def test_arguments_are_checked(call: Call, words: list[str], complaint: bytes) -> None:
    result = call(*words)
    assert result.status == ExitStatus.USAGE
    assert complaint in result.stderr


def test_what_is_not_there_is_an_error(call: Call) -> None:
    assert call("show", "eve") == (b"", b"account show: there is no account eve\n", 1)
    assert call("delete", "--force", "eve").status == 0


def test_a_table_that_is_wrong_changes_nothing(call: Call) -> None:
    call("create", "ada")
    assert call("load", "bob,/bin/sh,1\nada,/bin/sh,1\n").stderr.startswith(b"account load: line 2: UNIQUE constraint")
    assert call("list").stdout == b"ada /bin/bash 100\n"
    assert call("load", "--replace", "bob,/bin/sh,1\nada,/bin/sh,1\n").stdout == b"loaded 2\n"


def test_a_password_is_not_kept_as_it_is(call: Call) -> None:
    call("create", "ada")
    assert b"password  not set" in call("show", "ada").stdout
    assert call("passwd", "ada", "correct horse").status == 0
    assert b"password  set" in call("show", "ada").stdout
    assert b"correct horse" not in (accounts.FOLDER / "accounts.db").read_bytes()


def test_waiting_ends_when_the_account_is_there(call: Call) -> None:
    call("create", "ada")
    assert call("wait", "ada").stdout == b"waiting for ada\nada is there\n"


def test_only_administrators_may_change_something(call: Call) -> None:
    assert call("list", principal="bob@EXAMPLE.ORG").status == 0
    with pytest.raises(remctl.RemctlCommandError) as caught:
        call("create", "bob", principal="bob@EXAMPLE.ORG")
    assert caught.value.code == remctl.ErrorCode.ACCESS


def test_help_shows_what_one_may_do(call: Call) -> None:
    assert b"account delete" in call("help").stdout
    assert b"account delete" not in call("help", principal="bob@EXAMPLE.ORG").stdout
