"""Hosts that say the same, together: -b and -B, the differences between them (--diff), and line by line (-bL)."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple

from remctl.cli._color import Color
from remctl.cli._contents import Content, Contents
from remctl.cli._failures import Failures, note_cut, rank_of
from remctl.cli._fold import fold
from remctl.cli._live import Live
from remctl.cli._screen import Screen
from remctl.cli._shown import Shown
from remctl.cli._text import Lines, lines_of
from remctl.fanout import HostResult, HostState
from remctl.types import Stream

COMPARED: Final = 20_000
"""Lines of an output up to which it is compared with another one; the time for it can grow with their square."""

WAIT: Final = 1.0
"""Seconds that a line waits for other hosts to say the same."""

WAITING: Final = 4 * 1024 * 1024
"""Bytes that wait at most, over all hosts."""


class _Key(NamedTuple):
    """What hosts of a group have in common."""

    rank: int
    """See `rank_of`: the exit status, or the state."""
    stdout: Content
    stderr: Content | None


@dataclass(slots=True)
class _Group:
    first: int
    """The first of its places in the run."""
    hosts: list[str] = field(default_factory=list)


class Gathered:
    """Shows at the end what each group of hosts said; those that said nothing are in none."""

    def __init__(self, screen: Screen, shown: Shown, failures: Failures, contents: Contents) -> None:
        self._screen = screen
        self._failures = failures
        self._contents = contents
        self._both = shown.gather == "both"
        self._diff = shown.diff
        self._verbose = shown.verbose
        self._counts = not shown.quiet
        self._live = Live(screen)
        self._groups: dict[_Key, _Group] = {}

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Show it as it comes, if it is not gathered or the user wants that, too."""
        if self._verbose or (stream is Stream.STDERR and not self._both):
            self._live.output(host, stream, data)

    def result(self, result: HostResult) -> None:
        """Put the host into its group."""
        self._live.result(result)
        stdout = self._contents.add(result.stdout, result.stdout_size)
        stderr = self._contents.add(result.stderr, result.stderr_size) if self._both else None
        if result.status is None and not stdout.size and not (stderr and stderr.size):
            return
        group = self._groups.setdefault(_Key(rank_of(result), stdout, stderr), _Group(result.index))
        group.hosts.append(result.host)
        group.first = min(group.first, result.index)
        note_cut(self._failures, result.host, "output", result.stdout, result.stdout_size)
        if self._both:
            note_cut(self._failures, result.host, "error output", result.stderr, result.stderr_size)

    def tick(self) -> None:
        """Nothing waits for time to pass."""

    def close(self, *, interrupted: bool, status: int | None) -> None:
        """Show the groups: by exit status, the biggest first."""
        self._live.close(interrupted=interrupted, status=status)
        ranked = sorted(self._groups.items(), key=lambda each: (each[0].rank, -len(each[1].hosts), each[1].first))
        groups = [(self._name(group), key) for key, group in ranked]
        if self._diff and groups:
            biggest = max(range(len(groups)), key=lambda place: len(ranked[place][1].hosts))
            self._compare(*groups.pop(biggest), groups)
            return
        for name, key in groups:
            if key.stdout.size or (key.stderr and key.stderr.size):
                self._show(name, key)

    def _name(self, group: _Group) -> str:
        number = f" ({len(group.hosts)})" if self._counts and len(group.hosts) > 1 else ""
        return fold(group.hosts) + number

    def _show(self, name: str, key: _Key) -> None:
        out = self._screen.out
        shown = []
        if self._screen.label:
            rule = "-" * 15
            header = f"{rule}\n{name}\n{rule}\n"
            shown.append(out.paint(header.encode("utf-8", "backslashreplace"), Color.LABEL))
        shown += map(out.line, lines_of(self._contents.get(key.stdout)))
        if key.stderr is not None:
            shown += (out.line(line, Color.ERROR) for line in lines_of(self._contents.get(key.stderr)))
        out.write(b"".join(shown))

    def _compare(self, name: str, key: _Key, groups: Iterable[tuple[str, _Key]]) -> None:
        ours = self._lines(key)
        for other, key in groups:
            theirs = self._lines(key)
            if ours == theirs:
                continue
            if max(len(ours), len(theirs)) > COMPARED:
                self._failures.note(other, f"more than {COMPARED} lines are not compared: the output is shown whole")
                self._show(other, key)
            else:
                self._screen.out.write(b"".join(self._differences(ours, theirs, name, other)))

    def _lines(self, key: _Key) -> list[bytes]:
        content = self._contents.get(key.stdout)
        if key.stderr is not None:
            content += self._contents.get(key.stderr)
        *lines, last = content.split(b"\n")
        return [line + b"\n" for line in lines] + ([last] if last else [])

    def _differences(self, ours: list[bytes], theirs: list[bytes], name: str, other: str) -> Iterator[bytes]:
        names = name.encode("utf-8", "backslashreplace"), other.encode("utf-8", "backslashreplace")
        differences = difflib.diff_bytes(difflib.unified_diff, ours, theirs, *names)
        for place, line in enumerate(differences):
            color = Color.FILE if place < 2 else _COLORS.get(line[:1])
            yield self._screen.out.line(line.removesuffix(b"\n"), color)
            if not line.endswith(b"\n"):
                yield b"\\ No newline at the end\n"


_COLORS: Final = {b"@": Color.PLACE, b"+": Color.ADDED, b"-": Color.REMOVED}


class GatheredLines:
    """Shows lines soon after they come, those together that hosts have at the same place; waits for no host.

    Args:
        screen: where.
        both: whether lines of error output are treated likewise; if not, they are shown as they come.
        clock: the time in seconds.
    """

    def __init__(self, screen: Screen, *, both: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._both = both
        self._clock = clock
        self._live = Live(screen)
        self._streams: dict[tuple[str, Stream], tuple[Lines, Iterator[int]]] = {}
        self._waiting: dict[tuple[int, Stream], dict[bytes, list[str]]] = {}
        self._size = 0
        self._since = 0.0

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Take the lines that are complete."""
        if stream is Stream.STDERR and not self._both:
            self._live.output(host, stream, data)
            return
        lines, places = self._streams.setdefault((host, stream), (Lines(), count()))
        self._add(host, stream, lines.take(data), places)
        self.tick()

    def result(self, result: HostResult) -> None:
        """Take the lines that have no end."""
        self._live.result(result)
        if result.state is not HostState.SKIPPED:  # which may have the name of another one
            for stream in Stream:
                self._end(result.host, stream)

    def tick(self) -> None:
        """Show what has waited long enough."""
        if self._size and (self._size >= WAITING or self._clock() - self._since >= WAIT):
            self._show()

    def close(self, *, interrupted: bool, status: int | None) -> None:
        """Show what waits."""
        self._live.close(interrupted=interrupted, status=status)
        for host, stream in list(self._streams):
            self._end(host, stream)
        self._show()

    def _add(self, host: str, stream: Stream, lines: list[bytes], places: Iterator[int]) -> None:
        if lines and not self._size:
            self._since = self._clock()
        for line in lines:
            self._waiting.setdefault((next(places), stream), {}).setdefault(line, []).append(host)
            self._size += len(line) + 1

    def _end(self, host: str, stream: Stream) -> None:
        if (found := self._streams.pop((host, stream), None)) is not None:
            lines, places = found
            self._add(host, stream, lines.end(), places)

    def _show(self) -> None:
        for place in sorted(self._waiting):
            found = self._waiting[place]
            color = Color.ERROR if place[1] is Stream.STDERR else Color.LABEL
            for line, hosts in sorted(found.items(), key=lambda each: -len(each[1])):
                self._screen.out.lines(fold(hosts), [line], color)
        self._waiting.clear()
        self._size = 0
