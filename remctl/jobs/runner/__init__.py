"""The runner: takes jobs that are due and has their scripts run on this machine.

`wake` wakes it from another process, and `clean` tidies up without it.
"""

from remctl.jobs.runner._cleaning import Cleaned, clean
from remctl.jobs.runner._runner import Runner, RunnerError
from remctl.jobs.runner._wake import wake

__all__ = ["Cleaned", "Runner", "RunnerError", "clean", "wake"]
