"""Who may use a session and when: time limits, Ctrl-C, signals, threads, forked children."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest
from doubles import Relay, SilentServer

import remctl
from remctl import Remctl
from remctl._wire import Wire
from remctl.testing import Sandbox

ServerArguments = tuple[str, int, str]
Interrupt = Callable[[float], None]

PROMPT = 0.3
"""Seconds by which a call may outlive its time limit, or Ctrl-C."""


class Clock:
    """How long a block took."""

    def __enter__(self) -> Clock:
        self._begin = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._begin


def dribble(pause: float, stop: threading.Event) -> Callable[[bytes], bytes]:
    """Make a filter that lets data through only after a pause for each piece."""

    def slow(data: bytes) -> bytes:
        stop.wait(pause)
        return data

    return slow


class TestTimeLimit:
    def test_ends_a_command_that_says_nothing(self, session: Remctl) -> None:
        with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError) as caught:
            session.run(["example", "sleep", 20], timeout=0.4)
        assert 0.4 <= clock.seconds < 0.4 + PROMPT
        assert caught.value.timeout == 0.4
        assert caught.value.sent
        assert "0.4 s passed while waiting for output (command 'example sleep'" in str(caught.value)
        assert "may still be running" in str(caught.value)

    def test_of_the_session_covers_each_call(self, server: ServerArguments) -> None:
        with Remctl(*server, timeout=0.4) as session:
            assert session.run(["example", "hello"]).status == 0
            session.command(["example", "sleep", 20])
            with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError):
                session.output()
        assert clock.seconds < 0.4 + PROMPT

    def test_closes_the_session_which_says_why_when_used_again(self, session: Remctl) -> None:
        session.set_timeout(0.2)
        with pytest.raises(remctl.RemctlTimeoutError):
            session.run(["example", "sleep", 20])
        assert not session.opened
        for call in (session.output, session.noop, lambda: session.command(["example", "hello"])):
            with pytest.raises(remctl.RemctlNotOpenedError, match=r"the time limit of 0\.2 s passed"):
                call()

    def test_zero_overrides_the_limit_of_the_session(self, server: ServerArguments) -> None:
        with Remctl(*server, timeout=0.2) as session:
            assert session.run(["example", "sleep", 0.4], timeout=0).status == 0

    def test_of_a_stream_covers_the_whole_command(self, server: ServerArguments, relay: Relay) -> None:
        stop = threading.Event()
        with Remctl("localhost", relay.port, server[2]) as session:
            relay.down = dribble(0.05, stop)
            with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError):
                for _ in session.stream(["example", "bytes", 100_000_000], timeout=0.5):
                    pass
            stop.set()
        assert clock.seconds < 0.5 + PROMPT

    def test_holds_while_output_comes_without_end(self, session: Remctl) -> None:
        with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError) as caught:
            session.run(["example", "bytes", 10**12], timeout=0.5)
        assert clock.seconds < 0.5 + PROMPT
        assert len(caught.value.stdout) > 0

    @pytest.mark.parametrize("pieces", [1, 3, 7], ids="in pieces of {}".format)
    def test_holds_when_the_server_dribbles(self, server: ServerArguments, pieces: int) -> None:
        with Relay(server[1]) as relay, Remctl("localhost", relay.port, server[2]) as session:
            backlog = bytearray()
            stop = threading.Event()

            def trickle(data: bytes) -> bytes:
                backlog.extend(data)
                stop.wait(0.1)
                piece = bytes(backlog[:pieces])
                del backlog[:pieces]
                return piece

            relay.down = trickle
            with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError):
                session.run(["example", "hello"], timeout=0.5)
            stop.set()
        assert clock.seconds < 0.5 + PROMPT

    @pytest.mark.parametrize("size", [3, 5, 20])
    def test_holds_when_the_server_stops_in_the_middle_of_a_token(self, server: ServerArguments, size: int) -> None:
        with Relay(server[1]) as relay, Remctl("localhost", relay.port, server[2]) as session:
            relay.down = lambda data: data[:size]
            with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError):
                session.run(["example", "hello"], timeout=0.4)
            assert clock.seconds < 0.4 + PROMPT
            assert not session.opened

    def test_covers_a_server_that_does_not_read(self, server: ServerArguments) -> None:
        with Relay(server[1]) as relay, Remctl("localhost", relay.port, server[2]) as session:
            stop = threading.Event()
            relay.up = dribble(30, stop)
            with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError) as caught:
                session.run(["example", "cat", bytes(50_000_000)], timeout=0.5)
            stop.set()
        assert clock.seconds < 0.5 + PROMPT + 0.5  # the 50 MB have to be copied and encrypted besides
        assert caught.value.sent

    def test_covers_noop(self, server: ServerArguments, relay: Relay) -> None:
        with Remctl("localhost", relay.port, server[2], timeout=0.3) as session:
            relay.hold()
            with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError, match="NOOP"):
                session.noop()
        assert clock.seconds < 0.3 + PROMPT

    def test_covers_opening(self, server: ServerArguments) -> None:
        with SilentServer() as silent:
            for call in (
                lambda: Remctl("127.0.0.1", silent.port, server[2], timeout=0.3),
                lambda: remctl.remctl("127.0.0.1", silent.port, server[2], ["x"], timeout=0.3),
            ):
                with (
                    Clock() as clock,
                    pytest.raises(remctl.RemctlTimeoutError, match="opening the connection") as caught,
                ):
                    call()
                assert clock.seconds < 0.3 + PROMPT
                assert not caught.value.sent


class TestInterrupt:
    def test_ends_a_wait_for_output_and_loses_nothing(self, session: Remctl, interrupt: Interrupt) -> None:
        session.command(["example", "sleep", 1])
        interrupt(0.2)
        with Clock() as clock, pytest.raises(KeyboardInterrupt):
            session.output()
        assert clock.seconds < 0.2 + PROMPT
        assert session.output().status == 0
        assert session.run(["example", "hello"]).status == 0

    def test_ends_run_and_closes_the_session(self, session: Remctl, interrupt: Interrupt) -> None:
        interrupt(0.2)
        with Clock() as clock, pytest.raises(KeyboardInterrupt):
            session.run(["example", "sleep", 20])
        assert clock.seconds < 0.2 + PROMPT
        with pytest.raises(remctl.RemctlNotOpenedError, match="interrupted while waiting for output"):
            session.run(["example", "hello"])

    def test_ends_run_while_output_comes_without_end(self, session: Remctl, interrupt: Interrupt) -> None:
        interrupt(0.3)
        with Clock() as clock, pytest.raises(KeyboardInterrupt):
            session.run(["example", "bytes", 10**12])
        assert clock.seconds < 0.3 + PROMPT

    def test_loses_no_byte_of_a_stream(self, session: Remctl) -> None:
        class Ring(Exception):
            pass

        rings = total = 0

        def ring(_number: int, frame: FrameType | None) -> None:
            if frame is not None and frame.f_code in (Wire.receive.__code__, Wire._fill.__code__, Wire._take.__code__):
                raise Ring

        session.command(["example", "bytes", 20_000_000])
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            token = None
            while token is None or token.type is remctl.OutputType.OUTPUT:
                try:
                    token = session.output()
                except Ring:
                    rings += 1
                else:
                    total += len(token.output or b"")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert rings > 0
        assert total == 20_000_000

    def test_ends_the_sending_of_a_large_command(self, server: ServerArguments, interrupt: Interrupt) -> None:
        with Relay(server[1]) as relay, Remctl("localhost", relay.port, server[2]) as session:
            stop = threading.Event()
            relay.up = dribble(30, stop)
            interrupt(0.4)
            with Clock() as clock, pytest.raises(KeyboardInterrupt):
                session.run(["example", "cat", bytes(50_000_000)])
            stop.set()
            assert clock.seconds < 0.4 + PROMPT
            with pytest.raises(remctl.RemctlNotOpenedError, match="interrupted while sending"):
                session.output()

    def test_ends_opening(self, server: ServerArguments, interrupt: Interrupt) -> None:
        with SilentServer() as silent:
            interrupt(0.2)
            with Clock() as clock, pytest.raises(KeyboardInterrupt):
                Remctl("127.0.0.1", silent.port, server[2])
            assert clock.seconds < 0.2 + PROMPT

    def test_ends_noop(self, server: ServerArguments, relay: Relay, interrupt: Interrupt) -> None:
        with Remctl("localhost", relay.port, server[2]) as session:
            relay.hold()
            interrupt(0.2)
            with Clock() as clock, pytest.raises(KeyboardInterrupt):
                session.noop()
            assert clock.seconds < 0.2 + PROMPT

    def test_a_handler_may_close_the_session(self, session: Remctl) -> None:
        before = signal.signal(signal.SIGALRM, lambda *_: session.close())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(remctl.RemctlNotOpenedError, match="closed while waiting for output"):
                session.run(["example", "sleep", 20])
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_handler_that_uses_the_session_is_told(self, session: Remctl) -> None:
        told: list[str] = []

        def use(*_: object) -> None:
            try:
                session.noop()
            except remctl.RemctlError as error:
                told.append(str(error))

        before = signal.signal(signal.SIGALRM, use)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            assert session.run(["example", "sleep", 0.3]).status == 0
        finally:
            signal.signal(signal.SIGALRM, before)
        assert len(told) == 1
        assert "in the middle of a call" in told[0]


@pytest.fixture
def fast_timer() -> Iterator[list[int]]:
    """Run with a 200 Hz interval timer, and count its signals."""
    ticks = [0]

    def tick(*_: object) -> None:
        ticks[0] += 1

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    yield ticks
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class TestSignals:
    def test_an_interval_timer_of_200_hz_disturbs_nothing(self, server: ServerArguments, fast_timer: list[int]) -> None:
        with Remctl(*server, timeout=30) as session:
            assert session.run(["example", "sleep", 1]).status == 0
            for _ in range(20):
                assert session.run(["example", "hello"]).stdout == b"hello world\n"
            assert session.run(["example", "cat", bytes(5_000_000)]).stdout == bytes(5_000_000)
            session.noop()
        assert fast_timer[0] > 100

    def test_time_limits_hold_under_it(self, session: Remctl, fast_timer: list[int]) -> None:
        with Clock() as clock, pytest.raises(remctl.RemctlTimeoutError):
            session.run(["example", "sleep", 20], timeout=0.5)
        assert 0.5 <= clock.seconds < 0.5 + PROMPT

    def test_sigpipe_at_its_default_does_not_kill(self, box: Sandbox, relay: Relay) -> None:
        program = """
            import select, signal, sys, remctl
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            session = remctl.Remctl("localhost", int(sys.argv[1]), sys.argv[2])
            session.run(["example", "hello"])
            print("open", flush=True)
            select.select([session], [], [], 20)
            try:
                session.run(["example", "cat", bytes(1_000_000)])
            except remctl.RemctlConnectionError as error:
                print("lost", flush=True)
            session.close()
            del session
            other = remctl.Remctl("localhost", int(sys.argv[3]), sys.argv[2])
            other.run(["example", "hello"])
            print("alive", flush=True)
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(relay.port), box.principal, str(box.port)],
            stdout=subprocess.PIPE,
            text=True,
            env=box.env,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        relay.cut()
        assert process.communicate()[0] == "lost\nalive\n"
        assert process.returncode == 0

    def test_descriptors_above_1024_work_with_time_limits(self, box: Sandbox) -> None:
        program = """
            import os, resource, sys, remctl
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            held = [os.open("/dev/null", os.O_RDONLY) for _ in range(2000)]
            with remctl.Remctl("localhost", int(sys.argv[1]), sys.argv[2], timeout=10) as session:
                assert session.fileno() > 1024
                session.noop()
                print(session.run(["example", "hello"]).stdout)
                session.run(["example", "cat", bytes(1_000_000)])
            try:
                remctl.remctl("localhost", int(sys.argv[1]), sys.argv[2], ["example", "sleep", 9], timeout=0.2)
            except remctl.RemctlTimeoutError:
                print("in time")
        """
        process = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(box.port), box.principal],
            capture_output=True,
            text=True,
            env=box.env,
        )
        assert (process.stdout, process.returncode) == ("b'hello world\\n'\nin time\n", 0), process.stderr


def others_output(session: Remctl) -> bytes:
    """Read what a thread gets that was refused: nothing of another thread's answer."""
    got = b""
    try:
        while (token := session.output()).type == "output":
            got += token.output or b""
    except remctl.RemctlError:
        pass
    return got


class TestThreads:
    def test_do_not_wait_for_each_other_with_sessions_of_their_own(self, server: ServerArguments) -> None:
        with Clock() as clock, ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(remctl.remctl, *server, ["example", "sleep", 0.5]) for _ in range(8)]
            assert [call.result().status for call in calls] == [0] * 8
        assert clock.seconds < 2

    def test_others_run_while_one_is_blocked(self, session: Remctl) -> None:
        ticks = 0
        done = threading.Event()

        def count() -> None:
            nonlocal ticks
            while not done.wait(0.01):
                ticks += 1

        counter = threading.Thread(target=count)
        counter.start()
        session.run(["example", "sleep", 0.5])
        done.set()
        counter.join()
        assert ticks > 20

    def test_run_waits_its_turn_and_gives_each_its_own_answer(self, session: Remctl) -> None:
        def ask(number: int) -> bool:
            return all(
                session.run(["example", "echo", number, turn]).stdout == f"{number} {turn}\n".encode()
                for turn in range(20)
            )

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(4)))

    def test_waiting_for_a_turn_has_a_time_limit(self, session: Remctl) -> None:
        with ThreadPoolExecutor(1) as pool:
            session.noop()
            other = pool.submit(session.run, ["example", "sleep", 1])
            while not session._handle.connection._lock.locked():  # type: ignore[union-attr]
                os.sched_yield()
            with pytest.raises(remctl.RemctlTimeoutError, match="another thread"):
                session.run(["example", "hello"], timeout=0.2)
            assert other.result().status == 0
        assert session.run(["example", "hello"]).status == 0

    def test_command_and_output_of_several_never_mix(self, session: Remctl) -> None:
        refusals = 0

        def ask(number: int) -> int:
            right = 0
            for turn in range(40):
                mine = f"{number} {turn}\n".encode()
                try:
                    session.command(["example", "echo", number, turn])
                except remctl.RemctlError:
                    nonlocal refusals
                    refusals += 1
                    assert not others_output(session)
                    continue
                got = b""
                while (token := session.output()).type == "output":
                    got += token.output or b""
                assert got == mine
                right += 1
            return right

        with ThreadPoolExecutor(4) as pool:
            right = sum(pool.map(ask, range(4)))
        assert right + refusals == 160
        assert right > 0

    def test_a_thread_without_commands_of_its_own_may_read_for_another(self, session: Remctl) -> None:
        session.command(["example", "echo", "handed over"])
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(session.output).result().output == b"handed over\n"
        assert session.output().status == 0

    @pytest.mark.parametrize("call", ["output", "run", "noop"])
    def test_close_from_another_wakes_a_blocked_call(self, server: ServerArguments, relay: Relay, call: str) -> None:
        session = Remctl("localhost", relay.port, server[2])
        if call == "output":
            session.command(["example", "sleep", 20])
        relay.hold()
        calls: dict[str, Callable[[], object]] = {
            "output": session.output,
            "run": lambda: session.run(["example", "sleep", 20]),
            "noop": session.noop,
        }
        with ThreadPoolExecutor(1) as pool:
            blocked = pool.submit(calls[call])
            while not session._handle.connection._lock.locked():  # type: ignore[union-attr]
                os.sched_yield()
            with Clock() as clock:
                session.close()
                error = blocked.exception()
        assert clock.seconds < PROMPT
        assert isinstance(error, remctl.RemctlNotOpenedError)
        assert "closed while" in str(error)

    def test_close_from_another_wakes_an_open(self, server: ServerArguments) -> None:
        session = Remctl()
        with SilentServer() as silent, ThreadPoolExecutor(1) as pool:
            blocked = pool.submit(session.open, "127.0.0.1", silent.port, server[2])
            while silent.accepted == 0:
                os.sched_yield()
            with Clock() as clock:
                session.close()
                error = blocked.exception()
        assert clock.seconds < PROMPT
        assert isinstance(error, remctl.RemctlNotOpenedError)


def _drop_in_child(session: Remctl, told: multiprocessing.queues.SimpleQueue[str]) -> None:
    try:
        session.run(["example", "hello"])
    except remctl.RemctlNotOpenedError as error:
        told.put(str(error))
    session.close()


class TestFork:
    def test_a_child_does_not_disturb_the_session_of_its_parent(self, session: Remctl) -> None:
        context = multiprocessing.get_context("fork")
        told = context.SimpleQueue()
        session.command(["example", "echo", "mine"])
        child = context.Process(target=_drop_in_child, args=(session, told))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert f"belongs to process {os.getpid()}" in told.get()
        told.close()
        assert session.output().output == b"mine\n"
        assert session.output().status == 0
        assert session.run(["example", "hello"]).status == 0

    def test_a_child_may_have_a_session_of_its_own(self, server: ServerArguments, session: Remctl) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                session.open(*server)
                os._exit(session.run(["example", "status", 7]).status)
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert session.run(["example", "hello"]).status == 0

    def test_a_child_that_collects_garbage_does_not_disturb(self, session: Remctl) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                session.__dict__.clear()  # the last reference goes, and the destructor runs
                os._exit(0)
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert session.run(["example", "hello"]).status == 0
