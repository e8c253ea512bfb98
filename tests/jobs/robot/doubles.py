"""What the tests of the agent talk to: an orchestrator that knows the interface alone, and a relay that does harm."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import parse_qs

from remctl.jobs.states import FINAL, JobState

GUID: Final = "da8bc2f0-8065-4385-b867-405e66b8e151"

HEARTBEAT: Final = {"RobotGUID", "Machine", "IP", "MAC", "Status", "JobGUID", "JobName", "JobType"}

CODES: Final = {JobState.ABORTING: 10, JobState.STOPPING: 20}

LEGAL: Final = {
    JobState.PENDING: {JobState.IN_PROGRESS, *FINAL},
    JobState.IN_PROGRESS: set(FINAL),
    JobState.STOPPING: set(FINAL),
    JobState.ABORTING: set(FINAL),
}


class Message(NamedTuple):
    """A request as it arrived."""

    kind: str
    """heartbeat2, heartbeat3, consume, update8, final."""
    form: dict[str, str]
    at: float


class Row:
    """A job."""

    def __init__(self, guid: str, script: str, task: Any) -> None:
        self.guid, self.script, self.task = guid, script, task
        self.state = JobState.PENDING
        self.moves: list[JobState] = []


class Server:
    """An HTTP server on loopback, on a thread of its own, for a `with`."""

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        this = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                this.answer(self)

            def do_PUT(self) -> None:
                this.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a handshake that fails
        self.port = self._server.server_port
        self.url = f"{'http' if context is None else 'https'}://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, *, kind: str = "application/json") -> None:
    """Answer a request."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def kind_of(path: str, form: dict[str, str]) -> str:
    """Tell the messages of the algorithm from each other."""
    if path == "/api/robot/heartbeat":
        return f"heartbeat{form.get('Status')}"
    if path == "/api/robot/consumeNextJob":
        return "consume"
    return "update8" if form.get("status") == "8" else "final"


class Orchestrator(Server):
    """Hands out jobs, in the order in which they were added; what it is told that makes no sense is in `wrong`."""

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        super().__init__(port, context)
        self.jobs: dict[str, Row] = {}
        self.messages: list[Message] = []
        self.wrong: list[str] = []
        self.before: Callable[[Message], None] = lambda _: None
        """Called with each message before it is answered."""
        self.instead: Callable[[Message], tuple[int, bytes] | None] = lambda _: None
        """Called with each message; what it returns is the answer, and nothing is done."""
        self._lock = threading.Lock()

    def add(self, script: str, task: Any = None, guid: str | None = None) -> Row:
        row = Row(guid or str(uuid.uuid4()), script, task)
        self.jobs[row.guid] = row
        return row

    def want(self, state: JobState) -> None:
        """Want the only job ended."""
        (row,) = self.jobs.values()
        with self._lock:
            if row.state not in FINAL:
                row.state = state

    def kinds(self) -> list[str]:
        return [each.kind for each in list(self.messages)]

    def count(self, kind: str) -> int:
        return self.kinds().count(kind)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        text = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
        message = Message(kind_of(handler.path, form), form, time.monotonic())
        self._check(handler, message)
        self.before(message)
        with self._lock:
            self.messages.append(message)
            status, body = self.instead(message) or self._answer(message)
        try:
            reply(handler, status, body)
        except (BrokenPipeError, ConnectionResetError):  # whoever asked has given up
            handler.close_connection = True

    def _check(self, handler: BaseHTTPRequestHandler, message: Message) -> None:
        wanted = {
            "consume": ("POST", "/api/robot/consumeNextJob", {"RobotGUID", "Status"}),
            "update8": ("PUT", "/api/job/update", {"guid", "status"}),
            "final": ("PUT", "/api/job/update", {"guid", "status"}),
        }.get(message.kind, ("POST", "/api/robot/heartbeat", HEARTBEAT))
        if (handler.command, handler.path, set(message.form)) != wanted:
            self.wrong.append(f"{handler.command} {handler.path} {sorted(message.form)}")
        if handler.headers["Authorization"] != "Basic " + base64.b64encode(GUID.encode()).decode():
            self.wrong.append("Authorization")
        if handler.headers["Content-Type"] != "application/x-www-form-urlencoded":
            self.wrong.append("Content-Type")

    def _answer(self, message: Message) -> tuple[int, bytes]:
        waiting = [row for row in self.jobs.values() if row.state is JobState.PENDING]
        if message.kind.startswith("heartbeat"):
            running = self.jobs.get(message.form["JobGUID"])
            code = CODES.get(running.state, 0) if running else 0
            return ok(HeartbeatErrorCode=code, ErrorText="", HasNewJob=int(bool(waiting)), More=[1])
        if message.kind == "consume":
            if not waiting:
                return ok(ConsumeJobErrorCode=102, ErrorText="new job not found")
            row = waiting[0]
            job, version = json.dumps({"GUID": row.guid}), json.dumps({"Name": row.script})
            answer = {"Job": job, "ProcessVersion": version, " Task ": json.dumps(row.task)}
            return ok(ConsumeJobErrorCode=0, ErrorText="", **answer)
        found = self.jobs.get(message.form["guid"])
        if found is None:
            return 404, b"<html>no such job</html>"
        state = JobState(int(message.form["status"]))
        if state is not found.state:
            if state not in LEGAL.get(found.state, ()):
                return 409, b""
            found.state = state
            found.moves.append(state)
        return 200, b"OK"


def ok(**values: Any) -> tuple[int, bytes]:
    return 200, json.dumps(values).encode()


class Relay(Server):
    """Stands before an orchestrator, and does harm to the first message of a kind.

    Args:
        to: the orchestrator.
        kind: of the message.
        harm: what happens to it; see `HARMS`.
        delay: seconds, for "delayed".
    """

    HARMS: ClassVar = ("request lost", "reply lost", "repeated", "delayed", "cut")

    def __init__(self, to: Orchestrator, kind: str, harm: str, delay: float) -> None:
        super().__init__()
        self._to, self._kind, self._harm, self._delay = to, kind, harm, delay
        self.done = threading.Event()
        """Whether harm was done."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        harm = None
        if kind_of(handler.path, form) == self._kind and not self.done.is_set():
            harm = self._harm
            self.done.set()
        handler.close_connection = True
        if harm == "request lost":
            return
        if harm == "delayed":
            time.sleep(self._delay)
        for _ in range(2 if harm == "repeated" else 1):
            status, answer = self._forward(handler, body)
        if harm == "reply lost":
            return
        try:
            if harm == "cut":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + answer[: len(answer) // 2])
            else:
                reply(handler, status, answer)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._to.port)
        headers = {name: handler.headers[name] for name in ("Authorization", "Content-Type")}
        try:
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
