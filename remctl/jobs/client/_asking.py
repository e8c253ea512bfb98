"""What a client asks the remctl command `job`, and what it makes of the answers; without talking to anybody.

The twins `client` and `aio` add the talking.  Arguments are checked here, before anything is sent.
"""

from __future__ import annotations

import math
import operator
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, Unpack

from remctl import _arguments
from remctl._arguments import printable
from remctl.exceptions import Evidence, RemctlError
from remctl.jobs import _answers, _json
from remctl.jobs._answers import (
    ALIVE,
    AliveEvent,
    EndEvent,
    GapEvent,
    History,
    Job,
    JobEvent,
    Machine,
    Output,
    OutputEvent,
    Robot,
    Said,
    Script,
    StateEvent,
    Stream,
    TimeoutEvent,
)
from remctl.jobs._json import Unreadable
from remctl.jobs.states import JobState
from remctl.types import Result

T = TypeVar("T")

SILENCE: Final = 3 * ALIVE
"""Seconds without a word after which a connection on which somebody waits is taken for lost."""

LATE: Final = 5.0
"""Seconds that a server has to say itself that the time limit has passed."""

PAUSES: Final = (0.1, 5.0)
"""Seconds between two attempts to reach a server again: the first, and the longest."""


# What can go wrong


class JobError(RemctlError):
    """The server's `job` command has not done what it was asked to; the root of those below."""


class NoSuchJobError(JobError):
    """There is no such job, or it is not for the caller to see."""


class NoSuchScriptError(JobError):
    """There is no script of that name, or it is turned off."""


class JobDeniedError(JobError):
    """The caller may not do that."""


class JobParameterError(JobError):
    """A parameter of a job is missing, unknown or wrong."""

    parameter: str | None = None
    """Its name, where the server says it."""


class JobStateError(JobError):
    """It cannot be done as things stand: the job is over, or is not, or its secrets are forgotten."""


class JobsUnavailableError(JobError):
    """The server cannot reach its database; asking later helps."""


class JobAnswerError(JobError):
    """The answer cannot be understood: what is called `job` on that server is something else, or a later version."""


class JobTimeoutError(JobError, TimeoutError):
    """The time limit of a wait has passed, and the job goes on."""

    state: JobState | None
    """Where it stood when it was last heard of; None if it never was."""

    def __init__(self, reason: str = "", *, state: JobState | None = None, **evidence: Unpack[Evidence]) -> None:
        super().__init__(reason, **evidence)
        self.state = state


_KINDS: Final[Mapping[str, type[JobError]]] = {
    "no-such-job": NoSuchJobError,
    "no-such-script": NoSuchScriptError,
    "denied": JobDeniedError,
    "parameter": JobParameterError,
    "state": JobStateError,
    "unavailable": JobsUnavailableError,
}


# One question


class Ask(NamedTuple, Generic[T]):
    """A command, and how its answer is read."""

    words: tuple[str | bytes, ...]
    read: Callable[[bytes], T]
    again: bool = True
    """Whether doing it twice does no more than doing it once."""

    def answer(self, result: Result, host: str) -> T:
        """Return what a result says.

        Raises:
            JobError: that it was not done, or nothing that can be understood.
        """
        if result.status:
            raise failure(self.words, result, host)
        try:
            return self.read(result.stdout)
        except Unreadable as error:
            raise unreadable(self.words, error, host, result.stdout) from None


def scripts() -> Ask[list[Script]]:
    """Which scripts there are."""
    return _asked(list[Script], "scripts")


def script(name: object) -> Ask[Script]:
    """What one script takes."""
    return _asked(Script, "script", _arguments.check_text("name", name))


def submit(
    script: object,
    parameters: Mapping[str, Any],
    priority: object,
    delay: object,
    guid: str | uuid.UUID | None,
    robot: object = None,
    pool: object = None,
) -> Ask[Job]:
    """Make a job; the GUID is what makes it safe to ask twice."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping, and is {type(parameters).__name__}")
    data = _json.written_parameters(parameters)
    if robot is not None and pool is not None:
        raise ValueError("robot and pool cannot be given both")
    options = [
        f"--priority={_integer('priority', priority, -100, 100)}",
        f"--delay={_delay(delay)}",
        f"--guid={uuid.uuid4() if guid is None else _answers.as_guid(guid)}",
        "--stdin",
        *_given(robot=robot, pool=pool),
    ]
    return _asked(Job, "submit", _arguments.check_text("script", script), data, options=options)


def job(number: object) -> Ask[Job]:
    """How a job stands."""
    return _asked(Job, "status", _number(number))


def jobs(owner: object, states: Sequence[JobState], script: object, before: object, limit: object) -> Ask[list[Job]]:
    """Which jobs there are."""
    options = [f"--limit={_integer('limit', limit, 1, 1000)}"]
    options += [f"--state={_answers.shown(JobState(state))}" for state in states]
    options += _given(owner=owner, script=script)
    if before is not None:
        options.append(f"--before={_integer('before', before, 1, 10**18 - 1)}")
    return _asked(list[Job], "list", options=options)


def history(number: object) -> Ask[History]:
    """What has happened to a job."""
    return _asked(History, "history", _number(number))


def output(number: object) -> Ask[Output]:
    """What a job has written."""
    return Ask(("job", "output", "--json", "--", _number(number)), _collected)


def change(verb: str, number: object) -> Ask[Job]:
    """Stop, abort or retry a job; a retry that has come to its end already would be another one."""
    return _asked(Job, verb, _number(number), again=verb != "retry")


def machines() -> Ask[list[Machine]]:
    """Which machines there are."""
    return _asked(list[Machine], "machines")


def robots() -> Ask[list[Robot]]:
    """Which robots there are."""
    return _asked(list[Robot], "robots")


def _asked(kind: Any, verb: str, *words: str | bytes, options: Sequence[str] = (), again: bool = True) -> Ask[Any]:
    return Ask(("job", verb, "--json", *options, "--", *words), lambda data: _json.read(kind, data), again)


def _collected(data: bytes) -> Output:
    kept: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
    sizes = dict.fromkeys(kept, 0)
    for line in data.splitlines():
        event = _json.read_event(line)
        if isinstance(event, OutputEvent):
            kept[event.stream] += event.data
            sizes[event.stream] = event.offset + len(event.data)
        elif isinstance(event, GapEvent):
            sizes[event.stream] = event.offset + event.size
    return Output(kept["stdout"], kept["stderr"], sizes["stdout"], sizes["stderr"])


# A wait


class Following:
    """What is known of a job that is followed, over one connection after the other.

    Each connection begins with all that is kept; what was heard already is left out.

    Args:
        number: the job's number or GUID.
        timeout: seconds for all of it; None or 0 is without limit.
        output: whether output is wanted.
        patience: seconds to go on trying to reach a server that is away; None is for ever.
        host: the server, for errors.
    """

    def __init__(
        self, number: object, timeout: float | None, *, output: bool, patience: float | None, host: str
    ) -> None:
        self._number = _number(number)
        self._limit = _arguments.check_timeout(timeout)
        self._deadline = None if self._limit is None else time.monotonic() + self._limit
        self._output = output
        self._patience = patience
        self._host = host
        self._heard: StateEvent | None = None
        self._offsets: dict[Stream, int] = {}
        self._lines = _json.Lines()
        self._said, self._complaint = b"", b""
        self._begun = False
        self._lost_at: float | None = None
        self._pause = PAUSES[0]
        self.over = False

    @property
    def words(self) -> tuple[str, ...]:
        """The command for the next connection."""
        words = ["job", "wait", "--json"]
        if not self._output:
            words.append("--no-output")
        if self._deadline is not None:
            words.append(f"--timeout={max(0.0, self._deadline - time.monotonic()):.3f}")
        return (*words, "--", self._number)

    def left(self, timeout: float | None = None) -> float:
        """Return the seconds to wait for a connection, or for the next word: no longer than there is any use in it.

        Args:
            timeout: seconds for which the caller would wait; None or 0 is without limit.
        """
        longest = min(timeout or SILENCE, SILENCE)
        if self._deadline is None:
            return longest
        return min(longest, max(0.0, self._deadline - time.monotonic()) + LATE)

    def begin(self) -> None:
        """A connection is there."""
        self._begun = True
        self._lines = _json.Lines()
        self._said, self._complaint = b"", b""

    def take(self, data: bytes, *, error: bool = False) -> Iterator[JobEvent]:
        """Give what a token of the answer says that is new.

        Args:
            data: the token's.
            error: whether it is of the standard error.

        Raises:
            JobTimeoutError: the time limit has passed.
            JobAnswerError: it cannot be understood.
        """
        if error:
            self._complaint += data
            return
        self._lost_at, self._pause = None, PAUSES[0]
        try:
            for line in self._lines.take(data):
                self._said = line
                if _json.read_fault(line) is not None:
                    continue
                event = _json.read_event(line)
                if event is not None and (fresh := self._fresh(event)) is not None:
                    yield fresh
        except Unreadable as unread:
            raise unreadable(self.words, unread, self._host, self._said) from None

    def end(self, status: int) -> None:
        """The answer has come to its end.

        Raises:
            JobError: the job has not.
        """
        if not self.over:
            if status:
                raise failure(self.words, Result(self._said, self._complaint, status), self._host)
            raise unreadable(self.words, Unreadable("it ends before the job does"), self._host, self._said)

    def lost(self, error: RemctlError) -> float:
        """The connection was lost, or none came about; return for how many seconds to pause before the next.

        Raises:
            RemctlError: the error itself, where there never was a connection, or no answer for too long.
            JobTimeoutError: the time limit has passed.
        """
        now = time.monotonic()
        self._lost_at = now if self._lost_at is None else self._lost_at
        if not self._begun or (self._patience is not None and now - self._lost_at >= self._patience):
            raise error
        if self._deadline is not None and now >= self._deadline:
            raise self._late() from error
        pause, self._pause = self._pause, min(2 * self._pause, PAUSES[1])
        return pause if self._deadline is None else min(pause, self._deadline - now)

    def _fresh(self, event: Said) -> JobEvent | None:
        """What is new of something that was said."""
        if isinstance(event, AliveEvent):
            return None
        if isinstance(event, TimeoutEvent):
            raise self._late()
        if isinstance(event, EndEvent):
            self.over = True
            return event
        if isinstance(event, StateEvent):
            known, self._heard = self._heard, event
            if known is None or known.attempt != event.attempt:
                self._offsets = {}
            return None if known == event else event
        at = self._offsets.get(event.stream, 0)
        end = event.offset + (len(event.data) if isinstance(event, OutputEvent) else event.size)
        if end <= at:
            return None
        self._offsets[event.stream] = end
        begin = max(at, event.offset)
        if isinstance(event, OutputEvent):
            return event._replace(offset=begin, data=event.data[begin - event.offset :])
        return event._replace(offset=begin, size=end - begin)

    def _late(self) -> JobTimeoutError:
        state = None if self._heard is None else self._heard.state
        where = "" if state is None else f", and is {_answers.shown(state)}"
        reason = f"job {self._number} was not over within {self._limit:g} s{where}"
        return JobTimeoutError(reason, state=state, host=self._host, command="job wait", sent=True)


# Errors


def failure(words: Sequence[str | bytes], result: Result, host: str) -> JobError:
    """Return what a command's failure means."""
    evidence = _evidence(words, host, stdout=result.stdout, stderr=result.stderr)
    fault = _json.read_fault(result.stdout.rstrip(b"\n").rpartition(b"\n")[2])
    if fault is None:
        last = printable(result.stderr.rstrip().rpartition(b"\n")[2])
        kind = JobsUnavailableError if result.status == _answers.UNAVAILABLE else JobError
        return kind(f"exit status {result.status}" + (f": {last}" if last else ""), **evidence)
    error = _KINDS.get(fault.kind, JobError)(printable(fault.text.encode("utf-8", "replace"), 1000), **evidence)
    if isinstance(error, JobParameterError):
        error.parameter = fault.parameter
    return error


def unreadable(words: Sequence[str | bytes], error: Unreadable, host: str, said: bytes) -> JobAnswerError:
    """Return that an answer cannot be understood."""
    hint = "see what the command `job` is on that server, and which version"
    evidence = _evidence(words, host, stdout=said, hint=hint)
    return JobAnswerError(f"the answer cannot be understood: {error}", **evidence)


def _evidence(words: Sequence[str | bytes], host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "command": " ".join(map(str, words[:2])), "sent": True, **more}


# Checks


def _given(**texts: object) -> list[str]:
    """The options for those texts that are there."""
    return [f"--{name}={_arguments.check_text(name, text)}" for name, text in texts.items() if text is not None]


def _number(number: object) -> str:
    if isinstance(number, str):
        return _arguments.check_text("job", number)
    return str(_integer("job", number, 1, 10**18 - 1))


def _integer(name: str, number: object, low: int, high: int) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name} must be a whole number: {number!r:.80}")
    if not low <= (found := operator.index(number)) <= high:
        raise ValueError(f"{name} must be {low} to {high}")
    return found


def _delay(delay: object) -> float:
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise TypeError(f"delay must be a number of seconds: {delay!r:.80}")
    if not (0 <= delay < 1e9 and math.isfinite(delay)):
        raise ValueError(f"delay must be 0 to 1e9 seconds: {delay!r:.80}")
    return float(delay)
