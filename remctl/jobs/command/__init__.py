"""The remctl command `job`: what users do with jobs from elsewhere, as a `Backend` and as a program for remctld.

A program is started for each command, and for each line of remctld's help; so the store and its library are loaded when
a command needs them.  `remctl.jobs.client` is the other end.
"""

from remctl.jobs.command._program import backend, main, program

__all__ = ["backend", "main", "program"]
