"""The hints at the end of messages: what to do, where that is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl import ErrorCode, _hints

PREFIX = "GSS-API error initializing context: Unspecified GSS failure.  Minor code may provide more information, "


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("No Kerberos credentials available (default cache: FILE:/tmp/krb5cc_0)", "run kinit"),
        ("No credentials cache found", "run kinit"),
        ("Ticket expired", "expired: run kinit"),
        ("Server host/a.example.org@EXAMPLE.ORG not found in Kerberos database", "does not know"),
        ("Cannot determine realm for numeric host address", "does not know"),
        ("Request ticket server host/a@EXAMPLE.ORG kvno 3 not found in keytab; ticket is likely out of date", None),
        ("No key table entry found matching host/a", "keytab"),
        ("Wrong principal in request", "keytab"),
        ("Clock skew too great", "clocks differ"),
        ("Ticket not yet valid", "clocks differ"),
        ("Cannot contact any KDC for realm 'EXAMPLE.ORG'", "krb5.conf"),
        ('Cannot find KDC for realm "EXAMPLE.ORG"', "krb5.conf"),
        ("Something that nobody has seen before", None),
        ("", None),
    ],
)
def test_a_failed_authentication_has_a_hint_where_the_mend_is_known(text: str, advice: str | None) -> None:
    hint = _hints.for_authentication(PREFIX + text)
    if advice is None:
        assert hint is None
    else:
        assert hint is not None
        assert advice in hint


@given(st.text())
def test_any_text_of_the_library_is_taken(text: str) -> None:
    assert isinstance(_hints.for_authentication(text), str | None)


@pytest.mark.parametrize(
    ("code", "advice"), [(ErrorCode.UNKNOWN_COMMAND, "help"), (ErrorCode.ACCESS, "klist"), (5, "help"), (6, "klist")]
)
def test_a_refused_command_has_a_hint_by_its_code(code: int, advice: str) -> None:
    hint = _hints.for_command(code)
    assert hint is not None
    assert advice in hint


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL, ErrorCode.TOOMANY_ARGS, 0, 11, -1, 2**32 - 1])
def test_a_code_without_known_mend_has_no_hint(code: int) -> None:
    assert _hints.for_command(code) is None
