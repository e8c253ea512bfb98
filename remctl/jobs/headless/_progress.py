"""How far a run has come: what an exit code depends on when a signal ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remctl.jobs.client import Job


class Progress:
    """Changes while the run goes on."""

    submitted = False
    """Whether the job may have been submitted."""
    job: Job | None = None
    """The job as it was last heard of."""
