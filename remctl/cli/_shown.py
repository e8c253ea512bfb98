"""What the user wants to see of many hosts, and what every way of showing it can do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from remctl.cli._color import When
from remctl.fanout import HostResult
from remctl.types import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How results are shown.

    Raises:
        ValueError: two of them exclude each other.
    """

    gather: Literal["no", "stdout", "both"] = "no"
    """Whether hosts with the same output are shown together (-b), and with the same error output (-B)."""
    ordered: bool = False
    """Host after host, in the order of the run (-L); with `gather`, line by line, equal lines together (-bL)."""
    diff: bool = False
    """Instead of what each group said, how it differs from the biggest one; gathers, too."""
    quiet: bool = False
    """Leave the numbers of hosts out (-q)."""
    verbose: bool = False
    """With `gather`: each line as it comes, besides the groups at the end (-v)."""
    statuses: bool = True
    """Whether exit codes that are not 0 are said (not with -qS)."""
    label: bool = True
    """Whether the host stands before its output (not with -N)."""
    json: bool = False
    """A line of JSON for each host, and one at the end."""
    outdir: Path | None = None
    """A folder for a file of each host's output."""
    errdir: Path | None = None
    """The same for error output."""
    color: When = "auto"
    terminal_out: bool = False
    """Whether output goes to a terminal, which must get no control characters."""
    terminal_err: bool = False
    """The same for error output."""

    def __post_init__(self) -> None:
        if self.diff and self.ordered:
            raise ValueError("--diff cannot go with -L: it compares whole outputs")
        if self.json and (self.gather != "no" or self.ordered or self.diff):
            raise ValueError("--json cannot go with -b, -B, -L and --diff: it has a line for each host")
        if self.outdir is not None and self.errdir is not None and self.outdir.resolve() == self.errdir.resolve():
            raise ValueError(f"--outdir and --errdir cannot be the same folder: {self.outdir}")

    @property
    def gathers(self) -> bool:
        """Whether output waits for the hosts that say the same."""
        return self.gather != "no" or self.diff

    @property
    def keeps(self) -> bool:
        """Whether output is shown from the results, and not as it comes."""
        return self.json or self.gathers != self.ordered


class Part(Protocol):
    """A way to show what comes of the hosts, or one of several that go together."""

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Take a piece of output as it comes.

        Args:
            host: the one it is of, as its result names it.
            stream: which stream it is of.
            data: any part of it; pieces are no lines.
        """

    def result(self, result: HostResult) -> None:
        """Take what became of a host; no further output of it comes."""

    def tick(self) -> None:
        """Show what has waited long enough; the owner calls it about every second."""

    def close(self, *, interrupted: bool, status: int | None) -> None:
        """Show what has not been shown yet, and the summary.

        Args:
            interrupted: whether the user ended the run.
            status: what the process will exit with, for the summary of --json; None if that is not known.
        """


class Display(Part, Protocol):
    """Shows what comes of the hosts of a run.

    It belongs to one thread.  What it writes at a time is whole lines, so that a progress bar can stand below them.
    Nothing is raised for files and streams that cannot be written.
    """

    @property
    def fault(self) -> OSError | None:
        """Why nothing can be written to the output any more, a reader that has left for example; None if it can."""

    @property
    def lost(self) -> bool:
        """Whether there is a file (--outdir, --errdir) that could not be written."""
