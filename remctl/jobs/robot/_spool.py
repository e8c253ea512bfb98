"""What an agent has to remember, in its state folder: the job that it has, and the results it has not told yet.

    job.json             the job: taken, or begun
    results/NUMBER.json  how jobs have ended, to be told in this order
    refused/             results that the orchestrator did not take, and files that were damaged
    runs/NUMBER/         output and files of the last runs

Each file comes into being whole and for good, before anybody is told what stands in it.  So after a kill at any moment
it can be said what is true of a job:

    job.json says taken                     nothing ran; it may begin
    job.json says begun                     the run's folder tells how it ended, or nobody knows
    job.json and a result of the same run   it has ended
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from remctl.jobs.robot._lock import alone
from remctl.jobs.robot._wire import Job
from remctl.jobs.states import JobState

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEPT: Final = 20
"""Runs whose folders are kept."""

ROOM: Final = 1 << 20
"""Bytes that have to fit on the disk before a job is taken."""


class Taken(NamedTuple):
    """The job that the agent has."""

    job: Job
    run: int
    """Number of the run that it begins with, or has begun with."""
    begun: bool
    """Whether its script may have run."""


class Result(NamedTuple):
    """How a job has ended."""

    number: int
    """Which tells it from all others in this folder."""
    guid: str
    """The job's."""
    state: JobState
    why: str


class Spool:
    """See the module.  Made by `opened`.

    All methods raise OSError if the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._job = folder / "job.json"
        self._results, self._refused, self._runs = (folder / name for name in ("results", "refused", "runs"))
        for each in (self._results, self._refused, self._runs):
            each.mkdir(mode=0o700, exist_ok=True)

    # The job

    def taken(self) -> Taken | None:
        """Return the job that the agent has."""
        found = self._read(self._job, _taken)
        if found is not None and (self._results / _name(found.run)).exists():
            self.forget()  # this was not reached any more
            return None
        return found

    def check_room(self) -> None:
        """Raise OSError where the disk cannot hold what comes with a job: it is not to be taken then."""
        room = self.folder / "room"
        try:
            room.write_bytes(bytes(ROOM))
        finally:
            room.unlink(missing_ok=True)

    def take(self, job: Job) -> Taken:
        """Remember a job that the orchestrator has handed out, under the number of a new run."""
        self._tidy()
        taken = Taken(job, self._last() + 1, begun=False)
        self._put(taken)
        return taken

    def begin(self, taken: Taken) -> None:
        """Remember that the job's script may run from now on."""
        self._put(taken._replace(begun=True))

    def take_back(self, taken: Taken) -> None:
        """Remember that the job's script has not run, for sure: it begins anew, as another run."""
        self._put(Taken(taken.job, self._last() + 1, begun=False))

    def forget(self) -> None:
        """Have no job any more."""
        self._job.unlink(missing_ok=True)
        _sync(self.folder)

    def run_folder(self, run: int) -> Path:
        """Return the folder of a run, which `Taken` names."""
        return self._runs / f"{run:010d}"

    # Results

    def end(self, taken: Taken, state: JobState, why: str) -> None:
        """Have the job's end told, and have no job any more."""
        _write(self._results / _name(taken.run), {"guid": taken.job.guid, "state": int(state), "why": why})
        self.forget()

    def results(self) -> Iterator[Result]:
        """Give the results that have to be told, the oldest first."""
        for path in sorted(self._results.glob("*.json")):
            if (found := self._read(path, lambda values: _result(int(path.stem), values))) is not None:  # noqa: B023
                yield found

    def told(self, result: Result) -> None:
        """Forget a result."""
        (self._results / _name(result.number)).unlink(missing_ok=True)
        _sync(self._results)

    def refuse(self, result: Result) -> Path:
        """Put a result aside that the orchestrator does not take; return where it is."""
        return self._put_aside(self._results / _name(result.number))

    # Files

    def _put(self, taken: Taken) -> None:
        _write(self._job, {**taken.job._asdict(), "run": taken.run, "begun": taken.begun})

    def _read(self, path: Path, make: Callable[[dict[str, Any]], T]) -> T | None:
        """Return what a file says; None if it is not there, or damaged, and then it is put aside."""
        try:
            return make(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            logger.error("%s is damaged, and put aside as %s", path, self._put_aside(path))  # noqa: TRY400
            return None

    def _put_aside(self, path: Path) -> Path:
        to = self._refused / path.name
        for number in range(1, 1_000_000):
            if not to.exists():
                break
            to = self._refused / f"{path.stem}-{number}{path.suffix}"
        path.replace(to)
        _sync(self._refused)
        _sync(path.parent)
        return to

    def _last(self) -> int:
        """Return the greatest number that a run or a result has."""
        names = [path.stem for folder in (self._runs, self._results, self._refused) for path in folder.iterdir()]
        numbers = [int(name.partition("-")[0]) for name in names if name.partition("-")[0].isdecimal()]
        taken = self._read(self._job, _taken)
        return max([*numbers, taken.run if taken else 0])

    def _tidy(self) -> None:
        """Remove the folders of all but the last runs."""
        for path in sorted(self._runs.iterdir(), reverse=True)[KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)  # what a script has locked up stays; somebody else has to see to it


@contextmanager
def opened(folder: Path) -> Iterator[Spool]:
    """Open a state folder, which is made if it is not there, for this process alone, for a `with`.

    Raises:
        OccupiedError: another agent works in it.
        OSError: it cannot be made.
    """
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(folder):
        yield Spool(folder)


def _name(number: int) -> str:
    return f"{number:010d}.json"


def _taken(values: dict[str, Any]) -> Taken:
    job = Job(str(values["guid"]), str(values["name"]), values["task"])
    return Taken(job, int(values["run"]), bool(values["begun"]))


def _result(number: int, values: dict[str, Any]) -> Result:
    return Result(number, str(values["guid"]), JobState(values["state"]), str(values["why"]))


def _write(path: Path, values: dict[str, Any]) -> None:
    """Have a file appear, whole and for good."""
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(json.dumps(values))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Have a folder's names written to the disk; Windows knows no such thing."""
    if sys.platform != "win32":
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
