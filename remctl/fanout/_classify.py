"""From an error to the state that it is, and to whether it says more about this machine than about the host."""

from __future__ import annotations

import errno
from typing import Final

from remctl._endpoints import NO_ANSWER, unknown_host
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlConnectionError,
    RemctlError,
    RemctlProtocolError,
    RemctlTimeoutError,
)
from remctl.fanout._results import HostState

UNKNOWN: Final = unknown_host("").reason.rstrip()
"""How the text of an error for an unknown name begins."""

_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EADDRNOTAVAIL})
"""What the system says when this machine has no descriptor, no memory or no local port left."""


def state_of(error: RemctlError) -> HostState:
    """Return the state of a host for which an attempt ended with an error; `error.sent` is half of the answer."""
    if isinstance(error, RemctlCommandError):
        return HostState.DENIED
    late = isinstance(error, RemctlTimeoutError)
    if error.sent:
        return HostState.TIMEOUT if late else HostState.LOST
    if isinstance(error, RemctlConnectionError):
        if error.reason.startswith((UNKNOWN, NO_ANSWER)):
            return HostState.DNS
        late = error.errno == errno.ETIMEDOUT
    if late:
        return HostState.CONNECT_TIMEOUT
    if isinstance(error, RemctlAuthenticationError):
        return HostState.AUTH
    # A plain RemctlError is one of this machine's: no thread could be started, for example.
    strange = isinstance(error, RemctlProtocolError) and not isinstance(error, RemctlConnectionError)
    return HostState.PROTOCOL if strange else HostState.REFUSED


def is_shortage(error: RemctlError) -> bool:
    """Whether this machine had too little of something to reach the host, which may be there a moment later."""
    if error.sent:
        return False
    cause = error.__cause__
    numbers = (getattr(error, "errno", None), getattr(cause, "errno", None), getattr(cause, "min_code", None))
    return any(number in _SHORT for number in numbers)
