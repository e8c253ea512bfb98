"""Real servers for tests: a throw-away realm with krb5kdc and remctld on loopback.

Needs the extra `remctl-cffi[testing]` and Debian's packages krb5-kdc, krb5-admin-server, krb5-user and remctl-server.
"""

from remctl.testing.programs import SandboxError
from remctl.testing.sandbox import Principal, Sandbox
from remctl.testing.server import Server

__all__ = ["Principal", "Sandbox", "SandboxError", "Server"]
