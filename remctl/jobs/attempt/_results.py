"""What an attempt has left in its folder: the ending, and the last bytes of its output.

All of it can be read by anybody who has the folder, while the keeper works and after it, and needs no `Attempt`.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from remctl.exceptions import RemctlError
from remctl.jobs.attempt._record import (
    BEGIN,
    END,
    ENDING,
    MAX_ENDING,
    PROGRESS,
    PROGRESS_FORMAT,
    RESERVED,
    ROOM,
    SIZE,
    STREAMS,
    Reason,
)

T = TypeVar("T")

_RETRIES: Final = 1000


class DamagedEndingError(RemctlError):
    """A file that a keeper wrote holds something else now; `path` is the file's."""

    path: Path | None

    def __init__(self, reason: str = "", path: Path | None = None) -> None:
        super().__init__(reason)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {super().__str__()}"


class Kept(NamedTuple):
    """What became of one of the two streams."""

    size: int
    """Bytes that the script wrote."""
    kept: int
    """How many of them, the last ones, are in the file."""
    lost: str | None = None
    """Why there are fewer than there should be, in the system's words: a full disk, above all."""

    @property
    def truncated(self) -> bool:
        """Whether some of it was not kept."""
        return self.kept < self.size


class Ending(NamedTuple):
    """How an attempt ended."""

    reason: Reason
    started: bool
    """Whether the script may have run: False only if it has not, for sure."""
    status: int | None
    """The exit status, 0 to 255; None if there is none."""
    signal: int | None
    """The signal that ended it."""
    error: str | None
    """NOT_STARTED: the system's words and the path they are about.  LOST: what the keeper had to say."""
    program: str
    """argv[0]."""
    began: float
    """When the script was released, in seconds since the epoch; if it never was, when the attempt was prepared."""
    ended: float
    """When its main process had ended, in seconds since the epoch."""
    duration: float
    """Seconds between the two, by a clock that is never set; 0 if it was never released."""
    leftovers: bool
    """Whether the main process had ended and other processes had to be killed."""
    survivors: int
    """Processes that could not be killed, as they had become another user's."""
    stdout: Kept
    stderr: Kept

    @classmethod
    def parse(cls, text: str | bytes) -> Ending:
        """Read a keeper's line.

        Raises:
            ValueError: it is something else.
        """
        values = _typed(json.loads(text), dict)
        return cls(
            reason=Reason(_typed(values.get("reason"), str)),
            started=_typed(values.get("started"), bool),
            status=_maybe(values.get("status"), int),
            signal=_maybe(values.get("signal"), int),
            error=_maybe(values.get("error"), str),
            program=_typed(values.get("program"), str),
            began=_typed(values.get("began"), float),
            ended=_typed(values.get("ended"), float),
            duration=_typed(values.get("duration"), float),
            leftovers=_typed(values.get("leftovers"), bool),
            survivors=_typed(values.get("survivors"), int),
            stdout=_kept(values.get("stdout")),
            stderr=_kept(values.get("stderr")),
        )


class Piece(NamedTuple):
    """Part of a stream that was kept."""

    offset: int
    """Of its first byte, counted from the stream's beginning."""
    data: bytes
    size: int
    """Of the whole stream so far."""


def read_ending(folder: Path) -> Ending | None:
    """Return how the attempt in a folder ended.

    Returns:
        None if there is no ending: the keeper still works (see `is_kept`), or was killed.

    Raises:
        DamagedEndingError: the file was changed, or damaged with its disk.
        OSError: the file cannot be read.
    """
    path = folder / ENDING
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENDING + 1)
    except FileNotFoundError:
        return None
    try:
        return Ending.parse(data)
    except (ValueError, RecursionError) as error:
        raise DamagedEndingError(f"no ending: {error}", path) from None


def is_kept(folder: Path) -> bool:
    """Return whether a keeper works in a folder; asked before `read_ending`, a False with no ending is final.

    Raises:
        OSError: the folder cannot be read.
    """
    for name in RESERVED, ENDING:  # the one becomes the other
        try:
            file = os.open(folder / name, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False
    return False


def read_output(
    folder: Path, stream: Literal["stdout", "stderr"], offset: int = 0, limit: int = 1024 * 1024
) -> Piece | None:
    """Read what is kept of a stream, now or after the end.

    To follow a stream, ask again with `offset` of the last piece plus the length of its data.  When the next piece
    begins later than that, what was between has been given up meanwhile.

    Args:
        folder: the attempt's.
        stream: which of the two.
        offset: the first byte wanted, counted from the stream's beginning.
        limit: bytes at most.

    Returns:
        The first bytes that are kept from there on, none if there are no more yet; None before the script's process
        was made.

    Raises:
        DamagedEndingError: the file that says which bytes are kept is damaged.
        OSError: a file cannot be read.
    """
    try:
        numbers = progress(folder, stream)
        file = os.open(folder / stream, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        begin = min(max(offset, numbers[BEGIN]), numbers[END])
        end = min(numbers[END], begin + limit)
        data = b""
        if room := numbers[ROOM]:
            while begin + len(data) < end:
                at = begin + len(data)
                part = os.pread(file, min(end - at, room - at % room), at % room)
                if not part:
                    raise DamagedEndingError("shorter than it should be", folder / stream)
                data += part
    finally:
        os.close(file)
    now = progress(folder, stream)
    given_up = max(0, now[BEGIN] - begin)  # while it was read
    return Piece(begin + given_up, data[given_up:], now[SIZE])


def progress(folder: Path, stream: Literal["stdout", "stderr"]) -> tuple[int, ...]:
    """Return the numbers of a stream: its size, the first byte kept, the one behind the last, the room of the file."""
    first = STREAMS.index(stream) * 4
    path = folder / PROGRESS
    for _ in range(_RETRIES):  # it may be written at this moment
        data = path.read_bytes()
        if len(data) == PROGRESS_FORMAT.size:
            *numbers, check = PROGRESS_FORMAT.unpack(data)
            if zlib.crc32(data[: -struct.calcsize("<I")]) == check:
                return tuple(numbers[first : first + 4])
    raise DamagedEndingError("its sum is wrong", path)


def _typed(value: object, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} expected, not {value!r:.80}")
    return value


def _maybe(value: object, kind: type[T]) -> T | None:
    return None if value is None else _typed(value, kind)


def _kept(value: object) -> Kept:
    values: dict[str, Any] = _typed(value, dict)
    return Kept(_typed(values.get("size"), int), _typed(values.get("kept"), int), _maybe(values.get("lost"), str))
