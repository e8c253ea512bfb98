"""Following a job: what `job wait` and `job output` say of it while they look again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from remctl.backend import Context
from remctl.jobs import _json
from remctl.jobs._answers import (
    ALIVE,
    STREAMS,
    UNAVAILABLE,
    AliveEvent,
    EndEvent,
    GapEvent,
    Job,
    OutputEvent,
    Said,
    StateEvent,
    Stream,
    TimeoutEvent,
)
from remctl.jobs.command import _wording
from remctl.jobs.command._refusal import Refusal
from remctl.jobs.states import JobState
from remctl.types import Stream as Channel

if TYPE_CHECKING:
    from remctl.jobs.attempt import Piece
    from remctl.jobs.command._desk import Counter

PAUSES: Final = (0.1, 1.0)
"""Seconds between two looks: the first, and the longest."""

CHANNELS: Final = {"stdout": Channel.STDOUT, "stderr": Channel.STDERR}


class Watch:
    """What has become of a job, look by look.

    Args:
        number: the job's number or GUID.
        streams: whose output is wanted.
    """

    job: Job | None
    """As it stood at the last look."""
    over: bool
    """Whether it is over, and all that is kept of its output was seen."""

    def __init__(self, number: int | str, streams: Sequence[Stream] = STREAMS) -> None:
        self._number = number
        self._streams = streams
        self._offsets: dict[Stream, int] = {}
        self.job = None
        self.over = False

    def look(self, counter: Counter) -> list[Said]:
        """Return what is new; blocks.

        Raises:
            Refusal: there is no such job, or it is not for the caller to see any more.
        """
        before = self.job
        # Output that is read before the job is of the attempt that it was in, unless that has changed meanwhile.
        pieces = {}
        if before is not None and before.attempts:
            pieces = {stream: counter.read(before.id, stream, self._offsets.get(stream, 0)) for stream in self._streams}
        self.job = now = counter.job(self._number)
        new: list[Said] = []
        if before is None or before.attempts != now.attempts:
            pieces, self._offsets = {}, {}
        for stream, piece in pieces.items():
            at = self._offsets.get(stream, 0)
            new += _heard(now.attempts, stream, at, piece)
            self._offsets[stream] = max(at, piece.offset + len(piece.data))
        if before is None or (before.state, before.attempts) != (now.state, now.attempts):
            new.append(StateEvent(now.state, now.attempts))
        elif now.state.final and not new:
            self.over = True
            for stream, piece in pieces.items():
                new += _lost(now.attempts, stream, self._offsets[stream], piece)
            new.append(EndEvent(now))
        return new


async def wait(
    context: Context, watch: Watch, look: Callable[[], list[Said]], timeout: float | None, *, json: bool
) -> int:
    """Say what becomes of a job until it is over; return the exit status.

    Args:
        context: where it is said.
        watch: on the job.
        look: has it look, on a thread; blocks, and raises a `Refusal` where that cannot be done.
        timeout: seconds; None is without limit.
        json: whether it is said in JSON.

    Raises:
        Refusal: there is no such job, or the database is away when the time is up and was all the time.
    """
    import asyncio

    deadline = None if timeout is None else time.monotonic() + timeout
    pause, said_at, away = PAUSES[0], time.monotonic(), False
    while True:
        late = deadline is not None and time.monotonic() >= deadline
        new: list[Said] = []
        try:
            new = await asyncio.to_thread(look)
            away = False
        except Refusal as refusal:
            if refusal.kind != "unavailable" or (late and watch.job is None):
                raise
            if not away:
                context.write(f"{' '.join(context.command)}: {refusal.reason}: trying again\n", Channel.STDERR)
            away = True
        # One that is over in time is told to its end.
        expired = late and watch.job is not None and (away or not watch.job.state.final)
        if expired:
            new.append(TimeoutEvent())
        elif not new and json and time.monotonic() - said_at >= ALIVE:
            new.append(AliveEvent())
        for event in new:
            _say(context, watch, event, json)
            await context.drain()
            said_at = time.monotonic()
        if watch.over or expired:
            return UNAVAILABLE if expired else int(watch.job is None or watch.job.state is not JobState.SUCCESS)
        if any(isinstance(event, OutputEvent | StateEvent) for event in new):
            pause = PAUSES[0]  # and look at once, as there may be more
        else:
            await asyncio.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(2 * pause, PAUSES[1])


def kept(counter: Counter, number: int | str, stream: Stream) -> Iterator[OutputEvent | GapEvent]:
    """Give what is kept of the output of a job's last attempt, also while it runs; blocks.

    Raises:
        Refusal: there is no such job, or it has begun again meanwhile.
    """
    job = counter.job(number)
    at, end = 0, None
    while True:
        piece = counter.read(job.id, stream, at)
        if counter.job(job.id).attempts != job.attempts:
            raise Refusal("state", f"job {job.id} has begun again meanwhile: ask again")
        yield from _heard(job.attempts, stream, at, piece)
        at = piece.offset + len(piece.data)
        end = piece.size if end is None else end  # what it writes from here on is for the next time
        if not piece.data:
            yield from _lost(job.attempts, stream, at, piece)
        if not piece.data or at >= end:
            return


def _heard(attempt: int, stream: Stream, at: int, piece: Piece) -> Iterator[OutputEvent | GapEvent]:
    """What a piece says to whoever has read up to some byte."""
    if piece.offset > at:
        yield GapEvent(attempt, stream, at, piece.offset - at)
    if piece.data:
        yield OutputEvent(attempt, stream, piece.offset, piece.data)


def _lost(attempt: int, stream: Stream, at: int, piece: Piece) -> Iterator[GapEvent]:
    """What is missing at the end, as when a disk was full."""
    if piece.size > at:
        yield GapEvent(attempt, stream, at, piece.size - at)


def _say(context: Context, watch: Watch, event: Said, json: bool) -> None:
    if json:
        context.write(_json.written_event(event))
    elif isinstance(event, OutputEvent):
        context.write(event.data, CHANNELS[event.stream])
    elif watch.job is not None and (line := _wording.event(watch.job, event)):
        context.write(line, Channel.STDERR)
