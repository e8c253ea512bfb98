"""One run of one script: kept by a small process of its own, which leaves on disk how it ended, whatever happens.

`Attempt` is for whoever runs scripts, `keeper` is the process that holds one, and `read_ending` and `read_output` are
for those who look later.  It knows nothing of jobs and their store.
"""

from remctl.jobs.attempt._attempt import Attempt, KeeperError, Limits
from remctl.jobs.attempt._processes import boot_id, start_time
from remctl.jobs.attempt._record import Reason
from remctl.jobs.attempt._results import (
    DamagedEndingError,
    Ending,
    Kept,
    Piece,
    is_kept,
    progress,
    read_ending,
    read_output,
)

__all__ = [
    "Attempt",
    "DamagedEndingError",
    "Ending",
    "Kept",
    "KeeperError",
    "Limits",
    "Piece",
    "Reason",
    "boot_id",
    "is_kept",
    "progress",
    "read_ending",
    "read_output",
    "start_time",
]
