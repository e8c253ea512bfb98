"""What the blocking face alone has: descriptors, destructors, libremctl's memory.  The rest is in `test_faces`."""

from __future__ import annotations

import gc
import os
import select
import socket
from pathlib import Path

import pytest

import remctl
from remctl import Remctl

ServerArguments = tuple[str, int, str]


class TestOpenAndClose:
    def test_a_failed_open_leaves_no_descriptor_and_no_open_session(
        self, server: ServerArguments, session: Remctl, tmp_path: Path
    ) -> None:
        for _ in range(3):
            with pytest.raises(remctl.RemctlAuthenticationError):
                session.open(server[0], server[1], "host/unknown")
            assert not session.opened
            with (tmp_path / "bystander").open("w+b") as bystander:
                with pytest.raises(remctl.RemctlNotOpenedError):
                    session.command(["example", "hello"])
                session.close()
                bystander.write(b"untouched")
                bystander.seek(0)
                assert bystander.read() == b"untouched"

    def test_opening_again_and_again_does_not_grow(self, server: ServerArguments, session: Remctl) -> None:
        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

        for _ in range(50):
            session.open(*server)
        before = resident()
        for _ in range(200):
            session.open(*server)
        assert resident() - before < 600_000  # a context that is not freed takes 6 KiB each time

    def test_a_dropped_session_closes_itself_without_a_warning(self, server: ServerArguments) -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            Remctl(*server).command(["example", "hello"])
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


class TestDescriptor:
    def test_fileno_is_readable_when_there_is_output(self, session: Remctl) -> None:
        assert select.select([session], [], [], 0)[0] == []
        session.command(["example", "hello"])
        assert select.select([session], [], [], 10)[0] == [session]
        assert session.output().output == b"hello world\n"

    def test_descriptors_are_not_inherited(self, session: Remctl) -> None:
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    assert not os.get_inheritable(int(name))
            except FileNotFoundError:
                continue

    def test_keepalive_and_nodelay_are_set(self, session: Remctl) -> None:
        with socket.socket(fileno=os.dup(session.fileno())) as same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    def test_there_is_none_without_a_connection(self, session: Remctl) -> None:
        with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
            Remctl().fileno()
        session.close()
        with pytest.raises(remctl.RemctlNotOpenedError, match=r"close\(\) was called"):
            session.fileno()
