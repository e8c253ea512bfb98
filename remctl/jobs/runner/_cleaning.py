"""What a runner does beside its jobs: it says which machine it is on, and removes what was kept long enough."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

from remctl.jobs.attempt import is_kept
from remctl.jobs.settings import Settings
from remctl.jobs.store import AWAY, Store, reason_of

logger = logging.getLogger(__name__)

DAY: Final = 86400.0

MINUTE: Final = 60.0
"""Seconds between two times that the store is told that this machine is there."""

HOUR: Final = 3600.0
"""Seconds between two times of tidying up."""


class Cleaned(NamedTuple):
    """What is gone."""

    jobs: int
    folders: int


def keep_house(settings: Settings, store: Store, ended: threading.Event) -> None:
    """Tell the store every minute that this machine is there, and tidy up every hour, until the event.

    It waits for the store, and may take long: it is for a thread of its own.
    """
    name, address = socket.gethostname(), _address()
    cleaned = -math.inf
    while True:
        try:
            store.machines.seen(name, address)
            if cleaned + HOUR <= time.monotonic():
                clean(settings, store, ended)
                cleaned = time.monotonic()
        except AWAY as error:
            logger.warning("the store cannot be told that this machine is there, nor tidied up: %s", reason_of(error))
        if ended.wait(MINUTE):
            return


def clean(settings: Settings, store: Store, ended: threading.Event | None = None) -> Cleaned:
    """Delete what was kept long enough; also while runners work.

    Args:
        settings: the configuration, which says in `[retention]` how long that is.
        store: the job store.
        ended: what breaks it off; None is nothing.
    """
    ended = ended or threading.Event()
    jobs = 0
    while not ended.is_set() and (count := store.jobs.purge(settings.retention.jobs * DAY)):
        jobs += count
    live = store.attempts.live_folders()
    before = time.time() - settings.retention.folders * DAY
    folders = 0
    for folder in settings.attempts.iterdir() if settings.attempts.is_dir() else ():
        if ended.is_set():
            break
        try:
            if folder.name not in live and _touched(folder) < before and not is_kept(folder / "kept"):
                shutil.rmtree(folder)
                folders += 1
        except FileNotFoundError:  # somebody else cleans up, too
            continue
        except OSError as error:
            logger.warning("the folder of an attempt cannot be removed: %s", error)
    if jobs or folders:
        logger.info("removed %d jobs and %d folders that were kept long enough", jobs, folders)
    return Cleaned(jobs, folders)


def _touched(folder: Path) -> float:
    """When something in a folder was last written: its ending is the last thing that is."""
    return max(path.stat().st_mtime for path in (folder, *folder.glob("kept")))


def _address() -> str:
    """The machine's address for others, as far as its name says it; without asking any other machine for long."""
    with contextlib.suppress(OSError, UnicodeError):
        found = [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)]
        return next((each for each in found if not each.startswith(("127.", "::1", "fe80"))), found[0])
    return "127.0.0.1"
