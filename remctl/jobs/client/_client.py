"""The blocking client of the remctl command `job`; `remctl.jobs.aio` is its twin."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from remctl import _arguments
from remctl.exceptions import RemctlConnectionError, RemctlNotOpenedError, RemctlTimeoutError
from remctl.jobs._answers import (
    EndEvent,
    History,
    Job,
    JobEvent,
    Machine,
    Output,
    Robot,
    Script,
)
from remctl.jobs.client import _asking
from remctl.jobs.client._asking import (
    Ask,
    Following,
)
from remctl.jobs.states import JobState
from remctl.session import Remctl
from remctl.types import OutputType, Stream

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Client:
    """Submits jobs on a server, and sees what becomes of them.

        >>> with Client("jobs.example.org") as client:
        ...     job = client.submit("greet", {"name": "Ada"})
        ...     client.wait(job.id).state
        <JobState.SUCCESS: 4>

    Args:
        host: the server's name or address.
        port: its TCP port, a number or decimal text; None or 0 tries 4373, then 4444 if that does not connect.
        principal: the server's principal; None is host/HOST in the realm that Kerberos gives the host.
        timeout: seconds for each call, but `wait` and `follow` once they are connected; None or 0 is without limit.
        ccache: name or path of the ticket cache; None is the default cache.
        source_ip: the local IPv4 or IPv6 address to connect from; None leaves it to the system.
        min_protocol: the lowest protocol version to accept, 1 to 3.
        patience: seconds for which `wait` and `follow` go on trying to reach a server that they have lost; None is for
            ever.

    Raises:
        TypeError, ValueError: an argument makes no sense.

    It connects when it is asked first, and again when the connection was lost: what does no harm twice is asked once
    more.  It is a context manager, which closes it at the end.  Threads may share it; `wait` and `follow` have
    connections of their own.

    Each method may raise, besides what is said there:

    - `RemctlConnectionError`, `RemctlAuthenticationError`, `RemctlTimeoutError`, `RemctlCommandError`: see there; the
      last one above all where the server has no command `job`.
    - `JobDeniedError`: the caller may not do that.
    - `JobsUnavailableError`: the server cannot reach its database.
    - `JobAnswerError`: the answer cannot be understood.
    - `JobError`, the root of these three: something else went wrong on the server.
    - `TypeError`, `ValueError`: an argument makes no sense; nothing was sent.
    """

    def __init__(
        self,
        host: str,
        port: int | str | None = 0,
        principal: str | None = None,
        *,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        min_protocol: int = 1,
        patience: float | None = 600,
    ) -> None:
        self._server = _arguments.check_server(host, port, principal)
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "ccache": ccache,
            "source_ip": source_ip,
            "min_protocol": min_protocol,
        }
        self._session = Remctl(**self._options)
        self._patience = _arguments.check_timeout(patience, "patience")
        self._connecting = threading.Lock()
        self._closed = False

    # Scripts

    def scripts(self) -> list[Script]:
        """Return the scripts that the caller may use, by name."""
        return self._ask(_asking.scripts())

    def script(self, name: str) -> Script:
        """Return one of them.

        Raises:
            NoSuchScriptError: there is none of that name, or it is turned off.
        """
        return self._ask(_asking.script(name))

    # Jobs

    def submit(
        self,
        script: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        priority: int = 0,
        delay: float = 0,
        guid: str | uuid.UUID | None = None,
        robot: str | None = None,
        pool: str | None = None,
    ) -> Job:
        """Make a job that waits to be run; return it.

        The parameters are in no log, and no command line shows them.  If the connection is lost before the answer, it
        is asked again, which makes no second job.

        Args:
            script: the script's name.
            parameters: their values, as str, int, float or bool; None is none.
            priority: -100 to 100; higher ones are taken first, and those above 0 are for operators.
            delay: seconds before it may be taken.
            guid: the caller's own, with which it may ask again at any time; None makes one.
            robot: the name of the robot that is to run it; None with a pool of None leaves it to the server's runners.
            pool: any robot of this pool.

        Raises:
            NoSuchScriptError: there is no such script, or it is turned off.
            JobParameterError: a parameter is missing, unknown or wrong.
            JobStateError: the GUID is that of another job, or there is no such robot or pool.
        """
        return self._ask(_asking.submit(script, parameters or {}, priority, delay, guid, robot, pool))

    def job(self, job: int | str) -> Job:
        """Return a job, by its number or GUID.

        Raises:
            NoSuchJobError: there is none, or it is not for the caller to see.
        """
        return self._ask(_asking.job(job))

    def jobs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[JobState] = (),
        script: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return jobs that the caller may see, the latest first.

        Args:
            owner: those of this principal; None is everybody's, for operators, and else the caller's own.
            states: those that stand in one of them; none is all.
            script: those of this script; None is all.
            before: those whose number is lower, which is the next page; None begins with the latest.
            limit: so many at the most, 1 to 1000.
        """
        return self._ask(_asking.jobs(owner, states, script, before, limit))

    def history(self, job: int | str) -> History:
        """Return what has happened to a job; raises what `job` does."""
        return self._ask(_asking.history(job))

    def output(self, job: int | str) -> Output:
        """Return what is kept of the output of a job's last attempt; raises what `job` does."""
        return self._ask(_asking.output(job))

    def stop(self, job: int | str) -> Job:
        """Have a job end in peace; return how it stands now.

        Raises:
            NoSuchJobError: there is none, or it is not for the caller to see.
            JobStateError: it is over.
        """
        return self._ask(_asking.change("stop", job))

    def abort(self, job: int | str) -> Job:
        """Have a job killed; see `stop`."""
        return self._ask(_asking.change("abort", job))

    def retry(self, job: int | str) -> Job:
        """Have a job that is over, and not with success, run again; return how it stands now.

        Raises:
            NoSuchJobError: there is none, or it is not for the caller to see.
            JobStateError: it is not over, was a success, or its secrets are forgotten.
        """
        return self._ask(_asking.change("retry", job))

    def machines(self) -> list[Machine]:
        """Return the machines that are known, by name."""
        return self._ask(_asking.machines())

    def robots(self) -> list[Robot]:
        """Return the robots that are known, by name."""
        return self._ask(_asking.robots())

    # Waiting

    def wait(self, job: int | str, timeout: float | None = None) -> Job:
        """Wait until a job is over; return it.

        A lost connection is made again.

        Args:
            job: its number or GUID.
            timeout: seconds; None or 0 is without limit.

        Raises:
            NoSuchJobError: there is none, or it is not for the caller to see.
            JobTimeoutError: the time limit has passed; `state` is where the job stood.
        """
        following = self._following(job, timeout, output=False)
        (end,) = (event for event in self._follow(following) if isinstance(event, EndEvent))
        return end.job

    def follow(self, job: int | str, timeout: float | None = None) -> Iterator[JobEvent]:
        """Yield what happens to a job, until it is over: its states, its output from the beginning, and its end.

        A lost connection is made again, and nothing comes twice.  What is not kept is a `GapEvent`.

        Args:
            job: its number or GUID.
            timeout: seconds; None or 0 is without limit.

        Raises:
            TypeError, ValueError: an argument makes no sense; raised by the call itself.
            NoSuchJobError, JobTimeoutError: as `wait`, while iterating.
        """
        return self._follow(self._following(job, timeout, output=True))

    # The connection

    def connect(self) -> None:
        """Connect now, if there is no connection: the first call need not wait for that, or fail over it.

        Raises:
            RemctlNotOpenedError: the client is closed.
            RemctlConnectionError: unknown host, no connection, or a lost one.
            RemctlAuthenticationError: GSS-API refused, or the ticket cache is not there.
            RemctlTimeoutError: the time limit passed.
            RemctlProtocolError: what answers is no remctl server, or its protocol is below `min_protocol`.
        """
        self._opened()

    def close(self) -> None:
        """Close the connection; calls after that raise `RemctlNotOpenedError`.  Closing twice is harmless."""
        self._closed = True
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, ask: Ask[T]) -> T:
        session = self._opened()
        try:
            result = session.run(ask.words)
        except RemctlConnectionError as error:
            if error.sent and not ask.again:
                raise
            logger.info("asking again: %s", error)
            result = self._opened().run(ask.words)
        return ask.answer(result, self._server[0])

    def _opened(self) -> Remctl:
        with self._connecting:
            if self._closed:
                raise RemctlNotOpenedError("the client is closed", host=self._server[0])
            if not self._session.opened:
                self._session.open(*self._server)
        return self._session

    def _following(self, job: int | str, timeout: float | None, *, output: bool) -> Following:
        return Following(job, timeout, output=output, patience=self._patience, host=self._server[0])

    def _follow(self, following: Following) -> Iterator[JobEvent]:
        while not following.over:
            try:
                options = {**self._options, "timeout": following.left(self._options["timeout"])}
                with Remctl(*self._server, **options) as session:
                    following.begin()
                    session.set_timeout(following.left())
                    for token in session.stream(following.words):
                        if token.type is OutputType.OUTPUT:
                            yield from following.take(token.output or b"", error=token.stream is Stream.STDERR)
                        else:
                            following.end(token.status or 0)
            except (RemctlConnectionError, RemctlTimeoutError) as error:
                pause = following.lost(error)
                logger.info("waiting goes on in %g s: %s", pause, error)
                time.sleep(pause)
