"""What the tests of tickets have in common: handshakes without a network, and realms whose KDC is somewhere else."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

import remctl
from remctl.security import AcceptorContext, Credentials, InitiatorContext, ServerCredentials
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal

SHORT: Final = 3
"""Seconds that the tickets of `mayfly` live; the first of them may be over at once, since whole ones are counted."""


def authenticate(box: Sandbox, credentials: Credentials) -> str:
    """Do a handshake with the sandbox's first server; return whom it takes the client for."""
    ours = InitiatorContext("localhost", box.principal, credentials)
    theirs = AcceptorContext(ServerCredentials(box.keytab, box.principal).acquire())
    ours.step(theirs.step(ours.step(None)))
    assert ours.complete
    return theirs.principal


def mayfly(box: Sandbox, name: str) -> Principal:
    """Make a principal whose tickets end soon."""
    principal = box.add_principal(name)
    kadmin(box, f"modprinc -maxlife {SHORT}s {principal.name}")
    return principal


def kadmin(box: Sandbox, *commands: str) -> None:
    """Have the realm's administrator do something, all of it in one process."""
    subprocess.run(["kadmin.local"], input="\n".join(commands), text=True, env=box.env, check=True, capture_output=True)


@contextmanager
def kdc_at(box: Sandbox, port: int) -> Iterator[None]:
    """Have this process look for the realm's KDC on another port."""
    ours = Path(box.env["KRB5_CONFIG"])
    config = ours.with_name(f"krb5-{port}.conf")
    config.write_text(re.sub(r"(kdc = 127\.0\.0\.1:)\d+", rf"\g<1>{port}", ours.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(config))
        yield


@contextmanager
def dead_kdc(box: Sandbox) -> Iterator[None]:
    """Have the realm's KDC refuse this process."""
    with socket.socket() as held:  # and does not listen
        held.bind(("127.0.0.1", 0))
        with kdc_at(box, held.getsockname()[1]):
            yield


def at(clock: str, command: Sequence[str], box: Sandbox, stdin: str = "") -> str:
    """Run a program whose clock is off by so much, as faketime writes it; return what it prints."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    environment = {
        **box.env,
        "LD_PRELOAD": str(library),
        "FAKETIME": clock,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": os.pathsep.join((str(Path(remctl.__file__).parents[1]), str(Path(__file__).parents[1]))),
    }
    done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def python_at(clock: str, program: str, box: Sandbox, *arguments: str) -> str:
    """Run a Python program whose clock is off."""
    return at(clock, [sys.executable, "-c", program, *arguments], box).strip()
