"""Programs that tests start and signal, and what is left of them afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 20.0
"""Seconds after which something that should have happened will not happen any more."""


class Program:
    """A program in a session of its own, with pipes for its input and output; nothing is left of it at the end.

    Args:
        command: the program and its arguments.
        environment: what it runs in.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str] = os.environ) -> None:
        self._mark = f"REMCTL_TESTS_PROGRAM={secrets.token_hex()}"
        name, value = self._mark.split("=")
        self._process = subprocess.Popen(
            command,
            env={**environment, name: value},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while left := {*processes_of(self._mark), *_session(self.pid)}:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.communicate()

    def line(self) -> str:
        """The next line of its output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"no more output: {self._process.communicate()[1]!r}"
        return line.decode().rstrip("\n")

    def settle(self) -> None:
        """Wait until the program waits for something, and so has done all that it had to do."""
        quiet = 0
        end = time.monotonic() + PATIENCE
        while quiet < 10 and time.monotonic() < end:
            quiet = quiet + 1 if _state(self.pid) == "S" else 0
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        self._process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to all of its process group, as a terminal does."""
        os.killpg(self.pid, number)

    def wait(self, text: str = "") -> tuple[int, str, str]:
        """Write to its input; return exit status, remaining output and error output, once all of them have ended."""
        output, errors = self._process.communicate(text.encode(), timeout=PATIENCE)
        return self._process.returncode, output.decode(), errors.decode()


class Script(Program):
    """The same for a text in Python."""

    def __init__(self, code: str, environment: Mapping[str, str] = os.environ) -> None:
        super().__init__([sys.executable, "-X", "dev", "-W", "error", "-c", code], environment)


def processes_of(mark: str) -> list[int]:
    """The processes, but for this one, in whose environment the text is: what a sandbox starts has its folder there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def all_ended(mark: str) -> bool:
    """Whether `processes_of` are gone, or will be in a moment."""
    end = time.monotonic() + PATIENCE
    while processes_of(mark):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def nothing_left(folder: Path) -> bool:
    """Whether a sandbox's folder is gone, and its processes are or will be in a moment."""
    return not folder.exists() and all_ended(str(folder))


def ended(pid: int) -> bool:
    """Whether a process is gone, or will be in a moment."""
    end = time.monotonic() + PATIENCE
    while _state(pid) not in ("", "Z"):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _state(pid: int) -> str:
    """The state of a process, as ps shows it; empty when there is none."""
    return _status(pid)[0]


def _session(number: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, *others = _status(int(entry.name))
            if state not in ("", "Z") and int(others[2]) == number:
                found.append(int(entry.name))
    return found


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third one on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [""]
