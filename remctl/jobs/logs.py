"""What the daemons write to standard error, as `[log]` says: lines of text, or JSON for what collects logs.

Set up by the daemons alone, and never while a module is loaded: `import remctl.jobs` leaves `logging` as it is.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

from remctl.jobs.settings import LogSettings

FIELDS: Final = ("job", "attempt", "script", "owner")
"""What a record may say of itself besides its text, with `extra=`."""

OWN: Final = "remctl"
"""The logger that follows the level; from libraries come warnings alone, since their details may be secret."""


def configure(settings: LogSettings) -> None:
    """Have this process log to standard error, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else logging.Formatter(_text()))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(OWN).setLevel(settings.level.upper())


def _text() -> str:
    """The format of a line of text: without the time where standard error is systemd's journal, which has its own."""
    status = os.fstat(2)
    journal = os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return f"{'' if journal else '%(asctime)s '}%(levelname)s %(name)s: %(message)s"


class _Json(JsonFormatter):
    """One object a line."""

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: Mapping[str, Any],  # noqa: ARG002
    ) -> None:
        """Put together what a line holds."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        log_data.update({field: getattr(record, field) for field in FIELDS if hasattr(record, field)})
        if record.exc_info:
            log_data["exception"] = self.formatException(record.exc_info)
