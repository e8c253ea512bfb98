"""Fixtures for the job store: each test that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.postgres import Postgres
from jobs.runners import MakeSite, Site
from remctl.jobs.store import Store
from remctl.jobs.store._upgrade import upgrade


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Take away the handlers that a program called here has set up, whose standard error ends with the test."""
    own, level = logging.getLogger("remctl"), logging.getLogger("remctl").level
    yield
    for handler in [each for each in logging.root.handlers if type(each).__module__.startswith("logging")]:
        logging.root.removeHandler(handler)
        handler.close()
    own.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give a running PostgreSQL."""
    with Postgres() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Give a store on it."""
    opened = Store(url)
    upgrade(opened.database)
    yield opened
    opened.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSite]:
    """Give a function that makes a folder for a runner, by default on an SQLite of the test's own."""
    made = []

    def making(folder: str = "one", url: str = f"sqlite:///{tmp_path}/jobs.db", **runner: object) -> Site:
        made.append(Site(tmp_path / folder, url, **runner))
        return made[-1]

    yield making
    for site in made:
        site.close()


@pytest.fixture
def site(make: MakeSite) -> Site:
    """Give a folder for a runner."""
    return make()


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """Give a PostgreSQL that tests may stop."""
    with Postgres() as started:
        yield started
