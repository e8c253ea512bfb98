"""Runs `pyremctl`, and the C client beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

PYREMCTL: Final = (sys.executable, "-X", "dev", "-W", "error", "-m", "remctl.cli")

PATIENCE: Final = 30


class Ended(NamedTuple):
    """What came of a program."""

    stdout: bytes
    stderr: bytes
    status: int


def run(
    program: Sequence[str],
    *words: str | bytes,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program to its end.

    Args:
        program: its first words.
        words: the others.
        stdin: what it reads; None is nothing.
        env: what is different in its environment.
    """
    done = subprocess.run(
        [*program, *words],
        input=stdin or b"",
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": "", **(env or {})},
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.stdout, done.stderr, done.returncode)


def pyremctl(*words: str | bytes, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> Ended:
    """Run `pyremctl`."""
    return run(PYREMCTL, *words, stdin=stdin, env=env)
