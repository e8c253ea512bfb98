"""Lines for remctld's configuration: one for each command word with its subcommand.

remctld looks no further than that, so commands that share the first two words share a line, and what it says.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remctl.backend._command import Command
from remctl.backend._errors import CommandError
from remctl.backend._group import HELP, Group
from remctl.backend._program import CONFIG, MANUAL, SUMMARY, SUMMARY_ALONE

if TYPE_CHECKING:
    from remctl.backend._backend import Backend


def print_config(backend: Backend, words: Sequence[str]) -> int:
    """Print the lines.

    Args:
        backend: whose.
        words: what follows `--remctld-config` on the command line.

    Returns:
        The exit status.

    Raises:
        CommandError: no line can say what a command needs.
    """
    parser = argparse.ArgumentParser(f"{Path(sys.argv[0]).name} {CONFIG}", description="Print remctld's configuration.")
    parser.add_argument(
        "--program", default=sys.argv[0], help="path of the program that remctld is to run; by default this one"
    )
    program = str(Path(parser.parse_args(words).program).absolute())
    if program.split() != [program]:
        raise CommandError(f"remctld cannot run a program with blanks in its path: {program}", command=CONFIG)
    if not os.access(program, os.X_OK):
        print(f"warning: {program} is not executable, and remctld could not run it", file=sys.stderr)
    lines = list(config(backend, program))  # all of them, or none
    print("\n".join(lines))
    return 0


def config(backend: Backend, program: str) -> Iterator[str]:
    """Give the lines; see `print_config`."""
    for word, entry in sorted(backend.top.entries.items()):
        if isinstance(entry, Command):
            yield _line(word, "ALL", program, [entry])
            continue
        for subcommand, below in sorted(entry.entries.items()):
            commands = [below] if isinstance(below, Command) else list(below.commands())
            if commands:
                yield _line(word, subcommand, program, commands)
        if entry.own is not None:
            yield _line(word, "EMPTY", program, [entry.own])
        yield from _for_help(word, entry, program)


def _for_help(word: str, group: Group, program: str) -> Iterator[str]:
    """Anybody may ask; each sees what it may run."""
    if HELP not in group.entries:
        yield f"{word} {HELP} {program} ANYUSER"
    if group.own is None:
        yield f"{word} EMPTY {program} help={MANUAL}{word} ANYUSER"


def _line(word: str, subcommand: str, program: str, commands: Sequence[Command]) -> str:
    where = f"{word} {subcommand}"
    stdin = _common(where, "arguments on standard input", map(_stdin, commands))
    acl = _common(where, "ACLs", (str(each.acl) for each in commands))
    masked = sorted({len(each.path) + place for each in commands for place in each.secret_places()})
    fields = [where, program]
    if stdin:
        fields.append(f"stdin={stdin}")
    if masked:
        fields.append(f"logmask={','.join(map(str, masked))}")
    fields.append(f"help={MANUAL}{word}")
    if not all(each.hidden for each in commands):
        fields.append(f"summary={SUMMARY_ALONE if subcommand == 'EMPTY' else SUMMARY}{word}")
    return " ".join([*fields, acl])


def _stdin(command: Command) -> str:
    if command.stdin is None:
        return ""
    return "last" if command.stdin < 0 else str(len(command.path) + command.stdin)


def _common(where: str, what: str, values: Iterable[str]) -> str:
    """What is the same for all commands of a line."""
    first, *others = dict.fromkeys(values)
    if others:
        raise CommandError(
            f"the commands under '{where}' have different {what}, and share a line of remctld's configuration:"
            " make them the same, or shorten the commands to two words",
            command=CONFIG,
        )
    return first
