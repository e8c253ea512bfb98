"""From options to a job: the login, the submission, and the wait for the job's end, each within its time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from typing import Final, TypeVar, cast

from remctl.aio._offload import local, network
from remctl.exceptions import RemctlConnectionError
from remctl.jobs.aio import Client, EndEvent, GapEvent, Job, JobEvent, NoSuchJobError, OutputEvent, StateEvent
from remctl.jobs.headless import _secret
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.jobs.headless._failures import checked, ending, failure, reached
from remctl.jobs.headless._lock import Lock
from remctl.jobs.headless._options import Options
from remctl.jobs.headless._progress import Progress
from remctl.jobs.scripts import AD_HOC

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOGIN: Final = 20.0
"""Seconds for tickets, connection and handshake together."""

QUESTION: Final = 60.0
"""Seconds for the answer to one question."""

PATIENCE: Final = 10.0
"""Seconds to go on trying to reach a server that was lost."""

PAUSE: Final = 0.2
"""Seconds between two attempts."""

SOON: Final = 0.001
"""Seconds in place of 0, which would be without limit."""


async def work(options: Options, progress: Progress, lock: Lock | None, password: str | None = None) -> Job:
    """Submit a job, and wait for its end if that is wanted; return the job.

    Args:
        options: what is wanted.
        progress: where it is noted how far it has come.
        lock: in whose file the job is put down; None keeps no second run out.
        password: what the secret file is made from, which is missing; None does not make it.

    Raises:
        HeadlessError: it did not end well.
    """
    try:
        if password is not None:
            await _made_secret(options, password)
        with ExitStack() as stack:
            async with await _logged_in(options, stack) as client:
                await _see_to_earlier(client, lock)
                return await _ran(client, options, progress, lock)
    except Exception as error:
        hidden = [text for text in (options.individual_parameters, options.code) if text]
        raise failure(error, submitted=progress.submitted, job=progress.job, hidden=hidden) from error


# The login


async def _made_secret(options: Options, password: str) -> None:
    assert options.secret is not None
    assert options.user is not None
    await _in_time(network.run(_secret.create, options.secret, options.user, password))
    logger.info("made the secret file %s", options.secret)


async def _logged_in(options: Options, stack: ExitStack) -> Client:
    """Return a client that is connected; what its tickets need is left open until the stack is closed."""

    async def login() -> Client:
        held = _secret.credentials(options.auth_type, options.user, options.secret)
        credentials = await network.run(stack.enter_context, held)
        client = Client(
            options.host,
            options.port,
            options.principal,
            timeout=QUESTION,
            credentials=credentials,
            patience=PATIENCE,
        )
        await client.connect()
        return client

    logger.info("logging in to %s", options.host)
    client = await _in_time(login())
    logger.info("logged in to %s", options.host)
    return client


async def _in_time(doing: Awaitable[T]) -> T:
    """Wait for a part of the login.  A thread that waits for a KDC is left behind."""
    try:
        async with asyncio.timeout(LOGIN):
            return await doing
    except TimeoutError:
        text = f"the login took longer than {LOGIN:g} s"
        raise HeadlessError(text, code=Code.LOGIN_TIMEOUT, hint="see the network, the server and the KDC") from None


# The job


async def _see_to_earlier(client: Client, lock: Lock | None) -> None:
    """See that the job of the run before does not go on: its client may have ended sooner."""
    if lock is None or lock.guid is None:
        return
    try:
        job = await client.job(lock.guid)
    except NoSuchJobError:
        return
    if not job.state.final:
        raise HeadlessError(f"job {job.id} of an earlier run goes on: {ending(job)}", code=Code.TIMEOUT, job=job)


async def _ran(client: Client, options: Options, progress: Progress, lock: Lock | None) -> Job:
    script = options.module if options.code is None else AD_HOC.name
    assert script is not None
    await client.script(script)
    guid = str(uuid.uuid4())
    if lock is not None:
        await local.run(lock.write, guid)
    progress.job = job = await _submitted(client, script, _parameters(options), guid, progress)
    logger.info("job %d (%s) of %s was accepted", job.id, job.guid, script)
    if options.timeout is None:
        return job
    progress.job = job = await _awaited(client, job, options.timeout, _Printer() if options.output else None)
    logger.info("job %d is %s", job.id, ending(job))
    return checked(job)


def _parameters(options: Options) -> dict[str, str]:
    found = {"individual_parameters": options.individual_parameters}
    if options.code is not None:
        found |= {"code": options.code, "module": options.module}
    return {name: value for name, value in found.items() if value is not None}


async def _submitted(client: Client, script: str, parameters: dict[str, str], guid: str, progress: Progress) -> Job:
    """Submit the job; with its GUID, asking again makes no second one."""
    sent = False

    async def submit() -> Job:
        nonlocal sent
        try:
            return await client.submit(script, parameters, guid=guid)
        except RemctlConnectionError as error:
            sent = sent or reached(error)
            progress.submitted = sent
            raise
        except ValueError as error:  # it is more than servers take
            raise HeadlessError(str(error), code=Code.PARAMETER) from None

    progress.submitted = True
    try:
        return await _patiently(submit, lambda: sent)
    except HeadlessError:
        progress.submitted = False
        raise


async def _awaited(client: Client, job: Job, limit: float, printer: _Printer | None) -> Job:
    """Wait for a job's end, so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit

    def left() -> float:
        return max(round(deadline - loop.time(), 2), SOON)  # people read of it, when it has passed

    async def wait() -> Job:
        try:
            if printer is None:
                return await client.wait(job.id, left())
            return await printer.follow(client, job, left)
        except RemctlConnectionError as error:
            if left() > SOON:
                raise
            text = f"job {job.id} was not over within {limit:g} s, and the server is away"
            raise HeadlessError(text, code=Code.TIMEOUT, job=job) from error

    ended = await _patiently(wait, lambda: True)
    if printer is not None and printer.faults:
        checked(ended)
        why = ", ".join(f"{stream}: {error.strerror}" for stream, error in printer.faults.items())
        raise HeadlessError(f"the output of job {job.id} could not be written: {why}", code=Code.UNEXPECTED, job=ended)
    return ended


async def _patiently(ask: Callable[[], Awaitable[T]], worth: Callable[[], bool]) -> T:
    """Ask until there is an answer, for as long as that is worth it, and the server was not away for too long.

    The client is patient itself with servers that have answered once; this is for one that is lost before.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        try:
            return await ask()
        except RemctlConnectionError as error:
            if loop.time() >= until or not worth():
                raise
            logger.info("asking again: %s", error)
        await asyncio.sleep(PAUSE)


class _Printer:
    """Prints a job's output as it comes.  When that fails, the job is waited for all the same."""

    def __init__(self) -> None:
        self.faults: dict[str, OSError] = {}

    async def follow(self, client: Client, job: Job, left: Callable[[], float]) -> Job:
        """Print until the job is over; return it."""
        events = cast("AsyncGenerator[JobEvent]", client.follow(job.id, left()))
        ended = job
        async with contextlib.aclosing(events):
            async for event in events:
                match event:
                    case OutputEvent():
                        await self._print(job, event, left())
                    case GapEvent():
                        logger.warning("%d bytes of %s of job %d are not kept", event.size, event.stream, job.id)
                    case StateEvent():
                        logger.info("job %d is %s", job.id, event.state.name.title())
                    case EndEvent():
                        ended = event.job
        return ended

    async def _print(self, job: Job, event: OutputEvent, limit: float) -> None:
        if event.stream in self.faults:
            return
        try:
            async with asyncio.timeout(limit) as timeout:
                await local.run(_write, 1 if event.stream == "stdout" else 2, event.data)
        except OSError as error:
            if timeout.expired():
                text = f"job {job.id} was not over within the limit, and its output is not read"
                raise HeadlessError(text, code=Code.TIMEOUT, job=job) from None
            self.faults[event.stream] = error
            logger.warning("%s cannot be written: %s", event.stream, error.strerror)


def _write(number: int, data: bytes) -> None:
    """Write all of it, also where the other end does not read as fast."""
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:
            select.select([], [number], [])
