"""The remctl protocol as pure state machines: bytes in, events out; messages in, bytes out.

There is no socket, no clock and no GSS-API in it, so that it runs over whatever carries bytes, and can be tested in
memory.  From below: `tokens` (packets), `messages` (their payloads), `state` (the tables of who may say what),
`security` (what is needed of GSS-API), `events`, and the two roles on `base`: `client` and `server`.

Protocol versions 1, 2 and 3, after the specification that remctl comes with (docs/protocol.xml).
"""

from remctl.protocol.client import ClientConnection
from remctl.protocol.events import (
    NEED_DATA,
    PAUSED,
    Closed,
    CommandReceived,
    Established,
    HighestVersion,
    NoopAnswer,
    Step,
)
from remctl.protocol.security import SecurityContext
from remctl.protocol.server import ServerConnection
from remctl.protocol.state import LocalProtocolError, State

__all__ = [
    "NEED_DATA",
    "PAUSED",
    "ClientConnection",
    "Closed",
    "CommandReceived",
    "Established",
    "HighestVersion",
    "LocalProtocolError",
    "NoopAnswer",
    "SecurityContext",
    "ServerConnection",
    "State",
    "Step",
]
