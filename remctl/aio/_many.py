"""`run_many` of the asyncio face; what it needs is loaded when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from remctl._face import Word
    from remctl.fanout import Host, aio
    from remctl.fanout._options import Arguments


def run_many(
    hosts: Iterable[str | Host], command: Iterable[Word] | None = None, **arguments: Unpack[Arguments]
) -> aio.Run:
    """Run a command on many hosts.

    Needs the extra `remctl-cffi[fanout]`.

    Args:
        hosts: as for `remctl.run_many`.
        command: as for `remctl.run_many`.
        arguments: as for `remctl.run_many`.

    Returns:
        An asynchronous iterator over one `remctl.fanout.HostResult` for each host, and an asynchronous context manager.
        It begins when the first result is asked for, and begins with no further host while 1,000 results wait to be
        taken.

    Raises:
        TypeError, ValueError: an argument makes no sense; nothing was sent.

    What else it raises, the iterator raises, as the one of `remctl.run_many`.  Cancelling the wait for a result cuts
    the run.
    """
    from remctl.fanout.aio import run_many as make

    return make(hosts, command, arguments)
