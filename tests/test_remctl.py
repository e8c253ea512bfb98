"""The low-level interface: C's names, C's answers, and none of C's traps."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from doubles import Relay

from remctl import Output, OutputType, Stream, _remctl
from remctl._remctl import Handle
from remctl.testing import Sandbox

ServerArguments = tuple[str, int, str]


@pytest.fixture
def handle(server: ServerArguments) -> Handle:
    """Give a handle with an open connection."""
    opened = _remctl.remctl_new()
    assert _remctl.remctl_open(opened, *server) == 1
    return opened


class TestFunctions:
    def test_every_function_of_c_is_there(self) -> None:
        for name in (
            *("remctl_new", "remctl_open", "remctl_open_fd", "remctl_set_source_ip", "remctl_set_ccache"),
            *("remctl_set_timeout", "remctl_command", "remctl_commandv", "remctl_output", "remctl_noop"),
            *("remctl_error", "remctl_close", "remctl"),
        ):
            assert callable(getattr(_remctl, name))
            assert hasattr(_remctl.lib, name)
        assert _remctl.ffi.string(_remctl.lib.remctl_error(_remctl.lib.remctl_new())) == b"no error"

    def test_the_stock_import_finds_this_module(self) -> None:
        assert importlib.import_module("_remctl") is _remctl

    @pytest.mark.parametrize("send", [_remctl.remctl_command, _remctl.remctl_commandv])
    def test_a_command_and_its_tokens(self, handle: Handle, send: object) -> None:
        assert callable(send)
        assert send(handle, [b"example", b"count", b"1"]) == 1
        tokens = [_remctl.remctl_output(handle) for _ in range(4)]
        assert set(tokens[:2]) == {
            Output(OutputType.OUTPUT, b"line 1\n", Stream.STDOUT),
            Output(OutputType.OUTPUT, b"counted to 1\n", Stream.STDERR),
        }
        assert tokens[2:] == [("status", None, None, 0, None), ("done", None, None, None, None)]
        assert _remctl.remctl_noop(handle) == 1
        _remctl.remctl_close(handle)

    def test_words_are_not_cut_at_nul(self, handle: Handle) -> None:
        assert _remctl.remctl_command(handle, [b"example", b"cat", b"a\0b"]) == 1
        assert _remctl.remctl_output(handle) == ("output", b"a\0b", 1, None, None)

    def test_one_shot_returns_error_streams_and_status(self, server: ServerArguments) -> None:
        assert _remctl.remctl(*server, [b"example", b"hello"]) == (None, b"hello world\n", None, 0)
        assert _remctl.remctl(*server, [b"example", b"status", b"200"]) == (None, None, None, 200)
        error, stdout, stderr, status = _remctl.remctl(*server, [b"bogus"])
        assert error is not None
        assert error.startswith("Unknown command")
        assert (stdout, stderr, status) == (None, None, None)
        error, *_ = _remctl.remctl(server[0], server[1], "host/unknown", [b"bogus"])
        assert error is not None
        assert "not found in Kerberos database" in error
        assert _remctl.remctl(*server, [])[0] == "command must not be empty: []"

    def test_failures_are_zero_and_a_text(self, handle: Handle, server: ServerArguments) -> None:
        fresh = _remctl.remctl_new()
        assert _remctl.remctl_error(fresh) == "no error"
        for answer in (
            _remctl.remctl_open(fresh, server[0], server[1], "host/unknown"),
            _remctl.remctl_open(fresh, server[0], 70000),
            _remctl.remctl_set_timeout(fresh, -1),
            _remctl.remctl_set_source_ip(fresh, "bogus"),
            _remctl.remctl_set_ccache(fresh, ""),
            _remctl.remctl_commandv(fresh, [b"x"]),
            _remctl.remctl_commandv(handle, []),
            _remctl.remctl_noop(fresh),
        ):
            assert answer == 0
        assert _remctl.remctl_output(fresh) == ()
        assert _remctl.remctl_error(fresh).startswith("no currently open connection: authentication failed")

    def test_settings_hold(self, box: Sandbox, server: ServerArguments) -> None:
        handle = _remctl.remctl_new()
        assert _remctl.remctl_set_timeout(handle, 1) == 1
        assert _remctl.remctl_set_source_ip(handle, "127.0.0.1") == 1
        assert _remctl.remctl_set_ccache(handle, box.ccache) == 1
        assert _remctl.remctl_open(handle, *server) == 1
        assert _remctl.remctl_commandv(handle, [b"example", b"sleep", b"20"]) == 1
        assert _remctl.remctl_output(handle) == ()
        assert "time limit of 1 s" in _remctl.remctl_error(handle)
        assert _remctl.remctl_set_ccache(handle, "/nowhere") == 1
        assert _remctl.remctl_open(handle, *server) == 0
        assert "'/nowhere' is not there" in _remctl.remctl_error(handle)

    def test_one_handle_opens_again_and_again(self, handle: Handle, server: ServerArguments) -> None:
        for _ in range(3):
            assert _remctl.remctl_open(handle, *server) == 1
            assert _remctl.remctl_commandv(handle, [b"example", b"status", b"3"]) == 1
            assert _remctl.remctl_output(handle) == ("status", None, None, 3, None)


class TestOpenFd:
    def test_takes_a_connected_socket(self, server: ServerArguments) -> None:
        sock = socket.create_connection(server[:2], timeout=5)  # with a timeout, a Python socket does not block
        handle = _remctl.remctl_new()
        assert _remctl.remctl_open_fd(handle, server[0], sock.detach(), server[2]) == 1
        assert _remctl.remctl_commandv(handle, [b"example", b"hello"]) == 1
        assert _remctl.remctl_output(handle) == ("output", b"hello world\n", 1, None, None)
        _remctl.remctl_close(handle)

    def test_takes_a_socket_pair_with_the_server_behind_it(self, box: Sandbox, server: ServerArguments) -> None:
        ours, theirs = socket.socketpair()
        with Relay(box.port) as relay, theirs:
            relay._spawn(relay.serve, theirs)
            handle = _remctl.remctl_new()
            assert _remctl.remctl_open_fd(handle, server[0], ours.detach(), None) == 1
            assert _remctl.remctl_commandv(handle, [b"example", b"bytes", b"500000"]) == 1
            size = 0
            while (token := _remctl.remctl_output(handle)) and token.type == "output":
                size += len(token.output or b"")
            assert size == 500_000
            _remctl.remctl_close(handle)

    def test_refuses_what_is_no_socket(self, server: ServerArguments) -> None:
        handle = _remctl.remctl_new()
        descriptor = os.open("/dev/null", os.O_RDONLY)
        assert _remctl.remctl_open_fd(handle, server[0], descriptor, server[2]) == 0
        assert "socket" in _remctl.remctl_error(handle)
        os.close(descriptor)


class TestMisuse:
    @pytest.mark.parametrize("command", [(b"example",), ["example"], b"example", None, [None]])
    def test_commands_are_lists_of_bytes(self, handle: Handle, command: object) -> None:
        for call in (_remctl.remctl_command, _remctl.remctl_commandv):
            with pytest.raises(TypeError, match="list of bytes"):
                call(handle, command)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="list of bytes"):
            _remctl.remctl("localhost", 1, None, command)  # type: ignore[arg-type]

    def test_a_handle_is_not_used_after_it_was_freed_nor_freed_twice(
        self, handle: Handle, server: ServerArguments
    ) -> None:
        _remctl.remctl_close(handle)
        _remctl.remctl_close(handle)
        calls: list[Callable[[], object]] = [
            lambda: _remctl.remctl_open(handle, *server),
            lambda: _remctl.remctl_commandv(handle, [b"x"]),
            lambda: _remctl.remctl_output(handle),
            lambda: _remctl.remctl_noop(handle),
            lambda: _remctl.remctl_error(handle),
            lambda: _remctl.remctl_set_timeout(handle, 1),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="freed"):
                call()

    def test_other_objects_are_no_handles(self) -> None:
        for wrong in (None, 1, object(), _remctl.ffi.NULL):
            with pytest.raises(TypeError, match=r"remctl_new\(\)"):
                _remctl.remctl_output(wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"remctl_new\(\)"):
                _remctl.remctl_close(wrong)  # type: ignore[arg-type]

    def test_arguments_of_the_wrong_type_raise(self) -> None:
        handle = _remctl.remctl_new()
        calls: list[Callable[[], object]] = [
            lambda: _remctl.remctl_open(handle, 5),  # type: ignore[arg-type]
            lambda: _remctl.remctl_open(handle, "h", "x"),  # type: ignore[arg-type]
            lambda: _remctl.remctl_open(handle, "h", 1, 5),  # type: ignore[arg-type]
            lambda: _remctl.remctl_open_fd(handle, "h", "x"),  # type: ignore[arg-type]
            lambda: _remctl.remctl_set_timeout(handle, "5"),  # type: ignore[arg-type]
            lambda: _remctl.remctl_set_source_ip(handle, 5),  # type: ignore[arg-type]
            lambda: _remctl.remctl_set_ccache(handle, 5),  # type: ignore[arg-type]
        ]
        for call in calls:
            with pytest.raises(TypeError):
                call()


STOCK_PROGRAM = """
    import sys
    import remctl
    host, port, principal = sys.argv[1], sys.argv[2], sys.argv[3]

    print(remctl.VERSION != "")
    result = remctl.remctl(host, port, principal, ("example", "count", "2"))
    print(result.stdout, result.stderr, result.status)
    result = remctl.remctl(host=host, port=int(port), command=iter(["example", "status", "5"]))
    print(result.stdout, result.stderr, result.status)

    r = remctl.Remctl()
    r.set_timeout(timeout=10)
    r.set_source_ip(source="127.0.0.1")
    r.open(host, port, principal)
    print(r.opened, r.error())
    for command in (["example", "hello"], [b"example", b"echo", b"a b"], ["example", "status", "7"], ["bogus"]):
        r.command(command)
        while True:
            output = r.output()
            kind, data, stream, status, error = output
            print(kind, data)
            if kind == "output":
                print(int(stream) == 1)
            elif kind == "status":
                print(status)
                break
            elif kind == "error":
                print(int(error))
                break
        print(r.output()[0])
    r.noop()
    r.close()
    for call in (lambda: r.command(["x"]), lambda: r.output()):
        try:
            call()
        except remctl.RemctlNotOpenedError as e:
            print(str(e).startswith("no currently open connection"))
    for call in (
        lambda: remctl.remctl(host, "foo", principal, ["test"]),
        lambda: remctl.remctl(host, -1, principal, ["test"]),
        lambda: remctl.remctl(host, 65536, principal, ["test"]),
        lambda: remctl.remctl(host, port, principal, "test"),
        lambda: remctl.remctl(host, port, principal, []),
        lambda: remctl.remctl(host, port, "host/unknown", ["test"]),
        lambda: remctl.remctl(host, port, principal, ["bogus"]),
        lambda: remctl.Remctl(host, 1),
    ):
        try:
            call()
            print("nothing raised")
        except (TypeError, ValueError) as e:
            print(type(e).__name__)
        except remctl.RemctlProtocolError as e:
            print("RemctlError", "Unknown command" in str(e), "not found in Kerberos" in str(e))
        except remctl.RemctlError as e:
            print("RemctlError", "Unknown command" in str(e), "not found in Kerberos" in str(e))
"""


def test_a_program_for_the_stock_binding_runs_unchanged(box: Sandbox) -> None:
    arguments = [box.host, str(box.port), box.principal]
    outputs = []
    for interpreter in ("/usr/bin/python3", sys.executable):
        process = subprocess.run(
            [interpreter, "-P", "-c", textwrap.dedent(STOCK_PROGRAM), *arguments],
            capture_output=True,
            text=True,
            env=box.env,
        )
        assert process.returncode == 0, process.stderr
        outputs.append(process.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].endswith("RemctlError False False\n")
