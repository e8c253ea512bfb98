"""What all command lines have in common that make no sense: a line that says so, and an exit status."""

from __future__ import annotations

import argparse
from typing import Any, Final, NoReturn

from remctl.cli._streams import say

USAGE: Final = 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with nothing in it that a terminal would obey.

    Args:
        helped: the command line that shows the help.
        status: the exit status.
        others: what every parser takes.
    """

    def __init__(self, *, helped: str, status: int = USAGE, **others: Any) -> None:
        super().__init__(allow_abbrev=False, **others)
        self._helped = helped
        self._status = status

    def error(self, message: str) -> NoReturn:
        """Say so, and end."""
        say(f"{message} (see '{self._helped}')")
        self.exit(self._status)
