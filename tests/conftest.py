"""Fixtures of the project's own tests; the realm and the servers come from the pytest plugin of `remctl.testing`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from doubles import Relay, ScriptedServer
from faces import Aio, Blocking, Face
from serving import ServerThread

import remctl
from remctl.testing import Sandbox

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    """Take Ctrl-C, which shells have their background jobs ignore, and programs that are started inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def box(remctl_sandbox: Sandbox) -> Sandbox:
    """Give the session's sandbox with the command `example` on its first server."""
    remctl_sandbox.add_examples()
    return remctl_sandbox


@pytest.fixture
def server(box: Sandbox) -> tuple[str, int, str]:
    """Give host, port and principal of the first server, as `open` takes them."""
    return box.host, box.port, box.principal


@pytest.fixture
def session(server: tuple[str, int, str]) -> Iterator[remctl.Remctl]:
    """Give a session with the first server."""
    with remctl.Remctl(*server) as opened:
        yield opened


@pytest.fixture(params=["blocking", "asyncio"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Give each of the two faces in turn."""
    if request.param == "blocking":
        yield Blocking()
    else:
        with Aio() as started:
            yield started


@pytest.fixture
def faces() -> Iterator[tuple[Face, Face]]:
    """Give both faces, to compare them."""
    with Aio() as started:
        yield Blocking(), started


@pytest.fixture(scope="session")
def own(box: Sandbox) -> Iterator[ServerThread]:
    """Give a server of our own, with the command `example`."""
    with ServerThread(box) as started:
        yield started


@pytest.fixture
def relay(box: Sandbox) -> Iterator[Relay]:
    """Give a relay to the first server, through which connections can be spoilt."""
    with Relay(box.port) as started:
        yield started


@pytest.fixture
def scripted(box: Sandbox) -> Iterator[Callable[..., ScriptedServer]]:
    """Give a factory of servers that authenticate for real and then do what a function says: see `ScriptedServer`."""
    with ExitStack() as servers:
        yield lambda *arguments, **options: servers.enter_context(ScriptedServer(*arguments, **options))


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Give a function that has Ctrl-C pressed so many seconds later."""
    timers: list[threading.Timer] = []

    def press(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield press
    for timer in timers:
        timer.cancel()
        timer.join()


@pytest.fixture
def full() -> Iterator[int]:
    """Give the port of a listener that takes no connection any more: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        held = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
            held.append(waiting)
        yield port
        for waiting in held:
            waiting.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
