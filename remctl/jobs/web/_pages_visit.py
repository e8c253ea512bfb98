"""One request of somebody who is signed in, as the views see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from remctl.jobs.service import Desk
from remctl.jobs.web._sessions import Session

FIELDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Visit:
    """Who wants what."""

    request: Request
    session: Session
    desk: Desk
    form: Mapping[str, str]
    """What was sent; of GET nothing."""

    @property
    def job(self) -> int:
        """The number of the job that the address names."""
        return number(self.request.path_params["job"])


View: TypeAlias = Callable[[Visit], Response]
"""What makes the answer, on a thread, since the store blocks."""


async def form_of(request: Request) -> dict[str, str]:
    """Read the form that a request brings.

    Raises:
        HTTPException: it is no form, or is larger or slower than all requests may be.
    """
    data = await request.body()
    try:
        found = parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except ValueError:
        raise HTTPException(400, "what was sent is no form") from None
    return dict(found)


def number(text: str) -> int:
    """Return the number of a job.

    Raises:
        HTTPException: there can be no job of that number.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise HTTPException(404, f"there is no job {text[:40]}")
    return int(text)


def plain(text: str) -> str:
    """Return a word that came with an address, which the database can look for.

    Raises:
        HTTPException: there is nothing of that name.
    """
    if not text.isprintable():
        raise HTTPException(404, "there is nothing of that name")
    return text
