"""All that a script finds in its environment, which is not the agent's: the robot's GUID is not in it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from remctl.jobs.robot._wire import Job, line

logger = logging.getLogger(__name__)

PARAMETERS: Final = "parameters.json"
"""The file of all parameters in the folder of a run."""

LONGEST: Final = 32_000
"""Characters of a value: what Windows takes, and Linux takes four times of."""

ROOM: Final = 256 * 1024
"""Characters of all values that come with a job; what is more stands in the file alone."""

_LINUX: Final = ("HOME", "LOGNAME", "TZ", "USER")

_WINDOWS: Final = (
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATH", "PATHEXT", "TEMP", "TMP"),
    *("PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)", "APPDATA", "LOCALAPPDATA"),
    *("USERNAME", "USERDOMAIN", "USERPROFILE", "HOMEDRIVE", "HOMEPATH"),
)


def environment(job: Job, file: Path) -> dict[str, str]:
    """Return a script's environment, and write the file of all parameters, which only this user can read.

    Args:
        job: what the script is to do.
        file: which does not exist.

    Raises:
        OSError: the file cannot be written.
    """
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as to:  # noqa: PTH123
        to.write(json.dumps({} if job.task is None else job.task))
    inherited = _WINDOWS if sys.platform == "win32" else _LINUX
    found = {name: os.environ[name] for name in inherited if name in os.environ}
    if sys.platform != "win32":
        found |= {"PATH": os.environ.get("PATH", os.defpath), "LANG": os.environ.get("LANG", "C.UTF-8")}
    found |= {"JOB_GUID": job.guid, "JOB_NAME": job.name, "JOB_PARAMETERS": str(file)}
    return found | _given(job.task)


def _given(task: Any) -> dict[str, str]:
    """Return what comes with a job, as far as an environment can hold it."""
    found: dict[str, str] = {}
    room = ROOM
    wanted = [("JOB_TASK", json.dumps(task)), *_parameters(task if isinstance(task, Mapping) else {})]
    for name, value in wanted:
        if name in found or len(value) > min(room, LONGEST) or not _holds(value):
            logger.warning("%s stands in the file of the parameters alone", name)
            continue
        room -= len(value)
        found[name] = value
    return found


def _parameters(task: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in task.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
            logger.warning("a parameter whose name no variable can have stands in the file alone: %s", line(name))
        elif isinstance(value, str | int | float):
            found.append((f"JOB_PARAM_{name.upper()}", value if isinstance(value, str) else json.dumps(value)))
    return found


def _holds(value: str) -> bool:
    """Say whether a variable can have a value: there is none with a null character, or half of a surrogate pair."""
    return "\0" not in value and not re.search("[\ud800-\udfff]", value)
