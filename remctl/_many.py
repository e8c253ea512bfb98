"""`run_many`, the blocking one; what it needs is loaded when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from remctl import fanout
    from remctl._face import Word
    from remctl.fanout import Host
    from remctl.fanout._options import Arguments


def run_many(
    hosts: Iterable[str | Host], command: Iterable[Word] | None = None, **arguments: Unpack[Arguments]
) -> fanout.Run:
    """Run a command on many hosts.

    Needs the extra `remctl-cffi[fanout]`.

    Args:
        hosts: names or addresses, each with a port behind a colon or without ("host", "host:4444", "[::1]:4444"), or
            `remctl.fanout.Host` objects, which may have a port, a principal and a command of their own.  They are
            taken from the iterable as they are needed, in the run's event loop, which therefore must not wait long for
            one.  Each of them gets a result, after a stop too: with an iterable without an end, leave the run.
        command: the command's words, in a sequence or iterator; None if every host has one of its own.
        port, principal: those of hosts that name none; see `remctl.remctl`.
        running: commands that run at the same time.
        sockets: hosts that are in work at the same time, connected or being connected to; None is as `running`.
        handshakes: hosts that are being connected to at the same time.
        starts: hosts to begin with per second; None is as many as there are.
        connect_timeout: seconds for an attempt to connect, name lookup and Kerberos included; None or 0 is without
            limit.
        timeout: seconds for a command, from its sending to its exit status; None or 0 is without limit.
        deadline: seconds for the whole run, from the first time that a result is asked for; hosts that were not begun
            with by then are SKIPPED, and what is under way is cut.  None or 0 is without limit.
        retries: how often a host is tried again, at the most.
        retry_on: the states after which it is.  By default those in which the command cannot have started; with
            others, NONZERO, LOST or TIMEOUT for example, the command may run more than once.
        backoff: seconds before the second attempt, give or take a half; twice as many before each further one.
        max_fail: so many hosts that are not OK stop the run, unreachable ones among them: no command is sent after
            that, and those that were sent come to their end.  A number, or a percentage such as "10%" of hosts that can
            be counted; None is any number.
        canary: so many hosts come first, and only if all of them are OK do the others; None is no canary.
        batch: so many hosts at a time: the next ones when all have come to their end; None is all at once.
        pause: seconds between two batches.
        ordered: whether results come in the order of the hosts, instead of as they come.
        max_output: bytes that are kept of each stream of each host; what comes after is counted, and dropped.
        before_send: a coroutine function that is awaited with the `remctl.fanout.Host` when it is connected, and before
            the command is sent, at each attempt.  If it raises, the command is not sent: the host is SKIPPED, and its
            error says why.
        on_output: a function that gets each piece of output as it comes: `on_output(host, stream, data)`, with a
            `remctl.fanout.Host` and a `Stream`.  It is called in the run's event loop, so it must not wait.  If it
            raises, that host's result says so in `error`, and it is called no more for that host.
        duplicates: whether a host may be visited more than once.  If not, one that is named again with the same port
            and command is SKIPPED; names are the same without regard to case and a dot at their end.
        credentials: whose tickets to use, a `remctl.security.Credentials`; None is those of `ccache`.
        ccache: name or path of the ticket cache; None is the default cache.
        source_ip: the local IPv4 or IPv6 address to connect from; None leaves it to the system.
        min_protocol: the lowest protocol version to accept, 1 to 3.
        executor: a `concurrent.futures.Executor` whose workers shall visit the hosts; None visits them from here.
            `running`, `sockets`, `handshakes` and `starts` are then those of each shard.
        shard: hosts that a worker of the executor gets at a time.

    Returns:
        An iterator over one `remctl.fanout.HostResult` for each host, and a context manager.  It begins when the first
        result is asked for, and begins with no further host while 1,000 results wait to be taken.

    Raises:
        TypeError, ValueError: an argument makes no sense; nothing was sent.

    The iterator raises `RemctlAuthenticationError` if there is no ticket, before anything is sent.  What a host does is
    no exception but its result.  A host that makes no sense (`TypeError`, `ValueError`) and an exception of the
    iterable end the hosts there, and are raised when the others have come to their end.
    """
    from remctl.fanout._blocking import run_many as make

    return make(hosts, command, arguments)
