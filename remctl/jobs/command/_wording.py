"""What the command `job` writes for people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remctl._arguments import printable
from remctl.jobs._answers import (
    Attempt,
    Event,
    GapEvent,
    History,
    Job,
    Machine,
    Robot,
    Said,
    Script,
    StateEvent,
    TimeoutEvent,
    shown,
)
from remctl.jobs.states import Reason


def scripts(rows: Sequence[Script]) -> str:
    """Return a line for each script."""
    return "".join(f"{row.name:20} {row.language:8} {_plain(row.description)}\n" for row in rows)


def script(row: Script) -> str:
    """Return what a script is, and what it takes."""
    limit = "" if row.run_time is None else f"; {row.run_time:g} s at the most"
    lines = [f"{row.name} ({row.language}{limit}): {_plain(row.description)}"]
    width = max(map(len, row.parameters), default=0)
    for name, table in row.parameters.items():
        lines.append(f"  {name:{width}}  {_plain('; '.join(_conditions(table)))}")
    return "\n".join(lines) + "\n"


def job(row: Job) -> str:
    """Return a job in a line."""
    return f"{row.id} {shown(row.state)}{_because(row)} {row.script} {_plain(row.owner)} {_time(row.created_at)}\n"


def history(row: History) -> str:
    """Return what has happened to a job: a line for each attempt and for each thing."""
    return "".join([*map(_attempt, row.attempts), *map(_event, row.events)])


def machines(rows: Sequence[Machine]) -> str:
    """Return a line for each machine."""
    return "".join(
        f"{_plain(row.name):20} {row.address:15} {'certified' if row.certified else '-':9} {_time(row.seen_at)}\n"
        for row in rows
    )


def robots(rows: Sequence[Robot]) -> str:
    """Return a line for each robot."""
    return "".join(
        f"{_plain(row.name):20} {_plain(row.pool or '-'):12} {shown(row.status):12} {_plain(row.machine or '-'):20} "
        f"{_time(row.seen_at)} {'-' if row.job is None else f'job {row.job}'}\n"
        for row in rows
    )


def event(row: Job, said: Said) -> str:
    """Return what a wait says of a job on standard error; empty if nothing."""
    match said:
        case StateEvent(state, attempt):
            number = f", attempt {attempt}" if attempt > 1 else ""
            text = f"{shown(state)}{number}{_because(row) if state.final else ''}"
        case GapEvent():
            text = gap(said)
        case TimeoutEvent():
            text = "the time limit has passed"
        case _:
            return ""
    return f"job {row.id}: {text}\n"


def gap(said: GapEvent) -> str:
    """Return what is not kept."""
    return f"{said.size} bytes of {said.stream} are not kept, from byte {said.offset} on"


def _conditions(table: Mapping[str, Any]) -> Iterator[str]:
    """What the header of a script says of a parameter, in words."""
    if table.get("description"):
        yield str(table["description"])
    yield f"{table.get('type')}{'' if table.get('required') else ', may be left out'}"
    if "default" in table:
        default = table["default"]
        yield f"default {str(default).lower() if isinstance(default, bool) else default}"
    if "choices" in table:
        yield f"one of {', '.join(table['choices'])}"
    if "pattern" in table:
        yield f"matching {table['pattern']}"
    if "minimum" in table:
        yield f"{table['minimum']} or more"
    if "maximum" in table:
        yield f"{table['maximum']} or less"
    if table.get("multiline"):
        yield "may have several lines"


def _attempt(row: Attempt) -> str:
    begun = "never began" if row.started_at is None else f"began {_time(row.started_at)}"
    ended = "" if row.ended_at is None else f", ended {_time(row.ended_at)}{_because(row)}"
    report = "" if row.reported_at is None else f", reported {'success' if row.reported_success else 'failure'}"
    text = f": {_plain(row.report)}" if row.report else ""
    return f"attempt {row.number} on {_plain(row.runner)}: {begun}{ended}{report}{text}\n"


def _event(row: Event) -> str:
    detail = f": {_plain(row.detail)}" if row.detail else ""
    return f"{_time(row.at)} {shown(row.state)} by {_plain(row.who)}{detail}\n"


def _because(row: Job | Attempt) -> str:
    if row.reason is None:
        return ""
    number = ""
    if row.reason is Reason.EXIT and row.exit_status is not None:
        number = f" {row.exit_status}"
    elif row.reason is Reason.SIGNAL and row.signal is not None:
        number = f" {row.signal}"
    return f" ({row.reason}{number}{f': {_plain(row.detail)}' if row.detail else ''})"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _plain(text: str) -> str:
    """A text as one line that does nothing to a terminal."""
    return printable(" ".join(text.split()).encode("utf-8", "backslashreplace"), limit=None)
