"""docs/jobs-headless.md from its beginning to its end, against a real KDC, a real server and a real runner.

What the page shows is done: commands are typed on a terminal and answer what stands below them, the line of the crontab
runs as cron runs it, and systemd takes the units.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shutil
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from serving import ServerThread

from jobs.runners import ROOT, Site, working
from remctl.jobs.command import backend
from remctl.jobs.headless import Code
from remctl.jobs.headless._options import HELP
from remctl.jobs.scripts import AD_HOC
from remctl.jobs.service import Service
from remctl.jobs.states import JobState
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal

PAGE: Final = Path(__file__).parents[3] / "docs" / "jobs-headless.md"

LIMIT: Final = 30.0
"""Seconds in which a command says something more, or ends."""

PROMPT: Final = re.compile(r"(Password for \S+:|The same again:|ktutil:) *$")

CHANGING: Final = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}": "TIME",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "GUID",
}
"""What is another each time, and what stands for it."""

STATES: Final = re.compile(r"^TIME INFO job \d+ is (Pending|In_Progress)\r?\n", re.MULTILINE)
"""Those that a job may be in for so short a time that nobody sees them."""


class Machine:
    """The client's machine, on which things have other names than on the page."""

    def __init__(self, box: Sandbox, folder: Path, ada: Principal, port: int, config: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self._password = ada.password
        programs = folder / "bin"
        programs.mkdir()
        for name, module in {"remctl-headless": "remctl.jobs.headless", "remctl-jobs": "remctl.jobs.cli"}.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -m {module} "$@"\n')
            program.chmod(0o755)
        self._variables = {
            "KRB5_CONFIG": box.env["KRB5_CONFIG"],
            "HOME": str(self.home),
            "PATH": f"{programs}:/usr/bin:/bin",
            "REMCTL_JOBS_CONFIG": str(config),
            "TERM": "dumb",
        }
        self._names = {
            "ada@EXAMPLE.ORG": ada.name,
            "/opt/remctl/bin": str(programs),
            "/home/ada": str(self.home),
            "jobs.example.org": f"localhost:{port}",
        }

    def here(self, text: str) -> str:
        """Return what the page says as it is on this machine."""
        for there, here in self._names.items():
            text = text.replace(there, here)
        return text

    def there(self, text: str) -> str:
        """Return what was said on this machine as the page says it."""
        for there, here in self._names.items():
            text = text.replace(here, there)
        return text.replace("localhost", "jobs.example.org")

    def typed(self, command: str, words: Iterator[str]) -> str:
        """Run a command on a terminal; return all that is to be seen there.

        Args:
            command: for the shell.
            words: what is typed when it asks for something else than the password.
        """
        ours, theirs = os.openpty()
        termios.tcsetwinsize(ours, (50, 500))
        try:
            process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", "sh", "-c", self.here(command)],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                cwd=self.home,
                env=self._variables,
            )
        finally:
            os.close(theirs)
        with process:
            try:
                return self.there(self._talked(ours, words))
            finally:
                process.kill()
                os.close(ours)

    def _talked(self, terminal: int, words: Iterator[str]) -> str:
        seen = ""
        while True:
            assert select.select([terminal], [], [], LIMIT)[0], f"it says nothing more: {seen}"
            try:
                data = os.read(terminal, 65536)
            except OSError:  # nobody has the other end any more
                return seen.replace("\r\n", "\n")
            seen += data.decode()
            if asked := PROMPT.search(seen):
                answer = self.here(next(words)) if asked[1] == "ktutil:" else self._password
                os.write(terminal, f"{answer}\n".encode())

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as cron does: without a terminal, and with hardly any variables."""
        variables = [f"KRB5_CONFIG={self._variables['KRB5_CONFIG']}", f"HOME={self.home}"]
        return subprocess.run(
            ["env", "-i", *variables, "/bin/sh", "-c", self.here(command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )


@pytest.fixture
def machine(box: Sandbox, site: Site, tmp_path: Path) -> Iterator[Machine]:
    """Give the client's machine, and a server that it reaches, with a runner."""
    site.store.scripts.install(AD_HOC, ROOT, enabled=False)
    ada = box.add_principal(f"ada-{secrets.token_hex(4)}")
    service = Service(site.settings, site.store)
    with ServerThread(box, backend(service)) as server, working(site):
        yield Machine(box, tmp_path, ada, server.port, site.file)


def blocks(kind: str) -> list[str]:
    """Return the blocks of the page that are of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """Give the commands of the page, and what is to be seen below each."""
    for part in re.split(r"^\$ ", "".join(blocks("console")), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def constant(text: str) -> str:
    """Return a text without what may be another each time; the log comes last, which may overtake the output."""
    for pattern, name in CHANGING.items():
        text = re.sub(pattern, name, text)
    lines = [line.rstrip() for line in STATES.sub("", text.strip() + "\n").splitlines()]
    return "\n".join(sorted(lines, key=lambda line: line.startswith("TIME")))


def test_what_is_typed_gives_what_the_page_shows(machine: Machine) -> None:
    for name, text in zip(("tidy.py", "show.py"), blocks("python"), strict=False):
        (machine.home / name).write_text(text)
    secret = machine.home / ".remctl-secret"
    count = 0
    for command, shown in commands():
        if command == "ktutil":
            secret.unlink()  # which is to be made anew
        words = iter(re.findall(r"^ktutil:  (.*)$", shown, re.MULTILINE))
        assert constant(machine.typed(command, words)) == constant(shown), command
        count += 1
    assert count == 8
    assert secret.stat().st_mode & 0o777 == 0o400


def test_the_line_of_the_crontab_is_silent_until_something_goes_wrong(machine: Machine, site: Site) -> None:
    installed(machine)
    (line,) = blocks("text")
    fields = line.split(maxsplit=5)
    assert fields[:5] == ["15", "3", "*", "*", "*"]
    assert "%" not in fields[5]
    done = machine.run(fields[5])
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert [job.state for job in site.store.jobs.listed()] == [JobState.SUCCESS]
    site.store.scripts.enable("tidy", False)
    done = machine.run(fields[5])
    assert (done.stdout, done.stderr) == ("tidy: exit code 9\n", "")


def test_the_call_returns_the_job(machine: Machine, site: Site) -> None:
    installed(machine)
    names: dict[str, Any] = {}
    exec(machine.here(blocks("python")[-1]), names)
    assert (names["job"].state, names["job"].script) == (JobState.SUCCESS, "tidy")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = tmp_path / "remctl-headless"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    files = [tmp_path / name for name in re.findall(r"^`/etc/systemd/system/(.*)`:$", PAGE.read_text(), re.MULTILINE)]
    for file, text in zip(files, blocks("ini"), strict=True):
        file.write_text(text.replace("/opt/remctl/bin/remctl-headless", str(program)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (verified.stdout, verified.stderr, verified.returncode) == ("", "", 0)


def test_every_option_and_every_code_is_on_the_page() -> None:
    page = PAGE.read_text()
    table = page.partition("\n## Options\n")[2].partition("\n## ")[0]
    for option in re.findall(r"(?<![\w-])--?[a-z]\w*", HELP.partition("exit status:")[0].partition("\n")[2]):
        assert f"`{option}" in table, option
    codes = re.findall(r"^\| (\d+) \| ", page.partition("\n## Exit codes\n")[2], re.MULTILINE)
    assert codes == [str(code.value) for code in Code]


def installed(machine: Machine) -> None:
    """Have the script of the page on the server, and the secret file on the machine."""
    (machine.home / "tidy.py").write_text(blocks("python")[0])
    words = iter(KTUTIL)
    for command in ("remctl-jobs script install tidy.py", "ktutil", "chmod 400 ~/.remctl-secret"):
        machine.typed(command, words)


KTUTIL: Final = ("addent -password -p ada@EXAMPLE.ORG -k 1 -f", "wkt /home/ada/.remctl-secret", "quit")
