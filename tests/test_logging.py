"""What both faces log for those who look for what goes wrong; and never what may be secret."""

from __future__ import annotations

import logging
from typing import Final

import pytest
from doubles import Relay
from faces import Face

import remctl
from remctl.testing import Sandbox

CANARY: Final = "swordfish"

LOGGERS: Final = {"remctl.Remctl": "remctl._connection", "remctl.aio.Remctl": "remctl.aio._connection"}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Give what is logged at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="remctl")
    return caplog


def lines(face: Face, log: pytest.LogCaptureFixture) -> list[str]:
    """Return what a face's connections have logged."""
    return [record.getMessage() for record in log.records if record.name == LOGGERS[face.name]]


def test_a_command_is_logged_with_its_size_and_its_end(
    face: Face, server: tuple[str, int, str], log: pytest.LogCaptureFixture
) -> None:
    with face.session(*server, timeout=30) as session:
        session.run(["example", "count", 3, CANARY])
        assert session.run(["example", "status", 3, CANARY]).status == 3
        with pytest.raises(remctl.RemctlCommandError):
            session.run(["nothing", "here", CANARY])
    first, *others = lines(face, log)
    assert first == f"connected to localhost:{server[1]}, protocol 2"
    assert others == [
        "command 'example count': 4 words, 42 bytes",
        "command 'example count' has ended: exit status 0, 21 bytes of stdout, 13 of stderr",
        "command 'example status': 4 words, 43 bytes",
        "command 'example status' has ended: exit status 3, 0 bytes of stdout, 0 of stderr",
        "command 'nothing here': 3 words, 36 bytes",
        "command 'nothing here' has ended: error UNKNOWN_COMMAND, 0 bytes of stdout, 0 of stderr",
        f"the connection to localhost:{server[1]} is over: close() was called",
    ]
    assert CANARY not in log.text


def test_output_that_is_handed_out_as_it_comes_is_counted(
    face: Face, server: tuple[str, int, str], log: pytest.LogCaptureFixture
) -> None:
    with face.session(*server, timeout=30) as session:
        size = sum(len(token.output or b"") for token in session.stream(["example", "bytes", 300_000]))
    assert size == 300_000
    assert "command 'example bytes' has ended: exit status 0, 300000 bytes of stdout, 0 of stderr" in lines(face, log)


def test_a_lost_connection_is_logged(face: Face, relay: Relay, box: Sandbox, log: pytest.LogCaptureFixture) -> None:
    with face.session("localhost", relay.port, box.principal, timeout=30) as session:
        relay.down = lambda data: None
        with pytest.raises(remctl.RemctlConnectionError):
            session.run(["example", "echo", CANARY])
    assert f"the connection to localhost:{relay.port} is over: " in lines(face, log)[-1]
    assert CANARY not in log.text


def test_nothing_is_logged_of_commands_where_nobody_looks(
    face: Face, server: tuple[str, int, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="remctl")
    with face.session(*server, timeout=30) as session:
        session.run(["example", "hello"])
    assert lines(face, caplog) == []
