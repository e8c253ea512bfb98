"""Where the server programs are, and which Debian package brings one that is missing."""

from __future__ import annotations

import os
import shutil
from typing import Final

from remctl.exceptions import RemctlError

PACKAGES: Final = {
    "krb5kdc": "krb5-kdc",
    "kdb5_util": "krb5-kdc",
    "kadmin.local": "krb5-admin-server",
    "kinit": "krb5-user",
    "klist": "krb5-user",
    "remctld": "remctl-server",
}
"""Debian's package for each program that a sandbox runs."""

_SYSTEM_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where servers live; a user's PATH often leaves them out."""


class SandboxError(RemctlError):
    """A sandbox could not be started, or one of its servers refused its configuration."""


def find(program: str) -> str:
    """Return the path of one of `PACKAGES`' programs.

    Raises:
        SandboxError: it is not installed; the text names the package.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    found = shutil.which(program, path=path)
    if found is None:
        package = PACKAGES[program]
        raise SandboxError(f"{program} is not installed", hint=f"on Debian and Ubuntu: apt-get install {package}")
    return found
