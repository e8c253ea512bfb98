"""The console command `pyremctl`: a command on one host, as the C client `remctl` runs it, or on many.

Each module has one subject; those of one thing do not load what another one needs:

    _words       what is asked for, and which words are options
    _arguments   arguments from standard input, files and the terminal
    _streams     what is written, and where
    _one         a command on one host
    _check       what is right and wrong between here and a host, with `_check_tickets` and `_steps`
    _completion  completion scripts for shells
    _many        a command on many hosts, with `_options`, `_targets`, `_display` and others
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from remctl.cli._parser import USAGE
from remctl.cli._streams import say
from remctl.cli._words import Line, Mode, split

__all__ = ["main"]

FAILED: Final = 1
INTERRUPTED: Final = 130


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line says; return the exit status.

    Args:
        words: the command line, without the name of the program; None is the process's own.

    A reader of standard output that has gone ends the process, with SIGPIPE, as it does other programs.
    """
    _occupy()
    try:
        try:
            status = _start(list(sys.argv[1:] if words is None else words))
        except SystemExit as left:  # argparse's way
            status = int(left.code or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        raise
    except OSError as error:
        say(error.strerror or str(error))
        _forget_output()
        return FAILED
    return status


def _start(words: list[str]) -> int:
    line = split(words)
    try:
        return _do(line)
    except ImportError as error:
        if (error.name or "").startswith("remctl"):
            raise
        say(f"this needs packages that are not installed ({error}): pip install 'remctl-cffi[cli]'")
        return FAILED if line.mode is Mode.ONE else USAGE


def _do(line: Line) -> int:
    """Load what the mode needs, and leave it to that."""
    if line.mode is Mode.ONE:
        from remctl.cli import _one

        return _one.run(line.options, line.rest)
    if line.mode is Mode.CHECK:
        from remctl.cli import _check

        return _check.run(line.options)
    if line.mode is Mode.COMPLETION:
        from remctl.cli import _completion

        return _completion.run(line.options)
    from remctl.cli import _many

    return _many.run(line.options, line.rest)


def _occupy() -> None:
    """Put something on standard descriptors that are closed, lest a connection comes to be there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _forget_output() -> None:
    """Let nobody try again to write what could not be written."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.close(descriptor)
