"""Reports of scripts, by XML-RPC: what they say of their jobs, and what they may ask.

Two kinds of accounts may call: those that an administrator has made, which report of any job, and the one that each
attempt has for itself, of its own job alone.  Who calls is known before a body is read, and what they call is done on
a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Final, NamedTuple
from xmlrpc.client import Fault

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from remctl._arguments import printable
from remctl.jobs.service import Service
from remctl.jobs.store import Store, StoreError, account_of
from remctl.jobs.web._limits import Failures, too_large
from remctl.jobs.web._xmlrpc import Answer, FaultCode, Value, fault, read_call, write_answer

logger = logging.getLogger(__name__)

PATH: Final = "/api/xmlrpc"

BODY: Final = 1 << 20
"""Bytes of a call."""

INFORMATION: Final = 64 * 1024
"""Bytes of information that are kept of a report, as UTF-8."""

CHECKS: Final = 2
"""Passwords of accounts that are checked at the same time: each takes 16 MiB, and a core for 50 ms."""


def routes(service: Service) -> list[BaseRoute]:
    """Return what is served."""
    # With methods of its own the route would leave all others to routes after it, which may take every path.
    return [Route(PATH, _Reports(service.store).serve, methods=[])]


class _Caller(NamedTuple):
    """Who calls."""

    account: str
    attempt: int | None
    """The attempt whose account it is; None is an administrator's."""
    address: str

    def __str__(self) -> str:
        return f"{printable(self.account.encode())} from {self.address}"


class _Reports:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._failures = Failures()
        self._checks = asyncio.Semaphore(CHECKS)

    async def serve(self, request: Request) -> Response:
        """Do a call."""
        if request.method != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        caller = await self._caller(request)
        body = await _body(request)
        return Response(await run_in_threadpool(self._answer, caller, body), media_type="text/xml")

    def _answer(self, caller: _Caller, body: bytes) -> bytes:
        try:
            call = read_call(body)
            return write_answer(_Methods(self._store, caller).call(call.method, call.arguments))
        except Fault as refusal:
            logger.warning("%s: fault %d: %s", caller, refusal.faultCode, printable(refusal.faultString.encode(), None))
            return write_answer(refusal)

    # Who calls

    async def _caller(self, request: Request) -> _Caller:
        address = request.client.host if request.client else "unknown"
        given = _credentials(request.headers.get("authorization", ""))
        if given is None:
            raise _unknown("an account and its password are needed")
        account, password = given
        attempt = None
        if account.startswith(_ATTEMPTS):
            attempt = await run_in_threadpool(self._store.attempts.allowed, account, password)
            allowed = attempt is not None
        else:
            async with self._checks:
                self._check_failures(address)
                allowed = await run_in_threadpool(self._store.accounts.allows, account, password)
        if allowed:
            return _Caller(account, attempt, address)
        logger.warning("wrong account or password: %s", _Caller(account, None, address))
        self._check_failures(address)
        self._failures.add(address)
        raise _unknown("wrong account or password")

    def _check_failures(self, address: str) -> None:
        if wait := self._failures.wait(address):
            seconds = str(math.ceil(wait))
            raise HTTPException(429, "too many wrong passwords from this address", {"Retry-After": seconds})


_ATTEMPTS: Final = account_of(0).removesuffix("0")
"""What the names of attempts' accounts begin with, and no other's."""


def _unknown(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": 'Basic realm="remctl-jobs", charset="UTF-8"'})


def _credentials(header: str) -> tuple[str, str] | None:
    """Account and password of a header; None if there are none."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        account, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (account, password) if colon and account and "\0" not in account else None


# What they send


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in ("text/xml", "application/xml"):
        raise HTTPException(415, "the content type must be text/xml")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPException(415, "the body must not be compressed")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY:
            raise too_large(BODY)
    return bytes(body)


class _Methods:
    """The methods, for one caller; their docstrings are what `system.methodHelp` says."""

    def __init__(self, store: Store, caller: _Caller) -> None:
        self._store = store
        self._caller = caller
        self._methods: Mapping[str, Callable[..., Answer]] = {
            "getAllMachines": self.get_all_machines,
            "postInformation": self.post_information,
            "system.listMethods": self.list_methods,
            "system.methodHelp": self.method_help,
        }

    def call(self, name: str, arguments: list[Value]) -> Answer:
        """Call a method by its name.

        Raises:
            Fault: there is none of that name, or its arguments are wrong.
        """
        method = self._method(name)
        try:
            signature(method).bind(*arguments)
        except TypeError as error:
            raise _wrong(name, f"{error}") from None
        return method(*arguments)

    def get_all_machines(self) -> Answer:
        """getAllMachines(): the machines that an administrator has certified, as structs.

        Each has name, address, certified, and seen: when a runner on it was last heard of, in seconds since 1970,
        or 0 if never.
        """
        return [
            {"name": each.name, "address": each.address, "certified": True, "seen": each.seen_at or 0.0}
            for each in self._store.machines.all()
            if each.certified
        ]

    def post_information(self, job_id: Value, success: Value, information: Value = "") -> Answer:
        """postInformation(job_id, success, information=""): say how a job has ended.

        Returns true, or false if it comes too late, after the end of the attempt, and changes nothing.
        """
        job, succeeded, text = _job(job_id), _success(success), kept(information)
        if (size := len(text.encode())) > INFORMATION:
            raise fault(FaultCode.TOO_LONG, f"information has {size} bytes, and {INFORMATION} are kept at the most")
        try:
            in_time = self._store.attempts.report(job, succeeded, text, attempt=self._caller.attempt)
        except StoreError:
            which = "that has run" if self._caller.attempt is None else f"of {self._caller.account}"
            raise fault(FaultCode.NO_SUCH_JOB, f"there is no job {_shown(job)} {which}") from None
        word = "success" if succeeded else "error"
        logger.info("job %s: %s reports %s%s", _shown(job), self._caller, word, "" if in_time else ", too late")
        return in_time

    def list_methods(self) -> Answer:
        """system.listMethods(): the names of the methods."""
        return sorted(self._methods)

    def method_help(self, name: Value) -> Answer:
        """system.methodHelp(name): what a method does."""
        if not isinstance(name, str):
            raise _wrong("system.methodHelp", f"name must be a string, and is {_shown(name)}")
        lines = (self._method(name).__doc__ or "").splitlines()
        return "\n".join(line.strip() for line in lines).strip()

    def _method(self, name: str) -> Callable[..., Answer]:
        if name in self._methods:
            return self._methods[name]
        hint = "; each call is made by itself" if name == "system.multicall" else ""
        raise fault(FaultCode.NO_SUCH_METHOD, f"there is no method {_shown(name)}{hint}")


# Arguments


def kept(information: Value) -> str:
    """Return what is kept of information: always text that a database takes, and a page can show.

    Text stays as it is, and so do bytes that are UTF-8; other bytes become base64 with `base64:` before it, and all
    that is no text becomes compact JSON.  NUL, which databases do not take, becomes `\\x00`.
    """
    plain = _plain(information)
    if not isinstance(plain, str):
        plain = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return plain.replace("\0", r"\x00")


def _plain(value: Value) -> Any:
    """A value of types that JSON has."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"base64:{base64.b64encode(value).decode()}"
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _job(value: Value) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise _wrong("postInformation", f"job_id must be a job's number or GUID, and is {_shown(value)}")
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) < 20):
            return value
        value = int(value)
    if not 0 < value < 2**63:  # databases could not even look for it
        raise fault(FaultCode.NO_SUCH_JOB, f"there is no job {value}")
    return value


def _success(value: Value) -> bool:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("success", "error"):
        return value.lower() == "success"
    raise _wrong("postInformation", f"success must be a boolean, 0, 1, 'success' or 'error', and is {_shown(value)}")


def _wrong(method: str, complaint: str) -> Fault:
    return fault(FaultCode.INVALID_ARGUMENTS, f"{method}: {complaint}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
