"""What people read on the page: states, reasons, times and output, as text without markup."""

from __future__ import annotations

import codecs
import re
import signal
from datetime import UTC, datetime
from typing import Final

from remctl.jobs.service import Role
from remctl.jobs.states import MOVES, JobState, Move, Reason, RobotStatus
from remctl.jobs.store import AttemptRecord, Job

_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Characters that nobody sees, or that turn the order of others around."""

_REASONS: Final = {
    Reason.EXIT: "the script ended by itself",
    Reason.REPORT: "the script said so",
    Reason.SIGNAL: "a signal ended the script",
    Reason.TIME_LIMIT: "the script took longer than it may",
    Reason.NOT_STARTED: "the script could not be started",
    Reason.LOST: "whoever ran it has vanished, and how it ended is not known",
    Reason.CRASHES: "it was lost in each attempt, and is not tried again",
    Reason.STOPPED: "it was stopped",
    Reason.ABORTED: "it was aborted",
}

_MOVES: Final = {
    Move.QUEUE: "submitted",
    Move.START: "started",
    Move.SUCCEED: "succeeded",
    Move.FAIL: "failed",
    Move.ASK_STOP: "asked to stop",
    Move.ASK_ABORT: "asked to abort",
    Move.STOP: "stopped",
    Move.ABORT: "aborted",
    Move.RETRY: "to run again",
}


def state(value: JobState | RobotStatus) -> str:
    """Return the name of a job's state, or of a robot's."""
    return value.name.replace("_", " ").capitalize()


def role(value: Role) -> str:
    """Return a role's name."""
    return value.name.lower()


def move(value: Move) -> str:
    """Return what has happened."""
    return _MOVES[value]


def reason(job: Job | AttemptRecord) -> str:
    """Return why a job or an attempt has ended, in a sentence without its full stop; empty if it has not."""
    if job.reason is None:
        return ""
    text = _REASONS[job.reason]
    if job.reason is Reason.EXIT and job.exit_status is not None:
        text += f" with exit status {job.exit_status}"
    if job.reason is Reason.SIGNAL and job.signal is not None:
        text += f" ({_signal(job.signal)})"
    if isinstance(job, Job) and job.reason in (Reason.STOPPED, Reason.ABORTED) and job.asked_by:
        text += f" by {job.asked_by}"
    return f"{text}: {job.detail}" if job.detail else text


def offered(value: JobState) -> list[Move]:
    """Return what somebody may want of a job in a state."""
    moves = MOVES[value]
    if value.final:
        return [move for move in (Move.RETRY,) if move in moves]
    return [move for move, asked in _ASKED if asked in moves or (move in moves and not value.live)]


_ASKED: Final = ((Move.STOP, Move.ASK_STOP), (Move.ABORT, Move.ASK_ABORT))


def utc(seconds: float) -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(seconds: float) -> str:
    """Return a time for programs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Return how long something took, in its two largest units."""
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(count: int) -> str:
    """Return a number of bytes."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} byte{'' if count == 1 else 's'}"


def capitalize_first(text: str) -> str:
    """Return a text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def visible(text: str) -> str:
    """Return a text with characters that nobody would see made visible, but for line ends and tabs."""
    return _HIDDEN.sub(_shown, text)


def decoded(data: bytes, *, cut: bool, more: bool) -> tuple[str, int]:
    """Return the text of output that may begin and end within a character.

    Args:
        data: the bytes.
        cut: whether something was before them, so that half a character at the beginning is left out.
        more: whether others may come, so that half a character at the end is left for later.

    Returns:
        The text, and how many of the bytes it is of.
    """
    begin = 0
    while cut and begin < min(3, len(data)) and data[begin] & 0xC0 == 0x80:
        begin += 1
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data[begin:], final=not more)
    return visible(text), len(data) - len(decoder.getstate()[0])


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of them
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
