"""The example backend, run all three ways: under remctld, under remctl-shell, and in a server in a program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import remctl
from remctl.testing import Sandbox, Server

ROOT: Final = Path(__file__).resolve().parent.parent

EXAMPLES: Final = ROOT / "examples"

ACCOUNTS: Final = EXAMPLES / "accounts.py"

WAYS: Final = ["remctld", "remctl-shell", "serve"]

Run = Callable[..., remctl.Result]


@pytest.fixture
def folder(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of the accounts, in which the sandbox's user is an administrator."""
    (tmp_path / "admins").write_text(f"{box.user}\n")
    monkeypatch.setenv("ACCOUNTS", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    return tmp_path


@pytest.fixture
def config(folder: Path) -> str:
    """Give what the example prints for remctld."""
    printed = subprocess.run([ACCOUNTS, "--remctld-config"], check=True, capture_output=True, text=True)
    assert printed.stderr == ""
    return printed.stdout


@pytest.fixture
def remctld(box: Sandbox, config: str) -> Iterator[Server]:
    """Give a remctld that has the example."""
    server = box.add_server()  # whose environment is the one of this moment
    server.add_config(config)
    yield server
    server.stop()


@pytest.fixture
def serving(box: Sandbox, folder: Path) -> Iterator[int]:
    """Give the port of serve_accounts.py, and have it end at a SIGTERM."""
    assert folder
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "serve_accounts.py", "0", "localhost"],
        env={**box.env, "KRB5_KTNAME": box.keytab},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            yield int(
                next(found[1] for line in process.stderr if (found := re.search(r"serving on .* port (\d+)", line)))
            )
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
            assert "Traceback" not in log
            assert "Warning" not in log
            assert process.wait() == 0
        finally:
            process.kill()


def shell(config: Path, user: str) -> Run:
    """Make a function that runs commands through remctl-shell, as sshd does for a forced command."""

    def run(*words: str) -> remctl.Result:
        program = shutil.which("remctl-shell", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        done = subprocess.run(
            [program, "-f", config, "-q", user],
            env={
                **os.environ,
                "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 22",
                "SSH_ORIGINAL_COMMAND": " ".join(shlex.quote(word).replace("\\", "\\\\") for word in words),
            },
            capture_output=True,
        )
        return remctl.Result(done.stdout, done.stderr, done.returncode)

    return run


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give the name of each way in turn."""
    return str(request.param)


@pytest.fixture
def run(request: pytest.FixtureRequest, way: str, box: Sandbox, folder: Path) -> Run:
    """Give a function that runs the words of a command, each way in turn."""
    if way == "remctl-shell":
        file = folder / "remctl.conf"
        file.write_text(request.getfixturevalue("config"))
        return shell(file, box.user)
    port = request.getfixturevalue("remctld").port if way == "remctld" else request.getfixturevalue("serving")

    def run(*words: str | bytes) -> remctl.Result:
        with remctl.Remctl(box.host, port, timeout=30) as session:
            return session.run(words)

    return run


def test_an_account_is_made_changed_and_deleted(run: Run, box: Sandbox) -> None:
    assert run("account", "create", "-q", "500", "ada", "the first\nof all") == (b"created ada\n", b"", 0)
    assert run("account", "quota", "set", "ada", "800") == (b"", b"", 0)
    assert run("account", "quota", "show", "ada") == (b"800\n", b"", 0)
    assert run("account", "passwd", "ada", "correct horse") == (b"the password of ada is set\n", b"", 0)
    shown = run("account", "show", "ada")
    assert shown.stdout.decode().splitlines() == [
        "name      ada",
        "shell     /bin/bash",
        "quota     800 MB",
        "password  set",
        f"made by   {box.user}",
        "",
        "the first",
        "of all",
    ]
    assert run("account", "wait", "ada") == (b"waiting for ada\nada is there\n", b"", 0)
    assert run("account", "delete", "ada") == (b"deleted ada\n", b"", 0)
    assert run("account", "list") == (b"", b"", 0)


def test_a_table_comes_on_standard_input(run: Run) -> None:
    assert run("account", "load", "bob,/bin/sh,7\nada,/bin/bash,5\n").stdout == b"loaded 2\n"
    assert run("account", "list").stdout == b"ada /bin/bash 5\nbob /bin/sh 7\n"
    refused = run("account", "load", "--replace", "ada,/bin/sh,1\nBob,/bin/sh,1\n")
    assert refused.status == 64
    assert refused.stderr.startswith(b"account load: line 2: it does not match")
    assert run("account", "list", "--shell", "/bin/bash").stdout == b"ada /bin/bash 5\n"


def test_what_is_wrong_is_said_in_one_line(run: Run) -> None:
    assert run("account", "quota", "set", "ada", "lots") == (
        b"",
        b"account quota set: invalid argument <megabytes> 'lots': it is not a whole number\n",
        64,
    )
    assert run("account", "show", "eve") == (b"", b"account show: there is no account eve\n", 1)
    assert run("account", "passwd", "ada", "hush").stderr == (
        b"account passwd: invalid argument <password>: a password has 8 characters or more\n"
    )


def test_help_is_answered(run: Run) -> None:
    listed = run("account", "help")
    assert listed.status == 0
    assert listed.stdout.startswith(b"User accounts:\n  account create [--shell <shell>]")
    assert run("account", "help", "passwd").stdout.startswith(b"account passwd <name> <password>\n\nSet an account's")
    missing = run("account")
    assert missing == (b"", b"account: a further word is missing; try help\n", 64)


def test_remctlds_own_help_has_the_commands(box: Sandbox, remctld: Server) -> None:
    with remctl.Remctl(box.host, remctld.port, timeout=30) as session:
        assert b"account create [--shell <shell>]" in session.run(["help"]).stdout
        assert session.run(["help", "account", "show"]).stdout.startswith(b"account show <name>\n")


def test_lines_that_are_old_give_nobody_more_than_he_may_do(box: Sandbox, folder: Path, config: str) -> None:
    (folder / "admins").write_text("somebody@ELSE.WHERE\n")
    (folder / "remctl.conf").write_text(config)
    assert shell(folder / "remctl.conf", box.user)("account", "create", "ada") == (b"", b"Access denied\n", 255)
    (folder / "remctl.conf").write_text(config.replace(f"file:{folder}/admins", "ANYUSER"))
    denied = shell(folder / "remctl.conf", box.user)("account", "create", "ada")
    assert denied == (b"", b"account create: access denied\n", 77)


def test_what_remctld_and_remctl_shell_refuse_by_themselves(run: Run, way: str) -> None:
    for words, code, status in (
        (["account", "no"], remctl.ErrorCode.UNKNOWN_COMMAND, 64),
        (["account", "show", "a\0b"], remctl.ErrorCode.BAD_COMMAND, 64),
    ):
        if way == "remctld":
            with pytest.raises(remctl.RemctlCommandError) as caught:
                run(*words)
            assert caught.value.code == code
        elif way == "serve":
            assert run(*words).status == status
        elif "\0" not in words[-1]:
            assert run(*words) == (b"", b"Unknown command\n", 255)
    assert run("account", "quota", "no").stderr == b"account quota no: unknown command; try help\n"
    assert run("account", "load") == (b"", b"account load: insufficient arguments: <table> is missing\n", 64)


def test_the_tests_of_the_example_pass(pytester: pytest.Pytester) -> None:
    for name in ("accounts.py", "test_accounts.py"):
        shutil.copy(EXAMPLES / name, pytester.path)
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    assert result.parseoutcomes().keys() == {"passed"}


# The pages


SESSION: Final = re.compile(r"^```console\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
"""What somebody types and sees."""

WRAPPERS: Final = {
    "remctl": '#!/bin/sh\nexec {remctl} -p {port} "$@"\n',
    "ssh": "#!/bin/sh\nshift\n"
    'SSH_CONNECTION="127.0.0.1 1 127.0.0.1 22" SSH_ORIGINAL_COMMAND="$*" exec {shell} -f {config} -q {user}\n',
}
"""Programs in whose place these are found: the one gets the server's port, the other is sshd besides."""


def page(name: str) -> str:
    """Return the text of a page."""
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("number", range(4), ids=["hand", *WAYS])
def test_the_page_shows_what_one_sees(
    number: int, request: pytest.FixtureRequest, box: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = ["hand", *WAYS][number]
    port = {
        "remctld": lambda: request.getfixturevalue("remctld").port,
        "serve": lambda: request.getfixturevalue("serving"),
    }
    config = folder / "remctl.conf"
    config.write_text(request.getfixturevalue("config"))
    names: dict[str, object] = {
        "remctl": shutil.which("remctl"),
        "shell": shutil.which("remctl-shell", path=f"{os.environ['PATH']}:/usr/sbin"),
        "port": port[way]() if way in port else 0,
        "config": config,
        "user": box.user,
    }
    wrappers = folder / "bin"
    wrappers.mkdir()
    for name, text in WRAPPERS.items():
        (wrappers / name).write_text(text.format_map(names))
        (wrappers / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(wrappers), prepend=os.pathsep)
    sessions = SESSION.findall(page("backend.md"))
    assert len(sessions) == 4
    seen = []
    for command in re.findall(r"^\$ (.*)$", sessions[number], re.MULTILINE):
        done = subprocess.run(
            ["sh", "-c", command], cwd=EXAMPLES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seen.append(f"$ {command}\n{done.stdout}")
    assert "".join(seen) == sessions[number]


def test_the_page_shows_what_is_printed_for_remctld(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder
    monkeypatch.delenv("ACCOUNTS")
    command = [sys.executable, str(ACCOUNTS), "--remctld-config", "--program", "/usr/local/sbin/accounts"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"```text\n{printed}```" in page("backend.md")


TEXT: Final = b"to be or\nnot to be\n"

ALIKE: Final = [
    "help",
    "join a",
    "join a b c",
    "join -s , a b",
    "join --separator=- a -b",
    "join -- -b",
    "repeat ab 3",
]
"""Words that both programs of the page take for the same."""

UNLIKE: Final = {
    "repeat ab": (
        b"text repeat: insufficient arguments\n",
        b"text repeat: insufficient arguments: <times> is missing\n",
    ),
    "repeat a 2 3": (
        b"text repeat: too many arguments\n",
        b"text repeat: too many arguments: 2 are taken, and 3 given\n",
    ),
    "repeat a x": (
        b"text repeat: invalid argument: x\n",
        b"text repeat: invalid argument <times> 'x': it is not a whole number\n",
    ),
    "join -x": (b"text join: unknown option: x\n", b"text join: unrecognized arguments: -x\n"),
    "no": (b"Unknown command no\n", b"text no: unknown command; try help\n"),
    "count": (b"Unknown command count\n", b"text count: a further word is missing; try help\n"),
}
"""Words that both refuse, and what they say."""


@pytest.fixture
def two(tmp_path: Path) -> Callable[[str], list[remctl.Result]]:
    """Give a function that runs words by the page's two programs, the one in Perl and the one in Python."""
    text = page("coming-from-net-remctl-backend.md")
    commands = []
    for language, start in (("perl", ["perl"]), ("python", [sys.executable, "-X", "dev", "-W", "error"])):
        (program,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        file = tmp_path / f"text_in_{language}"
        file.write_text(program)
        commands.append([*start, str(file)])

    def run(words: str) -> list[remctl.Result]:
        done = [subprocess.run([*start, *words.split()], input=TEXT, capture_output=True) for start in commands]
        return [remctl.Result(each.stdout, each.stderr, each.returncode) for each in done]

    return run


@pytest.mark.parametrize("words", [*ALIKE, "upper", "count lines", "count words"])
def test_the_two_programs_of_the_page_do_the_same(words: str, two: Callable[[str], list[remctl.Result]]) -> None:
    perl, python = two(words)
    assert python == perl
    assert python.status == 0
    assert python.stdout


@pytest.mark.parametrize("words", UNLIKE)
def test_the_two_programs_of_the_page_refuse_the_same(words: str, two: Callable[[str], list[remctl.Result]]) -> None:
    perl, python = two(words)
    assert (perl.stderr, python.stderr) == UNLIKE[words]
    assert (perl.stdout, python.stdout, python.status) == (b"", b"", 64)
    assert perl.status not in (0, 64)
    shown = page("coming-from-net-remctl-backend.md")
    assert all(f"`{text.decode().strip()}`" in shown for text in UNLIKE[words])
