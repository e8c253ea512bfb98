"""Who may use a session and when: cancellation, time limits, tasks that share it, its end, forked children."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from doubles import Peer, Relay, ScriptedServer, SilentServer
from serving import Gate, ServerThread

import remctl
from aio.running import CancelledAt, asynchronous, descriptors, until
from remctl import Output, OutputType
from remctl.aio import Remctl, Request
from remctl.testing import Sandbox

ServerArguments = tuple[str, int, str]
Scripted = Callable[..., ScriptedServer]
Serving = Callable[..., ServerThread]
Call = Callable[[Remctl], Coroutine[Any, Any, object]]

PROMPT = 0.5
"""Seconds by which a call may outlive its time limit, its cancellation, or a `close`."""


async def rest(session: Remctl) -> bytes:
    """Read what is left of an answer."""
    text = b""
    while (token := await session.output()).type is OutputType.OUTPUT:
        text += token.output or b""
    return text


async def streamed(session: Remctl, *words: str | int) -> bytes:
    return b"".join([token.output or b"" async for token in session.stream(words)])


def busy(session: Remctl) -> bool:
    """Whether a call is under way."""
    connection = session._handle.connection
    return connection is not None and connection._lock.locked()


async def check(session: Remctl, server: ServerArguments, why: str) -> None:
    """Check that a session gives the right answers, or is closed and says why; open it in that case."""
    if session.opened:
        if session._handle.opened().pending:
            await asyncio.ensure_future(rest(session))  # in a task that may read others' answers
    else:
        with pytest.raises(remctl.RemctlNotOpenedError, match=why):
            await session.run(["example", "hello"])
        await session.open(*server)
    marker = os.urandom(8).hex()
    assert (await session.run(["example", "echo", marker])).stdout.decode() == f"{marker}\n"


def drop(held: list[Remctl]) -> None:
    """Let go of sessions for good."""
    held.clear()
    gc.collect()


CALLS: dict[str, Call] = {
    "run": lambda session: session.run(["example", "echo", "wrong"]),
    "run with much output": lambda session: session.run(["example", "bytes", 2_000_000]),
    "run with much input": lambda session: session.run(["example", "cat", bytes(2_000_000)]),
    "command": lambda session: session.command(["example", "echo", "wrong"]),
    "command with much input": lambda session: session.command(["example", "cat", bytes(2_000_000)]),
    "stream": lambda session: streamed(session, "example", "bytes", 2_000_000),
    "noop": lambda session: session.noop(),
    "open": lambda session: session.open(session.host or "", session.port),
}


class TestCancelling:
    @pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
    @asynchronous
    async def test_at_each_wait_leaves_right_answers_or_a_closed_session(
        self, call: Call, server: ServerArguments
    ) -> None:
        async with Remctl(*server, timeout=20) as session:
            for number in itertools.count(1):
                task = asyncio.ensure_future(CancelledAt(call(session), number))
                await asyncio.wait([task])
                if not task.cancelled():
                    await task
                    break
                await check(session, server, r"cancelled while|open\(\) was called again")
                if number > 40:
                    break
            assert number > 1 or call is CALLS["command"]

    @asynchronous
    async def test_output_loses_nothing(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            await session.command(["example", "bytes", 1_000_000])
            total = cancelled = 0
            while True:
                task = asyncio.ensure_future(CancelledAt(session.output(), 1))
                await asyncio.wait([task])
                if task.cancelled():
                    cancelled += 1
                    assert session.opened
                    await asyncio.sleep(0.001)
                elif (token := task.result()).type is OutputType.OUTPUT:
                    total += len(token.output or b"")
                else:
                    break
            assert cancelled > 0
            assert token.status == 0
            assert total == 1_000_000
            assert (await session.run(["example", "hello"])).status == 0

    @asynchronous
    async def test_a_wait_for_output_in_the_middle_of_a_token_loses_nothing(
        self, relay: Relay, server: ServerArguments
    ) -> None:
        async with Remctl("localhost", relay.port, server[2], timeout=20) as session:
            seen = threading.Event()
            late = b""

            def half(data: bytes) -> bytes:
                nonlocal late
                late = data[20:]
                seen.set()
                return data[:20]

            relay.down = half
            await session.command(["example", "sleep", 0])
            waiting = asyncio.ensure_future(session.output())
            await until(seen.is_set)
            await until(lambda: session._handle.opened()._core.buffered)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            relay.down = lambda data: data
            relay._open[0].sendall(late)
            assert (await session.output()).status == 0
            assert (await session.run(["example", "hello"])).status == 0

    @pytest.mark.parametrize("name", ["run", "command", "noop", "stream"])
    @asynchronous
    async def test_a_wait_for_the_turn_disturbs_nothing(self, name: str, serving: Serving, box: Sandbox) -> None:
        gate = Gate()
        server = serving(gate)
        async with Remctl("localhost", server.port, box.principal) as session:
            holder = asyncio.ensure_future(session.run(["hold"]))
            await until(gate.begun.is_set)
            waiting = asyncio.ensure_future(CALLS[name](session))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            gate.open(server)
            assert (await holder).status == Gate.STATUS
            assert (await session.run(["again"])).status == Gate.STATUS

    @asynchronous
    async def test_open_at_each_stage_closes_the_connection(self, scripted: Scripted, server: ServerArguments) -> None:
        reached = threading.Event()

        def after_first_token(peer: Peer) -> None:
            peer.receive_token()
            peer.receive_token()
            reached.set()

        def in_the_answer(peer: Peer) -> None:
            peer.socket.sendall(b"\x42\0\0\0\x64" + bytes(50))
            reached.set()

        def after_the_handshake(peer: Peer) -> None:
            peer.authenticate()
            peer.receive_token()  # the NOOP of min_protocol
            reached.set()

        before = descriptors()
        for script in (lambda peer: reached.set(), after_first_token, in_the_answer, after_the_handshake):
            reached.clear()
            peer = ScriptedServer(script, authenticate=False)
            with peer:
                session = Remctl(min_protocol=3)
                opening = asyncio.ensure_future(session.open("localhost", peer.port, server[2]))
                await until(reached.is_set)
                opening.cancel()
                await asyncio.wait([opening])
                assert opening.cancelled()
                await check(session, server, "cancelled while opening the connection")
                await session.close()
        assert descriptors() <= before

    @asynchronous
    async def test_the_one_shot_call_closes_its_connection(self, serving: Serving, box: Sandbox) -> None:
        gate = Gate()
        server = serving(gate)
        call = asyncio.ensure_future(remctl.aio.remctl("localhost", server.port, box.principal, ["hold"]))
        await until(gate.begun.is_set)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await until(gate.cancelled.is_set)

    @asynchronous
    async def test_close_ends_the_session_all_the_same(self, server: ServerArguments) -> None:
        session = Remctl(*server)
        await session.open(*server)
        closing = asyncio.ensure_future(CancelledAt(session.close(), 1))
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert not session.opened
        await session.close()


class TestTimeLimit:
    @pytest.mark.parametrize("name", [name for name in CALLS if name != "open"])
    @asynchronous
    async def test_of_any_length_leaves_right_answers_or_a_closed_session(
        self, name: str, server: ServerArguments
    ) -> None:
        async with Remctl(*server) as session:
            passed = 0
            for number in range(12):
                session.set_timeout(0.0003 * 1.6**number)
                try:
                    await CALLS[name](session)
                except remctl.RemctlTimeoutError:
                    passed += 1
                session.set_timeout(20)
                await check(session, server, "the time limit of .* s passed while")
            if name not in ("command", "noop"):
                assert passed > 0

    @asynchronous
    async def test_covers_the_wait_for_the_turn_and_disturbs_nobody(self, serving: Serving, box: Sandbox) -> None:
        gate = Gate()
        server = serving(gate)
        async with Remctl("localhost", server.port, box.principal) as session:
            holder = asyncio.ensure_future(session.run(["hold"]))
            await until(gate.begun.is_set)
            with pytest.raises(remctl.RemctlTimeoutError, match="another task used the session"):
                await session.run(["mine"], timeout=0.1)
            gate.open(server)
            assert (await holder).status == Gate.STATUS
            assert (await session.run(["again"])).status == Gate.STATUS

    @asynchronous
    async def test_covers_the_wait_for_the_turn_of_a_task_that_has_just_had_one(
        self, serving: Serving, box: Sandbox
    ) -> None:
        gate = Gate()

        async def answer(request: Request) -> int:
            return await gate(request) if request.command[0] == b"long" else 0

        server = serving(answer)
        async with Remctl("localhost", server.port, box.principal) as session:

            async def twice() -> None:
                await session.run(["short"])
                await session.run(["short"], timeout=0.2)

            begin = asyncio.get_running_loop().time()
            first = asyncio.ensure_future(twice())
            await asyncio.sleep(0)
            assert busy(session)
            second = asyncio.ensure_future(session.run(["long"]))
            await asyncio.wait([first], timeout=5)
            gate.open(server)
            assert (await second).status == Gate.STATUS
            with pytest.raises(remctl.RemctlTimeoutError, match="another task used the session"):
                await first
            assert asyncio.get_running_loop().time() - begin < 0.2 + 2 * PROMPT

    @asynchronous
    async def test_passed_while_waiting_for_the_turn_tells_of_no_other_command(
        self, serving: Serving, box: Sandbox
    ) -> None:
        gate = Gate()
        async with Remctl("localhost", serving(gate).port, box.principal) as session:
            holder = asyncio.ensure_future(session.run(["another", "one"]))
            await until(gate.begun.is_set)
            with pytest.raises(remctl.RemctlTimeoutError) as caught:
                await session.run(["mine"], timeout=0.1)
            assert not caught.value.sent
            assert caught.value.hint is None
            assert caught.value.command in (None, "mine")
            holder.cancel()
            await asyncio.wait([holder])

    @asynchronous
    async def test_is_told_from_one_of_the_callers_own(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await session.run(["example", "sleep", 20])
            assert not isinstance(caught.value, remctl.RemctlError)
            await check(session, server, "cancelled while waiting for output")


class TestClosing:
    @pytest.mark.parametrize("name", ["run", "noop", "output", "stream", "turn", "run with much input"])
    @asynchronous
    async def test_from_another_task_ends_a_call(self, name: str, relay: Relay, server: ServerArguments) -> None:
        session = Remctl("localhost", relay.port, server[2])
        await session.open("localhost", relay.port, server[2])
        calls: dict[str, Call] = {
            **CALLS,
            "output": lambda session: session.output(),
            "turn": lambda session: session.noop(),
        }
        if name in ("output", "turn"):
            await session.command(["example", "sleep", 20])
        relay.hold()
        holder = asyncio.ensure_future(session.output()) if name == "turn" else None
        call = asyncio.ensure_future(calls[name](session))
        await until(lambda: busy(session))
        begin = asyncio.get_running_loop().time()
        await session.close()
        with pytest.raises(remctl.RemctlNotOpenedError, match=r"it was closed while|close\(\) was called"):
            await call
        if holder is not None:
            with pytest.raises(remctl.RemctlNotOpenedError, match="it was closed while waiting for output"):
                await holder
        assert asyncio.get_running_loop().time() - begin < PROMPT
        with pytest.raises(remctl.RemctlNotOpenedError):
            await session.run(["example", "hello"])

    @asynchronous
    async def test_tells_every_call_that_it_ends_the_same(self, relay: Relay, server: ServerArguments) -> None:
        async with Remctl("localhost", relay.port, server[2]) as session:
            await session.command(["example", "sleep", "60"])
            calls = [asyncio.ensure_future(session.output()) for _ in range(2)]
            await asyncio.sleep(0)
            await session.close()
            await asyncio.wait(calls)
            texts = {str(call.exception()).partition(" (")[0] for call in calls}
        assert texts == {"no currently open connection: it was closed while waiting for output"}

    @asynchronous
    async def test_from_another_task_ends_an_open(self, server: ServerArguments) -> None:
        session = Remctl()
        with SilentServer() as silent:
            opening = asyncio.ensure_future(session.open("127.0.0.1", silent.port, server[2]))
            await until(lambda: silent.accepted)
            await session.close()
            with pytest.raises(remctl.RemctlNotOpenedError, match="it was closed while opening the connection"):
                await opening
        await session.open(*server)
        assert (await session.run(["example", "hello"])).status == 0
        await session.close()

    @asynchronous
    async def test_by_several_tasks_is_harmless(self, server: ServerArguments) -> None:
        session = Remctl()
        await session.open(*server)
        call = asyncio.ensure_future(session.run(["example", "sleep", 20]))
        await until(lambda: busy(session))
        await asyncio.gather(*(session.close() for _ in range(5)))
        with pytest.raises(remctl.RemctlNotOpenedError):
            await call

    @asynchronous
    async def test_opening_from_several_tasks_leaves_one_connection(self, serving: Serving, box: Sandbox) -> None:
        server = serving()
        address = ("localhost", server.port, box.principal)
        async with Remctl(*address) as session:
            outcomes = await asyncio.gather(*(session.open(*address) for _ in range(4)), return_exceptions=True)
            gc.collect()
            assert all(outcome is None or isinstance(outcome, remctl.RemctlNotOpenedError) for outcome in outcomes)
            assert outcomes.count(None) > 0
            assert (await session.run(["example", "hello"])).status == 0
            await until(lambda: server.server.connections == 1)

    @asynchronous
    async def test_says_farewell_when_the_two_sides_are_in_step(
        self, scripted: Scripted, server: ServerArguments
    ) -> None:
        heard: list[bytes] = []
        ended = threading.Event()

        def listen(peer: Peer) -> None:
            try:
                while True:
                    heard.append(peer.receive())
            except ConnectionResetError:
                ended.set()

        async with Remctl("localhost", scripted(listen).port, server[2]):
            pass
        await until(ended.is_set)
        assert heard == [b"\2\2"]

    @asynchronous
    async def test_a_session_dropped_without_it_warns_and_closes_the_connection(
        self, serving: Serving, box: Sandbox
    ) -> None:
        server = serving()
        held = [Remctl()]
        await held[0].open("localhost", server.port, box.principal)
        await held[0].command(["example", "sleep", 20])
        with pytest.warns(ResourceWarning, match="a session with localhost was not closed"):
            drop(held)
        await until(lambda: server.server.connections == 0)

    def test_a_session_that_outlives_its_loop_warns_and_closes_the_connection(
        self, serving: Serving, box: Sandbox
    ) -> None:
        async def open_one() -> Remctl:
            session = Remctl()
            await session.open("localhost", server.port, box.principal)
            return session

        server = serving()
        held = [asyncio.run(open_one())]
        with pytest.warns(ResourceWarning, match="a session with localhost was not closed"):
            drop(held)
        with pytest.warns(ResourceWarning, match="unclosed"):  # asyncio's own
            gc.collect()
        server.until(lambda server: server.connections == 0)


class TestSharing:
    @asynchronous
    async def test_run_takes_turns_and_gives_each_task_its_own_answer(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:

            async def ask(number: int) -> None:
                for turn in range(10):
                    result = await session.run(["example", "echo", number, turn])
                    assert result.stdout == b"%d %d\n" % (number, turn)

            await asyncio.gather(*(ask(number) for number in range(10)))

    @asynchronous
    async def test_turns_come_in_the_order_of_the_calls(self, serving: Serving, box: Sandbox) -> None:
        asked: list[bytes] = []

        async def note(request: Request) -> None:
            asked.append(request.command[0])

        async with Remctl("localhost", serving(note).port, box.principal) as session:
            await asyncio.gather(*(session.run([number]) for number in range(30)))
        assert asked == [b"%d" % number for number in range(30)]

    @asynchronous
    async def test_command_and_output_of_several_never_mix(self, server: ServerArguments) -> None:
        right = 0
        async with Remctl(*server, timeout=20) as session:

            async def ask(number: int) -> None:
                nonlocal right
                for turn in range(20):
                    try:
                        await session.command(["example", "echo", number, turn])
                    except remctl.RemctlError:
                        with contextlib.suppress(remctl.RemctlError):
                            assert not await rest(session)
                        await asyncio.sleep(0)
                        continue
                    assert await rest(session) == b"%d %d\n" % (number, turn)
                    right += 1

            await asyncio.gather(*(ask(number) for number in range(5)))
        assert right > 0

    @asynchronous
    async def test_output_is_not_handed_to_a_task_whose_command_it_is_not(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            earlier = asyncio.Event()
            now = asyncio.Event()

            async def other() -> None:
                await session.run(["example", "hello"])
                earlier.set()
                await now.wait()
                with pytest.raises(remctl.RemctlError, match="the answer to another task's command is read"):
                    await session.output()

            task = asyncio.ensure_future(other())
            await earlier.wait()
            await session.command(["example", "echo", "mine"])
            now.set()
            await task
            assert await rest(session) == b"mine\n"

    @asynchronous
    async def test_a_task_without_commands_of_its_own_may_read_for_another(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            await session.command(["example", "echo", "handed over"])
            token: Output = await asyncio.ensure_future(session.output())
            assert token.output == b"handed over\n"
            assert (await session.output()).status == 0

    @asynchronous
    async def test_a_stream_goes_on_beside_others_that_wait(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            others: list[asyncio.Future[object]] = []
            total = 0
            async for token in session.stream(["example", "bytes", 300_000]):
                total += len(token.output or b"")
                if not others:
                    others = [asyncio.ensure_future(session.run(["example", "hello"])) for _ in range(3)]
                    await asyncio.wait(others)
            assert total == 300_000
            for other in others:
                assert "output left" in str(other.exception())

    @asynchronous
    async def test_sessions_do_not_wait_for_each_other(self, server: ServerArguments) -> None:
        begin = asyncio.get_running_loop().time()
        calls = [remctl.aio.remctl(*server, ["example", "sleep", 1]) for _ in range(10)]
        assert [result.status for result in await asyncio.gather(*calls)] == [0] * 10
        assert asyncio.get_running_loop().time() - begin < 5


class TestFork:
    @asynchronous
    async def test_a_child_does_not_disturb_the_session_of_its_parent(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            await session.command(["example", "echo", "mine"])
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(asyncio.run(_use_in_child(session)))
                finally:
                    os._exit(99)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert await rest(session) == b"mine\n"
            assert (await session.run(["example", "hello"])).status == 0

    @asynchronous
    async def test_a_child_may_have_a_session_of_its_own(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(asyncio.run(_open_in_child(session, server)))
                finally:
                    os._exit(99)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            assert (await session.run(["example", "hello"])).status == 0

    @asynchronous
    async def test_a_child_that_collects_garbage_does_not_disturb(self, server: ServerArguments) -> None:
        async with Remctl(*server, timeout=20) as session:
            pid = os.fork()
            if pid == 0:
                try:
                    session.__dict__.clear()
                    gc.collect()
                    os._exit(0)
                finally:
                    os._exit(99)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert (await session.run(["example", "hello"])).status == 0


async def _use_in_child(session: Remctl) -> int:
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: session.run(["example", "hello"]),
        lambda: session.command(["example", "hello"]),
        session.output,
        session.noop,
    )
    told = 0
    for call in calls:
        try:
            await call()
        except remctl.RemctlNotOpenedError as error:
            told += f"belongs to process {os.getppid()}" in str(error)
    await session.close()
    return len(calls) - told


async def _open_in_child(session: Remctl, server: ServerArguments) -> int:
    await session.open(*server)
    status = (await session.run(["example", "status", 7])).status
    await session.close()
    return status


class TestLeaks:
    @asynchronous
    async def test_descriptors_and_threads_do_not_grow(self, server: ServerArguments) -> None:
        async def each() -> None:
            async with Remctl(*server) as session:
                await session.run(["example", "status", 1])
            with pytest.raises(remctl.RemctlAuthenticationError):
                await remctl.aio.remctl(*server[:2], "host/unknown", ["x"])
            with pytest.raises(remctl.RemctlConnectionError):
                await remctl.aio.remctl("127.0.0.1", 1, command=["x"])
            with pytest.raises(remctl.RemctlTimeoutError):
                await remctl.aio.remctl(*server, ["example", "sleep", 20], timeout=0.03)

        await each()
        before = descriptors(), threading.active_count()
        for _ in range(10):
            await each()
        gc.collect()
        assert descriptors() <= before[0]
        assert threading.active_count() <= before[1] + 1
