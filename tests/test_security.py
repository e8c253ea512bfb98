"""Credentials, and the security contexts of both sides."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gssapi
import pytest

import remctl
from remctl.security import AcceptorContext, Credentials, InitiatorContext, ServerCredentials
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal

SHORT = 2
"""Seconds that the tickets of `shortlived` live."""


@pytest.fixture(scope="module")
def alice(box: Sandbox) -> Principal:
    return box.add_principal("alice-of-security")


@pytest.fixture(scope="module")
def shortlived(box: Sandbox) -> Principal:
    """Give a principal whose tickets end after two seconds."""
    principal = box.add_principal("mayfly")
    box._realm().run_kadminl(["modprinc", "-maxlife", f"{SHORT}s", principal.name])
    return principal


def contexts(box: Sandbox, credentials: Credentials | None = None) -> tuple[InitiatorContext, AcceptorContext]:
    """Return both sides' contexts, complete."""
    ours = InitiatorContext("localhost", box.principal, credentials or Credentials.default())
    theirs = AcceptorContext(ServerCredentials(box.keytab, box.principal).acquire())
    token = ours.step(None)
    while not (ours.complete and theirs.complete):
        answer = theirs.step(token)
        token = ours.step(answer) if answer else None
    return ours, theirs


def refusal(call: Callable[[], object]) -> remctl.RemctlAuthenticationError:
    with pytest.raises(remctl.RemctlAuthenticationError) as caught:
        call()
    return caught.value


class TestCredentials:
    def test_of_each_kind_authenticate_as_whom_they_say(self, box: Sandbox, alice: Principal) -> None:
        each = {
            Credentials.default(): box.user,
            Credentials.from_ccache(box.ccache): box.user,
            Credentials.from_ccache(f"FILE:{box.ccache}"): box.user,
            Credentials.from_ccache(Path(box.kinit(alice))): alice.name,
            Credentials.from_keytab(alice.keytab, alice.name): alice.name,
            Credentials.from_keytab(f"FILE:{alice.keytab}", alice.name): alice.name,
            Credentials.from_keytab(Path(alice.keytab), alice.name): alice.name,
            Credentials.from_password(alice.name, alice.password): alice.name,
        }
        for credentials, name in each.items():
            _, theirs = contexts(box, credentials)
            assert theirs.principal == name
            assert 0 < theirs.lifetime < 25 * 3600

    def test_show_their_kind_and_never_the_password(self, alice: Principal) -> None:
        secret = Credentials.from_password(alice.name, "s3cret")
        assert repr(secret) == f"<remctl.security.Credentials, password {alice.name}>"
        assert "s3cret" not in f"{secret} {secret!r}"
        assert repr(Credentials.default()) == "<remctl.security.Credentials, default>"
        assert repr(Credentials.from_ccache("FILE:/x")) == "<remctl.security.Credentials, ccache FILE:/x>"
        assert repr(Credentials.from_keytab("/k", "p")) == "<remctl.security.Credentials, keytab /k p>"

    def test_are_checked_when_they_are_made(self) -> None:
        makers: tuple[Callable[[Any], object], ...] = (
            lambda wrong: Credentials.from_ccache(wrong),
            lambda wrong: Credentials.from_keytab(wrong, "p"),
            lambda wrong: Credentials.from_keytab("/k", wrong),
            lambda wrong: Credentials.from_password(wrong, "password"),
            lambda wrong: Credentials.from_password("p", wrong),
        )
        wrongs: tuple[Any, ...] = (None, 5, "", "a\0b")
        for wrong in wrongs:
            for make in makers:
                with pytest.raises((TypeError, ValueError)):
                    make(wrong)

    @pytest.mark.parametrize("wrong", [5, "", "a\0b"], ids=ascii)
    def test_of_servers_are_checked_when_they_are_made(self, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="keytab"):
            ServerCredentials(wrong)
        with pytest.raises((TypeError, ValueError), match="principal"):
            ServerCredentials(None, wrong)

    @pytest.mark.parametrize("wrong", [b"s3cret", 53, "", "s3cret\0", "s3cret\udcff"], ids=ascii)
    def test_a_password_that_is_none_is_refused_without_being_shown(self, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="password") as caught:
            Credentials.from_password("p", wrong)
        assert "3" not in str(caught.value)

    def test_nothing_is_read_before_they_are_acquired(self) -> None:
        Credentials.from_keytab("/nowhere/keytab", "p")
        Credentials.from_ccache("/nowhere/cache")
        Credentials.from_password("p@NO.SUCH.REALM", "x")

    def test_errors_have_hints(self, box: Sandbox, alice: Principal, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        errors = {
            "no ticket: run kinit": Credentials.from_ccache("/nowhere/cache"),
            "the KDC does not know that principal": Credentials.from_password("nobody", "x"),
            "klist -k shows whether the keytab has a key of the principal": Credentials.from_keytab(
                alice.keytab, "somebody-else"
            ),
            "the password, or the key in the keytab, is not the principal's": Credentials.from_password(
                alice.name, "wrong"
            ),
        }
        for hint, credentials in errors.items():
            error = refusal(credentials.acquire)
            assert error.hint == hint
            assert error.reason.startswith("authentication failed: GSS-API error: ")
        for name, why in (("/nowhere/keytab", "No such file"), (str(tmp_path), "Is a directory")):
            assert why in refusal(Credentials.from_keytab(name, alice.name).acquire).reason
        assert refusal(Credentials.from_keytab(tmp_path / "empty", alice.name).acquire).hint is not None

    def test_a_password_is_in_no_text_of_an_error(self, alice: Principal) -> None:
        secret = secrets.token_hex()
        error = refusal(Credentials.from_password(alice.name, secret).acquire)
        text = "".join(traceback.format_exception(error))
        assert secret not in f"{text} {error!r} {vars(error)!r} {error.__cause__!r}"

    def test_a_cache_whose_name_is_no_utf_8_is_an_error_of_this_package(self) -> None:
        refusal(Credentials.from_ccache("/nowhere/\udcff").acquire)
        refusal(Credentials.from_keytab("/nowhere/\udcff", "p").acquire)

    def test_may_be_acquired_by_many_threads_at_once(self, alice: Principal) -> None:
        for credentials in (
            Credentials.from_password(alice.name, alice.password),
            Credentials.from_keytab(alice.keytab, alice.name),
        ):
            start = threading.Barrier(8)

            def acquire(number: int, credentials: Credentials = credentials, start: Any = start) -> object:
                start.wait(20)
                return credentials.acquire()

            with ThreadPoolExecutor(8) as pool:
                assert len(set(map(id, pool.map(acquire, range(8))))) == 1

    def test_default_cache_is_left_alone_by_keys_and_passwords(self, box: Sandbox, alice: Principal) -> None:
        before = Path(box.ccache).read_bytes()
        for credentials in (
            Credentials.from_password(alice.name, alice.password),
            Credentials.from_keytab(alice.keytab, alice.name),
        ):
            contexts(box, credentials)
        assert Path(box.ccache).read_bytes() == before


class TestRenewal:
    def test_tickets_of_a_password_are_replaced_before_they_end(
        self, box: Sandbox, alice: Principal, shortlived: Principal
    ) -> None:
        lasting = Credentials.from_password(alice.name, alice.password)
        assert lasting.acquire() is lasting.acquire()
        ending = Credentials.from_password(shortlived.name, shortlived.password)
        assert ending.acquire() is not ending.acquire()
        acquired = ending.acquire()
        wait_for_end(lambda: acquired.lifetime)
        assert contexts(box, ending)[1].principal == shortlived.name

    def test_tickets_of_a_key_are_replaced_before_they_end(self, box: Sandbox, shortlived: Principal) -> None:
        credentials = Credentials.from_keytab(shortlived.keytab, shortlived.name)
        acquired = credentials.acquire()
        wait_for_end(lambda: acquired.lifetime)
        assert contexts(box, credentials)[1].principal == shortlived.name

    def test_a_cache_that_somebody_renews_is_good_again(self, box: Sandbox, alice: Principal) -> None:
        ccache = box.kinit(alice, lifetime="1s")
        credentials = Credentials.from_ccache(ccache)
        acquired = credentials.acquire()
        wait_for_end(lambda: acquired.lifetime)

        def until_refused() -> None:
            while True:
                contexts(box, credentials)

        assert refusal(until_refused).hint == "the ticket has expired: run kinit"
        box.kinit(alice, ccache=ccache)
        assert contexts(box, credentials)[1].principal == alice.name


def wait_for_end(lifetime: Callable[[], float | None]) -> None:
    """Wait until tickets, or the context made with them, have ended."""
    deadline = time.monotonic() + 20
    with contextlib.suppress(gssapi.exceptions.ExpiredCredentialsError, gssapi.exceptions.ExpiredContextError):
        while lifetime():
            assert time.monotonic() < deadline
            time.sleep(0.05)


class TestServerCredentials:
    def test_take_every_key_or_that_of_one_principal(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        for credentials in (
            ServerCredentials(box.keytab, box.principal),
            ServerCredentials(Path(box.keytab)),
            ServerCredentials(),  # the sandbox's environment names it
        ):
            theirs = AcceptorContext(credentials.acquire())
            assert theirs.step(InitiatorContext("localhost", None, Credentials.default()).step(None))
            assert theirs.complete

    def test_say_what_is_missing(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        error = refusal(ServerCredentials("/nowhere/keytab").acquire)
        assert error.reason == "the keytab '/nowhere/keytab' cannot be read: No such file or directory"
        error = refusal(ServerCredentials(box.keytab, "host/other").acquire)
        assert error.reason.startswith(f"no key for host/other in the keytab {box.keytab}: GSS-API error: ")
        assert error.hint == "klist -k shows what a keytab holds"
        monkeypatch.setenv("KRB5_KTNAME", "/nowhere/default")
        assert "no key for a server in the keytab (default)" in refusal(ServerCredentials().acquire).reason


class TestContexts:
    def test_protect_messages_in_both_directions(self, box: Sandbox) -> None:
        ours, theirs = contexts(box)
        assert ours.complete
        assert theirs.complete
        assert ours.lacking == theirs.lacking == ()
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            for message in (b"", b"a short message", bytes(range(256)) * 256):
                wrapped = sender.wrap(message)
                assert message not in wrapped or not message
                assert receiver.unwrap(wrapped) == message
                receiver.verify(message, sender.sign(message))

    def test_are_incomplete_before_the_handshake(self, box: Sandbox) -> None:
        assert not InitiatorContext("localhost", None, Credentials.default()).complete
        assert not AcceptorContext(ServerCredentials(box.keytab).acquire()).complete

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda first, second: first[:-1] + bytes([first[-1] ^ 1]),
            lambda first, second: first[:-1],
            lambda first, second: b"",
            lambda first, second: b"garbage",
            lambda first, second: second,
        ],
        ids=["forged", "cut", "empty", "garbage", "out of order"],
    )
    def test_refuse_a_token_that_is(self, box: Sandbox, spoil: Callable[[bytes, bytes], bytes]) -> None:
        ours, theirs = contexts(box)
        spoilt = spoil(ours.wrap(b"first"), ours.wrap(b"second"))
        assert refusal(lambda: theirs.unwrap(spoilt)).reason.startswith("a token is not authentic: GSS-API error")

    def test_refuse_a_token_that_comes_twice(self, box: Sandbox) -> None:
        ours, theirs = contexts(box)
        token = ours.wrap(b"once")
        assert theirs.unwrap(token) == b"once"
        assert "duplicate" in refusal(lambda: theirs.unwrap(token)).reason.lower()

    def test_refuse_a_token_of_their_own(self, box: Sandbox) -> None:
        ours, _ = contexts(box)
        token = ours.wrap(b"reflected")
        refusal(lambda: ours.unwrap(token))

    def test_refuse_a_token_of_another_session(self, box: Sandbox) -> None:
        (ours, _), (_, theirs) = contexts(box), contexts(box)
        token = ours.wrap(b"elsewhere")
        refusal(lambda: theirs.unwrap(token))

    def test_refuse_a_token_that_is_not_encrypted(self, box: Sandbox) -> None:
        ours, theirs = contexts(box)
        plain = gssapi.raw.wrap(ours._established(), b"plain", confidential=False).message
        assert refusal(lambda: theirs.unwrap(plain)).reason == "a token came that was not encrypted"

    def test_refuse_a_mic_of_something_else(self, box: Sandbox) -> None:
        ours, theirs = contexts(box)
        for mic in (ours.sign(b"other"), b"", b"garbage", ours.sign(b"message")[:-1]):
            error = refusal(lambda mic=mic: theirs.verify(b"message", mic))  # type: ignore[misc]
            assert error.reason.startswith("a MIC is not authentic: GSS-API error")

    def test_say_which_protection_they_lack(self, box: Sandbox) -> None:
        plain = gssapi.SecurityContext(
            name=gssapi.Name(box.principal, gssapi.NameType.kerberos_principal),
            usage="initiate",
            mech=gssapi.MechType.kerberos,
            flags=gssapi.RequirementFlag.integrity,
        )
        theirs = AcceptorContext(ServerCredentials(box.keytab).acquire())
        theirs.step(plain.step())
        assert theirs.complete
        assert "mutual authentication" in theirs.lacking

    def test_refuse_a_handshake_of_garbage(self, box: Sandbox) -> None:
        theirs = AcceptorContext(ServerCredentials(box.keytab).acquire())
        assert refusal(lambda: theirs.step(b"garbage")).reason.startswith("authentication failed: GSS-API error")
        ours = InitiatorContext("localhost", box.principal, Credentials.default())
        ours.step(None)
        refusal(lambda: ours.step(b"garbage"))

    def test_refuse_a_ticket_for_another_server_and_tell_the_client(self, box: Sandbox) -> None:
        box.add_principal("host/elsewhere")
        ours = InitiatorContext("localhost", "host/elsewhere", Credentials.default())
        theirs = AcceptorContext(ServerCredentials(box.keytab).acquire())
        told = theirs.step(ours.step(None))
        assert told is not None
        assert "authentication failed" in refusal(lambda: theirs.complete).reason
        assert "authentication failed" in refusal(lambda: ours.step(told)).reason

    def test_outlive_the_ticket_as_sessions_with_remctld_do(self, box: Sandbox, shortlived: Principal) -> None:
        credentials = Credentials.from_password(shortlived.name, shortlived.password)
        ours, theirs = contexts(box, credentials)
        wait_for_end(lambda: gssapi.raw.inquire_context(ours._established()).lifetime)
        assert ours.lacking == ()
        assert theirs.unwrap(ours.wrap(b"message")) == b"message"
        assert theirs.principal == shortlived.name


def test_without_python_gssapi_the_import_names_the_extra() -> None:
    program = """
        import sys
        class Without:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "gssapi":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Without())
        import remctl, remctl.protocol
        for module in ("remctl.security", "remctl.aio", "remctl.aio.server"):
            try:
                __import__(module)
            except ImportError as error:
                print(error)
    """
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, env=os.environ, check=True
    )
    assert output.stdout == "python-gssapi is missing: pip install 'remctl-cffi[aio]'\n" * 3
