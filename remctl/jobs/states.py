"""The life of a job: its states, what moves it from one to the next, and why it ended.

One table, `MOVES`, says which moves there are; the store asks it before each write, and nothing else knows.  The
numbers are those of the robots' interface, so that a state is the same number in the database and on the wire.

    Created -> Pending -> In_Progress -> Success | Failed
                  |            |-> Stopping -> Stopped
                  |            `-> Aborting -> Aborted
                  `-> (stopped or aborted at once where nobody has begun)

A job that a runner has claimed and not yet started is still Pending: its process is held until the claim is written
down.  Jobs that ran out of time, that were lost, or that could not be started are Failed; `Reason` tells them apart.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from remctl.exceptions import RemctlError


class JobState(enum.IntEnum):
    """Where a job stands."""

    CREATED = 0
    """It is being put together, and nobody takes it."""
    PENDING = 1
    """It waits to be taken (READY)."""
    ABORTING = 2
    """Somebody wants it killed."""
    ABORTED = 3
    SUCCESS = 4
    FAILED = 5
    STOPPING = 6
    """Somebody wants it to end in peace."""
    STOPPED = 7
    IN_PROGRESS = 8
    """Its script runs (RUNNING)."""

    @property
    def final(self) -> bool:
        """Whether it is over; only a retry leads on from here."""
        return self in FINAL

    @property
    def live(self) -> bool:
        """Whether its script may be running."""
        return self in LIVE


FINAL: Final = frozenset({JobState.ABORTED, JobState.SUCCESS, JobState.FAILED, JobState.STOPPED})
LIVE: Final = frozenset({JobState.IN_PROGRESS, JobState.STOPPING, JobState.ABORTING})


class RobotStatus(enum.IntEnum):
    """What a robot is doing."""

    DISCONNECTED = 0
    """It was not heard of for a while."""
    UNLICENSED = 1
    """It may not work: an administrator has not licensed it, or has turned it off."""
    READY = 2
    WORKING = 3


class Move(enum.Enum):
    """What happens to a job."""

    QUEUE = "queue"
    """It is complete, and may be taken."""
    START = "start"
    """Its script begins."""
    SUCCEED = "succeed"
    FAIL = "fail"
    ASK_STOP = "ask to stop"
    """Somebody wants it to end, and a runner or robot has it."""
    ASK_ABORT = "ask to abort"
    STOP = "stop"
    """It has ended because it was asked to."""
    ABORT = "abort"
    """It was killed because somebody wanted it."""
    RETRY = "retry"
    """It is to run again, in an attempt of its own."""


class Reason(enum.StrEnum):
    """Why a job ended as it did; beside the state."""

    EXIT = "exit"
    """The script ended by itself, with an exit status."""
    REPORT = "report"
    """The script, or a robot, said how it ended."""
    SIGNAL = "signal"
    """A signal ended the script that nobody here has sent."""
    TIME_LIMIT = "time-limit"
    NOT_STARTED = "not-started"
    """The script was changed, turned off, or could not be executed."""
    LOST = "lost"
    """Whoever ran it has vanished, and how it ended is not known."""
    CRASHES = "crashes"
    """It was lost in each of so many attempts that it is not tried again."""
    STOPPED = "stopped"
    """Somebody asked for it."""
    ABORTED = "aborted"
    """Somebody asked for it."""


class IllegalMoveError(RemctlError):
    """A job cannot move so from where it stands; nothing was changed."""

    state: JobState
    """Where it stands."""
    move: Move
    """What was wanted."""

    def __init__(self, state: JobState = JobState.CREATED, move: Move = Move.QUEUE) -> None:
        super().__init__(f"a job that is {state.name} cannot {move.value}")
        self.args = (state, move)
        self.state = state
        self.move = move


_S, _M = JobState, Move

MOVES: Final[Mapping[JobState, Mapping[Move, JobState]]] = MappingProxyType(
    {
        _S.CREATED: {_M.QUEUE: _S.PENDING, _M.STOP: _S.STOPPED, _M.ABORT: _S.ABORTED},
        _S.PENDING: {
            _M.START: _S.IN_PROGRESS,
            _M.FAIL: _S.FAILED,
            _M.ASK_STOP: _S.STOPPING,
            _M.ASK_ABORT: _S.ABORTING,
            _M.STOP: _S.STOPPED,
            _M.ABORT: _S.ABORTED,
        },
        _S.IN_PROGRESS: {
            _M.SUCCEED: _S.SUCCESS,
            _M.FAIL: _S.FAILED,
            _M.ASK_STOP: _S.STOPPING,
            _M.ASK_ABORT: _S.ABORTING,
            _M.STOP: _S.STOPPED,
            _M.ABORT: _S.ABORTED,
            _M.RETRY: _S.PENDING,
        },
        # What was asked for and what the script does may cross: how it has ended in truth counts.
        _S.STOPPING: {
            _M.SUCCEED: _S.SUCCESS,
            _M.FAIL: _S.FAILED,
            _M.ASK_ABORT: _S.ABORTING,
            _M.STOP: _S.STOPPED,
            _M.ABORT: _S.ABORTED,
        },
        _S.ABORTING: {
            _M.SUCCEED: _S.SUCCESS,
            _M.FAIL: _S.FAILED,
            _M.STOP: _S.STOPPED,
            _M.ABORT: _S.ABORTED,
        },
        _S.ABORTED: {_M.RETRY: _S.PENDING},
        _S.FAILED: {_M.RETRY: _S.PENDING},
        _S.STOPPED: {_M.RETRY: _S.PENDING},
        _S.SUCCESS: {},
    }
)
"""From each state, where each move leads."""


def moved(state: JobState, move: Move) -> JobState:
    """Return where a move leads.

    Raises:
        IllegalMoveError: it is not possible from there.
    """
    try:
        return MOVES[state][move]
    except KeyError:
        raise IllegalMoveError(state, move) from None


def outcome(reason: Reason, exit_status: int | None, reported: bool | None) -> tuple[Move, Reason]:
    """Return how a job ends whose process has ended; both what it said and what it did count, and the worse wins.

    | the process                      | it reported | the job                    |
    |----------------------------------|-------------|----------------------------|
    | was stopped or aborted           | anything    | Stopped, Aborted           |
    | ran out of time, was lost, ...   | anything    | Failed, for that reason    |
    | ended by a signal                | anything    | Failed: signal             |
    | exited with another status than 0| anything    | Failed: exit               |
    | exited with 0                    | failure     | Failed: report             |
    | exited with 0                    | success     | Success: report            |
    | exited with 0                    | nothing     | Success: exit              |

    Args:
        reason: how the process ended.
        exit_status: its exit status, if it has one.
        reported: whether it said that it succeeded; None if it said nothing.
    """
    if reason is Reason.STOPPED:
        return Move.STOP, reason
    if reason is Reason.ABORTED:
        return Move.ABORT, reason
    if reason is not Reason.EXIT or exit_status != 0:
        return Move.FAIL, reason
    if reported is None:
        return Move.SUCCEED, Reason.EXIT
    return (Move.SUCCEED if reported else Move.FAIL), Reason.REPORT
