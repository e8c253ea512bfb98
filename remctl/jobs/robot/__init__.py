"""The robot agent: takes jobs from an orchestrator over HTTP, runs their scripts here, and tells how they ended.

A machine that runs it needs the extra `robot` alone.  Each module has one subject:

    _wire          what is sent and what is read, without a network
    _orchestrator  the requests, by httpx
    _spool         what is under way and what has to be told, on disk
    _scripts       from a script's name to its file
    _environment   what a script finds in its environment
    _running       a script that runs: by a keeper (_running_posix), or by this process (_running_windows)
    _pace          how soon is asked again
    _agent         the algorithm, which puts all of these together
    _cli           the console command `remctl-robot`
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: the words after the command's name; None takes those of the process.
    """
    from remctl.jobs.robot._cli import main as command  # here, since what tests the parts needs none of it

    return command(arguments)
