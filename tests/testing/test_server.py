"""A remctld with a configuration that tests write."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from programs_under_test import ended

import remctl
from remctl import ErrorCode, Remctl, RemctlCommandError, RemctlConnectionError
from remctl.testing import Sandbox, SandboxError, Server
from remctl.testing.server import free_port

HELLO = "#!/bin/sh\necho hello world\n"
"""A script that says hello."""

WAIT = "#!/bin/sh\necho $$\nexec sleep 1000\n"
"""A script that says who it is and then goes on for ever."""


def run(server: Server, *command: str | bytes) -> bytes | None:
    """The output of a command."""
    return remctl.remctl(server.host, server.port, server.principal, command, timeout=30).stdout


def refusal(server: Server, *command: str) -> ErrorCode | int | None:
    """The code with which a command is refused."""
    with pytest.raises(RemctlCommandError) as caught:
        run(server, *command)
    return caught.value.code


# Commands


def test_a_server_has_no_commands_at_first(remctl_server: Server) -> None:
    assert refusal(remctl_server, "test", "hello") == ErrorCode.UNKNOWN_COMMAND


def test_a_command_may_be_the_text_of_a_script(remctl_server: Server) -> None:
    remctl_server.add_command("test", "hello", HELLO)
    assert run(remctl_server, "test", "hello") == b"hello world\n"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_command_may_be_the_path_of_a_program(
    kind: type[str] | type[Path], remctl_server: Server, tmp_path: Path
) -> None:
    program = tmp_path / "hello"
    program.write_text(HELLO)
    program.chmod(0o755)
    remctl_server.add_command("test", "hello", kind(program))
    assert run(remctl_server, "test", "hello") == b"hello world\n"


def test_commands_keep_their_order(remctl_server: Server) -> None:
    remctl_server.add_command("test", "one", "#!/bin/sh\necho one\n")
    remctl_server.add_command("test", "ALL", "#!/bin/sh\necho other\n")
    assert [run(remctl_server, "test", word) for word in ("one", "two")] == [b"one\n", b"other\n"]


def test_a_command_without_subcommand(remctl_server: Server) -> None:
    remctl_server.add_command("test", "EMPTY", HELLO)
    assert run(remctl_server, "test") == b"hello world\n"


def test_the_last_word_may_go_to_the_input(remctl_server: Server) -> None:
    remctl_server.add_command("test", "cat", "#!/bin/sh\nexec cat\n", stdin="last")
    assert run(remctl_server, "test", "cat", b"\0any\xff") == b"\0any\xff"


def test_several_options(remctl_server: Server) -> None:
    script = "#!/bin/sh\ncase $1 in --usage) echo how to;; *) exec cat;; esac\n"
    remctl_server.add_command("test", "cat", script, stdin="last", help="--usage", logmask="2")
    assert run(remctl_server, "test", "cat", "secret") == b"secret"
    assert run(remctl_server, "help", "test", "cat") == b"how to\n"
    assert "secret" not in remctl_server.log


def test_an_acl_admits_some(remctl_server: Server) -> None:
    remctl_server.add_command("test", "mine", HELLO, acl="princ:other@SANDBOX.TEST princ:user@SANDBOX.TEST")
    remctl_server.add_command("test", "theirs", HELLO, acl="princ:other@SANDBOX.TEST")
    assert run(remctl_server, "test", "mine") == b"hello world\n"
    assert refusal(remctl_server, "test", "theirs") == ErrorCode.ACCESS


@pytest.mark.parametrize("bad", ["", " ", "two words", "a\tb", "a\nb"])
@pytest.mark.parametrize("place", ["command", "subcommand", "program"])
def test_a_field_that_is_not_one_word_is_refused(bad: str, place: str, remctl_server: Server) -> None:
    fields = {"command": "test", "subcommand": "hello", "program": "/bin/true", place: bad}
    before = remctl_server.pid
    with pytest.raises(ValueError, match="must be one word") as caught:
        remctl_server.add_command(**fields)
    assert repr(bad) in str(caught.value)
    assert remctl_server.pid == before


@pytest.mark.parametrize("bad", ["two words", "a\tb", "a\nb"])
def test_an_option_that_is_not_one_word_is_refused(bad: str, remctl_server: Server) -> None:
    with pytest.raises(ValueError, match="must be one word") as caught:
        remctl_server.add_command("test", "hello", "/bin/true", stdin=bad)
    assert repr(f"stdin={bad}") in str(caught.value)


# Configuration


def test_lines_of_configuration_may_be_added(remctl_server: Server) -> None:
    remctl_server.add_config("test hello /bin/echo \\\n    ANYUSER\n# a remark\n")
    assert run(remctl_server, "test", "hello", "world") == b"hello world\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("broken", "parse error"),
        ("test hello /bin/true stdin=bogus ANYUSER", "invalid stdin value bogus"),
        ("test hello /bin/true bogus=1 ANYUSER", "unknown option bogus=1"),
    ],
)
def test_broken_configuration_is_an_error_in_the_servers_words(text: str, words: str, remctl_server: Server) -> None:
    with pytest.raises(SandboxError) as caught:
        remctl_server.add_config(text)
    assert words in str(caught.value)


def test_a_server_goes_on_without_the_lines_that_it_refused(remctl_server: Server) -> None:
    remctl_server.add_command("test", "hello", HELLO)
    with pytest.raises(SandboxError):
        remctl_server.add_config("broken")
    assert run(remctl_server, "test", "hello") == b"hello world\n"
    remctl_server.add_command("test", "again", HELLO)
    assert run(remctl_server, "test", "again") == b"hello world\n"


def test_an_option_that_is_refused_is_an_error_in_the_servers_words(remctl_server: Server) -> None:
    with pytest.raises(SandboxError, match="bogus"):
        remctl_server.add_command("test", "hello", HELLO, stdin="bogus")


# Life


def test_a_server_keeps_its_port(remctl_server: Server) -> None:
    port = remctl_server.port
    remctl_server.add_command("test", "hello", HELLO)
    assert remctl_server.port == port


def test_open_sessions_survive_a_new_command(remctl_server: Server) -> None:
    remctl_server.add_command("test", "hello", HELLO)
    with Remctl(remctl_server.host, remctl_server.port, timeout=30) as session:
        remctl_server.add_command("test", "more", HELLO)
        assert session.run(["test", "hello"]).stdout == b"hello world\n"
        with pytest.raises(RemctlCommandError):
            session.run(["test", "more"])
    assert run(remctl_server, "test", "more") == b"hello world\n"


def test_a_running_command_survives_a_new_command(remctl_server: Server) -> None:
    remctl_server.add_command("test", "read", "#!/bin/sh\necho begin\nread line <$2\necho end\n")
    fifo = Path(remctl_server._folder, "fifo")
    os.mkfifo(fifo)
    with Remctl(remctl_server.host, remctl_server.port, timeout=30) as session:
        tokens = session.stream(["test", "read", fifo])
        assert next(tokens).output == b"begin\n"
        remctl_server.add_command("test", "more", HELLO)
        fifo.write_text("go on\n")
        assert [token.output for token in tokens] == [b"end\n", None]


def test_a_server_has_a_process(remctl_server: Server) -> None:
    pid = remctl_server.pid
    assert pid is not None
    assert Path(f"/proc/{pid}/comm").read_text() == "remctld\n"


def test_a_server_logs_what_it_does(remctl_server: Server) -> None:
    remctl_server.add_command("test", "hello", HELLO)
    run(remctl_server, "test", "hello", "argument")
    assert "COMMAND from user@SANDBOX.TEST: test hello argument" in remctl_server.log


def test_a_stopped_server_does_not_answer(remctl_server: Server) -> None:
    pid = remctl_server.pid
    assert pid is not None
    remctl_server.stop()
    assert remctl_server.pid is None
    assert ended(pid)
    with pytest.raises(RemctlConnectionError):
        run(remctl_server, "test", "hello")


def test_stopping_twice_is_harmless(remctl_server: Server) -> None:
    remctl_server.stop()
    remctl_server.stop()


def test_a_stopped_server_can_be_started_again(remctl_server: Server) -> None:
    remctl_server.add_command("test", "hello", HELLO)
    remctl_server.stop()
    remctl_server.start()
    assert run(remctl_server, "test", "hello") == b"hello world\n"


def test_commands_may_be_added_to_a_stopped_server(remctl_server: Server) -> None:
    remctl_server.stop()
    remctl_server.add_command("test", "hello", HELLO)
    assert remctl_server.pid is None
    remctl_server.start()
    assert run(remctl_server, "test", "hello") == b"hello world\n"


def test_stopping_ends_sessions_and_commands(remctl_server: Server) -> None:
    remctl_server.add_command("test", "wait", WAIT)
    with Remctl(remctl_server.host, remctl_server.port, timeout=30) as session:
        tokens = session.stream(["test", "wait"])
        pid = int(next(tokens).output or b"")
        remctl_server.stop()
        assert ended(pid)
        with pytest.raises(RemctlConnectionError):
            next(tokens)


def test_stopping_ends_sessions_from_before_the_last_command_was_added(remctl_server: Server) -> None:
    remctl_server.add_command("test", "wait", WAIT)
    with Remctl(remctl_server.host, remctl_server.port, timeout=5) as session:
        tokens = session.stream(["test", "wait"])
        pid = int(next(tokens).output or b"")
        remctl_server.add_command("test", "more", HELLO)
        remctl_server.stop()
        with pytest.raises(RemctlConnectionError):
            next(tokens)
    assert ended(pid)


def test_a_server_without_its_program_does_not_start(remctl_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    remctl_server.stop()
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("remctl.testing.programs._SYSTEM_FOLDERS", ())
    with pytest.raises(SandboxError, match="apt-get install remctl-server"):
        remctl_server.start()
    assert remctl_server.pid is None


# Addresses and ports


def test_the_first_server_is_on_localhost(remctl_sandbox: Sandbox) -> None:
    assert remctl_sandbox.host == "localhost"
    with socket.create_connection(("127.0.0.1", remctl_sandbox.port)):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_free_port_can_be_bound(address: str) -> None:
    port = free_port(address)
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        assert server.getsockname()[1] == port
