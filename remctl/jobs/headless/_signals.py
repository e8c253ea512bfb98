"""Signals that end the program, with an exit code of its own: as soon as the program can, and within a second.

What waits is cancelled, or interrupted by `Signalled`.  Where that is of no use, as while a library waits for the
network, a thread of its own ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from remctl.jobs.headless._codes import Code
from remctl.jobs.headless._progress import Progress

GRACE: Final = 0.7
"""Seconds after a signal that the program has to end by itself."""

_LEFT: Final = (
    *("SIGKILL", "SIGSTOP"),  # which nobody can catch
    *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"),  # of a process that cannot go on
    *("SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"),  # which end nothing
    *("SIGPIPE", "SIGXFSZ"),  # which Python makes errors of
)


class Signalled(BaseException):
    """A signal has come that ends the program."""


class Signals:
    """Catches the signals that end a program, from `catch` on.

    Args:
        progress: how far the program has come.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.number: int | None = None
        """The first that has come."""
        self._cancel: Callable[[], object] | None = None
        self._settled: Code | None = None

    def catch(self) -> None:
        """Begin; on the main thread."""
        comes, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)  # of each signal, whatever the main thread is doing
        threading.Thread(target=self._watch, args=(comes,), daemon=True).start()
        left = {getattr(signal, name) for name in _LEFT if hasattr(signal, name)}
        for number in signal.valid_signals() - left:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._handle)

    def settle(self, code: Code) -> None:
        """From here on nothing is interrupted, and this is the exit code."""
        self._settled = code

    @contextlib.contextmanager
    def cancelling(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Have something called in place of `Signalled`, for a `with`."""
        self._cancel = cancel
        try:
            if self.number is not None:
                cancel()
            yield
        finally:
            self._cancel = None

    @property
    def code(self) -> Code:
        """The exit code, if the program ends now."""
        if self._settled is not None:
            return self._settled
        return Code.TIMEOUT if self._progress.submitted else Code.UNEXPECTED

    @property
    def name(self) -> str:
        """Of the signal that has come."""
        try:
            return signal.Signals(self.number or 0).name
        except ValueError:  # one of the real-time signals
            return f"signal {self.number}"

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number is not None or self._settled is not None:
            return
        self.number = number
        if self._cancel is None:
            raise Signalled
        self._cancel()

    def _watch(self, comes: int) -> None:
        os.read(comes, 1)
        time.sleep(GRACE)
        os._exit(self.code)
