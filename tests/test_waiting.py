"""Waiting: time limits, cancelling from another thread, signals, and C calls on threads that can be left behind."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from remctl import RemctlError
from remctl._libremctl import ffi, lib
from remctl._waiting import READABLE, SLICE, Cancelled, Expired, Waiter, check_job, wait_for
from remctl.testing import Sandbox

SOON = 0.05
"""A limit that a test waits for."""

PATIENCE = 30.0
"""A limit that no test reaches."""


class Closing:
    """Something that is closed after so many looks at it, as if by another thread; `looked` is called at each."""

    def __init__(self, after: float = math.inf, looked: Callable[[], object] = lambda: None) -> None:
        self._left = after
        self._looked = looked

    @property
    def closing(self) -> bool:
        self._left -= 1
        self._looked()
        return self._left < 0

    @closing.setter
    def closing(self, value: bool) -> None:
        raise NotImplementedError


def at_the_third_look(action: Callable[[], object]) -> Callable[[], object]:
    """Act in the middle of a wait, after two slices of it."""
    looks = itertools.count(1)

    def look() -> None:
        if next(looks) == 3:
            action()

    return look


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two connected sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def handler() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Give a function that sets what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)

    def handle(action: Callable[[], object]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            action()

        signal.signal(signal.SIGUSR1, handler)

    yield handle
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def signal_in_the_wait() -> Iterator[Closing]:
    """Give something to watch, that has SIGUSR1 sent to this thread once the wait has begun."""
    begun = threading.Event()
    waiting = threading.get_ident()

    def send() -> None:
        begun.wait()
        signal.pthread_kill(waiting, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    yield Closing(looked=begun.set)
    begun.set()
    sender.join()


# The limit


def test_without_limit_there_is_no_end() -> None:
    waiter = Waiter(None)
    assert waiter.limit is None
    assert waiter.remaining() is None
    assert waiter.pause() == SLICE


def test_a_limit_counts_from_the_beginning() -> None:
    waiter = Waiter(PATIENCE)
    first = waiter.remaining()
    second = waiter.remaining()
    assert first is not None
    assert second is not None
    assert 0 < second <= first <= PATIENCE


def test_nothing_remains_after_the_limit() -> None:
    waiter = Waiter(1e-9)
    assert waiter.remaining() == 0
    with pytest.raises(Expired):
        waiter.pause()


def test_a_pause_is_no_longer_than_the_limit() -> None:
    assert 0 < Waiter(SOON).pause() <= SOON


def test_a_pause_is_no_longer_than_a_slice() -> None:
    assert Waiter(PATIENCE).pause() == SLICE


def test_the_shortest_pause_is_a_millisecond() -> None:
    assert Waiter(SLICE / 100).milliseconds() == 1
    assert Waiter(None).milliseconds() == SLICE * 1000


def test_expiring_is_no_timeout_error() -> None:
    assert not issubclass(Expired, TimeoutError)


# Descriptors


def test_a_descriptor_that_is_ready_is_returned_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"hello")
    assert Waiter(PATIENCE).poll({ours.fileno(): select.POLLIN}) == {ours.fileno(): select.POLLIN}


def test_only_what_is_ready_is_returned(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    events = {ours.fileno(): select.POLLIN, theirs.fileno(): select.POLLIN | select.POLLOUT}
    assert Waiter(PATIENCE).poll(events) == {theirs.fileno(): select.POLLOUT}


def test_the_end_of_the_other_side_is_readable(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert ours.fileno() in Waiter(PATIENCE).poll({ours.fileno(): READABLE})


def test_a_wait_ends_when_a_descriptor_becomes_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    waiter = Waiter(PATIENCE)
    waiter.watched = Closing(looked=at_the_third_look(lambda: theirs.send(b"x")))
    assert ours.fileno() in waiter.poll({ours.fileno(): select.POLLIN})


def test_a_wait_ends_at_the_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    waiter = Waiter(SOON)
    with pytest.raises(Expired):
        waiter.poll({pair[0].fileno(): select.POLLIN})
    assert waiter.remaining() == 0


def test_a_limit_longer_than_a_slice_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    begin = time.monotonic()
    with pytest.raises(Expired):
        Waiter(1.5 * SLICE).poll({pair[0].fileno(): select.POLLIN})
    assert 1.5 * SLICE <= time.monotonic() - begin < 5


def test_a_limit_that_has_passed_is_noticed_before_anything_else(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    with pytest.raises(Expired):
        Waiter(1e-9).poll({ours.fileno(): select.POLLIN})


@pytest.mark.parametrize("own", [0, SOON, 1.5 * SLICE])
@pytest.mark.parametrize("limit", [None, PATIENCE])
def test_a_wait_may_have_a_limit_of_its_own(
    own: float, limit: float | None, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert Waiter(limit).poll({pair[0].fileno(): select.POLLIN}, own) == {}


def test_the_calls_limit_comes_before_a_longer_one_of_the_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(Expired):
        Waiter(SOON).poll({pair[0].fileno(): select.POLLIN}, PATIENCE)


def test_several_waits_share_one_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    waiter = Waiter(3 * SOON)
    begin = time.monotonic()
    with pytest.raises(Expired):
        while True:
            waiter.poll({pair[0].fileno(): select.POLLIN}, SOON)
    assert time.monotonic() - begin < 5


def test_a_descriptor_above_1024_can_be_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        high = os.dup2(ours.fileno(), 2000)
        try:
            theirs.send(b"x")
            assert Waiter(PATIENCE).poll({high: select.POLLIN}) == {high: select.POLLIN}
        finally:
            os.close(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Cancelling


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_wait_ends_when_what_it_watches_is_closed(after: int, pair: tuple[socket.socket, socket.socket]) -> None:
    waiter = Waiter(PATIENCE)
    waiter.watched = Closing(after)
    with pytest.raises(Cancelled):
        waiter.poll({pair[0].fileno(): select.POLLIN})


def test_a_wait_without_limit_can_be_cancelled(pair: tuple[socket.socket, socket.socket]) -> None:
    waiter = Waiter(None)
    waiter.watched = Closing(1)
    with pytest.raises(Cancelled):
        waiter.poll({pair[0].fileno(): select.POLLIN})


def test_closing_comes_before_the_limit() -> None:
    waiter = Waiter(1e-9)
    waiter.watched = Closing(0)
    with pytest.raises(Cancelled):
        waiter.pause()


# Locks


@pytest.mark.parametrize("lock", [threading.Lock(), threading.RLock()], ids=["Lock", "RLock"])
def test_a_free_lock_is_taken(lock: threading.Lock) -> None:
    Waiter(PATIENCE).acquire(lock)
    lock.release()


def test_a_lock_is_taken_when_it_comes_free() -> None:
    lock = threading.Lock()
    lock.acquire()
    waiter = Waiter(PATIENCE)
    waiter.watched = Closing(looked=at_the_third_look(lock.release))
    waiter.acquire(lock)
    assert lock.locked()


def test_the_wait_for_a_lock_ends_at_the_limit() -> None:
    lock = threading.Lock()
    lock.acquire()
    with pytest.raises(Expired):
        Waiter(SOON).acquire(lock)


def test_the_wait_for_a_lock_can_be_cancelled() -> None:
    lock = threading.Lock()
    lock.acquire()
    waiter = Waiter(None)
    waiter.watched = Closing(1)
    with pytest.raises(Cancelled):
        waiter.acquire(lock)


# Signals


def test_a_signal_handler_runs_during_a_wait(
    pair: tuple[socket.socket, socket.socket],
    handler: Callable[[Callable[[], object]], None],
    signal_in_the_wait: Closing,
) -> None:
    ours, theirs = pair
    handler(lambda: theirs.send(b"from the handler"))
    waiter = Waiter(PATIENCE)
    waiter.watched = signal_in_the_wait
    assert ours.fileno() in waiter.poll({ours.fileno(): select.POLLIN})
    assert ours.recv(100) == b"from the handler"


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, RuntimeError])
def test_what_a_signal_handler_raises_ends_the_wait(
    error: type[BaseException],
    pair: tuple[socket.socket, socket.socket],
    handler: Callable[[Callable[[], object]], None],
    signal_in_the_wait: Closing,
) -> None:
    def fail() -> None:
        raise error("from the handler")

    handler(fail)
    waiter = Waiter(PATIENCE)
    waiter.watched = signal_in_the_wait
    with pytest.raises(error, match=r"^from the handler$"):
        waiter.poll({pair[0].fileno(): select.POLLIN})


def test_a_signal_does_not_prolong_the_limit(
    pair: tuple[socket.socket, socket.socket],
    handler: Callable[[Callable[[], object]], None],
    signal_in_the_wait: Closing,
) -> None:
    seen: list[str] = []
    handler(lambda: seen.append("signal"))
    waiter = Waiter(SLICE)
    waiter.watched = signal_in_the_wait
    begin = time.monotonic()
    with pytest.raises(Expired):
        waiter.poll({pair[0].fileno(): select.POLLIN})
    assert time.monotonic() - begin < 5
    assert seen == ["signal"]


# C calls on threads


def resolve(host: bytes, family: int) -> tuple[int, list[tuple[int, str]]]:
    """What getaddrinfo answers, and the addresses."""
    job = lib.job_resolve(host, family)
    try:
        wait_for(job, Waiter(PATIENCE))
        found = [job.addresses[number] for number in range(job.count)]
        return job.okay, [(address.family, ffi.string(address.text).decode()) for address in found]
    finally:
        lib.job_leave(job)


def test_a_name_is_resolved_on_a_thread() -> None:
    okay, addresses = resolve(b"localhost", socket.AF_INET)
    assert okay == 0
    assert (socket.AF_INET, "127.0.0.1") in addresses


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6), ("fe80::1%lo", socket.AF_INET6)]
)
def test_an_address_is_its_own_resolution(host: str, family: int) -> None:
    assert resolve(host.encode(), socket.AF_UNSPEC) == (0, [(family, host)])


def test_an_unknown_name_is_an_answer_too() -> None:
    okay, addresses = resolve(b"127.0.0.1", socket.AF_INET6)
    assert okay != 0
    assert addresses == []
    assert ffi.string(lib.gai_strerror(okay))


def test_a_finished_call_is_not_left_behind() -> None:
    job = lib.job_resolve(b"127.0.0.1", socket.AF_INET)
    wait_for(job, Waiter(PATIENCE))
    assert not lib.job_leave(job)


def test_a_call_without_a_thread_is_an_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        job = lib.job_resolve(b"localhost", socket.AF_INET)
        with pytest.raises(RemctlError) as caught:
            wait_for(job, Waiter(PATIENCE))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert str(caught.value) == f"no thread could be started: {os.strerror(errno.EMFILE)}"


class Blocked:
    """An authentication that waits for a server which says nothing; the test is the server."""

    def __init__(self) -> None:
        threads = set(os.listdir("/proc/self/task"))
        self.server, theirs = socket.socketpair()
        self.fd = theirs.detach()
        self.session = lib.session_new(b"localhost", ffi.NULL)
        self.job = lib.job_open(self.session, self.fd)
        check_job(self.job)
        Waiter(PATIENCE).poll({self.server.fileno(): select.POLLIN})  # its first token: the call is under way
        (self.thread,) = set(os.listdir("/proc/self/task")) - threads

    def end(self) -> None:
        """Have the call return."""
        self.server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def blocked(box: Sandbox) -> Iterator[Blocked]:
    """Give a C call that blocks until the test ends it."""
    call = Blocked()
    with call.server:
        yield call


def until_closed(fd: int) -> None:
    """Wait until a descriptor of this process is closed."""
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            os.fstat(fd)
            time.sleep(0.001)
        pytest.fail("the descriptor was not closed")


def test_the_end_of_a_call_is_waited_for(blocked: Blocked) -> None:
    blocked.end()
    assert wait_for(blocked.job, Waiter(PATIENCE)).okay == 0
    assert not lib.session_leave(blocked.session)
    lib.session_free(blocked.session)
    until_closed(blocked.fd)


def test_a_call_that_blocks_is_given_up_at_the_limit(blocked: Blocked) -> None:
    with pytest.raises(Expired):
        wait_for(blocked.job, Waiter(SOON))
    assert lib.session_leave(blocked.session)
    blocked.end()
    until_closed(blocked.fd)


def test_a_call_that_blocks_can_be_cancelled(blocked: Blocked) -> None:
    waiter = Waiter(None)
    waiter.watched = Closing(1)
    with pytest.raises(Cancelled):
        wait_for(blocked.job, waiter)
    assert lib.session_leave(blocked.session)
    blocked.end()
    until_closed(blocked.fd)


def test_a_call_that_blocks_can_be_interrupted(
    blocked: Blocked, handler: Callable[[Callable[[], object]], None], signal_in_the_wait: Closing
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    handler(interrupt)
    waiter = Waiter(PATIENCE)
    waiter.watched = signal_in_the_wait
    with pytest.raises(KeyboardInterrupt):
        wait_for(blocked.job, waiter)
    assert lib.session_leave(blocked.session)
    blocked.end()
    until_closed(blocked.fd)


def test_a_call_that_was_left_behind_frees_its_session_at_its_end(blocked: Blocked) -> None:
    assert lib.session_leave(blocked.session)
    os.fstat(blocked.fd)
    blocked.end()
    until_closed(blocked.fd)


def test_a_call_on_a_thread_leaves_the_signals_to_python(blocked: Blocked) -> None:
    status = Path(f"/proc/self/task/{blocked.thread}/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk"))
    held = {number for number in signal.valid_signals() if mask & 1 << number - 1}
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGALRM} <= held
    assert held.isdisjoint({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
    lib.session_leave(blocked.session)


FORKING = """
import os, select, socket, sys
from remctl._libremctl import ffi, lib
from remctl._waiting import Waiter, wait_for

server, theirs = socket.socketpair()
session = lib.session_new(b"localhost", ffi.NULL)
job = lib.job_open(session, theirs.detach())
Waiter(10).poll({server.fileno(): select.POLLIN})
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(writer)
    os.read(reader, 1)  # lives as long as the parent does
    os._exit(0)
server.shutdown(socket.SHUT_RDWR)
print(wait_for(job, Waiter(10)).okay, flush=True)
os.close(writer)
os.waitpid(child, 0)
"""


def test_a_child_that_was_forked_meanwhile_does_not_hide_the_end_of_a_call(box: Sandbox) -> None:
    command = [sys.executable, "-c", FORKING]
    answer = subprocess.run(command, env=box.env, capture_output=True, text=True, timeout=PATIENCE + 20)
    assert (answer.stdout, answer.returncode) == ("0\n", 0), answer.stderr
