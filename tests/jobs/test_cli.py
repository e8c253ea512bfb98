"""The console command `remctl-jobs`, from a new folder to the output of a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remctl.jobs import cli
from remctl.jobs.settings import load
from remctl.jobs.states import JobState
from remctl.jobs.store import Store

HELLO = """\
#!/bin/bash
# /// job
# description = "Say hello."
# [parameters.name]
# type = "text"
# ///
echo "hello $JOB_PARAM_NAME"
echo "complaint" >&2
"""

SLEEP = """\
# /// job
# description = "Sleep."
# ///
import time

time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Give a working folder with the script `hello`, which all calls take."""
    made = tmp_path / "jobs"
    monkeypatch.setenv(cli.VARIABLE, str(made / "jobs.toml"))
    assert cli.main(["init", str(made)]) == 0
    (tmp_path / "hello.sh").write_text(HELLO)
    (tmp_path / "nap.py").write_text(SLEEP)
    for script in ("hello.sh", "nap.py"):
        assert cli.main(["script", "install", str(tmp_path / script)]) == 0
    capsys.readouterr()
    return made


@pytest.fixture
def runner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a runner that looks every hour, unless it is woken."""
    (folder / "jobs.toml").write_text("[runner]\npoll = 3600\nlease = 1\ngrace = 0.5\n")
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "remctl.jobs.cli", "runner"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "runner.sock").exists():
            assert process.poll() is None
        yield process
        process.kill()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that succeeds; return what it prints."""
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that cannot be done; return its one line."""
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("remctl-jobs: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("remctl-jobs: ").rstrip("\n")


def until(state: JobState, job: int) -> None:
    """Wait until a job stands there."""
    store = Store(load(os.environ[cli.VARIABLE]).database_url)
    while (found := store.jobs.get(job)).state is not state:
        assert not found.state.final
    store.close()


def test_a_folder_is_made_once_and_is_private(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in folder.iterdir()} >= {"jobs.toml", "jobs.db", "scripts", "attempts"}
    for path in (folder, folder / "jobs.toml", folder / "scripts", folder / "attempts"):
        assert path.stat().st_mode & 0o077 == 0
    assert complaint(capsys, "init", str(folder)) == f"there is a {folder}/jobs.toml already"


def test_the_template_is_all_defaults(folder: Path) -> None:
    template = load(folder / "jobs.toml")
    (folder / "jobs.toml").write_text("")
    assert template == load(folder / "jobs.toml")


def test_scripts_are_listed_and_ad_hoc_python_is_off(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in run(capsys, "script", "list").splitlines()]
    assert [(line[0], line[1]) for line in lines] == [("hello", "bash"), ("nap", "python"), ("python", "python")]
    assert lines[2][2] == "off"
    assert "the script 'python' is turned off" in complaint(capsys, "submit", "python", "code=1")


def test_scripts_are_turned_off_and_on_and_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "script", "disable", "hello")
    assert complaint(capsys, "submit", "hello", "name=Ada") == "the script 'hello' is turned off"
    run(capsys, "script", "enable", "hello")
    run(capsys, "submit", "hello", "name=Ada")
    assert "turn it off instead" in complaint(capsys, "script", "remove", "hello")
    run(capsys, "script", "remove", "nap")
    assert not (folder / "scripts" / "nap.py").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["submit", "nothing"], "there is no script 'nothing'"),
        (["submit", "hello"], "parameter name: it is missing"),
        (["submit", "hello", "name"], "a parameter is written NAME=VALUE: 'name'"),
        (["submit", "hello", "name=a", "name=b"], "the parameter name is given twice"),
        (["submit", "hello", "name=a", "size=b"], "size"),
        (["submit", "hello", "name=a", "--priority", "101"], "priority must be -100 to 100: 101"),
        (["status", "99"], "there is no job 99"),
        (["output", "99"], "there is no job 99"),
        (["stop", "99"], "there is no job 99"),
        (["script", "install", "/nowhere/x.sh"], "No such file"),
        (["--config", "/nowhere/jobs.toml", "status"], "/nowhere/jobs.toml: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert text in complaint(capsys, *arguments)


def test_a_job_that_is_submitted_runs_at_once_and_its_output_is_kept(
    folder: Path, runner: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "submit", "hello", "name=Ada") == "1\n"
    until(JobState.SUCCESS, 1)
    assert run(capsys, "status", "1").startswith("1 SUCCESS (exit) hello ")
    assert run(capsys, "status").count("\n") == 1
    assert cli.main(["output", "1"]) == 0
    assert capsys.readouterr() == ("hello Ada\n", "complaint\n")


def test_a_job_that_runs_is_stopped_and_run_again(
    folder: Path, runner: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "submit", "nap")
    until(JobState.IN_PROGRESS, 1)
    run(capsys, "stop", "1")
    until(JobState.STOPPED, 1)
    assert run(capsys, "retry", "1").startswith("1 PENDING nap")
    assert run(capsys, "abort", "1").startswith("1 ABORT")


def test_the_runner_ends_when_it_is_told_to(
    folder: Path, runner: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "submit", "nap")
    until(JobState.IN_PROGRESS, 1)
    runner.send_signal(signal.SIGTERM)
    before = signal.getsignal(signal.SIGINT)
    assert "another runner works in" in complaint(capsys, "runner")
    assert signal.getsignal(signal.SIGINT) is before
    runner.send_signal(signal.SIGTERM)
    assert runner.stderr is not None
    assert "Traceback" not in runner.stderr.read()
    assert runner.wait() == 0
    until(JobState.STOPPED, 1)
