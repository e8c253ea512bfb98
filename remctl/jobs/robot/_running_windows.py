"""Scripts on Windows: held by the agent itself, with subprocess and psutil; nothing in here is of one system alone.

A thread watches each script, so that no request that hangs keeps it from being stopped.  Windows has no signals: who
is to end in peace is sent CTRL+BREAK.  Nor does it keep families together: a process whose parent has ended is found
only if it was seen before, so they are looked for all the time.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import time
from io import FileIO
from pathlib import Path
from threading import Event, Thread
from typing import IO, Final

import psutil

from remctl.jobs.robot._running import DRAIN, LOST, OUTPUT, End, Order, Running
from remctl.jobs.states import JobState

logger = logging.getLogger(__name__)

LOOK: Final = 0.2
"""Seconds between two looks for the script's processes."""

_BREAK: Final[int] = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)

_GROUP: Final[int] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)

_PROCESS: Final = "process.json"


class WindowsRun:
    """See `Running`."""

    def __init__(self, order: Order) -> None:
        order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._order = order
        self._stopping = Event()
        self._aborting = Event()
        self._cause: End | None = None
        self._end: queue.SimpleQueue[End] = queue.SimpleQueue()
        self._ended: End | None = None
        self._thread = Thread(target=self._keep, name="remctl-robot-script")

    def release(self) -> None:
        """See `Running`."""
        self._thread.start()

    def stop(self) -> None:
        """See `Running`."""
        self._stopping.set()

    def abort(self) -> None:
        """See `Running`."""
        self._aborting.set()

    def wait(self, timeout: float) -> End | None:
        """See `Running`."""
        if self._ended is None:
            try:
                self._ended = self._end.get(timeout=max(0, timeout))
            except queue.Empty:
                return None
        return self._ended

    def close(self) -> None:
        """See `Running`."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _keep(self) -> None:
        try:
            end = self._run()
        except Exception as error:  # on this thread nobody else would hear of it
            logger.exception("a script could not be kept")
            end = End(JobState.FAILED, f"it could not be kept: {error!r}")
        self._end.put(end)

    def _run(self) -> End:
        if self._stopping.is_set() or self._aborting.is_set():
            return _wanted(self._aborting.is_set())
        order = self._order
        try:
            process = subprocess.Popen(
                list(order.argv),
                env=dict(order.env),
                cwd=order.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                creationflags=_GROUP,
            )
        except OSError as error:
            return End(JobState.FAILED, f"it could not be started: {error.strerror}")
        family = Family(process.pid)
        outputs = [(process.stdout, "stdout"), (process.stderr, "stderr")]
        readers = [Thread(target=_keep_output, args=(each, order.folder / name), daemon=True) for each, name in outputs]
        for reader in readers:
            reader.start()
        try:
            family.note(order.folder)
            self._watch(process, family)
            if self._cause is None:
                self._drain(readers, family)
        finally:
            family.kill()
            status = process.wait()
        for reader in readers:  # who has left the family may have a stream open, and nobody waits for that
            reader.join(DRAIN)
        if self._cause is not None:
            return self._cause
        return End(JobState.FAILED if status else JobState.SUCCESS, f"exit status {status}")

    def _drain(self, readers: list[Thread], family: Family) -> None:
        """Let processes that the main process has left behind go on writing for a while."""
        until = time.monotonic() + DRAIN
        while (writing := [each for each in readers if each.is_alive()]) and time.monotonic() < until:
            family.look()
            writing[0].join(LOOK)

    def _watch(self, process: subprocess.Popen[bytes], family: Family) -> None:
        """Wait until the main process has ended, and see to it that it does when it has to."""
        began, kill_at = time.monotonic(), None
        while process.poll() is None:
            now = time.monotonic()
            late = self._order.run_time is not None and now - began >= self._order.run_time
            if self._aborting.is_set() or (kill_at is not None and now >= kill_at):
                self._cause = self._cause or _wanted(aborted=True)
                family.kill()
            elif kill_at is None and (late or self._stopping.is_set()):
                late_end = End(JobState.FAILED, "it ran for longer than it may")
                self._cause = late_end if late else _wanted(aborted=False)
                kill_at = now + self._order.grace
                _ask(process)
            family.look()
            try:
                process.wait(LOOK / 4)
            except subprocess.TimeoutExpired:
                continue


class WindowsRuns:
    """See `Runs`."""

    def prepare(self, order: Order) -> Running:
        """See `Runs`."""
        return WindowsRun(order)

    def still_runs(self, folder: Path) -> bool:
        """See `Runs`."""
        if (found := Family.noted(folder)) is not None:
            found.kill()  # nobody stopped the script when its agent ended
        return False

    def after(self, folder: Path) -> End | None:  # noqa: ARG002  # others leave something there
        """See `Runs`."""
        return LOST


class Family:
    """A process and its descendants, as far as they have been seen.

    Args:
        pid: the process, which exists.
    """

    def __init__(self, pid: int) -> None:
        self._known: dict[int, psutil.Process] = {}
        try:
            self._known[pid] = psutil.Process(pid)
        except psutil.NoSuchProcess:  # it was quick
            return

    def note(self, folder: Path) -> None:
        """Write down which process it is, for an agent to come."""
        for pid, process in self._known.items():
            try:
                (folder / _PROCESS).write_text(json.dumps({"pid": pid, "created": process.create_time()}))
            except psutil.NoSuchProcess:  # it was quick
                return

    @classmethod
    def noted(cls, folder: Path) -> Family | None:
        """Return the family whose first process was written down, if that process still lives."""
        try:
            values = json.loads((folder / _PROCESS).read_bytes())
            process = psutil.Process(values["pid"])
            return cls(process.pid) if process.create_time() == values["created"] else None
        except (FileNotFoundError, ValueError, KeyError, psutil.Error):
            return None

    def look(self) -> None:
        """Look for new descendants; forget those that have ended."""
        self._known = {pid: each for pid, each in self._known.items() if _lives(each)}
        for process in list(self._known.values()):
            try:
                found = process.children(recursive=True)
            except psutil.Error:
                continue
            for each in found:
                self._known.setdefault(each.pid, each)

    def kill(self) -> None:
        """Kill all of them, and those that they make meanwhile."""
        for _ in range(100):
            self.look()
            if not self._known:
                return
            for process in self._known.values():
                try:
                    process.kill()
                except psutil.Error:  # it has ended, or is another user's
                    continue
            time.sleep(LOOK / 10)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _wanted(aborted: bool) -> End:
    return End(JobState.ABORTED, "it was killed") if aborted else End(JobState.STOPPED, "it was stopped")


def _ask(process: subprocess.Popen[bytes]) -> None:
    """Ask the main process, and on Windows its whole group, to end."""
    try:
        process.send_signal(_BREAK)
    except OSError:  # it has no console to hear it by: it is killed when the grace is over
        return


def _keep_output(stream: IO[bytes], path: Path) -> None:
    """Keep the last bytes of a stream; the script goes on when the disk is full."""
    tail, lost = _Tail(path), False
    with stream:
        while data := os.read(stream.fileno(), 1 << 16):
            try:
                tail.add(data)
            except OSError as error:
                if not lost:
                    logger.warning("%s: output is lost: %s", path, error.strerror)
                lost = True
    tail.close()


class _Tail:
    """The last bytes of a stream: half of what may be kept in a file, and as much in the one before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def add(self, data: bytes) -> None:
        """Keep what has come."""
        if self._file is not None and self._file.tell() + len(data) > OUTPUT // 2:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.before"))
        if self._file is None:
            self._file = self._path.open("wb", buffering=0)
        self._file.write(data)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
