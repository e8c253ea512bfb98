"""The store itself: one database, and a part for each of those who ask."""

from __future__ import annotations

from remctl.jobs.store._accounts import Accounts
from remctl.jobs.store._attempts import Attempts
from remctl.jobs.store._database import Database
from remctl.jobs.store._jobs import Jobs
from remctl.jobs.store._machines import Machines
from remctl.jobs.store._robots import Robots
from remctl.jobs.store._scripts import Scripts


class Store:
    """All that is kept of jobs; any number of threads and processes may use it.

    Args:
        url: see `Database`.

    Raises:
        ValueError: the URL is none, or of another kind of database.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.scripts = Scripts(self.database)
        self.machines = Machines(self.database)
        self.accounts = Accounts(self.database)
        self.jobs = Jobs(self.database)
        self.attempts = Attempts(self.database)
        self.robots = Robots(self.database, self.attempts)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
