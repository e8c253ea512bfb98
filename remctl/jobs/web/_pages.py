"""The page for people: which address is what, who may come in, and what is said when something is wrong.

Blocking work is done on threads; what awaits is the little that has to: requests, and the threads.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from anyio.to_thread import run_sync
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from remctl.jobs.service import DeniedError, Service
from remctl.jobs.states import IllegalMoveError
from remctl.jobs.store import StoreError, reason_of
from remctl.jobs.web._live import Live
from remctl.jobs.web._negotiate import NotSetUpError
from remctl.jobs.web._pages_look import Look
from remctl.jobs.web._pages_visit import View, Visit, form_of
from remctl.jobs.web._sessions import Sessions
from remctl.jobs.web._signin import SignIn, StrangerError
from remctl.jobs.web._views import Views

logger = logging.getLogger(__name__)

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # with less, browsers do not say where a form comes from
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What every answer has that says nothing else."""

_AGAIN: Final = "10"
"""Seconds after which it is worth asking again."""

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def routes(service: Service) -> list[BaseRoute]:
    """Return what is served: all addresses that others have left.

    Raises:
        SessionKeyError: the key that signs sessions cannot be read or made.
    """
    return [Mount("/", _Page(service).application())]


class _Page:
    """The parts of the page, and how a request comes through to them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sessions = Sessions(service.settings)
        self._look = Look(self._sessions)
        self._signin = SignIn(service.settings, self._sessions, self._look)

    def application(self) -> Starlette:
        look, signin, views = self._look, self._signin, Views(self._look)
        live = Live(views)
        served = [
            Route("/static/{name}", look.file),
            Route("/sign-in", signin.show, methods=["GET"]),
            Route("/sign-in", signin.enter, methods=["POST"]),
            Route("/sign-out", signin.leave, methods=["POST"]),
            self._get("/", views.home),
            self._get("/scripts/{name}", views.script),
            self._post("/scripts/{name}", views.submit),
            self._get("/jobs", views.jobs),
            self._get("/jobs/{job}", views.job),
            self._post("/jobs/{job}", views.act),
            self._get("/jobs/{job}/live", live.view),
            self._get("/jobs/{job}/output/{stream}", views.output),
            self._get("/machines", views.machines),
            self._get("/robots", views.robots),
            self._get("/{path:path}", views.nothing),
        ]
        return Starlette(
            routes=served,
            middleware=[Middleware(_Headers)],
            exception_handlers={
                StrangerError: signin.refuse,
                NotSetUpError: self._not_set_up,
                DeniedError: self._denied,
                StoreError: self._not_there,
                IllegalMoveError: self._impossible,
                DBAPIError: self._database_away,
                PoolTimeoutError: self._database_away,
                ClientDisconnect: self._gone,
                HTTPException: self._error,
                Exception: self._broken,
            },
        )

    def _get(self, path: str, view: View) -> Route:
        return Route(path, self._visited(view), methods=["GET"])

    def _post(self, path: str, view: View) -> Route:
        return Route(path, self._visited(view), methods=["POST"])

    def _visited(self, view: View) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            session, headers = await self._signin.session(request)
            request.state.session = session
            form = await form_of(request) if request.method == "POST" else {}
            if request.method == "POST" and not self._signin.sent_by_us(request, session, form):
                raise HTTPException(403, "another page has sent this form, or it is from before you signed in")
            request.state.desk = await run_sync(self._service.desk, session.principal)
            response = await run_sync(view, Visit(request, session, request.state.desk, form))
            if headers is not None:
                response.headers.update(headers)
                self._sessions.give(request, response, session)
            return response

        return endpoint

    # What is said when something is wrong

    def _not_set_up(self, request: Request, _: Exception) -> Response:
        text = "An administrator has to give this server a key: a keytab with HTTP and its host name"
        return self._look.page(request, "error.html", 503, title="Kerberos is not set up here", text=text, back="/")

    def _denied(self, request: Request, error: Exception) -> Response:
        return self._look.error(request, 403, str(error))

    def _not_there(self, request: Request, error: Exception) -> Response:
        return self._look.error(request, 404, str(error))

    def _impossible(self, request: Request, error: Exception) -> Response:
        return self._look.error(request, 409, str(error))

    def _database_away(self, request: Request, error: Exception) -> Response:
        logger.warning("%s: the database is away: %s", request.url.path, reason_of(error))
        headers = {"retry-after": _AGAIN}
        return self._look.error(
            request,
            503,
            "the database cannot be reached; jobs go on without it",
            back=request.url.path,
            headers=headers,
        )

    def _gone(self, _: Request, __: Exception) -> Response:
        return Response(status_code=400)  # which nobody reads

    def _error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._look.error(request, error.status_code, error.detail, headers=dict(error.headers or {}))

    def _broken(self, request: Request, _: Exception) -> Response:
        return self._look.error(request, 500, "the log of this server says what it is")  # the server logs it


class _Headers:
    """Gives every answer the headers that it does not have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending)
