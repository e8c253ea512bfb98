"""How far a run is: a bar on a terminal, with -v a line from time to time elsewhere, and nothing with -q.

It stands on standard error, below what is shown of the hosts: it is taken away before something is written, and put
back afterwards.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import BinaryIO, Final, Protocol

from remctl.cli._color import wanted
from remctl.cli._shown import Shown
from remctl.fanout import HostResult, HostState

FIRST: Final = 0.5
"""Seconds until the bar is there; a short run has none."""

BETWEEN: Final = 0.1
"""Seconds between two looks of the bar."""

LINES: Final = 5.0
"""Seconds between two lines."""

NARROW: Final = 20

_FAILED: Final = frozenset({HostState.NONZERO, HostState.DENIED, HostState.LOST, HostState.TIMEOUT})

_UNREACHABLE: Final = frozenset(
    {HostState.DNS, HostState.REFUSED, HostState.CONNECT_TIMEOUT, HostState.AUTH, HostState.PROTOCOL}
)


class Counts:
    """Counts what became of hosts.

    Args:
        total: how many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        """Where the command failed, was refused, or has no known end."""
        self.unreachable = 0
        """Where it could not be sent."""
        self.began = time.monotonic()

    def note(self, result: HostResult) -> None:
        """Take what became of a host."""
        self.done += 1
        self.failed += result.state in _FAILED
        self.unreachable += result.state in _UNREACHABLE

    def __str__(self) -> str:
        rate = self.done / max(time.monotonic() - self.began, 0.001)
        left = f", about {(self.total - self.done) / rate:.0f} s left" if 0 < self.done < self.total else ""
        return (
            f"{self.done} of {self.total} done, {self.failed} failed, {self.unreachable} unreachable, "
            f"{rate:.1f} per second{left}"
        )


class Progress(Protocol):
    """Shows how far a run is."""

    counts: Counts

    def hide(self) -> None:
        """Take it away, since something else is about to be written."""

    def show(self) -> None:
        """Show it, if it is time to; called several times a second."""

    def close(self) -> None:
        """Take it away for good."""


def make_progress(counts: Counts, err: BinaryIO, shown: Shown, environ: Mapping[str, str]) -> Progress:
    """Return what shows the progress of a run.

    Args:
        counts: what to show.
        err: standard error.
        shown: how results are shown.
        environ: the environment, which says what the terminal can do.
    """
    if shown.quiet:
        return _Silent(counts)
    if shown.terminal_err and environ.get("TERM", "dumb") != "dumb":
        return _Bar(counts, err, plain=not wanted(shown.color, terminal=True, environ=environ))
    return _Lines(counts, err) if shown.verbose else _Silent(counts)


class _Silent:
    """Shows nothing."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def hide(self) -> None:
        pass

    def show(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    """Writes a line from time to time."""

    def __init__(self, counts: Counts, err: BinaryIO) -> None:
        self.counts = counts
        self._err = err
        self._next = counts.began + LINES

    def hide(self) -> None:
        pass

    def show(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINES
            self._write()

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        _write(self._err, f"pyremctl: {self.counts}\n")


class _Bar:
    """Draws a bar in the last line of the terminal."""

    def __init__(self, counts: Counts, err: BinaryIO, *, plain: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self.counts = counts
        self._err = err
        self._next = counts.began + FIRST
        self._drawn = False
        self._console = Console(force_terminal=True, stderr=True, no_color=plain, highlight=False, soft_wrap=False)

        def text(form: str) -> TextColumn:
            return TextColumn(form, table_column=Column(no_wrap=True))

        self._bar = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            text("done"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            text("[red]{task.fields[failed]} failed"),
            text("[magenta]{task.fields[unreachable]} unreachable"),
            text("{task.fields[rate]}/s"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            text("left"),
            console=self._console,
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("", total=counts.total, failed=0, unreachable=0, rate="-")

    def hide(self) -> None:
        if self._drawn:
            self._drawn = False
            _write(self._err, "\r\x1b[K")

    def show(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BETWEEN
            self._draw()

    def close(self) -> None:
        self.hide()

    def _draw(self) -> None:
        counts = self.counts
        self._bar.update(
            self._task,
            completed=counts.done,
            failed=counts.failed,
            unreachable=counts.unreachable,
            rate=f"{counts.done / (time.monotonic() - counts.began):.0f}",
        )
        width = _width(self._err)
        with self._console.capture() as captured:
            self._console.print(self._bar.get_renderable(), width=width, end="", no_wrap=True, crop=True)
        self._drawn = True
        _write(self._err, f"\r{captured.get().partition(chr(10))[0]}\x1b[K")


def _width(err: BinaryIO) -> int:
    """Return how many columns there are but for the last one, which may move the cursor to the next line."""
    try:
        columns = os.get_terminal_size(err.fileno()).columns
    except OSError:
        columns = 0
    return max(NARROW, (columns or 80) - 1)


def _write(err: BinaryIO, text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is there to see it
        err.write(text.encode(errors="replace"))
        err.flush()
