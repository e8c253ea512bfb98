"""The console command `remctl-jobs`: the administrator's, and the daemons.

Each subject is a module with a function `declare`, which puts its commands into the command line; `_parser` is all of
them together.  What jobs, scripts and rights are is decided below, in `service` and `store`.
"""

from remctl.jobs._place import VARIABLE
from remctl.jobs.cli._parser import main

__all__ = ["VARIABLE", "main"]
