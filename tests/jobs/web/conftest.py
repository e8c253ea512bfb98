"""Fixtures for the server; tests that use the fixture `url`, too, run on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.web.served import Client, Reported, Served

Clients = Callable[..., Client]
"""What the fixture `client_of` gives."""


@pytest.fixture
def reported(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reported]:
    """Give a folder for a server."""
    both = "url" in request.fixturenames
    made = Reported(tmp_path / "site", request.getfixturevalue("url") if both else f"sqlite:///{tmp_path}/jobs.db")
    yield made
    made.close()


@pytest.fixture
def served(reported: Reported) -> Iterator[Served]:
    """Give a running server."""
    with Served(reported.service) as started:
        yield started


@pytest.fixture
def client_of(served: Served) -> Iterator[Clients]:
    """Give a function that makes a client of an account."""
    with ExitStack() as stack:

        def making(*account: str) -> Client:
            made = Client(served.url, *account)
            stack.callback(made.close)
            return made

        yield making


@pytest.fixture
def client(client_of: Clients) -> Client:
    """Give a client with the account that an administrator has made."""
    return client_of()
