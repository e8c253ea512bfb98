"""Why authentication failed: every reason by its real cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import gssapi  # noqa: F401  # its numbers have words once it is loaded
import krb5
import pytest

import remctl
from fanout.kerberos import dead_kdc, kadmin, python_at
from remctl._kerberos import Code
from remctl.fanout._auth import AuthReason, reason_of
from remctl.security import AcceptorContext, Credentials, InitiatorContext, ServerCredentials
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal


@pytest.fixture(scope="module")
def alice(box: Sandbox) -> Principal:
    return box.add_principal("alice-of-reasons")


HANDSHAKE: Final = """
import sys
from remctl import RemctlAuthenticationError
from remctl.fanout._auth import reason_of
from remctl.security import Credentials, InitiatorContext
try:
    InitiatorContext("localhost", "host/of-clocks", Credentials.from_ccache(sys.argv[1])).step(None)
except RemctlAuthenticationError as error:
    print(reason_of(error))
"""


def reason(call: Callable[[], object]) -> AuthReason:
    with pytest.raises(remctl.RemctlAuthenticationError) as caught:
        call()
    return reason_of(caught.value)


def ask_for(host: str, principal: str | None = None, credentials: Credentials | None = None) -> Callable[[], object]:
    return lambda: InitiatorContext(host, principal, credentials or Credentials.default()).step(None)


def test_no_cache_none_of_that_kind_and_an_empty_one_are_no_ticket(box: Sandbox, tmp_path: Path) -> None:
    context = krb5.init_context()
    owner = krb5.parse_name_flags(context, box.user.encode())
    krb5.cc_initialize(context, krb5.cc_resolve(context, f"FILE:{tmp_path}/empty".encode()), owner)
    for name in ("/nowhere/cache", "NOSUCH:cache", "MEMORY:nowhere", f"{tmp_path}/empty"):
        assert reason(Credentials.from_ccache(name).acquire) is AuthReason.NO_TICKET


def test_no_default_cache_is_no_ticket(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", "/nowhere/cache")
    assert reason(Credentials.default().acquire) is AuthReason.NO_TICKET


def test_a_server_or_a_realm_that_the_kdc_does_not_know_is_an_unknown_server(box: Sandbox) -> None:
    assert reason(ask_for("no-such-host")) is AuthReason.UNKNOWN_SERVER
    assert reason(ask_for("localhost", "host/localhost@NO.SUCH.REALM")) is AuthReason.UNKNOWN_SERVER


def test_a_principal_that_the_kdc_does_not_know_is_an_unknown_client(box: Sandbox) -> None:
    assert reason(Credentials.from_password("nobody", "x").acquire) is AuthReason.UNKNOWN_CLIENT


def test_a_kdc_that_is_down_and_a_realm_without_one_are_no_kdc(box: Sandbox, alice: Principal) -> None:
    with dead_kdc(box):
        assert reason(ask_for("not-asked-for-before")) is AuthReason.NO_KDC
        assert reason(Credentials.from_password(alice.name, alice.password).acquire) is AuthReason.NO_KDC
    assert reason(Credentials.from_password("alice@NO.SUCH.REALM", "x").acquire) is AuthReason.NO_KDC


def test_a_wrong_password_and_a_server_without_the_key_are_a_wrong_key(box: Sandbox, alice: Principal) -> None:
    assert reason(Credentials.from_password(alice.name, "wrong").acquire) is AuthReason.WRONG_KEY
    box.add_principal("host/of-reasons")
    ours = InitiatorContext("localhost", "host/of-reasons", Credentials.default())
    answer = AcceptorContext(ServerCredentials(box.keytab).acquire()).step(ours.step(None))
    assert reason(lambda: ours.step(answer)) is AuthReason.WRONG_KEY


def test_a_server_whose_key_was_changed_is_a_wrong_key(box: Sandbox) -> None:
    server = box.add_principal("host/rekeyed")
    ours = InitiatorContext("localhost", server.name, Credentials.default())
    first = ours.step(None)
    Path(server.keytab).unlink()
    kadmin(box, f"ktadd -k {server.keytab} {server.name}")  # which makes another key
    answer = AcceptorContext(ServerCredentials(server.keytab).acquire()).step(first)
    assert reason(lambda: ours.step(answer)) is AuthReason.WRONG_KEY


def test_a_ticket_that_has_ended_is_expired(box: Sandbox, alice: Principal) -> None:
    assert python_at("+2d", HANDSHAKE, box, box.kinit(alice)) == "expired"


@pytest.mark.parametrize("clock", ["+1h", "-1h"])
def test_a_wrong_clock_is_told_from_a_ticket_that_has_ended(box: Sandbox, alice: Principal, clock: str) -> None:
    assert python_at(clock, HANDSHAKE, box, box.kinit(alice)) == "clock"


def test_an_error_without_a_number_has_another_reason() -> None:
    assert reason_of(remctl.RemctlAuthenticationError("a message could not be encrypted")) is AuthReason.OTHER


def test_the_numbers_are_those_of_libkrb5() -> None:
    for code in Code:
        assert "Unknown code" not in str(krb5.Krb5Error(krb5.init_context(), code)), code.name
