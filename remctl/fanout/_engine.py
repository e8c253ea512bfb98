"""The engine of a run: which host is begun with when, how often, and what becomes of it.

Everything that has to be decided is decided in `_pump`, which is called whenever something has changed: a host has
come to its end, a result was taken, a time has come.  It begins with hosts until there is a reason not to.  There is a
task for each host that is in work, and none for the others, which stay in the caller's iterable.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final

from remctl.exceptions import RemctlError, RemctlTimeoutError
from remctl.fanout._admission import Admission, free_descriptors
from remctl.fanout._classify import is_shortage, state_of
from remctl.fanout._collecting import Progress, Results
from remctl.fanout._hosts import Ahead, Host, Target
from remctl.fanout._options import BeforeSend, Options
from remctl.fanout._results import Attempt, HostResult, HostState
from remctl.fanout._rules import Rules
from remctl.fanout._visit import Transport, Visit

logger = logging.getLogger(__name__)

LONGEST: Final = 60.0
"""Seconds that a back-off lasts at the most."""

POSTPONED: Final = 10
"""Attempts at a host that may fail for our own haste before they count as its failures."""

POSTPONING: Final = (0.05, 2.0)
"""Seconds of the first pause after such an attempt, and of the longest."""

_ENDED: Final = (errno.ECONNRESET, errno.EPIPE)

RUNNING: Final = "the command may still be running on the server"

STOPPED: Final = "stop() was called"
"""Why a run begins with no further host, if nobody says it better."""

CANCELLED: Final = "the run was cancelled"
"""Why it is cut, likewise."""


class _Job:
    """A host that was begun with."""

    __slots__ = ("attempts", "last", "postponed", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.attempts: list[Attempt] = []
        self.postponed = 0
        self.last: HostResult


class Engine:
    """See the module.

    Args:
        hosts: whom to visit.
        total: how many there are; None if that is not known.
        options: how to go about it.
        transport: makes an attempt at a host.
        before: what has to be done before the first host is begun with; if it fails, none is, and its error is the
            run's.
    """

    def __init__(
        self,
        hosts: Iterator[Target],
        total: int | None,
        options: Options,
        transport: Transport,
        before: Callable[[], Coroutine[Any, Any, object]] | None = None,
    ) -> None:
        self.results = Results(ordered=options.ordered, room=self._pump)
        self._hosts = Ahead(hosts)
        self._total = total
        self._options = options
        self._transport = transport
        self._before = before
        self._preparing: asyncio.Task[object] | None = None
        self._rules = Rules(max_fail=options.max_fail, canary=options.canary, batch=options.batch, pause=options.pause)
        self._admission = Admission(
            sockets=options.sockets, handshakes=options.handshakes, running=options.running, starts=options.starts
        )
        self._work: dict[asyncio.Task[None], Visit] = {}
        self._waiting: list[tuple[float, int, _Job]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._late = False
        self._cut_by = CANCELLED
        self._called = False
        self._pumping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # What the faces do with it

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._admission.fit(free_descriptors())
        if self._options.deadline is not None:
            self._deadline = self._loop.call_later(self._options.deadline, self._expire)
        if self._before is not None and self._rules.stopped is None:
            self._preparing = self._loop.create_task(self._before())
            self._preparing.add_done_callback(self._prepared)
        self._pump()

    def stop(self, reason: str = STOPPED, rule: str = "stop") -> None:
        """Send no further command; those that were sent come to their end."""
        self._rules.stop(rule, reason)
        self._wind_up()

    def _wind_up(self) -> None:
        """Have nothing wait that will not be begun with."""
        if self._preparing is not None:
            self._preparing.cancel()
        waiting, self._waiting = self._waiting, []
        for _, _, job in waiting:
            self._finish(job.last)
        self._pump()

    def cancel(self, reason: str = CANCELLED, rule: str = "cancel") -> None:
        """Send no further command, and cut what is in work."""
        self._cut_by = reason
        self.stop(reason, rule)
        for task in self._work:
            task.cancel()

    async def close(self) -> None:
        """Cut what is in work, and wait until nothing of it is left; results that were not taken are lost."""
        if not self.results.ended:
            self.results.end(None)
            self.cancel()
        self._silence()
        tasks = [*self._work] if self._preparing is None else [self._preparing, *self._work]
        if tasks:
            await asyncio.wait(tasks)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        states, waiting = dict(self.results.states), len(self._waiting)
        return Progress(states, len(self._work), waiting, self._total, self._rules.rule)

    @property
    def under_way(self) -> list[tuple[Host, bool]]:
        """The hosts in work, those first that have been for the longest time, and whether the command was sent."""
        return [(visit.target.host, visit.sent is not None) for visit in list(self._work.values())]

    # What to do next

    def _soon(self) -> None:
        """Go on when all that has happened in this round of the event loop is known."""
        assert self._loop is not None
        if not self._called:
            self._called = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Do all that can be done now."""
        self._called = False
        if self._pumping or self._loop is None:
            return
        self._pumping = True
        try:
            while not self.results.ended and self._step(self._loop.time()):
                pass
        finally:
            self._pumping = False

    def _step(self, now: float) -> bool:
        """Do the next thing; return whether there was one."""
        if self._rules.stopped is None:
            if self._preparing is not None or not self._admission.room():
                return False
            if self._waiting and self._waiting[0][0] <= now:
                return self._may_begin(now) and self._begin(heapq.heappop(self._waiting)[-1], now)
            if self._waiting:
                self._wake_at(self._waiting[0][0])
        if self.results.full:
            return False
        target = self._hosts.peek()
        if target is None:
            if not self._work and not self._waiting:
                self._end()
            return False
        if target.repeated:
            return self._skip(target, "the run has this host already")
        if self._rules.stopped is not None:
            return self._skip(target, f"the command was not sent: {self._rules.stopped}")
        if not self._rules.left:
            if self._work or self._waiting:
                return False
            self._rules.next_batch(now)
        if not self._may_begin(now):
            return False
        self._rules.left -= 1
        self._hosts.take()
        return self._begin(_Job(target), now)

    def _may_begin(self, now: float) -> bool:
        when = max(self._admission.due(), self._rules.resume)
        if when > now:
            self._wake_at(when)
        return when <= now

    def _skip(self, target: Target, reason: str) -> bool:
        self._hosts.take()
        self._finish(skipped(target, reason))
        return True

    def _begin(self, job: _Job, now: float) -> bool:
        assert self._loop is not None
        visit = Visit(job.target, self._loop.time, self._connected, self._options.max_output, self._options.on_output)
        self._admission.begin(now)
        task = self._loop.create_task(self._transport(visit))
        self._work[task] = visit
        task.add_done_callback(partial(self._ended, job))
        return True

    async def _connected(self, visit: Visit) -> None:
        self._admission.connected()
        self._soon()
        if self._rules.stopped is None:
            await self._admission.turn(visit)
        if self._options.before_send is not None and self._rules.stopped is None:
            await self._prepare(visit.target.host, self._options.before_send)
        if self._rules.stopped is not None:  # of those connected, many more than the stop rule allows might run it
            raise _Stopped(f"the command was not sent: {self._rules.stopped}")

    async def _prepare(self, host: Host, before_send: BeforeSend) -> None:
        try:
            await before_send(host)
        except Exception as error:
            reason = error.reason if isinstance(error, RemctlError) else f"before_send raised {error!r}"
            raise _Stopped(f"the command was not sent: {reason}") from error

    def _prepared(self, preparing: asyncio.Task[object]) -> None:
        self._preparing = None
        if not preparing.cancelled() and (error := preparing.exception()) is not None and not self.results.ended:
            self._silence()
            self.results.end(error)
        self._pump()

    # What became of an attempt

    def _ended(self, job: _Job, task: asyncio.Task[None]) -> None:
        visit = self._work.pop(task)
        self._admission.end(visit)
        result = self._result(job, visit, task)
        if not self._again(job, visit, result):
            self._finish(result)
        self._soon()

    def _result(self, job: _Job, visit: Visit, task: asyncio.Task[None]) -> HostResult:
        target = job.target
        error: RemctlError | None = None
        raised = None if task.cancelled() else task.exception()
        if isinstance(raised, _Stopped):
            return job.last if job.attempts else skipped(target, raised.reason, raised.__cause__)
        if raised is not None and not isinstance(raised, RemctlError):
            logger.error("an attempt at %s failed", target.host.name, exc_info=raised)
        if visit.status is not None:
            state = HostState.NONZERO if visit.status else HostState.OK
        elif task.cancelled():
            error = self._cut(visit)
            state = state_of(error) if self._late else HostState.CANCELLED
        else:
            error = raised if isinstance(raised, RemctlError) else _internal(visit, raised)
            state = state_of(error)
        may_be_running = _unknown(state, error) or any(_unknown(each.state, each.error) for each in job.attempts)
        stdout, stderr = bytes(visit.stdout.data), bytes(visit.stderr.data)
        error = error or visit.failure
        if error is not None:
            error.host, error.port, error.principal = target.host.name, visit.port or None, target.principal
            error.stdout, error.stderr = stdout, stderr
        if raised is not None:
            _lighten(raised)
        return HostResult(
            target.host.name,
            state,
            visit.status,
            stdout,
            stderr,
            error,
            visit.port or None,
            target.index,
            tuple(job.attempts),
            visit.timings(),
            visit.stdout.size,
            visit.stderr.size,
            may_be_running,
        )

    def _cut(self, visit: Visit) -> RemctlError:
        sent = visit.sent is not None
        hint = RUNNING if sent else None
        command = visit.target.command.label() if sent else None
        if self._late:
            doing = "waiting for output" if sent else "opening the connection"
            text = f"the run's deadline of {self._options.deadline:g} s passed while {doing}"
            return RemctlTimeoutError(text, timeout=self._options.deadline, sent=sent, command=command, hint=hint)
        return RemctlError(self._cut_by, sent=sent, command=command, hint=hint)

    def _again(self, job: _Job, visit: Visit, result: HostResult) -> bool:
        """Whether there will be another attempt at the host; if so, it waits for it from here on."""
        assert self._loop is not None
        if self._rules.stopped is not None or result.state in (HostState.OK, HostState.CANCELLED):
            return False
        now = self._loop.time()
        if job.postponed < POSTPONED and self._hasty(visit, result, now):
            pause = _pause(*POSTPONING, job.postponed)
            job.postponed += 1
        elif result.state in self._options.retry_on and len(job.attempts) < self._options.retries:
            pause = _pause(self._options.backoff, LONGEST, len(job.attempts))
            job.attempts.append(Attempt(result.state, result.error, now - visit.begun))
        else:
            return False
        when = now + pause
        if self._deadline is not None and when >= self._deadline.when():
            return False
        job.last = result
        heapq.heappush(self._waiting, (when, job.target.index, job))
        return True

    def _hasty(self, visit: Visit, result: HostResult, now: float) -> bool:
        """Whether an attempt failed because there were too many at a time; if so, there are fewer from here on."""
        error = result.error
        if error is None or error.sent or visit.opened is not None:
            return False
        # The name service and Kerberos do not say so: to them, no name is known then, or no KDC answers.
        unsure = result.state in (HostState.DNS, HostState.AUTH)
        if is_shortage(error) or (unsure and self._admission.scarce()):
            return self._admission.short(now)
        if unsure and self._admission.was_short(visit):
            return True
        return getattr(error, "errno", None) in _ENDED and self._admission.ended_early(visit, now)

    def _finish(self, result: HostResult) -> None:
        self._rules.note(result)
        self.results.put(result)
        if self._rules.stopped is not None and self._waiting:
            self._wind_up()

    # Time

    def _wake_at(self, when: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _expire(self) -> None:
        self._late = True
        self.cancel(f"the run's deadline of {self._options.deadline:g} s has passed", "deadline")

    def _end(self) -> None:
        self._silence()
        self.results.end(self._hosts.error)

    def _silence(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()


def _pause(first: float, longest: float, number: int) -> float:
    """Return the seconds before another attempt: twice as many after each one, and never the same for all."""
    pause = min(first * 2.0 ** min(number, 100), longest)
    return pause * random.uniform(0.5, 1.5)  # noqa: S311  # nobody gains by guessing it


def skipped(target: Target, reason: str, cause: BaseException | None = None) -> HostResult:
    """Return the result of a host to which the command was not sent."""
    name, port = target.host.name, target.port or None
    error = RemctlError(reason, host=name, port=port, principal=target.principal)
    error.__cause__ = cause
    return HostResult(name, HostState.SKIPPED, error=error, port=port, index=target.index)


def _unknown(state: HostState, error: RemctlError | None) -> bool:
    """Whether nobody knows if the command of an attempt has run, or still runs."""
    return error is not None and error.sent and state not in (HostState.OK, HostState.NONZERO, HostState.DENIED)


def _lighten(error: BaseException) -> None:
    """Have an error, which may be kept for long, let go of the stack that it came from, and of all that is in it."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        if each.__suppress_context__:
            each.__context__ = None
        each = each.__cause__ or each.__context__


class _Stopped(RemctlError):
    """A stop rule came before the command was sent."""


def _internal(visit: Visit, error: BaseException | None) -> RemctlError:
    """Make an error of a fault of ours, which is one host's failure, and not the end of the run."""
    ours = RemctlError(f"internal failure: {error!r}", sent=visit.sent is not None)
    ours.__cause__ = error
    return ours
