"""What the tests of attempts share: scripts, words from scripts, and processes that are to end."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from remctl.jobs.attempt import Attempt, Ending, Limits, read_output, start_time

LIMIT = 20
"""Seconds after which a test gives up."""


class Fifo:
    """A pipe with a name, by which a script and a test wait for each other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def hear(self) -> str:
        """Wait until a script writes a word."""
        return self.path.read_text().strip()

    def hear_number(self) -> int:
        return int(self.hear())

    def say(self) -> None:
        """Let a script go on that waits for a word."""
        self.path.write_text("\n")


class Attempts:
    """Makes attempts in folders of their own, and closes them in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._others = children_of(os.getpid())
        self.made: list[Attempt] = []
        self.said = Fifo(folder / "said")
        self.gate = Fifo(folder / "gate")

    def left(self) -> list[int]:
        """Return the children of this process that were not there at first, zombies among them."""
        return [pid for pid in children_of(os.getpid()) if pid not in self._others]

    def prepare(
        self,
        argv: str | list[str],
        *,
        env: dict[str, str] | None = None,
        run_time: float | None = None,
        grace: float = LIMIT,
        drain: float = LIMIT,
        output: int = 100_000,
        folder: Path | None = None,
        cwd: Path | None = None,
    ) -> Attempt:
        """Prepare an attempt; a script of sh is told where the fifos $said and $gate are."""
        if isinstance(argv, str):
            argv = ["/bin/sh", "-c", argv]
        if env is None:
            env = {
                "said": str(self.said.path),
                "gate": str(self.gate.path),
                "PATH": os.defpath,
                "PYTHON": sys.executable,
            }
        attempt = Attempt.prepare(
            folder or self.folder / f"attempt{len(self.made)}",
            argv,
            env=env,
            cwd=cwd or self.folder,
            limits=Limits(run_time, grace, drain, output),
        )
        self.made.append(attempt)
        return attempt

    def __enter__(self) -> Attempts:
        return self

    def __exit__(self, *_: object) -> None:
        for attempt in self.made:
            attempt.abort()
            with contextlib.suppress(ValueError):  # it is closed
                ended(attempt)
            attempt.close()

    def begin(self, argv: str | list[str], **options: object) -> Attempt:
        """Prepare an attempt and release it."""
        attempt = self.prepare(argv, **options)  # type: ignore[arg-type]  # as they are there
        attempt.release()
        return attempt

    def run(self, argv: str | list[str], **options: object) -> tuple[Ending, bytes, bytes]:
        """Run a script to its end; return that and what is kept of both streams."""
        attempt = self.begin(argv, **options)
        ending = ended(attempt)
        return ending, output(attempt, "stdout"), output(attempt, "stderr")


def ended(attempt: Attempt) -> Ending:
    """Wait for an attempt's ending."""
    ending = attempt.wait(LIMIT)
    assert ending is not None
    return ending


def output(attempt: Attempt, stream: str) -> bytes:
    """Return what is kept of a stream."""
    assert stream in ("stdout", "stderr")
    piece = read_output(attempt.folder, stream, limit=1 << 30)  # type: ignore[arg-type]  # it is one of the two
    return b"" if piece is None else piece.data


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], None]]:
    """Give a function that waits for a process to end, which may be anybody's child."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)

    def wait() -> None:
        assert poll.poll(LIMIT * 1000), f"{pid} lives"

    try:
        yield wait
    finally:
        os.close(handle)


def lives(pid: int) -> bool:
    """Return whether there is a process, other than a zombie."""
    return start_time(pid) is not None


def children_of(parent: int) -> list[int]:
    """Return a process's children, zombies among them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
