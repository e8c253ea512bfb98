"""The daemons, in processes of their own: what they say, how they end, and why they do not begin."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.attempts import LIMIT
from jobs.cli.calling import Daemon, new_folder
from jobs.runners import until
from jobs.web.pages import http_keytab
from remctl.jobs import daemons
from remctl.jobs.cli import main
from remctl.jobs.client import Client
from remctl.jobs.settings import load
from remctl.jobs.states import JobState
from remctl.jobs.store import Job, Store
from remctl.testing import Sandbox

GATED = """\
#!/bin/bash
# /// job
# description = "Wait until the gate is open."
# ///
echo $JOB_REPORT_URL
until [ -e {gate} ]; do sleep 0.02; done
"""


class Place:
    """A working folder whose daemons have keys, and listen on free ports; its script `gated` waits for `open`."""

    def __init__(self, folder: Path, box: Sandbox, keytab: str) -> None:
        self.folder = new_folder(folder)
        self.file = self.folder / "jobs.toml"
        self.gate = folder / "gate"
        self.box = box
        self.values: dict[str, dict[str, Any]] = {
            "runner": {"poll": 0.1, "lease": 4, "grace": 0.5},
            "server": {"port": 0, "keytab": keytab},
            "remctl": {"listen": "127.0.0.1", "port": 0, "keytab": box.keytab},
            "log": {},
        }
        self.configure()
        script = folder / "gated.sh"
        script.write_text(GATED.format(gate=self.gate))
        assert main(["--config", str(self.file), "script", "install", str(script)]) == 0
        self.store = Store(load(self.file).database_url)

    def configure(self, section: str = "log", **values: Any) -> None:
        """Change settings."""
        self.values[section].update(values)
        tables = [
            "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())])
            for name, table in self.values.items()
        ]
        self.file.write_text("\n".join(tables) + "\n")

    def begun(self) -> int:
        """Submit a job and wait until its script runs; return its number."""
        job = self.store.jobs.submit("gated", {}, "ada@EXAMPLE.ORG").id
        self.stands(job, JobState.IN_PROGRESS)
        return job

    def stands(self, job: int, state: JobState) -> Job:
        """Wait until a job stands there; return it."""

        def seen() -> Job | None:
            found = self.store.jobs.get(job)
            assert found.state is state or not found.state.final
            return found if found.state is state else None

        found = until(seen)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def keytab(box: Sandbox) -> str:
    """Give a keytab with a key for HTTP."""
    return http_keytab(box)


@pytest.fixture
def place(tmp_path: Path, box: Sandbox, keytab: str) -> Iterator[Place]:
    """Give a working folder."""
    made = Place(tmp_path, box, keytab)
    yield made
    made.store.close()


@pytest.fixture
def up(place: Place) -> Iterator[Daemon]:
    """Give all daemons in one process, which is ready."""
    with Daemon(place.folder, "up") as started:
        started.says("ready")
        yield started


def url_of(daemon: Daemon) -> str:
    """Return where it speaks HTTP."""
    return daemon.says(r"serving (https?://\S+)$")[1]


def port_of(daemon: Daemon) -> int:
    """Return where it speaks remctl."""
    return int(daemon.says(r"serving on 127\.0\.0\.1 port (\d+)$")[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port), LIMIT).close()
    except ConnectionRefusedError:
        return False
    return True


# Work


def test_up_does_all_and_says_where(place: Place, up: Daemon) -> None:
    place.gate.touch()
    with Client("localhost", port_of(up), place.box.principal) as client:
        job = client.submit("gated")
        assert client.wait(job.id).state is JobState.SUCCESS
    assert place.store.jobs.output(job.id).stdout.decode() == f"{url_of(up)}/api/xmlrpc\n"
    assert place.store.jobs.get(job.id).owner == place.box.user
    assert 'remctl_jobs_open{state="pending"} 0.0' in httpx.get(f"{url_of(up)}/metrics").text
    assert len(re.findall(": serving (http|on )", up.log)) == 2
    up.signal(signal.SIGINT)
    assert up.ended() == 0
    assert "Traceback" not in up.log


@pytest.mark.parametrize(
    ("command", "ready"), [("runner", "runner"), ("serve", "HTTP server"), ("door", "remctl server")]
)
def test_each_daemon_works_alone_and_ends_when_it_is_told_to(place: Place, command: str, ready: str) -> None:
    with Daemon(place.folder, command) as daemon:
        daemon.says(f"ready: {ready}$")
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 0
        assert not re.search("Traceback|Warning", daemon.log)


# The end


def test_the_first_signal_lets_jobs_end_and_scripts_report_and_takes_nothing_new(place: Place, up: Daemon) -> None:
    job = place.begun()
    up.signal(signal.SIGTERM)
    up.says("ending: ")
    until(lambda: not listens(port_of(up)))
    later = place.store.jobs.submit("gated", {}, "ada@EXAMPLE.ORG").id
    assert httpx.get(f"{url_of(up)}/metrics").status_code == 200
    place.gate.touch()
    assert up.ended() == 0
    assert place.store.jobs.get(job).state is JobState.SUCCESS
    assert place.store.jobs.get(later).state is JobState.PENDING


def test_the_second_signal_stops_what_is_under_way(place: Place, up: Daemon) -> None:
    job = place.begun()
    with Client("localhost", port_of(up), place.box.principal) as client:
        own = client.submit("gated").id
    words = ["remctl", "-p", str(port_of(up)), "-s", place.box.principal, "localhost", "job", "wait", str(own)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as waiting:
        place.stands(own, JobState.IN_PROGRESS)
        up.signal(signal.SIGTERM)
        up.says("ending: ")
        up.signal(signal.SIGTERM)
        assert up.ended() == 0
        waiting.communicate(timeout=LIMIT)
    for number in (job, own):
        assert place.store.jobs.get(number).state is JobState.STOPPED
    assert "Traceback" not in up.log


def test_jobs_are_stopped_when_the_drain_is_over(place: Place) -> None:
    with Daemon(place.folder, "runner", "--drain", "0.2") as daemon:
        daemon.says("ready")
        job = place.begun()
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 0
    assert place.store.jobs.get(job).state is JobState.STOPPED


def test_a_hang_up_changes_nothing(place: Place, up: Daemon) -> None:
    up.signal(signal.SIGHUP)
    up.says("SIGHUP changes nothing")
    place.gate.touch()
    place.stands(place.store.jobs.submit("gated", {}, "ada@EXAMPLE.ORG").id, JobState.SUCCESS)


# What does not begin


def refused(place: Place, command: str = "up", **variables: str) -> str:
    """Start a daemon that cannot work; return the one line that says why."""
    with Daemon(place.folder, command, **variables) as daemon:
        assert daemon.ended() == 1
        (line,) = [line for line in daemon.log.splitlines() if " ERROR " in line or line.startswith("remctl-jobs: ")]
        assert "Traceback" not in daemon.log
        assert "ready: " not in daemon.log
        return line


@pytest.mark.parametrize("section", ["server", "remctl"])
def test_a_port_that_is_taken_is_told(place: Place, section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place.configure(section, port=port)
        said = refused(place)
    assert f"[{section}]" in said
    assert str(port) in said
    assert "Address already in use" in said


def test_an_address_that_this_machine_does_not_have_is_told(place: Place) -> None:
    place.configure("remctl", listen="192.0.2.1")
    assert "cannot listen on 192.0.2.1 port 0: Cannot assign requested address" in refused(place, "door")
    place.configure("remctl", listen="nowhere.invalid")
    assert "cannot listen on nowhere.invalid port 0: " in refused(place, "door")


def test_a_second_runner_in_a_folder_is_refused(place: Place, up: Daemon) -> None:
    assert f"another runner works in {place.folder}" in refused(place, "runner")
    assert f"another runner works in {place.folder}" in refused(place)
    assert up.process.poll() is None


def test_a_database_that_is_away_is_told(place: Place) -> None:
    place.file.write_text('database = "postgresql://ada:hush@127.0.0.1:1/jobs"\n' + place.file.read_text())
    said = refused(place)
    assert "the database cannot be used" in said
    assert "hush" not in said


def test_a_keytab_that_is_not_there_is_told(place: Place) -> None:
    place.configure("remctl", keytab="nothing.keytab")
    assert f"the keytab '{place.folder}/nothing.keytab' cannot be read" in refused(place)


def test_a_configuration_that_is_wrong_is_told(place: Place) -> None:
    place.configure("runner", poll=0)
    assert refused(place) == f"remctl-jobs: {place.file}:2: runner.poll: expected float >= 0.1"


def test_a_runner_that_fails_ends_all_and_says_why(place: Place) -> None:
    program = f"""
import sys
from remctl.jobs import cli
from remctl.jobs.runner import Runner

def fail(self):
    raise RuntimeError("the disk has melted")

Runner._turn = fail
sys.exit(cli.main(["--config", {str(place.file)!r}, "up"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    assert "RuntimeError: the disk has melted" in done.stderr


def test_in_json_all_that_it_says_is_json(place: Place) -> None:
    place.configure("log", format="json")
    with Daemon(place.folder, "up") as daemon:
        daemon.says("ready")
        refused = Daemon(place.folder, "runner")
        assert refused.ended() == 1
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 0
        for line in daemon.log.splitlines():
            assert json.loads(line)["level"] == "info"
    (last,) = refused.log.splitlines()
    assert json.loads(last)["level"] == "error"


# systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_it_is_ready_and_when_it_ends(place: Place, abstract: bool) -> None:
    address = f"@remctl-jobs-{os.getpid()}" if abstract else str(place.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(LIMIT)
        with Daemon(place.folder, "runner", NOTIFY_SOCKET=address) as daemon:
            assert sock.recv(100) == b"READY=1"
            daemon.signal(signal.SIGTERM)
            assert sock.recv(100) == b"STOPPING=1"
            assert daemon.ended() == 0


def test_systemd_that_does_not_listen_is_no_reason_to_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    daemons.notify("READY=1")
    assert "systemd cannot be told READY=1: [Errno 2] No such file or directory" in caplog.text
