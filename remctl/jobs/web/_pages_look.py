"""How the page looks: the templates with what they need, and the files that browsers keep."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from remctl.jobs.web import _views_words as words
from remctl.jobs.web._sessions import Sessions

_FOLDER: Final = Path(__file__).parent

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

_YEAR: Final = "public, max-age=31536000, immutable"


class Look:
    """The templates and files.

    Args:
        sessions: where the tokens of forms come from.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._files = {path.name: path.read_bytes() for path in (_FOLDER / "static").iterdir()}
        self._versions = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}
        self._templates = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for function in (
            words.capitalize_first,
            words.duration,
            words.iso,
            words.move,
            words.offered,
            words.reason,
            words.role,
            words.size,
            words.state,
            words.utc,
            words.visible,
        ):
            self._templates.filters[function.__name__] = function
        self._templates.globals["static"] = lambda name: f"/static/{name}?v={self._versions[name]}"

    def page(
        self,
        request: Request,
        template: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
        **values: object,
    ) -> Response:
        """Return a page.

        Args:
            request: what it answers; its state tells who is signed in.
            template: the file's name.
            status: of HTTP.
            headers: those that only this answer has.
            values: what the template uses.
        """
        return HTMLResponse(self.render(request, template, **values), status, headers)

    def render(self, request: Request, template: str, **values: object) -> str:
        """Return what a template makes of values."""
        session = getattr(request.state, "session", None)
        common = {
            "session": session,
            "desk": getattr(request.state, "desk", None),
            "token": "" if session is None else self._sessions.token(session),
            "path": request.url.path,
        }
        return self._templates.get_template(template).render(common | values)

    def error(
        self, request: Request, status: int, text: str, *, back: str = "/", headers: dict[str, str] | None = None
    ) -> Response:
        """Return a page that says why there is no other.

        Args:
            request: what it answers.
            status: of HTTP.
            text: the reason, as a sentence without its full stop.
            back: where to go from there.
            headers: those that only this answer has.
        """
        title = _TITLES.get(status) or HTTPStatus(status).phrase
        return self.page(request, "error.html", status, headers, title=title, text=text, back=back)

    def file(self, request: Request) -> Response:
        """Serve a file that never changes under its address."""
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        headers = {"cache-control": _YEAR if request.query_params.get("v") == self._versions[name] else "no-cache"}
        return Response(self._files[name], headers=headers, media_type=_TYPES[Path(name).suffix])


_TITLES: Final = {
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    500: "Something is broken",
    503: "Not available",
}
