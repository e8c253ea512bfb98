"""What can go wrong for an agent, and the exit status that each of it leads to."""

from __future__ import annotations

from typing import ClassVar

from remctl.exceptions import RemctlError


class RobotError(RemctlError):
    """Root of the errors of this package."""

    exit_status: ClassVar[int] = 1


class CommandLineError(RobotError):
    """An option makes no sense."""

    exit_status = 2


class UnreachableError(RobotError):
    """The orchestrator gave no answer that can be used, for as long as the agent has patience."""

    exit_status = 3


class UnknownRobotError(RobotError):
    """The orchestrator knows no robot of this GUID."""

    exit_status = 4


class CredentialsError(RobotError):
    """The orchestrator does not let this robot in."""

    exit_status = 5


class OccupiedError(RobotError):
    """Another agent works in the state folder."""

    exit_status = 6


class LeavingError(RobotError):
    """Somebody has asked the agent to end."""

    exit_status = 7


class NotNowError(RobotError):
    """There was no answer, or none that can be used; the next try may be better."""


class RefusedError(RobotError):
    """The orchestrator does not take what it was told about a job, and will not later."""


class ScriptError(RobotError):
    """There is no script of this name that may be run."""
