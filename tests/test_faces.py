"""What both faces promise, with a remctld and with a server of our own: what users call, and what comes back."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from doubles import SilentServer
from faces import Face, Session
from serving import ServerThread

import remctl
from remctl import ErrorCode, Output, OutputType, Stream
from remctl.aio import Request
from remctl.session import Word
from remctl.testing import Sandbox, Server

ServerArguments = tuple[str, int, str]

DONE = Output(OutputType.DONE)

PROMPT = 0.5
"""Seconds by which a call may outlive its time limit."""

BAD_COMMANDS: list[object] = [
    *("example", b"example", bytearray(b"example"), None, 5, {"example"}, {"example": 1}),
    *([], iter(()), [None], [object()], [True], ["example", ["nested"]]),
]


@pytest.fixture(params=["remctld", "own server"])
def kind(request: pytest.FixtureRequest) -> str:
    """Give the two kinds of server in turn."""
    return str(request.param)


@pytest.fixture
def server(kind: str, box: Sandbox, own: ServerThread) -> ServerArguments:
    """Give host, port and principal of a server with the command `example`."""
    return box.host, box.port if kind == "remctld" else own.port, box.principal


@pytest.fixture
def session(face: Face, server: ServerArguments) -> Iterator[Session]:
    """Give a session with it."""
    with face.session(*server, timeout=30) as opened:
        yield opened


@pytest.fixture
def who(kind: str, box: Sandbox, request: pytest.FixtureRequest) -> Iterator[ServerArguments]:
    """Give a server whose command `who` names its client: `who ami` and `who from`."""

    async def answer(request: Request) -> None:
        await request.send((request.principal if request.command[1] == b"ami" else request.address).encode() + b"\n")

    if kind == "remctld":
        remctld: Server = request.getfixturevalue("remctl_server")
        remctld.add_command("who", "ami", "#!/bin/sh\necho $REMOTE_USER\n")
        remctld.add_command("who", "from", "#!/bin/sh\necho $REMOTE_ADDR\n")
        yield "localhost", remctld.port, remctld.principal
    else:
        with ServerThread(box, answer) as ours:
            yield "localhost", ours.port, box.principal


@pytest.fixture
def guarded(kind: str, box: Sandbox, request: pytest.FixtureRequest) -> Iterator[ServerArguments]:
    """Give a server whose command `private` is for somebody else."""
    nobody = f"nobody@{box.realm}"
    if kind == "remctld":
        remctld: Server = request.getfixturevalue("remctl_server")
        remctld.add_command("private", "ALL", "/bin/true", acl=f"princ:{nobody}")
        yield "localhost", remctld.port, remctld.principal
    else:
        with ServerThread(box, acl=[nobody]) as ours:
            yield "localhost", ours.port, box.principal


@pytest.fixture(scope="module")
def others_cache(box: Sandbox) -> str:
    """Give a cache with a ticket for alice."""
    return box.kinit(box.add_principal("alice"))


def answer(session: Session) -> list[Output]:
    """Read tokens as users of the stock binding do, up to the one that ends the answer."""
    tokens = [session.output()]
    while tokens[-1].type == "output":
        tokens.append(session.output())
    return tokens


def joined(tokens: list[Output], stream: Stream = Stream.STDOUT) -> bytes:
    return b"".join(token.output or b"" for token in tokens if token.stream is stream)


class TestOneShot:
    def test_returns_output_and_status(self, face: Face, server: ServerArguments) -> None:
        result = face.remctl(*server, ["example", "hello"])
        assert (result.stdout, result.stderr, result.status) == (b"hello world\n", None, 0)

    def test_takes_named_arguments_and_default_principal(self, face: Face, server: ServerArguments) -> None:
        result = face.remctl(host=server[0], port=str(server[1]), command=("example", "echo", "a"))
        assert result.stdout == b"a\n"

    def test_keeps_the_streams_apart(self, face: Face, server: ServerArguments) -> None:
        result = face.remctl(*server, ["example", "count", 2])
        assert (result.stdout, result.stderr) == (b"line 1\nline 2\n", b"counted to 2\n")

    def test_sends_a_megabyte_and_gets_it_back(self, face: Face, server: ServerArguments) -> None:
        blob = os.urandom(1 << 20)
        assert face.remctl(*server, ["example", "cat", blob], timeout=30).stdout == blob

    def test_raises_what_the_server_answers_with_its_code(self, face: Face, server: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            face.remctl(*server, ["bogus", "word", "secret"])
        error = caught.value
        assert error.code is ErrorCode.UNKNOWN_COMMAND
        assert error.reason == "Unknown command"
        assert error.hint == "the command 'help' lists what the server offers, where it offers help"
        assert (error.host, error.port, error.principal) == server
        assert error.command == "bogus word"
        assert error.sent
        assert str(error) == error.value
        assert str(error) == f"Unknown command (command 'bogus word' on localhost:{server[1]}); {error.hint}"

    def test_says_that_access_was_denied(self, face: Face, guarded: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            face.remctl(guarded[0], guarded[1], None, ["private", "word"])
        assert caught.value.code is ErrorCode.ACCESS
        assert caught.value.reason == "Access denied"
        assert "ACL" in str(caught.value)
        assert caught.value.principal is None

    def test_takes_a_source_address_and_a_ticket_cache(self, face: Face, box: Sandbox, server: ServerArguments) -> None:
        for ccache in (Path(box.ccache), f"FILE:{box.ccache}"):
            result = face.remctl(*server, ["example", "hello"], ccache=ccache, source_ip="127.0.0.1")
            assert result.stdout == b"hello world\n"

    def test_has_a_time_limit(self, face: Face, server: ServerArguments) -> None:
        begin = time.monotonic()
        with pytest.raises(remctl.RemctlTimeoutError, match="while waiting for output") as caught:
            face.remctl(*server, ["example", "sleep", 20], timeout=0.4)
        assert 0.4 <= time.monotonic() - begin < 0.4 + PROMPT
        assert caught.value.sent

    def test_checks_everything_before_it_connects(self, face: Face) -> None:
        with SilentServer() as silent:
            wrongs: tuple[dict[str, Any], ...] = (
                {"command": []},
                {"command": "example"},
                {"command": ["example"], "timeout": -1},
                {"command": ["example"], "source_ip": "bogus"},
                {"command": ["example"], "principal": ""},
                {"command": ["example"], "min_protocol": 4},
                {"command": ["example"], "ccache": ""},
            )
            for wrong in wrongs:
                with pytest.raises((TypeError, ValueError)):
                    face.remctl("127.0.0.1", silent.port, **wrong)
            with pytest.raises(remctl.RemctlAuthenticationError, match="'/nowhere/cache' is not there"):
                face.remctl("127.0.0.1", silent.port, command=["example"], ccache="/nowhere/cache")
            assert silent.accepted == 0


class TestCommandAndOutput:
    def test_tokens_are_typed_and_end_in_done_for_ever(self, session: Session) -> None:
        session.command(["example", "count", "1"])
        tokens = answer(session)
        assert set(tokens[:-1]) == {
            Output(OutputType.OUTPUT, b"line 1\n", Stream.STDOUT),
            Output(OutputType.OUTPUT, b"counted to 1\n", Stream.STDERR),
        }
        assert tokens[-1] == ("status", None, None, 0, None)
        assert [session.output() for _ in range(3)] == [DONE] * 3

    def test_an_error_token_ends_the_answer_and_the_session_goes_on(self, session: Session) -> None:
        session.command(["bogus"])
        assert answer(session) == [("error", b"Unknown command", None, None, 5)]
        assert session.output() == DONE
        assert session.run(["example", "hello"]).stdout == b"hello world\n"

    def test_output_before_any_command_is_an_error(self, session: Session) -> None:
        with pytest.raises(remctl.RemctlError, match="before any command"):
            session.output()
        assert session.run(["example", "hello"]).status == 0

    def test_a_second_command_must_wait_for_the_whole_answer(self, session: Session) -> None:
        session.command(["example", "echo", "one"])
        with pytest.raises(remctl.RemctlError, match=r"command\(\) while the previous command has output left"):
            session.command(["example", "echo", "two"])
        with pytest.raises(remctl.RemctlError, match=r"run\(\) while the previous command has output left") as caught:
            session.run(["example", "echo", "two"])
        assert (caught.value.sent, caught.value.command) == (False, None)  # the one under way is another
        with pytest.raises(remctl.RemctlError, match=r"noop\(\) while the previous command has output left"):
            session.noop()
        assert [token.output for token in answer(session)] == [b"one\n", None]
        session.noop()
        assert session.run(["example", "echo", "three"]).stdout == b"three\n"

    @pytest.mark.parametrize(
        ("words", "sent"),
        [
            (lambda: (word for word in ("example", "echo", "generated")), b"generated\n"),
            (lambda: ["example", "echo", b"bytes", bytearray(b"array"), memoryview(b"view")], b"bytes array view\n"),
            (lambda: ["example", "echo", 1, -2, 2.5, Path("/tmp/x")], b"1 -2 2.5 /tmp/x\n"),
            (lambda: ["example", "echo", "caf\u00e9", "\udcff"], b"caf\xc3\xa9 \xff\n"),
            (lambda: ["example", "echo", "", "a", ""], b" a \n"),
        ],
        ids=["generator", "bytes", "numbers", "text", "empty words"],
    )
    def test_words_may_be_anything_with_an_obvious_text(
        self, session: Session, words: Callable[[], list[Word]], sent: bytes
    ) -> None:
        session.command(words())
        assert answer(session)[0].output == sent

    def test_bad_commands_are_refused_and_nothing_is_sent(self, session: Session) -> None:
        for wrong in BAD_COMMANDS:
            calls: tuple[Callable[[Any], object], ...] = (session.command, session.run, session.stream)
            for call in calls:
                with pytest.raises((TypeError, ValueError), match="command"):
                    call(wrong)
        assert session.run(["example", "hello"]).status == 0

    def test_protocol_limits_are_checked_before_sending(self, session: Session) -> None:
        with pytest.raises(ValueError, match="4097 words or more"):
            session.run(["example"] * 5000)
        with pytest.raises(ValueError, match="104857622 bytes"):
            session.run(["example", "x" * (100 * 1024 * 1024 - 1 + 8 - 4)])
        assert session.run(["example", "hello"]).status == 0


class TestRun:
    def test_hands_on_every_exit_status_as_it_is(self, session: Session) -> None:
        statuses = range(256)
        assert [session.run(["example", "status", status]).status for status in statuses] == list(statuses)

    def test_collects_output_of_many_tokens(self, session: Session) -> None:
        assert session.run(["example", "bytes", 5_000_000]) == (bytes(5_000_000), b"", 0)

    def test_keeps_the_streams_apart(self, session: Session) -> None:
        lines = b"".join(b"line %d\n" % number for number in range(1, 501))
        assert session.run(["example", "count", 500]) == (lines, b"counted to 500\n", 0)

    @pytest.mark.parametrize("size", [0, 1, 5120, 65_500, 65_536, 65_537, 131_072, 3_000_000])
    def test_sends_arguments_of_any_size_with_nul(self, session: Session, size: int) -> None:
        blob = (bytes(range(256)) * (size // 256 + 1))[:size]
        assert session.run(["example", "cat", blob]).stdout == blob

    def test_check_raises_for_a_status_that_is_not_zero(self, session: Session) -> None:
        assert session.run(["example", "hello"], check=True).status == 0
        assert session.run(["example", "status", 3]).status == 3
        with pytest.raises(remctl.RemctlStatusError) as caught:
            session.run(["example", "status", 3], check=True)
        assert caught.value.result == (b"", b"", 3)
        assert caught.value.sent
        assert "exit status 3 (command 'example status' on localhost:" in str(caught.value)
        with pytest.raises(remctl.RemctlStatusError, match="exit status 64: example: unknown subcommand: x"):
            session.run(["example", "x"], check=True)
        assert session.run(["example", "hello"]).status == 0

    def test_a_refused_command_leaves_the_session_open(self, session: Session) -> None:
        with pytest.raises(remctl.RemctlCommandError):
            session.run(["bogus"])
        assert session.run(["example", "hello"]).status == 0

    @pytest.mark.parametrize("kind", ["remctld"], indirect=True)
    def test_a_long_help_command_which_remctld_answers_twice_ends_the_session(self, session: Session) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            session.run(["help", "a", "b", "c"])
        assert caught.value.code is ErrorCode.TOOMANY_ARGS
        with pytest.raises(remctl.RemctlNotOpenedError, match="help command of so many words twice"):
            session.run(["example", "hello"])


class TestStream:
    def test_yields_output_as_it_comes_and_the_status_last(self, session: Session) -> None:
        tokens = list(session.stream(["example", "count", 1]))
        assert {token.output for token in tokens[:-1]} == {b"line 1\n", b"counted to 1\n"}
        assert tokens[-1] == ("status", None, None, 0, None)

    def test_yields_megabytes(self, session: Session) -> None:
        tokens = list(session.stream(["example", "bytes", 5_000_000]))
        assert joined(tokens) == bytes(5_000_000)
        assert max(len(token.output or b"") for token in tokens) <= 65_529

    def test_sends_nothing_until_it_is_iterated(self, session: Session) -> None:
        session.stream(["example", "hello"])
        assert session.run(["example", "echo", "first"]).stdout == b"first\n"

    def test_checks_its_arguments_when_called(self, session: Session) -> None:
        with pytest.raises(TypeError):
            session.stream("example")
        with pytest.raises(ValueError, match="timeout"):
            session.stream(["example"], timeout=-1)

    def test_raises_an_error_token(self, session: Session) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            list(session.stream(["bogus", "word"]))
        assert caught.value.code == 5
        assert caught.value.command == "bogus word"
        assert session.error() == str(caught.value)
        assert session.run(["example", "hello"]).status == 0

    def test_what_is_left_after_a_break_can_be_read_with_output(self, session: Session) -> None:
        for token in session.stream(["example", "bytes", 10_000]):
            assert token.type is OutputType.OUTPUT
            break
        tokens = [token]
        if session_has_more := token.output != bytes(10_000):
            with pytest.raises(remctl.RemctlError, match="output left"):
                session.run(["example", "hello"])
        tokens += answer(session)
        assert joined(tokens) == bytes(10_000)
        assert session_has_more == (len(tokens) > 2)
        assert session.run(["example", "hello"]).status == 0

    def test_a_time_limit_is_for_the_whole_of_it(self, session: Session) -> None:
        begin = time.monotonic()
        total = 0
        with pytest.raises(remctl.RemctlTimeoutError, match=r"the time limit of 0\.5 s passed"):
            for token in session.stream(["example", "bytes", 10**11], timeout=0.5):
                total += len(token.output or b"")
        assert 0.5 <= time.monotonic() - begin < 0.5 + PROMPT
        assert total > 0
        assert not session.opened


class TestTimeLimit:
    def test_ends_a_command_that_says_nothing_and_the_session_says_why(self, session: Session) -> None:
        session.set_timeout(None)
        begin = time.monotonic()
        with pytest.raises(remctl.RemctlTimeoutError) as caught:
            session.run(["example", "sleep", 20], timeout=0.4)
        assert 0.4 <= time.monotonic() - begin < 0.4 + PROMPT
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert error.timeout == 0.4
        assert error.sent
        assert error.reason == "the time limit of 0.4 s passed while waiting for output"
        assert error.command == "example sleep"
        assert error.hint == "the command may still be running on the server"
        assert not session.opened
        calls: tuple[Callable[[], object], ...] = (
            session.output,
            session.noop,
            lambda: session.command(["example", "hello"]),
            lambda: session.run(["example", "hello"]),
            lambda: list(session.stream(["example", "hello"])),
            lambda: session.protocol,
        )
        for call in calls:
            with pytest.raises(remctl.RemctlNotOpenedError, match=r"the time limit of 0\.4 s passed"):
                call()

    def test_of_the_session_covers_each_call(self, face: Face, server: ServerArguments) -> None:
        with face.session(*server, timeout=0.5) as session:
            for _ in range(3):
                assert session.run(["example", "sleep", 0.2]).status == 0
            session.command(["example", "sleep", 20])
            with pytest.raises(remctl.RemctlTimeoutError):
                session.output()

    def test_zero_overrides_the_limit_of_the_session(self, face: Face, server: ServerArguments) -> None:
        with face.session(*server, timeout=0.2) as session:
            assert session.run(["example", "sleep", 0.3], timeout=0).status == 0
            assert list(session.stream(["example", "sleep", 0.3], timeout=0))[-1].status == 0

    def test_output_that_had_come_is_on_the_error(self, session: Session) -> None:
        with pytest.raises(remctl.RemctlTimeoutError) as caught:
            session.run(["example", "bytes", 10**11], timeout=0.5)
        assert caught.value.stdout == bytes(len(caught.value.stdout)) != b""

    def test_after_it_the_session_can_be_opened_again(self, session: Session, server: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlTimeoutError):
            session.run(["example", "sleep", 20], timeout=0.1)
        session.open(*server)
        assert session.run(["example", "hello"]).stdout == b"hello world\n"

    def test_covers_opening(self, face: Face, server: ServerArguments) -> None:
        calls: tuple[Callable[[int], object], ...] = (
            lambda port: face.session("127.0.0.1", port, server[2], timeout=0.3),
            lambda port: face.remctl("127.0.0.1", port, server[2], ["x"], timeout=0.3),
        )
        with SilentServer() as silent:
            for call in calls:
                begin = time.monotonic()
                with pytest.raises(remctl.RemctlTimeoutError, match="while opening the connection") as caught:
                    call(silent.port)
                assert time.monotonic() - begin < 0.3 + PROMPT
                assert not caught.value.sent
                assert (caught.value.host, caught.value.port) == ("127.0.0.1", silent.port)


class TestOpenAndClose:
    def test_close_then_open_again(self, face: Face, server: ServerArguments) -> None:
        session = face.session(*server)
        session.close()
        session.close()
        with pytest.raises(remctl.RemctlNotOpenedError, match=r"close\(\) was called"):
            session.command(["example", "hello"])
        session.set_timeout(30)
        session.open(*server)
        assert session.run(["example", "hello"]).status == 0
        session.close()

    def test_opening_again_ends_the_connection_before(self, server: ServerArguments, session: Session) -> None:
        session.command(["example", "echo", "lost"])
        session.open(*server)
        assert session.run(["example", "echo", "kept"]).stdout == b"kept\n"

    def test_a_failed_open_leaves_no_open_session(self, server: ServerArguments, session: Session) -> None:
        for _ in range(3):
            with pytest.raises(remctl.RemctlAuthenticationError):
                session.open(server[0], server[1], "host/unknown")
            assert not session.opened
            with pytest.raises(remctl.RemctlNotOpenedError, match="Kerberos"):
                session.command(["example", "hello"])
        session.open(*server)
        assert session.run(["example", "hello"]).status == 0

    def test_never_opened(self, face: Face) -> None:
        session = face.session()
        assert (session.opened, session.host, session.port) == (False, None, None)
        assert session.error() == "no error"
        calls: tuple[Callable[[], object], ...] = (
            lambda: session.command(["x"]),
            lambda: session.run(["x"]),
            lambda: list(session.stream(["x"])),
            session.output,
            session.noop,
            lambda: session.protocol,
        )
        for call in calls:
            with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
                call()
        assert session.error() == "no currently open connection"
        session.close()

    def test_context_manager_closes(self, face: Face, server: ServerArguments) -> None:
        with face.session(*server) as session:
            assert session.opened
        assert not session.opened

    def test_context_manager_closes_after_an_error(self, face: Face, server: ServerArguments) -> None:
        session = face.session(*server)
        with pytest.raises(ZeroDivisionError), session:
            session.command(["example", "sleep", 20])
            raise ZeroDivisionError
        assert not session.opened

    def test_settings_are_checked_where_they_are_made(self, face: Face) -> None:
        session = face.session()
        for value in (-1, float("nan"), "5", True, b"1"):
            with pytest.raises((TypeError, ValueError), match="timeout"):
                session.set_timeout(value)  # type: ignore[arg-type]
        for value in ("bogus", "localhost", "", "any", 5):
            with pytest.raises((TypeError, ValueError), match="source_ip"):
                session.set_source_ip(value)  # type: ignore[arg-type]
        for value in ("", 5):
            with pytest.raises((TypeError, ValueError), match="ccache"):
                session.set_ccache(value)  # type: ignore[arg-type]
        for host, port in (("", None), ("a\0b", None), (None, None), ("h", 0.5), ("h", "x"), ("h", -1), ("h", 65536)):
            with pytest.raises((TypeError, ValueError), match=r"host|port"):
                session.open(host, port)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="host must not be empty: ''"):
            face.session("")
        with pytest.raises(ValueError, match="principal"):
            session.open("localhost", principal="")
        for version in (0, 4):
            with pytest.raises(ValueError, match="min_protocol"):
                face.session(min_protocol=version)
        assert not session.opened

    def test_settings_can_be_taken_back(self, face: Face, server: ServerArguments) -> None:
        session = face.session(timeout=5, ccache="/nowhere", source_ip="192.0.2.1")
        session.set_timeout(None)
        session.set_ccache(None)
        session.set_source_ip(None)
        session.open(*server)
        assert session.run(["example", "hello"]).status == 0
        session.close()

    def test_sessions_with_different_caches_do_not_touch_each_other(
        self, face: Face, box: Sandbox, who: ServerArguments, others_cache: str
    ) -> None:
        with (
            face.session(*who, ccache=others_cache) as hers,
            face.session(*who) as ours,
            face.session(*who, ccache=others_cache) as too,
        ):
            names = [session.run(["who", "ami"]).stdout.decode() for session in (hers, ours, too)]
        assert names == [f"alice@{box.realm}\n", f"user@{box.realm}\n", f"alice@{box.realm}\n"]

    def test_source_address_is_what_the_server_sees(self, face: Face, who: ServerArguments) -> None:
        with face.session(*who, source_ip="127.0.0.9") as session:
            assert session.run(["who", "from"]).stdout == b"127.0.0.9\n"
            session.set_source_ip("127.0.0.10")
            session.open(*who)
            assert session.run(["who", "from"]).stdout == b"127.0.0.10\n"

    def test_ipv6(self, face: Face, kind: str, box: Sandbox) -> None:
        if kind == "remctld":
            remctld = box.add_server(address="::1")
            remctld.add_command("example", "ALL", "/bin/true")
            stop, port = remctld.stop, remctld.port
        else:
            ours = ServerThread(box, sock=socket.create_server(("::1", 0), family=socket.AF_INET6)).__enter__()
            stop, port = lambda: ours.__exit__(None, None, None), ours.port
        try:
            for source in (None, "::1"):
                with face.session("::1", port, box.principal, source_ip=source) as session:
                    assert session.run(["example", "status", 0]).status == 0
                    assert "::1" in repr(session)
        finally:
            stop()


class TestManners:
    def test_error_is_the_text_of_the_last_failure(self, session: Session) -> None:
        assert session.error() == "no error"
        with pytest.raises(remctl.RemctlError) as caught:
            session.run(["bogus"])
        assert session.error() == str(caught.value)
        session.run(["example", "hello"])
        assert session.error() == str(caught.value)
        session.close()
        with pytest.raises(remctl.RemctlNotOpenedError) as closed:
            session.output()
        assert session.error() == str(closed.value)

    def test_repr_says_where_and_whether(self, face: Face, server: ServerArguments) -> None:
        session = face.session()
        assert repr(session) == f"<{face.name}, never opened>"
        session.open(*server)
        assert repr(session) == f"<{face.name} localhost:{server[1]}, protocol 2>"
        assert (session.opened, session.host, session.port) == (True, *server[:2])
        session.close()
        assert repr(session) == f"<{face.name} localhost:{server[1]}, closed: close() was called>"
        assert (session.opened, session.host, session.port) == (False, *server[:2])

    def test_protocol_can_be_read_and_demanded(self, face: Face, server: ServerArguments, session: Session) -> None:
        assert session.protocol == 2
        session.noop()
        assert session.protocol == 3
        with face.session(*server, min_protocol=3) as modern:
            assert modern.protocol == 3
        assert face.remctl(*server, ["example", "hello"], min_protocol=3).stdout == b"hello world\n"

    def test_noop_goes_between_commands(self, session: Session) -> None:
        for number in range(20):
            session.noop()
            assert session.run(["example", "echo", number]).stdout == b"%d\n" % number


class TestDefaultPorts:
    @pytest.mark.parametrize("port", [4373, 4444])
    def test_are_tried_in_order(self, face: Face, box: Sandbox, port: int) -> None:
        with ServerThread(box, sock=socket.create_server(("127.0.0.3", port))):
            for default in (None, 0, "0"):
                with face.session("127.0.0.3", default, box.principal) as session:
                    assert session.port == port
            assert face.remctl("127.0.0.3", None, box.principal, ["example", "hello"]).status == 0


Failing = Callable[[Face, ServerArguments], object]


def failure(failing: Failing, face: Face, server: ServerArguments) -> remctl.RemctlError:
    """Return the error that a call raises."""
    with pytest.raises(remctl.RemctlError) as caught:
        failing(face, server)
    return caught.value


def evidence(error: remctl.RemctlError) -> dict[str, object]:
    """Return all that an error says."""
    return {"class": type(error), "text": str(error), "arguments": error.args, **vars(error)}


def session_call(call: Callable[[Session], object]) -> Failing:
    """Make a call of a session that is opened for it."""

    def failing(face: Face, server: ServerArguments) -> None:
        with face.session(*server, timeout=30) as session:
            call(session)

    return failing


def after(first: Callable[[Session], object], call: Callable[[Session], object]) -> Failing:
    """Make a call of a session after another one, which may fail."""

    def both(session: Session) -> None:
        with contextlib.suppress(remctl.RemctlError):
            first(session)
        call(session)

    return session_call(both)


class TestErrorsAreTheSameInBothFaces:
    """Every attribute and the text, with every server; where libremctl has its own words, all but these."""

    ALIKE: ClassVar[dict[str, Failing]] = {
        "refused command, one-shot": lambda face, server: face.remctl(*server, ["bogus", "word", "secret"]),
        "refused command, default principal": lambda face, server: face.remctl(*server[:2], None, ["bogus"]),
        "refused command, run": session_call(lambda session: session.run(["bogus", "word", "secret"])),
        "refused command, stream": session_call(lambda session: list(session.stream(["bogus"]))),
        "exit status": session_call(lambda session: session.run(["example", "status", 7], check=True)),
        "exit status with output": session_call(lambda session: session.run(["example", "oops"], check=True)),
        "time limit, one-shot": lambda face, server: face.remctl(*server, ["example", "sleep", 20], timeout=0.1),
        "time limit, run": session_call(lambda session: session.run(["example", "sleep", 20], timeout=0.1)),
        "time limit, stream": session_call(lambda session: list(session.stream(["example", "sleep", 20], timeout=0.1))),
        "output before any command": session_call(lambda session: session.output()),
        "command while output is left": after(
            lambda session: session.command(["example", "hello"]), lambda session: session.command(["example", "x"])
        ),
        "run while output is left": after(
            lambda session: session.command(["example", "hello"]), lambda session: session.run(["example", "x"])
        ),
        "noop while output is left": after(
            lambda session: session.command(["example", "hello"]), lambda session: session.noop()
        ),
        "after close": after(lambda session: session.close(), lambda session: session.run(["example", "x"])),
        "protocol after close": after(lambda session: session.close(), lambda session: session.protocol),
        "after a time limit": after(
            lambda session: session.run(["example", "sleep", 20], timeout=0.1), lambda session: session.noop()
        ),
        "never opened": lambda face, server: face.session().run(["example", "hello"]),
        "unknown host": lambda face, server: face.session("no-such-host.invalid"),
        "refused port": lambda face, server: face.session("127.0.0.1", 1),
        "refused default ports": lambda face, server: face.session("127.0.0.4"),
        "foreign source address": lambda face, server: face.session(*server, source_ip="192.0.2.1"),
        "source address of another family": lambda face, server: face.session("127.0.0.1", source_ip="::1"),
        "no such ticket cache": lambda face, server: face.session(*server, ccache="/nowhere/cache"),
        "no such directory of caches": lambda face, server: face.session(*server, ccache="DIR:/nowhere/caches"),
    }

    OWN_WORDS: ClassVar[dict[str, Failing]] = {
        "unknown principal": lambda face, server: face.session(*server[:2], "host/unknown"),
        "unknown principal, one-shot": lambda face, server: face.remctl(*server[:2], "host/unknown", ["x"]),
        "a name in no realm": lambda face, server: face.session(*server[:2], "host/elsewhere@NO.SUCH.REALM"),
        "empty ticket cache": lambda face, server: face.session(*server, ccache="/dev/null"),
        "no ticket in memory": lambda face, server: face.session(*server, ccache="MEMORY:nothing"),
    }

    @pytest.mark.parametrize("failing", ALIKE.values(), ids=ALIKE)
    def test_in_every_attribute(self, faces: tuple[Face, Face], server: ServerArguments, failing: Failing) -> None:
        blocking, asyncio = (evidence(failure(failing, face, server)) for face in faces)
        assert asyncio == blocking

    @pytest.mark.parametrize("failing", OWN_WORDS.values(), ids=OWN_WORDS)
    def test_in_all_but_the_words_of_the_library(
        self, faces: tuple[Face, Face], server: ServerArguments, failing: Failing
    ) -> None:
        blocking, asyncio = (evidence(failure(failing, face, server)) for face in faces)
        for name in ("text", "reason", "arguments", "code"):  # libremctl gives words alone, and no number
            del blocking[name], asyncio[name]
        assert asyncio == blocking
