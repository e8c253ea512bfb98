"""Scripts on Linux: each in the hands of a keeper (`remctl.jobs.attempt`), which outlives the agent."""

from __future__ import annotations

from pathlib import Path

from remctl.jobs.attempt import Attempt, DamagedEndingError, Ending, Limits, Reason, is_kept, read_ending
from remctl.jobs.robot._running import DRAIN, LOST, OUTPUT, End, Order, Running
from remctl.jobs.states import JobState


class KeptRun:
    """See `Running`.

    Args:
        attempt: which is not released.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.release = attempt.release
        self.stop = attempt.stop
        self.abort = attempt.abort
        self.close = attempt.close

    def wait(self, timeout: float) -> End | None:
        """See `Running`."""
        ending = self._attempt.wait(timeout)
        return None if ending is None else meaning(ending)


class KeptRuns:
    """See `Runs`."""

    def prepare(self, order: Order) -> Running:
        """See `Runs`."""
        limits = Limits(order.run_time, order.grace, DRAIN, OUTPUT)
        return KeptRun(Attempt.prepare(order.folder, order.argv, env=order.env, cwd=order.cwd, limits=limits))

    def still_runs(self, folder: Path) -> bool:
        """See `Runs`."""
        return is_kept(folder)

    def after(self, folder: Path) -> End | None:
        """See `Runs`."""
        try:
            ending = read_ending(folder)
        except DamagedEndingError as error:
            return End(JobState.FAILED, str(error))
        if ending is None:
            return LOST
        if ending.reason is Reason.RUNNER_LOST and not ending.started:
            return None
        return meaning(ending)


def meaning(ending: Ending) -> End:
    """Return what a keeper's ending means for the job."""
    match ending.reason:
        case Reason.EXIT if ending.status == 0:
            return End(JobState.SUCCESS, "exit status 0")
        case Reason.EXIT:
            return End(JobState.FAILED, f"exit status {ending.status}")
        case Reason.STOPPED:
            return End(JobState.STOPPED, "it was stopped")
        case Reason.ABORTED:
            return End(JobState.ABORTED, "it was killed")
        case Reason.SIGNAL:
            return End(JobState.FAILED, f"signal {ending.signal} ended it")
        case Reason.TIME_LIMIT:
            return End(JobState.FAILED, "it ran for longer than it may")
        case Reason.NOT_STARTED:
            return End(JobState.FAILED, f"it could not be started: {ending.error}")
        case Reason.RUNNER_LOST:
            return End(JobState.FAILED, "the agent was killed, and its script stopped")
        case Reason.LOST:
            return End(JobState.FAILED, "its keeper was killed")
