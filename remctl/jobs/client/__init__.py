"""The clients of the remctl command `job`: `Client` here, which blocks, and its twin `remctl.jobs.aio.Client`.

What they share, the questions, the answers and the errors, is in `_asking`, and in `_answers` and `_json` beside this
folder, which the server has as well.
"""

from remctl.jobs._answers import (
    Attempt,
    EndEvent,
    Event,
    GapEvent,
    History,
    Job,
    JobEvent,
    Machine,
    Output,
    OutputEvent,
    Robot,
    Script,
    StateEvent,
)
from remctl.jobs.client._asking import (
    JobAnswerError,
    JobDeniedError,
    JobError,
    JobParameterError,
    JobStateError,
    JobsUnavailableError,
    JobTimeoutError,
    NoSuchJobError,
    NoSuchScriptError,
)
from remctl.jobs.client._client import Client

__all__ = [
    "Attempt",
    "Client",
    "EndEvent",
    "Event",
    "GapEvent",
    "History",
    "Job",
    "JobAnswerError",
    "JobDeniedError",
    "JobError",
    "JobEvent",
    "JobParameterError",
    "JobStateError",
    "JobTimeoutError",
    "JobsUnavailableError",
    "Machine",
    "NoSuchJobError",
    "NoSuchScriptError",
    "Output",
    "OutputEvent",
    "Robot",
    "Script",
    "StateEvent",
]
