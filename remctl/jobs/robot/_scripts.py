"""From the name of a script, which comes from elsewhere, to a file in the folder of scripts, and to none outside it.

The rules are those of Windows and of Linux together, on both: a name that means something else on one of them is none.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Final

from remctl.jobs.robot._errors import ScriptError
from remctl.jobs.robot._wire import line

LONGEST: Final = 200
"""Characters of a name."""

_FORBIDDEN: Final = frozenset('/\\:<>"|?*')

_DEVICES: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.I
)


def find(folder: Path, name: str) -> Path:
    """Return the file of a script, NAME or NAME.py in the folder.

    Args:
        folder: of the scripts.
        name: as it came over the wire.

    Raises:
        ScriptError: the name cannot be one of a file, there is no such file, or it lies elsewhere by a link.
    """
    if (wrong := _wrong(name)) is not None:
        raise ScriptError(f"the script's name {line(name)!r} {wrong}")
    try:
        root = folder.resolve(strict=True)
        for each in (name, f"{name}.py"):
            path = root / each
            if not path.is_file():
                continue
            real = path.resolve(strict=True)
            if not real.is_relative_to(root):
                raise ScriptError(f"the script {line(name)!r} is a link to what is not in {folder}")
            return real
    except OSError as error:
        raise ScriptError(f"the script {line(name)!r} cannot be looked for in {folder}: {error.strerror}") from error
    raise ScriptError(
        f"there is no script {line(name)!r} in {folder}", hint=f"put it there as {line(name)}.py, or correct --scripts"
    )


def _wrong(name: str) -> str | None:
    """Say what is wrong with a name; None if it may be that of a file."""
    if not name:
        return "is empty"
    if len(name) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if found := sorted(_FORBIDDEN.intersection(name)):
        return f"has {found[0]} in it"
    if any(unicodedata.category(each)[0] in "CZ" and each != " " for each in name):
        return "has a character in it that nobody sees"
    if name[0] in " .-" or name[-1] in " .":
        return "begins or ends with a blank, a dot or a hyphen"
    if _DEVICES.fullmatch(name):
        return "is that of a device of Windows"
    return None
