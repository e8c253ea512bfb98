"""The command `job` under the real remctld, and many who wait in one server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs.runners import WAIT, Site, until, working
from serving import PATIENCE, ServerThread

from remctl import Remctl
from remctl.jobs import Client, aio, command
from remctl.jobs._answers import OutputEvent
from remctl.jobs.service import Service
from remctl.jobs.states import JobState
from remctl.testing import Sandbox, Server

MANY = 200


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a folder for a runner."""
    made = Site(tmp_path / "one", f"sqlite:///{tmp_path}/jobs.db", lease=1)
    yield made
    made.close()


@pytest.fixture
def remctld(box: Sandbox, site: Site) -> Iterator[Server]:
    """Give a remctld with the lines that the command prints."""
    program = site.settings.folder / "job"
    program.write_text(command.program(site.file))
    program.chmod(0o755)
    lines = subprocess.run(
        [program, "--remctld-config", "--program", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout
    server = box.add_server()
    server.add_config(lines)
    yield server
    server.stop()


class TestRemctld:
    def test_submits_and_waits_and_shows_the_output(self, site: Site, remctld: Server, box: Sandbox) -> None:
        site.install(
            f'echo "hello $JOB_PARAM_NAME"; grep -c swordfish $JOB_PARAMETERS; {WAIT}',
            *("[parameters.name]", 'type = "text"', "[parameters.password]", 'type = "secret"'),
        )
        with working(site), Client(box.host, remctld.port, box.principal) as client:
            job = client.submit("work", {"name": "Ada", "password": "swordfish"})
            heard = b""
            for event in client.follow(job.id):
                heard += event.data if isinstance(event, OutputEvent) else b""
                if heard == b"hello Ada\n1\n":
                    site.open()
            assert client.wait(job.id).state is JobState.SUCCESS
            assert client.output(job.guid).stdout == heard
        assert job.owner == box.user
        assert "job submit **MASKED**" in remctld.log
        assert "swordfish" not in remctld.log

    def test_is_spoken_to_by_people(self, site: Site, remctld: Server, box: Sandbox) -> None:
        site.install('echo "hello $JOB_PARAM_NAME"; exit 3', "[parameters.name]", 'type = "text"')
        with working(site), Remctl(box.host, remctld.port, box.principal) as session:
            assert session.run(["job", "submit", "work", "name=a\tb"]).status == 64
            assert session.run(["job", "submit", "work", "name=Ada"]).stdout == b"1\n"
            result = session.run(["job", "wait", "1"])
            assert (result.stdout, result.status) == (b"hello Ada\n", 1)
            assert result.stderr.endswith(b"job 1: Failed (exit 3)\n")
            data = json.dumps({"name": "Bob"})
            assert session.run(["job", "submit", "--stdin", "work", data]).stdout == b"2\n"
            assert session.run(["job", "submit"]).status == 64
            assert b"job wait" in session.run(["help"]).stdout

    def test_is_spoken_to_with_asyncio(self, site: Site, remctld: Server, box: Sandbox) -> None:
        site.install("echo out")

        async def main() -> tuple[JobState, bytes]:
            async with aio.Client(box.host, remctld.port, box.principal) as client:
                job = await client.submit("work")
                return (await client.wait(job.id)).state, (await client.output(job.id)).stdout

        with working(site):
            assert asyncio.run(main()) == (JobState.SUCCESS, b"out\n")


def test_many_wait_in_one_server_and_it_has_few_threads(site: Site, box: Sandbox) -> None:
    site.install("true")
    with ServerThread(box, command.backend(Service(site.settings, site.store))) as server:

        async def main() -> list[JobState]:
            async with aio.Client("localhost", server.port, box.principal) as client:
                job = await client.submit("work")
                waits = [asyncio.create_task(client.wait(job.id)) for _ in range(MANY)]
                while sum(each._running for each in server.server._served) < MANY:
                    await asyncio.sleep(0.01)
                assert threading.active_count() - before < 60
                with working(site):
                    return [found.state for found in await asyncio.gather(*waits)]

        before = threading.active_count()
        assert asyncio.run(main()) == [JobState.SUCCESS] * MANY
    until(lambda: server.server.connections == 0)
