"""The blocking face against a real remctld: what users call, and what comes back."""

from __future__ import annotations

import gc
import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from doubles import SilentServer

import remctl
from remctl import ErrorCode, Output, OutputType, Remctl, Stream
from remctl.testing import Sandbox, Server

ServerArguments = tuple[str, int, str]

DONE = Output(OutputType.DONE)

BAD_COMMANDS: list[object] = [
    *("example", b"example", bytearray(b"example"), None, 5, {"example"}, {"example": 1}),
    *([], iter(()), [None], [object()], [True], ["example", ["nested"]]),
]


def answer(session: Remctl) -> list[Output]:
    """Read tokens as users of the stock binding do, up to the one that ends the answer."""
    tokens = [session.output()]
    while tokens[-1].type == "output":
        tokens.append(session.output())
    return tokens


class TestOneShot:
    def test_returns_output_and_status(self, server: ServerArguments) -> None:
        result = remctl.remctl(*server, ["example", "hello"])
        assert (result.stdout, result.stderr, result.status) == (b"hello world\n", None, 0)

    def test_takes_named_arguments_and_default_principal(self, box: Sandbox) -> None:
        assert remctl.remctl(host=box.host, port=str(box.port), command=("example", "echo", "a")).stdout == b"a\n"

    def test_keeps_the_streams_apart(self, server: ServerArguments) -> None:
        result = remctl.remctl(*server, ["example", "count", 2])
        assert (result.stdout, result.stderr) == (b"line 1\nline 2\n", b"counted to 2\n")

    @pytest.mark.parametrize("status", [0, 1, 127, 128, 200, 255])
    def test_hands_on_every_exit_status_as_it_is(self, server: ServerArguments, status: int) -> None:
        assert remctl.remctl(*server, ["example", "status", status]).status == status

    def test_sends_arguments_with_nul_whole(self, server: ServerArguments) -> None:
        blob = bytes(range(256)) * 20
        assert remctl.remctl(*server, ["example", "cat", blob]).stdout == blob

    def test_sends_a_megabyte_and_gets_it_back(self, server: ServerArguments) -> None:
        blob = os.urandom(1 << 20)
        assert remctl.remctl(*server, ["example", "cat", blob], timeout=30).stdout == blob

    def test_raises_what_the_server_answers_with_its_code(self, server: ServerArguments) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            remctl.remctl(*server, ["bogus", "word", "secret"])
        error = caught.value
        assert error.code is ErrorCode.UNKNOWN_COMMAND
        assert error.reason == "Unknown command"
        assert str(error) == error.value
        assert "bogus word" in str(error)
        assert f"localhost:{server[1]}" in str(error)
        assert "secret" not in str(error)
        assert not str(error).startswith("b'")

    def test_says_that_access_was_denied(self, remctl_server: Server) -> None:
        remctl_server.add_command("private", "ALL", "/bin/true", acl="princ:nobody@SANDBOX.TEST")
        with pytest.raises(remctl.RemctlCommandError) as caught:
            remctl.remctl("localhost", remctl_server.port, None, ["private", "word"])
        assert caught.value.code is ErrorCode.ACCESS
        assert "ACL" in str(caught.value)

    def test_takes_a_source_address_and_a_ticket_cache(self, box: Sandbox, server: ServerArguments) -> None:
        result = remctl.remctl(*server, ["example", "hello"], ccache=Path(box.ccache), source_ip="127.0.0.1")
        assert result.stdout == b"hello world\n"

    def test_checks_everything_before_it_connects(self) -> None:
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
                    remctl.remctl("127.0.0.1", silent.port, **wrong)
            with pytest.raises(remctl.RemctlAuthenticationError, match="'/nowhere/cache' is not there"):
                remctl.remctl("127.0.0.1", silent.port, command=["example"], ccache="/nowhere/cache")
            assert silent.accepted == 0


class TestCommandAndOutput:
    def test_tokens_are_typed_and_end_in_done_for_ever(self, session: Remctl) -> None:
        session.command(["example", "count", "1"])
        tokens = answer(session)
        assert set(tokens[:-1]) == {
            Output(OutputType.OUTPUT, b"line 1\n", Stream.STDOUT),
            Output(OutputType.OUTPUT, b"counted to 1\n", Stream.STDERR),
        }
        assert tokens[-1] == ("status", None, None, 0, None)
        assert [session.output() for _ in range(3)] == [DONE] * 3

    def test_an_error_token_ends_the_answer_and_the_session_goes_on(self, session: Remctl) -> None:
        session.command(["bogus"])
        assert answer(session) == [("error", b"Unknown command", None, None, 5)]
        assert session.output() == DONE
        assert session.run(["example", "hello"]).stdout == b"hello world\n"

    def test_output_before_any_command_is_an_error(self, session: Remctl) -> None:
        with pytest.raises(remctl.RemctlError, match="before any command"):
            session.output()

    def test_a_second_command_must_wait_for_the_whole_answer(self, session: Remctl) -> None:
        session.command(["example", "echo", "one"])
        with pytest.raises(remctl.RemctlError, match=r"command\(\) while the previous command has output left"):
            session.command(["example", "echo", "two"])
        with pytest.raises(remctl.RemctlError, match=r"run\(\) while the previous command has output left"):
            session.run(["example", "echo", "two"])
        with pytest.raises(remctl.RemctlError, match=r"noop\(\) while the previous command has output left"):
            session.noop()
        assert [token.output for token in answer(session)] == [b"one\n", None]
        session.noop()
        assert session.run(["example", "echo", "three"]).stdout == b"three\n"

    @pytest.mark.parametrize(
        ("words", "sent"),
        [
            ((word for word in ("example", "echo", "generated")), b"generated\n"),
            (["example", "echo", b"bytes", bytearray(b"array"), memoryview(b"view")], b"bytes array view\n"),
            (["example", "echo", 1, -2, 2.5, Path("/tmp/x")], b"1 -2 2.5 /tmp/x\n"),
            (["example", "echo", "caf\u00e9", "\udcff"], b"caf\xc3\xa9 \xff\n"),
            (["example", "echo", "", "a", ""], b" a \n"),
        ],
    )
    def test_words_may_be_anything_with_an_obvious_text(
        self, session: Remctl, words: list[remctl.session.Word], sent: bytes
    ) -> None:
        session.command(words)
        assert answer(session)[0].output == sent

    @pytest.mark.parametrize("wrong", BAD_COMMANDS)
    def test_bad_commands_are_refused_and_nothing_is_sent(self, session: Remctl, wrong: object) -> None:
        with pytest.raises((TypeError, ValueError), match="command"):
            session.command(wrong)  # type: ignore[arg-type]
        assert session.run(["example", "hello"]).status == 0

    def test_protocol_limits_are_checked_before_sending(self, session: Remctl) -> None:
        with pytest.raises(ValueError, match="4097 words or more"):
            session.run(["example"] * 5000)
        with pytest.raises(ValueError, match="104857622 bytes"):
            session.run(["example", "x" * (100 * 1024 * 1024 - 1 + 8 - 4)])
        assert session.run(["example", "hello"]).status == 0


class TestRun:
    def test_collects_output_of_many_tokens(self, session: Remctl) -> None:
        result = session.run(["example", "bytes", 3_000_000])
        assert result.stdout == bytes(3_000_000)
        assert result.status == 0

    def test_check_raises_for_a_status_that_is_not_zero(self, session: Remctl) -> None:
        assert session.run(["example", "status", 3]).status == 3
        with pytest.raises(remctl.RemctlStatusError) as caught:
            session.run(["example", "status", 3], check=True)
        assert caught.value.result.status == 3
        assert "exit status 3 (command 'example status' on localhost:" in str(caught.value)
        with pytest.raises(remctl.RemctlStatusError, match="exit status 64: example: unknown subcommand: x"):
            session.run(["example", "x"], check=True)

    def test_a_refused_command_leaves_the_session_open(self, session: Remctl) -> None:
        with pytest.raises(remctl.RemctlCommandError):
            session.run(["bogus"])
        assert session.run(["example", "hello"]).status == 0

    def test_a_long_help_command_which_remctld_answers_twice_ends_the_session(self, session: Remctl) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            session.run(["help", "a", "b", "c"])
        assert caught.value.code is ErrorCode.TOOMANY_ARGS
        with pytest.raises(remctl.RemctlNotOpenedError, match="help command of so many words twice"):
            session.run(["example", "hello"])


class TestStream:
    def test_yields_output_as_it_comes_and_the_status_last(self, session: Remctl) -> None:
        tokens = list(session.stream(["example", "count", 1]))
        assert {token.output for token in tokens[:-1]} == {b"line 1\n", b"counted to 1\n"}
        assert tokens[-1].status == 0

    def test_sends_nothing_until_it_is_iterated(self, session: Remctl) -> None:
        session.stream(["example", "hello"])
        assert session.run(["example", "echo", "first"]).stdout == b"first\n"

    def test_checks_its_arguments_when_called(self, session: Remctl) -> None:
        with pytest.raises(TypeError):
            session.stream("example")
        with pytest.raises(ValueError, match="timeout"):
            session.stream(["example"], timeout=-1)

    def test_raises_an_error_token(self, session: Remctl) -> None:
        with pytest.raises(remctl.RemctlCommandError) as caught:
            list(session.stream(["bogus"]))
        assert caught.value.code == 5

    def test_what_is_left_after_a_break_can_be_read_with_output(self, session: Remctl) -> None:
        for token in session.stream(["example", "bytes", 10_000]):
            assert token.type is OutputType.OUTPUT
            break
        with pytest.raises(remctl.RemctlError, match="output left"):
            session.run(["example", "hello"])
        rest = sum(len(token.output or b"") for token in answer(session))
        assert rest + len(token.output or b"") == 10_000


class TestOpenAndClose:
    def test_close_then_open_again(self, server: ServerArguments) -> None:
        session = Remctl(*server)
        session.close()
        session.close()
        with pytest.raises(remctl.RemctlNotOpenedError, match=r"close\(\) was called"):
            session.command(["example", "hello"])
        session.set_timeout(30)
        session.open(*server)
        assert session.run(["example", "hello"]).status == 0
        session.close()

    def test_opening_again_ends_the_connection_before(self, server: ServerArguments, session: Remctl) -> None:
        session.command(["example", "echo", "lost"])
        session.open(*server)
        assert session.run(["example", "echo", "kept"]).stdout == b"kept\n"

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

    def test_never_opened(self) -> None:
        session = Remctl()
        assert (session.opened, session.host, session.port) == (False, None, None)
        assert session.error() == "no error"
        for call in (
            lambda: session.command(["x"]),
            session.output,
            session.noop,
            session.fileno,
            lambda: session.protocol,
        ):
            with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
                call()
        assert session.error() == "no currently open connection"
        session.close()

    def test_context_manager_closes(self, server: ServerArguments) -> None:
        with Remctl(*server) as session:
            assert session.opened
        assert not session.opened

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

    def test_settings_are_checked_where_they_are_made(self) -> None:
        session = Remctl()
        for value in (-1, float("nan"), "5", True, b"1"):
            with pytest.raises((TypeError, ValueError), match="timeout"):
                session.set_timeout(value)  # type: ignore[arg-type]
        for value in ("bogus", "localhost", "", "any", 5):
            with pytest.raises((TypeError, ValueError), match="source_ip"):
                session.set_source_ip(value)  # type: ignore[arg-type]
        for host, port in (("", None), ("a\0b", None), (None, None), ("h", 0.5), ("h", "x"), ("h", -1), ("h", 65536)):
            with pytest.raises((TypeError, ValueError), match=r"host|port"):
                session.open(host, port)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="host must not be empty: ''"):
            Remctl("")
        with pytest.raises(ValueError, match="principal"):
            session.open("localhost", principal="")

    def test_settings_can_be_taken_back(self, server: ServerArguments) -> None:
        session = Remctl(timeout=5, ccache="/nowhere", source_ip="192.0.2.1")
        session.set_timeout(None)
        session.set_ccache(None)
        session.set_source_ip(None)
        session.open(*server)
        assert session.run(["example", "hello"]).status == 0
        session.close()

    def test_sessions_with_different_caches_do_not_touch_each_other(self, box: Sandbox, remctl_server: Server) -> None:
        remctl_server.add_command("who", "ami", "#!/bin/sh\necho $REMOTE_USER\n")
        alice = box.kinit(box.add_principal("alice"))
        address = (remctl_server.host, remctl_server.port, remctl_server.principal)
        with Remctl(*address, ccache=alice) as hers, Remctl(*address) as ours, Remctl(*address, ccache=alice) as too:
            names = [session.run(["who", "ami"]).stdout for session in (hers, ours, too)]
        assert names == [b"alice@SANDBOX.TEST\n", b"user@SANDBOX.TEST\n", b"alice@SANDBOX.TEST\n"]

    def test_ipv6(self, box: Sandbox) -> None:
        server = box.add_server(address="::1")
        try:
            server.add_command("who", "from", "#!/bin/sh\necho $REMOTE_ADDR\n")
            for source in (None, "::1"):
                with Remctl("::1", server.port, server.principal, source_ip=source) as session:
                    assert session.run(["who", "from"]).stdout == b"::1\n"
                    assert "::1" in repr(session)
        finally:
            server.stop()

    def test_source_address_is_what_the_server_sees(self, remctl_server: Server) -> None:
        remctl_server.add_command("who", "from", "#!/bin/sh\necho $REMOTE_ADDR\n")
        with Remctl("localhost", remctl_server.port, remctl_server.principal, source_ip="127.0.0.9") as session:
            assert session.run(["who", "from"]).stdout == b"127.0.0.9\n"


class TestManners:
    def test_error_is_the_text_of_the_last_failure(self, session: Remctl) -> None:
        assert session.error() == "no error"
        with pytest.raises(remctl.RemctlError) as caught:
            session.run(["bogus"])
        assert session.error() == str(caught.value)

    def test_repr_says_where_and_whether(self, server: ServerArguments) -> None:
        session = Remctl()
        assert repr(session) == "<remctl.Remctl, never opened>"
        session.open(*server)
        assert repr(session) == f"<remctl.Remctl localhost:{server[1]}, protocol 2>"
        session.close()
        assert repr(session) == f"<remctl.Remctl localhost:{server[1]}, closed: close() was called>"

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

    def test_protocol_can_be_read_and_demanded(self, server: ServerArguments, session: Remctl) -> None:
        assert session.protocol == 2
        session.noop()
        assert session.protocol == 3
        with Remctl(*server, min_protocol=3) as modern:
            assert modern.protocol == 3
