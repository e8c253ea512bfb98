"""What went wrong, in words: a line for all hosts with the same failure, as clush writes them."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from remctl.cli._fold import fold
from remctl.cli._screen import Side
from remctl.fanout import HostResult, HostState

FEW: Final = 5
"""Hosts for which a failure is said at once; those that follow are in the summary."""

AT_ONCE: Final = 100
"""Lines that are said at once, over all failures."""

KINDS: Final = 20
"""Texts of one rank that are told apart in the summary; a server may have another one for each host."""

_WORDS: Final = {
    HostState.DNS: "not reached",
    HostState.REFUSED: "not reached",
    HostState.CONNECT_TIMEOUT: "not reached in time",
    HostState.AUTH: "not run",
    HostState.DENIED: "denied by the server",
    HostState.PROTOCOL: "not run",
    HostState.LOST: "lost after the command was sent",
    HostState.CANCELLED: "cancelled",
    HostState.SKIPPED: "skipped",
}

_RANKS: Final = {state: 256 + place for place, state in enumerate(HostState)}

_NOTE: Final = 1000
"""Where notes about single hosts stand in the summary: behind all failures."""

_RUNNING: Final = 1001

_LATE: Final = frozenset({HostState.CANCELLED, HostState.SKIPPED})
"""States that many hosts come to at the same time, when a run ends; they are in the summary alone."""


@dataclass(slots=True)
class _Group:
    """The hosts with one failure."""

    text: str
    """As it is for one of the hosts; for the first one in the list, if there is a list."""
    common: str
    """As it is for all of them."""
    said: int = 0
    hosts: list[str] = field(default_factory=list)
    """Those for which it was not said yet."""


class Failures:
    """Says what went wrong with hosts.

    Args:
        side: where to.
        counts: whether the number of hosts stands behind them.
        statuses: whether exit codes are said.
        at_once: whether the first hosts with a failure are named as soon as it is known.
    """

    def __init__(self, side: Side, *, counts: bool, statuses: bool, at_once: bool) -> None:
        self._side = side
        self._counts = counts
        self._statuses = statuses
        self._left = AT_ONCE if at_once else 0
        self._groups: dict[tuple[int, str], _Group] = {}
        self._kinds: Counter[int] = Counter()

    def result(self, result: HostResult) -> None:
        """Take what became of a host."""
        if result.state is HostState.NONZERO:
            if self._statuses:
                self._add(rank_of(result), f"exited with exit code {result.status}", result.host)
        elif result.state is not HostState.OK:
            self._add(rank_of(result), _text(result), result.host, late=result.state in _LATE)
        if result.status is not None and result.error is not None:
            self.note(result.host, result.error.reason)
        if result.may_be_running:
            self._add(_RUNNING, "the command may still be running", result.host, late=True)

    def note(self, host: str, text: str) -> None:
        """Say something else about a host."""
        self._add(_NOTE, text, host)

    def close(self) -> None:
        """Say what was not said yet."""
        waiting = [(rank, group) for (rank, _), group in self._groups.items() if group.hosts]
        for _, group in sorted(waiting, key=lambda each: (each[0], -len(each[1].hosts))):
            single = len(group.hosts) == 1
            count = "" if single or not self._counts else f" ({len(group.hosts)})"
            self._say(f"{fold(group.hosts)}{count}", group.text if single else group.common)
        self._groups.clear()
        self._kinds.clear()

    def _add(self, rank: int, text: str, host: str, *, late: bool = False) -> None:
        group = self._group(rank, text, host)
        if not late and self._left and group.said < FEW:
            group.said += 1
            self._left -= 1
            self._say(host, text)
            return
        if not group.hosts:
            group.text = text
        group.hosts.append(host)

    def _group(self, rank: int, text: str, host: str) -> _Group:
        common = text if rank == _RANKS[HostState.SKIPPED] else masked(text, host)  # that names another host
        if (group := self._groups.get((rank, common))) is not None:
            return group
        if self._kinds[rank] < KINDS:
            self._kinds[rank] += 1
            return self._groups.setdefault((rank, common), _Group(text, common))
        return self._groups.setdefault((rank, ""), _Group(text, f"{text}; or the like"))

    def _say(self, hosts: str, text: str) -> None:
        self._side.say(f"pyremctl: {hosts}: {text}")


def rank_of(result: HostResult) -> int:
    """Return where a host stands among others: by its exit status; those without one follow, by their state."""
    return _RANKS[result.state] if result.status is None else result.status


def note_cut(failures: Failures, host: str, what: str, data: bytes, size: int) -> None:
    """Say that only a part of a host's output is shown, if that is so.

    Args:
        failures: where to.
        host: the host.
        what: "output" or "error output".
        data: the part.
        size: bytes of the whole.
    """
    if size > len(data):
        failures.note(host, f"only the first {len(data)} bytes of the {what} are shown")


def _text(result: HostResult) -> str:
    if result.state is HostState.TIMEOUT:
        return "command timeout"
    words = _WORDS[result.state]
    if (error := result.error) is None or (result.state is HostState.CANCELLED):
        return words
    hint = f"; {error.hint}" if error.hint and not result.may_be_running else ""
    return f"{words}: {error.reason}{hint}"


def masked(text: str, host: str) -> str:
    """Return a text without what belongs to one host: HOST for its name, ADDRESS for addresses."""
    name = host.lower().rstrip(".")

    def mask(found: re.Match[str]) -> str:
        word = found[0].rstrip(".:")
        low = word.lower()
        if low == name or low.startswith(f"{name}."):
            return "HOST" + found[0][len(word) :]
        return "ADDRESS" + found[0][len(word) :] if _is_address(word) else found[0]

    return _WORD.sub(mask, text)


def _is_address(word: str) -> bool:
    if word.count(".") != 3 and word.count(":") < 2:
        return False
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


_WORD: Final = re.compile(r"[\w.:-]+")
