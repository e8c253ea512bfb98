"""From a host name to a TCP connection."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from doubles import SilentServer

import remctl
from remctl import Remctl, _connecting, _endpoints
from remctl._libremctl import lib
from remctl._waiting import Waiter
from remctl.testing import Sandbox
from remctl.testing.server import free_port


def test_a_refused_connection_names_address_and_reason() -> None:
    port = free_port("127.0.0.1")
    with pytest.raises(remctl.RemctlConnectionError, match=f"127.0.0.1 port {port}: Connection refused") as caught:
        remctl.remctl("127.0.0.1", port, command=["x"])
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value, ConnectionError)
    assert not caught.value.sent


def test_an_unknown_host() -> None:
    with pytest.raises(remctl.RemctlConnectionError, match="unknown host") as caught:
        Remctl("no-such-host.invalid")
    assert caught.value.host == "no-such-host.invalid"


def test_a_name_that_is_none() -> None:
    for name in ("\u00e9" * 70 + ".example", "a..b\u00e9"):
        with pytest.raises(ValueError, match="host is not a valid name"):
            Remctl(name)


def test_a_source_address_that_is_not_ours() -> None:
    with SilentServer() as silent, pytest.raises(remctl.RemctlConnectionError, match=r"from 192\.0\.2\.1"):
        Remctl("127.0.0.1", silent.port, source_ip="192.0.2.1")


def test_a_connection_that_does_not_come_about_ends_with_the_time_limit(full: int) -> None:
    begin = time.monotonic()
    with pytest.raises(remctl.RemctlTimeoutError):
        Remctl("127.0.0.1", full, timeout=0.5)
    assert time.monotonic() - begin < 0.8


def test_without_a_port_4373_is_tried_and_then_4444(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _endpoints.DEFAULT_PORTS == (lib.REMCTL_PORT, lib.REMCTL_PORT_OLD) == (4373, 4444)
    monkeypatch.setattr(_endpoints, "DEFAULT_PORTS", (free_port("127.0.0.1"), box.port))
    for port in (None, 0, "0"):
        with Remctl(box.host, port) as session:
            assert session.port == box.port
            assert session.run(["example", "hello"]).status == 0


def test_the_second_port_is_not_tried_when_the_first_connects(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with SilentServer() as second:
        monkeypatch.setattr(_endpoints, "DEFAULT_PORTS", (box.port, second.port))
        with pytest.raises(remctl.RemctlAuthenticationError):
            Remctl(box.host, principal="host/unknown")
        assert second.accepted == 0


def test_both_ports_are_named_when_neither_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_port("127.0.0.1"), free_port("127.0.0.1")
    monkeypatch.setattr(_endpoints, "DEFAULT_PORTS", ports)
    with pytest.raises(remctl.RemctlConnectionError, match=f"port {ports[0]}: .*port {ports[1]}: "):
        Remctl("127.0.0.1")


def test_every_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch, full: int) -> None:
    addresses = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")]
    monkeypatch.setattr(_connecting, "_resolve", lambda *_: addresses)
    with socket.create_server(("::1", full), family=socket.AF_INET6) as second:
        connected, port = _connecting.connect("anything", full, None, Waiter(3))
        with connected:
            assert connected.getpeername()[:2] == ("::1", full)
            assert port == full
        second.accept()[0].close()


def test_a_silent_name_server_holds_up_neither_time_limits_nor_ctrl_c(box: Sandbox, tmp_path: Path) -> None:
    assert shutil.which("unshare") is not None
    (tmp_path / "resolv.conf").write_text("nameserver 127.77.0.53\noptions timeout:30 attempts:1\n")
    program = """
        import os, signal, socket, sys, threading, time, remctl
        silent = socket.socket(type=socket.SOCK_DGRAM)
        silent.bind(("127.77.0.53", 53))
        begin = time.monotonic()
        try:
            remctl.remctl("host.example.org", 4373, "host/localhost", ["x"], timeout=0.4)
        except remctl.RemctlTimeoutError as error:
            print("limit", time.monotonic() - begin < 0.7)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        try:
            remctl.remctl("host.example.org", 4373, "host/localhost", ["x"])
        except KeyboardInterrupt:
            print("interrupt", time.monotonic() - begin < 0.6)
    """
    command = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec {sys.executable} -c "$PROGRAM"'
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() != 0 else []), "sh", "-c", command]
    process = subprocess.run(
        unshare, capture_output=True, text=True, env={**box.env, "PROGRAM": textwrap.dedent(program)}
    )
    assert process.stdout == "limit True\ninterrupt True\n", process.stderr
