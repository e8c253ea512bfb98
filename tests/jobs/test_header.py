"""The header of scripts: where it stands, what may be in it, and that each error names line and key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.jobs.scripts import Limits, Retry, ScriptError, Type
from remctl.jobs.scripts._header import MAX_LINES, Header, read_header


def header(*lines: str, sign: str = "#", before: str = "") -> Header:
    """Read a header with those lines of TOML."""
    return read_header(before + written(*lines, sign=sign), sign)


def written(*lines: str, sign: str = "#") -> str:
    return "\n".join([f"{sign} /// job", *(f"{sign} {line}".rstrip() for line in lines), f"{sign} ///", ""])


def refusal(*lines: str) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        header(*lines)
    return caught.value


FULL = """\
description = "Free space on a file system"
run-time = 600
concurrency = 2
retry = "retry"
retries = 5

[parameters.path]
type = "text"
pattern = "/.*"
description = "a file on it"

[parameters.unit]
type = "choice"
choices = [
    "MB",
    "GB",
]
default = "GB"
""".splitlines()


@pytest.mark.parametrize("sign", ["#", "//"])
def test_a_header_says_what_a_script_is_and_how_it_runs(sign: str) -> None:
    found = header(*FULL, sign=sign)
    assert found.description == "Free space on a file system"
    assert found.limits == Limits(600.0, 2, Retry.RETRY, 5)
    assert list(found.parameters) == ["path", "unit"]
    assert found.parameters["unit"].type is Type.CHOICE
    assert found.parameters["unit"].choices == ("MB", "GB")
    assert found.parameters["path"].description == "a file on it"
    assert found.parameters["path"].required
    assert not found.parameters["unit"].required


def test_what_it_does_not_say_has_a_default() -> None:
    assert header('description = "x"') == header('description = "x"', 'retry = "fail"')
    assert header('description = "x"').limits == Limits(3600.0, None, Retry.FAIL, 0)
    assert header('retry = "retry"').limits == Limits(3600.0, None, Retry.RETRY, 3)
    assert header('run-time = "none"').limits.run_time is None
    assert header().description is None


# Where it stands


@pytest.mark.parametrize(
    "before",
    [
        "#!/bin/bash\n",
        "#!/usr/bin/python3\n# -*- coding: utf-8 -*-\n",
        "\n\n# Copyright somebody\n#\n\n",
        '# /// script\n# dependencies = ["x"]\n# ///\n',
        "#!/bin/bash\r\n\r\n",
    ],
)
def test_comments_and_blank_lines_may_come_before_it(before: str) -> None:
    assert header('description = "x"', before=before).description == "x"


def test_a_groovy_script_may_begin_with_a_shebang() -> None:
    assert header('description = "x"', sign="//", before="#!/usr/bin/env groovy\n").description == "x"


def test_lines_may_end_in_cr_lf() -> None:
    assert read_header(written(*FULL).replace("\n", "\r\n"), "#") == header(*FULL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print(1)\n",
        "print(1)\n" + written('description = "x"'),
        "# ///job\n# ///\n",
        "#/// job\n# ///\n",
        written('description = "x"', sign="//"),
        '"""Docstring."""\n' + written('description = "x"'),
        "# /// script\n# ///\n",
    ],
)
def test_without_a_header_at_the_top_the_error_says_what_the_smallest_is(text: str) -> None:
    with pytest.raises(ScriptError) as caught:
        read_header(text, "#")
    assert str(caught.value) == (
        "line 1: there is no header at its top; the smallest is three lines: '# /// job', "
        "'# description = \"What it does\"', '# ///'"
    )


def test_the_smallest_header_of_the_error_is_one() -> None:
    assert read_header('# /// job\n# description = "What it does"\n# ///', "#").description == "What it does"


@pytest.mark.parametrize("after", ["print(1)\n", "\n", "", "#bad\n"])
def test_a_header_has_to_end(after: str) -> None:
    with pytest.raises(ScriptError, match="that begins in line 2 has no last line, '# ///'") as caught:
        read_header("#!/bin/bash\n# /// job\n# retry = 'fail'\n" + after, "#")
    assert caught.value.line == 4


def test_there_is_one_header() -> None:
    with pytest.raises(ScriptError, match=r"^line 4: there is a second header; the first begins in line 1") as caught:
        read_header(written('description = "x"') + written('description = "y"'), "#")
    assert caught.value.line == 4


def test_what_looks_like_a_header_further_down_is_part_of_the_script() -> None:
    assert (
        read_header(written('description = "x"') + "cat <<EOF\n" + written('description = "y"'), "#").description == "x"
    )


def test_a_header_has_so_many_lines_at_the_most() -> None:
    header(*[""] * MAX_LINES)
    assert "more than 500 lines" in str(refusal(*[""] * (MAX_LINES + 1)))


# What is wrong in it


@pytest.mark.parametrize(
    ("lines", "line", "text"),
    [
        (['description = "x'], 2, "the header is no TOML: Illegal character"),
        (['description = "x"', "retry = fail"], 3, "the header is no TOML: Invalid value"),
        (['description = "x"', 'description = "y"'], 3, "the header is no TOML: Cannot overwrite a value"),
        (["choices = ["], 3, "the header is no TOML: "),
        (["a = " + "[" * 100_000], 3, "the header is no TOML: "),
        (["a = " + "9" * 10_000], 3, "the header is no TOML: "),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(lines: list[str], line: int, text: str) -> None:
    error = refusal(*lines)
    assert text in str(error)
    assert error.line == line


PARAMETER = ["[parameters.p]"]
TEXT = [*PARAMETER, 'type = "text"']
COUNT = [*PARAMETER, 'type = "integer"']
CHOICE = [*PARAMETER, 'type = "choice"']


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['desciption = "x"'], "line 2: desciption: there is no such key; there are description, parameters, users"),
        (["description = 5"], "line 2: description: it must be a text"),
        (['description = ""'], "line 2: description: it must be a text of one line"),
        (['description = """', 'a', 'b"""'], "line 4: description: it must be a text of one line"),
        (['description = "a\\u001b[2J"'], "line 2: description: it must be a text of one line"),
        (['description = "x"', "run-time = 0"], "line 3: run-time: it must be a number of seconds, more than 0, or"),
        (["run-time = true"], "line 2: run-time: it must be a number of seconds"),
        (["run-time = nan"], "line 2: run-time: it must be a number of seconds"),
        (["run-time = inf"], "line 2: run-time: it must be a number of seconds"),
        (['run-time = "1h"'], "line 2: run-time: it must be a number of seconds"),
        (["concurrency = 0"], "line 2: concurrency: it must be 1 to 10000"),
        (["concurrency = true"], "line 2: concurrency: it must be a whole number"),
        (["concurrency = 1.0"], "line 2: concurrency: it must be a whole number"),
        (['retry = "always"'], "line 2: retry: it must be one of fail, retry"),
        (["retries = 3"], 'line 2: retries: it needs retry = "retry"'),
        (['retry = "fail"', "retries = 3"], 'line 3: retries: it needs retry = "retry"'),
        (['retry = "retry"', "retries = 0"], "line 3: retries: it must be 1 to 10000"),
        (["parameters = 5"], "line 2: parameters: it must hold a table for each parameter"),
        (["[[parameters]]", 'name = "p"'], "line 2: parameters: it must hold a table for each parameter"),
        (["parameters.p = 5"], "line 2: parameters.p: it must be a table"),
        (["[parameters.Path]"], "line 2: parameters.Path: a parameter's name is a letter a-z"),
        (['[parameters."a.b"]'], "line 2: parameters.a.b: a parameter's name is a letter a-z"),
        (['[parameters."../x"]'], "line 2: parameters.../x: a parameter's name is a letter a-z"),
        ([f"[parameters.{'a' * 33}]"], f"line 2: parameters.{'a' * 33}: a parameter's name is"),
        (['[parameters."a\\u0000"]'], "line 2: parameters.a\\x00: a parameter's name is"),
        ([f"parameters.p{n}.type = 'text'" for n in range(65)], "line 2: parameters: a script has 64 parameters at"),
        (PARAMETER, "line 2: parameters.p: its type is missing: text, integer, number, boolean, choice, secret"),
        ([*PARAMETER, 'type = "date"'], "line 3: parameters.p.type: there is no type 'date'; there are text, integer"),
        ([*PARAMETER, "type = 5"], "line 3: parameters.p.type: it must be a text"),
        ([*TEXT, "size = 5"], "line 4: parameters.p.size: there is no such key; there are type, description, required"),
        ([*TEXT, "minimum = 5"], "line 4: parameters.p.minimum: a parameter of type text does not have it"),
        ([*TEXT, 'choices = ["a"]'], "line 4: parameters.p.choices: a parameter of type text does not have it"),
        ([*COUNT, 'pattern = "a"'], "line 4: parameters.p.pattern: a parameter of type integer does not have it"),
        ([*COUNT, "multiline = true"], "line 4: parameters.p.multiline: a parameter of type integer does not"),
        ([*TEXT, 'pattern = "("'], "line 4: parameters.p.pattern: it is no regular expression: missing ), unt"),
        ([*TEXT, "pattern = 5"], "line 4: parameters.p.pattern: it must be a text"),
        ([*TEXT, 'required = "yes"'], "line 4: parameters.p.required: it must be true or false"),
        ([*TEXT, "multiline = 1"], "line 4: parameters.p.multiline: it must be true or false"),
        ([*TEXT, "default = 5"], "line 4: parameters.p.default: it is no value of type text"),
        ([*TEXT, 'default = "a\\nb"'], "line 4: parameters.p.default: it has the control character '\\n'"),
        ([*TEXT, 'default = "b"', 'pattern = "a"'], "line 4: parameters.p.default: it does not match a: 'b'"),
        ([*TEXT, "required = true", 'default = "b"'], "line 4: parameters.p.required: what has a default is not"),
        ([*TEXT, "default = 1979-05-27"], "line 4: parameters.p.default: it is no value of type text"),
        ([*COUNT, "default = 0", "minimum = 1"], "line 4: parameters.p.default: it must be 1 or more: '0'"),
        ([*COUNT, "default = true"], "line 4: parameters.p.default: it is no value of type integer"),
        ([*COUNT, "default = 1.0"], "line 4: parameters.p.default: it is no value of type integer"),
        ([*COUNT, "default = 9223372036854775808"], "line 4: parameters.p.default: it is too large"),
        ([*COUNT, "minimum = 1.5"], "line 4: parameters.p.minimum: it must be a whole number"),
        ([*COUNT, "minimum = 2", "maximum = 1"], "line 4: parameters.p.minimum: it is more than the maximum, 1"),
        ([*PARAMETER, 'type = "number"', "maximum = nan"], "line 4: parameters.p.maximum: it must be a number"),
        ([*PARAMETER, 'type = "number"', "default = inf"], "line 4: parameters.p.default: it is no value of type"),
        (CHOICE, "line 2: parameters.p: a choice needs choices, a list of texts"),
        ([*CHOICE, "choices = []"], "line 4: parameters.p.choices: a choice needs choices, a list of texts"),
        ([*CHOICE, "choices = [1]"], "line 4: parameters.p.choices: each choice must be a text of one line"),
        ([*CHOICE, 'choices = [', '"a",', '"a"]'], "line 6: parameters.p.choices: a choice is there twice"),
        ([*CHOICE, 'choices = ["a"]', 'default = "b"'], "line 5: parameters.p.default: it must be one of a: 'b'"),
        (
            [*PARAMETER, 'type = "secret"', 'default = "canary"'],
            "line 4: parameters.p.default: a parameter of type secret does not have it",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_line_and_key(lines: list[str], message: str) -> None:
    error = refusal(*lines)
    assert str(error).startswith(message)
    assert "\n" not in str(error)


def reading(text: str, sign: str = "#") -> ScriptError | None:
    try:
        read_header(text, sign)
    except ScriptError as error:
        return error
    return None


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=30), max_size=5))
def test_any_header_is_taken_or_refused(lines: list[str]) -> None:
    error = reading(written(*lines))
    assert error is None or (str(error).isprintable() and error.line is not None)


@given(st.text(max_size=200), st.sampled_from(["#", "//"]))
def test_any_script_has_a_header_or_is_refused(text: str, sign: str) -> None:
    error = reading(text, sign)
    assert error is None or str(error).isprintable()
