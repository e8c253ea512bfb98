"""A script's main process, from the fork to the end: the keeper's child.

It is forked at once, so that it has a number and a start time, and waits at a gate until it may become the script.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys

from remctl.jobs.attempt._processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    START,
    prctl,
    stat_fields,
)

TYPE_CHECKING = False  # typing takes longer to load than the keeper has
if TYPE_CHECKING:
    from typing import NoReturn

PIPE = 256 * 1024
"""Bytes that a script can write before the keeper has to read them."""

CONTROL = 3
"""The descriptor of the keeper's socket to the runner; those below are /dev/null, and all others are above."""

_READY = b"ready"

_OPEN = b"!"


class Script:
    """A process that becomes the script when it is released.

    Args:
        argv: the program, which is not looked up in PATH, and its arguments.
        env: its whole environment.
        cwd: the folder in which it runs.

    Raises:
        OSError: there are too many processes or open files.
    """

    def __init__(self, argv: list[bytes], env: dict[bytes, bytes], cwd: bytes) -> None:
        gate, self._gate = os.pipe()
        self._report, report = os.pipe()
        self.streams: list[int] = []
        writers = []
        for _ in range(2):
            reader, writer = os.pipe()
            with contextlib.suppress(OSError):  # this user's pipes have grown enough
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
            os.set_blocking(reader, False)
            self.streams.append(reader)
            writers.append(writer)
        keeper = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become(keeper, argv, env, cwd, gate, report, writers)
        for number in (gate, report, *writers):
            os.close(number)
        self._error = os.read(self._report, 4096)  # so that no signal comes too early for it to hear
        if self._error == _READY:
            self._error = b""
        self.started = _started(self.pid)

    def release(self) -> None:
        """Open the gate."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            os.write(self._gate, _OPEN)

    def error(self) -> str | None:
        """Say why it could not become the script, once it has ended."""
        return (self._error or os.read(self._report, 4096)).decode("utf-8", "replace") or None


def _started(child: int) -> int:
    """Give a child's start time, also if it has ended meanwhile.

    Raises:
        OSError: /proc does not show it.
    """
    fields = stat_fields(child)
    if fields is None:
        raise OSError(errno.ENOENT, "/proc does not show the script's process")
    return int(fields[START])


def _become(
    keeper: int,
    argv: list[bytes],
    env: dict[bytes, bytes],
    cwd: bytes,
    gate: int,
    report: int,
    writers: list[int],
) -> NoReturn:
    subject = cwd
    try:
        # The main process dies with its keeper.  That does not reach its own children, a program that is set-uid or has
        # capabilities (the kernel forgets the wish when it is started), or one that takes the wish back.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(127)
        os.setsid()
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        for standard, writer in enumerate(writers, 1):
            os.dup2(writer, standard)
        os.dup2(report, CONTROL, inheritable=False)
        os.dup2(gate, CONTROL + 1, inheritable=False)
        report, gate = CONTROL, CONTROL + 1
        os.closerange(gate + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir(cwd)
        prctl(PR_SET_DUMPABLE, 1)  # or its start time would be hidden where /proc shows each user their own alone
        os.write(report, _READY)
        if os.read(gate, 1) != _OPEN:
            os._exit(127)
        subject = argv[0]
        os.execve(subject, argv, env)  # noqa: S606  # a shell is what there should not be
    except OSError as error:
        os.write(report, os.fsencode(f"{error.strerror}: ") + subject[:2048])
    except BaseException as error:  # never back into the keeper's own code
        os.write(report, repr(error).encode()[:2048])
    finally:
        os._exit(127)


def set_up_keeper() -> None:
    """Make this process one that can be a keeper: no signal but SIGKILL ends it, and it loses no descendant.

    Raises:
        OSError: the kernel refused.
    """
    from resource import RLIMIT_CORE, getrlimit, setrlimit

    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD) and number < signal.SIGRTMIN:
            signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # It holds the script's environment, which is not for core files; nor are the script's own, unless it asks for them.
    prctl(PR_SET_DUMPABLE, 0)
    setrlimit(RLIMIT_CORE, (0, getrlimit(RLIMIT_CORE)[1]))
    sys.stdin = sys.stdout = sys.stderr = None  # nobody would see it
