"""A run on an executor's workers: hosts go there in shards, and each shard is a run of its own.

What stops a run stops it here: no further shard is handed out.  A worker can be told so only beforehand: how many
failures and how many seconds are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from remctl.exceptions import RemctlError, RemctlTimeoutError
from remctl.fanout._attempt import RemctlTransport, credentials_of
from remctl.fanout._classify import state_of
from remctl.fanout._collecting import Progress, Results
from remctl.fanout._engine import CANCELLED, RUNNING, STOPPED, Engine, skipped
from remctl.fanout._hosts import Ahead, Host, Target
from remctl.fanout._once import once
from remctl.fanout._options import Options
from remctl.fanout._results import HostResult, HostState
from remctl.fanout._rules import Rules
from remctl.fanout._tickets import Tickets

OUT: Final = 32
"""Shards that are handed out at the same time."""

GRACE: Final = 5.0
"""Seconds after the run's deadline for which shards, which have one of their own, are waited for."""

SOON: Final = 0.001
"""Seconds that a shard has at the least, since 0 would be without limit."""

_EXACT: Final = (ProcessPoolExecutor, ThreadPoolExecutor)
"""Executors whose futures can be cancelled only while nothing has begun; Dask's, for example, always can."""

Shard = Future[list[HostResult]]


class Shards:
    """See the module; to the faces it is what an `Engine` is.

    Args:
        hosts: whom to visit.
        total: how many there are; None if that is not known.
        options: how to go about it; the limits are those of each shard.
    """

    def __init__(self, hosts: Iterator[Target], total: int | None, options: Options) -> None:
        assert options.executor is not None
        self.results = Results(ordered=options.ordered, room=self._pump)
        self._hosts = Ahead(hosts)
        self._total = total
        self._options = options
        self._executor = options.executor
        self._rules = Rules(max_fail=options.max_fail, canary=options.canary, batch=options.batch, pause=options.pause)
        self._out: dict[Shard, list[Target]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._deadline: float | None = None
        self._error: Exception | None = None
        self._pumping = False

    # What the faces do with it

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        if (seconds := self._options.deadline) is not None:
            self._deadline = self._loop.time() + seconds
            reason = f"the run's deadline of {seconds:g} s has passed"
            self._timers.append(self._loop.call_later(seconds, self.stop, reason, "deadline"))
            late = RemctlTimeoutError(f"{reason}, and the executor has not answered", timeout=seconds)
            self._timers.append(self._loop.call_later(seconds + GRACE, self._give_up, HostState.TIMEOUT, late))
        self._pump()

    def stop(self, reason: str = STOPPED, rule: str = "stop") -> None:
        """Hand out no further shard, and take back those that no worker has begun with."""
        self._rules.stop(rule, reason)
        self._take_back()

    def _take_back(self) -> None:
        for shard in list(self._out) if isinstance(self._executor, _EXACT) else ():
            if shard.cancel():
                for target in self._out.pop(shard):
                    self._put(self._skipped(target))
        self._pump()

    def cancel(self, reason: str = CANCELLED) -> None:
        """Hand out no further shard, and give up those that have not come back: a worker cannot be cut."""
        self.stop(reason, "cancel")
        self._give_up(HostState.CANCELLED, RemctlError(reason))

    async def close(self) -> None:
        """Give up all that has not come back."""
        if not self.results.ended:
            self.results.end(None)
            self.cancel()
        self._silence()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        states, working = dict(self.results.states), sum(map(len, self._out.values()))
        return Progress(states, working, 0, self._total, self._rules.rule)

    @property
    def under_way(self) -> list[tuple[Host, bool]]:
        """The hosts that were handed out; of all of them it is not known whether the command was sent."""
        return [(target.host, True) for targets in list(self._out.values()) for target in targets]

    # What to do next

    def _pump(self) -> None:
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
        if self.results.full:
            return False
        target = self._hosts.peek()
        if target is None:
            if not self._out:
                self._silence()
                self.results.end(self._error or self._hosts.error)
            return False
        if target.repeated or self._rules.stopped is not None:
            self._hosts.take()
            self._put(skipped(target, "the run has this host already") if target.repeated else self._skipped(target))
            return True
        if len(self._out) >= OUT:
            return False
        if not self._rules.left:
            if self._out:
                return False
            self._rules.next_batch(now)
            assert self._loop is not None
            self._timers = [timer for timer in self._timers if timer.when() > now]
            self._timers.append(self._loop.call_at(self._rules.resume, self._pump))
        if self._rules.resume > now:
            return False
        self._submit(self._gathered(), now)
        return True

    def _gathered(self) -> list[Target]:
        targets: list[Target] = []
        most = min(self._options.shard, self._rules.left)
        while len(targets) < most and (target := self._hosts.peek()) is not None and not target.repeated:
            targets.append(target)
            self._hosts.take()
        self._rules.left -= len(targets)
        return targets

    def _submit(self, targets: list[Target], now: float) -> None:
        options = dataclasses.replace(
            self._options,
            command=None,  # each target has its own
            executor=None,
            ordered=False,
            max_fail=self._rules.failures_left,
            canary=None,
            batch=None,
            deadline=None if self._deadline is None else max(SOON, self._deadline - now),
        )
        try:
            shard = self._executor.submit(
                visit, targets, options, end=End.after(options.deadline), name=uuid.uuid4().hex
            )
        except Exception as error:  # the caller's executor, who gets it when the others have come to their end
            self._error = error
            self._rules.stop("executor", f"the executor takes nothing: {error!r}")
            for target in targets:
                self._put(self._skipped(target))
            return
        assert self._loop is not None
        self._out[shard] = targets
        shard.add_done_callback(partial(self._tell, self._loop))

    # What became of a shard

    def _tell(self, loop: asyncio.AbstractEventLoop, shard: Shard) -> None:
        """Hand a shard that is done to the event loop; on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits for it
            loop.call_soon_threadsafe(self._ended, shard)

    def _ended(self, shard: Shard) -> None:
        targets = self._out.pop(shard, None)
        if targets is None:
            return
        error = None if shard.cancelled() else shard.exception()
        if error is None and not shard.cancelled():
            for result in shard.result():
                self._put(result)
        elif isinstance(error, RemctlError):  # before anything was sent: no ticket, for example
            self._lose(targets, state_of(error), error, may_be_running=False)
        else:
            text = f"the executor gave nothing back: {error!r}" if error else "the executor has cancelled it"
            self._lose(targets, HostState.LOST, RemctlError(text))
        self._pump()

    def _give_up(self, state: HostState, error: RemctlError) -> None:
        for shard, targets in list(self._out.items()):
            del self._out[shard]
            shard.cancel()
            self._lose(targets, state, error)
        self._pump()

    def _lose(
        self, targets: list[Target], state: HostState, error: RemctlError, *, may_be_running: bool = True
    ) -> None:
        error.sent = may_be_running
        error.hint = RUNNING if may_be_running else error.hint
        for target in targets:
            name, port = target.host.name, target.port or None
            its = type(error).__new__(type(error), *error.args)  # where Dask is loaded, copy() shares attributes
            vars(its).update(vars(error))
            its.host, its.port, its.principal = name, port, target.principal
            its.__cause__ = error.__cause__
            self._put(HostResult(name, state, error=its, port=port, index=target.index, may_be_running=may_be_running))

    def _skipped(self, target: Target) -> HostResult:
        return skipped(target, f"the command was not sent: {self._rules.stopped}")

    def _put(self, result: HostResult) -> None:
        stopped = self._rules.stopped
        self._rules.note(result)
        self.results.put(result)
        if stopped is None and self._rules.stopped is not None:
            self._take_back()

    def _silence(self) -> None:
        for timer in self._timers:
            timer.cancel()


class End(NamedTuple):
    """When a run ends, for workers of the same machine: a shard may have waited long for its worker."""

    machine: str
    """Which machine's clock it is, and since which start of it; empty if nobody knows."""
    when: float

    @classmethod
    def after(cls, seconds: float | None) -> End | None:
        """Return the end of a run that goes on for so many seconds; None is without end."""
        return None if seconds is None else cls(_machine(), time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds until then; on other machines, which cannot know, as many as there may be."""
        return max(SOON, self.when - time.monotonic()) if self.machine and self.machine == _machine() else math.inf


def _machine() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    return ""


def visit(targets: list[Target], options: Options, *, end: End | None, name: str) -> list[HostResult]:
    """Visit the hosts of a shard; in a worker.

    Args:
        targets: whom to visit.
        options: how to go about it.
        end: of the run; None is without end.
        name: of the shard, which makes it differ from all others: Dask takes calls that are alike for one.

    Raises:
        RemctlError: nothing was sent.
        RuntimeError: another worker has begun with the shard.
    """
    once(name)
    if end is not None and options.deadline is not None:
        options = dataclasses.replace(options, deadline=min(options.deadline, end.left()))
    return asyncio.run(_visit(targets, options))


async def _visit(targets: list[Target], options: Options) -> list[HostResult]:
    async with Tickets(credentials_of(options)) as tickets:
        transport = RemctlTransport(options, tickets.lease)
        before = partial(tickets.check, options.deadline)
        engine = Engine(iter(targets), len(targets), options, transport, before)
        engine.start()
        results: list[HostResult] = []
        try:
            while some := await engine.results.take_all():
                results += some
        finally:
            await engine.close()
        return results
