"""What the tests of agents and the server share: folders for both, and a relay between them that does harm."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import pytest
from sqlalchemy import update

from jobs.attempts import LIMIT
from jobs.robot.doubles import Server, kind_of, reply
from jobs.robot.sites import Site
from jobs.web.robots import RobotSite
from remctl.jobs.robot import _orchestrator, _spool
from remctl.jobs.robot._agent import Agent, Options
from remctl.jobs.robot._guid import VARIABLE
from remctl.jobs.robot._running import Runs
from remctl.jobs.scripts import Language, Limits, Parameters, Retry, Script
from remctl.jobs.states import JobState
from remctl.jobs.store import Job
from remctl.jobs.store._schema import robots
from remctl.jobs.web import _robots, _robots_sweeping
from remctl.jobs.web._robots_sweeping import Sweeping

KINDS: Final = ("heartbeat2", "consume", "update8", "heartbeat3", "final")
"""The messages of an agent, in the order of its algorithm."""

HARMS: Final = ("request lost", "request late", "reply lost", "reply late", "repeated", "cut", "dripping")

WAITS: Final = "say('on'); wait()"


class Robot(Site):
    """A folder for the agent of a robot.

    Args:
        folder: which is made.
        guid: the robot's.
    """

    def __init__(self, folder: Path, guid: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.guid = guid

    @contextmanager
    def agent(self, url: str, *, timeout: float = LIMIT, runs: Runs | None = None, **options: Any) -> Iterator[Agent]:
        """Give an agent that asks often."""
        how = Options(self.scripts, sys.executable)._replace(**{"interval": 0.05, "grace": 0.5, **options})
        with (
            _spool.opened(self.state) as spool,
            closing(_orchestrator.Orchestrator(url, self.guid, timeout=timeout)) as orchestrator,
        ):
            yield Agent(orchestrator, spool, how, runs)

    def process(self, url: str, *more: str, failpoint: str | None = None, **variables: str) -> subprocess.Popen[bytes]:
        """Start an agent as a process."""
        return super().process(url, *more, failpoint=failpoint, **{VARIABLE: self.guid, **variables})


class Both(RobotSite):
    """A folder for a server, with its robot and others of the pool `night`."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder / "server", url)
        self.folder = folder
        self.here = Robot(folder / "here", self.robot.guid)
        """The robot's."""

    def other(self, name: str = "C3", pool: str = "night") -> Robot:
        """Make another robot known; return its folder."""
        return Robot(self.folder / name, self.store.robots.add(name, pool=pool).guid)

    def may_run_again(self) -> None:
        """Let jobs that are lost run again, once."""
        limits = Limits(retry=Retry.RETRY, retries=1)
        script = Script("work", Language.PYTHON, "Work.", b"", "8" * 64, Parameters({}), limits)
        self.store.scripts.install(script, "root@EXAMPLE.ORG")

    def gone(self) -> None:
        """Have no robot been heard of for a long time."""
        with self.store.database.write() as connection:
            connection.execute(update(robots).values(seen_at=1))
        self.overdue()

    def ended(self, job: Job) -> tuple[JobState, int]:
        """Return where a job stands, and how often it was given away."""
        return self.state(job), len(self.store.jobs.attempts(job.id))


@contextmanager
def both(request: pytest.FixtureRequest, folder: Path) -> Iterator[Both]:
    """Give folders for a server and agents, on both databases where the fixture `url` is used, too."""
    used = "url" in request.fixturenames
    made = Both(folder, request.getfixturevalue("url") if used else f"sqlite:///{folder}/jobs.db")
    yield made
    made.close()


def sweep_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers sweep all the time, from their beginning."""
    monkeypatch.setattr(_robots, "Sweeping", lambda store, _: Sweeping(store, 0))
    monkeypatch.setattr(_robots_sweeping, "EVERY", 0.05)


class Passed(NamedTuple):
    """A request as it came, and what the server answered."""

    kind: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    answer: bytes


class Relay(Server):
    """Stands between agents and a server, and does harm to the first message of a kind.

    What has to be late waits for what comes after it, and not for a time.

    Args:
        to: the server's port.
        kind: of the message.
        harm: what happens to it; see `HARMS`.
    """

    def __init__(self, to: int, kind: str = "", harm: str = "") -> None:
        super().__init__()
        self.to = to
        self._kind, self._harm = kind, harm
        self.harmed = threading.Event()
        """Whether harm was done."""
        self.away: Callable[[str], bool] = lambda _: False
        """Called with each kind of message; says whether it gets lost."""
        self.before: Callable[[str], None] = lambda _: None
        """Called with each kind of message before it is passed on."""
        self.after: Callable[[str], None] = lambda _: None
        """Called when the server has answered it, and the agent does not know."""
        self.passed: list[Passed] = []
        self._lock = threading.Lock()
        self._next = threading.Event()
        """Whether another message was answered since the harm."""

    def __exit__(self, *error: object) -> None:
        self._next.set()
        super().__exit__(*error)

    def statuses(self, kind: str) -> list[int]:
        """Return what the server has answered to the messages of a kind."""
        return [each.status for each in self.passed if each.kind == kind]

    def again(self, kind: str) -> Passed:
        """Send the first message of a kind once more."""
        return self._pass(next(each for each in self.passed if each.kind == kind))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Pass on a request, and what the server answers."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        kind = kind_of(handler.path, form)
        headers = {name: handler.headers[name] for name in ("Authorization", "Content-Type")}
        asked = Passed(kind, handler.command, handler.path, headers, body, 0, b"")
        handler.close_connection = True
        if self.away(kind):
            return
        harm = self._harm_to(kind)
        if harm == "request lost":
            return
        if harm == "request late":
            self._next.wait(LIMIT)
        self.before(kind)
        for _ in range(2 if harm == "repeated" else 1):
            said = self._pass(asked)
        self.after(kind)
        if harm == "reply late":
            self._next.wait(LIMIT)
        elif self.harmed.is_set() and not harm:
            self._next.set()
        with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has given up
            self._reply(handler, said, harm)

    def _harm_to(self, kind: str) -> str:
        with self._lock:
            if kind != self._kind or self.harmed.is_set():
                return ""
            self.harmed.set()
            return self._harm

    def _pass(self, asked: Passed) -> Passed:
        connection = http.client.HTTPConnection("127.0.0.1", self.to, timeout=LIMIT)
        with closing(connection):
            connection.request(asked.method, asked.path, asked.body, dict(asked.headers))
            found = connection.getresponse()
            said = asked._replace(status=found.status, answer=found.read())
        self.passed.append(said)
        return said

    def _reply(self, handler: BaseHTTPRequestHandler, said: Passed, harm: str) -> None:
        if harm == "cut":
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said.answer)
            handler.wfile.write(head + said.answer[: len(said.answer) // 2])
        elif harm == "dripping":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self._next.wait(0.02):
                handler.wfile.write(b"X: x\r\n")
        elif harm != "reply lost":
            reply(handler, said.status, said.answer)
