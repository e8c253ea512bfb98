"""A limit for how long a database may take: libpq waits for an answer for ever, also from one that will never come."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

LIMIT: Final = 30.0
"""Seconds that a transaction may take."""


class Watch:
    """Cuts the connections on which something takes too long: whoever waits there gets an error."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[float, socket.socket]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextlib.contextmanager
    def over(self, descriptor: int) -> Iterator[None]:
        """Watch a connection, by the descriptor of its socket, for a `with`."""
        # A copy: whatever becomes of the connection meanwhile, no other one is cut that has got its number.
        copy = socket.socket(fileno=os.dup(descriptor))
        number = next(self._numbers)
        with self._lock:
            self._watched[number] = (time.monotonic() + self.limit, copy)
            self._start()
        try:
            yield
        finally:
            with self._lock:
                del self._watched[number]
            copy.close()

    def close(self) -> None:
        """End the thread; one that is needed later begins anew."""
        self._closed.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._closed = threading.Event()
            self._thread = threading.Thread(
                target=self._work, args=(self._closed,), name="remctl-jobs-database", daemon=True
            )
            self._thread.start()

    def _work(self, closed: threading.Event) -> None:
        while not closed.wait(self.limit / 8):
            with self._lock:
                now = time.monotonic()
                for deadline, copy in self._watched.values():
                    if deadline < now:
                        with contextlib.suppress(OSError):  # it is cut already
                            copy.shutdown(socket.SHUT_RDWR)
