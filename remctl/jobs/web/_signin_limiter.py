"""A limit on guessing passwords."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from typing import Final

TRIES: Final = 5
"""Tries for one name from one address."""

ADDRESS_TRIES: Final = 30
"""Tries for all names from one address."""

WINDOW: Final = 300.0
"""Seconds in which they count."""

KEYS: Final = 10_000
"""Names and addresses that are remembered, the latest ones."""


class Limiter:
    """Counts tries; any number of threads may use it."""

    def __init__(self) -> None:
        self._tries: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, address: str, name: str) -> bool:
        """Count a try before it is made, so that many at the same time are counted, too.

        Args:
            address: where it comes from.
            name: whom it is for.

        Returns:
            Whether it may be made.
        """
        now = time.monotonic()
        with self._lock:
            before = {key: [at for at in self._tries.get(key, ()) if at > now - WINDOW] for key in _keys(address, name)}
            if any(len(tries) >= (TRIES if whom else ADDRESS_TRIES) for (_, whom), tries in before.items()):
                return False
            for key, tries in before.items():
                self._tries[key] = [*tries, now]
                self._tries.move_to_end(key)
            while len(self._tries) > KEYS:
                self._tries.popitem(last=False)
        return True

    def forgive(self, address: str, name: str) -> None:
        """Take back one try, which was right, or could not be made; those before it still count."""
        with self._lock:
            for key in _keys(address, name):
                if tries := self._tries.get(key):
                    tries.pop()


def is_loopback(address: str) -> bool:
    """Return whether an address is one of this machine for itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _keys(address: str, name: str) -> list[tuple[str, str]]:
    """What a try counts for: the name, however it is written, and the address, unless it may be a proxy's."""
    plain = name.replace("\\", "").strip().partition("@")[0].casefold()  # Kerberos takes a\da for ada
    plain = plain or "@"  # which is no name, and not empty
    return [(address, plain)] if is_loopback(address) else [(address, plain), (address, "")]
