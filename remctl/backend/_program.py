"""A backend as a program: under remctld, under remctl-shell, or by hand.

remctld runs a program for each command, with the subcommand as its first argument, and tells in the environment who
calls.  Standard output and standard error are the caller's, so nothing else may be written there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

from remctl._arguments import printable
from remctl.backend._context import Caller
from remctl.backend._errors import CommandError, ExitStatus, OutputLostError
from remctl.backend._group import HELP, Group
from remctl.backend._help import WIDTH
from remctl.exceptions import RemctlCommandError
from remctl.types import Stream

if TYPE_CHECKING:
    from remctl.backend._backend import Backend

SUMMARY: Final = "--summary="
"""How the word begins with which remctld asks for a command's line in the list; the command word follows."""

SUMMARY_ALONE: Final = "--summary-of-default="
"""The same for the line of what runs when no further word follows; else it would be that of all lines."""

MANUAL: Final = "--help="
"""How the word begins with which remctld asks for a command's help; the command word follows."""

CONFIG: Final = "--remctld-config"

MAX_SUBCOMMAND: Final = 65536
"""Bytes that are more than any subcommand has."""

SYSLOG: Final = "/dev/log"
"""The socket of the system's log."""


def main(backend: Backend, argv: Sequence[str] | None) -> NoReturn:
    """See `Backend.main`."""
    words = [os.fsencode(word) for word in (sys.argv[1:] if argv is None else argv)]
    remote = "REMCTL_COMMAND" in os.environ
    sink = _Output()
    log = _log_to_the_system() if remote else None
    try:
        status = _run(backend, words, remote, sink)
    except KeyboardInterrupt:
        status = 128 + 2
    if log is not None and log.failed:
        sink.complain("what happened could not be written to the server's log")
    if not sink.finish() and status == 0:
        status = ExitStatus.OUTPUT
    sys.exit(status)


def _run(backend: Backend, words: list[bytes], remote: bool, sink: _Output) -> int:
    try:
        if remote:
            if words and (answer := _asked_by_remctld(backend, words)) is not None:
                sink.write(answer.encode(), Stream.STDOUT)
                return 0
        elif words[:1] == [CONFIG.encode()]:
            from remctl.backend._remctld import print_config

            return print_config(backend, [os.fsdecode(word) for word in words[1:]])
        elif words == [b"--help"]:
            words = [b"help"]
        caller = _caller(os.environ)
        width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout and sys.stdout.isatty() else WIDTH
        stdin = sys.stdin.buffer if sys.stdin else io.BytesIO()
        whole = _whole(backend, words)
        if remote and (missing := _piped_away(backend, whole)):
            return backend.perform([*whole, missing], caller, sink, width=width)
        return backend.perform(whole, caller, sink, stdin=stdin, width=width)
    except RemctlCommandError as error:
        sink.complain(f"{error.command}: access denied")
        return ExitStatus.DENIED
    except CommandError as error:
        sink.complain(f"{error.command}: {error.reason}")
        return error.status
    except OutputLostError as error:
        sink.complain(error.reason)
        return ExitStatus.OUTPUT


def _whole(backend: Backend, words: list[bytes]) -> list[bytes]:
    """A command from its command word on, which remctld leaves out."""
    if backend.path:
        return [*map(os.fsencode, backend.path), *words]
    command = os.environ.get("REMCTL_COMMAND", HELP)  # which is what it says when it asks for help by itself
    return words if command == HELP else [os.fsencode(command), *words]


def _piped_away(backend: Backend, words: list[bytes]) -> bytes | None:
    """The subcommand, which remctld pipes to the program if that is the last argument and stands alone.

    A group's default is called without words too, but with the null device in the place of the pipe.
    """
    if not isinstance(backend.top.entries.get(os.fsdecode(words[-1] if words else b"")), Group) or len(words) > 1:
        return None
    try:
        return os.read(0, MAX_SUBCOMMAND) if stat.S_ISSOCK(os.fstat(0).st_mode) else None
    except OSError:
        return None


def _asked_by_remctld(backend: Backend, words: Sequence[bytes]) -> str | None:
    """What remctld's own `help` asks for, by the words that `--remctld-config` has told it."""
    question, *rest = (os.fsdecode(word) for word in words)
    principal = os.environ.get("REMOTE_USER")
    if question.startswith(SUMMARY_ALONE):
        return backend.summary([question.removeprefix(SUMMARY_ALONE)], principal=principal, alone=True)
    if question.startswith(SUMMARY):
        return backend.summary([question.removeprefix(SUMMARY), *rest], principal=principal)
    if question.startswith(MANUAL):
        return backend.help([question.removeprefix(MANUAL), *rest], principal=principal)
    return None


def _caller(environment: Mapping[str, str]) -> Caller:
    """Who calls, as remctld and remctl-shell tell it."""
    expires = environment.get("REMOTE_EXPIRES", "")
    return Caller(
        principal=environment.get("REMOTE_USER", ""),
        address=environment.get("REMOTE_ADDR", ""),
        host=environment.get("REMOTE_HOST", ""),
        expires=float(expires) if expires.isdigit() and int(expires) else None,  # remctl-shell says 0: no ticket
    )


class _Output:
    """Standard output and standard error, unbuffered: what is written is on its way."""

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:  # noqa: ARG002
        """Take output."""
        file, name = (sys.stdout, "standard output") if stream is Stream.STDOUT else (sys.stderr, "standard error")
        if file is None:
            raise OutputLostError(f"{name} is closed")
        try:
            file.flush()  # what the function has printed comes before
            file.buffer.write(data)
            file.buffer.flush()
        except (OSError, ValueError) as error:
            raise OutputLostError(f"{name} cannot be written: {error}") from error

    async def drain(self) -> None:
        """There is room: writing has waited for it."""

    def complain(self, text: str) -> None:
        """Write a line of error output, if anybody takes it."""
        with contextlib.suppress(OutputLostError):
            self.write(f"{printable(text.encode('utf-8', 'surrogateescape'), limit=None)}\n".encode(), Stream.STDERR)

    def finish(self) -> bool:
        """Write what the function has printed and Python still keeps; return whether that went well."""
        try:
            self.write(b"", Stream.STDOUT)
        except OutputLostError as error:
            self.complain(error.reason)
            _drop(sys.stdout)
            return False
        return True


def _drop(file: IO[str] | None) -> None:
    """Let Python's own attempt to write the rest, at the very end, go nowhere in silence."""
    with contextlib.suppress(OSError, ValueError):
        if file is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)


class _SystemLog(logging.Handler):
    """Writes records to the system's log, each line by itself; connects when there is something to write."""

    failed = False
    """Whether something could not be written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        from logging.handlers import SysLogHandler

        try:
            if not Path(SYSLOG).is_socket():
                raise FileNotFoundError(SYSLOG)
            system = SysLogHandler(SYSLOG, SysLogHandler.LOG_DAEMON)
            system.ident = f"{Path(sys.argv[0]).name}[{os.getpid()}]: "
            system.handleError = self.handleError  # type: ignore[method-assign]
            with contextlib.closing(system):
                for line in self.format(record).splitlines():
                    system.emit(logging.makeLogRecord({**vars(record), "msg": line, "args": (), **_BARE}))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """Remember it: there is no other place to write to."""
        self.failed = True


_BARE: Final = {"exc_info": None, "exc_text": None, "stack_info": None}


def _log_to_the_system() -> _SystemLog | None:
    """Send what is logged to the system's log, unless the program has chosen something else."""
    root = logging.getLogger()
    if root.handlers:
        return None
    handler = _SystemLog()
    root.addHandler(handler)
    return handler
