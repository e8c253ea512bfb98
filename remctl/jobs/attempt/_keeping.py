"""The keeper at work: what it does when the script, the runner or the clock says something."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time

from remctl.jobs.attempt._processes import Family
from remctl.jobs.attempt._record import EndingFile, Progress, Reason, Tail, ending_text
from remctl.jobs.attempt._script import CONTROL, PIPE, Script, set_up_keeper

TYPE_CHECKING = False  # typing takes longer to load than the keeper has
if TYPE_CHECKING:
    from typing import Any

SETTLE = 0.1
"""Seconds that processes without open output have to end by themselves, once the main process has."""


HOUR = 3_600_000
"""Milliseconds that one call of poll waits at most; it could not take much more than a few hundred times that."""


def keep(control: int, folder: str) -> None:
    """Receive an order, keep its script to the end, and do not return.

    Args:
        control: the descriptor of the socket to the runner.
        folder: where the ending and the output are left; it exists.
    """
    status = 70
    try:
        os.dup2(control, CONTROL, inheritable=False)
        control = CONTROL
        os.closerange(CONTROL + 1, os.sysconf("SC_OPEN_MAX"))
        set_up_keeper()
        Keeper(Control(control), folder).run()
        status = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(control, json.dumps({"errno": getattr(error, "errno", None), "text": str(error)}).encode() + b"\n")
        if not isinstance(error, OSError):  # a fault of the keeper's own
            _note(folder)
    finally:
        os._exit(status)


def _note(folder: str) -> None:
    """Leave the traceback, which shows code and no values, where somebody can find it."""
    import traceback

    file = os.open(os.path.join(folder, "keeper.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # noqa: PTH118
    os.write(file, "".join(traceback.format_exc().splitlines(keepends=True)[:-1]).encode())


class Control:
    """The socket to the runner: a JSON object in each line."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._rest = b""
        self.ended = False

    def receive(self) -> list[Any]:
        """Wait for something to come; return the lines that are whole, and set `ended` at the end."""
        try:
            data = os.read(self.number, 1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def order(self) -> Any:
        """Wait for the first line, which comes alone; None when the runner has gone before."""
        while not self.ended:
            for line in self.receive():
                return line
        return None

    def send(self, text: str) -> None:
        """Send a line; nothing happens when the runner has gone."""
        data = text.encode() + b"\n"
        try:
            while data:
                data = data[os.write(self.number, data) :]
        except OSError:
            self.ended = True


class Keeper:
    """One attempt, from the order to the ending.

    It watches until nobody of the script's family is left, or until `kill_at`: that is set when the main process has
    ended, or when it has been asked to end.
    """

    def __init__(self, control: Control, folder: str) -> None:
        self._control = control
        self._folder = folder
        self._family = Family()
        self._script: Script | None = None
        self._program = ""
        self._leftovers = False
        self._survivors = 0
        self._cause: Reason | None = None
        self._status: int | None = None
        self._alone = False
        self._limit_at: float | None = None
        self._kill_at: float | None = None
        self._released_at: float | None = None
        self._began = self._ended = time.time()
        self._duration = 0.0

    def run(self) -> None:
        """Keep the script to its end."""
        self._file = EndingFile(self._folder)
        order = self._control.order()
        if order is None:
            self._cause = Reason.RUNNER_LOST
            self._file.write(self._ending([{"size": 0, "kept": 0, "lost": None}] * 2))
            return
        self._limits = order["limits"]
        self._program = order["argv"][0]
        progress = Progress(self._folder)
        self._tails = [Tail(self._folder, index, self._limits["output"], progress) for index in range(2)]
        self._wake, waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        env = {_bytes(name): _bytes(value) for name, value in order["env"].items()}
        argv = [_bytes(word) for word in order["argv"]]
        self._script = script = Script(argv, env, _bytes(order["cwd"]))
        del order, env, argv  # there may be secrets in it
        self._control.send(json.dumps({"pid": script.pid, "started": script.started}))
        self._watch(script)
        self._sweep()
        self._finish()

    def _watch(self, script: Script) -> None:
        self._poll = select.poll()
        for number in (self._wake, self._control.number, *script.streams):
            self._poll.register(number, select.POLLIN)
        self._open = dict(zip(script.streams, self._tails, strict=True))
        while not self._alone and (self._kill_at is None or time.monotonic() < self._kill_at):
            ready = self._wait(min((t for t in (self._limit_at, self._kill_at) if t is not None), default=None))
            self._reap()  # first: what has ended by itself has done so, whoever wants to stop it now
            for number in self._open.keys() & ready:
                self._read(number)
            if self._control.number in ready:
                self._obey()
            if self._limit_at is not None and time.monotonic() >= self._limit_at:
                self._stop(Reason.TIME_LIMIT)

    def _wait(self, until: float | None) -> set[int]:
        timeout = None if until is None else min(max(0, (until - time.monotonic()) * 1000 + 1), HOUR)
        ready = {number for number, _ in self._poll.poll(timeout)}
        self._clear()
        return ready

    def _clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _reap(self) -> None:
        """Take leave of all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
                return
            if pid == 0:
                return
            if self._script is not None and pid == self._script.pid:
                self._main_ended(status)

    def _main_ended(self, status: int) -> None:
        self._status = status
        self._ended = time.time()
        if self._released_at is not None:
            self._duration = time.monotonic() - self._released_at
        self._limit_at = None
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._limits["drain"]
            self._settle()

    def _settle(self) -> None:
        """Wait no longer for processes that write nothing any more, once the main process has ended."""
        if self._status is not None and self._kill_at is not None and self._cause is None and not self._open:
            self._kill_at = min(self._kill_at, time.monotonic() + SETTLE)

    def _read(self, number: int) -> None:
        """Keep what a stream has."""
        try:
            data = os.read(number, PIPE)
        except BlockingIOError:
            return
        if data:
            self._open[number].add(memoryview(data))
            return
        self._poll.unregister(number)
        del self._open[number]
        self._settle()

    def _obey(self) -> None:
        for line in self._control.receive():
            if line == "release" and not self._past_gate:
                self._release()
            elif line == "stop":
                self._stop(Reason.STOPPED)
            elif line == "abort":
                self._stop(Reason.ABORTED)
        if self._control.ended:
            self._poll.unregister(self._control.number)
            if self._status is None:
                self._stop(Reason.RUNNER_LOST)

    @property
    def _past_gate(self) -> bool:
        """Whether it is too late for the script to be released, or again."""
        return self._released_at is not None or self._cause is not None or self._status is not None

    def _release(self) -> None:
        self._released_at = time.monotonic()
        self._began = time.time()
        if self._limits["run_time"] is not None:
            self._limit_at = self._released_at + self._limits["run_time"]
        if self._script is not None:
            self._script.release()

    def _stop(self, why: Reason) -> None:
        """Have the script end: at once, or with time for it.  The first reason stays."""
        self._limit_at = None
        now = time.monotonic()
        if why is Reason.ABORTED or self._status is not None or self._released_at is None:
            self._kill_at = now
        elif self._cause is None:
            self._kill_at = now + self._limits["grace"]
            self._family.signal(signal.SIGTERM)
            self._family.signal(signal.SIGCONT)  # who is halted could not hear it
        if self._status is None and self._cause is None:
            self._cause = why

    def _sweep(self) -> None:
        """Kill until no child is left, and then no descendant is, as those of dead parents become our own.

        A process that hangs in the kernel is waited for, however long that takes, and so is a main process that this
        user may not kill; others that may not be killed are left.
        """
        self._reap()
        self._leftovers = self._status is not None and not self._alone
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while not self._alone:
            reached, refused = self._family.signal(signal.SIGKILL)
            if refused and not reached and self._status is not None:
                self._survivors = refused
                return
            poll.poll(100)
            self._clear()
            self._reap()

    def _finish(self) -> None:
        for number, tail in self._open.items():
            left = fcntl.fcntl(number, fcntl.F_GETPIPE_SZ)  # and no more: somebody outside the family may have it open
            with contextlib.suppress(BlockingIOError):
                while left > 0 and (data := os.read(number, min(left, PIPE))):
                    left -= len(data)
                    tail.add(memoryview(data))
        for tail in self._tails:
            tail.sync()
        ending = self._ending([tail.summary() for tail in self._tails])
        try:
            self._file.write(ending)
        finally:
            self._control.send(ending)

    def _ending(self, streams: list[dict[str, object]]) -> str:
        error = self._script.error() if self._script is not None else None
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        reason = Reason.EXIT if code is not None and code >= 0 else Reason.SIGNAL
        return ending_text(
            {
                "reason": Reason.NOT_STARTED if error else self._cause or reason,
                "started": self._released_at is not None and not error,
                "status": None if error or code is None or code < 0 else code,
                "signal": None if code is None or code >= 0 else -code,
                "error": error,
                "program": self._program,
                "began": self._began,
                "ended": self._ended,
                "duration": self._duration,
                "leftovers": self._leftovers,
                "survivors": self._survivors,
                "stdout": streams[0],
                "stderr": streams[1],
            }
        )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
