"""How a submission on the same machine wakes the runner: a datagram to a socket in the folder of the jobs."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

NAME: Final = "runner.sock"


def listen(folder: Path) -> socket.socket:
    """Return the runner's socket.

    Raises:
        OSError: it cannot be made, as in a folder whose path is very long.
    """
    path = folder / NAME
    path.unlink(missing_ok=True)  # of a runner that was killed; two cannot be there at once
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(os.fspath(path))
        path.chmod(0o600)
    except BaseException:
        sock.close()
        raise
    return sock


def wake(folder: Path) -> None:
    """Wake the runner that works in a folder, if there is one; it looks every few seconds anyway."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(b"!", os.fspath(folder / NAME))
