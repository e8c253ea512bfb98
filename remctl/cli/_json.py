"""A line of JSON for each host as it ends, and one at the end for all of them.

They are ASCII without control characters, whatever hosts say.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

from remctl.cli._screen import Side
from remctl.exceptions import RemctlError
from remctl.fanout import HostResult, HostState
from remctl.types import Stream


class Json:
    """Writes the lines."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._states: Counter[HostState] = Counter()
        self._running = 0

    def output(self, host: str, stream: Stream, data: bytes) -> None:
        """Leave it: the result has it, too."""

    def result(self, result: HostResult) -> None:
        """Write a host's line."""
        self._states[result.state] += 1
        self._running += result.may_be_running
        self._side.write(line_of(result))

    def tick(self) -> None:
        """Nothing waits for time to pass."""

    def close(self, *, interrupted: bool, status: int | None) -> None:
        """Write the summary."""
        summary = {
            "type": "summary",
            "hosts": self._states.total(),
            "states": {str(state): self._states[state] for state in HostState},
            "may_be_running": self._running,
            "interrupted": interrupted,
            "exit_status": status,
        }
        self._side.write(_line(summary))


def line_of(result: HostResult) -> bytes:
    """Return a host's line."""
    record = {
        "type": "host",
        "host": result.host,
        "port": result.port,
        "index": result.index,
        "state": str(result.state),
        "status": result.status,
        "stdout": _data(result.stdout),
        "stderr": _data(result.stderr),
        "stdout_size": result.stdout_size,
        "stderr_size": result.stderr_size,
        "truncated": result.truncated,
        "error": _error(result.error),
        "may_be_running": result.may_be_running,
        "attempts": [
            {"state": str(attempt.state), "error": _error(attempt.error), "duration": _seconds(attempt.duration)}
            for attempt in result.attempts
        ],
        "timings": {
            "connecting": _seconds(result.timings.connecting),
            "running": _seconds(result.timings.running),
        },
    }
    return _line(record)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).replace("\x7f", "\\u007f").encode() + b"\n"


def _data(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _error(error: RemctlError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    code = getattr(error, "code", None)
    return {
        "class": type(error).__name__,
        "text": error.reason,
        "hint": error.hint,
        "code": None if code is None else int(code),
    }


def _seconds(seconds: float) -> float:
    return round(seconds, 6)
