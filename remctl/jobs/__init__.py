"""Unattended jobs: scripts that run on a server when nobody waits for them, and `Client`, which submits them.

A client needs neither the extra `jobs` nor what it brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remctl.jobs.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from remctl.jobs.client import Client  # here, since the process that keeps a script is in this package too

    return Client
