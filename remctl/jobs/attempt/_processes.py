"""What Linux knows about processes: when they began, whose children they are, what becomes of them."""

from __future__ import annotations

import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

STATE, PARENT, SESSION, START = 0, 1, 3, 19
"""Where things are in what `stat_fields` gives."""


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process.

    Raises:
        OSError: the kernel refused.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *(ctypes.c_ulong(argument) for argument in (value, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "prctl")


def boot_id() -> str:
    """Return what tells this run of the machine from all others: start times compare within one only."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123  # pathlib is more than a keeper needs
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None if there is none, or it is a zombie."""
    fields = stat_fields(pid)
    return None if fields is None or fields[STATE] in b"ZX" else int(fields[START])


def stat_fields(pid: int) -> list[bytes] | None:
    """Give what follows the name in /proc/PID/stat: state, parent, group, session and so on."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(file, 4096).rpartition(b")")[2].split()
    except OSError:  # it ended meanwhile
        return None
    finally:
        os.close(file)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


class Family:
    """The descendants of this process, which has to be a subreaper, so that none gets lost."""

    _FULL = 32  # searches after which those who were strangers are looked at again, as numbers are used again

    def __init__(self) -> None:
        self._strangers: set[int] = set()
        self._searches = 0

    def signal(self, number: int) -> tuple[int, int]:
        """Send a signal to all descendants that there are at this moment.

        Who forks faster than this looks may escape; it is a descendant still, for the next time.

        Returns:
            How many have been sent the signal, and how many this user may not send any.
        """
        reached = refused = 0
        known = {os.getpid()}
        for pid in self._descendants():
            try:
                handle = os.pidfd_open(pid)
            except OSError:  # it has been reaped
                continue
            try:
                # Whatever process had this number before, the handle now is for one whose parent is one of us.
                fields = stat_fields(pid)
                if fields is not None and int(fields[PARENT]) in known:
                    known.add(pid)
                    signal.pidfd_send_signal(handle, number)
                    reached += 1
            except ProcessLookupError:
                pass
            except PermissionError:  # it is another user's now, by sudo
                refused += 1
            finally:
                os.close(handle)
        return reached, refused

    def _descendants(self) -> list[int]:
        """Give all descendants, parents before their children.

        Only processes that are new since the last search are looked at, mostly: the faster, the less can escape.
        """
        self._searches += 1
        if self._searches % self._FULL == 0:
            self._strangers.clear()
        parents: dict[int, int] = {}
        for pid in _pids():
            if pid not in self._strangers and (fields := stat_fields(pid)) is not None:
                parents[pid] = int(fields[PARENT])
        found = [os.getpid()]
        for parent in found:
            found += [pid for pid, its in parents.items() if its == parent]
        self._strangers.update(parents.keys() - found)
        return found[1:]


def end_session(pid: int, started: int) -> None:
    """Kill a process whose keeper has died, and what is left of its session.

    Args:
        pid: the process, which is its session's leader.
        started: its `start_time`, so that no other process is taken for it.

    What has left the session is not found: nobody knows any more whose it was.
    """
    if _began(pid) not in (started, None):
        return
    for _ in range(100):  # for those who fork meanwhile
        handles = [handle for each in _pids() if (handle := _member(each, pid)) is not None]
        for handle in handles:
            _kill(handle)
        if not handles:
            return


def _began(pid: int) -> int | None:
    fields = stat_fields(pid)
    return None if fields is None else int(fields[START])


def _member(pid: int, session: int) -> int | None:
    """Give a handle for a process if it belongs to a session and lives."""
    if not _is_member(pid, session):
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if _is_member(pid, session):
        return handle
    os.close(handle)
    return None


def _is_member(pid: int, session: int) -> bool:
    fields = stat_fields(pid)
    return fields is not None and int(fields[SESSION]) == session and fields[STATE] not in b"ZX"


def _kill(handle: int) -> None:
    import select

    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(1000)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(handle)
