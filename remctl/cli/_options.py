"""The command line for many hosts: its options, and what they are to the run and to what shows it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from remctl._version import __version__
from remctl.cli._parser import Parser
from remctl.cli._shown import Shown
from remctl.cli._targets import Named
from remctl.fanout import NOT_STARTED, Arguments, HostState

MIB: Final = 1024 * 1024

UNKNOWN: Final = frozenset({HostState.LOST, HostState.TIMEOUT})
"""The states of which nobody knows whether the command ran."""

_STATUS: Final = """\
exit status:
  0    the command ran on all hosts, with exit status 0
  1    somewhere its exit status is another, or a file or the output could not be written
  2    the command line or the hosts make no sense; nothing was sent
  3    some host never ran it: not reached, no ticket, denied, or its turn did not come
  4    of some host nobody knows whether it ran, or still runs
  5    --max-fail or --canary stopped the run
  130  Ctrl-C (143 SIGTERM, 129 SIGHUP)
  Of several the highest.  With -S: the largest exit status of the command; 255 if a host has none.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options; the command comes after them, and is not its business."""
    parser = Parser(
        prog="pyremctl",
        helped="pyremctl -w NODES --help",
        usage="%(prog)s (-w NODES | -g GROUP | -a | --hostfile FILE) [OPTIONS] COMMAND [ARGUMENT...]",
        description="Run a command on many hosts by the remctl protocol, with your Kerberos ticket.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    _add_targets(parser.add_argument_group("hosts"))
    _add_run(parser.add_argument_group("how to run it"))
    _add_arguments(parser.add_argument_group("arguments of the command"))
    _add_output(parser.add_argument_group("output"))
    others = parser.add_argument_group("others")
    others.add_argument("-h", "--help", action="help", help="show this help")
    others.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _add_targets(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-w", dest="nodes", action="append", default=[], metavar="NODES", help="these: n[1-5,7],@rack1")
    group.add_argument("-x", dest="without", action="append", default=[], metavar="NODES", help="but not these")
    group.add_argument("-g", dest="groups", action="append", default=[], metavar="GROUP", help="those of this group")
    group.add_argument(
        "-X", dest="without_groups", action="append", default=[], metavar="GROUP", help="but not those of this group"
    )
    group.add_argument("-a", dest="everything", action="store_true", help="all that ClusterShell's configuration has")
    group.add_argument(
        "--hostfile", action="append", default=[], metavar="FILE", help="those in this file; - is standard input"
    )
    group.add_argument("--pick", type=_count, metavar="N", help="so many of them, by chance")
    group.add_argument("--duplicates", action="store_true", help="a host that is named twice is visited twice")
    group.add_argument("-p", "--port", help="their port (default: 4373, then 4444)")
    group.add_argument(
        "-s", "--service", metavar="PRINCIPAL", help="their Kerberos principal (default: host/HOST of each)"
    )
    group.add_argument("--source", metavar="SOURCE-IP", help="the local address to connect from")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-f", dest="running", type=_count, default=64, metavar="N", help="commands that run at once (default: 64)"
    )
    group.add_argument("--starts", type=float, metavar="N", help="hosts to begin with, per second")
    group.add_argument(
        "-t", dest="connect_timeout", type=float, default=10.0, metavar="SECONDS",
        help="time limit for connecting, each time (default: 10; 0 is none)",
    )  # fmt: skip
    group.add_argument(
        "-u", dest="timeout", type=float, metavar="SECONDS",
        help="time limit for the command, on each host (default: none)",
    )  # fmt: skip
    group.add_argument("--deadline", type=float, metavar="SECONDS", help="time limit for all of it (default: none)")
    group.add_argument(
        "--retries", type=_count_or_zero, default=1, metavar="N",
        help="how often to try again where the command cannot have started (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--retry-unknown", action="store_true",
        help="try again, too, where nobody knows whether it ran: it may run twice",
    )  # fmt: skip
    group.add_argument("--max-fail", metavar="N|P%", help="begin with no further host when so many have failed")
    group.add_argument(
        "--canary", type=_count, metavar="N", help="begin with so many; go on only if all of them are OK"
    )
    group.add_argument(
        "--batch", type=_count, metavar="N", help="so many hosts at a time: the next ones when all of these have ended"
    )
    group.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="wait so long between two batches")
    group.add_argument(
        "--resume", metavar="FILE",
        help="a journal: the same command line, once more, goes on where the run was when it ended; "
        "where it may have run it is not run again",
    )  # fmt: skip


def _add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--stdin", action="store_true", help="the last one is what standard input holds")
    group.add_argument(
        "--expand", action="store_true",
        help="@FILE is what FILE holds, @- what standard input holds, @?PROMPT what is typed unseen, @@WORD is @WORD",
    )  # fmt: skip


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-b", dest="gather", action="store_true", help="hosts with the same output together, at the end")
    group.add_argument("-B", dest="gather_both", action="store_true", help="likewise, error output included")
    group.add_argument(
        "-L", dest="ordered", action="store_true", help="host by host, in their order; with -b line by line"
    )
    group.add_argument(
        "--diff", action="store_true", help="how the output of the others differs from that of the largest group"
    )
    group.add_argument("-N", dest="label", action="store_false", help="without the host before each line")
    group.add_argument(
        "-S", dest="largest", action="store_true", help="exit with the largest exit status of the command"
    )
    group.add_argument("-q", dest="quiet", action="store_true", help="no progress, no numbers of hosts, no warnings")
    group.add_argument("-v", dest="verbose", action="store_true", help="say more of what happens")
    group.add_argument("--json", action="store_true", help="a line of JSON for each host, and one for all of them")
    group.add_argument(
        "--max-output", type=_size, default=MIB, metavar="SIZE",
        help="keep so much of each stream of each host for -b, -B, -L, --diff and --json: bytes, or with K, M or G "
        "(default: 1M)",
    )  # fmt: skip
    group.add_argument("--outdir", type=Path, metavar="DIR", help="a file of each host's output in this folder")
    group.add_argument("--errdir", type=Path, metavar="DIR", help="a file of each host's error output")
    group.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="auto, the default, is on a terminal"
    )


def named_of(options: argparse.Namespace) -> Named:
    """Return what names the hosts."""
    return Named(
        nodes=options.nodes,
        groups=options.groups,
        everything=options.everything,
        hostfiles=options.hostfile,
        without=options.without,
        without_groups=options.without_groups,
        pick=options.pick,
        duplicates=options.duplicates,
    )


def arguments_of(options: argparse.Namespace, shown: Shown) -> Arguments:
    """Return the arguments of the run; its hosts have been told apart before.

    Args:
        options: the command line's.
        shown: how results are shown, which says whether their output is of use to anybody.
    """
    return Arguments(
        port=options.port,
        principal=options.service,
        source_ip=options.source,
        running=options.running,
        starts=options.starts,
        connect_timeout=options.connect_timeout,
        timeout=options.timeout,
        deadline=options.deadline,
        retries=options.retries,
        retry_on=NOT_STARTED | UNKNOWN if options.retry_unknown else NOT_STARTED,
        max_fail=_number_or_share(options.max_fail),
        canary=options.canary,
        batch=options.batch,
        pause=options.pause,
        max_output=options.max_output if shown.keeps else 0,
        duplicates=True,
    )


def shown_of(options: argparse.Namespace) -> Shown:
    """Return how to show what comes.

    Raises:
        ValueError: two options exclude each other.
    """
    return Shown(
        gather="both" if options.gather_both else "stdout" if options.gather else "no",
        ordered=options.ordered,
        diff=options.diff,
        quiet=options.quiet,
        verbose=options.verbose,
        statuses=not (options.quiet and options.largest),
        label=options.label,
        json=options.json,
        outdir=options.outdir,
        errdir=options.errdir,
        color=options.color,
        terminal_out=_is_terminal(sys.stdout),
        terminal_err=_is_terminal(sys.stderr),
    )


def named_by_option(text: str) -> str:
    """Return what an error of the run's arguments says, with the option's name instead of the argument's."""
    name, space, rest = text.partition(" ")
    return f"{_OPTIONS.get(name, name)}{space}{rest}"


_OPTIONS: Final = {
    "port": "-p",
    "principal": "-s",
    "source_ip": "--source",
    "connect_timeout": "-t",
    "timeout": "-u",
    "deadline": "--deadline",
    "starts": "--starts",
    "pause": "--pause",
    "max_fail": "--max-fail",
}
"""What the user calls the arguments of the run that only it checks."""


def _is_terminal(stream: object) -> bool:
    return stream is not None and stream.isatty()  # type: ignore[attr-defined]


def _number_or_share(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not (number.isascii() and number.isdigit() and unit in _UNITS):
        raise argparse.ArgumentTypeError(f"must be a number of bytes, or one with K, M or G behind it: {text}")
    return int(number) * _UNITS[unit]


_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def _count(text: str) -> int:
    if (number := _count_or_zero(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more: {text}")
    return number


def _count_or_zero(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a number: {text}")
    return int(text)
