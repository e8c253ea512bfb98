"""What the tests of runners share: folders to run in, runners on threads and in processes, and waiting for events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Row, select

import remctl
from jobs.attempts import LIMIT
from remctl.jobs.attempt import is_kept
from remctl.jobs.attempt._processes import STATE, stat_fields
from remctl.jobs.runner import Runner
from remctl.jobs.runner.failpoints import VARIABLE
from remctl.jobs.scripts import install, read_script
from remctl.jobs.settings import load
from remctl.jobs.store import Job, Store
from remctl.jobs.store._schema import attempts
from remctl.jobs.store._upgrade import upgrade

T = TypeVar("T")

ADA: Final = "ada@EXAMPLE.ORG"
ROOT: Final = "root@EXAMPLE.ORG"

PROGRAM: Final = """
import signal
import sys
from remctl.jobs.runner import Runner
from remctl.jobs.settings import load
from remctl.jobs.store import Store

settings = load(sys.argv[1])
runner = Runner(settings, Store(settings.database_url))
signal.signal(signal.SIGTERM, lambda *_: runner.drain())
runner.run()
"""


def until(seen: Callable[[], T], limit: float = LIMIT) -> T:
    """Wait until there is something to be seen; return it."""
    deadline = time.monotonic() + limit
    while not (found := seen()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


class Site:
    """A folder with a configuration file, scripts, and a store.

    The scripts that `install` makes can use $ran, a file in which they write a line, and $gate, a file for which they
    wait until the test calls `open`.
    """

    def __init__(self, folder: Path, url: str, **runner: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        values = {"name": folder.name, "poll": 0.1, "grace": 0.5, **runner}
        self.file = folder / "jobs.toml"
        lines = [f"database = {json.dumps(url)}", "[runner]", *(f"{key} = {json.dumps(values[key])}" for key in values)]
        self.file.write_text("\n".join(lines) + "\n")
        self.settings = load(self.file)
        self.settings.scripts.mkdir(mode=0o755, exist_ok=True)
        self.store = Store(self.settings.database_url)
        upgrade(self.store.database)
        self.log = folder / "log"
        self.ran = folder / "ran"
        self.gate = folder / "gate"

    def close(self) -> None:
        """Wait until nothing is left of what was run."""
        until(lambda: not any(is_kept(folder) for folder in self.settings.attempts.glob("*/kept")))
        self.store.close()

    # Scripts and jobs

    def install(self, body: str, *header: str, name: str = "work", suffix: str = ".sh") -> Path:
        """Install a script with a header of these lines; return where it is."""
        lines = ["# /// job", '# description = "Work"', *(f"# {line}".rstrip() for line in header), "# ///"]
        if suffix == ".sh":
            lines += [f"ran={self.ran} gate={self.gate}"]
        source = self.settings.folder / f"{name}{suffix}"
        source.write_text("\n".join([*lines, body, ""]))
        script = read_script(source)
        path = install(script, self.settings.scripts)
        self.store.scripts.install(script, ROOT)
        return path

    def share(self, script: Path) -> None:
        """Have a script that is installed elsewhere, too."""
        copy = self.settings.scripts / script.name
        copy.write_bytes(script.read_bytes())
        copy.chmod(0o500)

    def submit(self, name: str = "work", **parameters: str) -> int:
        """Make a job; return its number."""
        values = self.store.scripts.get(name).parameters.check(parameters)
        return self.store.jobs.submit(name, values, ADA).id

    def over(self, job: int, limit: float = LIMIT) -> Job:
        """Wait until a job is over; return it."""

        def seen() -> Job | None:
            found = self.store.jobs.get(job)
            return found if found.state.final else None

        found = until(seen, limit)
        assert found is not None
        return found

    def attempts(self, job: int) -> list[Row[Any]]:
        """Return all attempts of a job."""
        with self.store.database.read() as connection:
            query = select(attempts).where(attempts.c.job_id == job).order_by(attempts.c.id)
            return list(connection.execute(query).all())

    def attempt(self, job: int) -> Row[Any]:
        """Return the only attempt of a job."""
        (found,) = self.attempts(job)
        return found

    # What scripts and tests say to each other

    def lines(self) -> list[str]:
        """Return what scripts have written so far."""
        return self.ran.read_text().splitlines() if self.ran.exists() else []

    def begun(self, count: int = 1) -> list[str]:
        """Wait until scripts have written so many lines; return them."""
        return until(lambda: self.lines() if len(self.lines()) >= count else [])

    def open(self) -> None:
        """Let scripts go on."""
        self.gate.touch()


WAIT: Final = "echo $$ >> $ran; until [ -e $gate ]; do sleep 0.02; done"
"""A script that says its process ID, and waits."""

DEAF: Final = f"trap '' TERM; {WAIT}"
"""One that does not end when it is asked to."""

AGAIN: Final = ('retry = "retry"', "retries = 1")
"""The header of one that may run again."""


MakeSite = Callable[..., Site]
"""What the fixture `make` gives."""


class Working:
    """A runner on a thread of its own."""

    def __init__(self, site: Site) -> None:
        self._store = Store(site.settings.database_url)
        self.runner = Runner(site.settings, self._store)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended; what it raises is raised here."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        self._store.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self.runner.run()
        except BaseException as error:
            self._failure = error


@contextmanager
def working(*sites: Site) -> Iterator[Runner]:
    """Have runners work on threads; gives the first."""
    with contextlib.ExitStack() as stack:
        made = []
        for site in sites:
            made.append(Working(site))
            stack.callback(made[-1].join)
            stack.callback(made[-1].runner.stop)
        yield made[0].runner


@contextmanager
def process(
    site: Site, failpoint: str | None = None, *, clock: str | Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a runner work in a process of its own, which is killed in the end.

    Its clock may be set by so much, as faketime writes it, or as a file says that may change.
    """
    program = site.settings.folder / "program.py"
    program.write_text(PROGRAM)
    environment = {"PYTHONPATH": str(Path(remctl.__file__).parents[1]), "PATH": os.defpath}
    if failpoint is not None:
        environment[VARIABLE] = failpoint
    if clock is not None:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        environment |= {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
        environment["FAKETIME_TIMESTAMP_FILE" if isinstance(clock, Path) else "FAKETIME"] = str(clock)
    with site.log.open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, program, site.file], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait(LIMIT)


def killed(site: Site, failpoint: str) -> None:
    """Have a runner work until it dies at a failpoint."""
    with process(site, f"{failpoint}:kill") as runner:
        assert runner.wait(LIMIT) == -signal.SIGKILL


def halted(runner: subprocess.Popen[bytes]) -> None:
    """Wait until a runner has been stopped by SIGSTOP."""
    until(lambda: (stat_fields(runner.pid) or [b""])[STATE] == b"T")
