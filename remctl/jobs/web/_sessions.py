"""Who is signed in, as a signed cookie; and whether a form was sent by a page of ours.

The server keeps nothing of a session but those that were ended before their time, so that a restart signs nobody out.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from remctl.exceptions import RemctlError
from remctl.jobs.settings import Settings

KEY: Final = "session.key"

_COOKIE: Final = "remctl-jobs"

_SIZE: Final = 32


class SessionKeyError(RemctlError):
    """The file with the key that signs sessions cannot be used."""


class Session(NamedTuple):
    """Somebody who has signed in."""

    principal: str
    id: str
    end: float
    """In seconds since the epoch."""


class Sessions:
    """The sessions.

    Args:
        settings: the configuration; the key is in its folder, and made if it is not there.

    Raises:
        SessionKeyError: the key cannot be read or made, or others may read it.
    """

    def __init__(self, settings: Settings) -> None:
        self._key = _key(settings.folder / KEY)
        self._length = settings.server.session
        self._encrypted = settings.url.startswith("https:")
        self._serializer = URLSafeSerializer(
            self._key, salt="session", signer_kwargs={"key_derivation": "hmac", "digest_method": "sha256"}
        )
        self._left: dict[str, float] = {}
        self._lock = threading.Lock()

    def make(self, principal: str, lifetime: float) -> Session:
        """Return a new session.

        Args:
            principal: who has signed in.
            lifetime: seconds until the ticket ends.
        """
        return Session(principal, secrets.token_urlsafe(16), time.time() + min(self._length, lifetime))

    def of(self, request: Request) -> Session | None:
        """Return the session that a request comes with, if there is one and it has not ended."""
        try:
            principal, number, end = self._serializer.loads(request.cookies.get(self._name(request), ""))
        except BadData:
            return None
        over = time.time() >= end or number in self._left
        return None if over else Session(principal, number, end)

    def give(self, request: Request, response: Response, session: Session) -> None:
        """Have a browser keep a session."""
        response.set_cookie(
            self._name(request),
            self._serializer.dumps(list(session)),
            max_age=max(0, int(session.end - time.time())),
            secure=self._secure(request),
            httponly=True,
            samesite="lax",
        )

    def leave(self, request: Request, response: Response, session: Session) -> None:
        """End a session, also for whoever has a copy of the cookie."""
        with self._lock:
            now = time.time()
            self._left = {number: end for number, end in self._left.items() if end > now} | {session.id: session.end}
        response.delete_cookie(self._name(request), secure=self._secure(request), httponly=True, samesite="lax")

    def token(self, session: Session) -> str:
        """Return what each form of this session has to come with."""
        return hmac.digest(self._key, f"form {session.id}".encode(), "sha256").hex()

    def allows(self, session: Session, token: str) -> bool:
        """Return whether a form came with its session's token."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())

    def _name(self, request: Request) -> str:
        """A cookie whose name begins so can have been set by this host alone, over TLS."""
        return f"__Host-{_COOKIE}" if self._secure(request) else _COOKIE

    def _secure(self, request: Request) -> bool:
        """Whether the browser speaks TLS, to us or to a proxy before us."""
        return self._encrypted or request.url.scheme == "https"


def is_ours(request: Request, settings: Settings, *, silent: bool) -> bool:
    """Return whether a page of ours has sent a request, as far as the browser says.

    Args:
        request: the request.
        settings: the configuration, whose URL counts as ours behind a proxy that changes the host.
        silent: what to return for a browser, or another program, that says nothing.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return site is not None or silent
    # Behind a proxy the scheme may be another one than the browser's.
    return origin.partition("://")[2] in (request.headers.get("host"), urlsplit(settings.url).netloc)


def _key(path: Path) -> bytes:
    try:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if path.stat().st_mode & 0o077:
                raise SessionKeyError(f"{path}: others may read or change it", hint="delete it") from None
        else:
            key = secrets.token_bytes(_SIZE)
            with os.fdopen(file, "wb") as opened:
                opened.write(key)
    except OSError as error:
        raise SessionKeyError(f"{path}: {error.strerror}") from error
    if len(key) < _SIZE:
        raise SessionKeyError(f"{path}: it is shorter than {_SIZE} bytes", hint="delete it")
    return key
