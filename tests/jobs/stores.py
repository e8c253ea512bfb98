"""What the tests of the store share: a script, somebody who takes jobs, and jobs in each state."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import update

from remctl.jobs.scripts import Language, Limits, Parameters, Script
from remctl.jobs.states import Reason
from remctl.jobs.store import Claim, Ended, Job, Store, Taker, new_bid
from remctl.jobs.store._schema import jobs

ADA: Final = "ada@EXAMPLE.ORG"
BOB: Final = "bob@EXAMPLE.ORG"
ROOT: Final = "root@EXAMPLE.ORG"
RUNNER: Final = Taker("runner", "11111111-1111-4111-8111-111111111111")
DONE: Final = Ended(Reason.EXIT, 0)
BOOT: Final = "5f0c7a0e-0000-4000-8000-000000000000"


def install(store: Store, name: str = "backup", **limits: Any) -> None:
    """Write down a script."""
    script = Script(name, Language.BASH, "Back up.", b"", "0" * 64, Parameters({}), Limits(**limits))
    store.scripts.install(script, ROOT)


def claims(store: Store, count: int, **options: Any) -> list[Claim]:
    """Take so many jobs at once."""
    return store.attempts.claim(RUNNER, [new_bid() for _ in range(count)], 60, **options)


def running(store: Store, script: str = "backup", **options: Any) -> Claim:
    """Submit a job, take it, and begin."""
    store.jobs.submit(script, {}, ADA, **options)
    (found,) = claims(store, 1)
    store.attempts.start(found.attempt, BOOT, 4711, 99, 60)
    return found


def over(store: Store, script: str = "backup", ended: Ended = DONE, *, ago: float = 0) -> Job:
    """Give a job that was over some seconds ago."""
    job = store.attempts.settle(running(store, script).attempt, ended)
    if ago:
        with store.database.write() as connection:
            when = store.database.now - ago
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(ended_at=when, started_at=when - 2))
    return store.jobs.get(job.id)
