"""How far a run is, on a terminal and elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest
from fanout.conftest import everywhere
from serving import ServerThread

from cli.showing import made
from cli.site import Deeds, Site
from remctl.cli import _progress
from remctl.cli._progress import Counts, Progress, make_progress
from remctl.cli._shown import Shown
from remctl.fanout import HostState
from remctl.testing import Sandbox

__all__ = ["everywhere"]


@pytest.fixture
def site(box: Sandbox, everywhere: Callable[..., ServerThread]) -> Site:
    deeds = Deeds()
    return Site(box, everywhere(deeds), deeds)


def counted() -> Counts:
    counts = Counts(20)
    for state in (HostState.OK, HostState.NONZERO, HostState.TIMEOUT, HostState.REFUSED, HostState.SKIPPED):
        counts.note(made("h", None, state=state))
    return counts


def make(counts: Counts, err: BinaryIO, *, environ: dict[str, str] | None = None, **shown: Any) -> Progress:
    return make_progress(counts, err, Shown(**shown), {"TERM": "xterm", **(environ or {})})


def test_counts_tell_failed_from_unreachable() -> None:
    assert re.fullmatch(r"5 of 20 done, 2 failed, 1 unreachable, [\d.]+ per second, about \d+ s left", str(counted()))
    assert "left" not in str(Counts(20))


class TestElsewhere:
    @pytest.mark.parametrize("options", [{}, {"quiet": True, "verbose": True}, {"terminal_err": True, "quiet": True}])
    def test_there_is_nothing(self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_progress, "LINES", 0.0)
        monkeypatch.setattr(_progress, "FIRST", 0.0)
        err = io.BytesIO()
        progress = make(counted(), err, **options)
        progress.show()
        progress.hide()
        progress.close()
        assert err.getvalue() == b""

    @pytest.mark.parametrize("options", [{}, {"terminal_err": True, "environ": {"TERM": "dumb"}}])
    def test_but_lines_if_more_is_to_be_said(self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_progress, "LINES", 0.0)
        err = io.BytesIO()
        progress = make(counted(), err, verbose=True, **options)
        progress.show()
        progress.hide()
        assert re.fullmatch(rb"pyremctl: 5 of 20 done, .* left\n", err.getvalue())
        monkeypatch.setattr(_progress, "LINES", 100.0)
        progress.show()
        progress.show()
        assert err.getvalue().count(b"\n") == 2
        progress.close()
        assert err.getvalue().count(b"\n") == 3

    def test_a_stream_that_cannot_be_written_does_no_harm(self) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            make(counted(), full, verbose=True).close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, BinaryIO]]:
    """Give both ends of a terminal with 60 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(slave, "wb", buffering=0) as stream:
        yield master, stream
    os.close(master)


class TestBar:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_progress, "FIRST", 0.0)
        monkeypatch.setattr(_progress, "BETWEEN", 0.0)

    def test_has_one_line_that_fits(self, terminal: tuple[int, BinaryIO]) -> None:
        master, stream = terminal
        progress = make(counted(), stream, terminal_err=True, color="never")
        progress.show()
        data = os.read(master, 4096).decode()
        assert "\n" not in data
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", data)
        assert len(text) <= 59
        assert re.search(r"5/20 done .* 2 failed 1 unreachable", text)

    def test_is_taken_away_and_put_back(self, terminal: tuple[int, BinaryIO]) -> None:
        master, stream = terminal
        progress = make(counted(), stream, terminal_err=True)
        progress.show()
        os.read(master, 4096)
        progress.hide()
        assert os.read(master, 4096) == b"\r\x1b[K"
        progress.hide()
        progress.show()
        assert b"5/20" in os.read(master, 4096)
        progress.close()
        assert os.read(master, 4096) == b"\r\x1b[K"

    def test_has_colour_unless_it_must_not(self, terminal: tuple[int, BinaryIO]) -> None:
        master, stream = terminal
        for options, colored in (
            ({}, True),
            ({"color": "always", "environ": {"TERM": "xterm", "NO_COLOR": "1"}}, True),
            ({"environ": {"TERM": "xterm", "NO_COLOR": "1"}}, False),
            ({"environ": {"TERM": "xterm", "CLICOLOR": "0"}}, False),
            ({"color": "never"}, False),
        ):
            make(counted(), stream, terminal_err=True, **options).show()
            assert (re.search(rb"\x1b\[[0-9;]*3[0-9]", os.read(master, 4096)) is not None) == colored, options


def test_on_a_terminal_the_bar_stands_below_whole_lines(site: Site) -> None:
    with site.started("-w", "127.0.1.[1-6]", "-f", "3", "wait", terminal=True, env={"NO_COLOR": "1"}) as started:
        started.expect(b"0/6 done")
        site.deeds.open(site.server)
        ended = started.wait()
    assert ended.status == 0
    shown = screen(ended.stderr.decode())
    assert sorted(shown) == [f"127.0.1.{number}: begun" for number in range(1, 7)]


def test_without_a_terminal_it_is_said_in_lines(site: Site) -> None:
    ended = site.run("-w", "127.0.1.[1-6]", "-v", "status", "1")
    assert b"pyremctl: 6 of 6 done, 6 failed, 0 unreachable, " in ended.stderr
    assert b"\r" not in ended.stderr
    assert b" done" not in site.run("-w", "127.0.1.[1-6]", "status", "1").stderr


def screen(text: str) -> list[str]:
    """Return what stands on a terminal after it got a text: whole lines, and those that were taken away again."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        kept = re.split(r"\r\x1b\[K", line)[-1]
        kept = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", kept.rpartition("\r")[2])
        if kept:
            lines.append(kept)
    return lines
