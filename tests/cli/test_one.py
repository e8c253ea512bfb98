"""One host: beside the C client, and where it is better than that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from doubles import Peer, Relay, ScriptedServer, SilentServer, downgrading

import remctl
from cli.programs import PATIENCE, PYREMCTL, Ended, pyremctl, run
from remctl.testing import Sandbox
from remctl.testing.server import Server

SAY_ALL: Final = """#!/usr/bin/python3
import os, sys
os.write(2, b"first to stderr\\n")
os.write(1, bytes(range(256)) * 3)
os.write(2, bytes(range(255, -1, -1)))
sys.exit(7)
"""


@pytest.fixture(scope="module")
def server(box: Sandbox) -> Iterator[Server]:
    started = box.add_server()
    started.add_examples()
    started.add_command("say", "all", SAY_ALL)
    started.add_command("secret", "ALL", "/bin/true", acl="princ:nobody@NOWHERE")
    started.add_command("empty", "EMPTY", "/bin/echo")
    yield started
    started.stop()


def both(server: Server, *words: str | bytes, **others: object) -> tuple[Ended, Ended]:
    """Run the C client and `pyremctl` with the same words, PORT among them."""
    filled = [word.replace("PORT", str(server.port)) if isinstance(word, str) else word for word in words]
    return run(["remctl"], *filled, **others), pyremctl(*filled, **others)  # type: ignore[arg-type]


THE_SAME: Final[dict[str, Sequence[str | bytes]]] = {
    "a command": ("-p", "PORT", "localhost", "example", "hello"),
    "a command without arguments": ("-p", "PORT", "localhost", "empty"),
    "status 1": ("-p", "PORT", "localhost", "example", "status", "1"),
    "status 255": ("-p", "PORT", "localhost", "example", "status", "255"),
    "an unknown command": ("-p", "PORT", "localhost", "no", "such"),
    "an empty command": ("-p", "PORT", "localhost", ""),
    "access denied": ("-p", "PORT", "localhost", "secret", "word"),
    "too many words for help": ("-p", "PORT", "localhost", "help", "a", "b", "c"),
    "both streams, binary": ("-p", "PORT", "localhost", "say", "all"),
    "both streams, text": ("-p", "PORT", "localhost", "example", "count", "2000"),
    "big output": ("-p", "PORT", "localhost", "example", "bytes", "20000000"),
    "a source": ("-b", "127.0.0.1", "-p", "PORT", "localhost", "example", "hello"),
    "a principal": ("-s", "host/localhost@SANDBOX.TEST", "-p", "PORT", "localhost", "example", "hello"),
    "a time limit": ("-t", "20", "-p", "PORT", "localhost", "example", "hello"),
    "no time limit": ("-t", "0", "-p", "PORT", "localhost", "example", "hello"),
    "options with their values": ("-t20", "-pPORT", "localhost", "example", "hello"),
    "options after the host": (
        "-p",
        "PORT",
        "localhost",
        "example",
        "echo",
        "-p",
        "1",
        "-v",
        "--",
        "-w",
        "x",
        "--json",
    ),
    "the end of options": ("-p", "PORT", "--", "localhost", "example", "echo", "--"),
    "bytes that are no text": ("-p", "PORT", "localhost", "example", "echo", b"\xff\xfe\x80", "ä"),
    "words that @ would expand": ("-p", "PORT", "localhost", "example", "echo", "@/etc/passwd", "@-", "@?"),
    "empty words": ("-p", "PORT", "localhost", "example", "echo", "", ""),
}


@pytest.mark.parametrize("case", THE_SAME)
def test_output_streams_and_status_are_the_c_clients(server: Server, case: str) -> None:
    theirs, ours = both(server, *THE_SAME[case])
    assert ours == theirs


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "de_DE.ISO-8859-1"])
def test_words_are_sent_as_they_are_in_any_locale(server: Server, locale: str) -> None:
    words = ("-p", "PORT", "localhost", "example", "echo", b"\xe4\xff", "ä€")
    theirs, ours = both(server, *words, env={"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert ours == theirs


FAILING: Final[dict[str, tuple[Sequence[str], str]]] = {
    "a closed port": (("-p", "1", "localhost", "a"), "cannot connect: 127.0.0.1 port 1: Connection refused"),
    "the default ports": (("localhost", "a"), "port 4373: Connection refused; 127.0.0.1 port 4444: Connection"),
    "an unknown host": (("no-such-host.invalid", "a"), "unknown host: "),
    "an empty host": (("-p", "PORT", "", "a"), "host must not be empty"),
    "an unknown principal": (("-s", "host/no", "-p", "PORT", "localhost", "a"), "not found in Kerberos database"),
    "a source that is not ours": (("-b", "192.0.2.1", "-p", "PORT", "localhost", "a"), "Cannot assign requested"),
    "a source that is no address": (("-b", "here", "-p", "PORT", "localhost", "a"), "must be an IPv4 or IPv6 address"),
    "a port that is no number": (("-p", "x", "localhost", "a"), "port must be a number: 'x'"),
    "a port that is none": (("-p", "99999", "localhost", "a"), "invalid port number: 99999"),
    "a time limit that is no number": (("-t", "x", "localhost", "a"), "invalid float value: 'x'"),
    "a time limit below 0": (("-t", "-1", "localhost", "a"), "timeout"),
    "a name that is none": (("a..ä", "a"), "unknown host: host is not a valid name: 'a..ä'"),
    "no host": ((), "a host and a command are needed"),
    "no command": (("localhost",), "a command is needed"),
    "an unknown option": (("-z", "localhost", "a"), "unrecognized arguments: -z"),
    "an option without its value": (("-p",), "expected one argument"),
    "an option that was cut off": (("--por", "1", "localhost", "a"), "unrecognized arguments: --por"),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_on_the_way_has_the_status_of_the_c_client_and_a_message(server: Server, case: str) -> None:
    words, text = FAILING[case]
    theirs, ours = both(server, *words)
    assert (ours.status, ours.stdout) == (theirs.status, theirs.stdout) == (1, b"")
    assert text in ours.stderr.decode()
    assert "pyremctl: " in ours.stderr.decode()


def test_without_a_ticket_it_fails_as_the_c_client_does(server: Server) -> None:
    theirs, ours = both(server, "-p", "PORT", "localhost", "a", env={"KRB5CCNAME": "/nowhere"})
    assert ours.status == theirs.status == 1
    assert ours.stderr.endswith(b"; no ticket: run kinit\n")


def test_the_time_limit_is_for_the_whole_call(server: Server) -> None:
    theirs, ours = both(server, "-t", "1", "-p", "PORT", "localhost", "example", "sleep", "4")
    assert ours.status == theirs.status == 1
    assert b"the time limit of 1 s passed while waiting for output" in ours.stderr
    assert b"the command may still be running on the server" in ours.stderr


def test_a_server_that_says_nothing_ends_with_the_time_limit() -> None:
    with SilentServer() as silent:
        ours = pyremctl("-t", "0.3", "-p", str(silent.port), "localhost", "a")
    assert (ours.status, ours.stdout) == (1, b"")
    assert b"0.3 s passed while opening the connection" in ours.stderr


def test_a_connection_that_is_lost_says_that_the_command_may_run(scripted: Callable[..., ScriptedServer]) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send_output(b"half")
        peer.reset()

    with scripted(script) as lost:
        ours = pyremctl("-p", str(lost.port), "localhost", "a")
    assert (ours.stdout, ours.status) == (b"half", 1)
    assert b"the command may still be running" in ours.stderr


# Descriptors


@pytest.mark.parametrize("program", [("remctl",), PYREMCTL])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_as_dev_null(server: Server, program: Sequence[str], closed: str) -> None:
    line = f'"$@" {closed}; echo $?'
    words = [*program, "-p", str(server.port), "localhost", "example", "count", "1"]
    ended = run(["sh", "-c", line, "sh", *words])
    expected = Ended(b"" if ">&-" in closed.split() else b"line 1\n", b"" if "2>&-" in closed else b"counted to 1\n", 0)
    assert ended == expected._replace(stdout=expected.stdout + b"0\n")


def test_a_full_disk_is_an_error_which_the_c_client_does_not_notice(server: Server) -> None:
    words = ["-p", str(server.port), "localhost", "example", "hello"]
    for program, status in ((("remctl",), 0), (PYREMCTL, 1)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*program, *words], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE)
        assert done.returncode == status
    assert done.stderr == b"pyremctl: the output cannot be written: No space left on device\n"


def test_a_reader_that_goes_ends_it_quietly_as_it_does_the_c_client(server: Server) -> None:
    words = ["-p", str(server.port), "localhost", "example", "bytes", "50000000"]
    for program in (("remctl",), PYREMCTL):
        with subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(1)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(PATIENCE) == -signal.SIGPIPE


def test_a_pipe_that_does_not_block_gets_all(server: Server) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    words = [*PYREMCTL, "-p", str(server.port), "localhost", "example", "bytes", "3000000"]
    with subprocess.Popen(words, stdout=theirs) as process, os.fdopen(ours, "rb") as reader:
        os.close(theirs)
        assert reader.read() == bytes(3000000)
        assert process.wait(PATIENCE) == 0


def test_ctrl_c_ends_it_with_130(scripted: Callable[..., ScriptedServer]) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send_output(b"x")

    with scripted(script) as slow:
        words = [*PYREMCTL, "-p", str(slow.port), "localhost", "a"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"x"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
            assert process.returncode == 130


# On a terminal


CONTROLLED: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def on_a_terminal(*words: str, typed: bytes = b"") -> tuple[str, int]:
    """Run `pyremctl` on a terminal; return what that shows."""
    main, side = os.openpty()
    command = [sys.executable, "-c", CONTROLLED, *PYREMCTL, *words]
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                shown += os.read(main, 65536)
            except OSError:
                break
            if typed and shown.endswith(b": "):
                os.write(main, typed)
                typed = b""
        os.close(main)
        return shown.decode(), process.wait(PATIENCE)


def test_control_characters_are_shown_escaped_on_a_terminal(server: Server) -> None:
    server.add_command(
        "paint", "it", "#!/bin/sh\nprintf 'a\\033[31mb\\tc\\n\\303'; sleep 0.2; printf '\\244\\377\\302'\n"
    )
    shown, status = on_a_terminal("-p", str(server.port), "localhost", "paint", "it")
    assert (shown, status) == ("a\\x1b[31mb\tc\r\nä\\xff\\xc2", 0)


def test_a_secret_is_asked_for_on_the_terminal_and_shown_nowhere(server: Server) -> None:
    words = ("-v", "--expand", "-p", str(server.port), "localhost", "example", "cat", "@?New \033password")
    shown, status = on_a_terminal(*words, typed=b"Tr0ub4dor\n")
    assert shown.startswith("New \\x1bpassword: ")
    assert shown.count("Tr0ub4dor") == 1  # cat's output
    assert status == 0


def test_a_server_cannot_put_control_characters_into_our_messages(box: Sandbox) -> None:
    shown = pyremctl("-p", "1", "\033[31m", "a").stderr
    assert b"\033" not in shown
    assert b"pyremctl: " in shown


# Arguments from elsewhere


def test_standard_input_is_the_last_argument(server: Server) -> None:
    data = bytes(range(256)) * 100
    ended = pyremctl("--stdin", "-p", str(server.port), "localhost", "example", "cat", stdin=data)
    assert ended == (data, b"", 0)


def test_files_are_arguments_where_that_is_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "word").write_bytes(b"from a file")
    words = ("localhost", "example", "echo", f"@{tmp_path}/word", "@-", "@@x", "plain")
    ended = pyremctl("--expand", "-p", str(server.port), *words, stdin=b"from stdin")
    assert ended == (b"from a file from stdin @x plain\n", b"", 0)


def test_an_argument_that_cannot_be_got_is_an_error_before_anything_is_sent() -> None:
    with SilentServer() as silent:
        ended = pyremctl("--expand", "-p", str(silent.port), "localhost", "a", "@/no/such/file")
        assert silent.accepted == 0
    assert ended == (b"", b"pyremctl: an argument cannot be read from /no/such/file: No such file or directory\n", 1)


# What it says


def test_v_without_a_host_is_the_version_as_with_the_c_client() -> None:
    assert pyremctl("-v") == (f"pyremctl {remctl.__version__}\n".encode(), b"", 0)
    assert pyremctl("--version") == pyremctl("-v")


@pytest.mark.parametrize("option", ["-v", "-d"])
def test_v_says_what_happens_and_shows_no_arguments(server: Server, option: str) -> None:
    ended = pyremctl(option, "-p", str(server.port), "localhost", "example", "echo", "hush-hush")
    assert (ended.stdout, ended.status) == (b"hush-hush\n", 0)
    lines = ended.stderr.decode().splitlines()
    assert lines[0] == f"pyremctl: connected to localhost:{server.port}, protocol 2"
    assert "pyremctl: command 'example echo' has ended: exit status 0, 10 bytes of stdout, 0 of stderr" in lines
    assert "hush" not in ended.stderr.decode()


@pytest.fixture
def old_server(server: Server) -> Iterator[Relay]:
    """Give a server of protocol 1: the real one behind a relay that takes the later protocol's flag off both sides."""
    with downgrading(server.port) as relay:
        yield relay


def test_a_server_of_protocol_1_is_served_with_a_warning_which_q_takes_away(old_server: Relay) -> None:
    words = ("-s", "host/localhost", "-p", str(old_server.port), "localhost", "example", "hello")
    ended = pyremctl(*words)
    assert (ended.stdout, ended.status) == (b"hello world\n", 0)
    assert b"speaks protocol 1" in ended.stderr
    assert pyremctl("-q", *words) == (b"hello world\n", b"", 0)


def test_a_command_that_is_too_large_for_protocol_1_is_an_error(old_server: Relay) -> None:
    words = ("-s", "host/localhost", "-p", str(old_server.port), "localhost", "example", "cat")
    ended = pyremctl("-q", "--stdin", *words, stdin=bytes(65536))
    assert (ended.stdout, ended.status) == (b"", 1)
    assert b"protocol 1 takes 65536" in ended.stderr


def test_a_refusal_of_protocol_1_is_the_c_clients(old_server: Relay) -> None:
    words = ("-s", "host/localhost", "-p", str(old_server.port), "localhost", "no", "such")
    assert pyremctl("-q", *words) == run(["remctl"], *words)


# --json


def line(*words: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> tuple[dict[str, object], int]:
    ended = pyremctl("--json", *words, stdin=stdin, env=env)
    (only,) = ended.stdout.splitlines()
    return json.loads(only), ended.status


def test_json_tells_apart_what_the_status_does_not(server: Server) -> None:
    port = ("-p", str(server.port), "localhost")
    asked = {
        "ok": line(*port, "example", "hello"),
        "nonzero": line(*port, "example", "status", "1"),
        "denied": line(*port, "secret", "word"),
        "refused": line("-p", "1", "localhost", "a"),
        "dns": line("a..ä", "a"),
        "auth": line(*port, "a", env={"KRB5CCNAME": "/nowhere"}),
        "timeout": line("-t", "0.5", *port, "example", "sleep", "4"),
    }
    assert {each["state"]: state for state, (each, _) in asked.items()} == {state: state for state in asked}
    assert [status for _, status in asked.values()] == [0, 1, 255, 1, 1, 1, 1]
    assert [each["status"] for each, _ in asked.values()] == [0, 1, None, None, None, None, None]
    assert [each["may_be_running"] for each, _ in asked.values()] == [False] * 6 + [True]
    assert line(*port, "example", "status", "255")[0]["status"] == 255


def test_json_has_binary_output_too(server: Server) -> None:
    answer, status = line("-p", str(server.port), "localhost", "say", "all")
    assert status == answer["status"] == 7
    assert set(answer["stdout"]) == {"base64"}  # type: ignore[call-overload]
    assert answer["stdout_size"] == 768


# What is loaded, and what is missing


def test_one_host_loads_what_libremctl_needs_alone(server: Server) -> None:
    program = (
        "import sys; from remctl.cli import main; main(sys.argv[1:]); "
        "print(*{'asyncio', 'gssapi', 'krb5', 'rich', 'ClusterShell', 'json'} & set(sys.modules))"
    )
    ended = run([sys.executable, "-c", program], "-p", str(server.port), "localhost", "example", "hello")
    assert ended == (b"hello world\n\n", b"", 0)


MISSING: Final = """
import sys
sys.modules.update(dict.fromkeys(["gssapi", "krb5", "rich", "ClusterShell", "ClusterShell.NodeSet"]))
from remctl.cli import main
sys.exit(main())
"""


def test_a_package_that_is_missing_is_named() -> None:
    ended = run([sys.executable, "-c", MISSING], "--json", "-p", "1", "localhost", "a")
    assert (ended.stdout, ended.status) == (b"", 1)
    assert b"pip install 'remctl-cffi[cli]'" in ended.stderr


def test_so_it_is_for_many_hosts() -> None:
    ended = run([sys.executable, "-c", MISSING], "-w", "n1", "a")
    assert (ended.stdout, ended.status) == (b"", 2)
    assert b"pip install 'remctl-cffi[cli]'" in ended.stderr
