"""Scripts and jobs on the command line."""

from __future__ import annotations

import io
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.cli.calling import COMMAND, complaint, run
from jobs.runners import until
from remctl.jobs import cli
from remctl.jobs.cli._shared import me
from remctl.jobs.runner import Runner
from remctl.jobs.settings import load
from remctl.jobs.store import Store

SECRET = """\
# /// job
# description = "Take a password."
# [parameters.password]
# type = "secret"
# [parameters.times]
# type = "integer"
# default = 1
# ///
import json, os

parameters = json.load(open(os.environ["JOB_PARAMETERS"]))
print(len(parameters["password"]) * parameters["times"])
"""


@pytest.fixture
def work(folder: Path) -> Iterator[None]:
    """Have a runner work that is woken, or looks at once."""
    (folder / "jobs.toml").write_text("[runner]\npoll = 0.1\nlease = 2\ngrace = 0.5\n")
    settings = load(folder / "jobs.toml")
    store = Store(settings.database_url)
    runner = Runner(settings, store)
    thread = threading.Thread(target=runner.run)
    thread.start()
    yield
    runner.stop()
    thread.join()
    store.close()


# Scripts


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
    assert "turn it off instead" in complaint(capsys, "script", "remove", "python")
    run(capsys, "script", "remove", "nap")
    assert not (folder / "scripts" / "nap.py").exists()


def test_a_script_is_shown_with_what_it_takes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "door.py").write_text(
        SECRET.replace("# [parameters.p", '# users = ["princ:ada@X"]\n# [parameters.p', 1)
    )
    run(capsys, "script", "install", str(tmp_path / "door.py"))
    first, *lines = run(capsys, "script", "show", "door").splitlines()
    assert first == "door (python): Take a password."
    assert [line.split(None, 1) for line in lines if "SHA" not in line] == [
        ["run-time", "3600 s"],
        ["users", "princ:ada@X"],
        ["parameter", "password (secret, required)"],
        ["parameter", "times (integer, optional, by default 1)"],
    ]
    assert run(capsys, "script", "show", "python").startswith("python (python, off): ")


def test_a_script_that_was_changed_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "scripts" / "hello.sh"
    file.chmod(0o700)
    file.write_text("echo changed\n")
    assert cli.main(["script", "show", "hello"]) == 1
    assert "it is not what was installed" in capsys.readouterr().err


# Jobs


@pytest.mark.parametrize(
    ("arguments", "reason"),
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
        (["wait", "99"], "there is no job 99"),
        (["list", "--limit", "0"], "limit must be 1 to 1000: 0"),
        (["script", "install", "/nowhere/x.sh"], "No such file"),
        (["script", "show", "nothing"], "there is no script 'nothing'"),
        (["--config", "/nowhere/jobs.toml", "status"], "/nowhere/jobs.toml: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert reason in complaint(capsys, *arguments)
    assert run(capsys, "status") == ""


def test_a_configuration_that_is_wrong_is_told_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.toml").write_text("[runner]\npoll = 0\n")
    assert complaint(capsys, "status") == f"{folder}/jobs.toml:2: runner.poll: expected float >= 0.1"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["status", "--speed"], ["runner", "--drain", "-1"]])
def test_a_command_line_that_is_none_ends_with_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_job_runs_and_its_output_is_kept(folder: Path, work: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "submit", "hello", "name=Ada") == "1\n"
    assert run(capsys, "wait", "1").startswith("1 SUCCESS (exit) hello ")
    assert run(capsys, "status", "1").startswith("1 SUCCESS (exit) hello ")
    assert run(capsys, "status").count("\n") == 1
    assert cli.main(["output", "1"]) == 0
    assert capsys.readouterr() == ("hello Ada\n", "complaint\n")


def test_a_job_that_runs_is_stopped_and_run_again(folder: Path, work: None, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "submit", "nap")
    until(lambda: "IN_PROGRESS" in run(capsys, "status", "1"))
    run(capsys, "stop", "1")
    assert cli.main(["wait", "1"]) == 1
    assert capsys.readouterr().out.startswith("1 STOPPED (stopped) nap ")
    assert run(capsys, "retry", "1").startswith("1 PENDING nap")
    assert run(capsys, "abort", "1").startswith("1 ABORT")


def test_jobs_are_listed_by_state_and_script_and_owner(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nap"], ["nap"], ["hello", "name=Ada"]):
        run(capsys, "submit", *arguments)
    run(capsys, "abort", "1")

    def numbers(*arguments: str) -> list[str]:
        return [line.split()[0] for line in run(capsys, "list", *arguments).splitlines()]

    assert numbers() == ["3", "2", "1"]
    assert numbers("--limit", "1") == ["3"]
    assert numbers("--state", "aborted", "--state", "success") == ["1"]
    assert numbers("--script", "nap") == ["2", "1"]
    assert numbers("--owner", me()) == ["3", "2", "1"]
    assert numbers("--owner", "ada@EXAMPLE.ORG") == []


def test_a_report_is_shown_below_its_job(folder: Path, work: None, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "submit", "nap")
    until(lambda: "IN_PROGRESS" in run(capsys, "status", "1"))
    store = Store(load(folder / "jobs.toml").database_url)
    store.attempts.report(1, False, "no space\n\x1b[2J")
    store.close()
    run(capsys, "abort", "1")
    assert run(capsys, "status", "1").splitlines()[1] == r"  attempt 1 reported failure: no space \x1b[2J"


# Secrets


def test_a_secret_comes_on_standard_input_and_is_never_shown(
    folder: Path,
    tmp_path: Path,
    work: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "door.py").write_text(SECRET)
    run(capsys, "script", "install", str(tmp_path / "door.py"))
    monkeypatch.setattr("sys.stdin", io.StringIO('{"password": "hush", "times": 2}'))
    assert run(capsys, "submit", "door", "--stdin") == "1\n"
    assert run(capsys, "wait", "1").startswith("1 SUCCESS")
    assert run(capsys, "output", "1") == "8\n"


@pytest.mark.parametrize(
    ("words", "piped", "reason"),
    [
        (["password=hush"], None, "the parameter password is secret; change it, and give it with --stdin"),
        (["times=2"], '{"times": "3", "password": "hush"}', "the parameter times is given twice"),
        ([], "password=hush", "what comes with --stdin is no JSON"),
        ([], '["hush"]', "what comes with --stdin must be a JSON object"),
        ([], '{"password": ["hush"]}', "what comes with --stdin must be a JSON object"),
    ],
)
def test_a_secret_that_comes_in_another_way_is_refused_without_being_shown(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    piped: str | None,
    reason: str,
) -> None:
    (tmp_path / "door.py").write_text(SECRET)
    run(capsys, "script", "install", str(tmp_path / "door.py"))
    monkeypatch.setattr("sys.stdin", io.StringIO(piped or ""))
    said = complaint(capsys, "submit", "door", *words, *(["--stdin"] if piped else []))
    assert reason in said
    assert "hush" not in said


# The command itself


def test_output_that_nobody_reads_is_no_error_of_its_own(folder: Path) -> None:
    with subprocess.Popen([*COMMAND, "script", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait() == 1
        assert process.stderr.read() == b""


def test_a_wait_that_is_interrupted_ends_without_a_word(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    run(capsys, "submit", "nap")
    monkeypatch.setattr("time.sleep", interrupt)
    assert cli.main(["wait", "1"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_database_that_breaks_is_told_without_its_statement(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(load(folder / "jobs.toml").database_url)
    with store.database.write() as connection:
        connection.execute(text("DROP TABLE machines"))
    store.close()
    assert complaint(capsys, "machine", "list") == "the database cannot be used: no such table: machines"


def test_a_file_that_cannot_be_written_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "remctl-job.new").mkdir()
    assert complaint(capsys, "print-remctld-config") == f"{folder}/remctl-job.new: Is a directory"
