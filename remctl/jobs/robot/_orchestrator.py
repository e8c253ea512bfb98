"""The orchestrator as an agent sees it: three requests over HTTP, by httpx.

They are plain functions; asyncio is inside, since a request has one time limit only there, however slowly the answer
drips in.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import psutil

from remctl.jobs.robot import _wire
from remctl.jobs.robot._errors import CommandLineError, NotNowError
from remctl.jobs.robot._wire import Beat, Job, Machine, Request, Status
from remctl.jobs.states import JobState

logger = logging.getLogger(__name__)

TIMEOUT: Final = 15.0
"""Seconds that one request may take."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer that are read."""


class Orchestrator:
    """What answers at an address; may be used again after any error.

    Args:
        url: the address, which may end in a path that goes before those of the interface.
        guid: the robot's, which is its key too.
        ca: a file of certificates in PEM that are trusted; None are the system's.
        insecure: whether anybody may pretend to be the orchestrator.
        timeout: seconds that one request may take.

    Raises:
        CommandLineError: the address, or the file, makes no sense.
    """

    def __init__(
        self, url: str, guid: str, *, ca: Path | None = None, insecure: bool = False, timeout: float = TIMEOUT
    ) -> None:
        self._url = checked_url(url)
        self._guid = guid
        self._timeout = timeout
        self._machine = Machine(socket.gethostname(), "", "")
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            headers={
                "Authorization": "Basic " + base64.b64encode(guid.encode()).decode(),
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "remctl-robot",
            },
            verify=_context(ca, insecure),
            timeout=None,  # noqa: S113  # `_send` has one for all of a request
            trust_env=False,  # no proxy, to which the key would go, and no other certificates
            limits=httpx.Limits(max_keepalive_connections=0),  # minutes may lie between two requests
        )

    def close(self) -> None:
        """Let go of it."""
        with self._runner:
            self._runner.run(self._client.aclose())

    def heartbeat(self, status: Status, job: Job | None = None) -> Beat:
        """Say what the robot does; raises as `_wire.read_heartbeat`."""
        if status is Status.READY:
            self._machine = _here(self._url, self._machine)
        return _wire.read_heartbeat(*self._ask(_wire.heartbeat(self._guid, self._machine, status, job)))

    def consume(self) -> Job | None:
        """Take the next job; None if there is none.  Raises as `_wire.read_consumed`."""
        return _wire.read_consumed(*self._ask(_wire.consume(self._guid)))

    def update(self, job: str, state: JobState) -> None:
        """Say where a job stands; raises as `_wire.read_updated`."""
        _wire.read_updated(*self._ask(_wire.update(job, state)))

    def _ask(self, request: Request) -> tuple[int, bytes]:
        """Send a request; return the status and the body of what comes back.

        Raises:
            NotNowError: nothing whole came back; the request may have arrived.
        """
        try:
            return self._runner.run(self._send(request))
        except TimeoutError:
            raise NotNowError(f"{request.path}: the answer took longer than {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = _wire.line(str(error)) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in why:
                why += ": give the certificates that you trust, with --ca"
            raise NotNowError(f"{request.path}: {why}") from error

    async def _send(self, request: Request) -> tuple[int, bytes]:
        async with (
            asyncio.timeout(self._timeout),
            self._client.stream(request.method, self._url + request.path, data=request.form) as answer,
        ):
            body = b""
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER:
                    raise NotNowError(f"{request.path}: the answer is longer than {MAX_ANSWER} bytes")
            logger.debug("%s %s: HTTP status %d", request.method, request.path, answer.status_code)
            return answer.status_code, body


def checked_url(url: str) -> str:
    """Return an orchestrator's address without a slash at its end.

    Raises:
        CommandLineError: it is none.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        usable = False
    else:
        if usable and (parts.username is not None or parts.query or parts.fragment):
            raise CommandLineError("the orchestrator's address has a user, a query or a fragment in it")
    if not usable:
        raise CommandLineError("the orchestrator's address is none", hint="it looks like https://HOST:4500")
    return url.rstrip("/")


def _context(ca: Path | None, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CommandLineError(f"{ca}: no certificates can be read from it: {error}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _here(url: str, before: Machine) -> Machine:
    """Find the address by which this machine reaches the orchestrator, and that of its network card; sends nothing."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.connect(address)
            ip = str(sock.getsockname()[0]).partition("%")[0]
        return before._replace(ip=ip, mac=_card(ip))
    except OSError as error:  # what asks the orchestrator will see that too, and says it
        logger.debug("no way to the orchestrator: %s", error)
        return before


def _card(ip: str) -> str:
    """Return the hardware address of the card that has an address; empty if there is none."""
    for addresses in psutil.net_if_addrs().values():
        own = {each.address.partition("%")[0] for each in addresses if each.family != psutil.AF_LINK}
        if any(_same(each, ip) for each in own):
            return next((each.address for each in addresses if each.family == psutil.AF_LINK), "")
    return ""


def _same(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False
