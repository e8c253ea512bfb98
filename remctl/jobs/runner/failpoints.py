"""Named moments at which a test can have the process die, stop or go on only when it is told; off otherwise.

`REMCTL_JOBS_FAILPOINT=NAME:ACTION` in the environment: `kill` dies there as by kill -9, `stop` stops there until
somebody sends SIGCONT.  Each fires once.
"""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "REMCTL_JOBS_FAILPOINT"

ACTIONS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reached(name: str) -> None:
    """Say that a moment has come."""
    chosen, _, action = os.environ.get(VARIABLE, "").partition(":")
    if chosen == name and action in ACTIONS:
        del os.environ[VARIABLE]
        os.kill(os.getpid(), ACTIONS[action])
