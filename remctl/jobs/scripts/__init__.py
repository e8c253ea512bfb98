"""Scripts for jobs: reading a file that an administrator offers, installing it, and what is run in the end.

A script is well-formed if it is a text in one of four languages that its interpreter can read, with a header that says
what it is for and which parameters it takes.  An installed script is a file that nobody but its owner can have written;
runners run the bytes that `verify` returns, and not what may stand in the file a moment later.
"""

from remctl.jobs.scripts._errors import ScriptError, one_line
from remctl.jobs.scripts._header import Limits, Retry
from remctl.jobs.scripts._languages import Language
from remctl.jobs.scripts._parameter import Parameter, Type, Value
from remctl.jobs.scripts._parameters import Parameters
from remctl.jobs.scripts._scripts import AD_HOC, MAX_SIZE, Script, check_name, install, read_script, verify

__all__ = [
    "AD_HOC",
    "Language",
    "Limits",
    "MAX_SIZE",
    "Parameter",
    "Parameters",
    "Retry",
    "Script",
    "ScriptError",
    "Type",
    "Value",
    "check_name",
    "install",
    "one_line",
    "read_script",
    "verify",
]
