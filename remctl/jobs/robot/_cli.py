"""The console command `remctl-robot`: from words to an agent, and from its end to an exit status."""

from __future__ import annotations

import argparse
import contextlib
import logging
import logging.handlers
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from remctl.jobs.robot import _guid, _spool
from remctl.jobs.robot._errors import CommandLineError, RobotError

logger = logging.getLogger(__name__)

STATUSES: Final = """\
exit status:
  0  there are no more jobs
  1  something on this machine fails
  2  wrong command line
  3  the orchestrator cannot be used: no connection, or no answer that makes sense
  4  the orchestrator knows no robot of this GUID
  5  the orchestrator does not let this robot in
  6  another agent works in the state folder
  7  it was asked to end, by a signal
"""

LOG_SIZE: Final = 5 * 1024 * 1024
"""Bytes of a log file, of which there are four at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, see `STATUSES`.

    Args:
        arguments: the words after the command's name; None takes those of the process.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        guid = _found_guid(options)
        _check(options)
        _log_to(options.log_file, guid)
    except (CommandLineError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return CommandLineError.exit_status
    status = 0
    try:
        _work(options, guid)
    except RobotError as error:
        logger.error("%s", error)  # noqa: TRY400  # the text says all
        status = error.exit_status
    except OSError as error:
        logger.error("%s: %s", error.filename or options.state, error.strerror or error)  # noqa: TRY400
        status = 1
    except Exception:  # a fault of the agent's own: nobody sees the standard error of what is started by a clock
        logger.exception("the agent has failed")
        status = 1
    if status == 0 and options.logoff:  # else another agent may be at work in the session
        _log_off()
    return status


def _work(options: argparse.Namespace, guid: str) -> None:
    from remctl.jobs.robot._agent import Agent, Options  # here, since `--help` needs neither httpx nor psutil
    from remctl.jobs.robot._orchestrator import Orchestrator

    if options.insecure:
        logger.warning(
            "INSECURE: --insecure is given, so anybody in between can read this robot's key and give it jobs"
        )
    elif options.orchestrator.lower().startswith("http:"):
        logger.warning("no TLS: anybody in between can read this robot's key and give it jobs")
    how = Options(
        scripts=options.scripts,
        python=options.python,
        interval=options.interval,
        grace=options.grace,
        run_time=options.run_time,
        forever=options.forever,
        patience=None if options.forever else options.patience,
    )
    with (
        _spool.opened(options.state) as spool,
        contextlib.closing(
            Orchestrator(options.orchestrator, guid, ca=options.ca, insecure=options.insecure)
        ) as orchestrator,
    ):
        agent = Agent(orchestrator, spool, how)
        with _signals(agent.leave):
            agent.run()


@contextmanager
def _signals(leave: Callable[[], None]) -> Iterator[None]:
    """Have signals end the agent, for a `with`."""
    numbers = [
        signal.SIGINT,
        signal.SIGTERM,
        *(getattr(signal, name) for name in ("SIGBREAK",) if hasattr(signal, name)),
    ]
    before = {number: signal.signal(number, lambda *_: leave()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _found_guid(options: argparse.Namespace) -> str:
    given = [each for each in (options.guid, options.guid_file) if each is not None]
    if len(given) > 1:
        raise CommandLineError("--guid and --guid-file are both given")
    if options.guid_file is not None:
        return _guid.read_file(options.guid_file)
    found = options.guid if options.guid is not None else os.environ.get(_guid.VARIABLE)
    if found is None:
        raise CommandLineError("the robot has no GUID", hint=f"give --guid-file, or {_guid.VARIABLE}")
    return _guid.checked(found)


def _check(options: argparse.Namespace) -> None:
    if not options.scripts.is_dir():
        raise CommandLineError(f"--scripts: there is no folder {options.scripts}")
    if (python := shutil.which(options.python)) is None:
        raise CommandLineError(f"--python: there is no program {options.python}")
    options.python = os.path.abspath(python)  # noqa: PTH100  # a link may be a virtual environment's
    if options.logoff and sys.platform != "win32":
        raise CommandLineError("--logoff is for Windows")
    if options.logoff and options.forever:
        raise CommandLineError("--logoff and --forever are both given")


def _log_to(file: Path | None, guid: str) -> None:
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=LOG_SIZE, backupCount=3, encoding="utf-8")
    handler.setFormatter(_guid.Hiding(guid))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("remctl").setLevel(logging.INFO)


def _log_off() -> None:
    """End the Windows session of whoever the agent runs as."""
    program = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "shutdown.exe")
    status = subprocess.run([program, "/l"], stdin=subprocess.DEVNULL, check=False).returncode
    if status:
        logger.error("cannot log off: %s ended with exit status %d", program, status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remctl-robot",
        description="Take jobs from an orchestrator, run their scripts here, and tell how they ended.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--orchestrator", required=True, metavar="URL", help="its address, as https://HOST:4500")
    add("--guid-file", type=Path, metavar="FILE", help="a file of this user's alone that holds the robot's GUID")
    add("--guid", help=f"the GUID itself, which all users see then; without both, ${_guid.VARIABLE} has to hold it")
    add("--scripts", required=True, type=Path, metavar="DIR", help="the folder of the scripts")
    add("--python", default=sys.executable, metavar="INTERPRETER", help="what runs them (default: %(default)s)")
    add("--ca", type=Path, metavar="FILE", help="certificates that are trusted, in PEM, in place of the system's")
    add("--insecure", action="store_true", help="trust any certificate: for tries alone")
    add("--forever", action="store_true", help="wait for jobs when there are none")
    add("--interval", type=_seconds(1), default=10.0, metavar="SECONDS", help="between signs of life (default: 10)")
    add("--grace", type=_seconds(0), default=10.0, metavar="SECONDS", help="to end when stopped (default: 10)")
    add("--run-time", type=_seconds(1), metavar="SECONDS", help="after which a script is stopped (default: never)")
    add(
        "--patience",
        type=_seconds(0),
        default=300.0,
        metavar="SECONDS",
        help="for an orchestrator that cannot be used (default: 300; with --forever: without end)",
    )
    add("--log-file", type=Path, metavar="FILE", help="what is written to standard error otherwise")
    add("--state", type=Path, default=_state(), metavar="DIR", help="what is remembered (default: %(default)s)")
    add("--logoff", action="store_true", help="end the Windows session at the end")
    return parser


def _seconds(least: float) -> Callable[[str], float]:
    def seconds(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not least <= value <= 1e8:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and 1e8")
        return value

    return seconds


def _state() -> Path:
    """Return the state folder of those who name none."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "remctl-robot")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state", "remctl-robot")
