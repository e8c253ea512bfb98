"""Many hosts in few words: `n[1-3,7]`, as ClusterShell writes them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from ClusterShell.RangeSet import RangeSet

from remctl.cli._text import safe

_NAME: Final = re.compile(r"(?P<before>[\w.:-]*?)(?P<number>\d*)(?P<after>[A-Za-z_.:-]*)", re.ASCII)
"""A name that a node set can hold, taken apart at its last number."""

_FEW: Final = 50
"""Sets that NodeSet is asked to put together further; with more than one number in each that takes their square."""


def fold(hosts: Collection[str]) -> str:
    """Return hosts as a node set, each of them once; names that no node set can hold stand at its end, escaped."""
    if len(hosts) == 1:
        return safe(next(iter(hosts)))
    sets, others = _sets(hosts)
    if len(sets) <= _FEW:
        folded = str(NodeSet.fromlist(sets, resolver=RESOLVER_NOGROUP))
        return ",".join([folded, *others] if sets else others)
    return ",".join([*sorted(sets), *others])


def _sets(hosts: Collection[str]) -> tuple[list[str], list[str]]:
    """Return a set for all names that differ in their last number alone, and the names that fit into none."""
    numbers: dict[tuple[str, str], list[str]] = {}
    sets: list[str] = []
    others: list[str] = []
    for host in dict.fromkeys(hosts):
        if not host or (parts := _NAME.fullmatch(host)) is None:
            others.append(safe(host))
        elif parts["number"]:
            numbers.setdefault((parts["before"], parts["after"]), []).append(parts["number"])
        else:
            sets.append(host)
    for (before, after), found in numbers.items():
        number = found[0] if len(found) == 1 else f"[{RangeSet(','.join(found))}]"
        sets.append(f"{before}{number}{after}")
    return sets, others
