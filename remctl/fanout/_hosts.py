"""From what the caller names to hosts that have been checked, one at a time, as they are needed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field

from remctl import _arguments
from remctl._arguments import Command
from remctl._face import Word


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a run, and what is its own; what is None is the run's."""

    name: str
    """Name or address."""
    port: int | None = None
    """The TCP port; None tries 4373, then 4444 if that does not connect, unless the run names one."""
    principal: str | None = None
    """The server's principal."""
    command: Sequence[Word] | None = field(default=None, hash=False)
    """The command's words."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host that has been checked."""

    index: int
    """Its place among the hosts of the run."""
    host: Host
    """As the caller named it."""
    port: int
    """0 stands for the default ports."""
    principal: str | None
    command: Command
    repeated: bool
    """Whether the run has had it before."""


class Hosts(Iterator[Target]):
    """The hosts of a run, taken from the caller's iterable when they are asked for.

    Args:
        hosts: names and addresses, with a port behind a colon or without, and `Host` objects.
        command: what hosts run that name no command of their own; None if all of them do.
        port, principal: those of hosts that name none.
        duplicates: whether a host may be named more than once.

    Raises:
        TypeError: `hosts` is no iterable of hosts.

    `next` raises `TypeError` or `ValueError` for a host that makes no sense, and whatever the iterable raises.
    """

    total: int | None
    """How many there are; None if the iterable does not know."""

    def __init__(
        self, hosts: object, *, command: Command | None, port: int, principal: str | None, duplicates: bool
    ) -> None:
        if isinstance(hosts, str | bytes | Host) or not isinstance(hosts, Iterable):
            raise TypeError(f"hosts must be an iterable of hosts: {hosts!r}")
        self.total = len(hosts) if isinstance(hosts, Sized) else None
        self._hosts = iter(hosts)
        self._command = command
        self._port = port
        self._principal = principal
        self._count = 0
        self._seen: set[tuple[object, ...]] | None = None if duplicates else set()

    def __next__(self) -> Target:
        host = host_of(next(self._hosts))
        command = self._command if host.command is None else _arguments.check_command(host.command)
        if command is None:
            raise ValueError(f"the run has no command, and the host names none: {host!r}")
        port = _arguments.check_port(host.port) or self._port
        principal = self._principal if host.principal is None else _arguments.check_principal(host.principal)
        index = self._count
        self._count += 1
        return Target(index, host, port, principal, command, self._repeated(host.name, port, command))

    def _repeated(self, name: str, port: int, command: Command) -> bool:
        if self._seen is None:
            return False
        key = (_canonical(name), port, None if command is self._command else tuple(command.words))
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


class Ahead:
    """Looks one host ahead.

    Args:
        hosts: whom to visit.
    """

    error: Exception | None
    """What the caller's iterable raised, which is its end."""

    def __init__(self, hosts: Iterator[Target]) -> None:
        self.error = None
        self._hosts = hosts
        self._next: Target | None = None

    def peek(self) -> Target | None:
        """Return the next host, which stays the next; None if there is none."""
        if self._next is None:
            try:
                self._next = next(self._hosts, None)
            except Exception as error:  # the caller gets it when the others have come to their end
                self.error = error
            if self._next is None:
                self._hosts = iter(())
        return self._next

    def take(self) -> None:
        """Go on to the one after it."""
        self._next = None


def host_of(named: object) -> Host:
    """Return the host that a caller means: by HOST, HOST:PORT, [ADDRESS]:PORT, ADDRESS, or a `Host`.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(named, Host):
        _check_name(named.name)
        return named
    if not isinstance(named, str):
        raise TypeError(f"a host must be a str or a remctl.fanout.Host: {named!r}")
    name, port = named, ""
    if named.startswith("["):
        name, bracket, rest = named[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"a host in brackets must be [ADDRESS] or [ADDRESS]:PORT: {named!r}")
        port = rest[1:]
        colon = bool(rest)
    elif named.count(":") == 1:
        name, _, port = named.partition(":")
        colon = True
    else:
        colon = False
    if colon and not (port.isascii() and port.isdigit()):
        raise ValueError(f"a host's port must be a number: {named!r}")
    return Host(_check_name(name), _arguments.check_port(port) if colon else None)


def _check_name(name: str) -> str:
    """Refuse what no host is called, a line of a file with its end for example, before a name service is asked."""
    if any(letter.isspace() or not letter.isprintable() for letter in _arguments.check_host(name)):
        raise ValueError(f"a host's name must not have spaces, line ends or control characters: {name!r}")
    return name


def _canonical(name: str) -> str:
    """Return what all spellings of a name, or of an address, have in common."""
    if ":" in name or name[-1].isdigit():
        try:
            return str(ipaddress.ip_address(name))
        except ValueError:
            pass  # a name
    return name.lower().removesuffix(".")
