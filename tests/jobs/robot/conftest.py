"""Fixtures for the agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.robot.doubles import Orchestrator
from jobs.robot.sites import Site


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """Give an orchestrator, which has heard nothing wrong in the end."""
    with Orchestrator() as started:
        yield started
    assert started.wrong == []


@pytest.fixture
def here(tmp_path: Path) -> Site:
    """Give a folder for agents."""
    return Site(tmp_path)
