"""From what the user wants to see to what shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from remctl.cli._contents import Contents
from remctl.cli._failures import Failures
from remctl.cli._files import Folder
from remctl.cli._gather import Gathered, GatheredLines
from remctl.cli._json import Json
from remctl.cli._live import InOrder, Live
from remctl.cli._screen import Screen
from remctl.cli._shown import Display, Part, Shown
from remctl.fanout import HostResult
from remctl.types import Stream

__all__ = ["Display", "Shown", "make_display"]


def make_display(shown: Shown, out: BinaryIO, err: BinaryIO, environ: Mapping[str, str] | None = None) -> Display:
    """Make what shows the results of a run.

    Args:
        shown: how.
        out: where output goes: a buffered stream.
        err: where error output goes, and what is said of hosts that failed.
        environ: the environment, which may forbid colour; None is that of this process.

    Raises:
        RemctlError: a folder for files cannot be used.
    """
    screen = Screen(shown, out, err, os.environ if environ is None else environ)
    contents = Contents()
    line_by_line = not shown.gathers and not shown.ordered
    failures = Failures(screen.err, counts=not shown.quiet, statuses=shown.statuses, at_once=line_by_line)
    part: Part
    if shown.json:
        part = Json(screen.out)
    elif shown.gathers and shown.ordered:
        part = GatheredLines(screen, both=shown.gather == "both")
    elif shown.gathers:
        part = Gathered(screen, shown, failures, contents)
    elif shown.ordered:
        part = InOrder(screen, failures, contents)
    else:
        part = Live(screen)
    folders = [
        Folder(path, stream, failures)
        for path, stream in ((shown.outdir, Stream.STDOUT), (shown.errdir, Stream.STDERR))
        if path is not None
    ]
    return _Display(screen, part, folders, failures, contents, words=not shown.json)


class _Display:
    """All parts of a display; see `Display`."""

    def __init__(
        self,
        screen: Screen,
        part: Part,
        folders: Sequence[Folder],
        failures: Failures,
        contents: Contents,
        *,
        words: bool,
    ) -> None:
        self._screen = screen
        self._parts: tuple[Part, ...] = (part, *folders)
        self._folders = folders
        self._failures = failures
        self._contents = contents
        self._words = words

    @property
    def fault(self) -> OSError | None:
        return self._screen.out.fault

    @property
    def lost(self) -> bool:
        return any(folder.lost for folder in self._folders)

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        for part in self._parts:
            part.output(host, stream, data)

    def result(self, result: HostResult) -> None:
        for part in self._parts:
            part.result(result)
        if self._words:
            self._failures.result(result)

    def tick(self) -> None:
        for part in self._parts:
            part.tick()

    def close(self, *, interrupted: bool, status: int | None) -> None:
        for part in self._parts:
            part.close(interrupted=interrupted, status=status)
        self._failures.close()
        self._contents.close()
