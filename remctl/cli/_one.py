"""A command on one host: output, error output and exit status pass through, as with the C client `remctl`.

Loads what libremctl needs and nothing else.  Failures on the way to the exit status are told by a message on standard
error and the status 1, an answer with an error instead of output by its text and the status 255, as the C client does;
the line of `--json` tells them apart from commands that end with these.
"""

from __future__ import annotations

import argparse
import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from remctl import _arguments
from remctl._endpoints import unknown_host
from remctl._remctl import Handle
from remctl._version import __version__
from remctl._waiting import Waiter
from remctl.cli._arguments import collect
from remctl.cli._parser import Parser
from remctl.cli._streams import ERR, OUT, Outlet, say, show_log
from remctl.exceptions import RemctlCommandError, RemctlError, RemctlProtocolError
from remctl.session import AHEAD
from remctl.types import OutputType, Result, Stream

FAILED: Final = 1
REFUSED: Final = 255

MAY_RUN: Final = "the command may still be running on the server"


def run(words: Sequence[str], rest: Sequence[str]) -> int:
    """Run the command line's command; return the exit status.

    Args:
        words: the options.
        rest: the host and the command.
    """
    parser = make_parser()
    options = parser.parse_args(words)
    if options.verbose and not rest:  # all that -v is to the C client
        Outlet(OUT).write(f"pyremctl {__version__}\n".encode())
        return 0
    if len(rest) < 2:
        parser.error("a host and a command are needed" if not rest else "a command is needed after the host")
    show_log(logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING)
    try:
        call = _Call(options, rest)
    except (RemctlError, TypeError, ValueError) as error:
        say(str(error))
        return FAILED
    return call.report() if options.json else call.pass_on()


class _Call:
    """A command that is to be run; nothing is sent before one of the methods.

    Raises:
        RemctlError, TypeError, ValueError: an argument makes no sense, or cannot be got.
    """

    def __init__(self, options: argparse.Namespace, rest: Sequence[str]) -> None:
        self._server = _arguments.check_server(rest[0], options.port, options.service)
        self._handle = Handle()
        self._handle.configure(timeout=options.timeout, ccache=None, source_ip=options.source, min_protocol=1)
        words = collect(rest[1:], expand=options.expand, stdin=options.stdin)
        self._command = _arguments.check_command(words)
        self._waiter = Waiter(self._handle.timeout)

    def pass_on(self) -> int:
        """Run it, and write its output as it comes; return its exit status."""
        out, err = Outlet(OUT), Outlet(ERR)
        try:
            with self._open():
                return self._pass_on(out, err)
        except RemctlError as error:
            say(_text(error))
            return FAILED
        finally:
            out.close()
            err.close()

    def _pass_on(self, out: Outlet, err: Outlet) -> int:
        handle, waiter = self._handle, self._waiter
        handle.command(self._command, waiter)
        while (token := handle.output(waiter, AHEAD)).type is OutputType.OUTPUT:
            (err if token.stream is Stream.STDERR else out).write(token.output or b"")
        if token.type is OutputType.ERROR:
            err.write((token.output or b"") + b"\n")
            return REFUSED
        assert token.status is not None
        return token.status

    def report(self) -> int:
        """Run it, and write a line that says what became of it, as a run on many hosts does for each."""
        from remctl.cli._json import Json  # here, since all that many hosts need is loaded with these
        from remctl.cli._screen import Side
        from remctl.fanout import HostResult, HostState, Timings, state_of

        error: RemctlError | None = None
        status, result = FAILED, Result(b"", b"", FAILED)
        began = opened = time.monotonic()
        try:
            with self._open():
                opened = time.monotonic()
                result = self._handle.run(self._command, self._waiter)
                status = result.status
        except RemctlError as failure:
            error, result = failure, Result(failure.stdout, failure.stderr, FAILED)
            status = REFUSED if isinstance(failure, RemctlCommandError) else FAILED
        ended = time.monotonic()
        record = HostResult(
            host=self._server[0],
            state=state_of(error) if error else HostState.NONZERO if status else HostState.OK,
            status=None if error else status,
            stdout=result.stdout,
            stderr=result.stderr,
            error=error,
            port=self._handle.opened().port or None,
            timings=Timings(opened - began, ended - opened) if opened > began else Timings(ended - began),
            stdout_size=len(result.stdout),
            stderr_size=len(result.stderr),
            may_be_running=error is not None and error.sent and status != REFUSED,
        )
        line = io.BytesIO()
        Json(Side(line, terminal=False, color=False)).result(record)
        Outlet(OUT).write(line.getvalue())
        return status

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Connect, and close the connection at the end of the `with`."""
        try:
            try:
                self._handle.open(*self._server, self._waiter)
            except ValueError as error:  # which only looking for the name shows
                raise unknown_host(str(error)) from error
            try:
                yield
            except ValueError as error:  # the command is too large for protocol 1
                raise RemctlProtocolError(str(error)) from error
        finally:
            self._handle.close("the call is over")


def _text(error: RemctlError) -> str:
    if error.sent and error.hint is None:
        error.hint = MAY_RUN
    return str(error)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options; the host and the command come after them, and are not its business."""
    parser = Parser(
        prog="pyremctl",
        usage="%(prog)s [OPTIONS] HOST COMMAND [ARGUMENT...]",
        description="Run a command on a host by the remctl protocol, with your Kerberos ticket.",
        helped="pyremctl --help",
        status=FAILED,
        epilog="For many hosts see '%(prog)s -w NODES --help'; for what is wrong with one, '%(prog)s --check --help'; "
        "for completion, '%(prog)s --completion bash'.",
    )
    add_server(parser)
    parser.add_argument(
        "-t", "--timeout", type=float, metavar="SECONDS", help="for the whole call (default: 0, without limit)"
    )
    parser.add_argument(
        "-v", "-d", "--verbose", action="store_true", help="say what happens; without a host, the version"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="do not warn of anything")
    parser.add_argument("--stdin", action="store_true", help="the last argument is what standard input holds")
    parser.add_argument(
        "--expand",
        action="store_true",
        help="the argument @FILE is what FILE holds, @- what standard input holds, @?PROMPT what is typed unseen, "
        "and @@WORD is @WORD",
    )
    parser.add_argument("--json", action="store_true", help="a line that says what became of it, and all of its output")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a server is named and reached."""
    parser.add_argument("-b", "--source", metavar="SOURCE-IP", help="the local address to connect from")
    parser.add_argument("-p", "--port", help="the server's port (default: 4373, then 4444)")
    parser.add_argument(
        "-s", "--service", metavar="PRINCIPAL", help="the server's Kerberos principal (default: host/HOST)"
    )
