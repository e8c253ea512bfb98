"""All that is served over HTTP, as one ASGI application."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from remctl.jobs.service import Service
from remctl.jobs.store import reason_of
from remctl.jobs.web import _metrics, _pages, _reports, _robots
from remctl.jobs.web._limits import HEADERS, Limits

logger = logging.getLogger(__name__)


def application(service: Service) -> Starlette:
    """Return the application.

    While the database is away it answers 503, with the time after which clients may ask again; to an exception that
    nobody expects it answers 500, and raises it again for the server, which logs it.
    """
    sweeping = _robots.sweeping_for(service)
    return Starlette(
        routes=[
            *_reports.routes(service),
            *_metrics.routes(service),
            *_robots.routes(service, sweeping),
            *_pages.routes(service),
        ],
        middleware=[Middleware(Limits)],
        exception_handlers={
            DBAPIError: _away,
            NoConnectionError: _away,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
        lifespan=sweeping.lifespan,
    )


async def _away(request: Request, error: Exception) -> Response:
    logger.warning("%s %s: the database: %s", request.method, request.url.path, reason_of(error))
    return PlainTextResponse("the database is away", 503, {"Retry-After": "5"})


async def _gone(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=400)  # which nobody reads


async def _broken(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return PlainTextResponse("an error in the server, which has logged it", 500, HEADERS)
