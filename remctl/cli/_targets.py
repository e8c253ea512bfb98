"""From -w, -x, -g, -X, -a, --hostfile and --pick to hosts, each of them checked before anything is sent.

Node sets and groups are ClusterShell's, with its configuration; its commands for groups are run by a shell, so names of
groups are held to what no shell takes for its own.  A set or a group that names no host is an error: it is misspelt.
"""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ClusterShell.NodeSet import NodeSet, NodeSetException
from ClusterShell.NodeUtils import GroupResolverError, GroupSourceError
from ClusterShell.RangeSet import RangeSetException

from remctl._arguments import Command
from remctl.cli._fold import fold
from remctl.exceptions import RemctlError
from remctl.fanout import Host
from remctl.fanout._hosts import Hosts, host_of

logger = logging.getLogger(__name__)

_SET: Final = re.compile(r"[\[\],!&^@*?]")
"""What a name has that is a set, an expression, or a group."""

_ADDRESS: Final = re.compile(r"\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?\](:\d+)?")
"""An IPv6 address in brackets, which are not those of a range."""

_OPERAND: Final = re.compile(r"(?:[^\[\],!&^]|\[[^\]]*\])+")

_RANGE: Final = re.compile(r"\[[\d,/-]*\]")

_BRACKETS: Final = re.compile(r"\[([^\]]*)\]")

_PLAIN: Final = re.compile(r"\s*\d+\s*(-\s*\d+\s*(/\s*\d+\s*)?)?")
"""A range of numbers none of which is negative."""

_GROUP: Final = re.compile(r"@{1,2}[\w.:%+=*?-]*", re.ASCII)
"""A group, a source of groups or its names, its ranges left out."""

MOST: Final = 1_000_000
"""Hosts that a node set may have.  ClusterShell makes all of them before it gives the first one."""


class TargetError(RemctlError):
    """The hosts are not known; nothing was sent."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """The options that name hosts."""

    nodes: Sequence[str] = ()
    groups: Sequence[str] = ()
    everything: bool = False
    hostfiles: Sequence[str] = ()
    """Paths; - is standard input."""
    without: Sequence[str] = ()
    without_groups: Sequence[str] = ()
    pick: int | None = None
    """So many of them, by chance."""
    duplicates: bool = False
    """Whether a host may be there more than once."""

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.nodes or self.groups or self.everything or self.hostfiles)


def find(named: Named) -> list[Host]:
    """Return the hosts, in the order in which they are named; those of a set in the set's.

    Raises:
        TargetError: a set, a group, a file or a name makes no sense, or there is no host left.
    """
    hosts = list(_without(_distinct(_named(named), duplicates=named.duplicates), named))
    if not hosts:
        raise TargetError("there is no host", hint="-x and -X may have taken all of them" if _excludes(named) else None)
    if named.pick is not None and named.pick < len(hosts):
        chosen = sorted(random.sample(range(len(hosts)), named.pick))
        return [hosts[place] for place in chosen]
    return hosts


def label(host: Host) -> str:
    """Return what a host is called in all that is written about it; `host_of` makes the same host of it."""
    if host.port is None:
        return host.name
    return f"[{host.name}]:{host.port}" if ":" in host.name else f"{host.name}:{host.port}"


def _named(named: Named) -> Iterator[Host]:
    for text in named.nodes:
        yield from map(_host, _expand(text))
    for group in named.groups:
        yield from map(_host, _expand(f"@{group}"))
    if named.everything:
        yield from map(_host, _everything())
    for path in named.hostfiles:
        yield from _read(path)


def _excludes(named: Named) -> list[str]:
    return [*named.without, *(f"@{group}" for group in named.without_groups)]


def _without(hosts: Iterable[Host], named: Named) -> Iterator[Host]:
    """Leave out what is excluded: a host on every port, if it is excluded without one."""
    names = [name for text in _excludes(named) for name in _expand(text)]
    left_out = {_key(_host(name)) for name in names}
    for host in hosts:
        name, port = _key(host)
        if (name, port) not in left_out and (name, None) not in left_out:
            yield host


def _key(host: Host) -> tuple[str, int | None]:
    return host.name.lower().removesuffix("."), host.port


def _distinct(hosts: Iterable[Host], *, duplicates: bool) -> Iterator[Host]:
    """Leave out hosts that were there before, by the rule of the run, and say so."""
    repeated: list[str] = []
    for target in Hosts(hosts, command=Command([]), port=0, principal=None, duplicates=duplicates):
        if target.repeated:
            repeated.append(label(target.host))
        else:
            yield target.host
    if repeated:
        logger.warning("%s: named more than once, and visited once; --duplicates allows more", fold(repeated))


def _read(path: str) -> Iterator[Host]:
    """Return the hosts in a file: names and node sets with white space between them, and comments behind #."""
    name = "standard input" if path == "-" else path
    try:
        with open(0 if path == "-" else Path(path), "rb", closefd=path != "-") as lines:
            for number, line in enumerate(lines, 1):
                for word in line.partition(b"#")[0].split():
                    try:
                        yield from map(_host, _expand(word.decode("utf-8", "backslashreplace")))
                    except TargetError as error:
                        raise TargetError(f"{name}, line {number}: {error.reason}") from None
    except OSError as error:
        raise TargetError(f"hosts cannot be read from {name}: {error.strerror}") from None


def _host(name: str) -> Host:
    if not name.isprintable() or any(letter in name for letter in " /\\"):
        raise TargetError(f"this is no name of a host: {name!r}")
    try:
        return host_of(name)
    except ValueError as error:
        raise TargetError(str(error)) from None


def _expand(text: str) -> Iterable[str]:
    """Return the names in a node set."""
    if not text.isprintable():
        raise TargetError(f"this is no name of a host: {text!r}")
    if not _SET.search(text) or _ADDRESS.fullmatch(text):
        return [text]
    operands = _OPERAND.findall(text)
    if sum(map(_size, operands)) > MOST:
        raise TargetError(f"the node set {text!r} has more than {MOST:,} hosts")
    for operand in operands:
        if "@" in operand and not _GROUP.fullmatch(_RANGE.sub("", operand)):
            raise TargetError(f"this is no name of a group: {operand!r}")
        if re.search(r"[@*?]", operand) and not _nodes(operand):
            what = "no group, or has no host" if operand.startswith("@") else "nothing that a group has"
            raise TargetError(f"{operand} is {what}", hint="`nodeset -LL` lists groups and their hosts")
    nodes: Iterable[str] = _nodes(text)
    return nodes


def _size(operand: str) -> int:
    """Return how many hosts an operand can come to, or more, from its ranges alone."""
    return math.prod(sum(map(_length, ranges.split(","))) for ranges in _BRACKETS.findall(operand))


def _length(span: str) -> int:
    """Return how many numbers are in FROM-TO or FROM-TO/STEP; more, where one is negative."""
    numbers = list(map(int, re.findall(r"\d+", span)))
    if len(numbers) < 2 or not _PLAIN.fullmatch(span):
        return sum(numbers) + 1 if "-" in span else 1
    first, last, step = [*numbers, 1][:3]
    return max(0, last - first) // max(1, step) + 1


def _nodes(text: str) -> NodeSet:
    try:
        return NodeSet(text)
    except (NodeSetException, GroupResolverError, GroupSourceError, RangeSetException) as error:
        raise TargetError(f"the node set {text!r} makes no sense: {_reason(error)}") from None


def _everything() -> NodeSet:
    try:
        nodes = NodeSet.fromall()
    except (NodeSetException, GroupResolverError, GroupSourceError) as error:
        raise TargetError(f"all hosts (-a) are not known: {_reason(error)}") from None
    if not nodes:
        raise TargetError("all hosts (-a) are none", hint="the group `all` of ClusterShell's configuration has them")
    return nodes


def _reason(error: Exception) -> str:
    """Return what ClusterShell says, which may be the name of a group source alone."""
    if isinstance(error, GroupResolverError):
        return f"group source {error} is not known"
    return str(error)
