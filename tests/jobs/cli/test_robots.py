"""Robots on the command line."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli.calling import complaint, run
from remctl.jobs import cli
from remctl.jobs.settings import load
from remctl.jobs.states import RobotStatus
from remctl.jobs.store import Store

GUID = "6f1c7a0e-0000-4000-8000-00000000000a"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    """Give the store of the folder."""
    opened = Store(load(folder / "jobs.toml").database_url)
    yield opened
    opened.close()


def listed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in run(capsys, "robot", "list").splitlines()]


def test_a_robot_that_is_added_gets_a_guid_which_the_list_shows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guid = run(capsys, "robot", "add", "R2", "--pool", "night").rstrip("\n")
    assert str(uuid.UUID(guid)) == guid
    assert run(capsys, "robot", "add", "C3", "--guid", GUID.upper(), "--unlicensed") == f"{GUID}\n"
    assert listed(capsys) == [
        [GUID, "C3", "-", "unlicensed", "seen", "never"],
        [guid, "R2", "night", "disconnected", "seen", "never"],
    ]


def test_the_list_says_where_a_robot_is_and_what_it_does(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "robot", "add", "R2", "--guid", GUID)
    number = run(capsys, "submit", "nap", "--robot", "R2").rstrip("\n")
    store.robots.heard(GUID, RobotStatus.READY, 60, machine="pc7", address="192.0.2.7")
    assert store.robots.claim(GUID, 60) is not None
    (line,) = listed(capsys)
    assert line[1:9] == ["R2", "-", "ready", "on", "pc7", "job", number, "seen"]


@pytest.mark.parametrize("name", ["R2", GUID, GUID.upper()])
def test_a_robot_is_changed_and_removed_by_name_or_guid(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run(capsys, "robot", "add", "R2", "--guid", GUID)
    for command, status in (
        ("disable", ["unlicensed", "off"]),
        ("enable", ["disconnected"]),
        ("unlicense", ["unlicensed"]),
        ("license", ["disconnected"]),
    ):
        assert run(capsys, "robot", command, name) == ""
        assert listed(capsys) == [[GUID, "R2", "-", *status, "seen", "never"]]
    assert run(capsys, "robot", "remove", name) == ""
    assert listed(capsys) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["robot", "add", ""], "name must not be empty"),
        (["robot", "add", "C3", "--pool", ""], "a pool's name must not be empty"),
        (["robot", "add", "C3", "--guid", "mine"], "guid must be like 0"),
        (["robot", "add", "C3", "--guid", GUID], "there is a robot with that GUID"),
        (["robot", "disable", "C3"], "there is no robot 'C3'"),
        (["robot", "remove", "twin"], "there are 2 robots of the name 'twin'; name one by its GUID"),
        (["submit", "nap", "--robot", "C3"], "there is no robot 'C3'"),
        (["submit", "nap", "--pool", "day"], "there is no robot of the pool 'day'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    store.robots.add("R2", guid=GUID, pool="night")
    for _ in range(2):
        store.robots.add("twin")
    assert text.partition(";")[0] in (said := complaint(capsys, *arguments))
    assert text.partition("; ")[2] in said


def test_jobs_are_for_a_robot_or_a_pool_and_keep_the_robot(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.robots.add("R2", guid=GUID, pool="night")
    made = [
        store.jobs.get(int(run(capsys, "submit", "nap", *where)))
        for where in (["--robot", "R2"], ["--robot", GUID], ["--pool", "night"], [])
    ]
    assert [(job.robot, job.pool) for job in made] == [("R2", None), ("R2", None), (None, "night"), (None, None)]
    assert "turn it off instead" in complaint(capsys, "robot", "remove", "R2")


def test_a_job_is_not_for_a_robot_and_a_pool(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["submit", "nap", "--robot", "R2", "--pool", "night"])
    assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
