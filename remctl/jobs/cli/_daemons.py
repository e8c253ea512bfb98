"""The daemons: the runner, the servers, and all of them in one process."""

from __future__ import annotations

import argparse
import logging
from typing import Final, NamedTuple

from sqlalchemy.exc import DBAPIError

from remctl.exceptions import RemctlError
from remctl.jobs.cli._shared import Commands, declare, said, serving
from remctl.jobs.settings import load

logger = logging.getLogger(__name__)


class Daemon(NamedTuple):
    """One of the commands."""

    parts: tuple[str, ...]
    """The names of its `daemons.Part`."""
    text: str
    """What help says of it."""
    title: str
    """What it is called where daemons are listed."""


DAEMONS: Final = {
    "runner": Daemon(("RUNNER",), "run jobs", "runner"),
    "serve": Daemon(("HTTP",), "serve the page, reports of scripts and metrics over HTTP", "HTTP server"),
    "door": Daemon(("DOOR",), "serve the command `job` over remctl", "remctl server"),
    "up": Daemon(("HTTP", "DOOR", "RUNNER"), "do what runner, serve and door do, in one process", "runner and servers"),
}

SIGNALS: Final = """\
SIGTERM and Ctrl-C: nothing new is taken, and it ends with the last of what is under way; a second one stops that.
The exit status is 0 after a signal, and 1 if something cannot be started or has failed.
"""


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    for name, daemon in DAEMONS.items():
        made = declare(commands, name, _run, f"{daemon.text}, until SIGTERM", more=SIGNALS)
        made.add_argument(
            "--drain",
            type=seconds,
            metavar="SECONDS",
            help="stop what is under way so long after SIGTERM; by default it takes as long as it takes",
        )
        made.set_defaults(parts=daemon.parts)


def seconds(text: str) -> float:
    """Read a time for argparse.

    Raises:
        ValueError: it is none.
    """
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError(text)
    return value


def _run(options: argparse.Namespace) -> int:
    from remctl.jobs import daemons, logs  # here, since other commands need no server, and start in half the time

    settings = load(options.config)
    logs.configure(settings.log)
    try:
        with serving(settings) as service:
            daemons.run(service, {daemons.Part[name] for name in options.parts}, drain=options.drain)
    except (RemctlError, DBAPIError, OSError) as error:
        logger.error("%s", said(error))  # noqa: TRY400  # it says all
        return 1
    except Exception:
        logger.exception("it has failed, and ends")
        return 1
    return 0
