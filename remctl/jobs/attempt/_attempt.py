"""The runner's side of one attempt: the handle to its keeper."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from remctl.exceptions import RemctlError
from remctl.jobs.attempt._processes import end_session
from remctl.jobs.attempt._record import Reason
from remctl.jobs.attempt._results import (
    DamagedEndingError,
    Ending,
    Kept,
    progress,
    read_ending,
)

_KEEPER: Final = Path(__file__).with_name("keeper.py").resolve()

_HOUR: Final = 3_600_000
"""Milliseconds that one call of poll waits at most; it could not take much more than a few hundred times that."""


class KeeperError(RemctlError):
    """A keeper did not come up, or not as it should; `reason` says what is known."""


class Limits(NamedTuple):
    """What an attempt may take."""

    run_time: float | None
    """Seconds from the release until the script is stopped; None: for ever."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    drain: float
    """Seconds that processes which the script leaves behind may go on writing."""
    output: int
    """Bytes that are kept of each stream: the last ones."""


class Attempt:
    """One run of a script, in the hands of its keeper.  Made by `prepare`, and ended by `close`, also as a context.

    The script's process exists at once, but the script runs only after `release`; `pid` and `started` can be put on
    record between the two.  When the runner dies or closes the attempt, the keeper stops the script.  A process
    that the runner forks without running another program has a copy of the line to the keeper, and keeps it open as
    long as it lives; `subprocess` and `multiprocessing` with "spawn" make no such ones.

    `stop`, `abort` and `release` may be called at any time, from any thread, and raise nothing for what has ended.  One
    thread at a time calls `wait`.
    """

    def __init__(self, folder: Path, program: str, line: socket.socket, keeper: int) -> None:
        self.folder = folder
        """Where the keeper leaves the output and the ending."""
        self.keeper = keeper
        """The keeper's process ID."""
        self.pid = 0
        """The process ID of the script's main process; its session and its process group have the same number."""
        self.started = 0
        """When that process began, in clock ticks since boot; with `boot_id()`, it tells it from all others."""
        self._program = program
        self._line = line
        self._rest = b""
        self._released = False
        self._prepared = time.time()
        self._ending: Ending | None = None
        self._said: set[str] = set()
        self._reaped = False

    @classmethod
    def prepare(
        cls, folder: Path, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, limits: Limits
    ) -> Attempt:
        """Start a keeper, which makes the script's process; takes about as long as to start Python, and may block.

        Args:
            folder: a folder for this attempt alone, which is made if it is not there.
            argv: the program, by its path, and its arguments, which everybody on the machine can see.
            env: the script's whole environment.
            cwd: the folder in which the script runs.
            limits: see there.

        Raises:
            ValueError: an argument makes no sense.
            FileExistsError: the folder has been used before.
            OSError: the folder cannot be written, the disk is full, or there are too many processes or open files.
            KeeperError: the keeper did not come up.
        """
        order = _order(argv, env, cwd, limits)
        folder = folder.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _reap_left()
        line, theirs = socket.socketpair()
        try:
            with theirs:
                keeper = _spawn(theirs.fileno(), folder)
        except BaseException:
            line.close()
            raise
        attempt = cls(folder, argv[0], line, keeper)
        try:
            attempt._begin(order)
        except BaseException:
            attempt.close()
            raise
        return attempt

    def release(self) -> None:
        """Open the gate: the script runs."""
        self._released = True
        self._say("release")

    def stop(self) -> None:
        """Have the script end: SIGTERM to all of its processes, and SIGKILL to those that are left after the grace.

        Processes that the main process leaves behind have the rest of the grace, too.
        """
        self._say("stop")

    def abort(self) -> None:
        """Have all of the script's processes killed at once."""
        self._say("abort")

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when `wait` has something to return."""
        return self._line.fileno()

    def wait(self, timeout: float | None = None) -> Ending | None:
        """Wait for the ending.

        Args:
            timeout: seconds; 0 asks and does not wait, None waits for ever.

        Returns:
            The ending, the same one each time, or None when the time is over.  None of the script's processes are
            left then, but for an ending LOST or one with survivors.

        Raises:
            ValueError: the attempt was closed before it had ended.
        """
        if self._ending is None:
            if self.fileno() < 0:
                raise ValueError("the attempt is closed")
            try:
                answer = self._receive(timeout)
            except TimeoutError:
                return None
            self._ending = self._judge(answer)
            self._reap()
        return self._ending

    def close(self) -> None:
        """Let go of the keeper.  One that is not done stops the script, and ends by itself some time later."""
        if self._line.fileno() >= 0:
            self._line.close()
            if not self._reaped:
                with _left_lock:
                    _left.add(self.keeper)
            _reap_left()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, order: bytes) -> None:
        """Give the keeper its order, and hear what came of it."""
        with contextlib.suppress(ConnectionError):  # what it has to say, or its exit status, says more
            self._line.sendall(order)
        answer = self._receive(None)
        if answer is None or "pid" not in answer:
            raise _refusal(answer, self._reap(), self.folder)
        self.pid, self.started = answer["pid"], answer["started"]

    def _reap(self) -> int | None:
        """Wait for the keeper, which is about to end; its exit code, None if somebody else has reaped it."""
        self._reaped = True
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.keeper, 0)[1])
        except ChildProcessError:
            return None

    def _say(self, word: Literal["release", "stop", "abort"]) -> None:
        """Tell the keeper something, once: it may be busy for long, and whoever says it must not wait for that."""
        if word in self._said:
            return
        self._said.add(word)
        with contextlib.suppress(OSError):  # the keeper has ended, or the attempt is closed
            self._line.send(json.dumps(word).encode() + b"\n", socket.MSG_DONTWAIT)

    def _receive(self, timeout: float | None) -> dict[str, Any] | None:
        """Wait for a line; None at the end.

        Raises:
            TimeoutError: there is none yet.
        """
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = None if until is None else max(0, until - time.monotonic())
            if not poll.poll(_HOUR if left is None else min(math.ceil(left * 1000), _HOUR)):
                if left is not None and left * 1000 <= _HOUR:
                    raise TimeoutError
                continue
            try:
                data = self._line.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _judge(self, answer: dict[str, Any] | None) -> Ending:
        """Make an ending of the keeper's last words, or of the lack of them."""
        if answer is not None and "reason" in answer:
            return Ending.parse(json.dumps(answer))
        with contextlib.suppress(OSError, DamagedEndingError):
            if (written := read_ending(self.folder)) is not None:
                return written
        end_session(self.pid, self.started)
        now = time.time()
        return Ending(
            reason=Reason.LOST,
            started=self._released,
            status=None,
            signal=None,
            error=None if answer is None else str(answer.get("text")),
            program=self._program,
            began=self._prepared,
            ended=now,
            duration=0.0,
            leftovers=False,
            survivors=0,
            stdout=self._kept("stdout"),
            stderr=self._kept("stderr"),
        )

    def _kept(self, stream: Literal["stdout", "stderr"]) -> Kept:
        """Look how much there is of a stream whose keeper did not say."""
        with contextlib.suppress(OSError, DamagedEndingError):
            size, begin, end, _ = progress(self.folder, stream)
            return Kept(size, end - begin)
        return Kept(0, 0)


_left: set[int] = set()
_left_lock = threading.Lock()


def _reap_left() -> None:
    """Reap keepers that have ended since their attempts were closed."""
    with _left_lock:
        for keeper in list(_left):
            try:
                ended = os.waitpid(keeper, os.WNOHANG)[0]
            except ChildProcessError:
                ended = keeper
            if ended:
                _left.discard(keeper)


def _spawn(control: int, folder: Path) -> int:
    """Start a keeper.  (`posix_spawn` would be handier, but has it, and so the script, ignore signals 32 and 33.)"""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", _KEEPER, str(control), folder],
        # Nothing of the runner's own: it may hold secrets.
        env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[control],
        start_new_session=True,
    )
    process.returncode = 0  # so that it does not wait for the process in the end: we do
    return process.pid


def _order(argv: Sequence[str], env: Mapping[str, str], cwd: Path, limits: Limits) -> bytes:
    """Write down what the keeper is to do."""
    if isinstance(argv, str) or not argv or not argv[0]:
        raise ValueError("argv is a list of words, of which the first is a program's path")
    if not cwd.is_absolute():
        raise ValueError(f"cwd has to be an absolute path: {cwd}")
    if any("\0" in word for word in (*argv, *env, *env.values(), os.fspath(cwd))):
        raise ValueError("an argument or a variable holds a null character")
    if any(not name or "=" in name for name in env):
        raise ValueError("the name of a variable is empty or holds an equals sign")
    times = (limits.grace, limits.drain, 0.0 if limits.run_time is None else limits.run_time)
    if not all(0 <= each < 1e9 for each in times) or not 0 <= limits.output < 1 << 62:
        raise ValueError(f"a limit is negative or no number: {limits}")
    order = {
        "argv": [_text(word) for word in argv],
        "env": {_text(name): _text(value) for name, value in env.items()},
        "cwd": _text(os.fspath(cwd)),
        "limits": limits._asdict(),
    }
    return json.dumps(order).encode() + b"\n"


def _text(word: str) -> str:
    """Give a word as the keeper decodes it, whatever encoding this process has for the system's own strings."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _refusal(answer: dict[str, Any] | None, code: int | None, folder: Path) -> Exception:
    if answer is None:
        return KeeperError(f"the keeper ended before it had begun, with exit code {code}")
    number, text = answer.get("errno"), answer.get("text")
    if number is None:
        return KeeperError(f"the keeper failed: {text}")
    return OSError(number, os.strerror(number), os.fspath(folder))
