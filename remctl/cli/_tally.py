"""What the hosts of a run come to: the exit status of `pyremctl`."""

from __future__ import annotations

from typing import Final

from remctl.fanout import HostResult, HostState

OK: Final = 0
NONZERO: Final = 1
NOT_RUN: Final = 3
UNKNOWN: Final = 4
STOPPED: Final = 5

NO_STATUS: Final = 255
"""With -S: some host has no exit status."""

_RULES: Final = ("max_fail", "canary")


class Tally:
    """Counts what became of hosts."""

    def __init__(self) -> None:
        self._code = OK
        self._largest = 0
        self._kept_back = False

    def result(self, result: HostResult) -> None:
        """Take what became of a host."""
        if result.status is not None:
            self.status(result.status)
        elif result.may_be_running:
            self.unknown()
        else:
            self._kept_back |= result.state is HostState.SKIPPED
            self.not_run()

    def status(self, status: int) -> None:
        """Take the exit status of a host."""
        self._note(NONZERO if status else OK, status)

    def unknown(self) -> None:
        """Take a host of which nobody knows whether the command ran."""
        self._note(UNKNOWN, NO_STATUS)

    def not_run(self) -> None:
        """Take a host, or all of them, where the command did not run."""
        self._note(NOT_RUN, NO_STATUS)

    def lost(self) -> None:
        """Note that not all output could be written."""
        self._note(NONZERO, 1)

    def exit_status(self, *, largest: bool, signal: int | None, stopped: str | None) -> int:
        """Return what to exit with.

        Args:
            largest: whether it is the largest exit status of the hosts (-S).
            signal: the exit status after a signal; None if there was none.
            stopped: what has stopped the run, as `Progress.stopped` has it.
        """
        if signal is not None:
            return signal
        if largest:
            return self._largest
        return STOPPED if self._kept_back and stopped in _RULES else self._code

    def _note(self, code: int, status: int) -> None:
        self._code = max(self._code, code)
        self._largest = max(self._largest, status)
