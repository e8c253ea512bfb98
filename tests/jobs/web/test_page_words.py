"""What people read on the page, and the form of a script's parameters, without a server."""

from __future__ import annotations

import pytest

from remctl.jobs.scripts import Parameters
from remctl.jobs.states import JobState, Move, Reason
from remctl.jobs.store import Job
from remctl.jobs.web import _views_form as forms
from remctl.jobs.web import _views_words as words

JOB = Job(1, "guid", "work", {}, "ada", JobState.FAILED, None, None, 0, 1, None, None, None, 0.0, None, None)


def test_each_state_reason_and_move_has_words() -> None:
    assert [words.state(state) for state in (JobState.IN_PROGRESS, JobState.SUCCESS)] == ["In progress", "Success"]
    for reason in Reason:
        assert words.reason(JOB._replace(reason=reason))
    for move in Move:
        assert words.move(move)


def test_a_reason_says_what_is_known() -> None:
    assert words.reason(JOB) == ""
    ended = JOB._replace(reason=Reason.EXIT, exit_status=3)
    assert words.reason(ended) == "the script ended by itself with exit status 3"
    signal = JOB._replace(reason=Reason.SIGNAL, signal=11)
    assert words.reason(signal) == "a signal ended the script (SIGSEGV)"
    assert words.reason(signal._replace(signal=99)) == "a signal ended the script (signal 99)"
    stopped = JOB._replace(reason=Reason.STOPPED, asked_by="olga", detail="in time")
    assert words.reason(stopped) == "it was stopped by olga: in time"


def test_what_is_offered_is_what_the_states_allow() -> None:
    assert {state: words.offered(state) for state in JobState} == {
        JobState.CREATED: [Move.STOP, Move.ABORT],
        JobState.PENDING: [Move.STOP, Move.ABORT],
        JobState.IN_PROGRESS: [Move.STOP, Move.ABORT],
        JobState.STOPPING: [Move.ABORT],
        JobState.ABORTING: [],
        JobState.SUCCESS: [],
        JobState.FAILED: [Move.RETRY],
        JobState.STOPPED: [Move.RETRY],
        JobState.ABORTED: [Move.RETRY],
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7260, "2 h 1 min"),
        (90_000 * 2, "2 d 2 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_times_and_sizes() -> None:
    assert words.utc(0) == "1970-01-01 00:00:00 UTC"
    assert words.iso(0) == "1970-01-01T00:00:00Z"
    sizes = [words.size(count) for count in (0, 1, 1023, 1024, 1 << 20, 5 << 30)]
    assert sizes == ["0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "1.0 MiB", "5.0 GiB"]


def test_characters_that_nobody_sees_are_made_visible() -> None:
    assert words.visible("a\tb\nc") == "a\tb\nc"
    assert words.visible("\x00\x1b[2J\r\x7f") == "\u2400\u241b[2J\u240d\u2421"
    assert words.visible("\x9b\u202e\u200b") == "<U+009B><U+202E><U+200B>"


def test_output_is_read_in_pieces_that_end_within_characters() -> None:
    euro = "€".encode()
    assert words.decoded(b"a" + euro[:2], cut=False, more=True) == ("a", 1)
    assert words.decoded(b"a" + euro[:2], cut=False, more=False) == ("a\ufffd", 3)
    assert words.decoded(euro[1:] + b"a", cut=True, more=True) == ("a", 3)
    assert words.decoded(b"\x80\x80", cut=False, more=True) == ("\ufffd\ufffd", 2)
    assert words.decoded(b"\x80" * 5, cut=True, more=True) == ("\ufffd\ufffd", 5)
    assert words.decoded(b"", cut=True, more=True) == ("", 0)


def test_a_form_gives_what_was_typed_and_leaves_out_what_was_not() -> None:
    parameters = Parameters(
        {
            "name": {"type": "text", "default": "x"},
            "free": {"type": "text", "required": False},
            "size": {"type": "integer", "default": 3},
            "flag": {"type": "boolean"},
            "lines": {"type": "secret", "multiline": True, "required": False},
        }
    )
    sent = {"name": "", "free": "", "size": "", "flag": "true", "lines": "a\r\nb", "unknown": "y"}
    typed = forms.read(parameters, {f"p.{name}": text for name, text in sent.items()})
    assert forms.values(parameters, typed) == {"name": "", "flag": "true", "lines": "a\nb"}
    kinds = {field.parameter.name: field.kind for field in forms.fields(parameters, typed, {})}
    assert kinds == {"name": "text", "free": "text", "size": "number", "flag": "select", "lines": "textarea"}
    assert [field.text for field in forms.fields(parameters, typed, {})] == ["", "", "", "true", ""]


def test_hints_say_what_a_value_has_to_be() -> None:
    parameters = Parameters(
        {
            "low": {"type": "number", "minimum": 0.5},
            "high": {"type": "integer", "maximum": 9},
            "either": {"type": "boolean", "required": False},
        }
    )
    low, high, either = forms.fields(parameters, {}, {})
    assert low.hints == ["0.5 or more"]
    assert high.hints == ["9 or less"]
    assert either.options == (("", "nothing"), ("true", "yes"), ("false", "no"))


def test_the_same_form_is_the_same_job_unless_something_else_is_typed() -> None:
    key = "5f0c7a0e-0000-4000-8000-000000000000"
    one = forms.guid(key, "work", {"a": "1", "b": "2"})
    assert one == forms.guid(key, "work", {"b": "2", "a": "1"})
    assert (
        len({one, forms.guid(key, "other", {"a": "1", "b": "2"}), forms.guid(key, "work", {"a": "12", "b": ""})}) == 3
    )
    assert forms.guid("x", "work", {}) != forms.guid("x", "work", {})
