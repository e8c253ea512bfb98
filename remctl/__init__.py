"""Run commands on other machines, authenticated by Kerberos: the remctl protocol for Python.

    >>> import remctl
    >>> remctl.remctl("host.example.org", command=["test", "hello"]).stdout
    b'hello world\\n'

`remctl()` runs one command, `Remctl` is a session for several.  Needs the system's libremctl and cffi, nothing else.
`run_many()` runs one command on many hosts, and needs more.
"""

from remctl._many import run_many
from remctl._version import __version__
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlConnectionError,
    RemctlError,
    RemctlNotOpenedError,
    RemctlProtocolError,
    RemctlStatusError,
    RemctlTimeoutError,
)
from remctl.session import Remctl, remctl
from remctl.types import ErrorCode, Output, OutputType, RemctlSimpleResult, Result, Stream

VERSION = __version__
RemctlOutput = Output

__all__ = [
    "VERSION",
    "ErrorCode",
    "Output",
    "OutputType",
    "Remctl",
    "RemctlAuthenticationError",
    "RemctlCommandError",
    "RemctlConnectionError",
    "RemctlError",
    "RemctlNotOpenedError",
    "RemctlOutput",
    "RemctlProtocolError",
    "RemctlSimpleResult",
    "RemctlStatusError",
    "RemctlTimeoutError",
    "Result",
    "Stream",
    "__version__",
    "remctl",
    "run_many",
]
