"""The views: what each address shows, and what its forms do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from remctl.jobs.scripts import ScriptError
from remctl.jobs.service import Desk, Role, Stream
from remctl.jobs.states import FINAL, IllegalMoveError, JobState, Move
from remctl.jobs.store import InstalledScript, Job, StoreError
from remctl.jobs.web import _views_form as forms
from remctl.jobs.web import _views_words as words
from remctl.jobs.web._pages_look import Look
from remctl.jobs.web._pages_visit import Visit, number, plain

PAGE: Final = 50
"""Jobs on a page of the history."""

LATEST: Final = 10
"""Jobs on the first page."""

TAIL: Final = 64 * 1024
"""Bytes of each stream on the page of a job."""

STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

_OPEN: Final = [state for state in JobState if state not in FINAL]


class Views:
    """The views; each is called on a thread.

    Args:
        look: how they look.
    """

    def __init__(self, look: Look) -> None:
        self._look = look

    def home(self, visit: Visit) -> Response:
        """The scripts that somebody may use, and their latest jobs."""
        latest = visit.desk.listed(owner=visit.session.principal, limit=LATEST)
        return self._look.page(visit.request, "home.html", scripts=visit.desk.scripts(), jobs=latest)

    def script(self, visit: Visit) -> Response:
        """A script, and the form for a job of it."""
        return self._filled(visit, self._script(visit), str(uuid.uuid4()), {}, {})

    def submit(self, visit: Visit) -> Response:
        """Submit a job; the same form sent twice is one job."""
        script = self._script(visit)
        key = visit.form.get("key", "")
        typed = forms.read(script.parameters, visit.form)
        given = forms.values(script.parameters, typed)
        where = visit.form.get("where", "")
        try:
            place = forms.place(where)
        except ValueError:
            raise HTTPException(400, "there is no such place to run") from None
        guid = forms.guid(key, script.name, given, where)
        try:
            job = visit.desk.submit(script.name, given, guid=guid, robot=place.robot, pool=place.pool)
        except ScriptError as error:
            errors = forms.errors(script.parameters, given)
            return self._filled(visit, script, key, typed, errors, None if errors else error.reason)
        except StoreError as error:
            if not any(place):
                raise
            return self._filled(visit, script, key, typed, {}, error.reason)
        return _see(f"/jobs/{job.id}")

    def jobs(self, visit: Visit) -> Response:
        """The history."""
        query = {name: plain(text) for name, text in visit.request.query_params.items()}
        wanted = {name: query.get(name, "").strip() for name in ("state", "script", "owner")}
        before = number(query["before"]) if query.get("before") else None
        found = visit.desk.listed(
            owner=wanted["owner"] or None,
            states=_states(wanted["state"]),
            script=wanted["script"] or None,
            before=before,
            limit=PAGE + 1,
        )
        kept = {name: text for name, text in wanted.items() if text}
        older = urlencode({**kept, "before": found[PAGE - 1].id}) if len(found) > PAGE else None
        return self._look.page(
            visit.request,
            "jobs.html",
            jobs=found[:PAGE],
            wanted=wanted,
            older=older,
            newest=None if before is None else urlencode(kept),
            states=list(JobState),
            scripts=[script.name for script in visit.desk.scripts()],
            operator=visit.desk.role >= Role.OPERATOR,
        )

    def job(self, visit: Visit) -> Response:
        """All about a job."""
        job = visit.desk.job(visit.job)
        output = [_tail(visit.desk, job, stream) for stream in STREAMS]
        place = ".".join(str(part) for part in (job.attempts, *(tail["read"] for tail in output)))
        return self._look.page(visit.request, "job.html", **_known(visit.desk, job), output=output, place=place)

    def act(self, visit: Visit) -> Response:
        """Stop, abort or retry a job."""
        job = visit.desk.job(visit.job)
        try:
            move = Move(visit.form.get("move"))
            if move is Move.RETRY:
                visit.desk.retry(job.id)
            elif move in (Move.STOP, Move.ABORT):
                visit.desk.ask(job.id, move)
            else:
                raise ValueError(move)
        except ValueError:
            raise HTTPException(400, "there is no such thing to do") from None
        except (StoreError, IllegalMoveError) as error:
            return self._look.error(visit.request, 409, str(error), back=f"/jobs/{job.id}")
        return _see(f"/jobs/{job.id}")

    def output(self, visit: Visit) -> Response:
        """The whole of a stream that is kept, as a file."""
        job = visit.desk.job(visit.job)
        stream = visit.request.path_params["stream"]
        if stream not in STREAMS:
            raise HTTPException(404, "there is no such output")
        name = f"job-{job.id}-{stream}.txt"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(_whole(visit.desk, job, stream), headers=headers, media_type="text/plain")

    def machines(self, visit: Visit) -> Response:
        """The machines."""
        return self._look.page(visit.request, "machines.html", machines=visit.desk.machines())

    def robots(self, visit: Visit) -> Response:
        """The robots, and what they do; of their jobs, those that somebody may see."""
        return self._look.page(visit.request, "robots.html", robots=visit.desk.robots())

    def nothing(self, visit: Visit) -> Response:
        """What is said of every other address."""
        raise HTTPException(404, f"there is no page {visit.request.url.path}")

    # What they are made of

    def parts(self, request: Request, desk: Desk, job: Job) -> dict[str, str]:
        """Return what changes with a job on its page, by the part that it is."""
        known = _known(desk, job)
        parts = {name: self._look.render(request, f"_{name}.html", **known) for name in ("facts", "history")}
        return {"title": known["title"], **parts}

    def _script(self, visit: Visit) -> InstalledScript:
        return visit.desk.script(plain(visit.request.path_params["name"]))

    def _filled(
        self,
        visit: Visit,
        script: InstalledScript,
        key: str,
        typed: dict[str, str],
        errors: dict[str, str],
        error: str | None = None,
    ) -> Response:
        return self._look.page(
            visit.request,
            "script.html",
            422 if errors or error else 200,
            script=script,
            fields=forms.fields(script.parameters, typed, errors),
            places=forms.places(visit.desk.robots()),
            where=visit.form.get("where", ""),
            key=key,
            error=error,
            errors=errors,
        )


def _known(desk: Desk, job: Job) -> dict[str, Any]:
    title = f"Job {job.id}: {words.state(job.state)}"
    return {"title": title, "job": job, "attempts": desk.attempts(job.id), "events": desk.events(job.id)}


def _tail(desk: Desk, job: Job, stream: Stream) -> dict[str, Any]:
    size = desk.read(job.id, stream, 0, 1).size
    piece = desk.read(job.id, stream, max(0, size - TAIL), TAIL)
    text, used = words.decoded(piece.data, cut=piece.offset > 0, more=not job.state.final)
    return {"stream": stream, "text": text, "size": size, "missing": piece.offset, "read": piece.offset + used}


def _whole(desk: Desk, job: Job, stream: Stream) -> Iterator[bytes]:
    """As much as there was at the beginning, so that a script that goes on writing has an end here."""
    piece = desk.read(job.id, stream)
    end = piece.size
    while piece.data and piece.offset < end:
        yield piece.data
        piece = desk.read(job.id, stream, piece.offset + len(piece.data))


def _states(text: str) -> list[JobState]:
    if text == "open":
        return _OPEN
    if text.upper() in JobState.__members__:
        return [JobState[text.upper()]]
    return []


def _see(path: str) -> Response:
    return RedirectResponse(path, 303)
