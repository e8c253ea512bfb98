"""pytest fixtures: a sandbox for the session, a server for each test.

pytest loads this module by itself wherever remctl-cffi is installed; nothing is started until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from remctl.testing.sandbox import Sandbox
    from remctl.testing.server import Server


@pytest.fixture(scope="session")
def remctl_sandbox() -> Iterator[Sandbox]:
    """Give the session's sandbox, exported into the environment: a realm with a ticket, and a first server."""
    from remctl.testing.sandbox import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def remctl_server(remctl_sandbox: Sandbox) -> Iterator[Server]:
    """Give a remctld for this test alone, in the session's realm, with no commands yet: see `Server.add_command`."""
    server = remctl_sandbox.add_server()
    yield server
    server.stop()
