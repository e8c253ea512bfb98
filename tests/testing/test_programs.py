"""Finding the server programs, and saying which package brings one that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl import RemctlError
from remctl.testing import SandboxError, programs


def make(folder: Path, name: str, mode: int = 0o755) -> str:
    """Make a program."""
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    return str(program)


@pytest.mark.parametrize("program", programs.PACKAGES)
def test_every_program_is_found_on_this_machine(program: str) -> None:
    assert Path(programs.find(program)).name == program


def test_a_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    expected = make(tmp_path, "remctld")
    assert programs.find("remctld") == expected


def test_a_program_is_found_where_servers_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", (str(tmp_path),))
    expected = make(tmp_path, "remctld")
    assert programs.find("remctld") == expected


def test_a_program_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert Path(programs.find("kinit")).name == "kinit"


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("krb5kdc", "krb5-kdc"),
        ("kdb5_util", "krb5-kdc"),
        ("kadmin.local", "krb5-admin-server"),
        ("kinit", "krb5-user"),
        ("klist", "krb5-user"),
        ("remctld", "remctl-server"),
    ],
)
def test_a_missing_program_is_an_error_with_its_package(
    program: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())
    with pytest.raises(SandboxError) as caught:
        programs.find(program)
    assert str(caught.value) == f"{program} is not installed; on Debian and Ubuntu: apt-get install {package}"


def test_a_file_that_cannot_be_run_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "kinit", 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())
    with pytest.raises(SandboxError, match=r"^kinit is not installed"):
        programs.find("kinit")


def test_a_sandbox_error_is_one_of_the_packages() -> None:
    assert issubclass(SandboxError, RemctlError)
