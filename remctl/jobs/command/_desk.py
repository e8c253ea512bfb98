"""The desk of whoever calls the command `job`: what it gives as it goes over the wire, and its errors as refusals.

Loads the store and its library, which help and remctld's configuration have no need of.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from remctl.backend import Context, ExitStatus
from remctl.jobs._answers import UNAVAILABLE, Attempt, Event, History, Job, Machine, Robot, Script, Stream
from remctl.jobs._place import REMOTE
from remctl.jobs.attempt import Piece
from remctl.jobs.command._refusal import Refusal
from remctl.jobs.runner._ad_hoc import NoModuleError
from remctl.jobs.scripts import ScriptError
from remctl.jobs.service import DeniedError, Desk, Role, Service
from remctl.jobs.settings import SettingsError, load
from remctl.jobs.states import IllegalMoveError, JobState, Move
from remctl.jobs.store import InstalledScript, SchemaError, Store, StoreError, check, reason_of

logger = logging.getLogger(__name__)

R = TypeVar("R", Job, Attempt, Event, Machine, Robot)

AWAY: Final = (DBAPIError, PoolTimeoutError)
"""What SQLAlchemy raises when a database cannot be reached, or has no time."""


def opened(file: Path) -> Service:
    """Return the service of a configuration file.

    Raises:
        SettingsError: it is not there, or makes no sense.
        SchemaError: the database cannot be used.
    """
    settings = load(file)
    try:
        made = Store(settings.database_url)
    except ValueError as error:
        raise SettingsError(f"{file}: {error}") from error
    try:
        check(made.database)
    except BaseException:
        made.close()
        raise
    return Service(settings, made)


class Counter:
    """What is done for the caller of a command.

    Args:
        service: what does it.
        context: who calls.  Nobody is whoever runs the program by hand, and could read the configuration for that: he
            may do all.  A program that remctld is to run says so, and takes nobody for nobody.

    Raises:
        DeniedError: it is nobody who may use the jobs.
    """

    def __init__(self, service: Service, context: Context) -> None:
        if context.principal:
            self._desk: Desk = service.desk(context.principal)
        elif REMOTE in os.environ:
            hint = "sudo= in remctld's configuration takes REMOTE_USER away, and user= does not"
            raise DeniedError("nobody says who calls", hint=hint)
        else:
            self._desk = service.desk(f"{getpass.getuser()}@{socket.gethostname()}", Role.ADMINISTRATOR)

    def scripts(self) -> list[Script]:
        """Return the scripts that the caller may use."""
        return [_script(script) for script in self._desk.scripts()]

    def script(self, name: str) -> Script:
        """Return one of them.

        Raises:
            Refusal: there is none of that name.
        """
        return _script(self._installed(name))

    def submit(self, script: str, worded: Mapping[str, str], piped: Mapping[str, str], **options: Any) -> Job:
        """Make a job.

        Args:
            script: the script's name.
            worded: parameters that came as words, which others may have seen.
            piped: further ones, which nobody has.
            options: further arguments of `Desk.submit`.

        Raises:
            Refusal: there is no such script, or a secret parameter is among the words.
            ScriptError, DeniedError, StoreError: see `Desk.submit`.
        """
        for name in self._installed(script).parameters.secrets:
            if name in worded:
                raise Refusal(
                    "parameter",
                    f"parameter {name}: it is secret: change it, and give it by --stdin",
                    status=ExitStatus.USAGE,
                    parameter=name,
                )
        return _row(Job, self._desk.submit(script, {**worded, **piped}, **options))

    def job(self, job: int | str) -> Job:
        """Return a job.

        Raises:
            Refusal: there is none, or it is not for the caller to see.
        """
        try:
            return _row(Job, self._desk.job(job))
        except StoreError as error:
            raise Refusal("no-such-job", str(error)) from None

    def jobs(
        self,
        owner: str | None,
        states: Sequence[JobState],
        script: str | None,
        before: int | None,
        limit: int,
    ) -> list[Job]:
        """Return jobs, the latest first."""
        found = self._desk.listed(owner=owner, states=states, script=script, before=before, limit=limit)
        return [_row(Job, job) for job in found]

    def history(self, job: int | str) -> History:
        """Return what has happened to a job; raises what `job` does."""
        number = self.job(job).id
        return History(
            [_row(Attempt, attempt) for attempt in self._desk.attempts(number)],
            [_row(Event, event) for event in self._desk.events(number)],
        )

    def read(self, job: int, stream: Stream, offset: int) -> Piece:
        """Return output of a job's last attempt from some byte on."""
        return self._desk.read(job, stream, offset)

    def ask(self, job: int | str, move: Literal[Move.STOP, Move.ABORT]) -> Job:
        """Want a job to end; raises what `job` does."""
        return _row(Job, self._desk.ask(self.job(job).id, move))

    def retry(self, job: int | str) -> Job:
        """Have a job run again; raises what `job` does."""
        return _row(Job, self._desk.retry(self.job(job).id))

    def machines(self) -> list[Machine]:
        """Return the machines that are known."""
        return [_row(Machine, machine) for machine in self._desk.machines()]

    def robots(self) -> list[Robot]:
        """Return the robots that are known; of their jobs, those that the caller may see."""
        return [_row(Robot, robot) for robot in self._desk.robots()]

    def _installed(self, name: str) -> InstalledScript:
        try:
            return self._desk.script(name)
        except StoreError as error:
            raise Refusal("no-such-script", str(error)) from None


@contextlib.contextmanager
def refusals(context: Context) -> Iterator[None]:
    """Raise what went wrong as a `Refusal`, in words that are for the caller; the log has what is not."""
    try:
        yield
    except DeniedError as error:
        raise Refusal("denied", str(error), status=ExitStatus.DENIED) from None
    except NoModuleError as error:
        raise Refusal("no-such-script", str(error), parameter=error.parameter) from None
    except ScriptError as error:
        raise Refusal("parameter", str(error), status=ExitStatus.USAGE, parameter=error.parameter) from None
    except (SettingsError, SchemaError) as error:
        away = isinstance(error.__cause__, DBAPIError)
        if not context.principal:
            raise Refusal("setup", str(error), status=UNAVAILABLE if away else ExitStatus.INTERNAL) from None
        logger.error("%s", error)  # noqa: TRY400 - the text says what to do
        raise _unavailable() if away else _not_set_up() from None
    except (StoreError, IllegalMoveError) as error:
        raise Refusal("state", str(error)) from None
    except AWAY as error:
        logger.warning("the database cannot be reached: %s", reason_of(error))
        raise _unavailable() from None


def _unavailable() -> Refusal:
    return Refusal("unavailable", "the database cannot be reached; try again later", status=UNAVAILABLE)


def _not_set_up() -> Refusal:
    return Refusal("setup", "the jobs are not set up here; the server's log says more", status=ExitStatus.INTERNAL)


def _row(kind: type[R], row: object) -> R:
    """What goes over the wire of a row of the store: what has the same name."""
    return kind(**{name: getattr(row, name) for name in kind._fields})


def _script(script: InstalledScript) -> Script:
    tables = script.parameters.tables()
    return Script(script.name, script.language.value, script.description, script.run_time, tables)
