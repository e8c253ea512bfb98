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
import errno
import fcntl
import logging
import math
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Final

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from remctl.exceptions import RemctlError
from remctl.jobs.attempt import Attempt, DamagedEndingError, Ending, Limits, boot_id, is_kept, read_ending
from remctl.jobs.runner._ad_hoc import Setting, current, lay_out, wanted
from remctl.jobs.runner._cleaning import keep_house
from remctl.jobs.runner._clock import Clock
from remctl.jobs.runner._environment import environment, forget_parameters
from remctl.jobs.runner._identity import identity
from remctl.jobs.runner._output import last_output, sizes
from remctl.jobs.runner._wake import listen
from remctl.jobs.runner.failpoints import reached
from remctl.jobs.scripts import AD_HOC, verify
from remctl.jobs.settings import Settings
from remctl.jobs.states import IllegalMoveError, JobState, Reason
from remctl.jobs.store import (
    AWAY,
    Bid,
    Claim,
    Ended,
    Job,
    Output,
    StaleAttemptError,
    Store,
    StoreError,
    Taker,
    new_bid,
    reason_of,
)

logger = logging.getLogger(__name__)

DRAIN: Final = 2.0
"""Seconds that processes which a script leaves behind may go on writing."""

MOMENT: Final = 0.05
"""Seconds between two looks for something that tells nobody when it happens."""


EXHAUSTED: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
"""What fails for want of something that the machine has too little of now: no fault of a job's."""

PAUSE: Final = 10.0
"""Seconds for which no jobs are taken then."""


class RunnerError(RemctlError):
    """The runner cannot work; the text says why."""


class Runner:
    """See the module.

    Args:
        settings: the configuration.
        store: the job store, with a schema that is up to date.
        ready: called when nothing more can keep it from working.

    `run` works until `drain` or `stop`, which any thread and signal handler may call.
    """

    def __init__(self, settings: Settings, store: Store, ready: Callable[[], object] = lambda: None) -> None:
        self._settings = settings
        self._store = store
        self._ready = ready
        self._taker = Taker(settings.runner.name, "")
        self._live: dict[int, Attempt] = {}
        self._unwritten: dict[int, Ended | None] = {}  # ends that the store does not know yet; None: it never began
        self._held: set[int] = set()  # those of which the store may not know whether they begin
        self._asked: list[Bid] = []  # those that have no answer yet
        self._shown: dict[int, tuple[int, int]] = {}  # how much of its output the store has
        self._leased: dict[int, float] = {}  # since when each has its first lease, at the earliest
        self._fenced: set[int] = set()  # those that were killed because the store was away for too long
        self._selector = selectors.DefaultSelector()
        self._awake, self._wake = socket.socketpair()
        self._awake.setblocking(False)
        self._wake.setblocking(False)
        self._calls: socket.socket | None = None
        self._draining = False
        self._stopping = False
        self._heard = time.monotonic()  # of the store
        self._paused = -math.inf  # no jobs are taken before that
        self._failure: BaseException | None = None
        self._nudged = Event()
        self._ended = Event()

    def run(self) -> None:
        """Work.

        Raises:
            RunnerError: another runner works in the same folder.
        """
        try:
            with self._alone():
                self._taker = self._taker._replace(id=identity(self._settings.folder))
                self._recover()
                self._selector.register(self._awake, selectors.EVENT_READ)
                self._listen()
                self._ready()
                self._work()
        finally:
            self._selector.close()
            for sock in (self._awake, self._wake, self._calls):
                if sock is not None:
                    sock.close()

    def _work(self) -> None:
        self._heard = time.monotonic()
        house = partial(keep_house, self._settings, self._store, self._ended)
        beside: dict[str, Callable[[], None]] = {"beat": self._beat_on, "guard": self._guard, "house": house}
        threads = [
            Thread(target=self._beside, args=(work,), name=f"remctl-jobs-{name}", daemon=True)
            for name, work in beside.items()
        ]
        for thread in threads:
            thread.start()
        try:
            # What cannot be written while the store is away is written by the next run, which finds it on disk.
            while not (self._draining and not self._live and (self._stopping or not self._unwritten)):
                self._turn()
        finally:
            self._ended.set()
            self._nudged.set()
            for thread in threads:
                thread.join()
            for attempt in self._live.values():
                attempt.close()
        if self._failure is not None:
            raise self._failure

    def _beside(self, work: Callable[[], None]) -> None:
        """Do what goes on beside the turns; a runner cannot do without it."""
        try:
            work()
        except BaseException as error:
            logger.exception("the runner ends")
            self._failure = error
            self.stop()

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
        # Not all at the same moment, where there are many runners.
        pause = self._settings.runner.poll * random.uniform(0.9, 1.1)  # noqa: S311  # nobody gains by guessing it
        for key, _ in self._selector.select(0 if claimed else pause):
            if isinstance(key.fileobj, socket.socket):
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)
                self._nudged.set()
            else:
                self._finish(key.data)

    def _claim_all(self) -> int:
        """Take as many jobs as there is room for; return how many that were."""
        settings = self._settings.runner
        room = settings.concurrency - len(self._live)
        if self._draining or room <= 0 or time.monotonic() < self._paused:
            return 0
        since = time.monotonic()
        self._asked = self._asked or [new_bid() for _ in range(room)]
        try:
            claims = self._store.attempts.claim(self._taker, self._asked, settings.lease, per_owner=settings.per_user)
        except AWAY as error:
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
        except SQLAlchemyError as error:
            self._complain(f"job {claim.job.id} is not begun", error)
            self._unwritten[claim.attempt] = None
            return
        except Exception as error:  # whatever is wrong with a job, others have to run
            if isinstance(error, OSError) and error.errno in EXHAUSTED:
                logger.warning("job %d is not begun, nor any other for %g s: %s", claim.job.id, PAUSE, error)
                self._unwritten[claim.attempt] = None
                self._paused = time.monotonic() + PAUSE
            else:
                text = "job %d cannot be started: %s"
                logger.error(text, claim.job.id, error, extra=_fields(claim.job))  # noqa: TRY400  # it says all
                self._unwritten[claim.attempt] = Ended(Reason.NOT_STARTED, detail=str(error))
            return
        reached("after_spawn")
        lease = self._settings.runner.lease
        self._leased[claim.attempt] = since
        self._watch(claim.attempt, attempt)
        since = time.monotonic()
        try:
            self._store.attempts.start(claim.attempt, boot_id(), attempt.pid, attempt.started, lease)
        except IllegalMoveError as error:  # somebody wants it to end
            logger.info("job %d is not begun: %s", claim.job.id, error)
            self._obey(claim.attempt, error.state)
            return
        except (StoreError, *AWAY) as error:
            # Whatever the store has of it now, the script has not begun, and will not.
            self._complain(f"job {claim.job.id} is not begun", error)
            self._held.add(claim.attempt)
            attempt.abort()
            return
        self._leased[claim.attempt] = since
        reached("after_start")
        if time.monotonic() > since + lease:
            logger.warning("job %d is not begun: somebody else may have it by now", claim.job.id)
            self._held.add(claim.attempt)
            attempt.abort()
            return
        attempt.release()
        job = claim.job
        text = "job %d of %s has begun: attempt %d of %s"
        logger.info(text, job.id, job.owner, claim.number, job.script, extra=_fields(job))

    def _prepare(self, claim: Claim, password: str) -> Attempt:
        folder = self._settings.attempts / claim.folder
        work = folder / "work"
        work.mkdir(mode=0o700, parents=True)
        script = folder / f"script{claim.language.suffix}"
        installed = current(self._store.scripts.get(claim.job.script))
        file = self._settings.scripts / installed.filename
        body = AD_HOC.body if claim.job.script == AD_HOC.name else verify(file, claim.sha256)
        script.touch(mode=0o600)
        script.write_bytes(body)
        setting = Setting(claim.run_time, {})
        if (module := wanted(claim.job.script, claim.job.parameters)) is not None:
            setting = lay_out(self._store, self._settings, module, folder)
        settings = self._settings.runner
        return Attempt.prepare(
            folder / "kept",
            claim.language.command(script),
            env=environment(claim, password, work, installed.parameters, self._settings.url) | setting.variables,
            cwd=work,
            limits=Limits(setting.run_time, settings.grace, DRAIN, settings.output),
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
        forget_parameters(attempt.folder)
        reached("before_finish")
        self._unwritten[number] = None if number in self._held else self._ended_as(number, attempt.folder, ending)
        self._held.discard(number)
        self._leased.pop(number, None)
        self._shown.pop(number, None)
        self._write_ends()

    def _write_ends(self) -> None:
        """Tell the store how attempts have ended; what it cannot take now is told again."""
        for number, ended in list(self._unwritten.items()):
            try:
                if ended is None:
                    self._give_back(number)
                else:
                    job = self._store.attempts.settle(number, ended)
                    how = "has ended" if job.state.final else "is to run again"
                    logger.info("job %d %s: %s, %s", job.id, how, job.state.name, ended.reason, extra=_fields(job))
            except StaleAttemptError:
                logger.warning("attempt %d has an end already: it was taken for lost, or this one was written", number)
            except AWAY as error:
                self._complain(f"the end of attempt {number} cannot be written", error)
                if isinstance(error, DataError | IntegrityError) and ended is not None:  # it is asked for too much
                    self._unwritten[number] = ended._replace(detail=None, output=Output())
                    continue
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
            last_output(folder, ending.stdout.size, ending.stderr.size),
        )

    # Signs of life

    def _beat_on(self) -> None:
        lease = self._settings.runner.lease
        clock = Clock(lease)
        while not self._ended.is_set():
            # Somebody may have asked for a job to end: here, which wakes the runner, or on another machine.
            self._nudged.wait(min(lease / 4, self._settings.runner.poll))
            self._nudged.clear()
            asked = time.monotonic()
            try:
                states = self._store.attempts.beat([*self._live, *self._unwritten], lease)
            except AWAY as error:
                self._complain("no sign of life could be given", error)
                continue
            self._heard = asked  # the lease is counted from then on, at the earliest
            for number, state in states.items():
                self._obey(number, state)
            try:
                if clock.goes_on(self._store.database.clock()):
                    self._store.attempts.sweep()
                if not self._store.database.sqlite:  # with that, all are on one machine and read the folders
                    self._show_output()
            except AWAY as error:
                self._complain("the store cannot be seen to", error)

    def _show_output(self) -> None:
        """Have others see what scripts have written so far, on machines too that do not have the folders."""
        for number, attempt in list(self._live.items()):
            try:
                now = sizes(attempt.folder)
            except (OSError, RemctlError) as error:
                self._complain(f"the output of attempt {number} cannot be read", error)
                continue
            if now != self._shown.get(number, (0, 0)):
                self._store.attempts.show(number, last_output(attempt.folder, *now))
                self._shown[number] = now

    def _guard(self) -> None:
        """Kill what runs before somebody else may take it; on a thread that never waits for the store."""
        # By the end of the lease all is dead, also what is left to its keeper when this process dies just before.
        settings = self._settings.runner
        while not self._ended.wait(settings.lease / 16):
            over = time.monotonic() - (settings.lease * 7 / 8 - settings.grace)
            for number, attempt in list(self._live.items()):
                if number not in self._fenced and max(self._heard, self._leased.get(number, -math.inf)) < over:
                    logger.warning("attempt %d is killed: the store was away for too long", number)
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
                if self._draining:
                    return  # it is for the next run
                time.sleep(MOMENT)
            forget_parameters(folder)
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
        owner = self._settings.folder.stat().st_uid
        if owner != os.geteuid():  # what it makes there would be in the owner's way, and no script could be run
            raise RunnerError(f"{self._settings.folder} belongs to the user with number {owner}: run it as that one")
        self._settings.attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._settings.folder / "runner.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunnerError(f"another runner works in {self._settings.folder}") from None
            yield

    def _complain(self, what: str, error: Exception) -> None:
        logger.warning("%s: %s", what, reason_of(error))


def _fields(job: Job) -> dict[str, object]:
    """What a log in JSON has beside the text."""
    return {"job": job.id, "attempt": job.attempts, "script": job.script, "owner": job.owner}
