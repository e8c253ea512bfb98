"""The system's log, for programs that have no other place to say what went wrong: standard error is the caller's."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

SYSLOG: Final = "/dev/log"
"""The socket of the system's log."""


class SystemLog(logging.Handler):
    """Writes records to the system's log, each line by itself; connects when there is something to write."""

    failed = False
    """Whether something could not be written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        from logging.handlers import SysLogHandler

        try:
            if not Path(SYSLOG).is_socket():
                raise FileNotFoundError(SYSLOG)
            system = SysLogHandler(SYSLOG, SysLogHandler.LOG_DAEMON)
            system.ident = f"{Path(sys.argv[0]).name}[{os.getpid()}]: "
            system.handleError = self.handleError  # type: ignore[method-assign]
            with contextlib.closing(system):
                for line in self.format(record).splitlines():
                    system.emit(logging.makeLogRecord({**vars(record), "msg": line, "args": (), **_BARE}))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """Remember it: there is no other place to write to."""
        self.failed = True


_BARE: Final = {"exc_info": None, "exc_text": None, "stack_info": None}


def _log_what_python_would_print() -> None:
    """Warnings and failures of threads, which go to standard error else, and so to the caller."""
    logging.captureWarnings(True)
    threading.excepthook = lambda what: logger.error("a thread failed", exc_info=what.exc_value)
    sys.unraisablehook = lambda what: logger.error("%s", what.err_msg or "ignored", exc_info=what.exc_value)


def log_to_the_system() -> SystemLog | None:
    """Send what is logged to the system's log, unless the program has chosen something else."""
    _log_what_python_would_print()
    root = logging.getLogger()
    if root.handlers:
        return None
    handler = SystemLog()
    root.addHandler(handler)
    return handler
