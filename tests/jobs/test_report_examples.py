"""The examples for script authors: each installed as it is, run by a runner, and heard by a server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row

from jobs.runners import ROOT, working
from jobs.web.served import RUNNER, Served, ServedSite
from remctl.jobs.scripts import install, read_script
from remctl.jobs.states import JobState, Reason
from remctl.jobs.store import Ended, Job, account_of, new_bid

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "jobs").glob("report.*"))

SLOW = 60
"""Seconds for a Java machine on a busy machine."""


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.suffix)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedSite]:
    """Give a folder for a runner and a server in which one example is installed."""
    made = ServedSite(tmp_path / "one", f"sqlite:///{tmp_path}/jobs.db")
    script = read_script(request.param)
    install(script, made.settings.scripts)
    made.store.scripts.install(script, ROOT)
    yield made
    made.close()


@contextmanager
def served(site: ServedSite) -> Iterator[None]:
    """Have a server and a runner work, which tells scripts where the server is."""
    site.serve_as(port=0)
    with Served(site.service) as server:
        site.serve_as(port=0, url=server.url)
        with working(site):
            yield


def ended(site: ServedSite, folder: Path) -> tuple[Job, Row[Any]]:
    """Have the example look at a folder, and wait for its end; return the job and its attempt."""
    job = site.submit("report", folder=str(folder))
    return site.over(job, SLOW), site.attempt(job)


def test_there_is_one_for_each_language() -> None:
    assert [path.suffix for path in EXAMPLES] == [".groovy", ".pl", ".py", ".sh"]


def test_an_example_reports_what_it_has_found_and_what_is_wrong(site: ServedSite, tmp_path: Path) -> None:
    folder = tmp_path / "größer & <kleiner>"
    folder.mkdir()
    name = "\x01 & \x1b[1m größte ]]> 'Datei' \N{WHITE SMILING FACE}"
    (folder / name).write_bytes(bytes(4711))
    (folder / "small").write_bytes(bytes(42))
    empty = tmp_path / "leer"
    empty.mkdir()
    with served(site):
        job, attempt = ended(site, folder)
        assert (job.state, job.reason, job.exit_status) == (JobState.SUCCESS, Reason.REPORT, 0), attempt
        assert (attempt.reported_success, attempt.report) == (True, f"4711 bytes: {name}")
        assert (attempt.stdout_tail, attempt.stderr_tail) == (b"", b"")
        for wrong in (empty, tmp_path / "not there"):
            job, attempt = ended(site, wrong)
            assert (job.state, job.reason, job.exit_status) == (JobState.FAILED, Reason.EXIT, 1)
            assert attempt.reported_success is False
            assert wrong.name in attempt.report


def test_an_example_fails_if_its_report_is_late_or_refused_or_goes_astray(site: ServedSite, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    script = site.store.scripts.get("report")
    job = site.submit("report", folder=str(tmp_path))
    bid = new_bid()
    (claim,) = site.store.attempts.claim(RUNNER, [bid], 3600)
    site.store.attempts.settle(claim.attempt, Ended(Reason.NOT_STARTED))
    site.serve_as(port=0)
    with Served(site.service) as server:
        url = f"{server.url}/api/xmlrpc"
        for number, place, complaint in (
            (job, url, "not reported"),
            (999, url, "not reported.*there is no job 999"),
            (job, f"{url}/elsewhere", "40[45]|FileNotFoundException"),
        ):
            process = subprocess.run(
                script.language.command(site.settings.scripts / script.filename),
                env={
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "JOB_PARAM_FOLDER": str(tmp_path),
                    "JOB_ID": str(number),
                    "JOB_ACCOUNT": account_of(claim.attempt),
                    "JOB_PASSWORD": bid.password,
                    "JOB_REPORT_URL": place,
                },
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
                timeout=SLOW,
            )
            assert process.returncode != 0
            assert re.search(complaint, process.stderr, re.DOTALL)
            assert bid.password not in process.stderr
    assert site.store.jobs.attempts(job)[0].late_reports == 1
