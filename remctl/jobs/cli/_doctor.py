"""Looking for what is wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from remctl.jobs.cli._shared import Commands, declare


def declare_all(commands: Commands) -> None:
    """Put the command into the command line."""
    declare(
        commands,
        "doctor",
        _doctor,
        "look for what is wrong, and say what to do",
        more="The exit status is 1 if something is wrong; warnings are no such thing.",
    )


def _doctor(options: argparse.Namespace) -> int:
    from remctl.jobs.doctor import Verdict, examine  # here, since other commands do without Kerberos

    wrong = False
    for finding in examine(Path(options.config)):
        wrong = wrong or finding.verdict is Verdict.WRONG
        print(f"{finding.verdict:8} {finding.what}{f'; {finding.advice}' if finding.advice else ''}")
        sys.stdout.flush()  # the next one may take long
    return 1 if wrong else 0
