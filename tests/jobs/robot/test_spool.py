"""What is on disk at every moment, and what a next start makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remctl.jobs.robot._spool import Spool, Taken, opened
from remctl.jobs.robot._wire import Job
from remctl.jobs.states import JobState

JOB = Job("j-1", "work", {"a": ["\ud800", 1.5, None]})


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with opened(tmp_path / "state") as made:
        yield made


def test_a_job_is_remembered_as_it_came(spool: Spool) -> None:
    taken = spool.take(JOB)
    assert spool.taken() == taken == Taken(JOB, 1, begun=False)
    spool.begin(taken)
    assert spool.taken() == Taken(JOB, 1, begun=True)


def test_nobody_else_can_read_it(spool: Spool) -> None:
    spool.end(spool.take(JOB), JobState.SUCCESS, "")
    assert all(path.stat().st_mode & 0o077 == 0 for path in [spool.folder, *spool.folder.rglob("*")])


def test_a_kill_between_the_two_writings_of_an_end_leaves_one_end(spool: Spool) -> None:
    taken = spool.take(JOB)
    before = (spool.folder / "job.json").read_bytes()
    spool.end(taken, JobState.FAILED, "why")
    (spool.folder / "job.json").write_bytes(before)
    assert spool.taken() is None
    assert [(each.guid, each.state, each.why) for each in spool.results()] == [("j-1", JobState.FAILED, "why")]


def test_a_kill_while_a_file_is_written_leaves_the_one_before(spool: Spool) -> None:
    taken = spool.take(JOB)
    (spool.folder / "job.new").write_text("{")
    assert spool.taken() == taken
    spool.begin(taken)
    assert spool.taken() == taken._replace(begun=True)


def test_results_are_told_in_their_order(spool: Spool) -> None:
    for number in range(12):
        spool.end(spool.take(JOB._replace(guid=str(number))), JobState.SUCCESS, "")
    assert [each.guid for each in spool.results()] == [str(number) for number in range(12)]


def test_what_begins_anew_is_another_run(spool: Spool) -> None:
    taken = spool.take(JOB)
    spool.run_folder(taken.run).mkdir()
    spool.take_back(taken)
    assert spool.taken() == Taken(JOB, 2, begun=False)


def test_what_was_refused_is_never_written_over(spool: Spool) -> None:
    for _ in range(2):
        spool.end(spool.take(JOB), JobState.SUCCESS, "")
        (result,) = spool.results()
        spool.refuse(result)
    (spool.folder / "job.json").write_text("[")
    spool.taken()
    (spool.folder / "job.json").write_text("]")
    spool.taken()
    assert sorted(os.listdir(spool.folder / "refused")) == [
        "0000000001.json",
        "0000000002.json",
        "job-1.json",
        "job.json",
    ]
