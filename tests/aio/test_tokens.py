"""The tokens of a client's connection, as they are logged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

import pytest
from doubles import Peer, ScriptedServer

import remctl
from aio.running import asynchronous
from remctl.aio import Remctl
from remctl.protocol import ClientConnection
from remctl.testing import Sandbox

CANARY: Final = "swordfish"

Scripted = Callable[..., ScriptedServer]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Give what is logged of tokens."""
    caplog.set_level(logging.DEBUG, logger="remctl.aio.tokens")
    return caplog


def tokens(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the tokens that were logged, without their sizes."""
    found = []
    for record in log.records:
        if record.name == "remctl.aio.tokens":
            line = re.fullmatch(r"((?:sent|received) \w+: flags 0x[0-9a-f]{2}), (\d+) bytes", record.getMessage())
            assert line is not None
            found.append(line[1])
    assert CANARY not in log.text
    return found


HANDSHAKE: Final = ["sent FIRST: flags 0x51", "sent CONTEXT: flags 0x42", "received CONTEXT: flags 0x42"]


@asynchronous
async def test_are_logged_with_type_and_flags_and_without_their_contents(
    server: tuple[str, int, str], log: pytest.LogCaptureFixture
) -> None:
    async with Remctl(*server, timeout=20) as session:
        await session.run(["example", "echo", CANARY])
        await session.noop()
        with pytest.raises(remctl.RemctlCommandError):
            await session.run(["nothing"])
    assert tokens(log) == [
        *HANDSHAKE,
        "sent COMMAND: flags 0x44",
        "received OUTPUT: flags 0x44",
        "received STATUS: flags 0x44",
        "sent NOOP: flags 0x44",
        "received NOOP: flags 0x44",
        "sent COMMAND: flags 0x44",
        "received ERROR: flags 0x44",
        "sent QUIT: flags 0x44",
    ]


@asynchronous
async def test_that_cannot_be_understood_are_logged(
    box: Sandbox, scripted: Scripted, log: pytest.LogCaptureFixture
) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(6, b"\x02")
        peer.receive()
        peer.send(99)

    async with Remctl(box.host, scripted(script).port, box.principal, timeout=20) as session:
        with pytest.raises(remctl.RemctlProtocolError, match="speaks protocol 2, which has no NOOP"):
            await session.noop()
        with pytest.raises(remctl.RemctlProtocolError, match="cannot be understood"):
            await session.run(["example", CANARY])
    assert tokens(log) == [
        *HANDSHAKE,
        "sent NOOP: flags 0x44",
        "received VERSION: flags 0x44",
        "sent COMMAND: flags 0x44",
        "received unreadable: flags 0x44",
    ]


@asynchronous
async def test_of_protocol_1_are_logged(box: Sandbox, scripted: Scripted, log: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.authenticate(0x02)
        body = peer.receive()
        peer.send_token(0x08, peer.sign(body))
        peer.send_token(0x04, peer.wrap(b"\0\0\0\0\0\0\0\1x"))

    server = scripted(script, authenticate=False)
    async with Remctl(box.host, server.port, box.principal, timeout=20) as session:
        assert (await session.run(["example", CANARY])).stdout == b"x"
    assert tokens(log) == [
        *HANDSHAKE[:2],
        "received CONTEXT: flags 0x02",
        "sent COMMAND: flags 0x24",
        "received MIC: flags 0x08",
        "received RESULT: flags 0x04",
    ]


@asynchronous
async def test_cost_nothing_where_nobody_looks(server: tuple[str, int, str]) -> None:
    async with Remctl(*server, timeout=20) as session:
        assert type(session._handle.opened()._core) is ClientConnection
