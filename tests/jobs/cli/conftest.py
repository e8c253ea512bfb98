"""Fixtures of the tests of `remctl-jobs`."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli.calling import new_folder
from remctl.jobs import cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Give a working folder with the scripts `hello` and `nap`, which all calls take."""
    made = new_folder(tmp_path)
    monkeypatch.setenv(cli.VARIABLE, str(made / "jobs.toml"))
    capsys.readouterr()
    return made
