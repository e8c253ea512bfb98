"""All that is served over HTTP, as one ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette

from remctl.jobs.service import Service
from remctl.jobs.web import _metrics, _pages, _reports


def application(service: Service) -> Starlette:
    """Return the application."""
    return Starlette(routes=[*_reports.routes(service), *_metrics.routes(service), *_pages.routes(service)])
