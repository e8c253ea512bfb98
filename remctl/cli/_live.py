"""Each line as it comes, with its host before it; or host after host (-L)."""

from __future__ import annotations

from remctl.cli._color import Color
from remctl.cli._contents import Content, Contents
from remctl.cli._failures import Failures, note_cut
from remctl.cli._screen import Screen
from remctl.cli._text import Lines, lines_of
from remctl.fanout import HostResult, HostState
from remctl.types import Stream


class Live:
    """Shows lines as they come: output as output, error output as error output."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._streams: dict[tuple[str, Stream], Lines] = {}

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Show the lines that are complete."""
        self._show(host, stream, self._streams.setdefault((host, stream), Lines()).take(data))

    def result(self, result: HostResult) -> None:
        """Show the lines that have no end."""
        if result.state is not HostState.SKIPPED:  # which may have the name of another one
            for stream in Stream:
                self._end(result.host, stream)

    def tick(self) -> None:
        """Nothing waits for time to pass."""

    def close(self, *, interrupted: bool, status: int | None) -> None:  # noqa: ARG002
        """Show what is there of hosts that have no result."""
        for host, stream in list(self._streams):
            self._end(host, stream)

    def _end(self, host: str, stream: Stream) -> None:
        if (lines := self._streams.pop((host, stream), None)) is not None:
            self._show(host, stream, lines.end())

    def _show(self, host: str, stream: Stream, lines: list[bytes]) -> None:
        if stream is Stream.STDERR:
            self._screen.err.lines(host, lines, Color.ERROR)
        else:
            self._screen.out.lines(host, lines)


class InOrder:
    """Shows all of a host when all hosts before it have been shown."""

    def __init__(self, screen: Screen, failures: Failures, contents: Contents) -> None:
        self._screen = screen
        self._failures = failures
        self._contents = contents
        self._held: dict[int, tuple[str, Content, Content]] = {}
        self._next = 0

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Leave it: the result has it, too."""

    def result(self, result: HostResult) -> None:
        """Show the host, or keep it until it is its turn."""
        note_cut(self._failures, result.host, "output", result.stdout, result.stdout_size)
        note_cut(self._failures, result.host, "error output", result.stderr, result.stderr_size)
        if result.index != self._next:
            stdout = self._contents.add(result.stdout, result.stdout_size)
            stderr = self._contents.add(result.stderr, result.stderr_size)
            self._held[result.index] = (result.host, stdout, stderr)
            return
        self._show(result.host, result.stdout, result.stderr)
        self._next += 1
        while self._next in self._held:
            self._show_held(self._next)
            self._next += 1

    def tick(self) -> None:
        """Nothing waits for time to pass."""

    def close(self, *, interrupted: bool, status: int | None) -> None:  # noqa: ARG002
        """Show the hosts behind those that have no result."""
        for index in sorted(self._held):
            self._show_held(index)

    def _show_held(self, index: int) -> None:
        host, stdout, stderr = self._held.pop(index)
        self._show(host, self._contents.get(stdout), self._contents.get(stderr))

    def _show(self, host: str, stdout: bytes, stderr: bytes) -> None:
        self._screen.out.lines(host, lines_of(stdout))
        self._screen.err.lines(host, lines_of(stderr), Color.ERROR)
