"""Jobs for robots, over HTTP: agents on other machines say how they are, take jobs, and say what becomes of them.

Who calls is known before a body is read, and what they call is done on a thread.  All answers are JSON with the fields
that the call has, since there are clients that read those and not the status of HTTP.  The GUID of a robot is what it
signs in with, so it is in no log and no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from remctl.jobs.service import Service
from remctl.jobs.states import IllegalMoveError, JobState, RobotStatus
from remctl.jobs.store import AWAY, Claim, Job, StaleAttemptError, StoreError, UnknownRobotError, reason_of
from remctl.jobs.web._limits import Failures, too_large
from remctl.jobs.web._robots_openapi import CONSUME, DOCUMENT, HEARTBEAT, UPDATE, document
from remctl.jobs.web._robots_sweeping import Sweeping
from remctl.jobs.web._robots_wire import (
    BodyTypeError,
    Code,
    FieldError,
    check_consume,
    consume_answer,
    heartbeat_answer,
    read_body,
    read_guid,
    read_heartbeat,
    read_update,
    update_answer,
)

logger = logging.getLogger(__name__)

LEASE: Final = 60.0
"""Seconds within which a robot has to be heard of that has a job, at the least; it is to speak every 10 seconds."""

BODY: Final = 64 * 1024
"""Bytes of a request's body."""

THREADS: Final = 8
"""Calls that are worked on at the same time; more of them would be in one another's way, and in that of the page."""

AGAIN: Final = "5"
"""Seconds after which it is worth asking again, when the database is away."""

Fields = Mapping[str, Any]
Answer = dict[str, Any]
Do = Callable[[str, Fields], Answer]
"""What is done for a robot, on a thread; raises `_Refusal`, `FieldError` or `UnknownRobotError`."""


def sweeping_for(service: Service) -> Sweeping:
    """Return what sweeps while the robots are served."""
    return Sweeping(service.store, _lease(service))


def _lease(service: Service) -> float:
    return max(LEASE, service.settings.runner.lease)


def routes(service: Service, sweeping: Sweeping) -> list[BaseRoute]:
    """Return what is served.

    Args:
        service: what is done.
        sweeping: is told when robots cannot be heard.
    """
    robots = _Robots(service, sweeping)
    # With methods of their own the routes would leave all others to routes after them, which may take every path.
    return [
        Route(HEARTBEAT, robots.endpoint("POST", robots.heartbeat, heartbeat_answer), methods=[]),
        Route(CONSUME, robots.endpoint("POST", robots.consume, consume_answer), methods=[]),
        Route(UPDATE, robots.endpoint("PUT", robots.update, update_answer, unknown=403), methods=[]),
        Route(DOCUMENT, _describe, methods=["GET"]),
    ]


async def _describe(_: Request) -> Response:
    return JSONResponse(document())


class _Refusal(HTTPException):
    """Nothing is done; the answer says why."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        code: int | None = None,
        state: JobState | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, text, headers)
        self.code = status if code is None else code
        self.state = state


class _Robots:
    def __init__(self, service: Service, sweeping: Sweeping) -> None:
        self._store = service.store
        self._robots = service.store.robots
        self._lease = _lease(service)
        self._failures = Failures()
        self._turns = asyncio.Semaphore(THREADS)
        self._sweeping = sweeping

    def endpoint(
        self, method: str, do: Do, write: Callable[..., Answer], *, unknown: int = 200
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return what serves a call.

        Args:
            method: HTTP's.
            do: what it does.
            write: makes the answer of a code and a text; of a state, too, where there is one.
            unknown: the status for a robot that nobody knows.
        """

        async def serve(request: Request) -> Response:
            try:
                if request.method != method:
                    raise _Refusal(405, f"the method must be {method}", headers={"Allow": method})
                answer = await self._answer(request, do, unknown)
                # There may be very many robots that have nothing to do, and are silent for longer than it stays open.
                return JSONResponse(answer, headers={"Connection": "close"} if answer.get("HasNewJob") == 0 else None)
            except HTTPException as refusal:
                code = refusal.code if isinstance(refusal, _Refusal) else refusal.status_code
                state = {"state": refusal.state} if isinstance(refusal, _Refusal) and refusal.state is not None else {}
                where = (_address(request), request.method, request.url.path)
                logger.info("%s %s %s: status %d, error %d", *where, refusal.status_code, code)
                return JSONResponse(write(code, refusal.detail, **state), refusal.status_code, refusal.headers)

        return serve

    async def _answer(self, request: Request, do: Do, unknown: int) -> Answer:
        guid = read_guid(request.headers.get("authorization", ""))
        if guid is None:
            challenge = {"WWW-Authenticate": 'Basic realm="remctl-jobs robots"'}
            text = "the header Authorization must have the GUID of the robot"
            raise _Refusal(401, text, code=Code.UNKNOWN_ROBOT, headers=challenge)
        try:
            fields = read_body(request.headers.get("content-type", ""), await _body(request))
            if str(fields.get("RobotGUID", "")).lower() not in ("", guid):
                raise self._stranger(request, 403, "RobotGUID is not the GUID in the header Authorization")
            async with self._turns:
                return await run_in_threadpool(do, guid, fields)
        except UnknownRobotError:
            raise self._stranger(request, unknown, "there is no robot with this GUID") from None
        except BodyTypeError as error:
            raise _Refusal(415, str(error)) from None
        except FieldError as error:
            raise _Refusal(400, str(error)) from None
        except AWAY as error:
            self._sweeping.wait()
            logger.warning("%s %s: the database: %s", request.method, request.url.path, reason_of(error))
            raise _Refusal(503, "the database is away", headers={"Retry-After": AGAIN}) from None

    def _stranger(self, request: Request, status: int, text: str) -> _Refusal:
        """The refusal of a GUID; robots on the same address go on."""
        address = _address(request)
        if wait := self._failures.wait(address):
            retry = {"Retry-After": str(math.ceil(wait))}
            return _Refusal(429, f"too many refusals of this address: {text}", code=Code.UNKNOWN_ROBOT, headers=retry)
        logger.warning("%s %s: %s", address, request.url.path, text)
        self._failures.add(address)
        return _Refusal(status, text, code=Code.UNKNOWN_ROBOT)

    # The calls

    def heartbeat(self, guid: str, fields: Fields) -> Answer:
        """Take down how a robot is; tell it what it has to know."""
        beat = read_heartbeat(fields)
        heard = self._robots.heard(guid, beat.status, self._lease, machine=beat.machine, address=beat.ip, mac=beat.mac)
        code, text = _ORDERS.get(heard.order, (Code.NO_ERROR, ""))
        if beat.status is not RobotStatus.WORKING:
            return heartbeat_answer(code, text, has_new_job=heard.has_new_job)
        job = self._job(guid)
        if job is None or (beat.job and beat.job.lower() != job.guid.lower()):
            return heartbeat_answer(*_NOT_ITS_OWN)
        if beat.job and job.state is JobState.PENDING:  # what it has said of its beginning did not come through
            try:
                self._said(guid, job.guid, JobState.IN_PROGRESS)
            except IllegalMoveError as error:  # somebody was faster
                code, text = _ORDERS.get(error.state, _NOT_ITS_OWN)
        return heartbeat_answer(code, text)

    def consume(self, guid: str, fields: Fields) -> Answer:
        """Give a robot its next job."""
        check_consume(fields)
        claim = self._claim(guid)
        if claim is None:
            return consume_answer(Code.NO_JOB, "there is no new job for this robot")
        logger.info("job %d: a robot takes it", claim.job.id, extra={"job": claim.job.id})
        return consume_answer(Code.NO_ERROR, claim=claim)

    def update(self, guid: str, fields: Fields) -> Answer:
        """Take down what a robot says of a job."""
        said = read_update(fields)
        try:
            job = self._said(guid, said.job, said.state)
        except UnknownRobotError:
            raise
        except IllegalMoveError as error:
            if error.state is said.state is not JobState.IN_PROGRESS:  # which changes nothing
                return update_answer(Code.NO_ERROR, state=error.state)
            text = f"the job is {error.state.name}, and does not become {said.state.name} because its robot says so"
            raise _Refusal(409, text, state=error.state) from None
        except StoreError:
            raise _Refusal(404, "the robot has no job with this guid") from None
        logger.info("job %d: its robot says %s", job.id, said.state.name, extra={"job": job.id})
        return update_answer(Code.NO_ERROR, state=job.state)

    # What they are made of

    def _claim(self, guid: str) -> Claim | None:
        """Take the next job; who asks for one runs none, so what was to end before it began has ended."""
        while (claim := self._robots.claim(guid, self._lease)) is not None and claim.job.state is not JobState.PENDING:
            stopping = claim.job.state is JobState.STOPPING
            with contextlib.suppress(IllegalMoveError):  # it is over, and was made to run again
                self._said(guid, claim.job.guid, JobState.STOPPED if stopping else JobState.ABORTED)
        return claim

    def _said(self, guid: str, job: str, state: JobState) -> Job:
        try:
            return self._robots.update(guid, job, state, self._lease)
        except (StaleAttemptError, IllegalMoveError):  # somebody was faster, maybe the same robot with the same
            return self._robots.update(guid, job, state, self._lease)

    def _job(self, guid: str) -> Job | None:
        number = self._robots.get(guid).job
        return None if number is None else self._store.jobs.get(number)


_ORDERS: Final[Mapping[JobState | None, tuple[Code, str]]] = {
    JobState.ABORTING: (Code.ABORTING, "the job has to end at once"),
    JobState.STOPPING: (Code.STOPPING, "the job has to end in peace"),
}
_NOT_ITS_OWN: Final = (Code.ABORTING, "the robot does not have this job, or no more")


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def _body(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _Refusal(415, "the body must not be compressed")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY:
            raise too_large(BODY)
    return bytes(body)
