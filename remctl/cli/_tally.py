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

_RULES: Final = ("the canary ", "max_fail")
"""What a host says that a stop rule kept from its turn."""


class Tally:
    """Counts what became of hosts."""

    def __init__(self) -> None:
        self._code = OK
        self._largest = 0

    def result(self, result: HostResult) -> None:
        """Take what became of a host."""
        if result.status is not None:
            self.status(result.status)
        elif result.may_be_running:
            self.unknown()
        else:
            self._note(STOPPED if _kept_back(result) else NOT_RUN, NO_STATUS)

    def status(self, status: int) -> None:
        """Take the exit status of a host."""
        self._note(NONZERO if status else OK, status)

    def unknown(self) -> None:
        """Take a host of which nobody knows whether the command ran."""
        self._note(UNKNOWN, NO_STATUS)

    def not_run(self) -> None:
        """Note that the command was run nowhere."""
        self._note(NOT_RUN, NO_STATUS)

    def lost(self) -> None:
        """Note that not all output could be written."""
        self._note(NONZERO, 1)

    def exit_status(self, *, largest: bool, signal: int | None) -> int:
        """Return what to exit with.

        Args:
            largest: whether it is the largest exit status of the hosts (-S).
            signal: the exit status after a signal; None if there was none.
        """
        if signal is not None:
            return signal
        return self._largest if largest else self._code

    def _note(self, code: int, status: int) -> None:
        self._code = max(self._code, code)
        self._largest = max(self._largest, status)


def _kept_back(result: HostResult) -> bool:
    """Whether a stop rule kept the host from its turn."""
    if result.state is not HostState.SKIPPED or result.error is None:
        return False
    return any(rule in result.error.reason for rule in _RULES)
