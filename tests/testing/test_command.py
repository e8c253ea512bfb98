"""The console command `remctl-sandbox`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs_under_test import Program, all_ended, nothing_left

from remctl.testing import programs
from remctl.testing.command import main

COMMAND = Path(sys.executable).with_name("remctl-sandbox")

CLIENT = "remctl -p $REMCTL_SANDBOX_PORT $REMCTL_SANDBOX_HOST"

FOLDER = 'echo "${KRB5_CONFIG%/*}"'
"""Prints the sandbox's folder, in a shell."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """`main` sets signal handlers, for it has the process to itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# A program


def test_a_program_runs_in_the_sandbox(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "sh", "-c", f"{CLIENT} example hello"]) == 0
    assert capfd.readouterr() == ("hello world\n", "")


def test_it_is_installed_as_a_command() -> None:
    command: list[str | Path] = [COMMAND, "--", "sh", "-c", f"{CLIENT} example echo a b"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "a b\n", "")


def test_the_first_servers_principal_is_in_the_environment(capfd: pytest.CaptureFixture[str]) -> None:
    client = CLIENT.replace("remctl ", "remctl -s $REMCTL_SANDBOX_PRINCIPAL ", 1)
    assert main(["--", "sh", "-c", f"echo $REMCTL_SANDBOX_PRINCIPAL; {client} example hello"]) == 0
    assert capfd.readouterr() == ("host/localhost@SANDBOX.TEST\nhello world\n", "")


def test_the_programs_options_are_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "echo", "--realm", "-x", "--", "--help"]) == 0
    assert capfd.readouterr().out == "--realm -x -- --help\n"


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_handed_on(status: int) -> None:
    assert main(["--", "sh", "-c", f"exit {status}"]) == status


def test_the_end_by_a_signal_is_told_as_shells_do() -> None:
    assert main(["--", "sh", "-c", "kill -9 $$"]) == 128 + signal.SIGKILL


def test_the_commands_status_is_handed_on() -> None:
    assert main(["--", "sh", "-c", f"{CLIENT} example status 3"]) == 3


def test_a_missing_program_is_127(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "/nonexistent/program"]) == 127
    assert capfd.readouterr() == ("", "remctl-sandbox: cannot run /nonexistent/program: No such file or directory\n")


def test_a_program_that_may_not_be_run_is_126(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--", str(tmp_path)]) == 126
    assert capfd.readouterr() == ("", f"remctl-sandbox: cannot run {tmp_path}: Permission denied\n")


# Options


def test_realm_and_user_can_be_chosen(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--realm", "OTHER.EXAMPLE", "--user", "alice", "--", "klist"]) == 0
    assert "Default principal: alice@OTHER.EXAMPLE\n" in capfd.readouterr().out


def test_lines_of_configuration_can_be_added(capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["--config", "test one /bin/echo ANYUSER", "--config", "test two /bin/echo ANYUSER"]
    assert main([*lines, "--", "sh", "-c", f"{CLIENT} test one 1; {CLIENT} test two 2"]) == 0
    assert capfd.readouterr().out == "one 1\ntwo 2\n"


def test_broken_configuration_is_an_error_of_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "test hello /bin/true stdin=bogus ANYUSER", "--", "echo", "not reached"]) == 1
    out, errors = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"remctl-sandbox: .*\n", errors)
    assert "invalid stdin value bogus" in errors


def test_a_missing_server_is_an_error_of_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())
    assert main(["--", "echo", "not reached"]) == 1
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors.startswith("remctl-sandbox: krb5kdc is not installed; ")


def test_the_help_names_the_options_and_the_examples(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capfd.readouterr().out
    for word in ("--realm", "--user", "--config", "hello", "echo", "status", "count", "sleep", "bytes", "cat"):
        assert word in text


def test_an_unknown_option_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--bogus"])
    assert caught.value.code == 2
    assert "--bogus" in capfd.readouterr().err


# A shell


def shell() -> dict[str, str]:
    """The environment for a plain shell, in which python3 has this package."""
    return {**os.environ, "SHELL": "/bin/sh", "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}


def test_without_a_program_there_is_a_shell() -> None:
    with Program([COMMAND], shell()) as program:
        status, output, errors = program.wait(f"{CLIENT} example hello\nexit 3\n")
    assert (status, errors) == (3, "")
    assert output.endswith("hello world\n")


def test_the_shell_is_told_where_everything_is() -> None:
    with Program([COMMAND, "--user", "alice"], shell()) as program:
        _, output, _ = program.wait(f'echo "[$REMCTL_SANDBOX_HOST][$REMCTL_SANDBOX_PORT]"; {FOLDER}\n')
    facts = dict(re.findall(r"^  (host|port|principal|you are|folder) +(.*)$", output, re.MULTILINE))
    assert facts["principal"] == "host/localhost@SANDBOX.TEST"
    assert facts["you are"] == "alice@SANDBOX.TEST"
    assert output.endswith(f"[{facts['host']}][{facts['port']}]\n{facts['folder']}\n")


def test_what_it_suggests_works() -> None:
    with Program([COMMAND], shell()) as program:
        lines = [program.line()]
        while "variables" not in lines[-1]:
            lines.append(program.line())
        tries = [line.removeprefix("Try:").strip() for line in lines if "example" in line]
        assert len(tries) == 2
        status, output, errors = program.wait("\n".join(tries))
    assert (status, errors) == (0, "")
    assert output == "hello world\nRemctlSimpleResult(stdout=b'hi\\n', stderr=None, status=0)\n"


def test_without_the_variable_the_shell_is_the_systems() -> None:
    environment = shell()
    del environment["SHELL"]
    with Program([COMMAND], environment) as program:
        status, output, _ = program.wait("echo $0; exit 4\n")
    assert status == 4
    assert output.endswith("/bin/sh\n")


# The end


def test_nothing_is_left_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "sh", "-c", FOLDER]) == 0
    assert nothing_left(Path(capfd.readouterr().out.strip()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number: int) -> None:
    with Program([COMMAND, "--", "sh", "-c", f"{FOLDER}; exec sleep 1000"]) as program:
        folder = Path(program.line())
        program.settle()
        program.signal(number)
        status, _, errors = program.wait()
        assert (status, errors) == (128 + number, "")
        assert nothing_left(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal_that_the_program_ignores(number: int) -> None:
    stubborn = f'trap "" TERM HUP; {FOLDER}; exec sleep 1000'
    with Program([COMMAND, "--", "sh", "-c", stubborn]) as program:
        folder = Path(program.line())
        program.settle()
        program.signal(number)
        status, _, errors = program.wait()
        assert (status, errors) == (128 + number, "")
        assert nothing_left(folder)


def test_ctrl_c_is_the_programs_business() -> None:
    script = f'trap "echo interrupted" INT; {FOLDER}; until read line; do :; done; echo "$line"; exit 5'
    with Program([COMMAND, "--", "sh", "-c", script]) as program:
        folder = Path(program.line())
        program.settle()
        program.signal_all(signal.SIGINT)
        assert program.line() == "interrupted"
        assert program.wait("go on\n") == (5, "go on\n", "")
        assert nothing_left(folder)


def test_the_realm_outlives_ctrl_c() -> None:
    script = f'trap "echo interrupted" INT; echo ready; until read line; do :; done; {CLIENT} example hello'
    with Program([COMMAND, "--", "sh", "-c", script]) as program:
        assert program.line() == "ready"
        program.settle()
        program.signal_all(signal.SIGINT)
        assert program.line() == "interrupted"
        status, output, errors = program.wait("go on\n")
        assert (status, output, errors) == (0, "hello world\n", "")


def test_a_program_that_ctrl_c_ends_ends_the_sandbox() -> None:
    with Program([COMMAND, "--", "sh", "-c", f"{FOLDER}; exec sleep 1000"]) as program:
        folder = Path(program.line())
        program.settle()
        program.signal_all(signal.SIGINT)
        status, _, errors = program.wait()
        assert (status, errors) == (128 + signal.SIGINT, "")
        assert nothing_left(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_after_a_signal_during_the_start(number: int, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    hanging = tmp_path / "krb5kdc"
    hanging.write_text(f"#!/bin/sh\necho begun >{fifo}\nexec sleep 1000\n")
    hanging.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(temporary)}
    with Program([COMMAND, "--", "true"], environment) as program:
        assert fifo.read_text() == "begun\n"
        program.settle()
        program.signal(number)
        program.wait()
        assert list(temporary.iterdir()) == []
        assert all_ended(str(temporary))
