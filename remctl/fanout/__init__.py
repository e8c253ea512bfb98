"""One command on many hosts: what `remctl.run_many` and `remctl.aio.run_many` take and give.

    >>> for result in remctl.run_many(["a.example.org", "b.example.org"], ["disk", "free"]):
    ...     print(result.host, result.state, result.stdout)

Needs python-gssapi and pykrb5: `pip install 'remctl-cffi[fanout]'`.
"""

from remctl.fanout._auth import AuthReason, reason_of
from remctl.fanout._blocking import Run
from remctl.fanout._classify import state_of
from remctl.fanout._collecting import Progress
from remctl.fanout._hosts import Host
from remctl.fanout._options import Arguments
from remctl.fanout._results import NOT_STARTED, Attempt, HostResult, HostState, Timings

__all__ = [
    "NOT_STARTED",
    "Arguments",
    "Attempt",
    "AuthReason",
    "Host",
    "HostResult",
    "HostState",
    "Progress",
    "Run",
    "Timings",
    "reason_of",
    "state_of",
]
