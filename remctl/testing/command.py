"""The console command `remctl-sandbox`: a sandbox to try things in, by hand or from a script."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from remctl.exceptions import RemctlError
from remctl.testing.sandbox import Sandbox

_USE = """\
A throw-away realm with a KDC, a remctld and a ticket, until this shell ends.

  host       {box.host}
  port       {box.port}
  principal  {box.principal}
  you are    {box.user}
  folder     {box.path}

Try:  remctl -p {box.port} {box.host} example hello
      python3 -c 'import remctl; print(remctl.remctl("{box.host}", {box.port}, command=["example", "echo", "hi"]))'
The variables REMCTL_SANDBOX_HOST, REMCTL_SANDBOX_PORT and REMCTL_SANDBOX_PRINCIPAL are set.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: that of the shell or program run, 1 when no sandbox came up."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        with Sandbox(realm=options.realm, user=options.user) as box:
            box.add_examples()
            for line in options.config:
                box.add_config(line)
            if options.program:
                return _run(options.program, box)
            sys.stdout.write(_USE.format(box=box))
            sys.stdout.flush()
            return _run([os.environ.get("SHELL", "/bin/sh")], box)
    except RemctlError as error:
        sys.stderr.write(f"remctl-sandbox: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remctl-sandbox",
        description="Start a throw-away Kerberos realm with a real remctld on loopback, and run a shell in it.",
        epilog="The command 'example' is there: hello, echo, status, count, sleep, bytes, cat.",
    )
    parser.add_argument("--realm", default="SANDBOX.TEST", help="the realm's name (default: %(default)s)")
    parser.add_argument("--user", default="user", help="the principal to have a ticket for (default: %(default)s)")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="LINE",
        help="a line to add to the server's configuration, in remctld's syntax; may be repeated",
    )
    parser.add_argument(
        "program", nargs="*", help="a program to run with its arguments, instead of the shell; put -- before it"
    )
    return parser


def _run(program: Sequence[str], box: Sandbox) -> int:
    signal.signal(signal.SIGINT, lambda _number, _frame: None)  # the program gets it too, and decides what it means
    number = 0
    process: subprocess.Popen[bytes] | None = None

    def leave(signum: int, _frame: FrameType | None) -> None:
        nonlocal number
        number = signum
        if process is not None:
            raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, leave)
    try:
        started = subprocess.Popen(program, env=box.env)
    except OSError as error:
        sys.stderr.write(f"remctl-sandbox: cannot run {program[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    try:
        process = started
        if number:
            raise SystemExit(128 + number)
        status = process.wait()
    except BaseException:
        started.terminate()
        try:
            started.wait(2)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        raise
    return 128 - status if status < 0 else status


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
