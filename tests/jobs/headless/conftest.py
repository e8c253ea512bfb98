"""Fixtures for the headless client."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import Relay
from serving import ServerThread

from jobs.headless.place import LIMIT, Place, RelayTo
from jobs.runners import ROOT, WAIT, Site, working
from remctl.jobs import command
from remctl.jobs.scripts import AD_HOC
from remctl.jobs.service import Service
from remctl.testing import Sandbox, Server
from remctl.testing.server import free_port

PLAIN = ("[parameters.individual_parameters]", 'type = "text"', "required = false", "multiline = true")


@pytest.fixture(scope="module")
def place(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a server with scripts, and ad-hoc Python, and a runner that works."""
    folder = tmp_path_factory.mktemp("headless")
    site = Site(folder / "one", f"sqlite:///{folder}/jobs.db", lease=5)
    site.install("echo out; echo err >&2", name="good")
    site.install('printf "%s" "$JOB_PARAM_INDIVIDUAL_PARAMETERS" > $ran', *PLAIN, name="told")
    site.install("exit 3", name="bad")
    site.install(WAIT, name="slow")
    site.install("print('module')", name="setting", suffix=".py")
    site.store.scripts.install(AD_HOC, ROOT)
    with working(site), ServerThread(box, command.backend(Service(site.settings, site.store))) as server:
        yield Place(box, site, server)
        site.open()
    site.close()


@pytest.fixture
def still(box: Sandbox, tmp_path: Path) -> Iterator[Place]:
    """Give a server of a test's own, whose runner does not work, and where ad-hoc Python is off."""
    site = Site(tmp_path / "one", f"sqlite:///{tmp_path}/jobs.db", lease=5)
    site.install("echo out", name="good")
    site.install(WAIT, name="slow")
    site.store.scripts.install(AD_HOC, ROOT, enabled=False)
    with ServerThread(box, command.backend(Service(site.settings, site.store))) as server:
        yield Place(box, site, server)
    site.open()
    site.close()


@pytest.fixture
def relay_to() -> Iterator[RelayTo]:
    """Give a function that makes a relay to a server, which can be killed in its place."""
    with contextlib.ExitStack() as relays:
        yield lambda place: relays.enter_context(Relay(place.server.port))


@pytest.fixture(scope="module")
def remctld(box: Sandbox, place: Place) -> Iterator[Server]:
    """Give a remctld with the command `job` of the same folder."""
    program = place.site.settings.folder / "job"
    program.write_text(command.program(place.site.file))
    program.chmod(0o755)
    words = [str(program), "--remctld-config", "--program", str(program)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True, timeout=LIMIT).stdout
    server = box.add_server()
    server.add_config(lines)
    yield server
    server.stop()


@pytest.fixture
def elsewhere(place: Place, tmp_path: Path) -> tuple[dict[str, str], int]:
    """Give an environment in which the KDC is at a port that nothing listens on, with a ticket, and the port."""
    port = free_port("127.0.0.1")
    text = Path(place.environment["KRB5_CONFIG"]).read_text()
    (tmp_path / "krb5.conf").write_text(re.sub(r"(kdc = 127.0.0.1):\d+", rf"\1:{port}", text))
    ccache = place.box.kinit(place.box.add_principal(f"x{port}"))
    return {"KRB5_CONFIG": str(tmp_path / "krb5.conf"), "KRB5CCNAME": ccache}, port
