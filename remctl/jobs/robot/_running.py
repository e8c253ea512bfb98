"""A script that runs, on whatever system: what the agent asks of it, and what its end means for the job."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from remctl.jobs.states import JobState

DRAIN: Final = 2.0
"""Seconds that processes which a script leaves behind may go on writing."""

OUTPUT: Final = 1 << 20
"""Bytes of each stream that are kept."""


class Order(NamedTuple):
    """What is to run."""

    folder: Path
    """Of this run alone; the output goes there."""
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    run_time: float | None
    """Seconds after which the script is stopped; None: never."""
    grace: float
    """Seconds that it has to end when it is stopped."""


class End(NamedTuple):
    """How a job ends."""

    state: JobState
    why: str
    """For the log."""


class Running(Protocol):
    """One run; `stop` and `abort` may be called at any time, from any thread and signal handler."""

    def release(self) -> None:
        """Have the script run, which until then does not."""

    def stop(self) -> None:
        """Ask it to end, and kill it when the grace is over."""

    def abort(self) -> None:
        """Kill all of its processes at once."""

    def wait(self, timeout: float) -> End | None:
        """Wait for its end for so many seconds; None if it has not come."""

    def close(self) -> None:
        """Let go of it; a script that still runs is stopped."""


class Runs(Protocol):
    """What a system knows about running scripts."""

    def prepare(self, order: Order) -> Running:
        """Make a run, which waits for `release`.

        Raises:
            OSError, RemctlError: it cannot be made.
        """

    def still_runs(self, folder: Path) -> bool:
        """Say whether a run whose agent was killed is still being ended."""

    def after(self, folder: Path) -> End | None:
        """Return how it has ended; None if its script has not begun, for sure."""


LOST: Final = End(JobState.FAILED, "the agent was killed meanwhile, and nobody knows how the script ended")


def system() -> Runs:
    """Return what this system has."""
    if sys.platform == "win32":
        from remctl.jobs.robot._running_windows import WindowsRuns

        return WindowsRuns()
    from remctl.jobs.robot._running_posix import KeptRuns

    return KeptRuns()
