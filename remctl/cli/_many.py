"""A command on many hosts: from the options to the hosts, from their results to what is shown, and to the exit status.

The run is on a thread of its own (`_work`); this one, the main one, shows what comes of it and takes the signals.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, Final, TextIO

from remctl.cli import _options
from remctl.cli._arguments import ArgumentError, collect
from remctl.cli._display import make_display
from remctl.cli._fold import fold
from remctl.cli._interrupt import Interrupts
from remctl.cli._journal import Journal, Past
from remctl.cli._parser import USAGE
from remctl.cli._progress import Counts, make_progress
from remctl.cli._streams import ERR, OUT, say, show_log
from remctl.cli._tally import Tally
from remctl.cli._targets import find, label
from remctl.cli._work import Output, Said, Work
from remctl.exceptions import RemctlError
from remctl.fanout import Host, HostResult
from remctl.fanout._hosts import host_of

GRACE: Final = 3.0
"""Seconds that commands under way get to end after Ctrl-C."""

TICK: Final = 0.1
"""Seconds between two looks at signals and the progress, if nothing comes of the run."""

SECOND: Final = 1.0
"""Seconds between two ticks of the display."""


def run(words: Sequence[str], rest: Sequence[str]) -> int:
    """Run the command line's command; return the exit status.

    Args:
        words: the options.
        rest: the command.

    Raises:
        OSError: the output cannot be written any more.
    """
    parser = _options.make_parser()
    options = parser.parse_args(words)
    if not rest:
        parser.error("a command is needed")
    show_log(logging.INFO if options.verbose else logging.ERROR if options.quiet else logging.WARNING)
    try:
        command = _command(options, rest)
        with _opened(options) as journal:
            return _Command(options, command, journal).run()
    except RemctlError as error:
        say(str(error))
    except (TypeError, ValueError) as error:
        say(_options.named_by_option(str(error)))
    return USAGE


def _command(options: argparse.Namespace, rest: Sequence[str]) -> list[bytes]:
    if "-" in options.hostfile and (options.stdin or (options.expand and "@-" in rest)):
        raise ArgumentError("standard input cannot be both hosts and an argument")
    return collect(rest, expand=options.expand, stdin=options.stdin)


@contextlib.contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Journal | None]:
    if options.resume is None:
        yield None
        return
    if options.duplicates:
        raise ArgumentError("--resume cannot go with --duplicates: a journal tells hosts apart by their names")
    journal = Journal(options.resume)
    try:
        yield journal
    finally:
        journal.close()


def _hosts(options: argparse.Namespace, journal: Journal | None) -> list[Host]:
    """Return the hosts of the run, those among them where nothing is left to do."""
    named = _options.named_of(options)
    known = None if journal is None else journal.targets
    if known is None:
        return find(named)
    if named.any and named.pick is None:
        return find(named)
    hosts = [host_of(target) for target in known]
    if named.any and not {label(host) for host in find(replace(named, pick=None))}.issuperset(known):
        raise ArgumentError("the hosts that were picked for this journal are not among those that are named")
    return hosts


class _Command:
    """A run that is to be begun.

    Args:
        options: the command line's.
        command: the command's words.
        journal: the journal of the run, open; None if there is none.

    Raises:
        RemctlError, TypeError, ValueError: something makes no sense; nothing was sent.
    """

    def __init__(self, options: argparse.Namespace, command: Sequence[bytes], journal: Journal | None) -> None:
        self._options = options
        self._journal = journal
        self._tally = Tally()
        shown = _options.shown_of(options)
        hosts = _hosts(options, journal)
        rest = hosts if journal is None else [host for host in hosts if self._is_left(journal.past(label(host)))]
        self._work = Work(rest, command, _options.arguments_of(options, shown), journal)
        err = _bytes_of(sys.stderr, ERR)
        self._display = make_display(shown, _bytes_of(sys.stdout, OUT), err)
        self._counts = Counts(len(rest))
        self._progress = make_progress(self._counts, err, shown, os.environ)
        self._cut_at: float | None = None
        self._ticked = 0.0
        if journal is not None:
            journal.start([label(host) for host in hosts], command, {"port": options.port, "service": options.service})
            self._note_past(journal, hosts)

    def _is_left(self, past: Past) -> bool:
        return past is Past.OPEN or (past is Past.UNKNOWN and self._options.retry_unknown)

    def _note_past(self, journal: Journal, hosts: Sequence[Host]) -> None:
        """Say what is known of an earlier run with this journal, and let it count."""
        for status in journal.statuses:
            self._tally.status(status)
        unknown = [label(host) for host in hosts if journal.past(label(host)) is Past.UNKNOWN]
        if unknown and not self._options.retry_unknown:
            for _ in unknown:
                self._tally.unknown()
            self._say_of(unknown, "begun with in an earlier run, end unknown: not run again without --retry-unknown")
        if not self._counts.total:
            say(f"nothing is left to do: {self._options.resume} has an end, or a beginning, for all {len(hosts)} hosts")

    # The run

    def run(self) -> int:
        """Run it to its end; return the exit status.

        Raises:
            OSError: the output cannot be written any more.
        """
        if not self._counts.total:
            return self._finish(None)
        with self._work as work, Interrupts(work.stop, work.cancel) as interrupts:
            while (items := work.take(TICK)) is not None:
                if items:
                    self._progress.hide()
                for item in items:
                    self._take(item)
                self._look(interrupts)
                self._progress.show()
            self._progress.close()
            return self._finish(interrupts.status)

    def _take(self, item: Output | HostResult | Said) -> None:
        if isinstance(item, Output):
            self._display.output(item.host, item.stream, item.data)
        elif isinstance(item, Said):
            say(item.text)
        else:
            self._display.result(item)
            self._tally.result(item)
            self._counts.note(item)
            if self._journal is not None:
                self._journal.end(item)

    def _look(self, interrupts: Interrupts) -> None:
        """See what else has happened."""
        now = time.monotonic()
        if now >= self._ticked + SECOND:
            self._ticked = now
            self._progress.hide()
            self._display.tick()
        if interrupts.asked():
            self._list_pending()
        if self._cut_at is None:
            if interrupts.signal is not None:
                self._cut_at = now + GRACE
                under_way = sum(map(len, self._work.pending()))
                self._say(f"no further host is begun with; {under_way} in work have {GRACE:g} s to end (again: now)")
            elif (fault := self._fault) is not None:
                self._cut_at = now + GRACE
                self._work.stop(fault)
                self._say(f"no further host is begun with: {fault}")
        elif now >= self._cut_at:
            self._work.cancel(f"it had not ended {GRACE:g} s after the run was stopped")
            self._cut_at = math.inf

    @property
    def _fault(self) -> str | None:
        """Why no further host may be begun with; None if there is nothing."""
        if self._display.fault is not None:
            return self._display.fault.strerror
        if self._journal is not None and self._journal.fault is not None:
            return f"the journal cannot be written: {self._journal.fault.strerror}"
        return None

    def _finish(self, signal: int | None) -> int:
        """Show what was not shown yet; return the exit status."""
        error = self._work.error
        if error is not None:
            if not isinstance(error, RemctlError):
                raise error
            say(str(error))
            self._tally.not_run()
        if self._display.lost:
            self._tally.lost()
        status = self._tally.exit_status(largest=self._options.largest, signal=signal, stopped=self._work.stopped)
        self._display.close(interrupted=signal is not None, status=status)
        if self._display.fault is not None:
            raise self._display.fault
        return status

    # What is said besides

    def _list_pending(self) -> None:
        connecting, running = self._work.pending()
        for hosts, what in ((running, "running"), (connecting, "connecting")):
            if hosts:
                self._say_of(hosts, what)
        waiting = self._counts.total - self._counts.done - len(running) - len(connecting)
        self._say(f"{self._counts}; {max(0, waiting)} wait for their turn")

    def _say_of(self, hosts: Sequence[str], text: str) -> None:
        count = "" if len(hosts) == 1 or self._options.quiet else f" ({len(hosts)})"
        self._say(f"{fold(hosts)}{count}: {text}")

    def _say(self, text: str) -> None:
        self._progress.hide()
        say(text)


def _bytes_of(stream: TextIO | None, descriptor: int) -> BinaryIO:
    """Return what a standard stream writes its bytes to, also if it was closed when the process began."""
    return stream.buffer if stream is not None else os.fdopen(descriptor, "wb", closefd=False)
