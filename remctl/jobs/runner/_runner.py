"""The runner: takes jobs that are due, has their scripts run, and writes down how they ended.

Each script is in the hands of a keeper, a small process of its own (`_attempt`), which holds it until the store knows
that it begins, and leaves an ending on disk whatever happens to the runner.  So at every moment it can be told what is
true of an attempt, and a job never runs twice by accident:

    claimed, nothing begun        another runner may take it
    begun, the keeper lives       it runs; if its runner dies, the keeper stops it
    begun, an ending is on disk   that is how it ended
    begun, and none of these      it was lost

Signs of life come from a thread of their own.  A runner that cannot reach the store for as long as a lease kills what
it runs, since somebody else may take it for lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from remctl.exceptions import RemctlError
from remctl.jobs.attempt import Attempt, DamagedEndingError, Ending, Limits, boot_id, is_kept, read_ending, read_output
from remctl.jobs.runner._wake import listen
from remctl.jobs.runner.failpoints import reached
from remctl.jobs.scripts import AD_HOC, Parameters, verify
from remctl.jobs.settings import Settings
from remctl.jobs.states import IllegalMoveError, JobState, Reason
from remctl.jobs.store import (
    Bid,
    Claim,
    Ended,
    Output,
    StaleAttemptError,
    Store,
    StoreError,
    Taker,
    account_of,
    new_bid,
)

logger = logging.getLogger(__name__)

TAIL: Final = 64 * 1024
"""Bytes of each stream that go into the store; more of them is on disk."""

DRAIN: Final = 2.0
"""Seconds that processes which a script leaves behind may go on writing."""

PATH: Final = "/usr/local/bin:/usr/bin:/bin"
"""What scripts have as PATH."""

MOMENT: Final = 0.05
"""Seconds between two looks for something that tells nobody when it happens."""


IDENTITY: Final = "runner.id"
"""The file that holds what `Taker.id` is, in the folder of the jobs."""


class RunnerError(RemctlError):
    """The runner cannot work; the text says why."""


class Runner:
    """See the module.

    Args:
        settings: the configuration.
        store: the job store, with a schema that is up to date.

    `run` works until `drain` or `stop`, which any thread and signal handler may call.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._taker = Taker(settings.runner.name, "")
        self._live: dict[int, Attempt] = {}
        self._unwritten: dict[int, Ended | None] = {}  # ends that the store does not know yet; None: it never began
        self._held: set[int] = set()  # those of which the store may not know whether they begin
        self._asked: list[Bid] = []  # those that have no answer yet
        self._fenced: set[int] = set()  # those that were killed because the store was away for too long
        self._selector = selectors.DefaultSelector()
        self._awake, self._wake = socket.socketpair()
        self._awake.setblocking(False)
        self._wake.setblocking(False)
        self._calls: socket.socket | None = None
        self._draining = False
        self._stopping = False
        self._heard = time.monotonic()  # of the store
        self._ended = threading.Event()

    def run(self) -> None:
        """Work.

        Raises:
            RunnerError: another runner works in the same folder.
        """
        try:
            with self._alone():
                self._taker = self._taker._replace(id=_identity(self._settings.folder))
                self._recover()
                self._selector.register(self._awake, selectors.EVENT_READ)
                self._listen()
                self._work()
        finally:
            self._selector.close()
            for sock in (self._awake, self._wake, self._calls):
                if sock is not None:
                    sock.close()

    def _work(self) -> None:
        beats = threading.Thread(target=self._beat_on, name="remctl-jobs-beat", daemon=True)
        self._heard = time.monotonic()
        beats.start()
        guard = threading.Thread(target=self._guard, name="remctl-jobs-guard", daemon=True)
        guard.start()
        try:
            # What cannot be written while the store is away is written by the next run, which finds it on disk.
            while not (self._draining and not self._live and (self._stopping or not self._unwritten)):
                self._turn()
        finally:
            self._ended.set()
            guard.join()
            beats.join()
            for attempt in self._live.values():
                attempt.close()

    def _listen(self) -> None:
        try:
            self._calls = listen(self._settings.folder)
        except OSError as error:
            logger.warning("nobody can wake the runner, which looks every %g s: %s", self._settings.runner.poll, error)
        else:
            self._selector.register(self._calls, selectors.EVENT_READ)

    def drain(self) -> None:
        """Take no more jobs, and end when those that run have ended."""
        self._draining = True
        self.wake()

    def stop(self) -> None:
        """Have the scripts that run end as well."""
        self._stopping = True
        self.drain()

    def wake(self) -> None:
        """Look for jobs now."""
        with contextlib.suppress(OSError):  # it is awake as it is, or has ended
            self._wake.send(b"!")

    # One turn

    def _turn(self) -> None:
        self._write_ends()
        if self._stopping:
            for attempt in self._live.values():
                attempt.stop()
        claimed = self._claim_all()
        for key, _ in self._selector.select(0 if claimed else self._settings.runner.poll):
            if isinstance(key.fileobj, socket.socket):
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)
            else:
                self._finish(key.data)

    def _claim_all(self) -> int:
        """Take as many jobs as there is room for; return how many that were."""
        settings = self._settings.runner
        room = settings.concurrency - len(self._live)
        if self._draining or room <= 0:
            return 0
        since = time.monotonic()
        self._asked = self._asked or [new_bid() for _ in range(room)]
        try:
            claims = self._store.attempts.claim(self._taker, self._asked, settings.lease, per_owner=settings.per_user)
        except DBAPIError as error:
            self._complain("no job can be taken", error)  # or one was, and the answer is lost: it is asked again
            return 0
        passwords = dict(self._asked)
        self._asked = []
        for claim in claims:
            reached("after_claim")
            self._begin(claim, passwords[claim.key], since)
        return len(claims)

    def _begin(self, claim: Claim, password: str, since: float) -> None:
        """Have the script of a job run; what cannot be run has failed."""
        try:
            attempt = self._prepare(claim, password)
        except DBAPIError as error:
            self._complain(f"job {claim.job.id} is not begun", error)
            self._unwritten[claim.attempt] = None
            return
        except Exception as error:  # whatever is wrong with a job, others have to run
            logger.error("job %d cannot be started: %s", claim.job.id, error)  # noqa: TRY400  # it says all
            self._unwritten[claim.attempt] = Ended(Reason.NOT_STARTED, detail=str(error))
            return
        reached("after_spawn")
        self._watch(claim.attempt, attempt)
        try:
            self._store.attempts.start(claim.attempt, boot_id(), attempt.pid, attempt.started)
        except IllegalMoveError as error:  # somebody wants it to end
            logger.info("job %d is not begun: %s", claim.job.id, error)
            self._obey(claim.attempt, error.state)
            return
        except (StoreError, DBAPIError) as error:
            # Whatever the store has of it now, the script has not begun, and will not.
            self._complain(f"job {claim.job.id} is not begun", error)
            self._held.add(claim.attempt)
            attempt.abort()
            return
        reached("after_start")
        if time.monotonic() > max(since, self._heard) + self._settings.runner.lease:
            logger.warning("job %d is not begun: somebody else may have it by now", claim.job.id)
            self._held.add(claim.attempt)
            attempt.abort()
            return
        attempt.release()
        job = claim.job
        logger.info("job %d of %s has begun: attempt %d of %s", job.id, job.owner, claim.number, job.script)

    def _prepare(self, claim: Claim, password: str) -> Attempt:
        folder = self._settings.attempts / claim.folder
        work = folder / "work"
        work.mkdir(mode=0o700, parents=True)
        script = folder / f"script{claim.language.suffix}"
        installed = self._store.scripts.get(claim.job.script)
        file = self._settings.scripts / installed.filename
        body = AD_HOC.body if claim.job.script == AD_HOC.name else verify(file, claim.sha256)
        script.touch(mode=0o600)
        script.write_bytes(body)
        settings = self._settings.runner
        return Attempt.prepare(
            folder / "kept",
            claim.language.command(script),
            env=_environment(claim, password, work, installed.parameters, self._settings.url),
            cwd=work,
            limits=Limits(claim.run_time, settings.grace, DRAIN, settings.output),
        )

    def _watch(self, number: int, attempt: Attempt) -> None:
        self._live[number] = attempt
        self._selector.register(attempt, selectors.EVENT_READ, number)

    def _finish(self, number: int) -> None:
        """See how an attempt has ended."""
        attempt = self._live[number]
        ending = attempt.wait(0)
        if ending is None:
            return
        self._selector.unregister(attempt)
        attempt.close()
        del self._live[number]
        reached("before_finish")
        self._unwritten[number] = None if number in self._held else self._ended_as(number, attempt.folder, ending)
        self._held.discard(number)
        self._write_ends()

    def _write_ends(self) -> None:
        """Tell the store how attempts have ended; what it cannot take now is told again."""
        for number, ended in list(self._unwritten.items()):
            try:
                if ended is None:
                    self._give_back(number)
                else:
                    job = self._store.attempts.settle(number, ended)
                    logger.info("job %d has ended: %s, %s", job.id, job.state.name, job.reason)
            except StaleAttemptError:
                logger.warning("attempt %d had been taken for lost; how it has ended is not written down", number)
            except DBAPIError as error:
                self._complain(f"the end of attempt {number} cannot be written", error)
                return
            del self._unwritten[number]

    def _give_back(self, number: int) -> None:
        """Let somebody else take a job whose script has not begun, whatever the store believes."""
        try:
            self._store.attempts.hand_back(number)
        except StaleAttemptError:
            raise
        except StoreError:
            detail = "the store could not be reached when it was to begin"
            self._store.attempts.settle(number, Ended(Reason.NOT_STARTED, detail=detail))

    def _ended_as(self, number: int, folder: Path, ending: Ending) -> Ended:
        lost = ending.reason == "runner-lost" or (ending.reason == "aborted" and number in self._fenced)
        self._fenced.discard(number)
        reason = Reason.LOST if lost else Reason(ending.reason)
        return Ended(
            reason,
            ending.status,
            ending.signal,
            ending.error,
            Output(
                _tail(folder, "stdout", ending.stdout.size),
                _tail(folder, "stderr", ending.stderr.size),
                ending.stdout.size,
                ending.stderr.size,
            ),
        )

    # Signs of life

    def _beat_on(self) -> None:
        lease = self._settings.runner.lease
        while not self._ended.wait(lease / 4):
            asked = time.monotonic()
            try:
                states = self._store.attempts.beat([*self._live, *self._unwritten], lease)
                for number, state in states.items():
                    self._obey(number, state)
                self._heard = asked  # the lease is counted from then on, at the earliest
                self._store.attempts.sweep()
            except DBAPIError as error:
                self._complain("no sign of life could be given", error)

    def _guard(self) -> None:
        """Kill what runs before somebody else may take it; on a thread that never waits for the store."""
        lease = self._settings.runner.lease
        while not self._ended.wait(lease / 16):
            if time.monotonic() - self._heard > lease * 7 / 8:
                for number, attempt in list(self._live.items()):
                    self._fenced.add(number)
                    attempt.abort()

    def _obey(self, number: int, state: JobState | None) -> None:
        attempt = self._live.get(number)
        if attempt is None:
            return
        if state is JobState.STOPPING:
            attempt.stop()
        elif state is None or state is JobState.ABORTING:
            attempt.abort()

    # After a death

    def _recover(self) -> None:
        """Settle what an earlier run has left: its keepers have stopped their scripts, or are about to."""
        for left in self._store.attempts.live_of(self._taker):
            folder = self._settings.attempts / left.folder / "kept"
            while is_kept(folder):
                time.sleep(MOMENT)
            try:
                ending = read_ending(folder)
            except (DamagedEndingError, OSError) as error:
                logger.warning("how attempt %d has ended cannot be read: %s", left.id, error)
                ending = None
            if left.started_at is None:
                self._unwritten[left.id] = None
            elif ending is not None:
                self._unwritten[left.id] = self._ended_as(left.id, folder, ending)
            else:
                self._unwritten[left.id] = Ended(Reason.LOST, detail="its runner and its keeper have died")
        self._write_ends()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder against other runners; the kernel lets go of it when this one dies."""
        self._settings.attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._settings.folder / "runner.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunnerError(f"another runner works in {self._settings.folder}") from None
            yield

    def _complain(self, what: str, error: Exception) -> None:
        reason = error.orig if isinstance(error, DBAPIError) else error
        logger.warning("%s: %s", what, " ".join(str(reason).split()))


def _identity(folder: Path) -> str:
    """What tells the runner of a folder from others that have its name, also after the machine has got a new name."""
    file = folder / IDENTITY
    with contextlib.suppress(FileNotFoundError):
        if known := file.read_text().strip():
            return known
    made = str(uuid.uuid4())
    file.write_text(f"{made}\n")
    return made


def _environment(claim: Claim, password: str, work: Path, parameters: Parameters, url: str) -> dict[str, str]:
    """All that a script finds in its environment; parameters that are secret stand in a file alone."""
    job = claim.job
    values = {**job.parameters, **claim.secrets}
    file = work.parent / "parameters.json"
    file.touch(mode=0o600)
    file.write_text(parameters.as_json(values))
    return {
        "PATH": PATH,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "JOB_ID": str(job.id),
        "JOB_GUID": job.guid,
        "JOB_ATTEMPT": str(claim.number),
        "JOB_SCRIPT": job.script,
        "JOB_OWNER": job.owner,
        "JOB_REPORT_URL": f"{url}/api/xmlrpc",
        "JOB_ACCOUNT": account_of(claim.attempt),
        "JOB_PASSWORD": password,
        "JOB_PARAMETERS": str(file),
        **parameters.as_environment(values),
    }


def _tail(folder: Path, stream: Any, size: int) -> bytes:
    try:
        piece = read_output(folder, stream, max(0, size - TAIL), TAIL)
    except (OSError, RemctlError) as error:
        logger.warning("the output in %s cannot be read: %s", folder, error)
        return b""
    return piece.data if piece else b""
