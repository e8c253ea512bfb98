"""The server itself: where it listens, what it takes from strangers, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from jobs.attempts import LIMIT
from jobs.runners import until
from jobs.web.served import Client, Served, ServedSite
from remctl.jobs.web import ServingError, _serving, serving
from remctl.jobs.web._limits import BODY, Limits


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ServedSite]:
    """Give a folder for a server."""
    made = ServedSite(tmp_path / "site", f"sqlite:///{tmp_path}/jobs.db")
    made.serve_as(port=0)
    yield made
    made.close()


@pytest.fixture
def served(site: ServedSite) -> Iterator[Served]:
    """Give a running server."""
    with Served(site.service) as started:
        yield started


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a certificate and keys."""
    folder = tmp_path_factory.mktemp("pem")
    for name in ("key", "other"):
        openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name)
    openssl(folder, "ec", "-in", "key", "-aes256", "-passout", "pass:canary", "-out", "locked")
    extension = ("-addext", "subjectAltName=IP:127.0.0.1")
    openssl(folder, "req", "-x509", "-key", "key", "-days", "2", "-subj", "/CN=x", *extension, "-out", "pem")
    (folder / "rubbish").write_text("rubbish")
    return folder


def status(url: str, **options: Any) -> int:
    """Ask for what is not there without a password; return the status."""
    return httpx.get(f"{url}/api/xmlrpc", timeout=LIMIT, **options).status_code


def refusal(site: ServedSite) -> str:
    """Serve, which is refused; return why."""
    with pytest.raises(ServingError) as caught, Served(site.service):
        pass
    return str(caught.value)


class TestListen:
    def test_on_a_free_port_until_the_end(self, site: ServedSite) -> None:
        with Served(site.service) as served:
            assert served.url == f"http://127.0.0.1:{served.port}"
            assert status(served.url) == 405
        with pytest.raises(httpx.ConnectError):
            status(served.url)

    @pytest.mark.parametrize(
        ("listen", "hosts"),
        [
            ("::1", ["[::1]"]),
            ("localhost", ["localhost"]),
            ("0.0.0.0", ["127.0.0.1"]),
            ("::", ["[::1]"]),
            ("", ["127.0.0.1", "[::1]"]),
        ],
    )
    def test_on_the_addresses_of_the_configuration(self, site: ServedSite, listen: str, hosts: list[str]) -> None:
        site.serve_as(listen=listen, port=0)
        with Served(site.service) as served:
            assert served.url == f"http://{hosts[0]}:{served.port}"
            for host in hosts:
                assert status(f"http://{host}:{served.port}") == 405

    def test_again_on_the_port_of_a_server_that_has_stopped(self, site: ServedSite) -> None:
        with Served(site.service) as served:
            status(served.url)
        site.serve_as(port=served.port)
        with Served(site.service) as again:
            assert again.url == served.url
            assert status(again.url) == 405

    def test_on_a_port_that_is_in_use_is_refused(self, site: ServedSite) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            site.serve_as(port=port)
            assert refusal(site) == (
                f"cannot listen on 127.0.0.1 port {port}: Address already in use; "
                f"another program listens there; give another [server] port in {site.file}"
            )

    def test_on_addresses_that_are_not_to_be_had_is_refused(self, site: ServedSite) -> None:
        for listen in ("192.0.2.1", "nothing.invalid", f"{'x' * 64}.example"):
            site.serve_as(listen=listen, port=4711)
            found = refusal(site)
            assert found.startswith(f"cannot listen on {listen} port 4711: ")
            assert "see [server] listen in" in found

    def test_on_one_address_of_a_name_is_enough(self, site: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
        both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("192.0.2.1", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        sockets = _serving._bound(site.settings)
        assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1"]
        sockets[0].close()

    def test_on_a_second_address_whose_port_is_in_use_leaves_no_socket(
        self, site: ServedSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[socket.socket] = []
        create = socket.create_server

        def once(*arguments: Any, **options: Any) -> socket.socket:
            if made:
                raise OSError(errno.EADDRINUSE, "Address already in use")
            made.append(create(*arguments, **options))
            return made[-1]

        monkeypatch.setattr(socket, "create_server", once)
        both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        assert "in use" in refusal(site)
        assert made[0].fileno() == -1

    def test_with_a_server_that_cannot_start_leaves_no_socket(
        self, site: ServedSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = _serving._bound(site.settings)
        monkeypatch.setattr(_serving, "_bound", lambda _: made)

        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(uvicorn.Server, "startup", broken)
        with pytest.raises(RuntimeError, match="broken"), Served(site.service):
            pass
        assert made[0].fileno() == -1

    def test_on_the_main_thread_leaves_signals_alone(self, site: ServedSite) -> None:
        async def main() -> None:
            async with serving(site.service) as url:
                assert signal.getsignal(signal.SIGTERM) is before
                assert await asyncio.to_thread(status, url) == 405

        before = signal.getsignal(signal.SIGTERM)
        asyncio.run(main())


class TestTls:
    def test_is_spoken_with_a_certificate(self, site: ServedSite, pem: Path) -> None:
        for name in ("pem", "key"):
            (site.settings.folder / name).write_bytes((pem / name).read_bytes())
        site.serve_as(port=0, certificate="pem", key="key")
        trusting = ssl.create_default_context(cafile=pem / "pem")
        with Served(site.service) as served:
            assert served.url == f"https://127.0.0.1:{served.port}"
            assert status(served.url, verify=trusting) == 405
            with pytest.raises(httpx.TransportError):
                status(served.url.replace("https", "http"))

    def test_is_refused_with_files_that_cannot_be_used(self, site: ServedSite, pem: Path) -> None:
        for certificate, key, complaint in (
            ("nothing", "key", f"[server] certificate: {pem / 'nothing'}: No such file or directory"),
            ("pem", "nothing", f"[server] key: {pem / 'nothing'}: No such file or directory"),
            ("pem", "locked", f"[server] certificate and key: {pem / 'pem'} and {pem / 'locked'} cannot be used: "),
            ("pem", "other", f"[server] certificate and key: {pem / 'pem'} and {pem / 'other'} cannot be used: "),
            ("rubbish", "key", "[server] certificate and key: "),
        ):
            site.serve_as(port=0, certificate=str(pem / certificate), key=str(pem / key))
            assert refusal(site).startswith(complaint)


class TestStrangers:
    def test_get_the_headers_that_protect_browsers(self, served: Served) -> None:
        large = httpx.post(f"{served.url}/elsewhere", content=b"x" * (BODY + 1))
        for response in (large, httpx.get(f"{served.url}/api/xmlrpc"), httpx.post(f"{served.url}/api/xmlrpc")):
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "same-origin"
            assert "server" not in response.headers
        assert large.status_code == 413

    def test_cannot_send_endless_headers(self, served: Served) -> None:
        with socket.create_connection(("127.0.0.1", served.port), LIMIT) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(b"GET / HTTP/1.1\r\nX: ")
            while True:
                sock.sendall(b"x" * 65536)

    def test_cannot_be_silent_for_ever(self, site: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_serving, "PATIENCE", 0.2)
        monkeypatch.setattr(_serving, "KEEP_ALIVE", LIMIT)
        with Served(site.service) as served:
            for said in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n"):
                with socket.create_connection(("127.0.0.1", served.port), LIMIT) as sock:
                    sock.sendall(said)
                    assert ended(sock)
            with socket.create_connection(("127.0.0.1", served.port), LIMIT) as sock:
                sock.sendall(b"GET /api/xmlrpc HTTP/1.1\r\nHost: x\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 405 ")
                sock.sendall(b"GET")
                assert ended(sock)

    def test_cannot_pretend_to_be_elsewhere(self, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        with contextlib.closing(Client(served.url, "nobody", "wrong")) as client:
            client.send(b"", X_Forwarded_For="192.0.2.1")
        assert "wrong account or password: nobody from 127.0.0.1" in caplog.text

    def test_leave_a_line_in_the_log_without_their_query(
        self, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "remctl.jobs.web._serving")
        httpx.get(f"{served.url}/api/xmlrpc?%0Acanary")
        httpx.get(f"{served.url}/%0Aforged")
        until(lambda: len([each for each in caplog.records if "GET" in each.getMessage()]) == 2)
        assert "127.0.0.1 GET /api/xmlrpc: 405 in " in caplog.text
        assert "127.0.0.1 GET /%0Aforged: " in caplog.text
        assert "canary" not in "".join(each.getMessage() for each in caplog.records if "remctl" in each.name)


class TestLimits:
    """The middleware by itself, with what a server would give it."""

    def test_a_body_may_be_as_large_as_the_limit(self) -> None:
        assert through(Limits(reading, body=6), b"abc", b"def") == [200, b"6"]
        assert through(Limits(reading, body=6), b"abcdef", announced="6") == [200, b"6"]

    def test_a_larger_one_is_refused_before_it_is_read(self) -> None:
        assert through(Limits(reading, body=5), announced="6") == [413, b"the body has more than 5 bytes"]

    def test_a_larger_one_is_refused_while_it_is_read(self) -> None:
        with pytest.raises(HTTPException, match="413: the body has more than 5 bytes"):
            through(Limits(reading, body=5), b"abc", b"def")

    def test_one_that_comes_too_slowly_is_refused(self) -> None:
        with pytest.raises(HTTPException, match=r"408: the body has not come within 0\.05 seconds"):
            through(Limits(reading, patience=0.05), b"abc", None)

    def test_a_client_may_wait_for_an_answer_as_long_as_it_likes(self) -> None:
        async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["body"] == b"abc"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.2)
            await PlainTextResponse("done")(scope, receive, send)

        assert through(Limits(waiting, patience=0.05), b"abc", final=True) == [200, b"done"]

    def test_what_is_no_request_passes(self) -> None:
        seen = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["type"])

        asyncio.run(Limits(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]  # it uses neither
        assert seen == ["lifespan"]


class TestStop:
    @pytest.fixture
    def gate(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
        """Give an application with one page that waits."""
        gate = Gate()
        monkeypatch.setattr(_serving, "application", lambda _: gate.application)
        yield gate
        gate.opened.set()

    def test_lets_running_requests_end(self, site: ServedSite, gate: Gate) -> None:
        with Served(site.service) as served:
            asking = Asking(served.url)
            assert gate.entered.wait(LIMIT)
            served.ask_to_stop()
            until(lambda: not listens(served.port))
            gate.opened.set()
            assert asking.answer() == "opened"

    def test_does_not_wait_for_ever(self, site: ServedSite, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_serving, "GRACE", 1)
        with socket.socket() as half, Served(site.service) as served:
            half.connect(("127.0.0.1", served.port))
            half.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            asking = Asking(served.url)
            assert gate.entered.wait(LIMIT)
        assert asking.answer() in ("Internal Server Error", "RemoteProtocolError", "ReadError")
        assert not listens(served.port)


class Gate:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.application = Starlette(routes=[Route("/", self._serve, methods=["GET", "POST"])])

    async def _serve(self, request: Request) -> PlainTextResponse:
        await request.body()
        self.entered.set()
        while not self.opened.is_set():
            await asyncio.sleep(0.01)
        return PlainTextResponse("opened")


class Asking:
    """A request on a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._answer = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def answer(self) -> str:
        """Wait for the text of the answer, or the name of what went wrong."""
        self._thread.join(LIMIT)
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = httpx.get(self._url, timeout=LIMIT).text
        except httpx.TransportError as error:
            self._answer = type(error).__name__


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the size of the body."""
    await PlainTextResponse(str(len(await Request(scope, receive).body())))(scope, receive, send)


def through(app: Limits, *pieces: bytes | None, announced: str | None = None, final: bool = False) -> list[Any]:
    """Send a body through a middleware; None is silence.  Return the status and the body of the answer."""
    messages: list[Message | None] = [
        None if piece is None else {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    if final and (last := messages[-1]) is not None:
        last["more_body"] = False
    elif None not in messages:
        messages.append({"type": "http.request"})
    answers: list[Any] = []

    async def receive() -> Message:
        message = messages.pop(0) if messages else None
        return message or await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        answers.append(message.get("status", message.get("body")))

    headers = [] if announced is None else [(b"content-length", announced.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), LIMIT))
    return answers


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def listens(port: int) -> bool:
    """Return whether somebody listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT):
        return True
    return False


def ended(sock: socket.socket) -> bool:
    """Wait until the other side closes a connection, whatever it says before."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65536):
            pass
    return True
