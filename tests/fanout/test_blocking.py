"""The blocking face: the same run, in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aio.running import descriptors
from serving import Gate, ServerThread

import remctl
from fanout.memory import Memory, refused
from fanout.memory import run as aio_run
from remctl.fanout import HostState
from remctl.fanout._blocking import Run
from remctl.testing import Sandbox

Serving = Callable[..., ServerThread]


def run(hosts: Any, memory: Memory | None = None, **arguments: Any) -> Run:
    """Make a blocking run over a transport in memory."""
    return Run(aio_run(hosts, memory, **arguments))


def names(number: int) -> list[str]:
    return [f"h{each}" for each in range(number)]


def forever(visit: Any) -> Any:
    return asyncio.Event().wait()


def run_threads() -> int:
    return sum(thread.name == "remctl run" for thread in threading.enumerate())


def settled(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestResults:
    def test_come_from_real_servers(self, everywhere: Serving, box: Sandbox) -> None:
        server = everywhere()
        before = descriptors()
        hosts = (f"127.0.1.{number}" for number in range(1, 101))
        arguments: dict[str, Any] = {"port": server.port, "principal": box.principal}
        with remctl.run_many(hosts, ["example", "echo", "x"], **arguments) as run:
            results = list(run)
            assert run.progress.done == 100
        assert {(result.state, result.stdout) for result in results} == {(HostState.OK, b"x\n")}
        assert sorted(result.index for result in results) == list(range(100))
        server.until(lambda inner: inner.connections == 0)  # whose descriptors are in this process, too
        assert descriptors() <= before + 1
        assert run_threads() == 0

    def test_come_without_a_with_block_too(self) -> None:
        assert len(list(run(names(3000)))) == 3000
        assert run_threads() == 0

    def test_come_in_order_if_that_is_asked_for(self) -> None:
        results = list(run(names(3000), Memory({"h5": [refused(), 0]}), ordered=True, backoff=0.01))
        assert [result.index for result in results] == list(range(3000))

    def test_of_a_run_that_is_over_are_no_more(self) -> None:
        running = run(names(2))
        assert len(list(running)) == 2
        assert list(running) == []
        running.close()
        running.stop()
        running.cancel()

    def test_are_taken_only_as_fast_as_they_are_asked_for(self) -> None:
        memory = Memory()
        with run(names(20_000), memory) as running:
            next(running)
            settled(lambda: len(memory.visits) > 1000)
            time.sleep(0.1)
            assert len(memory.visits) < 3000

    def test_what_the_hosts_raise_is_raised(self) -> None:
        with pytest.raises(ValueError, match="host must not be empty"):
            list(run(["a", ""]))
        assert run_threads() == 0

    def test_without_a_thread_the_first_one_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            with pytest.raises(remctl.RemctlError, match="no thread could be started"):
                next(run(["a"]))

    def test_without_descriptors_the_first_one_is_an_error(self) -> None:
        code = (
            "import os, resource, remctl.fanout._blocking\n"
            "run = remctl.run_many(['localhost'], ['x'])\n"
            "free = os.open('/', 0)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))\n"
            "try:\n"
            "    next(run)\n"
            "except remctl.RemctlError as error:\n"
            "    print(error, list(run))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
        assert done.stdout.startswith("no event loop could be made: Too many open files; "), done.stderr
        assert done.stdout.endswith("ulimit -n []\n")

    def test_of_hosts_that_exit_are_the_end(self) -> None:
        def hosts() -> Iterator[str]:
            yield "a"
            raise SystemExit(7)

        running = run(hosts())
        with pytest.raises(SystemExit, match="7"):
            list(running)
        assert list(running) == []
        assert run_threads() == 0

    def test_without_a_ticket_the_first_one_is_an_error(self) -> None:
        with pytest.raises(remctl.RemctlAuthenticationError):
            next(remctl.run_many(["localhost"], ["x"], ccache="/nowhere"))
        assert run_threads() == 0

    def test_may_be_asked_for_inside_a_running_event_loop(self) -> None:
        async def main() -> int:
            return len(list(run(names(10))))

        assert asyncio.run(main()) == 10

    def test_may_be_shared_out_among_threads(self) -> None:
        running = run(names(5000))
        found: list[str] = []

        def take() -> None:
            found.extend(result.host for result in running)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(names(5000))


class TestEnd:
    def test_ctrl_c_cuts_the_run(self, everywhere: Serving, box: Sandbox, interrupt: Callable[[float], None]) -> None:
        gate = Gate()
        server = everywhere(gate)
        before = descriptors()
        hosts = (f"127.0.1.{number}" for number in range(1, 101))
        running = remctl.run_many(hosts, ["x"], port=server.port, principal=box.principal)
        interrupt(0.5)
        with pytest.raises(KeyboardInterrupt):
            next(running)
        assert run_threads() == 0
        settled(lambda: descriptors() <= before + 1)  # the server's, too
        assert list(running) == []

    def test_ctrl_c_at_any_moment_leaves_nothing(self) -> None:
        def press(number: int) -> None:
            memory = Memory(dict.fromkeys(names(2000)[::501], forever))
            with run(names(2000), memory) as running:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.0003 * number)
                for _ in running:
                    pass

        old = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            for number in range(100):
                with pytest.raises(KeyboardInterrupt):
                    press(number)
                signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, old)
        settled(lambda: run_threads() == 0)

    @pytest.mark.parametrize("number", range(10))
    def test_closing_in_another_thread_ends_the_wait_for_a_result(self, number: int) -> None:
        running = run(names(5), Memory(dict.fromkeys(names(5), forever)))
        closing = threading.Timer(0.0005 * number, running.close)
        closing.start()
        assert list(running) == []
        closing.join()
        assert run_threads() == 0

    def test_closing_may_come_from_the_callback(self) -> None:
        def words(visit: Any) -> Any:
            visit.output(remctl.Stream.STDOUT, b"words")
            return forever(visit)

        memory = Memory(dict.fromkeys(names(5), words))
        running: Run = run(names(5), memory, on_output=lambda *_: running.close())
        assert list(running) == []
        settled(lambda: not run_threads() and not memory.now.total())

    def test_leaving_hosts_without_an_end_cuts_the_run(self) -> None:
        with run((f"h{number}" for number in itertools.count()), Memory({"h9": 1}), max_fail=1, running=1) as running:
            assert next(result.index for result in running if result.state == "skipped") == 10
        assert run_threads() == 0

    def test_leaving_early_cuts_the_run(self) -> None:
        memory = Memory(dict.fromkeys(names(50), forever))
        with run([*names(50), "good"], memory, running=51, handshakes=51) as running:
            assert next(running).host == "good"
        assert not memory.now.total()
        assert run_threads() == 0

    def test_dropping_the_run_warns_and_cuts_it(self) -> None:
        memory = Memory(dict.fromkeys(names(50), forever))

        def look() -> None:
            for _ in run([*names(50), "good"], memory, running=51, handshakes=51):
                break
            gc.collect()

        with pytest.warns(ResourceWarning, match="use `with`"):
            look()
        settled(lambda: not memory.now.total() and not run_threads())

    @pytest.mark.parametrize("method", ["stop", "cancel"])
    def test_stop_and_cancel_may_come_from_another_thread(self, method: str) -> None:
        memory = Memory(dict.fromkeys(names(5), forever) if method == "cancel" else {}, pause=0.05)
        with run(names(10_000), memory, running=5) as running:
            timer = threading.Timer(0.1, getattr(running, method))
            timer.start()
            states = [result.state for result in running]
            timer.join()
        assert len(states) == 10_000
        assert states.count(HostState.SKIPPED) > 9000
        assert (HostState.CANCELLED in states) is (method == "cancel")

    def test_stop_and_cancel_may_come_from_a_signal_handler(self) -> None:
        memory = Memory(dict.fromkeys(names(5), forever))
        with run(names(100), memory, running=5) as running:
            old = signal.signal(signal.SIGUSR1, lambda *_: running.cancel())
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            try:
                results = list(running)
            finally:
                timer.join()
                signal.signal(signal.SIGUSR1, old)
        assert [result.state for result in results].count(HostState.CANCELLED) == 5
        assert all(result.may_be_running for result in results if result.state == "cancelled")

    def test_stop_before_the_beginning_begins_nothing(self) -> None:
        memory = Memory()
        running = run(names(10), memory)
        running.stop()
        assert {result.state for result in running} == {HostState.SKIPPED}
        assert memory.visits == []

    def test_closing_before_the_beginning_begins_nothing(self) -> None:
        memory = Memory()
        with run(names(10), memory) as running:
            pass
        assert list(running) == []
        assert memory.visits == []

    def test_a_program_may_end_in_the_middle_of_a_run(self, everywhere: Serving, box: Sandbox) -> None:
        server = everywhere(Gate())
        code = (
            "import remctl, sys\n"
            "run = remctl.run_many([f'127.0.1.{n}' for n in range(1, 50)] + ['127.0.0.1:1'], ['x'], retries=0,\n"
            "                      port=int(sys.argv[1]), principal=sys.argv[2])\n"
            "print(next(run).state)\n"
        )
        command = [sys.executable, "-c", code, str(server.port), box.principal]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


class TestFork:
    def test_a_child_cannot_use_the_run_and_does_not_disturb_it(self, tmp_path: Path) -> None:
        memory = Memory(pause=0.001)
        with run(names(200), memory, running=2) as running:
            next(running)
            if (pid := os.fork()) == 0:
                try:
                    next(running)
                except remctl.RemctlError as error:
                    (tmp_path / "said").write_text(str(error))
                finally:
                    running.close()
                    os._exit(0)
            os.waitpid(pid, 0)
            assert f"the run belongs to process {os.getpid()}" in (tmp_path / "said").read_text()
            assert len(list(running)) == 199


class TestLightness:
    @pytest.mark.parametrize("stranger", ["asyncio", "gssapi", "krb5", "remctl.aio", "remctl.fanout"])
    def test_importing_the_package_does_not_load(self, stranger: str) -> None:
        code = f"import remctl, sys; remctl.run_many; print({stranger!r} in sys.modules)"
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"

    @pytest.mark.parametrize("first", ["remctl.aio", "remctl.fanout", "remctl.fanout.aio"])
    def test_every_module_may_come_first(self, first: str) -> None:
        code = f"import {first}, remctl; remctl.run_many([], ['x']); import remctl.aio; remctl.aio.run_many([], ['x'])"
        subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], check=True)
