"""A throw-away realm: what it offers, and that nothing is left of it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gssapi
import pytest
from programs_under_test import PATIENCE, Script, all_ended, nothing_left, processes_of

import remctl
from remctl import ErrorCode, RemctlAuthenticationError, RemctlCommandError
from remctl.testing import Sandbox, SandboxError, Server, programs

WHO = "#!/bin/sh\necho $REMOTE_USER\n"
"""A script that says whom the server has authenticated."""

VARIABLES = ("KRB5_CONFIG", "KRB5CCNAME", "KRB5_KTNAME")


def who(server: Server | Sandbox, ccache: str | None = None, principal: str | None = None) -> bytes | None:
    """Whom a server with the command `test who` sees."""
    return remctl.remctl(
        server.host, server.port, principal or server.principal, ["test", "who"], ccache=ccache, timeout=30
    ).stdout


@pytest.fixture
def started() -> Iterator[Sandbox]:
    """Give a sandbox that the test may stop, and which is not exported."""
    box = Sandbox(export=False)
    box.start()
    yield box
    box.stop()


# What it offers


def test_a_sandbox_is_all_that_a_client_needs() -> None:
    with Sandbox() as box:
        box.add_command("test", "hello", "#!/bin/sh\necho hello world\n")
        assert remctl.remctl(box.host, box.port, box.principal, ["test", "hello"]).stdout == b"hello world\n"


def test_its_principal_is_the_default_one_for_its_host(remctl_sandbox: Sandbox) -> None:
    with remctl.Remctl(remctl_sandbox.host, remctl_sandbox.port, timeout=30) as session:
        assert session.opened


def test_names_are_those_that_were_asked_for() -> None:
    with Sandbox(realm="OTHER.EXAMPLE", user="alice") as box:
        box.add_command("test", "who", WHO)
        assert (box.realm, box.user) == ("OTHER.EXAMPLE", "alice@OTHER.EXAMPLE")
        assert box.principal == "host/localhost@OTHER.EXAMPLE"
        assert who(box) == b"alice@OTHER.EXAMPLE\n"


def test_everything_is_in_one_folder(remctl_sandbox: Sandbox) -> None:
    folder = remctl_sandbox.path
    assert folder.is_dir()
    assert folder in Path(remctl_sandbox.keytab).parents
    assert folder in Path(remctl_sandbox.ccache).parents


def test_nobody_else_can_read_the_folder(remctl_sandbox: Sandbox) -> None:
    assert remctl_sandbox.path.stat().st_mode & 0o077 == 0


def test_the_cache_holds_the_users_ticket(remctl_sandbox: Sandbox) -> None:
    credentials = gssapi.Credentials(usage="initiate", store={"ccache": remctl_sandbox.ccache})
    assert str(credentials.name) == remctl_sandbox.user
    assert credentials.lifetime > 600


def test_it_listens_on_loopback_alone(remctl_sandbox: Sandbox) -> None:
    port = f"{remctl_sandbox.port:04X}"
    table = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [local for local, _, state in table if state == "0A" and local.endswith(port)] == [f"0100007F:{port}"]


def test_another_process_finds_it_through_the_environment(started: Sandbox) -> None:
    started.add_command("test", "who", WHO)
    command = ["remctl", "-p", str(started.port), started.host, "test", "who"]
    answer = subprocess.run(command, env=started.env, capture_output=True, check=False)
    assert (answer.stdout, answer.stderr) == (b"user@SANDBOX.TEST\n", b"")


def test_the_environment_says_where_the_first_server_is(started: Sandbox) -> None:
    found = {name: value for name, value in started.env.items() if name.startswith("REMCTL_SANDBOX_")}
    assert found == {
        "REMCTL_SANDBOX_HOST": started.host,
        "REMCTL_SANDBOX_PORT": str(started.port),
        "REMCTL_SANDBOX_PRINCIPAL": started.principal,
    }


def test_the_environment_keeps_what_is_in_the_programs_own(started: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYTHING", "else")
    assert started.env["ANYTHING"] == "else"


# Commands of the first server


def test_a_command_is_added_to_the_first_server(remctl_sandbox: Sandbox) -> None:
    remctl_sandbox.add_command("sandbox", "cat", "#!/bin/sh\nexec cat\n", stdin="last")
    remctl_sandbox.add_config("sandbox config /bin/echo ANYUSER")
    with remctl.Remctl(remctl_sandbox.host, remctl_sandbox.port, timeout=30) as session:
        assert session.run(["sandbox", "cat", b"\0\xff"]).stdout == b"\0\xff"
        assert session.run(["sandbox", "config"]).stdout == b"config\n"


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (["hello"], (b"hello world\n", b"", 0)),
        (["echo", "a", "b  c"], (b"a b  c\n", b"", 0)),
        (["echo"], (b"\n", b"", 0)),
        (["status", 0], (b"", b"", 0)),
        (["status", 255], (b"", b"", 255)),
        (["count", 3], (b"line 1\nline 2\nline 3\n", b"counted to 3\n", 0)),
        (["sleep", 0], (b"", b"", 0)),
        (["bytes", 100000], (bytes(100000), b"", 0)),
        (["cat", b"\0any\xff"], (b"\0any\xff", b"", 0)),
        (["bogus"], (b"", b"example: unknown subcommand: bogus\n", 64)),
    ],
    ids=str,
)
def test_the_examples(command: list[str | bytes | int], result: tuple[bytes, bytes, int], box: Sandbox) -> None:
    with remctl.Remctl(box.host, box.port, timeout=30) as session:
        assert session.run(["example", *command]) == result


# Principals


def test_the_server_sees_another_principal(started: Sandbox) -> None:
    started.add_command("test", "who", WHO)
    with started.exported():
        ccache = started.kinit(started.add_principal("alice"))
        assert who(started, ccache) == b"alice@SANDBOX.TEST\n"
        assert who(started) == b"user@SANDBOX.TEST\n"


def test_a_principal_knows_its_names(started: Sandbox) -> None:
    principal = started.add_principal("host/a.example.org")
    assert principal.name == "host/a.example.org@SANDBOX.TEST"
    assert principal.password
    assert Path(principal.keytab).is_file()


def test_passwords_differ(started: Sandbox) -> None:
    assert started.add_principal("alice").password != started.add_principal("bob").password


def test_a_keytab_works_as_well_as_the_password(started: Sandbox) -> None:
    principal = started.add_principal("robot")
    ccache = str(started.path / "robot.ccache")
    subprocess.run(["kinit", "-k", "-t", principal.keytab, "-c", ccache, principal.name], check=True, env=started.env)
    started.add_command("test", "who", WHO)
    with started.exported():
        assert who(started, ccache) == b"robot@SANDBOX.TEST\n"


def test_an_acl_admits_a_principal(started: Sandbox) -> None:
    started.add_command("test", "who", WHO, acl="princ:alice@SANDBOX.TEST")
    with started.exported():
        assert who(started, started.kinit(started.add_principal("alice"))) == b"alice@SANDBOX.TEST\n"
        with pytest.raises(RemctlCommandError) as caught:
            who(started)
    assert caught.value.code == ErrorCode.ACCESS


def test_each_ticket_has_a_cache_of_its_own(started: Sandbox) -> None:
    alice = started.add_principal("alice")
    first, second = started.kinit(alice), started.kinit(alice)
    assert len({first, second, started.ccache}) == 3


def test_a_ticket_may_go_to_a_cache_that_is_named(started: Sandbox, tmp_path: Path) -> None:
    ccache = f"FILE:{tmp_path / 'cache'}"
    assert started.kinit(started.add_principal("alice"), ccache=ccache) == ccache
    assert (tmp_path / "cache").is_file()


def test_a_ticket_may_be_short(started: Sandbox) -> None:
    ccache = started.kinit(started.add_principal("alice"), lifetime="90s")
    with started.exported():
        assert 0 < gssapi.Credentials(usage="initiate", store={"ccache": ccache}).lifetime <= 90


def test_a_ticket_for_a_wrong_password_is_an_error(started: Sandbox) -> None:
    alice = started.add_principal("alice")
    with pytest.raises(SandboxError, match=r"^cannot get a ticket for alice@SANDBOX\.TEST: "):
        started.kinit(alice._replace(password="wrong"))


def test_a_principal_that_exists_cannot_be_made(started: Sandbox) -> None:
    started.add_principal("alice")
    with pytest.raises(SandboxError, match="alice"):
        started.add_principal("alice")


# Further servers


def test_servers_are_apart(started: Sandbox) -> None:
    other = started.add_server()
    other.add_command("test", "who", WHO)
    assert other.port != started.port
    with started.exported():
        assert who(other) == b"user@SANDBOX.TEST\n"
        with pytest.raises(RemctlCommandError):
            who(started)


def test_a_server_may_be_another_principal(started: Sandbox) -> None:
    other = started.add_server(principal="remctl/a.example.org")
    other.add_command("test", "who", WHO)
    assert other.principal == "remctl/a.example.org@SANDBOX.TEST"
    with started.exported():
        assert who(other) == b"user@SANDBOX.TEST\n"
        with pytest.raises(RemctlAuthenticationError):
            who(other, principal=started.principal)


def test_servers_may_share_a_principal(started: Sandbox) -> None:
    servers = [started.add_server(principal="remctl/a.example.org") for _ in range(2)]
    for server in servers:
        server.add_command("test", "who", WHO)
    with started.exported():
        assert [who(server) for server in servers] == [b"user@SANDBOX.TEST\n"] * 2


@pytest.mark.parametrize("address", ["::1", "127.0.0.2"])
def test_a_server_may_listen_on_another_loopback_address(address: str, started: Sandbox) -> None:
    other = started.add_server(address=address)
    other.add_command("test", "who", WHO)
    assert other.host == address
    with started.exported():
        assert who(other) == b"user@SANDBOX.TEST\n"


def test_an_address_of_another_machine_is_an_error(started: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"192\.0\.2\.1"):
        started.add_server(address="192.0.2.1")


def test_a_server_that_does_not_start_leaves_the_others_alone(started: Sandbox) -> None:
    with pytest.raises((SandboxError, OSError)):
        started.add_server(address="192.0.2.1")
    started.add_server().add_command("test", "who", WHO)


def test_a_server_stops_before_its_sandbox(started: Sandbox) -> None:
    other = started.add_server()
    other.stop()
    started.add_command("test", "who", WHO)
    with started.exported():
        assert who(started) == b"user@SANDBOX.TEST\n"


# Side by side


def test_two_realms_live_side_by_side() -> None:
    with Sandbox(realm="ONE.TEST") as one, Sandbox(realm="TWO.TEST") as two:
        for box in (one, two):
            box.add_command("test", "who", WHO)
        assert who(two) == b"user@TWO.TEST\n"
        with one.exported():
            assert who(one) == b"user@ONE.TEST\n"
        assert who(two) == b"user@TWO.TEST\n"


def test_the_outer_realm_is_there_again_after_the_inner_one() -> None:
    with Sandbox(realm="ONE.TEST") as one:
        one.add_command("test", "who", WHO)
        with Sandbox(realm="TWO.TEST"):
            pass
        assert who(one) == b"user@ONE.TEST\n"


# The environment of this process


def environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in VARIABLES}


def test_the_block_sees_the_environment() -> None:
    with Sandbox() as box:
        assert environment() == {name: box.env[name] for name in VARIABLES}


def test_the_block_may_do_without_the_environment() -> None:
    before = dict(os.environ)
    with Sandbox(export=False):
        assert dict(os.environ) == before


@pytest.mark.parametrize("value", [None, "FILE:/of/before"])
def test_the_environment_is_restored_after_the_block(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with Sandbox():
        assert dict(os.environ) != before
    assert dict(os.environ) == before


def test_the_environment_is_restored_after_an_exception() -> None:
    before = dict(os.environ)
    with pytest.raises(LookupError), Sandbox():
        raise LookupError
    assert dict(os.environ) == before


def test_the_environment_is_restored_when_the_sandbox_is_stopped_in_the_block() -> None:
    before = dict(os.environ)
    with Sandbox() as box:
        box.stop()
        assert dict(os.environ) == before
    assert dict(os.environ) == before


# The end


def test_nothing_is_left_after_the_end() -> None:
    with Sandbox() as box:
        box.add_server()
        folder = box.path
        assert len(processes_of(str(folder))) == 3
    assert nothing_left(folder)


def test_nothing_is_left_after_an_exception() -> None:
    with pytest.raises(LookupError), Sandbox() as box:
        folder = box.path
        raise LookupError
    assert nothing_left(folder)


def test_nothing_is_left_of_commands_under_way(started: Sandbox) -> None:
    started.add_command("test", "wait", "#!/bin/sh\necho begin\nsleep 1000\n")
    folder = started.path
    with started.exported(), remctl.Remctl(started.host, started.port, timeout=30) as session:
        assert next(session.stream(["test", "wait"])).output == b"begin\n"
        started.stop()
        assert nothing_left(folder)


def test_stopping_twice_is_harmless(started: Sandbox) -> None:
    started.stop()
    started.stop()


def test_a_sandbox_can_be_started_again(started: Sandbox) -> None:
    folder = started.path
    started.stop()
    started.start()
    assert started.path != folder
    started.add_command("test", "who", WHO)
    with started.exported():
        assert who(started) == b"user@SANDBOX.TEST\n"


def test_a_sandbox_that_runs_cannot_be_started(started: Sandbox) -> None:
    folder = started.path
    with pytest.raises(SandboxError):
        started.start()
    assert started.path == folder


def test_nothing_is_left_of_a_sandbox_that_nobody_holds() -> None:
    box = Sandbox()
    box.start()
    folder = box.path
    del box
    gc.collect()
    assert nothing_left(folder)


USES: list[Callable[[Sandbox], object]] = [
    lambda box: box.server,
    lambda box: box.host,
    lambda box: box.port,
    lambda box: box.principal,
    lambda box: box.path,
    lambda box: box.keytab,
    lambda box: box.ccache,
    lambda box: box.env,
    lambda box: box.add_command("test", "hello", "/bin/true"),
    lambda box: box.add_config("test hello /bin/true ANYUSER"),
    lambda box: box.add_examples(),
    lambda box: box.add_principal("alice"),
    lambda box: box.add_server(),
    lambda box: box.exported().__enter__(),
]


@pytest.mark.parametrize("use", USES)
def test_a_sandbox_cannot_be_used_before_its_start(use: Callable[[Sandbox], object]) -> None:
    with pytest.raises(SandboxError, match=r"^the sandbox is not running$"):
        use(Sandbox())


def test_a_sandbox_cannot_be_used_after_its_end(started: Sandbox) -> None:
    alice = started.add_principal("alice")
    started.stop()
    uses: list[Callable[[Sandbox], object]] = [*USES, lambda box: box.kinit(alice)]
    for use in uses:
        with pytest.raises(SandboxError, match=r"^the sandbox is not running$"):
            use(started)


# What it needs


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())
    with pytest.raises(SandboxError, match="apt-get install krb5-kdc"):
        Sandbox().start()


def test_the_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "k5test", None)
    with pytest.raises(SandboxError) as caught:
        Sandbox().start()
    assert str(caught.value) == "the k5test library is missing; pip install 'remctl-cffi[testing]'"


def fake(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which a program is replaced by a script."""
    program = folder / name
    program.write_text(script)
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("program", ["krb5kdc", "remctld", "kdb5_util", "kinit"])
def test_nothing_is_left_when_a_program_fails(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PATH", fake(tmp_path, program, "#!/bin/sh\necho it is broken\nexit 1\n")["PATH"])
    with pytest.raises(SandboxError):
        Sandbox().start()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert all_ended(str(tmp_path / "temporary"))


# Programs that run one


SLEEPING = """
import threading, remctl
from remctl.testing import Sandbox
with Sandbox() as box:
    box.add_command("test", "wait", "#!/bin/sh\\necho begin\\nsleep 1000\\n")
    session = remctl.Remctl(box.host, box.port)
    next(session.stream(["test", "wait"]))
    print(box.path, flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("send", [Script.signal, Script.signal_all], ids=["the program", "its process group"])
def test_nothing_is_left_after_ctrl_c(send: Callable[[Script, int], None]) -> None:
    with Script(SLEEPING) as program:
        folder = Path(program.line())
        assert processes_of(str(folder))
        send(program, signal.SIGINT)
        status, _, errors = program.wait()
        assert status == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        assert nothing_left(folder)


FORGETFUL = """
from remctl.testing import Sandbox
box = Sandbox()
box.start()
print(box.path)
"""


def test_nothing_is_left_when_a_program_forgets_its_sandbox() -> None:
    with Script(FORGETFUL) as program:
        status, output, errors = program.wait()
        assert (status, errors) == (0, "")
        assert nothing_left(Path(output.strip()))


@pytest.mark.parametrize("program", ["krb5kdc", "remctld"])
def test_nothing_is_left_after_ctrl_c_while_a_server_starts(program: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    hanging = f"#!/bin/sh\necho begun >{fifo}\nexec sleep 1000\n"
    with Script(SLEEPING, {**fake(tmp_path, program, hanging), "TMPDIR": str(temporary)}) as script:
        assert fifo.read_text() == "begun\n"
        script.settle()
        script.signal(signal.SIGINT)
        status, _, errors = script.wait()
        assert status == -signal.SIGINT, errors
        assert list(temporary.iterdir()) == []
        assert all_ended(str(temporary))


FORKING = """
import os, sys
import remctl
from remctl.testing import Sandbox
with Sandbox() as box:
    box.add_examples()
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    print(remctl.remctl(box.host, box.port, command=["example", "hello"], timeout=10).stdout)
"""


def test_a_forked_child_does_not_end_its_parents_sandbox() -> None:
    with Script(FORKING) as program:
        status, output, errors = program.wait()
        assert (status, output) == (0, "b'hello world\\n'\n"), errors


TERMINAL = """
import signal, threading, remctl
from remctl.testing import Sandbox
interrupted = threading.Event()
signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
with Sandbox() as box:
    box.add_examples()
    print("ready", flush=True)
    interrupted.wait()
    box.kinit(box.add_principal("alice"))
    print(remctl.remctl(box.host, box.port, command=["example", "hello"], timeout=10).stdout)
"""


def test_a_program_that_takes_ctrl_c_its_own_way_keeps_its_realm() -> None:
    with Script(TERMINAL) as program:
        assert program.line() == "ready"
        program.signal_all(signal.SIGINT)
        status, output, errors = program.wait()
        assert (status, output) == (0, "b'hello world\\n'\n"), errors


def test_patience_is_less_than_the_time_limit_of_a_test(pytestconfig: pytest.Config) -> None:
    assert float(pytestconfig.getini("timeout")) > 2 * PATIENCE
