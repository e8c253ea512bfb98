"""A job's page while the job goes on: its state and its output as Server-Sent Events.

Output comes with an ID that says how much the browser has, with which it goes on after a lost connection.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from remctl.exceptions import RemctlError
from remctl.jobs.attempt import Piece
from remctl.jobs.service import Desk, Stream
from remctl.jobs.store import Job, reason_of
from remctl.jobs.web import _views_words as words
from remctl.jobs.web._pages_visit import Visit
from remctl.jobs.web._views import STREAMS, Views

logger = logging.getLogger(__name__)

POLL: Final = 0.3
"""Seconds between two looks."""

HEARTBEAT: Final = 15.0
"""Seconds of silence after which something is sent, so that proxies keep the connection."""

LONGEST: Final = 300.0
"""Seconds of one stream; the browser asks again by itself, and whether it may is looked at anew."""

STREAMS_AT_ONCE: Final = 64

EACH_AT_ONCE: Final = 8
"""Streams of the same person."""

AGAIN: Final = 5000
"""Milliseconds after which a browser that was sent away asks again."""


class Place(NamedTuple):
    """How much of a job's output somebody has."""

    attempt: int
    """How many times somebody had taken the job: a new attempt begins with new output."""
    stdout: int
    """Bytes."""
    stderr: int

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what `str` makes; the beginning for everything else."""
        found = re.fullmatch(r"(\d{1,9})\.(\d{1,18})\.(\d{1,18})", text, re.ASCII)
        return cls(*map(int, found.groups())) if found else cls(0, 0, 0)

    def __str__(self) -> str:
        return ".".join(map(str, self))


class Step(NamedTuple):
    """What is new."""

    job: Job
    place: Place
    again: bool
    """Whether the output is that of another attempt than before."""
    texts: dict[Stream, str]
    """What was written, by stream."""
    sizes: dict[Stream, int]
    """Bytes written in all, by stream."""
    parts: dict[str, str] | None
    """What changes on the page with the job; None if nothing has."""

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        return self.job.state.final and not any(self.texts.values())


class _Stream(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(LONGEST + HEARTBEAT):  # for a client that reads nothing
            await super().__call__(scope, receive, send)


class Live:
    """The streams.

    Args:
        views: what makes the parts of the page that change.
    """

    def __init__(self, views: Views) -> None:
        self._views = views
        self._open: Counter[str] = Counter()

    def view(self, visit: Visit) -> Response:
        """Answer with a stream, which ends with the job."""
        visit.desk.job(visit.job)
        known = visit.request.headers.get("last-event-id") or visit.request.query_params.get("from", "")
        headers = {"x-accel-buffering": "no"}  # else nginx would keep it back
        return _Stream(self._events(visit, Place.parse(known)), headers=headers, media_type="text/event-stream")

    async def _events(self, visit: Visit, place: Place) -> AsyncIterator[str]:
        principal = visit.session.principal
        if self._open[principal] >= EACH_AT_ONCE or self._open.total() >= STREAMS_AT_ONCE:
            yield f"retry: {AGAIN}\nevent: busy\ndata: \n\n"
            return
        self._open[principal] += 1
        try:
            async for event in self._steps(visit, place):
                yield event
        except (SQLAlchemyError, RemctlError) as error:  # the browser asks again, and is answered with the reason
            logger.warning("the page of job %d is no longer live: %s", visit.job, reason_of(error))
        finally:
            self._open[principal] -= 1
            self._open += Counter()  # without those that are at 0

    async def _steps(self, visit: Visit, place: Place) -> AsyncIterator[str]:
        end = min(time.time() + LONGEST, visit.session.end)
        seen: Job | None = None
        spoke = time.monotonic()
        while time.time() < end:
            step = await run_sync(look, self._views, visit.request, visit.desk, visit.job, place, seen)
            if step is not None:
                if events := _written(step):
                    yield events
                    spoke = time.monotonic()
                if step.over:
                    yield "event: end\ndata: \n\n"
                    return
                place, seen = step.place, step.job
            if time.monotonic() - spoke > HEARTBEAT:
                yield ":\n\n"
                spoke = time.monotonic()
            if step is None or not any(step.texts.values()):
                await anyio.sleep(POLL)


def look(views: Views, request: Request, desk: Desk, number: int, place: Place, seen: Job | None) -> Step | None:
    """Return what is new since somebody has looked, or None for "look again"; blocks.

    Args:
        views: what makes the parts of the page that change.
        request: what is answered.
        desk: who looks.
        number: the job's.
        place: how much of the output is known.
        seen: the job as it is known; None if it is not.
    """
    job = desk.job(number)
    again = job.attempts != place.attempt
    begin = Place(job.attempts, 0, 0) if again else place
    pieces = [desk.read(number, stream, offset) for stream, offset in zip(STREAMS, begin[1:], strict=True)]
    if desk.job(number).attempts != job.attempts:  # what was read may be of the new attempt
        return None
    texts: dict[Stream, str] = {}
    offsets = []
    for stream, offset, piece in zip(STREAMS, begin[1:], pieces, strict=True):
        texts[stream], reached = _text(piece, offset, job)
        offsets.append(reached)
    parts = views.parts(request, desk, job) if job != seen else None
    sizes = {stream: piece.size for stream, piece in zip(STREAMS, pieces, strict=True)}
    return Step(job, Place(job.attempts, *offsets), again, texts, sizes, parts)


def _text(piece: Piece, offset: int, job: Job) -> tuple[str, int]:
    more = not job.state.final or piece.offset + len(piece.data) < piece.size
    missing = piece.offset - offset
    text, used = words.decoded(piece.data, cut=missing > 0, more=more)
    if missing > 0:
        text = f"[{words.size(missing)} not kept]\n{text}"
    return text, piece.offset + used


def _written(step: Step) -> str:
    events = ""
    if step.parts is not None:
        events += f"event: job\ndata: {json.dumps(step.parts)}\n\n"
    if step.again or any(step.texts.values()):
        sizes = {stream: words.size(size) for stream, size in step.sizes.items()}
        output = {"again": step.again, "texts": step.texts, "sizes": sizes}
        events += f"event: output\nid: {step.place}\ndata: {json.dumps(output)}\n\n"
    return events
