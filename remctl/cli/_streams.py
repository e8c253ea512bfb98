"""What `pyremctl` writes, and where: output as it comes, and its own messages.

Output goes to a pipe or a file as it is.  On a terminal what could control it is shown escaped, since it is a stranger
who wrote it.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import select
from typing import Final

from remctl.cli._text import safe

OUT: Final = 1
ERR: Final = 2


class Outlet:
    """One of the process's two streams, without a buffer.

    Args:
        descriptor: its number.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace") if os.isatty(descriptor) else None

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OSError: nobody reads it any more, or there is no room for it.
        """
        self._write(data if self._decoder is None else _escaped(self._decoder.decode(data)))

    def close(self) -> None:
        """Write what has waited for the rest of its character; the descriptor stays open."""
        if self._decoder is not None:
            self._write(_escaped(self._decoder.decode(b"", final=True)))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # whoever has the other end may have made it so
                poller = select.poll()
                poller.register(self._descriptor, select.POLLOUT)
                poller.poll()
            except OSError as error:
                raise OSError(error.errno, f"the output cannot be written: {error.strerror}") from error


def _escaped(text: str) -> bytes:
    return "\n".join(map(safe, text.split("\n"))).encode()


def say(text: str) -> None:
    """Write a message of our own to standard error, in one line; where there is no room for it, nobody hears it."""
    with contextlib.suppress(OSError):
        Outlet(ERR)._write(f"pyremctl: {safe(text)}\n".encode())


def show_log(level: int) -> None:
    """Have what the package logs said, from a level on."""
    logger = logging.getLogger("remctl")
    logger.handlers = [_Said()]
    logger.setLevel(level)
    logger.propagate = False


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
