"""Every client against every server: what users of one may expect of the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import ServerThread

from integration.clients import Address, Answer, Asynchronous, Blocking, Driver, Perl, Program
from remctl.aio import Request
from remctl.testing import Sandbox, sandbox
from remctl.types import ErrorCode

CLIENTS: dict[str, type[Driver]] = {
    "program": Program,
    "libremctl": Blocking,
    "asyncio": Asynchronous,
    "perl": Perl,
}

SESSIONS = ["libremctl", "asyncio", "perl"]
"""Clients with more than one command on a connection, and with noop; the C program connects for each."""

BINARY = ["libremctl", "asyncio", "perl"]
"""Clients whose words may have NULs; those of the C program come from its command line, which ends them there."""

LONG = 100_000
"""Bytes of a word that does not fit one message; the system allows 128 KiB for a word of the C program's."""

EXAMPLE = Path(sandbox.__file__).with_name("example-commands.sh")

HELLO = Answer(b"hello world\n", b"", 0)


async def allow(request: Request) -> bool:
    """The access control of our server, as `private` has it in remctld's configuration."""
    return request.command[0] != b"private"


@pytest.fixture(scope="module", params=["remctld", "ours"])
def address(request: pytest.FixtureRequest, box: Sandbox) -> Iterator[Address]:
    """Give the server."""
    if request.param == "remctld":
        server = box.add_server()
        server.add_command("private", "ALL", "/bin/true", acl="princ:nobody@SANDBOX.TEST")
        server.add_command("example", "cat", EXAMPLE, stdin="last")
        server.add_command("example", "ALL", EXAMPLE)
        yield Address(server.host, server.port, server.principal)
        server.stop()
    else:
        with ServerThread(box, acl=allow) as ours:
            yield Address(box.host, ours.port, box.principal)


@pytest.fixture
def client(request: pytest.FixtureRequest, address: Address) -> Iterator[Driver]:
    """Give the client that the test is parametrised with, connected."""
    with CLIENTS[request.param](address) as driver:
        yield driver


every = pytest.mark.parametrize("client", CLIENTS, indirect=True)
with_sessions = pytest.mark.parametrize("client", SESSIONS, indirect=True)
with_binary_words = pytest.mark.parametrize("client", BINARY, indirect=True)


@every
def test_a_command(client: Driver) -> None:
    assert client.run(b"example", b"hello") == HELLO


@every
def test_both_streams_and_a_status(client: Driver) -> None:
    assert client.run(b"example", b"count", b"3") == Answer(b"line 1\nline 2\nline 3\n", b"counted to 3\n", 0)
    assert client.run(b"example", b"bogus") == Answer(b"", b"example: unknown subcommand: bogus\n", 64)


@every
def test_words_that_are_empty_or_not_ascii(client: Driver) -> None:
    assert client.run(b"example", b"echo", b"", b"caf\xc3\xa9", b"\xff", b"") == Answer(b" caf\xc3\xa9 \xff \n", b"", 0)


@every
def test_a_word_larger_than_a_message(client: Driver) -> None:
    word = bytes(range(1, 251)) * (LONG // 250)
    assert client.run(b"example", b"cat", word) == Answer(word, b"", 0)


@every
def test_a_hundred_megabytes_of_output(client: Driver) -> None:
    answer = client.run(b"example", b"bytes", b"100000000")
    assert answer.stdout == bytes(100_000_000)
    assert (answer.stderr, answer.status) == (b"", 0)


@every
def test_an_unknown_command_is_refused(client: Driver) -> None:
    code, text = client.refused(b"bogus", b"word")
    assert text == "Unknown command"
    assert code in (ErrorCode.UNKNOWN_COMMAND, None)


@every
def test_a_command_that_access_control_forbids_is_refused(client: Driver) -> None:
    code, text = client.refused(b"private", b"word")
    assert text.startswith("Access denied")
    assert code in (ErrorCode.ACCESS, None)


@pytest.mark.parametrize("client", ["program"], indirect=True)
def test_exit_statuses_of_the_program(client: Driver) -> None:
    numbers = [0, 1, 2, 64, 127, 128, 200, 254, 255]
    assert [client.run(b"example", b"status", b"%d" % number).status for number in numbers] == numbers


@with_sessions
def test_every_exit_status(client: Driver) -> None:
    assert [client.run(b"example", b"status", b"%d" % number).status for number in range(256)] == list(range(256))


@with_sessions
def test_many_commands_on_a_session(client: Driver) -> None:
    for number in range(50):
        assert client.run(b"example", b"echo", b"%d" % number) == Answer(b"%d\n" % number, b"", 0)


@with_sessions
def test_a_session_goes_on_after_a_refusal(client: Driver) -> None:
    client.refused(b"bogus")
    client.refused(b"private", b"word")
    assert client.run(b"example", b"hello") == HELLO


@with_sessions
def test_noop_between_commands(client: Driver) -> None:
    client.noop()
    assert client.run(b"example", b"hello") == HELLO
    client.noop()
    client.noop()
    assert client.run(b"example", b"hello") == HELLO


@with_binary_words
def test_a_word_with_nul(client: Driver) -> None:
    word = bytes(range(256))
    assert client.run(b"example", b"cat", word) == Answer(word, b"", 0)


@with_binary_words
def test_a_word_of_megabytes(client: Driver) -> None:
    word = bytes(range(256)) * 20_000
    assert client.run(b"example", b"cat", word) == Answer(word, b"", 0)
