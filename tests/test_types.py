"""Tokens, results, and the numbers of the protocol."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl import ErrorCode, Output, OutputType, RemctlSimpleResult, RemctlStatusError, Result, Stream

# Output


def test_a_token_is_a_tuple_of_five() -> None:
    token = Output(OutputType.OUTPUT, b"hello", Stream.STDOUT)
    kind, output, stream, status, error = token
    assert (kind, output, stream, status, error) == ("output", b"hello", 1, None, None)


def test_a_token_equals_the_plain_tuple_of_the_stock_binding() -> None:
    assert Output(OutputType.OUTPUT, b"hello", Stream.STDERR) == ("output", b"hello", 2, None, None)
    assert Output(OutputType.STATUS, status=3) == ("status", None, None, 3, None)
    assert Output(OutputType.ERROR, b"Unknown command", error=ErrorCode.UNKNOWN_COMMAND) == (
        "error",
        b"Unknown command",
        None,
        None,
        5,
    )
    assert Output(OutputType.DONE) == ("done", None, None, None, None)


def test_a_token_names_its_members() -> None:
    assert Output._fields == ("type", "output", "stream", "status", "error")


def test_a_token_survives_pickling() -> None:
    token = Output(OutputType.ERROR, b"no", error=ErrorCode.ACCESS)
    again = pickle.loads(pickle.dumps(token))
    assert again == token
    assert type(again) is Output
    assert again.type is OutputType.ERROR


# Enums


@pytest.mark.parametrize("name", ["output", "status", "error", "done"])
def test_a_token_type_is_its_string(name: str) -> None:
    member = OutputType(name)
    assert member == name
    assert str(member) == f"{member}" == name
    assert {name: True}[member]


def test_streams_are_the_numbers_of_the_protocol() -> None:
    assert [(stream.name, int(stream)) for stream in Stream] == [("STDOUT", 1), ("STDERR", 2)]


def test_error_codes_are_the_numbers_of_the_protocol() -> None:
    assert {code.name: int(code) for code in ErrorCode} == {
        "INTERNAL": 1,
        "BAD_TOKEN": 2,
        "UNKNOWN_MESSAGE": 3,
        "BAD_COMMAND": 4,
        "UNKNOWN_COMMAND": 5,
        "ACCESS": 6,
        "TOOMANY_ARGS": 7,
        "TOOMUCH_DATA": 8,
        "UNEXPECTED_MESSAGE": 9,
        "NO_HELP": 10,
    }


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_known_error_number_is_looked_up_by_name(code: ErrorCode) -> None:
    assert ErrorCode.lookup(int(code)) is code


@given(st.integers().filter(lambda number: not 1 <= number <= 10))
def test_an_unknown_error_number_is_handed_on(number: int) -> None:
    found = ErrorCode.lookup(number)
    assert found == number
    assert type(found) is int


# Result


def test_a_result_is_a_tuple_of_three() -> None:
    assert Result(b"out", b"err", 0) == (b"out", b"err", 0)


def test_a_result_that_succeeded_passes_the_check() -> None:
    result = Result(b"out", b"err", 0)
    assert result.check() is result


def test_a_result_that_failed_is_raised_with_the_error() -> None:
    result = Result(b"out", b"first\nlast words\n", 2)
    with pytest.raises(RemctlStatusError) as caught:
        result.check()
    error = caught.value
    assert error.result is result
    assert (error.stdout, error.stderr, error.sent) == (result.stdout, result.stderr, True)
    assert str(error) == "exit status 2: last words"


def test_a_silent_failure_is_its_status() -> None:
    with pytest.raises(RemctlStatusError, match=r"^exit status 255$"):
        Result(b"out", b"", 255).check()


@given(st.binary(), st.binary(), st.integers(1, 255))
def test_any_failure_has_a_message_of_one_short_line(stdout: bytes, stderr: bytes, status: int) -> None:
    with pytest.raises(RemctlStatusError) as caught:
        Result(stdout, stderr, status).check()
    message = str(caught.value)
    assert message.startswith(f"exit status {status}")
    assert "\n" not in message
    assert len(message) < 1000


# The one-shot result


def test_a_simple_result_is_empty_at_first() -> None:
    result = RemctlSimpleResult()
    assert (result.stdout, result.stderr, result.status) == (None, None, None)


def test_a_simple_result_can_be_set_as_with_the_stock_binding() -> None:
    result = RemctlSimpleResult()
    result.stdout = b"out"
    result.stderr = b"err"
    result.status = 0
    assert result == RemctlSimpleResult(b"out", b"err", 0)


def test_simple_results_are_equal_by_what_they_hold() -> None:
    assert RemctlSimpleResult(b"out", None, 0) == RemctlSimpleResult(b"out", None, 0)
    assert RemctlSimpleResult(b"out", None, 0) != RemctlSimpleResult(b"out", None, 1)
    assert RemctlSimpleResult(b"out", None, 0) != (b"out", None, 0)


def test_a_simple_result_is_no_key_since_it_can_be_set() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(RemctlSimpleResult())


def test_a_simple_result_shows_what_it_holds() -> None:
    assert repr(RemctlSimpleResult(b"out", None, 0)) == "RemctlSimpleResult(stdout=b'out', stderr=None, status=0)"


def test_a_simple_result_can_be_copied_and_pickled() -> None:
    result = RemctlSimpleResult(b"out", b"err", 1)
    assert copy.copy(result) == pickle.loads(pickle.dumps(result)) == result
