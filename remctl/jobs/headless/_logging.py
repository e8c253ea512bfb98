"""What the program says of what it does: to standard error with -v, and to syslog on request.

Written on a thread of its own: a pipe that nobody reads, or a syslog that is stuck, holds up neither the job's time
limits nor the end.
"""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

logger = logging.getLogger(__name__)

FAREWELL: Final = 0.4
"""Seconds at the end for what is not written yet."""

_LEVELS: Final = (
    {"remctl": logging.INFO},
    {"remctl": logging.INFO},
    {"remctl": logging.DEBUG, "remctl.aio.tokens": logging.INFO},
    {"remctl": logging.DEBUG, "remctl.aio.tokens": logging.DEBUG},
)
"""For each verbosity; of what libraries say, warnings are shown."""


@contextmanager
def logging_to(verbosity: int, syslog: str | tuple[str, int] | None) -> Iterator[None]:
    """Log for the length of a `with`.

    Args:
        verbosity: 0 writes nothing to standard error, 1 what is done, 2 what is sent and received, 3 tokens too.
        syslog: a socket's path, or host and port; None is no syslog.  One that is not there is a warning.
    """
    handlers: list[logging.Handler] = [_stderr()] if verbosity else []
    absent = None
    if syslog is not None:
        try:
            handlers.append(_syslog(syslog))
        except OSError as error:
            absent = error.strerror or str(error)
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, *handlers)
    entry = logging.handlers.QueueHandler(waiting) if handlers else logging.NullHandler()
    before = {name: logging.getLogger(name).level for name in _LEVELS[-1]}
    logging.root.addHandler(entry)
    for name, level in _LEVELS[verbosity].items():
        logging.getLogger(name).setLevel(level)
    listener.start()
    try:
        if absent is not None:
            logger.warning("syslog cannot be used: %s", absent)
        yield
    finally:
        logging.root.removeHandler(entry)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        stopping = threading.Thread(target=_end, args=(listener,), daemon=True)
        stopping.start()
        stopping.join(FAREWELL)


def _end(listener: logging.handlers.QueueListener) -> None:
    listener.stop()
    for handler in listener.handlers:
        handler.close()


def _stderr() -> logging.Handler:
    stream = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _syslog(address: str | tuple[str, int]) -> logging.Handler:
    if isinstance(address, str):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
            try:
                trial.connect(address)  # the handler itself says nothing if that does not work
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:  # which is a stream's
                    raise
    handler = logging.handlers.SysLogHandler(address)
    handler.ident = f"remctl-headless[{os.getpid()}]: "
    return handler
