"""What a keeper leaves in its attempt's folder; `_results` reads it.

`stdout` and `stderr` hold the last bytes of the streams: byte n of a stream is at n modulo the file's room.  `progress`
says which bytes those are, and is written before bytes are given up and after others have come.  `ending.json` comes
into being at the end, from `ending.reserved`, which has the room for it from the beginning and is locked as long as the
keeper lives.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import json
import os
import struct
import zlib

STREAMS = ("stdout", "stderr")

ENDING = "ending.json"

RESERVED = "ending.reserved"

PROGRESS = "progress"

PROGRESS_FORMAT = struct.Struct("<8QI")
"""For each stream: its size, the first byte that is kept, the one behind the last, and the file's room; a CRC-32."""

SIZE, BEGIN, END, ROOM = range(4)

MAX_ENDING = 32 * 1024
"""Bytes reserved for the ending; a path of the greatest length, all of it escaped, has three quarters of that."""

MAX_TEXT = 4096
"""Characters of a text in the ending."""


class Reason(enum.StrEnum):
    """Why an attempt has ended; each member equals its string."""

    EXIT = "exit"
    """The script ended by itself."""
    SIGNAL = "signal"
    """A signal ended the script that the keeper had not sent."""
    TIME_LIMIT = "time-limit"
    """The script was stopped because it ran for longer than it may."""
    STOPPED = "stopped"
    """`Attempt.stop` was called."""
    ABORTED = "aborted"
    """`Attempt.abort` was called."""
    RUNNER_LOST = "runner-lost"
    """The runner ended, or closed the attempt, and the keeper stopped the script."""
    NOT_STARTED = "not-started"
    """The script could not be started; the error says why."""
    LOST = "lost"
    """The keeper was killed, and left no ending; never in a file."""


class Progress:
    """The numbers of both streams, in a file of fixed size: to write them anew takes no room on the disk."""

    def __init__(self, folder: str) -> None:
        self.numbers = [0] * 8
        self._file = _create(os.path.join(folder, PROGRESS))  # noqa: PTH118  # pathlib takes longer than the rest
        self.write()

    def write(self) -> None:
        """Write the numbers as they are now."""
        data = struct.pack("<8Q", *self.numbers)
        os.pwrite(self._file, data + struct.pack("<I", zlib.crc32(data)), 0)


class Tail:
    """The last bytes of a stream, in a file that is written in circles."""

    def __init__(self, folder: str, index: int, room: int, progress: Progress) -> None:
        self._file = _create(os.path.join(folder, STREAMS[index]))  # noqa: PTH118
        self._progress = progress
        self._first = index * 4
        self._set(ROOM, room)
        self._stuck = False
        self.lost: str | None = None
        """Why not as much is kept as should be, if the disk was full or broken."""

    def summary(self) -> dict[str, object]:
        """What the ending says about the stream."""
        return {"size": self._get(SIZE), "kept": self._get(END) - self._get(BEGIN), "lost": self.lost}

    def add(self, data: memoryview) -> None:
        """Keep what has come, and give up as much of what is older as it takes."""
        self._set(SIZE, self._get(SIZE) + len(data))
        while data and not self._stuck:
            data = self._keep(data)
        self._progress.write()

    def sync(self) -> None:
        """Have what is kept written to the disk."""
        if self._get(END):
            try:
                os.fdatasync(self._file)
            except OSError as error:
                self.lost = self.lost or error.strerror

    def _keep(self, data: memoryview) -> memoryview:
        """Keep some of the data; return the rest."""
        room, end = self._get(ROOM), self._get(END)
        if end >= room and len(data) > room:  # some would be overwritten at once, on the second round and later
            end += len(data) - room
            data = data[len(data) - room :]
            self._set(BEGIN, end)
            self._set(END, end)
            self._progress.write()
        if not room:
            return data[:0]
        piece = data[: room - end % room]
        if end + len(piece) - room > self._get(BEGIN):
            self._set(BEGIN, end + len(piece) - room)
            self._progress.write()
        try:
            written = os.pwrite(self._file, piece, end % room)
        except OSError as error:
            self.lost = error.strerror
            if end < room:  # on the first round: what there is room for will do
                self._set(ROOM, end)
            else:
                self._stuck = True
            return data
        self._set(END, end + written)
        return data[written:]

    def _get(self, number: int) -> int:
        return self._progress.numbers[self._first + number]

    def _set(self, number: int, value: int) -> None:
        self._progress.numbers[self._first + number] = value


class EndingFile:
    """The place for the ending, which no full disk can take away.

    Raises:
        FileExistsError: the folder has been used before.
        OSError: the file cannot be made, or has no room.
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if os.access(ENDING, os.F_OK, dir_fd=self._folder):
            raise FileExistsError(errno.EEXIST, "the folder has been used before", folder)
        self._file = _create(RESERVED, dir_fd=self._folder)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        padding = memoryview(b" " * MAX_ENDING)
        while padding:
            padding = padding[os.write(self._file, padding) :]

    def write(self, text: str) -> None:
        """Make the ending appear, whole and for good.

        Raises:
            OSError: the disk is broken, or the folder gone.
        """
        data = text.encode()
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        os.fsync(self._file)
        os.rename(RESERVED, ENDING, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)


def ending_text(values: dict[str, object]) -> str:
    """Give the ending as the line that is both sent and written; texts beyond `MAX_TEXT` characters are cut."""
    return json.dumps({key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in values.items()})


def _create(path: str, dir_fd: int | None = None) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=dir_fd)
