"""Machines and accounts on the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from jobs.cli.calling import complaint, run
from remctl.jobs.settings import load
from remctl.jobs.store import Store


def test_machines_are_added_changed_listed_and_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "machine", "add", "one.example.org", "192.0.2.1")
    run(capsys, "machine", "add", "two.example.org", "2001:db8::1", "--certified")
    lines = [line.split() for line in run(capsys, "machine", "list").splitlines()]
    assert lines == [
        ["one.example.org", "192.0.2.1", "seen", "never"],
        ["two.example.org", "2001:db8::1", "certified", "seen", "never"],
    ]
    store = Store(load(folder / "jobs.toml").database_url)
    store.machines.seen("two.example.org", "192.0.2.2")
    store.close()
    run(capsys, "machine", "remove", "one.example.org")
    (line,) = run(capsys, "machine", "list").splitlines()
    assert line.split()[:4] == ["two.example.org", "192.0.2.2", "certified", "seen"]
    assert line.split()[4] > "2020"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["machine", "add", "one", "one.example.org"], "an address has numbers"),
        (["machine", "add", "", "192.0.2.1"], "a machine's name must not be empty"),
        (["machine", "remove", "one"], "there is no machine 'one'"),
        (["account", "remove", "ada"], "there is no account 'ada'"),
        (["account", "password", ""], "name must not be empty"),
    ],
)
def test_what_makes_no_sense_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert text in complaint(capsys, *arguments)


def test_a_password_is_made_up_and_printed_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = run(capsys, "account", "password", "robots").rstrip("\n")
    again = run(capsys, "account", "password", "robots").rstrip("\n")
    assert password != again
    store = Store(load(folder / "jobs.toml").database_url)
    assert store.accounts.allows("robots", again)
    assert not store.accounts.allows("robots", password)
    store.close()
    assert [line.split()[0] for line in run(capsys, "account", "list").splitlines()] == ["externalscript", "robots"]
    run(capsys, "account", "remove", "externalscript")
    assert [line.split()[0] for line in run(capsys, "account", "list").splitlines()] == ["robots"]


def test_a_password_of_ones_own_comes_on_standard_input(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert run(capsys, "account", "password", "robots", "--stdin") == ""
    store = Store(load(folder / "jobs.toml").database_url)
    assert store.accounts.allows("robots", "correct horse battery")
    store.close()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("externalscript\n", "password must not be the account's name"),
        ("hush\n", "password must have 12 characters or more, and has 4"),
        ("", "password must not be empty"),
        ("hush\udcff" * 9, "the password is no text in UTF-8"),
    ],
)
def test_a_password_that_anybody_would_guess_is_refused_and_the_old_one_stays(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str, text: str
) -> None:
    password = run(capsys, "account", "password", "externalscript").rstrip("\n")
    data = io.BytesIO(given.encode("utf-8", "surrogateescape"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data, "utf-8"))
    assert text in complaint(capsys, "account", "password", "externalscript", "--stdin")
    store = Store(load(folder / "jobs.toml").database_url)
    assert store.accounts.allows("externalscript", password)
    store.close()
