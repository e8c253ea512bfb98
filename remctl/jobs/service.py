"""What somebody may do with jobs, and does: asked by the remctl command `job` and by the page, which show it to people.

Stands on the store, the installed scripts and the folders of attempts; decides by the ACLs of the configuration.  A job
that somebody may not see is told from none at all by nobody.
"""

from __future__ import annotations

import contextlib
import enum
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from remctl.acl import Acl
from remctl.exceptions import RemctlError
from remctl.jobs.attempt import DamagedEndingError, Piece, read_output
from remctl.jobs.runner import wake
from remctl.jobs.runner._ad_hoc import NoModuleError, current, module_named, wanted
from remctl.jobs.scripts import ScriptError
from remctl.jobs.settings import Settings
from remctl.jobs.states import JobState, Move
from remctl.jobs.store import (
    AttemptRecord,
    Event,
    InstalledScript,
    Job,
    Machine,
    Order,
    Output,
    Robot,
    Store,
    StoreError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

Stream = Literal["stdout", "stderr"]

MOST: Final = 1000
"""Jobs in one list."""


class DeniedError(RemctlError):
    """The caller may not do that."""


class Role(enum.IntEnum):
    """What somebody is to the jobs; each one may do all that those before may."""

    NOBODY = 0
    USER = 1
    """May submit jobs, and see, stop and retry those that are theirs."""
    OPERATOR = 2
    """May see, stop and retry everybody's, and have jobs taken before those of others."""
    ADMINISTRATOR = 3
    """May submit jobs of every script, also where the script names its users."""


class Service:
    """What is done for everybody; any number of threads may use it.

    Args:
        settings: the configuration.
        store: the job store, with a schema that is up to date.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        access = settings.access
        self._acls = [
            (Role.ADMINISTRATOR, access.administrators),
            (Role.OPERATOR, access.operators),
            (Role.USER, access.users),
        ]

    def role(self, principal: str) -> Role:
        """Return what a principal is; blocks where an ACL is in a file."""
        for role, entries in self._acls:
            if entries and Acl(*entries).allows(principal):
                return role
        return Role.NOBODY

    def desk(self, principal: str, role: Role | None = None) -> Desk:
        """Return what is done for a principal.

        Args:
            principal: user@REALM, or who somebody is on this machine.
            role: None asks the ACLs; another one is for whoever can write in the folder of the jobs anyway.

        Raises:
            DeniedError: it is nobody who may submit jobs.
        """
        found = self.role(principal) if role is None else role
        if found is Role.NOBODY:
            raise DeniedError(
                f"{principal or 'nobody'} may not use the jobs", hint="an administrator names users in [access]"
            )
        return Desk(self, principal, found)


class Desk:
    """What is done for one principal, each call by itself; made by `Service.desk`, for a short time."""

    def __init__(self, service: Service, principal: str, role: Role) -> None:
        self.principal = principal
        self.role = role
        self._settings = service.settings
        self._store = service.store

    # Scripts

    def scripts(self) -> list[InstalledScript]:
        """Return the scripts of which the principal may submit jobs, by name."""
        return [current(script) for script in self._store.scripts.all() if script.enabled and self._may_use(script)]

    def script(self, name: str) -> InstalledScript:
        """Return one of them.

        Raises:
            StoreError: there is no such script, or it is turned off.
            DeniedError: the principal may not use it.
        """
        script = self._store.scripts.get(name)
        if not script.enabled:
            raise StoreError(f"the script {name!r} is turned off")
        if not self._may_use(script):
            raise DeniedError(f"{self.principal} may not use the script {name!r}")
        return current(script)

    # Jobs

    def submit(
        self,
        script: str,
        parameters: Mapping[str, str],
        *,
        priority: int = 0,
        delay: float = 0,
        guid: str | None = None,
        robot: str | None = None,
        pool: str | None = None,
    ) -> Job:
        """Make a job that waits to be taken, and wake the runner of this machine.

        Args:
            script: the script's name.
            parameters: as a person writes them.
            priority: -100 to 100; higher ones are taken first, and those above 0 are for operators.
            delay: seconds before it may be taken.
            guid: the caller's own, with which it may ask again; None makes one.
            robot: the name or the GUID of the robot that is to run it; None with a pool of None leaves it to runners.
            pool: any robot of this pool.

        Raises:
            StoreError: there is no such script, or it is turned off; or no such robot or pool.
            NoModuleError: there is no such module for ad-hoc Python; a ScriptError and a StoreError.
            DeniedError: the principal may not do that.
            ScriptError: a parameter is missing, unknown or wrong.
            ValueError: another argument makes no sense.
        """
        found = self.script(script)
        if priority > 0 and self.role < Role.OPERATOR:
            raise DeniedError(f"priority must be 0 or less for users: {priority}")
        values = found.parameters.check(parameters)
        self._check_module(script, values, elsewhere=robot is not None or pool is not None)
        secrets = {name: values.pop(name) for name in found.parameters.secrets if name in values}
        chosen = self._robot(robot, pool)
        order = Order(script, values, self.principal, secrets, chosen, pool, priority=priority, delay=delay, guid=guid)
        (job,) = self._store.jobs.submit_all([order])
        wake(self._settings.folder)
        logger.info("job %d: %s wants %s", job.id, self.principal, script, extra={"job": job.id, "script": script})
        return job

    def job(self, job: int | str) -> Job:
        """Return a job, by its number or GUID.

        Raises:
            StoreError: there is none, or it is not for the principal to see.
        """
        found = self._store.jobs.get(job)
        if found.owner != self.principal and self.role < Role.OPERATOR:
            raise StoreError(f"there is no job {job}")
        return found

    def listed(
        self,
        *,
        owner: str | None = None,
        states: Sequence[JobState] = (),
        script: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return jobs that the principal may see, the latest first; see `Jobs.listed`.

        Raises:
            DeniedError: the owner is somebody else, and the principal no operator.
            ValueError: the limit makes no sense.
        """
        if not 1 <= limit <= MOST:
            raise ValueError(f"limit must be 1 to {MOST}: {limit}")
        if self.role < Role.OPERATOR:
            if owner not in (None, self.principal):
                raise DeniedError(f"{self.principal} may not see the jobs of {owner}")
            owner = self.principal
        return self._store.jobs.listed(owner=owner, states=states, script=script, before=before, limit=limit)

    def attempts(self, job: int | str) -> list[AttemptRecord]:
        """Return the attempts of a job, the first one first; raises what `job` does."""
        return self._store.jobs.attempts(self.job(job).id)

    def events(self, job: int | str) -> list[Event]:
        """Return what has happened to a job, the first thing first; raises what `job` does."""
        return self._store.jobs.events(self.job(job).id)

    def output(self, job: int | str) -> Output:
        """Return the last of what a job has written, also while it runs on this machine; raises what `job` does."""
        found = self.job(job)
        kept = self._store.jobs.output(found.id)
        if not found.state.live:
            return kept
        pieces = {stream: self._piece(found, stream, 0, 1 << 20) for stream in _STREAMS}
        stdout, stderr = pieces["stdout"], pieces["stderr"]
        return Output(stdout.data, stderr.data, stdout.size, stderr.size)

    def read(self, job: int | str, stream: Stream, offset: int = 0, limit: int = 64 * 1024) -> Piece:
        """Return output of a job's last attempt from some byte on; raises what `job` does.

        To follow a stream, ask again with the offset of the last piece plus the length of its data.  A piece that
        begins later says that what was between is not kept; one that is empty and whose size is no more than its
        offset, that there is no more yet.
        """
        return self._piece(self.job(job), stream, offset, limit)

    def ask(self, job: int | str, move: Literal[Move.STOP, Move.ABORT]) -> Job:
        """Want a job to end: by `Move.STOP` in peace, by `Move.ABORT` at once; raises what `job` does.

        Raises:
            IllegalMoveError: it is over.
        """
        return self._changed(self._store.jobs.ask(self.job(job).id, move, self.principal))

    def retry(self, job: int | str) -> Job:
        """Have a job that is over, and not with success, run again; raises what `job` does.

        Raises:
            StoreError: it is not over, or its secrets are forgotten.
            IllegalMoveError: it was a success.
            DeniedError: the principal may not use its script.
            NoModuleError: there is no such module for ad-hoc Python any more; it is a StoreError, too.
        """
        found = self.job(job)
        self.script(found.script)
        self._check_module(found.script, found.parameters)
        return self._changed(self._store.jobs.retry(found.id, self.principal))

    def machines(self) -> list[Machine]:
        """Return the machines that are known, by name."""
        return self._store.machines.all()

    def robots(self) -> list[Robot]:
        """Return the robots that are known, by name, with those of their jobs that the principal may see.

        Their GUIDs are what they sign in with, and for nobody to see.
        """
        return [robot._replace(guid="", job=self._seen(robot.job)) for robot in self._store.robots.all()]

    # What they are made of

    def _robot(self, wanted: str | None, pool: str | None) -> int | None:
        """Find the robot that is meant; see that there is one of a pool."""
        if wanted is None and pool is None:
            return None
        if wanted is not None and pool is not None:
            raise ValueError("robot and pool cannot be given both")
        known = self._store.robots.all()
        if wanted is None:
            if not any(robot.pool == pool for robot in known):
                raise StoreError(f"there is no robot of the pool {pool!r}")
            return None
        found = [robot for robot in known if wanted == robot.name or wanted.lower() == robot.guid]
        if not found:
            raise StoreError(f"there is no robot {wanted!r}")
        if len(found) > 1:
            raise StoreError(f"there are {len(found)} robots of the name {wanted!r}", hint="name one by its GUID")
        return found[0].id

    def _check_module(self, script: str, parameters: Mapping[str, Any], *, elsewhere: bool = False) -> None:
        """See that there is the module that a job of ad-hoc Python wants, and that the principal may use it."""
        name = wanted(script, parameters)
        if name is None:
            return
        if elsewhere:
            raise ScriptError("it cannot be given for a robot, which has scripts of its own", parameter="module")
        if not self._may_use(module_named(self._store, name)):
            raise NoModuleError(f"there is no script {name!r}")

    def _seen(self, job: int | None) -> int | None:
        """The number of a job, if the principal may see it."""
        if job is not None:
            with contextlib.suppress(StoreError):
                return self.job(job).id
        return None

    def _may_use(self, script: InstalledScript) -> bool:
        return script.users is None or self.role is Role.ADMINISTRATOR or script.users.allows(self.principal)

    def _changed(self, job: Job) -> Job:
        wake(self._settings.folder)
        return job

    def _piece(self, job: Job, stream: Stream, offset: int, limit: int) -> Piece:
        attempts = self._store.jobs.attempts(job.id)
        if attempts:
            try:
                piece = read_output(self._settings.attempts / attempts[-1].folder / "kept", stream, offset, limit)
            except (OSError, DamagedEndingError) as error:
                logger.warning("the output of job %d cannot be read: %s", job.id, error)
            else:
                if piece is not None:
                    return piece
        kept = self._store.jobs.output(job.id)  # the folder is on another machine, or is gone
        data, size = (kept.stdout, kept.stdout_size) if stream == "stdout" else (kept.stderr, kept.stderr_size)
        begin = size - len(data)
        at = min(max(offset, begin), size)
        return Piece(at, data[at - begin : at - begin + limit], size)


_STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")
