"""A database that does not answer any more: whoever waits for it is told, and it is asked anew."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from jobs.postgres import Postgres
from jobs.runners import WAIT, MakeSite, until, working
from remctl.jobs.states import JobState
from remctl.jobs.store import Database
from remctl.jobs.store._database import _ARGUMENTS
from remctl.jobs.store._watch import Watch


class Relay:
    """Passes on what client and server of PostgreSQL say, until it swallows all of it."""

    def __init__(self, folder: Path, url: str) -> None:
        parsed = make_url(url)
        self._server = f"{parsed.query['host']}/.s.PGSQL.5432"
        self.url = parsed.update_query_dict({"host": str(folder)}).render_as_string(hide_password=False)
        self.swallows = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        self._pumps: list[threading.Thread] = []

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for pump in self._pumps:
            pump.join()
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    self._pumps.append(threading.Thread(target=self._pump, args=pair))
                    self._pumps[-1].start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self.swallows.is_set():
                    target.sendall(data)
            if not self.swallows.is_set():
                target.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """Give a way to a PostgreSQL that can be cut without anybody hearing of it."""
    monkeypatch.setitem(_ARGUMENTS["postgresql"], "connect_timeout", 2)  # so that nobody has to wait for long
    made = Relay(tmp_path, postgres.new_database())
    yield made
    made.close()


class TestADatabaseThatDoesNotAnswer:
    def test_is_given_up_after_the_limit(self, relay: Relay) -> None:
        database = Database(relay.url)
        database.watch = Watch(limit=0.5)
        with database.read() as connection:
            connection.execute(select(func.now()))
        relay.swallows.set()
        since = time.monotonic()
        with pytest.raises(DBAPIError), database.read() as connection:
            connection.execute(select(func.now()))
        assert time.monotonic() - since < 10
        relay.swallows.clear()
        with database.read() as connection:
            connection.execute(select(func.now()))
        database.close()

    def test_does_not_keep_a_runner_from_ending(self, make: MakeSite, relay: Relay) -> None:
        site = make(url=relay.url, lease=3, grace=0.1)
        site.install(WAIT)
        job = site.submit()
        with working(site) as runner:
            runner._store.database.watch = Watch(limit=0.5)
            site.begun()
            relay.swallows.set()
            runner.drain()
            runner.stop()
        relay.swallows.clear()
        site.store.close()  # its connections are cut, too
        with working(site):
            assert site.over(job).state in (JobState.STOPPED, JobState.FAILED)  # if the end could be told, or not

    def test_does_not_stop_a_runner_for_good(self, make: MakeSite, relay: Relay) -> None:
        site = make(url=relay.url, lease=3, grace=0.1)
        site.install("echo x >> $ran")
        with working(site) as runner:
            runner._store.database.watch = Watch(limit=0.5)
            until(lambda: site.over(site.submit()).state is JobState.SUCCESS)
            relay.swallows.set()
            time.sleep(0.1)
            site.store.close()
            relay.swallows.clear()
            assert site.over(site.submit(), 40).state is JobState.SUCCESS


class TestAWatch:
    def test_leaves_what_ends_in_time(self) -> None:
        one, two = socket.socketpair()
        with one, two:
            watch = Watch(limit=60)
            with watch.over(one.fileno()):
                pass
            one.sendall(b"x")
            assert two.recv(1) == b"x"
            watch.close()

    def test_cuts_the_connection_and_not_another_one_that_has_got_its_number(self) -> None:
        one, two = socket.socketpair()
        watch = Watch(limit=0.1)
        number = one.fileno()
        with watch.over(number):
            one.close()
            three, four = socket.socketpair()
            assert number in (three.fileno(), four.fileno())
            assert two.recv(1) == b""
            three.sendall(b"x")
            assert four.recv(1) == b"x"
        for sock in (two, three, four):
            sock.close()
        watch.close()
