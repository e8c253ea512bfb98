"""Fixtures of the asyncio faces' tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from serving import ServerThread

from remctl.aio import _connecting, _connection
from remctl.aio._offload import Threads
from remctl.testing import Sandbox

THREADS: Final = 6
"""How many threads `threads` has."""


@pytest.fixture
def serving(box: Sandbox) -> Iterator[Callable[..., ServerThread]]:
    """Give a factory of servers of our own, which end with the test: see `ServerThread`."""
    with ExitStack() as servers:
        yield lambda *arguments, **options: servers.enter_context(ServerThread(box, *arguments, **options))


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Give threads for this test alone, so that calls which it leaves behind keep up no other test."""
    mine = Threads(THREADS)
    monkeypatch.setattr(_connecting, "network", mine)
    monkeypatch.setattr(_connection, "network", mine)
    return mine


@pytest.fixture
def silent_kdc(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: Threads
) -> Iterator[socket.socket]:
    """Have a KDC that takes requests and never answers; closing the socket that this gives ends its TCP part."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        config = tmp_path / "krb5.conf"
        config.write_text(
            f"[libdefaults]\ndefault_realm = {box.realm}\nrdns = false\ndns_canonicalize_hostname = false\n"
            f"dns_lookup_kdc = false\n[realms]\n{box.realm} = {{\n kdc = 127.0.0.1:{port}\n}}\n"
            f"[domain_realm]\nlocalhost = {box.realm}\n"
        )
        monkeypatch.setenv("KRB5_CONFIG", str(config))
        yield udp
