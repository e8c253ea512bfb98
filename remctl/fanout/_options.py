"""The arguments of a run: what they mean, what they are if nobody says, and whether they make sense."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, TypedDict

from remctl import _arguments
from remctl._arguments import Command
from remctl._face import Word
from remctl.fanout._hosts import Host, Hosts
from remctl.fanout._results import NOT_STARTED, HostState
from remctl.security import Credentials
from remctl.types import Stream

OnOutput = Callable[[Host, Stream, bytes], object]

BeforeSend = Callable[[Host], Awaitable[object]]

MIB: Final = 1024 * 1024


class Arguments(TypedDict, total=False):
    """The keyword arguments of `run_many`; what they mean is said there."""

    port: int | str | None
    principal: str | None
    running: int
    sockets: int | None
    handshakes: int
    starts: float | None
    connect_timeout: float | None
    timeout: float | None
    deadline: float | None
    retries: int
    retry_on: Collection[HostState]
    backoff: float
    max_fail: int | str | None
    canary: int | None
    batch: int | None
    pause: float
    ordered: bool
    max_output: int
    before_send: BeforeSend | None
    on_output: OnOutput | None
    duplicates: bool
    credentials: Credentials | None
    ccache: str | os.PathLike[str] | None
    source_ip: str | None
    min_protocol: int
    executor: Executor | None
    shard: int


@dataclass(kw_only=True, slots=True)
class Options:
    """The arguments of `run_many`, checked, but for `hosts`.  Pickles, if they do.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    command: Command | None
    port: int = 0
    principal: str | None = None
    running: int = 64
    sockets: int = 0
    handshakes: int = 32
    starts: float | None = None
    connect_timeout: float | None = 10.0
    timeout: float | None = None
    deadline: float | None = None
    retries: int = 1
    retry_on: frozenset[HostState] = NOT_STARTED
    backoff: float = 0.5
    max_fail: int | None = None
    canary: int | None = None
    batch: int | None = None
    pause: float = 0.0
    ordered: bool = False
    max_output: int = MIB
    before_send: BeforeSend | None = None
    on_output: OnOutput | None = None
    duplicates: bool = False
    credentials: Credentials | None = None
    ccache: str | None = None
    source_ip: str | None = None
    min_protocol: int = 1
    executor: Executor | None = None
    shard: int = 256


def check(hosts: object, command: Iterable[Word] | None, given: Arguments) -> tuple[Hosts, Options]:
    """Return the hosts and the options of a run.

    Raises:
        TypeError, ValueError: an argument makes no sense; nothing was taken from the hosts.
    """
    if strange := given.keys() - Arguments.__annotations__.keys():
        raise TypeError(f"run_many() has no argument {min(strange)!r}")
    options = Options(command=None if command is None else _arguments.check_command(command))
    for name, value in given.items():
        setattr(options, name, _CHECKS[name](name, value))
    options.sockets = options.sockets or options.running
    found = Hosts(
        hosts,
        command=options.command,
        port=options.port,
        principal=options.principal,
        duplicates=options.duplicates,
    )
    options.max_fail = _max_fail(given.get("max_fail"), found.total)
    _check_together(options)
    return found, options


def _check_together(options: Options) -> None:
    if options.credentials is not None and options.ccache is not None:
        raise ValueError(f"credentials and ccache exclude each other: {options.credentials!r}, {options.ccache!r}")
    if options.executor is None:
        return
    for name in ("credentials", "before_send", "on_output"):
        if (value := getattr(options, name)) is not None:
            raise ValueError(f"{name} cannot be taken to an executor's workers: {value!r}")


def _count(name: str, value: object) -> int:
    return _arguments.check_count(name, value)


def _count_or_none(name: str, value: object) -> int | None:
    return None if value is None else _arguments.check_count(name, value)


def _count_or_zero(name: str, value: object) -> int:
    if value == 0 and not isinstance(value, bool):
        return 0
    try:
        return _arguments.check_count(name, value)
    except ValueError:
        raise ValueError(f"{name} must be 0 or more: {value!r}") from None


def _limit(name: str, value: object) -> float | None:
    return _arguments.check_timeout(value, name)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds: {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more, and finite: {value!r}")
    return float(value)


def _rate(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number per second or None: {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be more than 0, and finite: {value!r}")
    return float(value)


def _states(name: str, value: object) -> frozenset[HostState]:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise TypeError(f"{name} must be a collection of states: {value!r}")
    states = []
    for each in value:
        try:
            states.append(HostState(each))
        except ValueError:
            raise ValueError(f"{name} has something that is no state: {each!r}") from None
    for never in (HostState.OK, HostState.CANCELLED, HostState.SKIPPED):
        if never in states:
            raise ValueError(f"{name} has a state after which nothing is tried again: {str(never)!r}")
    return frozenset(states)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False: {value!r}")
    return value


def _function(name: str, value: object) -> object:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None: {value!r}")
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a function that does not wait, and this is a coroutine function: {value!r}")
    return value


def _coroutine_function(name: str, value: object) -> object:
    if value is not None and not inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a coroutine function or None: {value!r}")
    return value


def _credentials(name: str, value: object) -> Credentials | None:
    if value is not None and not isinstance(value, Credentials):
        raise TypeError(f"{name} must be remctl.security.Credentials: {value!r}")
    return value


def _executor(name: str, value: object) -> Executor | None:
    if value is not None and not isinstance(value, Executor):
        raise TypeError(f"{name} must be a concurrent.futures.Executor: {value!r}")
    return value


def _max_fail(value: object, total: int | None) -> int | None:
    """So many hosts, or so many in a hundred, of which at least one."""
    if value is None or not isinstance(value, str):
        return _count_or_none("max_fail", value)
    number, sign, rest = value.partition("%")
    try:
        percent = Decimal(number)  # in binary, some hundredths of a percent come to one host more
    except InvalidOperation:
        percent = Decimal(0)
    if not sign or rest or not percent.is_finite() or not 0 < percent <= 100:
        raise ValueError(f'max_fail must be a number of hosts, or from "1%" to "100%": {value!r}')
    if total is None:
        raise ValueError(
            f"max_fail can be a percentage only of hosts that can be counted, a list for example: {value!r}"
        )
    return max(1, math.ceil(total * percent / 100))


_CHECKS: Final[dict[str, Callable[[str, object], object]]] = {
    "port": lambda _, value: _arguments.check_port(value),
    "principal": lambda _, value: _arguments.check_principal(value),
    "running": _count,
    "sockets": _count_or_none,
    "handshakes": _count,
    "starts": _rate,
    "connect_timeout": _limit,
    "timeout": _limit,
    "deadline": _limit,
    "retries": _count_or_zero,
    "retry_on": _states,
    "backoff": _seconds,
    "max_fail": lambda _, __: None,  # when the hosts are known
    "canary": _count_or_none,
    "batch": _count_or_none,
    "pause": _seconds,
    "ordered": _flag,
    "max_output": _count_or_zero,
    "before_send": _coroutine_function,
    "on_output": _function,
    "duplicates": _flag,
    "credentials": _credentials,
    "ccache": lambda _, value: _arguments.check_ccache(value),
    "source_ip": lambda _, value: _arguments.check_source_ip(value),
    "min_protocol": lambda _, value: _arguments.check_min_protocol(value),
    "executor": _executor,
    "shard": _count,
}
