"""The algorithm: what is asked, in which order, and what becomes of a job whatever happens between two steps.

    idle       Ready; no new job: the end, or a pause            (--forever)
    claiming   the job is taken, and written down
    starting   the orchestrator is told; then the script begins
    running    Working, again and again; the answer may be to stop or to abort
    reporting  the end is written down, then told until it is taken; then Ready

Each step writes down what it is about to do (`_spool`), so that the next start goes on from there.  One thread asks
and waits; the script is in other hands, so no request that hangs keeps it from being stopped.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from remctl.exceptions import RemctlError
from remctl.jobs.robot._environment import PARAMETERS, environment
from remctl.jobs.robot._errors import (
    CredentialsError,
    LeavingError,
    NotNowError,
    RefusedError,
    UnknownRobotError,
)
from remctl.jobs.robot._failpoints import reached
from remctl.jobs.robot._orchestrator import Orchestrator
from remctl.jobs.robot._pace import Pace
from remctl.jobs.robot._running import End, Order, Running, Runs, system
from remctl.jobs.robot._scripts import find
from remctl.jobs.robot._spool import Result, Spool, Taken
from remctl.jobs.robot._wire import Beat, Code, Job, Status, line
from remctl.jobs.states import JobState

logger = logging.getLogger(__name__)

T = TypeVar("T")

SLICE: Final = 0.1
"""Seconds that pass at most before it is seen that somebody wants the agent to end."""

ASKED: Final[Mapping[int, JobState]] = {Code.ABORTING: JobState.ABORTED, Code.STOPPING: JobState.STOPPED}
"""What becomes of a job that the orchestrator wants ended."""


class Options(NamedTuple):
    """How an agent works."""

    scripts: Path
    """The folder of the scripts."""
    python: str
    """The interpreter's path."""
    interval: float = 10.0
    """Seconds between two signs of life."""
    grace: float = 10.0
    """Seconds that a script has to end when it is stopped."""
    run_time: float | None = None
    """Seconds after which a script is stopped; None: never."""
    forever: bool = False
    """Whether to wait for jobs when there are none."""
    patience: float | None = 300.0
    """Seconds after which an orchestrator that cannot be used is given up; None: never."""


class Agent:
    """See the module.

    Args:
        orchestrator: which hands out the jobs.
        spool: which this agent alone uses.
        options: see there.
        runs: what runs the scripts.

    `run` works; `leave` may be called at any time, from any thread and signal handler.
    """

    def __init__(self, orchestrator: Orchestrator, spool: Spool, options: Options, runs: Runs | None = None) -> None:
        self._orchestrator = orchestrator
        self._spool = spool
        self._options = options
        self._runs = runs or system()
        self._pace = Pace(options.interval, options.patience)
        self._running: Running | None = None
        self._leaving = False
        self._leave_at: float | None = None
        self._beat_at = -options.interval  # when the last sign of life was sent

    def run(self) -> None:
        """Work until there are no more jobs.

        Raises:
            LeavingError: `leave` was called.
            UnreachableError, UnknownRobotError, CredentialsError: the orchestrator is of no use.
            OSError: the state folder is not.
        """
        self._settle()
        while True:
            self._deliver()  # before anything new
            taken = self._spool.taken() or self._claim()
            if taken is not None:
                self._pace.busy()
                self._work(taken)
            elif not self._options.forever:
                return
            else:
                self._pause(self._pace.idle())

    def leave(self) -> None:
        """End soon: stop the script, tell how it ended, and do nothing new; a second call kills the script."""
        again, self._leaving = self._leaving, True
        if (running := self._running) is not None:
            if again:
                running.abort()
            else:
                running.stop()

    # What an agent before this one has left

    def _settle(self) -> None:
        """Find out what became of the job that an agent had which was killed."""
        taken = self._spool.taken()
        if taken is None:
            return
        folder = self._spool.run_folder(taken.run)
        if folder.exists():
            while self._runs.still_runs(folder):
                self._pause(SLICE)
                self._go_on()
        end = self._runs.after(folder) if taken.begun else None
        if end is not None:
            self._end(taken, end)
        elif folder.exists():
            self._spool.take_back(taken)

    # Idle, claiming

    def _claim(self) -> Taken | None:
        """Look for a job; None if there is none, or this machine cannot have it."""
        while self._ready().has_job:
            if not self._has_room():
                return None
            job = self._ask(self._orchestrator.consume)
            reached("after_consume")
            if job is not None:
                self._pace.worked()
                taken = self._spool.take(job)
                logger.info("took job %s: script %r", job.guid, line(job.name))
                reached("after_take")
                return taken
            self._failed(NotNowError("there is a new job, it says, and hands out none"))
        self._pace.worked()
        return None

    def _has_room(self) -> bool:
        """Say whether the disk has room for a job, which other robots of the pool may have otherwise."""
        try:
            self._spool.check_room()
        except OSError as error:
            if not self._options.forever:
                raise
            logger.error("no job is taken: %s: %s", self._spool.folder, error.strerror)  # noqa: TRY400
            return False
        return True

    def _ready(self) -> Beat:
        # Jobs that end at once, one after another, make no more requests than the orchestrator can take.
        self._pause(self._beat_at + min(1.0, self._options.interval / 10) - time.monotonic())
        beat = self._ask(lambda: self._beat(Status.READY))
        if beat.code in ASKED:
            logger.info("the orchestrator wants a script ended, and none runs")
        elif beat.code:
            logger.warning("the orchestrator answers with error %d: %s", beat.code, beat.text)
        return beat

    # Starting

    def _work(self, taken: Taken) -> None:
        """Do a job that has not begun."""
        job = taken.job
        try:
            self._ask(lambda: self._orchestrator.update(job.guid, JobState.IN_PROGRESS))
        except RefusedError as error:
            self._end(taken, self._unwanted(job, error))
            return
        self._pace.worked()
        try:
            running = self._prepare(taken)
        except (RemctlError, OSError) as error:
            self._end(taken, End(JobState.FAILED, f"it could not be started: {error}"))
            return
        with contextlib.closing(running):
            self._end(taken, self._run(taken, running))

    def _unwanted(self, job: Job, error: RefusedError) -> End:
        """Find out why a job must not begin: it may be that it is to be stopped already."""
        self._pause(self._until_beat())
        code = self._working(job)
        return End(ASKED.get(code, JobState.FAILED), f"the orchestrator does not let it begin: {error}")

    def _prepare(self, taken: Taken) -> Running:
        options, folder = self._options, self._spool.run_folder(taken.run)
        script = find(options.scripts, taken.job.name)
        work = folder / "work"
        for each in (folder, work):
            each.mkdir(mode=0o700)
        return self._runs.prepare(
            Order(
                folder,
                [options.python, str(script)],
                environment(taken.job, folder / PARAMETERS),
                work,
                options.run_time,
                options.grace,
            )
        )

    # Running

    def _run(self, taken: Taken, running: Running) -> End:
        """Have a script run, and give signs of life until it has ended."""
        reached("before_start")
        self._spool.begin(taken)
        self._running = running
        aborted = False
        try:
            if self._leaving:
                running.stop()
            running.release()
            reached("after_start")
            while (end := running.wait(self._until_beat())) is None:
                code = self._working(taken.job)
                if code == Code.ABORTING:
                    aborted = True
                    running.abort()
                elif code == Code.STOPPING:
                    running.stop()
            # Who was to end in peace, and then at once, was aborted.
            return end._replace(state=JobState.ABORTED) if aborted and end.state is JobState.STOPPED else end
        finally:
            self._running = None

    def _working(self, job: Job) -> int:
        """Give a sign of life; return the error code, 0 if there was no answer."""
        try:
            beat = self._beat(Status.WORKING, job)
        except (NotNowError, UnknownRobotError, CredentialsError) as error:
            logger.warning("no answer to a sign of life, and job %s goes on: %s", job.guid, error)
            return 0
        if beat.code:
            logger.info("answer to a sign of life for job %s: %d %s", job.guid, beat.code, beat.text)
        return beat.code

    def _beat(self, status: Status, job: Job | None = None) -> Beat:
        self._beat_at = time.monotonic()
        return self._orchestrator.heartbeat(status, job)

    def _until_beat(self) -> float:
        return max(0.0, self._beat_at + self._options.interval - time.monotonic())

    # Reporting

    def _end(self, taken: Taken, end: End) -> None:
        """Write down how a job has ended."""
        level = logging.INFO if end.state is not JobState.FAILED else logging.ERROR
        logger.log(level, "job %s ended: %s, %s", taken.job.guid, end.state.name.capitalize(), end.why)
        self._spool.end(taken, end.state, line(end.why))
        (self._spool.run_folder(taken.run) / PARAMETERS).unlink(missing_ok=True)  # there may be secrets in it
        reached("before_report")

    def _deliver(self) -> None:
        """Tell all that has to be told."""
        for result in self._spool.results():
            try:
                self._ask(lambda: self._report(result), leaving=True)  # noqa: B023  # it is called at once
            except RefusedError as error:
                where = self._spool.refuse(result)
                logger.error(  # noqa: TRY400
                    "the orchestrator does not take that job %s is %s: %s; kept as %s",
                    result.guid,
                    result.state.name.capitalize(),
                    error,
                    where,
                )
            else:
                reached("after_report")
                self._spool.told(result)
            self._pace.worked()
        self._go_on()

    def _report(self, result: Result) -> None:
        self._orchestrator.update(result.guid, result.state)

    # Asking and waiting

    def _ask(self, call: Callable[[], T], *, leaving: bool = False) -> T:
        """Ask until there is an answer.

        Args:
            call: the request.
            leaving: whether to ask, for as long as the grace, when somebody wants the agent to end.
        """
        while True:
            if not leaving:
                self._go_on()
            try:
                return call()
            except NotNowError as error:
                self._failed(error)

    def _failed(self, error: NotNowError) -> None:
        pause = self._pace.failed(error)
        logger.warning("%s; next try in %.1f s", error, pause)
        if not self._leaving:
            self._pause(pause)
            return
        now = time.monotonic()
        self._leave_at = now + self._options.grace if self._leave_at is None else self._leave_at
        if now >= self._leave_at:
            self._go_on()
        time.sleep(max(0.0, min(pause, self._leave_at - now)))

    def _pause(self, seconds: float) -> None:
        """Wait, unless somebody wants the agent to end."""
        until = time.monotonic() + seconds
        while not self._leaving and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))

    def _go_on(self) -> None:
        """Go on, unless somebody wants the agent to end.

        Raises:
            LeavingError: somebody does.
        """
        if self._leaving:
            raise LeavingError(
                "the agent was asked to end", hint="what is not told is kept, and told by the next start"
            )
