"""The limits of a run, and how they give way: to a machine with few descriptors, and to servers that refuse."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aio.running import asynchronous
from serving import ServerThread

import remctl
from fanout.conftest import on_loopback
from fanout.memory import Memory, all_of, run, timeless
from remctl.fanout import _engine
from remctl.fanout._admission import Admission, Limit
from remctl.fanout._options import check
from remctl.fanout._visit import Visit
from remctl.fanout.aio import Run
from remctl.testing import Sandbox

Serving = Callable[..., ServerThread]

SMALL = """
import collections, json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import remctl
from remctl.fanout import _engine
port, principal, how = sys.argv[1:]
if how == "blind":
    _engine.free_descriptors = lambda: None
hosts = (f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(400))
with remctl.run_many(hosts, ["example", "sleep", "0.1"], port=int(port), principal=principal) as run:
    states = collections.Counter()
    for result in run:
        states[result.state] += 1
        if not result.ok:
            print(result.error, file=sys.stderr)
print(json.dumps(states))
"""


class TestDescriptors:
    @pytest.mark.parametrize("how", ["looking", "blind"])
    def test_that_are_few_fail_no_host(self, how: str, everywhere: Serving, box: Sandbox) -> None:
        server = everywhere()
        done = subprocess.run(
            [sys.executable, "-c", SMALL, str(server.port), box.principal, how],
            check=True,
            capture_output=True,
            text=True,
        )
        assert json.loads(done.stdout) == {"ok": 400}, done.stderr

    @timeless
    async def test_that_are_there_in_plenty_change_nothing(self) -> None:
        admission = Admission(sockets=64, handshakes=32, running=64, starts=None)
        admission.fit(None)
        admission.fit(1000)
        assert (admission.sockets.now, admission.handshakes.now) == (64, 32)
        admission.fit(0)
        assert (admission.sockets.now, admission.handshakes.now) == (1, 1)
        assert not admission.sockets.lowered

    @timeless
    async def test_that_never_come_back_are_a_failure_in_the_end(self) -> None:
        short = remctl.RemctlConnectionError("cannot connect: Too many open files", errno=errno.EMFILE)
        memory = Memory({"a": short})
        (result,) = await all_of(run(["a"], memory, retries=2))
        assert (result.state, len(result.attempts), len(memory.visits)) == ("refused", 2, 3)
        memory = Memory({"a": short}, pause=1.0)
        results = await all_of(run(["a", *(f"h{number}" for number in range(500))], memory, running=4, retries=2))
        assert Counter(result.state for result in results) == {"ok": 500, "refused": 1}
        assert 3 < memory.visits.count("a") <= 3 + _engine.POSTPONED

    @timeless
    async def test_of_the_name_service_or_the_kdc_count_too(self) -> None:
        class Scarce(Memory):
            async def __call__(self, visit: Visit) -> None:
                if self.now["work"] < 10:
                    return await super().__call__(visit)
                self.visits.append("")
                error = remctl.RemctlAuthenticationError("authentication failed")
                error.__cause__ = OSError(errno.EMFILE, "Too many open files")
                raise error if len(self.visits) % 2 else remctl.RemctlConnectionError("cannot", errno=errno.ENOBUFS)

        memory = Scarce(pause=0.1)
        results = await all_of(run([f"h{number}" for number in range(300)], memory, retries=0))
        assert {result.state for result in results} == {"ok"}
        assert not any(result.attempts for result in results)
        assert 0 < memory.visits.count("") < 300


class TestServers:
    @asynchronous
    async def test_that_end_handshakes_when_there_are_many_are_all_reached(
        self, everywhere: Serving, box: Sandbox
    ) -> None:
        server = everywhere(max_connections=4)
        hosts = [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(300)]
        run = remctl.aio.run_many(hosts, ["example", "hello"], port=server.port, principal=box.principal)
        results = await all_of(run)
        assert Counter(result.state for result in results) == {"ok": 300}

    @asynchronous
    async def test_that_take_few_in_a_second_are_all_reached(self, box: Sandbox) -> None:
        with SlowDoor(box.port, rate=40) as door:
            hosts = [f"127.0.1.{number}" for number in range(1, 61)]
            run = remctl.aio.run_many(hosts, ["example", "hello"], port=door.port, principal=box.principal)
            results = await all_of(run)
        assert Counter(result.state for result in results) == {"ok": 60}

    @timeless
    async def test_that_end_handshakes_for_a_reason_of_their_own_slow_nobody_down(self) -> None:
        ended = remctl.RemctlConnectionError("the connection was lost", errno=errno.ECONNRESET)
        names = [f"h{number}" for number in range(400)]
        memory = Memory(dict.fromkeys(names[::20], ended), pause=1.0)
        begun = asyncio.get_running_loop().time()
        results = await all_of(run(names, memory, running=40, handshakes=40))
        assert Counter(result.state for result in results) == {"ok": 380, "refused": 20}
        assert all(len(result.attempts) == 1 for result in results if not result.ok)
        assert asyncio.get_running_loop().time() - begun < 30

    @timeless
    async def test_that_end_all_handshakes_fail_in_the_end(self) -> None:
        ended = remctl.RemctlConnectionError("the connection was lost", errno=errno.ECONNRESET)
        names = [f"h{number}" for number in range(100)]
        memory = Memory(dict.fromkeys(names, ended), pause=0.1)
        results = await all_of(run(names, memory))
        assert {result.state for result in results} == {"refused"}
        assert {len(result.attempts) for result in results} == {1}

    @timeless
    async def test_that_allow_four_at_a_time_see_hardly_more(self) -> None:
        ended = remctl.RemctlConnectionError("the connection was lost", errno=errno.ECONNRESET)
        connecting = 0
        refused: list[int] = []

        async def visit(visit: Visit) -> None:
            nonlocal connecting
            connecting += 1
            try:
                if connecting > 4:
                    refused.append(connecting)
                    raise ended
                await asyncio.sleep(1.0)
            finally:
                connecting -= 1
            await visit.connected(1)
            visit.status = 0

        hosts, options = check([f"h{number}" for number in range(300)], ["x"], {})
        results = await all_of(Run(hosts, options, visit))
        assert {result.state for result in results} == {"ok"}
        assert max(refused[-20:]) <= 6


class TestLimit:
    def test_grows_after_a_row_of_successes_up_to_where_it_was(self) -> None:
        limit = Limit(4)
        limit.lower(2)
        seen = []
        for _ in range(12):
            limit.kept()
            seen.append(limit.now)
        assert seen == [2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]
        limit.lower(-5)
        assert limit.now == 1
        limit.lower(3)
        assert limit.now == 1


class SlowDoor:
    """A relay to a server that takes so many connections in a second, and holds few that wait."""

    def __init__(self, server: int, rate: float) -> None:
        self._server = server
        self._pause = 1 / rate
        self._socket = on_loopback()
        self._socket.listen(4)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> SlowDoor:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for sock in [self._socket, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in [self._socket, *self._open]:
            sock.close()

    def _spawn(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.wait(self._pause):
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            self._open += [client, server]
            for source, target in itertools.permutations((client, server)):
                self._spawn(self._pump, source, target)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
