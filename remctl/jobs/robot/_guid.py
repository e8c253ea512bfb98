"""The robot's GUID: where it comes from, and that it gets into no log."""

from __future__ import annotations

import base64
import logging
import os
import re
import stat
import sys
from pathlib import Path
from typing import Final

from remctl.jobs.robot._errors import CommandLineError

VARIABLE: Final = "REMCTL_ROBOT_GUID"

_LONGEST_FILE: Final = 1024
"""Bytes of the file that holds it."""


def checked(guid: str) -> str:
    """Return a GUID without blanks around it.

    Raises:
        CommandLineError: it is none; the text does not show it.
    """
    guid = guid.strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", guid):
        raise CommandLineError("the robot's GUID is empty, too long, or has a character in it that no GUID has")
    return guid


def read_file(path: Path) -> str:
    """Return the GUID that a file holds.

    Raises:
        CommandLineError: it is no file of the caller's alone, or holds no GUID.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise CommandLineError(f"{path}: {error.strerror}", hint="it has to be a regular file, and no link") from error
    try:
        _check(path, os.fstat(file))
        data = os.read(file, _LONGEST_FILE + 1)
    finally:
        os.close(file)
    if len(data) > _LONGEST_FILE:
        raise CommandLineError(f"{path}: longer than {_LONGEST_FILE} bytes")
    try:
        return checked(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, CommandLineError):
        raise CommandLineError(f"{path}: it holds no GUID") from None


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CommandLineError(f"{path}: no regular file")
    if sys.platform != "win32":
        if status.st_uid != os.getuid():
            raise CommandLineError(f"{path}: it belongs to somebody else")
        if status.st_mode & 0o077:
            raise CommandLineError(f"{path}: others may read it", hint=f"chmod 600 {path}")


class Hiding(logging.Formatter):
    """A format for log lines in which the GUID is not seen, whoever brings it in: the orchestrator, too.

    Args:
        guid: which is not to be seen.
    """

    def __init__(self, guid: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        words = (guid, base64.b64encode(guid.encode()).decode())
        self._hidden = re.compile("|".join(re.escape(word) for word in words), re.IGNORECASE)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._hidden.sub("(GUID)", super().format(record))
