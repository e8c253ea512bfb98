"""A backend as a program: under remctld, under remctl-shell, or by hand.

remctld runs a program for each command, with the subcommand as its first argument, and tells in the environment who
calls.  Standard output and standard error are the caller's, so nothing else may be written there.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import stat
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Final, NoReturn

from remctl._arguments import decoded, encoded
from remctl.backend._command import Command
from remctl.backend._context import Caller
from remctl.backend._errors import CommandError, ExitStatus, OutputLostError
from remctl.backend._group import HELP, Group
from remctl.backend._help import WIDTH
from remctl.backend._output import Output
from remctl.backend._syslog import log_to_the_system
from remctl.exceptions import RemctlCommandError
from remctl.types import Stream

if TYPE_CHECKING:
    from remctl.backend._backend import Backend

logger = logging.getLogger(__name__)

SUMMARY: Final = "--summary="
"""How the word begins with which remctld asks for a command's line in the list; the command word follows."""

SUMMARY_ALONE: Final = "--summary-of-default="
"""The same for the line of what runs when no further word follows; else it would be that of all lines."""

MANUAL: Final = "--help="
"""How the word begins with which remctld asks for a command's help; the command word follows."""

CONFIG: Final = "--remctld-config"

MAX_SUBCOMMAND: Final = 65536
"""Bytes that are more than any subcommand has."""


def main(backend: Backend, argv: Sequence[str] | None) -> NoReturn:
    """See `Backend.main`."""
    words = [os.fsencode(word) for word in (sys.argv[1:] if argv is None else argv)]
    remote = "REMCTL_COMMAND" in os.environ or "REMOTE_USER" in os.environ
    output = Output()
    log = log_to_the_system() if remote else None
    try:
        status = _run_remote(backend, words, output) if remote else _run_by_hand(backend, words, output)
    except RemctlCommandError as error:
        output.complain(f"{error.command}: access denied")
        status = ExitStatus.DENIED
    except CommandError as error:
        output.complain(f"{error.command}: {error.reason}")
        status = error.status
    except OutputLostError as error:
        output.complain(error.reason)
        status = ExitStatus.OUTPUT
    except KeyboardInterrupt:
        status = 128 + 2
    except Exception:  # a mistake outside of the functions: in an ACL of the program's own, or here
        logger.exception("the program failed")
        output.complain("internal error")
        status = ExitStatus.INTERNAL
    if log is not None and log.failed:
        output.complain("what happened could not be written to the server's log")
    if not output.finish(quiet=status == ExitStatus.OUTPUT):
        status = status or ExitStatus.OUTPUT
    sys.exit(int(status))


def _run_by_hand(backend: Backend, words: list[bytes], output: Output) -> int:
    if words[:1] == [CONFIG.encode()]:
        from remctl.backend._remctld import print_config

        return print_config(backend, [os.fsdecode(word) for word in words[1:]])
    if words == [b"--help"]:
        words = [HELP.encode()]
    path = [word.encode() for word in backend.path]
    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout and sys.stdout.isatty() else WIDTH
    return backend.perform([*path, *words], _caller(), output, stdin=_stdin(), width=width)


def _run_remote(backend: Backend, words: list[bytes], output: Output) -> int:
    caller = _caller()
    if not caller.principal:
        output.complain("access denied: nobody says who calls (REMOTE_USER)")
        return ExitStatus.DENIED
    if (answer := _answer_to_remctld(backend, words, caller.principal)) is not None:
        output.write(answer.encode("utf-8", "backslashreplace"), Stream.STDOUT)
        return 0
    whole = [*_command_word(backend), *words]
    if missing := _piped_away(backend, whole):
        return backend.perform([*whole, missing], caller, output)
    return backend.perform(whole, caller, output, stdin=_stdin())


def _command_word(backend: Backend) -> list[bytes]:
    """The first word of a command, which remctld leaves out."""
    if backend.path:
        return [word.encode() for word in backend.path]
    command = _variable("REMCTL_COMMAND")
    # remctld says help, too, when it asks by the words of somebody's own configuration.
    return [] if not command or (command == HELP and HELP not in backend.top.entries) else [encoded(command)]


def _piped_away(backend: Backend, words: list[bytes]) -> bytes | None:
    """The subcommand, which remctld pipes to the program if that is the last argument and stands alone.

    A group's default is called without words too, but with the null device in the place of the pipe.
    """
    found: Command | Group | None = backend.top
    for word in map(decoded, words):
        if not isinstance(found, Group):
            return None
        if word == HELP and word not in found.entries:  # whose own argument is piped
            break
        found = found.entries.get(word)
    if not words or not isinstance(found, Group):
        return None
    try:
        return os.read(0, MAX_SUBCOMMAND) if stat.S_ISSOCK(os.fstat(0).st_mode) else None
    except OSError:
        return None


def _answer_to_remctld(backend: Backend, words: Sequence[bytes], principal: str) -> str | None:
    """What remctld's own `help` asks for, by the words that `--remctld-config` has told it; None is another command."""
    if not words or _variable("REMCTL_COMMAND") not in (HELP, decoded(words[0])):
        return None
    question, *rest = (word.decode("utf-8", "backslashreplace") for word in words)
    if question.startswith(SUMMARY_ALONE):
        return backend.summary([question.removeprefix(SUMMARY_ALONE)], principal=principal, alone=True)
    if question.startswith(SUMMARY):
        return backend.summary([question.removeprefix(SUMMARY), *rest], principal=principal)
    if question.startswith(MANUAL):
        return backend.help([question.removeprefix(MANUAL), *rest], principal=principal)
    return None


def _caller() -> Caller:
    """Who calls, as remctld and remctl-shell tell it."""
    expires = _variable("REMOTE_EXPIRES")
    return Caller(
        principal=_variable("REMOTE_USER"),
        address=_variable("REMOTE_ADDR"),
        host=_variable("REMOTE_HOST"),
        expires=float(expires) if expires.isdigit() and int(expires) else None,  # remctl-shell says 0: no ticket
    )


def _stdin() -> IO[bytes]:
    return sys.stdin.buffer if isinstance(sys.stdin, io.TextIOWrapper) else io.BytesIO()  # it may be closed


def _variable(name: str) -> str:
    """A variable's value, in UTF-8 as remctld passes it on, whatever the locale; empty if there is none."""
    return decoded(os.environb.get(name.encode(), b""))
