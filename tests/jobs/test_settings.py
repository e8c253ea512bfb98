"""The configuration file: defaults, and what is said of each mistake."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from remctl.jobs.settings import SettingsError, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the path of a configuration file."""
    return tmp_path / "jobs.toml"


def test_an_empty_file_is_all_defaults(file: Path) -> None:
    file.write_text("")
    settings = load(file)
    assert settings.runner.poll == 5
    assert settings.runner.name == socket.gethostname()
    assert settings.database_url == f"sqlite:///{file.parent}/jobs.db"
    assert settings.scripts == file.parent / "scripts"


def test_one_line_changes_how_often_the_runner_looks(file: Path) -> None:
    file.write_text("[runner]\npoll = 0.5\n")
    assert load(file).runner.poll == 0.5


def test_a_relative_name_of_the_file_makes_absolute_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("")
    monkeypatch.chdir(file.parent)
    assert load("jobs.toml").attempts == file.parent / "attempts"


def test_another_database_is_taken_with_its_password(file: Path) -> None:
    file.write_text('database = "postgresql://jobs:hush@db.example.org/jobs"\n')
    assert load(file).database_url == "postgresql://jobs:hush@db.example.org/jobs"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[runner]\n\npoll = 0\n", "3: runner.poll: expected float >= 0.1"),
        ('[runner]\npoll = "soon"\n', "2: runner.poll: expected float, got str"),
        ("[runner]\nconcurrency = 1.5\n", "2: runner.concurrency: expected int, got float"),
        ("[runner]\nconcurrency = 0\n", "2: runner.concurrency: expected int >= 1"),
        ("\n[runner]\nname = ''\n", "3: runner.name: expected str of length >= 1"),
        ("[runner]\nlease = 5\ngrace = 5\n", "3: runner.grace: expected at most half of lease"),
        ("\n[runner]\nspeed = 1\n", "3: runner.speed: there is no such setting"),
        ("speed = 1\n", "1: speed: there is no such setting"),
        ("\n[nothing]\nx = 1\n", "2: nothing: there is no such setting"),
        ("folder = '/'\n", "1: folder: there is no such setting"),
        ("\nrunner = 1\n", "2: runner: expected object, got int"),
        ("\ndatabase = 1\n", "2: database: expected str, got int"),
        ("\ndatabase = 'jobs.db'\n", "2: database: it is no URL"),
        ("[server]\nurl = 'jobs'\n", "2: server.url: expected http://HOST or https://HOST"),
        ("[log]\nlevel = 'INFO'\n", "2: log.level: invalid enum value 'INFO'"),
        ("\n\n[runner\n", "3: Expected ']' at the end of a table declaration"),
        ("poll = 1\npoll = 2\n", "2: Cannot overwrite a value"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert str(caught.value) == f"{file}:{complaint}"


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"No such file or directory; make a folder for the jobs: remctl-jobs init"):
        load(file)


def test_a_file_that_is_no_text_is_told(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="it is not UTF-8"):
        load(file)
