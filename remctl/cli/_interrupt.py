"""What signals mean to a run: Ctrl-C, a request to end, and the question who is still missing.

Ctrl-C (SIGINT), SIGTERM and SIGHUP once: the run begins with no further host.  Twice: it is cut.  After that they do
what they do to any program.  One that was ignored when the program began, by nohup for example, stays so.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ASKING: Final = signal.SIGUSR1


class Interrupts:
    """Takes the signals, from the beginning of a `with` to its end; in the main thread.

    Args:
        stop: called at the first one, with what it was; it is called in a signal handler.
        cancel: called at the second one, likewise.
    """

    signal: int | None
    """The first one that asked for the end; None if there was none."""

    def __init__(self, stop: Callable[[str], object], cancel: Callable[[str], object]) -> None:
        self.signal = None
        self._stop = stop
        self._cancel = cancel
        self._asked = False
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int | None:
        """The exit status after a signal, as shells have it; None if there was none."""
        return None if self.signal is None else 128 + self.signal

    def asked(self) -> bool:
        """Return whether SIGUSR1 has come since the last call."""
        asked, self._asked = self._asked, False
        return asked

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        reason = f"interrupted by {signal.Signals(number).name}"
        if self.signal is None:
            self.signal = number
            self._stop(reason)
            return
        for each in ENDING:
            if each in self._before:
                signal.signal(each, signal.SIG_DFL)
        self._cancel(reason)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked = True

    def __enter__(self) -> Self:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._end)
        self._before[ASKING] = signal.signal(ASKING, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
