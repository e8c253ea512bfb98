"""What the benchmarks of jobs stand on: databases, stores with a script, and daemons of `remctl-jobs`.

PostgreSQL is one of its own, with the settings of a new installation (fsync and all).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from jobs.postgres import Postgres

from remctl.jobs.scripts import Language, Limits, Parameters, Script
from remctl.jobs.store import Store, upgrade

COMMAND: Final = (sys.executable, "-m", "remctl.jobs.cli")

New = dict[str, Callable[[], str]]
"""For each kind of database what makes an empty one, and returns its URL."""


@contextlib.contextmanager
def databases() -> Iterator[New]:
    """Give what makes databases, for as long as the `with` lasts."""
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres:
        number = itertools.count()
        yield {"sqlite": lambda: f"sqlite:///{folder}/{next(number)}.db", "postgresql": postgres.new_database}


def new_store(url: str) -> Store:
    """Open an empty database, and put a script into it that is called `bench`."""
    store = Store(url)
    upgrade(store.database)
    store.scripts.install(Script("bench", Language.BASH, "Nothing.", b"", "0" * 64, Parameters({}), Limits()), "bench")
    return store


def new_folder(place: Path, tables: Mapping[str, Mapping[str, object]], **keys: object) -> Path:
    """Have `remctl-jobs init` make a folder, with these settings; return the configuration file."""
    config = place / "jobs" / "jobs.toml"
    subprocess.run([*COMMAND, "init", str(config.parent)], check=True, stdout=subprocess.DEVNULL)
    lines = _lines(keys)
    for name, table in tables.items():
        lines += [f"[{name}]", *_lines(table)]
    config.write_text("\n".join([*lines, ""]))
    return config


def _lines(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


@contextlib.contextmanager
def daemon(config: Path, name: str, ready: str) -> Iterator[tuple[int, str]]:
    """Have a daemon work.

    Args:
        config: its configuration file; its log is beside it.
        name: of its command.
        ready: a pattern for what the log says when it works, with one group.

    Yields:
        Its pid, and what the group has matched.
    """
    log = config.with_name(f"{name}.log")
    command = [*COMMAND, "--config", str(config), name]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while not (found := re.search(ready, log.read_text())):
                if process.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.05)
            yield process.pid, found[1]
        finally:
            process.send_signal(signal.SIGTERM)
