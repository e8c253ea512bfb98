"""Unattended jobs on real servers, step by step: `make demo-jobs`, or `python -m remctl.jobs.demo`.

What is printed after `$` or `>>>` is what runs; below each stands what came back.  All of it is in one temporary
folder, with a Kerberos realm of its own, and gone at the end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from remctl.testing import Sandbox, SandboxError
from remctl.testing.demo import Prompt, Step

SCRIPT: Final = """\
# /// job
# description = "Count to a number, and report it."
#
# [parameters.to]
# type = "integer"
# minimum = 1
# maximum = 100
# ///
import base64, os, time
from xmlrpc.client import ServerProxy

number = int(os.environ["JOB_PARAM_TO"])
for each in range(1, number + 1):
    print(each)
    time.sleep(0.1)

account = f"{os.environ['JOB_ACCOUNT']}:{os.environ['JOB_PASSWORD']}".encode()
header = ("Authorization", f"Basic {base64.b64encode(account).decode()}")
with ServerProxy(os.environ["JOB_REPORT_URL"], headers=[header]) as server:
    server.postInformation(int(os.environ["JOB_ID"]), True, f"counted to {number}")
"""

SETTINGS: Final = """\
[runner]
poll = 0.2

[server]
port = 0

[remctl]
listen = "127.0.0.1"
port = 0
keytab = {keytab}
"""

IN_PYTHON: Final = Step(
    "The same from Python: submit, wait, and see what it has written",
    """
    from remctl.jobs.client import Client
    client = Client("localhost", port)
    job = client.submit("count", {"to": 2})
    client.wait(job.id).state
    client.output(job.id).stdout
    client.close()
    """,
)

NEXT: Final = """
Next: docs/jobs-operations.md sets up a machine; docs/jobs.md says what scripts and jobs are.
      .venv/bin/remctl-jobs --help lists the commands."""


class Shell:
    """Shows commands as a shell does.

    Args:
        folder: where they run.
        environment: what they find there.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment

    def show(self, line: str, *, status: int = 0) -> None:
        """Print and run a command, and print what it says; the program ends here if its exit status is another."""
        print(f"$ {line}", flush=True)
        done = subprocess.run(
            _words(line),
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, end="")
        if done.returncode != status:
            sys.exit("\nThis went wrong.")

    @contextmanager
    def behind(self, line: str) -> Iterator[subprocess.Popen[str]]:
        """Print and start a daemon, and print what it says until it is ready; it is killed at the end of a `with`."""
        print(f"$ {line} &", flush=True)
        with subprocess.Popen(
            _words(line),
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as started:
            try:
                yield started
            except SystemExit:
                started.kill()
                print("\nThe daemons said:", *started.communicate()[1].splitlines(), sep="\n")
                raise
            finally:
                started.kill()


def _words(line: str) -> list[str]:
    words = shlex.split(line)
    if words[0] == "remctl-jobs":
        words[:1] = [sys.executable, "-m", "remctl.jobs.cli"]
    return words


def main() -> None:
    """Show all steps; exit with status 1 when one does not go as it should, or no sandbox comes up."""
    print("Starting a Kerberos realm for this demonstration alone ...")
    try:
        if shutil.which("remctl") is None:
            raise SandboxError("remctl is not installed", hint="on Debian and Ubuntu: apt-get install remctl-client")
        with Sandbox() as box, tempfile.TemporaryDirectory(prefix="remctl-jobs-") as temporary:
            _steps(box, Path(temporary))
    except SandboxError as error:
        sys.exit(f"{error}")
    print(NEXT)


def _steps(box: Sandbox, folder: Path) -> None:
    shell = Shell(folder, {**os.environ, "REMCTL_JOBS_CONFIG": "jobs/jobs.toml"})

    print("\n1. A folder for the jobs, with a database and an account for scripts\n")
    shell.show("remctl-jobs init jobs")
    with (folder / "jobs" / "jobs.toml").open("w") as settings:  # free ports, and the realm's keys
        settings.write(SETTINGS.format(keytab=f'"{box.keytab}"'))

    print("\n2. A script: its header says what it takes, and it reports over XML-RPC\n")
    (folder / "count.py").write_text(SCRIPT)
    shell.show("cat count.py")
    shell.show("remctl-jobs script install count.py")

    print("\n3. The runner, the HTTP server and the remctl server, in one process\n")
    with shell.behind("remctl-jobs up") as up:
        port = _ready(up)

        print(f"\n4. A user submits a job over remctl, and watches it\n\n$ kinit {box.user}")
        remctl = f"remctl -p {port} localhost job"
        shell.show(f"{remctl} submit count to=3")
        shell.show(f"{remctl} wait 1")
        shell.show(f"{remctl} history 1")

        print("\n5. A parameter that the script does not take is refused\n")
        shell.show(f"{remctl} submit count to=many", status=64)

        print(f"\n6. {IN_PYTHON.title}\n")
        prompt = Prompt({"port": port})
        prompt.show(IN_PYTHON)
        if prompt.errors:
            sys.exit("\nThis went wrong.")

        print("\n7. The administrator looks at the jobs, and ends the daemons in peace\n")
        shell.show("remctl-jobs status")
        print("$ kill %1")
        up.send_signal(signal.SIGTERM)
        _, said = up.communicate()
        print(said.splitlines()[-1])
        if up.returncode != 0:
            sys.exit("\nThis went wrong.")


def _ready(up: subprocess.Popen[str]) -> int:
    """Print what a daemon says until it is ready; return the port of its remctl server."""
    assert up.stderr is not None
    port = 0
    for line in up.stderr:
        print(line, end="")
        _, found, number = line.rstrip().partition(": serving on 127.0.0.1 port ")
        port = int(number) if found else port
        if ": ready: " in line:
            return port
    sys.exit("\nThis went wrong.")


if __name__ == "__main__":
    main()
