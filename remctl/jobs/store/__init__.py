"""The job store: what is asked of it by administrators, users, runners and robots, each call one transaction.

Stands on the moves of `states`.  All that is written for an attempt says which attempt, and is refused when that one
has ended: a runner that was taken for dead and comes back changes nothing.
"""

from remctl.jobs.store._accounts import EXTERNAL
from remctl.jobs.store._attempts import account_of, new_bid
from remctl.jobs.store._database import AWAY, Database, reason_of
from remctl.jobs.store._records import (
    AttemptRecord,
    Bid,
    Claim,
    Ended,
    Event,
    InstalledScript,
    Job,
    Machine,
    Order,
    Output,
    Robot,
    StaleAttemptError,
    StoreError,
    Taker,
)
from remctl.jobs.store._robots import UnknownRobotError
from remctl.jobs.store._store import Store
from remctl.jobs.store._upgrade import SchemaError, check, upgrade

__all__ = [
    "AWAY",
    "AttemptRecord",
    "Bid",
    "Claim",
    "Database",
    "EXTERNAL",
    "Ended",
    "Event",
    "InstalledScript",
    "Job",
    "Machine",
    "Order",
    "Output",
    "Robot",
    "SchemaError",
    "StaleAttemptError",
    "Store",
    "StoreError",
    "Taker",
    "UnknownRobotError",
    "account_of",
    "check",
    "new_bid",
    "reason_of",
    "upgrade",
]
