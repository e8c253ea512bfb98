"""A backend in a server in the program: what runs where, and who may run it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final

import pytest
from rawclient import RawClient, error, output, status

from aio.backends import HELLO, QUICK, Serve, Waiting, WithBackend
from aio.test_server_v1 import OldClient, result
from remctl import ErrorCode, Remctl, RemctlCommandError, Stream, acl
from remctl.acl import Acl
from remctl.backend import SECRET, STDIN, Backend, CommandError, Context, ExitStatus, OutputLostError

LARGE: Final = b"x" * (1 << 20)

DENIED: Final = [error(ErrorCode.ACCESS, "Access denied")]


class TestWhere(WithBackend):
    def test_a_blocking_function_runs_on_a_thread_and_a_coroutine_in_the_loop(
        self, backend: Backend, serve: Serve
    ) -> None:
        found: dict[str, int] = {}

        @backend.command
        def blocking() -> None:
            found["blocking"] = threading.get_ident()

        @backend.command
        async def coroutine() -> None:
            found["coroutine"] = threading.get_ident()

        @backend.command
        async def generator() -> AsyncIterator[str]:
            found["generator"] = threading.get_ident()
            yield ""

        server = serve()
        with RawClient(server.port) as client:
            for name in (b"blocking", b"coroutine", b"generator"):
                client.run(b"test", name)

        async def ident() -> int:
            return threading.get_ident()

        loop = server.call(ident())
        assert found["coroutine"] == found["generator"] == loop != found["blocking"]

    def test_blocking_functions_run_side_by_side_and_hold_up_nobody(
        self, backend: Backend, serve: Serve, waiting: Waiting
    ) -> None:
        @backend.command
        def wait() -> str:
            waiting.wait()
            return "waited\n"

        server = serve()
        clients = [RawClient(server.port) for _ in range(8)]
        for client in clients:
            client.command(b"test", b"wait")
        assert waiting.came(8)
        with Remctl("localhost", server.port, "host/localhost@SANDBOX.TEST") as session:
            session.noop()
            assert session.run(["test", "hello"]).stdout == b"hello\n"
            assert session.run(["test", "quick"]).stdout == b"quick\n"
        waiting.open()
        for client in clients:
            assert client.answer() == [output(b"waited\n"), status(0)]
            client.close()

    def test_no_more_of_them_run_at_the_same_time_than_the_backend_says(self, serving: Serve, waiting: Waiting) -> None:
        backend = Backend("test", threads=2)
        running, most = 0, 0
        lock = threading.Lock()

        @backend.command
        def wait() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            waiting.wait()
            with lock:
                running -= 1

        @backend.command
        async def quick() -> str:
            return "quick\n"

        server = serving(backend)
        clients = [RawClient(server.port) for _ in range(5)]
        for client in clients:
            client.command(b"test", b"wait")
        assert waiting.came(2)
        with RawClient(server.port) as other:
            assert other.run(b"test", b"quick") == QUICK
        waiting.open()
        for client in clients:
            assert client.answer() == [status(0)]
            client.close()
        assert most == 2

    def test_one_that_waits_for_its_turn_is_not_begun_for_a_client_that_has_gone(
        self, serving: Serve, waiting: Waiting
    ) -> None:
        backend = Backend("test", threads=1)
        begun = []

        @backend.command
        def wait(name: str) -> None:
            begun.append(name)
            waiting.wait()

        server = serving(backend)
        with RawClient(server.port) as first, RawClient(server.port) as last:
            first.command(b"test", b"wait", b"first")
            assert waiting.came()
            with RawClient(server.port) as second:
                second.command(b"test", b"wait", b"second")
                server.until(lambda server: server.connections == 3)
            server.until(lambda server: server.connections == 2)
            last.command(b"test", b"wait", b"last")
            waiting.open()
            assert first.answer() == last.answer() == [status(0)]
        assert begun == ["first", "last"]


class TestAccess(WithBackend):
    def test_is_decided_off_the_loop(self, backend: Backend, serve: Serve, tmp_path: Path) -> None:
        fifo = tmp_path / "acl"
        os.mkfifo(fifo)

        @backend.command(acl=str(fifo))
        def guarded() -> str:
            return "let in\n"

        server = serve()
        with RawClient(server.port) as client, RawClient(server.port) as other:
            client.command(b"test", b"guarded")
            for _ in range(3):
                assert other.run(b"test", b"hello") == HELLO
                assert other.run(b"test", b"quick") == QUICK
            fifo.write_text("user@SANDBOX.TEST\n")  # which waits for its reader
            assert client.answer() == [output(b"let in\n"), status(0)]

    def test_is_refused_by_the_backend_or_by_the_server(self, backend: Backend, serve: Serve) -> None:
        @backend.command(acl="princ:other@SANDBOX.TEST")
        def guarded() -> None: ...

        with RawClient(serve(acl=Acl("princ:user@SANDBOX.TEST")).port) as client:
            assert client.run(b"test", b"guarded") == DENIED
            assert client.run(b"test", b"hello") == HELLO
        with RawClient(serve(acl=Acl("princ:other@SANDBOX.TEST")).port) as client:
            assert client.run(b"test", b"hello") == DENIED
            assert client.run(b"test", b"help") == DENIED

    def test_of_those_without_a_name_has_to_be_said(
        self, backend: Backend, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @backend.command(acl="anyuser:anonymous")
        def public() -> str:
            return "for all\n"

        @backend.command(acl="ANYUSER")
        def members() -> None: ...

        monkeypatch.setattr(acl, "ANONYMOUS", "user@")  # whose tickets a KDC gives out is not ours to test
        with RawClient(serve().port) as client:
            assert client.run(b"test", b"public") == [output(b"for all\n"), status(0)]
            assert client.run(b"test", b"members") == DENIED
            assert client.run(b"test", b"hello") == DENIED
            assert client.run(b"test", b"quick") == DENIED
            assert client.run(b"test", b"help") == [output(b"test public  \n".rstrip() + b"\n"), status(0)]

    def test_by_a_file_that_is_not_there_is_refused_and_logged(
        self, backend: Backend, serve: Serve, logged: pytest.LogCaptureFixture
    ) -> None:
        @backend.command(acl="/nowhere/acl")
        def guarded() -> None: ...

        with RawClient(serve().port) as client:
            assert client.run(b"test", b"guarded") == DENIED
        assert "'user@SANDBOX.TEST' is refused: ACL entry /nowhere/acl" in logged.text


class TestErrors(WithBackend):
    @pytest.mark.parametrize("kind", ["blocking", "coroutine"])
    @pytest.mark.parametrize(
        "failure",
        [
            KeyError("inside"),
            RemctlCommandError("inside", code=ErrorCode.ACCESS, command="secret"),
            StopIteration("inside"),
            TimeoutError("inside"),
            asyncio.CancelledError("inside"),
        ],
        ids=lambda failure: type(failure).__name__,
    )
    def test_that_nobody_expects_are_internal_and_the_session_goes_on(
        self,
        backend: Backend,
        serve: Serve,
        logged: pytest.LogCaptureFixture,
        kind: str,
        failure: BaseException,
    ) -> None:
        @backend.command
        def blocking() -> None:
            raise failure

        @backend.command
        async def coroutine() -> None:
            raise failure

        with RawClient(serve().port) as client:
            said = f"test {kind}: internal error\n".encode()
            assert client.run(b"test", kind.encode()) == [output(said, 2), status(ExitStatus.INTERNAL)]
            assert client.run(b"test", b"hello") == HELLO
        assert f"command 'test {kind}' of user@SANDBOX.TEST failed" in logged.text
        assert "Traceback" in logged.text
        assert "inside" in logged.text

    def test_of_a_function_that_has_written_come_after_its_output(self, backend: Backend, serve: Serve) -> None:
        @backend.command
        def fail(context: Context) -> None:
            context.write("first\n")
            raise CommandError("no more", status=3)

        @backend.command
        async def later(context: Context) -> None:
            context.write(LARGE)
            raise CommandError("no more", status=3)

        with Remctl("localhost", serve().port, "host/localhost@SANDBOX.TEST") as session:
            assert session.run(["test", "fail"]) == (b"first\n", b"test fail: no more\n", 3)
            assert session.run(["test", "later"]) == (LARGE, b"test later: no more\n", 3)

    @pytest.mark.parametrize("kind", ["blocking", "coroutine"])
    def test_that_would_end_a_program_do_not_end_the_server(self, backend: Backend, serve: Serve, kind: str) -> None:
        @backend.command
        def blocking(status: int) -> None:
            sys.exit(status)

        @backend.command
        async def coroutine(status: int) -> None:
            sys.exit(status)

        with RawClient(serve().port) as client:
            assert client.run(b"test", kind.encode(), b"5") == [status(5)]
            said = f"test {kind}: internal error\n".encode()
            assert client.run(b"test", kind.encode(), b"300") == [output(said, 2), status(ExitStatus.INTERNAL)]
            assert client.run(b"test", b"hello") == HELLO

    def test_of_a_task_that_outlives_its_command_are_about_lost_output(self, backend: Backend, serve: Serve) -> None:
        tasks: list[asyncio.Task[None]] = []

        @backend.command
        async def leave(context: Context, size: int) -> None:
            async def late() -> None:
                await asyncio.sleep(0.01)
                context.write(bytes(size))
                await context.drain()

            tasks.append(asyncio.create_task(late()))

        server = serve()
        with RawClient(server.port) as client:
            for size in (b"1", b"1000000"):
                assert client.run(b"test", b"leave", size) == [status(0)]
            assert client.run(b"test", b"hello") == HELLO
        server.until(lambda _: all(task.done() for task in tasks))
        assert [type(task.exception()) for task in tasks] == [OutputLostError] * 2

    def test_of_usage_come_from_the_backend(self, serve: Serve) -> None:
        with RawClient(serve().port) as client:
            said = b"test bogus: unknown command; try help\n"
            assert client.run(b"test", b"bogus") == [output(said, 2), status(ExitStatus.USAGE)]
            assert client.run(b"other") == [output(b"other: unknown command; try help\n", 2), status(64)]


class TestLog(WithBackend):
    def test_keeps_secrets_at_any_place(self, backend: Backend, serve: Serve, logged: pytest.LogCaptureFixture) -> None:
        @backend.command
        def tail(name: str, *secrets: Annotated[str, SECRET], data: Annotated[bytes, STDIN]) -> None: ...

        @backend.command
        def options(name: str, *, secret: Annotated[str, SECRET] = "") -> None: ...

        with RawClient(serve().port) as client:
            assert client.run(b"test", b"tail", b"name", b"swordfish", b"swordfish", b"data") == [status(0)]
            assert client.run(b"test", b"options", b"--secret=swordfish", b"name") == [status(0)]
            client.run(b"test", b"options", b"--sceret=swordfish", b"name")
            client.run(b"test", b"options", b"--secret", b"swordfish")
            client.run(b"test", b"tial", b"name", b"swordfish")
        assert logged.text.count("command 'test ") == 5
        assert "swordfish" not in logged.text


class TestOldClients(WithBackend):
    def test_get_what_fits_a_result(self, backend: Backend, serve: Serve) -> None:
        @backend.command
        def streams(context: Context) -> int:
            context.write("out\n")
            context.write("err\n", Stream.STDERR)
            return 7

        server = serve(allow_v1=True)
        for words, expected in (
            ((b"test", b"streams"), result(7, b"out\nerr\n")),
            ((b"test", b"quick"), result(0, b"quick\n")),
            ((b"test", b"bogus"), result(64, b"test bogus: unknown command; try help\n")),
        ):
            with OldClient(server.port) as client:
                client.ask(*words)
                assert client.verified(*words)
                assert client.result() == expected
