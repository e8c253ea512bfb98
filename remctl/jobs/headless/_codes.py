"""The ten exit codes of `remctl-headless`, and the error that carries one."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Unpack

from remctl.exceptions import Evidence, RemctlError

if TYPE_CHECKING:
    from remctl.jobs.client import Job


class Code(enum.IntEnum):
    """How the program ended; no other exit code is ever given."""

    OK = 0
    """The job ended well, or, where nobody waits for it, was accepted."""
    CONNECTION = 1
    """No connection to the server or to a KDC."""
    PARAMETER = 2
    """An option, the secret file or a parameter of the job is wrong."""
    TIMEOUT = 3
    """The limit passed, or waiting was ended, while the job goes on."""
    AUTHENTICATION = 4
    """No ticket, a wrong key, or a principal that may not do that."""
    UNEXPECTED = 5
    """Anything that is none of the others."""
    LOGIN_TIMEOUT = 6
    """The login took too long."""
    ENDED = 7
    """The server went away while the job ran, or the job was stopped or lost."""
    SERVER = 8
    """The job failed, or the server did."""
    NO_MODULE = 9
    """There is no such module, or it is turned off."""


class HeadlessError(RemctlError):
    """A headless run that did not end well."""

    code: Code
    """The exit code for it."""
    job: Job | None
    """The job as it was last heard of; None if nothing was heard of one."""

    def __init__(
        self, reason: str = "", *, code: Code = Code.UNEXPECTED, job: Job | None = None, **evidence: Unpack[Evidence]
    ) -> None:
        super().__init__(reason, **evidence)
        self.code = code
        self.job = job
