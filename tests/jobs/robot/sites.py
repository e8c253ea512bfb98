"""Folders to run agents in, on threads and in processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import remctl
from jobs.attempts import LIMIT
from jobs.robot.doubles import GUID
from jobs.runners import until
from remctl.jobs.robot import _orchestrator, _spool
from remctl.jobs.robot._agent import Agent, Options
from remctl.jobs.robot._failpoints import VARIABLE
from remctl.jobs.robot._guid import VARIABLE as GUID_VARIABLE
from remctl.jobs.robot._running import Runs

SCRIPT = """
import json, os, pathlib, signal, subprocess, sys, time
site = pathlib.Path({site!r})
def say(word):
    with open(site / "ran", "a") as file:
        file.write(f"{{word}}\\n")
def wait():
    while not (site / "gate").exists():
        time.sleep(0.01)
"""


class Site:
    """A folder with scripts, which can call `say` and `wait`, and a state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scripts = folder / "scripts"
        self.state = folder / "state"
        self.scripts.mkdir()
        self.log = folder / "log"

    def install(self, body: str, name: str = "work") -> None:
        (self.scripts / f"{name}.py").write_text(SCRIPT.format(site=str(self.folder)) + body + "\n")

    def lines(self) -> list[str]:
        """Return what scripts have said."""
        path = self.folder / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def begun(self) -> None:
        """Wait until a script has said something."""
        until(self.lines)

    def open(self) -> None:
        """Let scripts go on."""
        (self.folder / "gate").touch()

    @contextmanager
    def agent(self, url: str, *, timeout: float = LIMIT, runs: Runs | None = None, **options: Any) -> Iterator[Agent]:
        """Give an agent that asks often."""
        values = {"interval": 0.05, "grace": 0.5, **options}
        with (
            _spool.opened(self.state) as spool,
            closing(_orchestrator.Orchestrator(url, GUID, timeout=timeout)) as orchestrator,
        ):
            yield Agent(orchestrator, spool, Options(self.scripts, sys.executable, **values), runs)

    def work(self, url: str, **options: Any) -> None:
        """Have an agent work until there are no more jobs."""
        with self.agent(url, **options) as agent:
            agent.run()

    @contextmanager
    def working(self, url: str, **options: Any) -> Iterator[Agent]:
        """Have an agent work on a thread; wait for its end."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                agent.run()
            except BaseException as error:
                failures.append(error)

        with self.agent(url, **options) as agent:
            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield agent
            except BaseException:
                agent.leave()
                agent.leave()
                raise
            finally:
                thread.join(LIMIT)
                assert not thread.is_alive()
        if failures:
            raise failures[0]

    def process(self, url: str, *more: str, failpoint: str | None = None, **variables: str) -> subprocess.Popen[bytes]:
        """Start an agent as a process."""
        environment = {"PYTHONPATH": str(Path(remctl.__file__).parents[1]), "PATH": os.defpath, GUID_VARIABLE: GUID}
        if failpoint is not None:
            environment[VARIABLE] = f"{failpoint}:kill"
        options = ["--orchestrator", url, "--scripts", str(self.scripts), "--state", str(self.state)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "remctl.jobs.robot", *options, "--interval", "1", *more],
                env=environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ended(self, url: str, *more: str, failpoint: str | None = None, **variables: str) -> int:
        """Have an agent work as a process until it ends; return its exit status."""
        process = self.process(url, *more, failpoint=failpoint, **variables)
        try:
            return process.wait(LIMIT)
        finally:
            process.kill()
            process.wait()

    def states(self) -> list[str]:
        """Return the files in the state folder that are not for good."""
        names = [self.state / "job.json", *(self.state / "results").iterdir(), *(self.state / "refused").iterdir()]
        return [str(path.relative_to(self.state)) for path in names if path.exists()]
