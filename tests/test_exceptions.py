"""The errors: one tree, data as attributes, and a text that is made from them."""

from __future__ import annotations

import copy
import errno
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl import (
    ErrorCode,
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlConnectionError,
    RemctlError,
    RemctlNotOpenedError,
    RemctlProtocolError,
    RemctlStatusError,
    RemctlTimeoutError,
    Result,
    exceptions,
)

ALL: list[type[RemctlError]] = [getattr(exceptions, name) for name in exceptions.__all__]

EVIDENCE: dict[str, Any] = {
    "host": "a.example.org",
    "port": 4373,
    "principal": "host/a.example.org@EXAMPLE.ORG",
    "command": "test hello",
    "sent": True,
    "stdout": b"out",
    "stderr": b"err",
    "hint": "what to do",
}

every_class = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


# The tree


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (RemctlError, Exception),
        (RemctlNotOpenedError, RemctlError),
        (RemctlStatusError, RemctlError),
        (RemctlProtocolError, RemctlError),
        (RemctlConnectionError, RemctlProtocolError),
        (RemctlAuthenticationError, RemctlProtocolError),
        (RemctlTimeoutError, RemctlProtocolError),
        (RemctlCommandError, RemctlProtocolError),
    ],
)
def test_each_error_has_its_place_in_the_tree(cls: type[Exception], base: type[Exception]) -> None:
    assert cls.__bases__[0] is base


def test_the_tree_has_no_other_errors() -> None:
    found = {thing for thing in vars(exceptions).values() if isinstance(thing, type) and issubclass(thing, Exception)}
    assert found == set(ALL)
    assert len(ALL) == 8


def test_a_lost_connection_is_caught_as_pythons_own() -> None:
    with pytest.raises(ConnectionError):
        raise RemctlConnectionError("lost")


def test_a_time_limit_is_caught_as_pythons_own() -> None:
    with pytest.raises(TimeoutError):
        raise RemctlTimeoutError("too late")


@pytest.mark.parametrize(
    "cls", [RemctlAuthenticationError, RemctlCommandError, RemctlNotOpenedError, RemctlStatusError]
)
def test_other_errors_are_not_the_systems(cls: type[Exception]) -> None:
    assert not issubclass(cls, OSError)


@pytest.mark.parametrize("cls", [RemctlNotOpenedError, RemctlStatusError])
def test_what_is_not_about_the_talk_with_the_server_is_no_protocol_error(cls: type[Exception]) -> None:
    assert not issubclass(cls, RemctlProtocolError)


# Attributes


@every_class
def test_an_error_can_be_made_of_a_message_alone(cls: type[RemctlError]) -> None:
    error = cls("went wrong")
    assert str(error) == error.value == error.reason == "went wrong"
    assert error.args == ("went wrong",)
    assert (error.host, error.port, error.principal, error.command, error.hint) == (None,) * 5
    assert (error.sent, error.stdout, error.stderr) == (False, b"", b"")


@every_class
def test_an_error_can_be_made_of_nothing(cls: type[RemctlError]) -> None:
    assert str(cls()) == cls().value == ""


@every_class
def test_an_error_holds_its_evidence(cls: type[RemctlError]) -> None:
    error = cls("went wrong", **EVIDENCE)
    assert {name: getattr(error, name) for name in EVIDENCE} == EVIDENCE


@every_class
def test_an_error_shows_its_message_in_a_traceback(cls: type[RemctlError]) -> None:
    assert repr(cls("went wrong")) == f"{cls.__name__}('went wrong')"


def test_numbers_that_are_not_known_are_none() -> None:
    assert RemctlConnectionError("lost").errno is None
    assert RemctlTimeoutError("too late").timeout is None
    assert RemctlCommandError("no").code is None


def test_a_status_error_takes_its_output_from_the_result() -> None:
    result = Result(b"out", b"err", 1)
    error = RemctlStatusError("exit status 1", result=result, host="a")
    assert error.result is result
    assert (error.stdout, error.stderr, error.sent, error.host) == (b"out", b"err", True, "a")


# The text


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        ({}, "went wrong"),
        ({"host": "a.example.org"}, "went wrong (a.example.org)"),
        ({"host": "a.example.org", "port": 4373}, "went wrong (a.example.org:4373)"),
        ({"host": "::1"}, "went wrong ([::1])"),
        ({"host": "2001:db8::1", "port": 4373}, "went wrong ([2001:db8::1]:4373)"),
        ({"command": "test hello"}, "went wrong (command 'test hello')"),
        ({"host": "a", "port": 1, "command": "test hello"}, "went wrong (command 'test hello' on a:1)"),
        ({"hint": "run kinit"}, "went wrong; run kinit"),
        ({"host": "a", "hint": "run kinit"}, "went wrong (a); run kinit"),
        ({"principal": "host/a@B", "sent": True, "stdout": b"out", "stderr": b"err"}, "went wrong"),
    ],
)
def test_the_text_is_made_from_the_data(evidence: dict[str, Any], text: str) -> None:
    error = RemctlError("went wrong", **evidence)
    assert str(error) == error.value == text


def test_the_text_follows_the_attributes() -> None:
    error = RemctlConnectionError("lost")
    error.host = "a"
    error.port = 0
    error.hint = "look after it"
    assert str(error) == error.value == "lost (a:0); look after it"


@every_class
def test_the_text_of_every_class_is_made_in_the_same_way(cls: type[RemctlError]) -> None:
    error = cls("went wrong", **EVIDENCE)
    assert str(error) == error.value == "went wrong (command 'test hello' on a.example.org:4373); what to do"


@given(
    st.text(),
    st.none() | st.text(),
    st.none() | st.integers(0, 65535),
    st.none() | st.text(),
    st.none() | st.text(),
)
def test_the_value_is_the_text(
    reason: str, host: str | None, port: int | None, command: str | None, hint: str | None
) -> None:
    error = RemctlError(reason, host=host, port=port, command=command, hint=hint)
    assert error.value == str(error)
    assert str(error).startswith(reason)


# Pickling


def filled(cls: type[RemctlError]) -> RemctlError:
    """An error with a value in every attribute that its class has."""
    error = cls("went wrong", **EVIDENCE)
    if isinstance(error, RemctlConnectionError):
        error.errno = errno.ECONNREFUSED
    if isinstance(error, RemctlTimeoutError):
        error.timeout = 2.5
    if isinstance(error, RemctlCommandError):
        error.code = ErrorCode.ACCESS
    if isinstance(error, RemctlStatusError):
        error.result = Result(b"out", b"err", 3)
    return error


@every_class
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(cls: type[RemctlError], protocol: int) -> None:
    error = filled(cls)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert vars(again) == vars(error)
    assert (str(again), again.args) == (str(error), error.args)


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (RemctlConnectionError, "errno", errno.ECONNREFUSED),
        (RemctlTimeoutError, "timeout", 2.5),
        (RemctlCommandError, "code", ErrorCode.ACCESS),
        (RemctlStatusError, "result", Result(b"out", b"err", 3)),
    ],
)
def test_what_one_class_alone_has_survives_pickling(cls: type[RemctlError], name: str, value: object) -> None:
    again = pickle.loads(pickle.dumps(filled(cls)))
    assert getattr(again, name) == value
    assert type(getattr(again, name)) is type(value)


@every_class
def test_an_error_can_be_copied(cls: type[RemctlError]) -> None:
    error = filled(cls)
    assert vars(copy.copy(error)) == vars(copy.deepcopy(error)) == vars(error)


def test_a_note_survives_pickling() -> None:
    error = RemctlError("went wrong")
    error.add_note("on the third host")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["on the third host"]
