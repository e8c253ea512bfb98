"""The process from its first moment to its last: whatever happens, it ends with a code of `Code`.

Imports little, since a signal that comes before they are caught kills the process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, NoReturn

from remctl.jobs.headless._codes import Code
from remctl.jobs.headless._progress import Progress
from remctl.jobs.headless._signals import Signals


def main() -> NoReturn:
    """Do what the process's command line says, and end the process."""
    progress = Progress()
    signals = Signals(progress)
    code = Code.UNEXPECTED
    try:
        _stand()
        signals.catch()
        _silence()
        from remctl.jobs.headless._program import command

        code = command(sys.argv[1:], progress, signals)
        signals.settle(code)
    except BaseException as error:  # a signal before there was anything to end, or a part that is broken
        code = signals.code
        what = f"{type(error).__name__}: {error}" if signals.number is None else f"ended by {signals.name}"
        with contextlib.suppress(OSError):
            if os.isatty(2):
                os.write(2, f"remctl-headless: {what}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def _stand() -> None:
    """Have descriptors 0 to 2 stand for something, so that no file gets their numbers; what is written there fails."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with contextlib.suppress(OSError):  # without a /dev/null, they stay closed
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDONLY)
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _silence() -> None:
    """Have nothing written to standard error but what the options ask for: cron mails it."""
    import logging
    import threading

    def unraised(what: Any) -> None:
        logger.debug("%s was raised where nobody takes it", what.exc_type.__name__)

    logger = logging.getLogger(__name__)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    sys.unraisablehook = threading.excepthook = unraised
