"""Numbers for Prometheus."""

from __future__ import annotations

from starlette.routing import BaseRoute

from remctl.jobs.service import Service


def routes(service: Service) -> list[BaseRoute]:
    """Return what is served."""
    return []
