"""The command line as a whole: from words to one of the commands, and from its end to an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import DBAPIError

from remctl.exceptions import RemctlError
from remctl.jobs._place import DEFAULT, VARIABLE
from remctl.jobs.cli import _accounts, _daemons, _doctor, _folder, _jobs, _machines, _printed, _robots, _scripts
from remctl.jobs.cli._shared import said

SUBJECTS: Final = (_folder, _scripts, _jobs, _machines, _robots, _accounts, _daemons, _doctor, _printed)

STATUSES: Final = """\
exit status: 0; 1 if something cannot be done, which one line on standard error tells; 2 for a wrong command line
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 1 if something cannot be done, 2 for a wrong command line.

    Args:
        arguments: the words after the command's name; None takes those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # of a `head` that has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RemctlError, DBAPIError, OSError) as error:
        sys.stderr.write(f"remctl-jobs: {said(error)}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remctl-jobs", description="Unattended jobs: scripts, and what runs them.", epilog=STATUSES
    )
    parser.add_argument(
        "--config",
        default=os.environ.get(VARIABLE, DEFAULT),
        metavar="FILE",
        help=f"the configuration file (default: ${VARIABLE}, or {DEFAULT})",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subject in SUBJECTS:
        subject.declare_all(commands)
    return parser
