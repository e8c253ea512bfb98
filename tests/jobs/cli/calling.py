"""What the tests of `remctl-jobs` share: calling it in this process, and daemons in processes of their own."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from jobs.attempts import LIMIT
from jobs.runners import until
from remctl.jobs import cli

HELLO: Final = """\
#!/bin/bash
# /// job
# description = "Say hello."
# [parameters.name]
# type = "text"
# ///
echo "hello $JOB_PARAM_NAME"
echo "complaint" >&2
"""

SLEEP: Final = """\
# /// job
# description = "Sleep."
# ///
import time

time.sleep(60)
"""

COMMAND: Final = [sys.executable, "-X", "dev", "-W", "error", "-m", "remctl.jobs.cli"]


def new_folder(place: Path) -> Path:
    """Give a place a working folder with the scripts `hello` and `nap`; return it."""
    return Path(shutil.copytree(_pattern(), place / "jobs"))


@functools.cache
def _pattern() -> Path:
    """A working folder that is made once, as an administrator does, and gone with this process."""
    place = Path(tempfile.mkdtemp(prefix="remctl-jobs-"))
    atexit.register(shutil.rmtree, place)
    config = ["--config", str(place / "jobs" / "jobs.toml")]
    assert cli.main(["init", str(place / "jobs")]) == 0
    for name, body in (("hello.sh", HELLO), ("nap.py", SLEEP)):
        (place / name).write_text(body)
        assert cli.main([*config, "script", "install", str(place / name)]) == 0
    return place / "jobs"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that succeeds; return what it prints."""
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that cannot be done; return its one line."""
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("remctl-jobs: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("remctl-jobs: ").rstrip("\n")


class Daemon:
    """A daemon in a process of its own; it is killed at the end of a `with`, if it has not ended.

    Args:
        folder: where it works.
        arguments: its command.
        variables: of its environment.
    """

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self._log = folder / f"{arguments[0]}-{len(list(folder.glob('*.log')))}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "--config", str(folder / "jobs.toml"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **variables},
            )

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it has written something; return what."""

        def said() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.log, re.MULTILINE)
            assert found or not ended, self.log
            return found

        found = until(said)
        assert found is not None
        return found

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait until it has ended; return its exit status."""
        return self.process.wait(LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
