"""The header of a script: what it says of itself in a block of comments at its top.

The block has the shape of the one for packages in Python's scripts (PEP 723), with TOML between its first and last
line, and is the same in each language but for the sign of comments:

    # /// job
    # description = "Free space on a file system"
    # run-time = 600
    #
    # [parameters.path]
    # type = "text"
    # pattern = "/.*"
    # ///

Before it come comments and blank lines alone.
"""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from remctl.acl import Acl
from remctl.jobs.scripts._declaring import Misfit, parse, refuse_unknown, take, take_line
from remctl.jobs.scripts._errors import ScriptError
from remctl.jobs.scripts._parameters import Parameters

RUN_TIME: Final = 3600.0
"""Seconds that a script may run where its header does not say."""

RETRIES: Final = 3
"""How often a job that was lost is tried again where the header wants it to be and does not say."""

MAX_LINES: Final = 500
"""Lines of a header."""

_KEYS: Final = dict.fromkeys(("description", "parameters", "users", "run-time", "concurrency", "retry", "retries"))

_TOML_ERROR: Final = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


class Retry(enum.StrEnum):
    """What becomes of a job that was lost: nobody knows whether it ran to its end."""

    FAIL = "fail"
    """It has failed."""
    RETRY = "retry"
    """It is run again, which the script has to be made for."""


class Limits(NamedTuple):
    """How a script is run."""

    run_time: float | None = RUN_TIME
    """Seconds; None is without limit."""
    concurrency: int | None = None
    """So many jobs of it at the same time; None is without limit."""
    retry: Retry = Retry.FAIL
    retries: int = 0
    """How often a job that was lost is tried again."""


class Header(NamedTuple):
    """What a script says of itself."""

    description: str | None
    parameters: Parameters
    users: Acl | None
    limits: Limits


def read_header(text: str, sign: str) -> Header:
    """Return what the header of a script says.

    Args:
        text: the script.
        sign: what comments begin with.

    Raises:
        ScriptError: there is no header, or not a good one; it names line and key.
    """
    lines, first = _block(text, sign)
    toml = "\n" * (first - 1) + "\n".join([*lines, ""])  # so that its lines have the numbers that they have in the file
    try:
        table = tomllib.loads(toml)
    except (ValueError, RecursionError) as error:
        found = _TOML_ERROR.fullmatch(str(error))
        reason = found[1] if found else str(error)
        line = int(found[2]) if found and found[2] else first + len(lines)
        raise ScriptError(f"the header is no TOML: {reason}", line=min(line, first + len(lines))) from None
    try:
        return _header(table)
    except Misfit as misfit:
        raise misfit.error(_line_of(misfit.path, toml, first)) from None


def _block(text: str, sign: str) -> tuple[list[str], int]:
    """The lines of TOML, and the number of the first in the file."""
    start, end = f"{sign} /// job", f"{sign} ///"
    content: list[str] = []
    began = ended = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip()
        if began and not ended:
            if line == end:
                ended = number
            elif line != sign and not line.startswith(f"{sign} "):
                raise ScriptError(f"the header that begins in line {began} has no last line, {end!r}", line=number)
            elif len(content) == MAX_LINES:
                raise ScriptError(f"the header has more than {MAX_LINES} lines", line=number)
            else:
                content.append(line[len(sign) + 1 :])
        elif line == start:
            if ended:
                raise ScriptError(f"there is a second header; the first begins in line {began}", line=number)
            began = number
        elif line and not line.startswith(sign) and not (number == 1 and line.startswith("#!")):
            break
    if not ended:
        smallest = f"""{start!r}, '{sign} description = "What it does"', {end!r}"""
        raise ScriptError(f"there is no header at its top; the smallest is three lines: {smallest}", line=1)
    return content, began + 1


def _line_of(path: tuple[str, ...], toml: str, first: int) -> int:
    """The line in which a key has its value, or a table begins."""
    lines = toml.split("\n")
    for number in range(first, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:number]))
        except ValueError:
            continue  # a value of several lines has not ended
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            return number
    return first


def _header(table: Mapping[str, object]) -> Header:
    refuse_unknown(table, _KEYS)
    parameters = Parameters.of(parse(table.get("parameters", {})))
    return Header(take_line(table, "description"), parameters, _users(table), _limits(table))


def _users(table: Mapping[str, object]) -> Acl | None:
    entries = take(table, list, "a list of ACL entries", "users")
    if entries is None:
        return None
    try:
        return Acl(*entries)
    except (TypeError, ValueError) as error:
        raise Misfit(str(error), "users") from None


def _limits(table: Mapping[str, object]) -> Limits:
    word = take(table, str, "a text", "retry") or Retry.FAIL
    if word not in set(Retry):
        raise Misfit(f"it must be one of {', '.join(Retry)}", "retry")
    retry = Retry(word)
    retries = _count(table, "retries")
    if retries is not None and retry is not Retry.RETRY:
        raise Misfit('it needs retry = "retry"', "retries")
    return Limits(
        _run_time(table.get("run-time", RUN_TIME)),
        _count(table, "concurrency"),
        retry,
        (retries or RETRIES) if retry is Retry.RETRY else 0,
    )


def _run_time(value: object) -> float | None:
    if value == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise Misfit('it must be a number of seconds, more than 0, or "none"', "run-time")
    return float(value)


_LONGEST: Final = 366 * 24 * 3600
"""Seconds; what is longer is a mistake."""


def _count(table: Mapping[str, object], key: str) -> int | None:
    number = take(table, int, "a whole number", key)
    if number is not None and not 1 <= number <= _MOST:
        raise Misfit(f"it must be 1 to {_MOST}", key)
    return int(number) if number is not None else None


_MOST: Final = 10_000
