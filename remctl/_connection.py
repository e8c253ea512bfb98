"""One connection to one server: who may use it, and when.

Between `_wire`, which moves the bytes, and the blocking faces (`_remctl`, `session`); `_connection_base` has what is no
matter of threads.  A connection is opened once and closed once, never opened again: libremctl leaks and confuses
descriptors when a struct is reused.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import NoReturn

from remctl._arguments import Command
from remctl._connection_base import OPENING, PINGING, RECEIVING, SENDING, ConnectionBase, Target
from remctl._waiting import Cancelled, Expired, Waiter
from remctl._wire import NothingSent, Wire
from remctl.exceptions import RemctlError
from remctl.types import Output, OutputType, Result

logger = logging.getLogger(__name__)


class Connection(ConnectionBase):
    """See the module.  Every method may be called from any thread; one works at a time, the others wait.

    Args:
        target: whom to talk to.
        sock: a connected stream socket to use, which the connection then owns; None makes one.
    """

    caller = "thread"
    logger = logger

    def __init__(self, target: Target, sock: socket.socket | None = None) -> None:
        self._wire = Wire(target, sock)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._holder = 0
        super().__init__(target)

    # What the faces do with a connection

    def open(self, waiter: Waiter) -> None:
        """Connect and authenticate.  Any failure closes the connection."""
        self._take(waiter)
        try:
            try:
                self._wire.open(waiter)
            finally:
                self.port, self.protocol = self._wire.port, self._wire.protocol
        except BaseException as error:
            self._fail(error, OPENING, waiter)
        finally:
            self._drop()
        self._log_opened()
        if self.target.min_protocol > 2:
            self.noop(waiter)

    def send(self, command: Command, waiter: Waiter) -> None:
        """Send a command, at most once."""
        self._take(waiter)
        try:
            self._send(command, waiter, "command()")
        finally:
            self._drop()

    def receive(self, waiter: Waiter, ahead: int = 1) -> Output:
        """Return the next token of the pending answer, or DONE after its end; see `Wire.receive`."""
        self._take(waiter)
        try:
            if (end := self._check_output()) is not None:
                return end
            try:
                token = self._wire.receive(waiter, ahead)
            except BaseException as error:
                if not isinstance(error, RemctlError | Expired | Cancelled) and not self._wire.blocked:
                    raise  # an interrupted wait has lost nothing
                self._fail(error, RECEIVING, waiter)
            if token.type is OutputType.OUTPUT:
                self._count(token)
            else:
                self.refused = self._wire.refused
                self._answered(token)
            return token
        finally:
            self._drop()

    def run(self, command: Command, waiter: Waiter) -> Result:
        """Send a command and collect its answer; nobody comes between."""
        out: list[bytes] = []
        err: list[bytes] = []
        self._take(waiter)
        try:
            self._send(command, waiter, "run()")
            try:
                token = self._wire.collect(waiter, out, err)
            except BaseException as error:
                self._fail(error, RECEIVING, waiter)
            self.refused = self._wire.refused
            self._answered(token, out, err)
        except RemctlError as error:
            error.stdout, error.stderr = b"".join(out), b"".join(err)
            raise
        finally:
            self._drop()
        return self.result(command, token, b"".join(out), b"".join(err))

    def noop(self, waiter: Waiter) -> None:
        """Make a round trip; needs a server of protocol 3."""
        self._take(waiter)
        try:
            self._check_noop()
            try:
                self._wire.noop(waiter)
            except BaseException as error:
                self._fail(error, PINGING, waiter)
            self.protocol = self._wire.protocol
        finally:
            self._drop()

    def close(self, reason: str) -> None:
        """Close the connection; a call that another thread is blocked in ends at once.  Closing twice is harmless."""
        if os.getpid() != self._pid:
            self._forget()
            return
        self.closing = True
        if not self._lock.acquire(blocking=False):
            if self._holder == threading.get_ident():
                return  # a signal handler, inside a call of this thread, which will see the flag
            self._wire.shutdown()
            self._lock.acquire()
        self._holder = threading.get_ident()
        try:
            self._end(reason)
        finally:
            self._drop()

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when closed."""
        return self._wire.fileno()

    def __del__(self) -> None:
        if self.closed is None:
            self.close("nobody held it any more")

    # One at a time

    def _take(self, waiter: Waiter) -> None:
        self._check_process()
        waiter.watched = self
        if not self._lock.acquire(blocking=False):
            if self._holder == threading.get_ident():
                error = RemctlError("the session is in the middle of a call of this thread")
                raise self.with_evidence(error, waiting=True)
            try:
                waiter.acquire(self._lock)
            except Expired:
                raise self._expired(waiter.limit, "another thread used the session", waiting=True) from None
            except Cancelled:
                raise self._not_open() from None
        self._holder = threading.get_ident()
        if self.closed is not None:
            self._drop()
            raise self._not_open()

    def _drop(self) -> None:
        self._holder = 0
        self._lock.release()

    def _asked(self) -> int | None:
        return getattr(self._local, "serial", None)

    def _set_asked(self, serial: int) -> None:
        self._local.serial = serial

    def _send(self, command: Command, waiter: Waiter, call: str) -> None:
        self._begin(command, call)
        try:
            self._wire.send(command, waiter)
        except NothingSent as error:
            self._sent = False
            self._fail(error.args[0], SENDING, waiter)
        except BaseException as error:
            self._fail(error, SENDING, waiter)

    # Errors, and the end

    def _fail(self, error: BaseException, doing: str, waiter: Waiter) -> NoReturn:
        """Close the connection over an error, and raise the typed one that says what happened."""
        if isinstance(error, Expired):
            raise self._failed(self._expired(waiter.limit, doing), doing) from None
        if isinstance(error, RemctlError | Cancelled) or self.closing:
            raise self._failed(error if isinstance(error, RemctlError) else None, doing) from error.__cause__
        self._end(f"interrupted while {doing}")
        raise error

    def _close_wire(self, *, in_step: bool) -> None:
        self._wire.close(in_step=in_step)

    def _forget(self) -> None:
        if self.closed is None:
            self.closed = f"it belongs to process {self._pid}"
            self._wire.forget()
