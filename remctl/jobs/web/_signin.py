"""Signing in and out: with a Kerberos ticket that the browser sends, or with a name and a password in a form."""

from __future__ import annotations

import base64
import binascii
import logging
from typing import Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from remctl._arguments import printable
from remctl.exceptions import RemctlError
from remctl.jobs.settings import Settings
from remctl.jobs.web._negotiate import Caller, Gate, RefusedError, UnavailableError
from remctl.jobs.web._pages_look import Look
from remctl.jobs.web._pages_visit import form_of
from remctl.jobs.web._sessions import Session, Sessions, is_ours
from remctl.jobs.web._signin_limiter import Limiter, is_loopback

logger = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""People whose passwords are checked at the same time, on threads that wait for a KDC; tickets need none."""

_SCHEME: Final = "Negotiate"


class StrangerError(RemctlError):
    """Nobody is signed in; the text is for people, and may be empty."""


class SignIn:
    """What asks people who they are.

    Args:
        settings: the configuration.
        sessions: where they are kept then.
        look: how the page looks.
    """

    def __init__(self, settings: Settings, sessions: Sessions, look: Look) -> None:
        self._settings = settings
        self._sessions = sessions
        self._look = look
        self._gate = Gate(settings)
        self._limiter = Limiter()
        self._threads = CapacityLimiter(AT_ONCE)

    async def session(self, request: Request) -> tuple[Session, dict[str, str] | None]:
        """Return who is signed in, also somebody who has come with a ticket just now.

        Returns:
            The session, and for a new one the headers that have to go with the answer.

        Raises:
            StrangerError: nobody is.
            NotSetUpError: nobody can be.
        """
        if (known := self._sessions.of(request)) is not None:
            return known, None
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if request.method == "POST" or scheme.casefold() != _SCHEME.casefold():
            await run_sync(self._gate.check)
            raise StrangerError
        try:
            token = base64.b64decode(text, validate=True)
        except binascii.Error:
            token = b""
        try:
            caller = await run_sync(self._gate.by_token, token)
        except RefusedError as error:
            raise StrangerError(error.reason) from error
        headers = {} if caller.answer is None else {"www-authenticate": _answer(caller.answer)}
        return self._known(request, caller, "a ticket"), headers

    async def show(self, request: Request) -> Response:
        """Show the form to whoever asks for it."""
        await run_sync(self._gate.check)
        return self._form(request, 200, request.query_params.get("next", "/"))

    async def enter(self, request: Request) -> Response:
        """Take the form."""
        if not is_ours(request, self._settings, silent=False):
            raise HTTPException(403, "another page has sent this form")
        if why := _unsafe(request):
            raise HTTPException(403, why)
        form = await form_of(request)
        address, name, back = _address(request), form.get("name", "").strip(), form.get("next", "/")
        if not self._limiter.begin(address, name):
            logger.warning("too many tries to sign in as %s from %s", printable(name.encode()), address)
            return self._form(request, 429, back, name, "too many tries: wait for five minutes")
        try:
            password = form.get("password", "")
            caller = await run_sync(self._gate.by_password, name, password, limiter=self._threads)
        except RefusedError as error:
            return self._form(request, 403, back, name, error.reason)
        except UnavailableError as error:
            self._limiter.forgive(address, name)
            return self._form(request, 503, back, name, error.reason)
        self._limiter.forgive(address, name)
        response = RedirectResponse(local(back), 303)
        self._sessions.give(request, response, self._known(request, caller, "a password"))
        return response

    async def leave(self, request: Request) -> Response:
        """Sign somebody out."""
        response = RedirectResponse("/sign-in", 303)
        session = self._sessions.of(request)
        if session is not None:
            form = await form_of(request)
            if not self.sent_by_us(request, session, form):
                raise HTTPException(403, "another page has sent this form")
            self._sessions.leave(request, response, session)
            logger.info("%s has signed out", session.principal)
        return response

    def sent_by_us(self, request: Request, session: Session, form: dict[str, str]) -> bool:
        """Return whether a page that we made for this session has sent a form."""
        ours = is_ours(request, self._settings, silent=True)
        return ours and self._sessions.allows(session, form.get("token", ""))

    def refuse(self, request: Request, error: Exception) -> Response:
        """Show the form to somebody who wanted something else, which they get then."""
        url = request.url
        back = url.path + (f"?{url.query}" if url.query else "")
        reason = error.reason if isinstance(error, StrangerError) else ""
        return self._form(request, 401, back, error=reason, headers={"www-authenticate": _SCHEME})

    def _form(
        self,
        request: Request,
        status: int,
        back: str,
        name: str = "",
        error: str = "",
        headers: dict[str, str] | None = None,
    ) -> Response:
        return self._look.page(
            request, "signin.html", status, headers, back=local(back), name=name, error=error, unsafe=_unsafe(request)
        )

    def _known(self, request: Request, caller: Caller, means: str) -> Session:
        logger.info("%s has signed in with %s from %s", caller.principal, means, _address(request))
        return self._sessions.make(caller.principal, caller.lifetime)


def local(path: str) -> str:
    """Return a path of this server, or the first page for everything that might lead elsewhere."""
    begins_here = path.startswith("/") and path[1:2] not in ("/", "\\")  # browsers read both as another host
    return path if begins_here and path.isprintable() else "/"


def _answer(token: bytes) -> str:
    return f"{_SCHEME} {base64.b64encode(token).decode()}"


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _unsafe(request: Request) -> str:
    """Why a password must not be sent here; empty if it may."""
    if request.url.scheme == "https" or is_loopback(_address(request)):
        return ""
    return "passwords are not taken here, since the connection is not encrypted"
