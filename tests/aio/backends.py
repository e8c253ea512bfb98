"""What the tests of a backend in a server have in common: the backend, its server, and a place to wait in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from rawclient import output, status
from serving import PATIENCE, ServerThread

from remctl.aio import _offload
from remctl.backend import Backend

Serve = Callable[..., ServerThread]

HELLO: Final = [output(b"hello\n"), status(0)]

QUICK: Final = [output(b"quick\n"), status(0)]


class Waiting:
    """A place where a function waits, and says that it does."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self._open = threading.Event()

    def wait(self) -> None:
        """Wait until it is opened, on a thread."""
        self.begun.release()
        assert self._open.wait(PATIENCE)

    async def wait_in_loop(self) -> None:
        """Wait until it is cancelled, in the loop."""
        self.begun.release()
        await asyncio.sleep(PATIENCE)

    def came(self, times: int = 1) -> bool:
        """Whether functions came here so many times."""
        return all(self.begun.acquire(timeout=PATIENCE) for _ in range(times))

    def open(self) -> None:
        """Let all go on, now and later."""
        self._open.set()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Note how what is inside ends."""
        try:
            yield
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.ended.set()


class WithBackend:
    """The fixtures; classes of tests inherit them."""

    @pytest.fixture
    def waiting(self) -> Iterator[Waiting]:
        """Give a place to wait, opened at the end."""
        place = Waiting()
        yield place
        place.open()

    @pytest.fixture(autouse=True)
    def threads(self, monkeypatch: pytest.MonkeyPatch, waiting: Waiting) -> Iterator[None]:
        """Have threads end when they have nothing to do, and see that they do."""
        before = {thread for thread in threading.enumerate() if thread.name == "remctl"}
        monkeypatch.setattr(_offload, "IDLE", 0.02)
        yield
        waiting.open()
        for thread in threading.enumerate():
            if thread.name == "remctl" and thread not in before:
                thread.join(PATIENCE)
                assert not thread.is_alive()

    @pytest.fixture(autouse=True)
    def logged(self, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
        """Have all of the log caught."""
        caplog.set_level(logging.INFO, "remctl")
        return caplog

    @pytest.fixture
    def backend(self) -> Backend:
        """Give a backend, to which tests add what they need."""
        made = Backend("test")

        @made.command
        def hello() -> str:
            return "hello\n"

        @made.command
        async def quick() -> str:
            return "quick\n"

        return made

    @pytest.fixture
    def serve(self, serving: Serve, backend: Backend) -> Serve:
        """Give a function that starts a server with the backend."""
        return lambda **options: serving(backend, **options)
