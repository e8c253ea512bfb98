"""The smaller parts: the GUID's file, log lines, the pace, and addresses."""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from jobs.robot.doubles import GUID, Server, reply
from remctl.jobs.robot import _guid, _orchestrator
from remctl.jobs.robot._errors import CommandLineError, NotNowError, UnreachableError
from remctl.jobs.robot._pace import MOST, Pace
from remctl.jobs.robot._wire import Status


class TestGuidFile:
    @pytest.mark.parametrize("mode", [0o400, 0o600])
    def test_is_read(self, tmp_path: Path, mode: int) -> None:
        file = tmp_path / "guid"
        file.write_text(f"{GUID}\n")
        file.chmod(mode)
        assert _guid.read_file(file) == GUID

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
    def test_that_others_may_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        file = tmp_path / "guid"
        file.write_text(GUID)
        file.chmod(mode)
        with pytest.raises(CommandLineError, match="chmod 600"):
            _guid.read_file(file)

    def test_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "guid"
        file.write_text(GUID)
        file.chmod(0o600)
        try:
            os.chown(file, 12345, -1)
        except PermissionError:
            pytest.skip("only root may give files away")
        with pytest.raises(CommandLineError, match="somebody else"):
            _guid.read_file(file)

    @pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"\xff", b"a\0b", b"x" * 500, b"x" * 5000])
    def test_that_holds_none_is_refused_and_not_shown(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "guid"
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(CommandLineError) as caught:
            _guid.read_file(file)
        assert not content.strip() or content.decode("latin-1") not in str(caught.value)

    def test_a_link_a_fifo_a_folder_or_nothing_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text(GUID)
        (tmp_path / "real").chmod(0o600)
        (tmp_path / "link").symlink_to("real")
        os.mkfifo(tmp_path / "fifo", 0o600)
        for name in ("link", "fifo", "", "absent"):
            with pytest.raises(CommandLineError):
                _guid.read_file(tmp_path / name)


def test_a_log_line_never_shows_the_guid() -> None:
    encoded = base64.b64encode(GUID.encode()).decode()
    record = logging.LogRecord("x", logging.INFO, "", 1, "no robot %s or %s", (GUID.upper(), encoded), None)
    assert _guid.Hiding(GUID).format(record).endswith("no robot (GUID) or (GUID)")


class TestPace:
    def test_five_minutes_away_are_few_requests(self) -> None:
        now = [0.0]
        pace = Pace(10, None, clock=lambda: now[0])
        pauses = []
        while now[0] < 300:
            pauses.append(pace.failed(NotNowError("away")))
            now[0] += pauses[-1]
        assert len(pauses) < 20
        assert 0.5 <= pauses[0] <= 1
        assert max(pauses) <= MOST
        pace.worked()
        assert pace.failed(NotNowError("away")) <= 1

    def test_patience_ends(self) -> None:
        now = [0.0]
        pace = Pace(10, 300, clock=lambda: now[0])
        pace.failed(NotNowError("away"))
        now[0] = 299
        pace.failed(NotNowError("away"))
        now[0] = 300
        with pytest.raises(UnreachableError, match="300 s: away"):
            pace.failed(NotNowError("away"))

    def test_looks_for_work_become_rarer_down_to_a_limit(self) -> None:
        pace = Pace(10, None)
        pauses = [pace.idle() for _ in range(2000)]
        assert min(pauses) >= 10
        assert 30 < sum(pauses[50:]) / 1950 <= MOST
        pace.busy()
        assert pace.idle() <= 15


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "ftp://host",
        "http://",
        "http://user@host",
        "http://host?x",
        "http://host#x",
        "http://host:99999",
        "http://h\nost",
        "http://host:0",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CommandLineError):
        _orchestrator.checked_url(url)


@contextmanager
def answering(status: int, body: bytes, *, pieces: int = 1, pause: float = 0, **headers: str) -> Iterator[str]:
    """Give the address of a server that always answers the same, in pieces of a body."""
    over = threading.Event()

    class Same(Server):
        def answer(self, handler: BaseHTTPRequestHandler) -> None:
            handler.rfile.read(int(handler.headers["Content-Length"]))
            if pieces == 1 and not headers:
                reply(handler, status, body)
                return
            handler.close_connection = True
            try:
                handler.send_response(status)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.end_headers()
                for _ in range(pieces):
                    handler.wfile.write(body)
                    over.wait(pause)
            except (BrokenPipeError, ConnectionResetError):
                return

    with Same() as server:
        yield server.url
        over.set()


def ask(url: str, timeout: float = 5) -> None:
    with closing(_orchestrator.Orchestrator(url, GUID, timeout=timeout)) as orchestrator:
        orchestrator.heartbeat(Status.READY)


class TestAnswers:
    def test_one_without_end_is_not_read(self) -> None:
        with answering(200, b"x" * (1 << 20), pieces=100) as url, pytest.raises(NotNowError, match="longer than"):
            ask(url)

    def test_one_that_drips_is_given_up(self) -> None:
        begin = time.monotonic()
        with answering(200, b"x", pieces=1000, pause=0.05) as url, pytest.raises(NotNowError, match="took longer"):
            ask(url, 0.3)
        assert time.monotonic() - begin < 5

    def test_one_that_sends_elsewhere_is_not_followed(self) -> None:
        with (
            answering(200, b'{"HeartbeatErrorCode": 0, "HasNewJob": 1}') as other,
            answering(302, b"", Location=other) as url,
            pytest.raises(NotNowError, match="elsewhere"),
        ):
            ask(url)

    def test_garbage_is_no_answer(self) -> None:
        with answering(200, b"\x1f\x8b garbage", pieces=2) as url, pytest.raises(NotNowError, match="no JSON"):
            ask(url)
