"""How the command `job` says that it has not done something: to people in a line, and to programs in JSON as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from remctl.backend import CommandError, Context
from remctl.jobs import _json
from remctl.jobs._answers import Fault


class Refusal(CommandError):
    """Something was not done.

    Args:
        kind: which of the kinds that clients know: see `remctl.jobs.client._asking`.
        reason: for people.
        status: the exit status.
        parameter: the parameter of a script that it is about.
    """

    def __init__(self, kind: str = "", reason: str = "", *, status: int = 1, parameter: str | None = None) -> None:
        super().__init__(reason, status=status)
        self.args = (kind, reason)
        self.kind = kind
        self.parameter = parameter


@contextlib.contextmanager
def told(context: Context, json: bool) -> Iterator[None]:
    """Tell the caller of a refusal in JSON, if that is what he wants; the frame writes the line for people."""
    try:
        yield
    except Refusal as refusal:
        if json:
            context.write(_json.written_fault(Fault(refusal.kind, refusal.reason, refusal.parameter)))
        raise
