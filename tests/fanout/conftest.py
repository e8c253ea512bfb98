"""Fixtures of the tests of runs on many hosts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from aio.conftest import silent_kdc, threads
from serving import ServerThread

from remctl.testing import Sandbox

__all__ = ["everywhere", "silent_kdc", "threads"]


def on_loopback() -> socket.socket:
    """Return a listening socket on every address of 127.0.0.0/8, and on no other."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    sock.bind(("0.0.0.0", 0))
    sock.listen(1024)
    return sock


@pytest.fixture
def everywhere(box: Sandbox) -> Iterator[Callable[..., ServerThread]]:
    """Give a factory of servers of our own on 127.0.0.0/8, which end with the test: see `ServerThread`."""
    with ExitStack() as servers:
        yield lambda *arguments, **options: servers.enter_context(
            ServerThread(box, *arguments, sock=on_loopback(), **options)
        )
