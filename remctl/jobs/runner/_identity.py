"""Who the runner of a folder is, for the store."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Final

IDENTITY: Final = "runner.id"
"""The file that holds what `Taker.id` is, in the folder of the jobs."""


def identity(folder: Path) -> str:
    """What tells the runner of a folder from others that have its name, also after the machine has got a new name."""
    file = folder / IDENTITY
    with contextlib.suppress(FileNotFoundError):
        if known := file.read_text().strip():
            return known
    made = str(uuid.uuid4())
    file.write_text(f"{made}\n")
    return made
