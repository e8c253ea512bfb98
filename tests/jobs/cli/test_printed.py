"""What is printed for systemd and remctld, given to both."""

from __future__ import annotations

import configparser
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

import remctl
from jobs.cli.calling import complaint, new_folder, run
from remctl.jobs.settings import load
from remctl.jobs.store import Store
from remctl.testing import Sandbox


def unit(text: str) -> configparser.ConfigParser:
    """Read a unit."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # its own documentation does so
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("daemon", ["runner", "serve", "door", "up"])
def test_systemd_finds_nothing_wrong_with_a_unit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], daemon: str
) -> None:
    printed = run(capsys, "print-unit", daemon)
    file = tmp_path / "remctl-jobs.service"
    file.write_text(printed)
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run([analyze, "verify", file], capture_output=True, text=True, check=False)
        assert (done.returncode, str(file) in done.stderr) == (0, False), done.stderr
    service = unit(printed)["Service"]
    assert service["Type"] == "notify"
    assert service["User"] == pwd.getpwuid(folder.stat().st_uid).pw_name
    scripts = daemon in ("runner", "up")
    assert service["ExecStart"].endswith(f"--config {folder}/jobs.toml {daemon}{' --drain 300' if scripts else ''}")
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > (300 if scripts else 30)
    assert service["ReadWritePaths"] == str(folder)
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == ("full" if scripts else "strict")


def test_a_unit_is_for_the_user_and_the_time_that_are_wanted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.toml").write_text("[runner]\nlease = 100\ngrace = 40\n")
    service = unit(run(capsys, "print-unit", "runner", "--user", "jobs", "--drain", "7.5"))["Service"]
    assert service["User"] == "jobs"
    assert service["ExecStart"].endswith("--drain 7.5")
    assert int(service["TimeoutStopSec"]) > 7.5 + 40


def test_a_unit_names_paths_as_systemd_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'a "strange" $HOME 100%').mkdir()
    folder = new_folder(tmp_path / 'a "strange" $HOME 100%')
    capsys.readouterr()
    service = unit(run(capsys, "--config", str(folder / "jobs.toml"), "print-unit", "up"))["Service"]
    written = str(tmp_path) + r"/a \"strange\" $HOME 100%%/jobs"
    assert service["ReadWritePaths"] == f'"{written}"'
    assert f'"{written}/jobs.toml"'.replace("$", "$$") in service["ExecStart"]


def test_a_path_that_no_unit_can_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\nb").mkdir()
    folder = new_folder(tmp_path / "a\nb")
    capsys.readouterr()
    assert "no unit can name a path" in complaint(capsys, "--config", str(folder / "jobs.toml"), "print-unit", "up")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_nobody_known_is_that_of_a_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.chown(folder, 54321)
    assert unit(run(capsys, "print-unit", "up"))["Service"]["User"] == "54321"
    assert f"{folder}/remctl-job user=54321 " in run(capsys, "print-remctld-config")


def test_remctld_has_the_command_with_what_is_printed(
    folder: Path, box: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "print-remctld-config")
    assert run(capsys, "print-remctld-config") == printed
    server = box.add_server()
    try:
        server.add_config(printed)
        with remctl.Remctl(server.host, server.port, server.principal) as session:
            assert session.run(["job", "submit", "nap"], check=True).stdout == b"1\n"
            store = Store(load(folder / "jobs.toml").database_url)
            assert store.jobs.get(1).owner == box.user
            store.close()
            assert b"submit" in session.run(["job", "help"], check=True).stdout
    finally:
        server.stop()


def test_remctld_cannot_run_a_program_with_blanks_in_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a b").mkdir()
    folder = new_folder(tmp_path / "a b")
    capsys.readouterr()
    said = complaint(capsys, "--config", str(folder / "jobs.toml"), "print-remctld-config")
    assert said == f"remctld cannot run a program with blanks in its path: {folder}/remctl-job"
    assert not (folder / "remctl-job").exists()
