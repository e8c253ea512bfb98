"""`pyremctl --check HOST`: what is right and what is wrong between here and a server, step by step.

Each step that can be looked at by itself is, so that the first fault does not hide the second.  Nothing is run on the
server but, where it speaks an old protocol, the command `help`.  Tickets are looked at by `_check_tickets`, which needs
the extra `fanout`; without it the step of authentication alone shows whether Kerberos works, and the check says so.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Final, NamedTuple

from remctl import _arguments
from remctl._endpoints import Endpoint, address_of, encode_host, endpoints, family_of, number_of, unknown_host
from remctl.cli._one import add_server
from remctl.cli._parser import Parser
from remctl.cli._steps import LATE, Step, Verdict, brief, failed, ok, skipped, warning, within
from remctl.cli._streams import OUT, Outlet, show_log
from remctl.cli._text import safe
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlError,
    RemctlProtocolError,
    RemctlTimeoutError,
)
from remctl.session import Remctl

WRONG: Final = 3
"""The exit status if a step has failed."""

LIMIT: Final = 10.0
"""Seconds that a step may take."""

_MENDS: Final = {
    errno.ECONNREFUSED: "nothing listens there: see whether remctld runs, and on which port",
    errno.ETIMEDOUT: "the host is down, or something between drops what is sent to that port, such as a firewall",
    errno.EADDRNOTAVAIL: "that is no address of this machine, or none from which the server can be reached",
    errno.ENETUNREACH: "there is no route from here: check the network of this machine",
    errno.EHOSTUNREACH: "there is no route from here, or the host is down",
}

_SERVER: Final = "the server's log says why; its key, or its clock, may be wrong"

Steps = Generator[Step, None, None]


class Asked(NamedTuple):
    """Whom to look at, as it has been checked."""

    host: str
    port: int
    principal: str | None
    source_ip: str | None
    limit: float


def run(words: Sequence[str]) -> int:
    """Do a command line's check; return the exit status."""
    parser = make_parser()
    options = parser.parse_args(words)
    try:
        server = _arguments.check_server(options.host, options.port, options.service)
        limit = _arguments.check_timeout(options.timeout) or LIMIT
        asked = Asked(*server, _arguments.check_source_ip(options.source), limit)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    show_log(logging.DEBUG if options.verbose else logging.ERROR)
    return _report(asked) if options.json else _tell(asked)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="pyremctl --check",
        helped="pyremctl --check --help",
        usage="%(prog)s [OPTIONS] HOST",
        description="Look for what is wrong between here and a server, step by step, and say what to do.",
        epilog="The exit status is 3 if something is wrong, 0 if all is well.",
    )
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("host", metavar="HOST")
    add_server(parser)
    parser.add_argument(
        "-t", "--timeout", type=float, metavar="SECONDS", help=f"for each step (default: {LIMIT:g}, also for 0)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say what happens")
    parser.add_argument("--json", action="store_true", help="a line of JSON for all of it")
    return parser


def _tell(asked: Asked) -> int:
    out = Outlet(OUT)
    wrong = False
    for step in examine(asked):
        wrong = wrong or step.verdict is Verdict.FAILED
        out.write(f"{step.verdict:9}{step.name:16}{safe(step.text)}\n".encode())
        if step.hint:
            out.write(f"{'':25}{safe(step.hint)}\n".encode())
    return WRONG if wrong else 0


def _report(asked: Asked) -> int:
    steps = list(examine(asked))
    wrong = any(step.verdict is Verdict.FAILED for step in steps)
    shown = [{**step._asdict(), "verdict": step.verdict.lower()} for step in steps]
    line = {"type": "check", "host": asked.host, "ok": not wrong, "steps": shown}
    Outlet(OUT).write(json.dumps(line).encode() + b"\n")
    return WRONG if wrong else 0


def examine(asked: Asked) -> Steps:
    """Look at one step after the other, and give what is found."""
    addresses = yield from _name(asked)
    port = yield from _tcp(asked, addresses)
    yield from _tickets(asked)
    if port is None:
        yield skipped("authentication", "not tried, since there is no connection")
    else:
        yield from _session(asked._replace(port=port))


# Name and TCP


def _name(asked: Asked) -> Generator[Step, None, list[tuple[int, str]]]:
    """Return the host's addresses."""
    family = family_of(asked.source_ip)
    if literal := address_of(asked.host, family):
        yield ok("name", f"{asked.host} is an address; tickets are for names, so the server's principal may need -s")
        return literal
    try:
        name = encode_host(asked.host)
        found = within(asked.limit, lambda: socket.getaddrinfo(name, None, family, socket.SOCK_STREAM))
    except (socket.gaierror, ValueError) as error:
        failure = unknown_host(str(error.strerror if isinstance(error, OSError) else error))
        yield failed("name", failure.reason, failure.hint)
        return []
    except LATE:
        yield failed("name", f"no answer within {asked.limit:g} s", "check the name service of this machine")
        return []
    addresses = [(int(family), str(address[0])) for family, _, _, _, address in found]
    yield ok("name", f"{asked.host} is {', '.join(address for _, address in addresses)}")
    return addresses


def _tcp(asked: Asked, addresses: list[tuple[int, str]]) -> Generator[Step, None, int | None]:
    """Return the port that takes connections."""
    if not addresses:
        yield skipped("TCP", "not tried, since no address is known")
        return None
    tried: list[tuple[Endpoint, int]] = []
    for endpoint in endpoints(addresses, asked.port):
        began = time.monotonic()
        code = _connect(endpoint, asked)
        if not code:
            yield from _unconnected(tried, Verdict.WARNING)
            yield ok("TCP", f"{endpoint}: connected in {_since(began)}")
            return endpoint.port
        tried.append((endpoint, code))
    yield from _unconnected(tried, Verdict.FAILED)
    return None


def _unconnected(tried: Iterable[tuple[Endpoint, int]], verdict: Verdict) -> Steps:
    for endpoint, code in tried:
        yield Step("TCP", verdict, f"{endpoint}: {os.strerror(code)}", _MENDS.get(code, "check the network"))


def _connect(endpoint: Endpoint, asked: Asked) -> int:
    """Return 0, or the system's number for why there is no connection."""
    try:
        with endpoint.new_socket(asked.source_ip) as sock:
            sock.settimeout(asked.limit)
            sock.connect((endpoint.address, endpoint.port))
    except TimeoutError as error:
        return error.errno or errno.ETIMEDOUT
    except OSError as error:
        return number_of(error)
    return 0


# Kerberos


def _tickets(asked: Asked) -> Steps:
    try:
        from remctl.cli import _check_tickets
    except ImportError as error:
        yield Step(
            "ticket",
            Verdict.UNSEEN,
            f"tickets are not looked at by themselves: {error}",
            "pip install 'remctl-cffi[fanout]'; until then the step of authentication tells what it can",
        )
        return
    yield from _check_tickets.examine(asked.host, asked.principal, asked.limit)


# The server


def _session(asked: Asked) -> Steps:
    began = time.monotonic()
    try:
        session = _open(asked)
    except (RemctlError, ValueError) as error:
        yield failed("authentication", *_why(error))
        return
    with session:
        yield ok("authentication", f"the server and the ticket fit, in {_since(began)}")
        began = time.monotonic()
        if session.protocol > 1:
            try:
                session.noop()
            except RemctlTimeoutError as error:
                yield failed("round trip", error.reason, "the server is overloaded, or stuck: its log may say more")
                return
            except RemctlProtocolError:  # which servers before 3.0 answer with
                yield ok("protocol", "2, which is that of remctld before 3.0")
            else:
                yield ok("protocol", "3")
                yield ok("round trip", _since(began))
                return
        else:
            yield warning(
                "protocol",
                "1, which has no error codes, and which somebody on the network may have forced",
                "have the server updated: remctld speaks protocol 2 since 2.0",
            )
    yield from _help(asked)


def _help(asked: Asked) -> Steps:
    """Make a round trip with a server that has no other way; any answer will do."""
    try:
        with _open(asked) as session:
            began = time.monotonic()
            with contextlib.suppress(RemctlCommandError):
                session.run(["help"])
            yield ok("round trip", f"{_since(began)}, for the command 'help'")
    except RemctlError as error:
        yield failed("round trip", *_why(error))


def _open(asked: Asked) -> Remctl:
    return Remctl(asked.host, asked.port, asked.principal, timeout=asked.limit, source_ip=asked.source_ip)


def _why(error: RemctlError | ValueError) -> tuple[str, str]:
    """Return what went wrong, and what to do."""
    if not isinstance(error, RemctlError):
        return str(error), ""
    if isinstance(error, RemctlTimeoutError):
        return error.reason, "something listens there, and says nothing: see whether it is remctld, and what it does"
    mend = _SERVER if isinstance(error, RemctlAuthenticationError) else "the server's log may say why"
    return brief(error.reason), error.hint or mend


def _since(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.1f} ms"
