"""Commands on the server side, written in Python: `Backend` is a table of functions.

The same table runs as a program under remctld or remctl-shell (`Backend.main`), and in a server of this package
(`remctl.aio.serve`).  It stands on `types`, `exceptions` and `acl` alone, and loads neither asyncio nor argparse before
a command needs them: a program is started for each command.
"""

from remctl.backend._backend import Backend
from remctl.backend._context import Context
from remctl.backend._errors import CommandError, ExitStatus, OutputLostError, UsageError
from remctl.backend._group import Group
from remctl.backend._markers import MULTILINE, SECRET, STDIN, Match, Option, Range

__all__ = [
    "Backend",
    "CommandError",
    "Context",
    "ExitStatus",
    "Group",
    "MULTILINE",
    "Match",
    "Option",
    "OutputLostError",
    "Range",
    "SECRET",
    "STDIN",
    "UsageError",
]
