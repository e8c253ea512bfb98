"""What the tests of the headless client share: a server with a runner, and the program under `env -i`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from doubles import Relay
from serving import ServerThread

import remctl
from jobs.runners import Site
from remctl.jobs.headless import Code
from remctl.testing import Sandbox

LIMIT: Final = 50.0
"""Seconds after which a program that should have ended will not."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": os.defpath,
    "LC_ALL": "C",
    "PYTHONPATH": str(Path(remctl.__file__).parents[1]),
}
"""What cron leaves, and where the program is."""

START: Final = "from remctl.jobs.headless import main; main()"

RelayTo = Callable[["Place"], Relay]
"""What the fixture `relay_to` gives."""

Ended = subprocess.CompletedProcess[bytes]


class Place:
    """A realm, a server of our own, and a folder for its runner.

    Args:
        box: the realm.
        site: the runner's folder.
        server: a server with the command `job` of that folder.
    """

    def __init__(self, box: Sandbox, site: Site, server: ServerThread) -> None:
        self.box = box
        self.site = site
        self.server = server
        self.environment = {
            **ENVIRONMENT,
            "KRB5_CONFIG": box.env["KRB5_CONFIG"],
            "KRB5CCNAME": box.ccache,
            "XDG_STATE_HOME": str(site.settings.folder / "state"),
        }

    @property
    def service(self) -> tuple[str, ...]:
        """The options for the server."""
        return self.at(self.server.port)

    def at(self, port: int) -> tuple[str, ...]:
        """The options for a server at some other port."""
        return ("-s", f"localhost:{port}", "--principal", self.box.principal)

    def start(
        self, *words: str | bytes, environment: Mapping[str, str | None] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start the program, as `start` does; None is a variable that is not there."""
        return start({**self.environment, **(environment or {})}, *words, **options)

    def run(self, *words: str | bytes, environment: Mapping[str, str | None] | None = None, **options: Any) -> Ended:
        """Run it to its end."""
        return run({**self.environment, **(environment or {})}, *words, **options)

    def code(self, *words: str | bytes, **options: Any) -> Code:
        """Run it; return its exit code.  Nothing may have been said."""
        ended = self.run(*words, **options)
        assert not ended.stdout
        assert not ended.stderr
        return Code(ended.returncode)


def start(
    environment: Mapping[str, str | None],
    *words: str | bytes,
    prelude: str = "",
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
    closed: Sequence[int] = (0,),
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start the program in an environment with nothing else; `prelude` is what is done in it before."""
    shut = " ".join(f"{number}>&-" for number in closed)
    command = [sys.executable, "-X", "dev", "-c", f"{prelude}\n{START}", *words]
    return subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {shut}', "sh", *command],
        env={name: value for name, value in environment.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        **options,
    )


def run(environment: Mapping[str, str | None], *words: str | bytes, **options: Any) -> Ended:
    """Run the program to its end."""
    started = start(environment, *words, **options)
    try:
        out, err = started.communicate(timeout=LIMIT)
    finally:
        started.kill()
        started.wait()
    return Ended(started.args, started.returncode, out, err)


def lowered(name: str, seconds: float) -> str:
    """Return a prelude with which a time limit is shorter."""
    return f"from remctl.jobs.headless import _running; _running.{name} = {seconds}"


def secret_of(keytab: str, folder: Path) -> Path:
    """Return a secret file with what is in a keytab."""
    file = folder / "secret"
    file.write_bytes(Path(keytab).read_bytes())
    file.chmod(0o400)
    return file


@contextmanager
def silent(port: int) -> Iterator[socket.socket]:
    """Have something listen on a port, and say nothing; give the socket that gets the datagrams."""
    with (
        socket.create_server(("127.0.0.1", port), backlog=50),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", port))
        datagrams.settimeout(LIMIT)
        yield datagrams
