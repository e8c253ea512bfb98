"""Parameters of scripts: what users give, what the script gets, and what appears in no message."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remctl.jobs.scripts import Parameter, Parameters, ScriptError, Type

TABLES: Mapping[str, object] = {
    "name": {"type": "text", "pattern": "[a-z]+", "description": "who"},
    "note": {"type": "text", "multiline": True, "default": ""},
    "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
    "ratio": {"type": "number", "required": False},
    "dry_run": {"type": "boolean", "default": False},
    "level": {"type": "choice", "choices": ["low", "high"], "default": "low"},
    "token": {"type": "secret", "required": False, "pattern": "[0-9]{4}"},
}
ALL = Parameters(TABLES)


def one(**table: object) -> Parameters:
    return Parameters({"p": table})


def refusal(parameters: Parameters, values: Mapping[str, str]) -> str:
    with pytest.raises(ScriptError) as caught:
        parameters.check(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Values


def test_text_becomes_values_of_json_types() -> None:
    given = {"name": "ada", "count": "+5", "ratio": "1e3", "dry_run": "Yes", "level": "high", "token": "1234"}
    assert ALL.check(given) == {
        "name": "ada",
        "note": "",
        "count": 5,
        "ratio": 1000.0,
        "dry_run": True,
        "level": "high",
        "token": "1234",
    }


def test_what_is_not_given_has_its_default_or_is_left_out() -> None:
    assert ALL.check({"name": "ada"}) == {"name": "ada", "note": "", "count": 3, "dry_run": False, "level": "low"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "parameter name: it is missing"),
        ({"name": "ada", "nmae": "x"}, "there is no parameter 'nmae'; the script has name, note, count"),
        ({"name": ""}, "parameter name: it must not be empty: ''"),
        ({"name": "Ada"}, "parameter name: it does not match [a-z]+: 'Ada'"),
        ({"name": "ada\n"}, "parameter name: it has the control character '\\n': 'ada\\n'"),
        ({"name": "a\0"}, "parameter name: it has the control character '\\x00': 'a\\x00'"),
        ({"name": "a\x85"}, "parameter name: it has the control character '\\x85': 'a\\x85'"),
        ({"name": "\ud800"}, "parameter name: it is no valid text"),
        ({"name": "ada", "note": "a\0"}, "parameter note: it has the control character '\\x00'"),
        ({"name": "ada", "note": "\x1b[2J"}, "parameter note: it has the control character '\\x1b'"),
        ({"name": "ada", "count": "3.0"}, "parameter count: it is not a whole number: '3.0'"),
        ({"name": "ada", "count": ""}, "parameter count: it is not a whole number: ''"),
        ({"name": "ada", "count": "٣"}, "parameter count: it is not a whole number: '٣'"),
        ({"name": "ada", "count": "9" * 5000}, "parameter count: it has too many digits"),
        ({"name": "ada", "count": "0"}, "parameter count: it must be 1 to 9: '0'"),
        ({"name": "ada", "ratio": "nan"}, "parameter ratio: it is not a number: 'nan'"),
        ({"name": "ada", "ratio": "1e999"}, "parameter ratio: it is too large: '1e999'"),
        ({"name": "ada", "dry_run": "maybe"}, "parameter dry_run: it must be true or false"),
        ({"name": "ada", "level": "LOW"}, "parameter level: it must be one of low, high: 'LOW'"),
        ({"name": "a" * 65537}, "parameter name: it is longer than 65536 bytes: 'aaa"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: Mapping[str, str], text: str) -> None:
    assert refusal(ALL, values).startswith(text)


def test_the_error_says_which_parameter_as_data_too() -> None:
    with pytest.raises(ScriptError) as caught:
        ALL.check({"name": "ada", "count": "many"})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.parameter, again.reason) == ("count", "it is not a whole number: 'many'")
    assert str(again) == str(caught.value)


@pytest.mark.parametrize("value", [5, None, b"ada", ["ada"]])
def test_a_value_that_is_no_text_is_refused(value: str) -> None:
    assert refusal(ALL, {"name": value}).startswith("parameter name: its value has to come as text")


def test_an_unknown_name_is_shown_cut_off_and_harmless() -> None:
    text = refusal(ALL, {"name": "a", "\x1b[2J\n\ud800" + "x" * 10_000: ""})
    assert text.isprintable()
    assert len(text) < 300


@pytest.mark.parametrize("text", ["-9223372036854775808", "9223372036854775807"])
def test_integers_have_64_bits(text: str) -> None:
    assert one(type="integer").check({"p": text}) == {"p": int(text)}


@pytest.mark.parametrize("text", ["-9223372036854775809", "9223372036854775808"])
def test_larger_integers_are_refused(text: str) -> None:
    assert refusal(one(type="integer"), {"p": text}).startswith("parameter p: it is too large")


def test_a_text_that_is_not_required_may_be_empty() -> None:
    assert one(type="text", required=False).check({"p": ""}) == {"p": ""}


def test_lines_and_tabs_are_for_what_is_multiline() -> None:
    assert ALL.check({"name": "a", "note": "a\r\n\tb\n"})["note"] == "a\r\n\tb\n"


def test_all_values_together_have_a_limit() -> None:
    many = Parameters({f"p{number}": {"type": "text"} for number in range(9)})
    assert refusal(many, dict.fromkeys(many, "x" * 65536)) == "the parameters are together longer than 524288 bytes"
    assert len(many.check(dict.fromkeys(many, "x" * 58000))) == 9


# Secrets


@pytest.mark.parametrize("value", ["canary-0815", "canary\0", "\ud800canary", "canary" * 20_000])
def test_no_message_has_the_value_of_a_secret(value: str) -> None:
    text = refusal(ALL, {"name": "ada", "token": value})
    assert text.startswith("parameter token: ")
    assert "canary" not in text


def test_no_message_has_a_character_of_a_secret() -> None:
    assert refusal(ALL, {"name": "a", "token": "\x07"}) == "parameter token: it has a control character"


def test_secrets_are_in_the_json_and_not_in_the_environment() -> None:
    values = ALL.check({"name": "ada", "token": "1234"})
    assert ALL.secrets == ("token",)
    assert json.loads(ALL.as_json(values))["token"] == "1234"
    assert "1234" not in str(ALL.as_environment(values))


# What the script gets


def test_the_environment_has_each_value_as_text() -> None:
    values = ALL.check({"name": "ada", "ratio": "0.5", "dry_run": "on", "note": "a\nb"})
    assert ALL.as_environment(values) == {
        "JOB_PARAM_NAME": "ada",
        "JOB_PARAM_NOTE": "a\nb",
        "JOB_PARAM_COUNT": "3",
        "JOB_PARAM_RATIO": "0.5",
        "JOB_PARAM_DRY_RUN": "true",
        "JOB_PARAM_LEVEL": "low",
    }


def test_the_json_is_ascii() -> None:
    parameters = one(type="text")
    assert parameters.as_json(parameters.check({"p": "ä\u2028"})) == '{"p": "\\u00e4\\u2028"}'


# What parameters are


def test_they_go_through_json_and_come_back() -> None:
    again = Parameters(json.loads(json.dumps(ALL.tables())))
    assert again == ALL
    assert hash(again) == hash(ALL)
    assert list(again) == list(TABLES)
    assert again["count"] == Parameter("count", Type.INTEGER, required=False, default=3, minimum=1, maximum=9)


def test_tables_that_cannot_be_are_refused() -> None:
    with pytest.raises(ScriptError, match=r"^parameters\.p\.type: there is no type 'date'"):
        one(type="date")


# Anything at all

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | ScriptError:
    try:
        return call()
    except ScriptError as error:
        return error


ANY = st.text(st.characters(), max_size=40)


@given(st.dictionaries(st.sampled_from([*TABLES, "other"]) | ANY, ANY, max_size=6))
def test_any_names_and_values_are_taken_or_refused(values: dict[str, str]) -> None:
    checked = attempt(lambda: ALL.check(values))
    if isinstance(checked, ScriptError):
        assert str(checked).isprintable()
        return
    environment = ALL.as_environment(checked)
    assert not any("\0" in text for text in environment.values())
    assert json.loads(ALL.as_json(checked)) == checked


@given(st.sampled_from(list(TABLES)), ANY | st.from_regex(r"\A[+-]?[0-9.eE]{1,30}\Z"))
@example("ratio", "1e308")
def test_what_is_taken_is_taken_again_as_it_is_written(name: str, text: str) -> None:
    parameter = ALL[name]
    value = attempt(lambda: parameter.read(text))
    assert isinstance(value, ScriptError) or parameter.read(parameter.written(value)) == value


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_comes_through(text: str) -> None:
    parameters = one(type="text")
    assert parameters.check({"p": text}) == {"p": text}


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | ANY
THINGS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3))
KEYS = st.sampled_from(
    ["type", "default", "required", "choices", "pattern", "minimum", "maximum", "multiline", "description"]
)
TYPES = st.sampled_from([each.value for each in Type])


@given(st.dictionaries(KEYS, THINGS | TYPES, max_size=5), TYPES)
@example({"default": 10**400}, "number")
@example({"minimum": float("nan")}, "number")
@example({"pattern": "("}, "text")
@example({"pattern": "a{99999999999999999999}"}, "text")
def test_any_table_is_taken_or_refused(table: dict[str, object], kind: str) -> None:
    parameters = attempt(lambda: Parameters({"p": {"type": kind, **table}}))
    if isinstance(parameters, ScriptError):
        assert str(parameters).startswith("parameters.p")
        assert str(parameters).isprintable()
    else:
        assert Parameters(parameters.tables()) == parameters
