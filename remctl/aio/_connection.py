"""One connection to one server: who may use it, and when; the twin of `remctl._connection`.

Between the protocol core with its channel, which move the bytes, and the face (`client`).  A connection is opened once
and closed once; only protocol 1, which ends every connection after one answer, makes the next one here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import warnings
from collections.abc import Sequence
from typing import Final, NoReturn
from weakref import WeakKeyDictionary

from remctl._arguments import Command
from remctl._connection_base import OPENING, PINGING, RECEIVING, SENDING, ConnectionBase, Target
from remctl.aio._channel import Channel
from remctl.aio._connecting import connect
from remctl.aio._deadline import Deadline
from remctl.aio._offload import network
from remctl.aio._tokens import core_of
from remctl.aio._turns import turn
from remctl.exceptions import (
    ENDED,
    UNASKED,
    RemctlConnectionError,
    RemctlError,
    RemctlNotOpenedError,
    RemctlProtocolError,
)
from remctl.protocol import NEED_DATA, ClientConnection, HighestVersion, NoopAnswer, State, Step
from remctl.protocol.client import Event
from remctl.security import Credentials, InitiatorContext
from remctl.types import Output, OutputType, Result, Stream

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Tokens that are handed out without giving way to other tasks."""

_READABLE: Final = select.POLLIN | getattr(select, "POLLRDHUP", select.POLLHUP)


class Connection(ConnectionBase):
    """See the module.  Every method may be called from any task of one loop; one works at a time, the others wait.

    Args:
        target: whom to talk to.
        credentials: whose tickets to use.
        sock: a connected stream socket to use, which the connection then owns; None makes one.
    """

    caller = "task"
    logger = logger

    def __init__(self, target: Target, credentials: Credentials, sock: socket.socket | None = None) -> None:
        super().__init__(target)
        self._credentials = credentials
        self._given = sock
        self._core: ClientConnection
        self._channel: Channel | None = None
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._at_once = 0
        self._serials: WeakKeyDictionary[asyncio.Task[object], int] = WeakKeyDictionary()

    # What the face does with a connection

    async def open(self, deadline: Deadline) -> None:
        """Connect and authenticate.  Any failure closes the connection."""
        await self._take(deadline)
        try:
            async with asyncio.timeout_at(deadline.when):
                await self._establish(deadline)
                if self.target.min_protocol > 2:
                    await self._ping()
        except BaseException as error:
            self._fail(error, OPENING, deadline)
        finally:
            self._lock.release()
        self._log_opened()

    async def send(self, command: Command, deadline: Deadline) -> None:
        """Send a command, at most once."""
        await self._take(deadline)
        try:
            self._begin(command, "command()")
            try:
                async with asyncio.timeout_at(deadline.when):
                    await self._send(command, deadline)
            except BaseException as error:
                self._fail(error, SENDING, deadline)
        finally:
            self._lock.release()

    async def receive(self, deadline: Deadline) -> Output:
        """Return the next token of the pending answer, or DONE after its end."""
        if self._at_once >= AT_ONCE:
            self._at_once = 0
            await asyncio.sleep(0)  # decryption is computing: let others have their turn
        if (token := self.received()) is not None:
            self._at_once += 1
            return token
        await self._take(deadline)
        try:
            if (end := self._check_output()) is not None:
                return end
            try:
                async with asyncio.timeout_at(deadline.when):
                    token = await self._token()
            except asyncio.CancelledError:
                raise  # a cancelled wait has lost nothing
            except BaseException as error:
                self._fail(error, RECEIVING, deadline)
            return self._noted(token)
        finally:
            self._lock.release()

    def received(self) -> Output | None:
        """Return the next token of the pending answer if it has come already, and else None."""
        self._check_process()
        if self._lock.locked() or self.closed is not None or not self.pending:
            return None
        if self._asked() not in (None, self._serial):
            return None
        try:
            event = self._core.next_event()
            return None if event is NEED_DATA else self._noted(self._expect_token(event))
        except RemctlError as error:
            raise self._failed(error, RECEIVING) from error.__cause__

    async def run(self, command: Command, deadline: Deadline) -> Result:
        """Send a command and collect its answer; nobody comes between."""
        out: list[bytes] = []
        err: list[bytes] = []
        doing = SENDING
        await self._take(deadline)
        try:
            self._begin(command, "run()")
            try:
                async with asyncio.timeout_at(deadline.when):
                    await self._send(command, deadline)
                    doing = RECEIVING
                    token = await self._collect(out, err)
            except BaseException as error:
                self._fail(error, doing, deadline)
            self._noted(token, out, err)
        except RemctlError as error:
            error.stdout, error.stderr = b"".join(out), b"".join(err)
            raise
        finally:
            self._lock.release()
        return self.result(command, token, b"".join(out), b"".join(err))

    async def noop(self, deadline: Deadline) -> None:
        """Make a round trip; needs a server of protocol 3."""
        await self._take(deadline)
        try:
            self._check_noop()
            try:
                async with asyncio.timeout_at(deadline.when):
                    await self._check_quiet(deadline)
                    await self._ping()
            except _NoNoop as error:
                raise self.with_evidence(RemctlProtocolError(str(error))) from None  # and the session goes on
            except BaseException as error:
                self._fail(error, PINGING, deadline)
        finally:
            self._lock.release()

    async def close(self, reason: str) -> None:
        """Close the connection; a call that another task waits in ends at once.  Closing twice is harmless."""
        if os.getpid() != self._pid:
            return
        self.closing = True
        if self._lock.locked():
            if self._opening is not None:
                self._opening.cancel()
            if self._channel is not None:
                self._channel.close(farewell=False)
        async with self._lock:
            self._end(reason)
        if self._channel is not None:
            await self._channel.closed()

    def __del__(self) -> None:
        if self.closed is None:
            warnings.warn(f"a session with {self.target.host} was not closed", ResourceWarning, 2, self)
            self.closed = "nobody held it any more"
            if self._channel is not None and os.getpid() == self._pid:
                with contextlib.suppress(RuntimeError):  # the loop was closed, and the transport with it
                    self._loop.call_soon_threadsafe(self._channel.transport.abort)

    # One at a time

    async def _take(self, deadline: Deadline) -> None:
        self._check_process()
        try:
            async with asyncio.timeout_at(deadline.when):
                await self._lock.acquire()
        except TimeoutError:
            raise self._expired(deadline.limit, "another task used the session", waiting=True) from None
        if self.closing or self.closed is not None:
            self._lock.release()
            raise self._not_open()

    def _asked(self) -> int | None:
        task = asyncio.current_task()
        return None if task is None else self._serials.get(task)

    def _set_asked(self, serial: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serials[task] = serial

    # Opening

    async def _establish(self, deadline: Deadline) -> None:
        """Open in a task of its own, which `close` from another task can end."""
        self._opening = asyncio.ensure_future(self._open(deadline))
        try:
            await self._opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.closing or (task is not None and task.cancelling()):
                raise
            raise RemctlNotOpenedError from None
        finally:
            self._opening = None

    async def _open(self, deadline: Deadline) -> None:
        target = self.target
        if target.ccache is not None:
            await network.run(target.check_ccache)
        await turn()
        context = InitiatorContext(target.host, target.principal, self._credentials)
        core = core_of(context, min_protocol=target.min_protocol)
        core.start()
        core.next_event()
        # GSS-API, and perhaps the KDC, are at work while the connection is made.
        step = asyncio.ensure_future(network.run(context.step, None))
        try:
            await self._connect(core, deadline)
            answer = await step
            await turn()
        except BaseException:
            step.cancel()
            step.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
        while core.stepped(answer) is None:
            self._flush()
            event = await self._event()
            await turn()
            if isinstance(event, Step):
                answer = context.step(event.token)
        self._flush()
        if core.buffered:
            raise RemctlProtocolError("the server sent something before it was asked for anything")
        self.protocol = core.protocol

    async def _connect(self, core: ClientConnection, deadline: Deadline) -> None:
        sock = self._given
        if sock is None:
            sock, self.port = await connect(self.target.host, self.port, self.target.source_ip, deadline)
        try:
            await turn()
            _, self._channel = await self._loop.create_connection(lambda: Channel(core), sock=sock)
        except OSError as error:
            sock.close()
            raise RemctlConnectionError(f"the socket cannot be used: {error.strerror}", errno=error.errno) from None
        except BaseException:
            sock.close()
            raise
        self._core = core

    # From command to answer

    async def _send(self, command: Command, deadline: Deadline) -> None:
        self._sent = False
        await self._check_quiet(deadline)
        self._core.send_command(command.words)
        self._sent = True
        await self._send_all()

    async def _send_all(self) -> None:
        assert self._channel is not None
        self._flush()
        # An answer that comes before the end is a refusal, and the server may not read the rest.
        while self._core.state is State.PIECES and not (self._channel.lost or self._core.buffered):
            await self._channel.drained(or_received=True)
            await asyncio.sleep(0)  # encryption is computing: let others have their turn
            self._flush()
        await self._channel.drained(or_received=True)
        if self._channel.lost and not self._core.buffered:
            raise RemctlConnectionError(f"the command could not be sent: {ENDED}", errno=errno.ECONNRESET)
        self._channel.acknowledge()

    async def _check_quiet(self, deadline: Deadline) -> None:
        """Find out that the server has ended, or spoken, since its last answer; in protocol 1 connect anew."""
        if self.protocol == 1:
            if self._core.state is State.CLOSED:
                await self._reopen(deadline)
            return
        assert self._channel is not None
        if not self._channel.lost and not self._core.buffered and self._readable():
            await self._channel.received()
        if self._core.buffered:
            raise RemctlProtocolError(UNASKED)
        if self._channel.lost:
            raise RemctlConnectionError(ENDED)

    def _readable(self) -> bool:
        assert self._channel is not None
        poller = select.poll()
        poller.register(self._channel.sock, _READABLE)
        return bool(poller.poll(0))

    async def _reopen(self, deadline: Deadline) -> None:
        assert self._channel is not None
        if self._given is not None:
            raise RemctlConnectionError("protocol 1 ends the connection after one answer, and this one was handed over")
        self._channel.close(farewell=False)
        await self._establish(deadline)

    async def _ping(self) -> None:
        assert self._channel is not None
        self._core.send_noop()
        self._flush()
        await self._channel.drained()
        event = await self._event()
        if isinstance(event, NoopAnswer):
            self.protocol = 3
        elif isinstance(event, HighestVersion):
            raise _NoNoop(f"the server speaks protocol {event.version}, which has no NOOP")
        else:
            text = (event.output or b"").decode("utf-8", "backslashreplace") if isinstance(event, Output) else event
            raise RemctlProtocolError(f"noop() failed: {text}")

    async def _token(self) -> Output:
        return self._expect_token(await self._event())

    async def _collect(self, out: list[bytes], err: list[bytes]) -> Output:
        """Return the token that ends the answer, and put the output before it into the lists."""
        assert self._channel is not None
        last: list[Output] = []

        def collect() -> bool:
            while (event := self._core.next_event()) is not NEED_DATA:
                token = self._expect_token(event)
                if token.type is not OutputType.OUTPUT:
                    last.append(token)
                    return True
                (err if token.stream is Stream.STDERR else out).append(token.output or b"")
            return False

        while not last and not collect():
            await self._channel.received(collect)
        return last[0]

    def _expect_token(self, event: Event) -> Output:
        if isinstance(event, Output):
            return event
        highest = event.version if isinstance(event, HighestVersion) else event
        raise RemctlProtocolError(f"the answer could not be read: the server speaks protocol {highest} alone")

    async def _event(self) -> Event:
        assert self._channel is not None
        while (event := self._core.next_event()) is NEED_DATA:
            await self._channel.received()
        return event

    def _flush(self) -> None:
        assert self._channel is not None
        self._channel.flush()

    def _noted(self, token: Output, out: Sequence[bytes] = (), err: Sequence[bytes] = ()) -> Output:
        self.refused = self._core.refused
        if token.type is OutputType.OUTPUT:
            self._count(token)
        else:
            self._answered(token, out, err)
            if self._core.state is State.CLOSED and self.protocol > 1:
                self._end("the server refused a command before it was sent whole")
        return token

    # Errors, and the end

    def _fail(self, error: BaseException, doing: str, deadline: Deadline) -> NoReturn:
        """Close the connection over an error, and raise the typed one that says what happened."""
        if isinstance(error, _NoNoop):
            error = RemctlProtocolError(str(error))
        if isinstance(error, RemctlError):
            raise self._failed(error, doing) from error.__cause__
        if isinstance(error, TimeoutError):
            raise self._failed(self._expired(deadline.limit, doing), doing) from None
        self._end(f"{'cancelled' if isinstance(error, asyncio.CancelledError) else 'interrupted'} while {doing}")
        raise error

    def _close_wire(self, *, in_step: bool) -> None:
        if self._channel is None:
            if self._given is not None:
                self._given.close()
            return
        farewell = in_step and self.protocol > 1 and self._core.state is State.IDLE and not self._channel.lost
        if farewell:
            self._core.send_quit()
        self._channel.close(farewell=farewell)


class _NoNoop(Exception):
    """The server does not speak protocol 3, and has said so, which leaves the two sides in step."""
