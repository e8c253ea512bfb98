"""A real remctld on loopback, with a configuration that tests write."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from remctl.testing.programs import SandboxError, find

_PORT_ATTEMPTS: Final = 20
"""A port that was free a moment ago may be taken; so often another one is tried."""


class Server:
    """One remctld; made by `Sandbox.add_server`.

    Args:
        folder: where its configuration, its scripts and its log go; it exists, and belongs to this server alone.
        principal: the service principal, of which `keytab` has the key.
        keytab: path of the keytab.
        environment: the environment that it and its commands run in.
        address: the loopback address to listen on.
    """

    host: str
    """The name to connect to: localhost, or the address where that does not stand for it."""
    port: int
    """The TCP port; 0 before the start."""
    principal: str
    """The service principal."""

    def __init__(
        self, folder: Path, principal: str, keytab: str, environment: Mapping[str, str], address: str = "127.0.0.1"
    ) -> None:
        self.host = "localhost" if address == "127.0.0.1" else address
        self.port = 0
        self.principal = principal
        self._address = address
        self._folder = folder
        self._keytab = keytab
        self._environment = dict(environment)
        self._lines: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []

    @property
    def pid(self) -> int | None:
        """The server's process; None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged, its debug lines included."""
        path = self._folder / "log"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def add_command(
        self, command: str, subcommand: str, program: str | os.PathLike[str], *, acl: str = "ANYUSER", **options: str
    ) -> None:
        """Add a command; later connections have it.

        Args:
            command: the command word, or ALL.
            subcommand: the subcommand, ALL, or EMPTY for none.
            program: path of an executable, or the text of a script, which begins with `#!`.
            acl: one or more ACL entries in remctld's syntax, separated by blanks.
            options: remctld's options: stdin="last", help="help", summary="help", logmask="2", user="nobody"...

        Raises:
            ValueError: a field is empty, or has white space in it.
            SandboxError: remctld refuses the line.
        """
        program = os.fspath(program)
        if program.startswith("#!"):
            script = self._folder / f"script-{len(self._lines)}"
            script.write_text(program)
            script.chmod(0o755)
            program = str(script)
        fields = [command, subcommand, program, *(f"{name}={value}" for name, value in options.items())]
        for field in fields:
            if not field or len(field.split()) != 1:
                raise ValueError(f"a field of a remctld configuration must be one word: {field!r}")
        self.add_config(" ".join([*fields, acl]))

    def add_examples(self) -> None:
        """Add the command `example`: hello, echo, status, count, sleep, bytes and cat."""
        program = Path(__file__).with_name("example-commands.sh")
        self.add_command("example", "cat", program, stdin="last")
        self.add_command("example", "ALL", program)

    def add_config(self, text: str) -> None:
        """Add lines to the configuration, in remctld's syntax; later connections have them.

        Raises:
            SandboxError: remctld refuses them.
        """
        self._lines.append(text.rstrip("\n"))
        if self._process is None:
            return
        self._stop_accepting()
        try:
            self._start_on(self.port)
        except SandboxError:
            del self._lines[-1]
            self._start_on(self.port)
            raise

    def start(self) -> None:
        """Start it on a free port; returns when it accepts connections."""
        for _ in range(_PORT_ATTEMPTS):
            try:
                port = free_port(self._address)
            except OSError as error:
                raise SandboxError(f"cannot listen on {self._address}: {error.strerror}") from error
            try:
                return self._start_on(port)
            except SandboxError:
                if "Address already in use" not in self.log:
                    raise
        raise SandboxError(f"no free port for remctld on {self._address}")

    def stop(self) -> None:
        """Stop it with all sessions and commands that are under way; stopping twice is harmless."""
        process, self._process = self._process, None
        groups, self._groups = self._groups, []
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if process is not None:
            process.wait()

    def _stop_accepting(self) -> None:
        """Stop the listening process alone: sessions that are open have processes of their own and go on."""
        assert self._process is not None
        self._process.kill()  # remctld may miss a SIGTERM that comes before it waits for connections
        self._process.wait()
        self._process = None

    def _start_on(self, port: int) -> None:
        configuration = self._folder / "remctl.conf"
        configuration.write_text("".join(f"{line}\n" for line in self._lines))
        command = [find("remctld"), "-m", "-F", "-S", "-d", "-Z", "-b", self._address, "-p", str(port)]
        command += ["-s", self.principal, "-k", self._keytab, "-f", str(configuration)]
        logged = len(self.log)
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._groups.append(process.pid)
        self._process = process
        # With -Z remctld stops itself once it listens, which is an event that can be waited for.
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if stopped is None or stopped.si_code != os.CLD_STOPPED:
            process.wait()
            self._process = None
            self._groups.remove(process.pid)
            raise SandboxError(f"remctld did not start: {'; '.join(self.log[logged:].splitlines())}")
        process.send_signal(signal.SIGCONT)
        self.port = port


def free_port(address: str) -> int:
    """Return a port that nothing listens on at this moment, for TCP and UDP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            tcp.bind((address, 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((address, port))
                return port
