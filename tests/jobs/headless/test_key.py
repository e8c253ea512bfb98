"""The key that is made of a password."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import krb5
import pytest

from remctl._kerberos import unreachable
from remctl.exceptions import RemctlAuthenticationError
from remctl.jobs.headless import _key
from remctl.jobs.headless._codes import Code, HeadlessError
from remctl.security import Credentials, InitiatorContext
from remctl.testing import Sandbox

PASSWORD = "a secret, of a test"

Add = Callable[..., str]
Configure = Callable[[str, str], None]


@pytest.fixture
def add(box: Sandbox) -> Add:
    """Give a function that makes a principal as kadmin's options say, and returns its full name."""

    def adding(*options: str, password: str = PASSWORD) -> str:
        name = f"key-{secrets.token_hex(4)}@{box.realm}"
        said = box._realm().run_kadminl(f'addprinc -pw "{password}" {" ".join(options)} {name}')
        assert b"created" in said, said
        return name

    return adding


@pytest.fixture
def configure(box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Configure:
    """Give a function that changes krb5.conf, by a pattern and what replaces it."""

    def configuring(pattern: str, replacement: str) -> None:
        text, number = re.subn(pattern, replacement, Path(os.environ["KRB5_CONFIG"]).read_text())
        assert number
        (tmp_path / "krb5.conf").write_text(text)
        monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))

    return configuring


def kinit(name: str, keytab: bytes, folder: Path) -> None:
    (folder / "keytab").write_bytes(keytab)
    subprocess.run(["kinit", "-kt", folder / "keytab", "-c", folder / "cache", name], check=True, capture_output=True)


def refusal(call: Callable[[], object], code: Code) -> HeadlessError:
    with pytest.raises(HeadlessError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def keytab(name: str, password: bytes = b"any", kvno: int = 1) -> bytes:
    """Return a keytab with one key, which is right for nobody."""
    context = krb5.init_context()
    key = krb5.c_string_to_key(context, 18, password, b"salt")
    with _key._file(b"\5\2") as (descriptor, path):
        made = krb5.kt_resolve(context, path)
        krb5.kt_add_entry(context, made, krb5.parse_name_flags(context, name.encode()), kvno, 0, key)
        return os.pread(descriptor, 10_000, 0)


class TestPrincipal:
    def test_has_the_default_realm_if_it_names_none(self, box: Sandbox) -> None:
        assert _key.principal("alice") == "alice@SANDBOX.TEST"
        assert _key.principal("alice@OTHER.TEST") == "alice@OTHER.TEST"
        assert _key.principal("robot/host.example.org") == "robot/host.example.org@SANDBOX.TEST"

    @pytest.mark.parametrize("wrong", ["", "a@b@c", "a\udcff"], ids=ascii)
    def test_is_refused_if_it_is_none(self, box: Sandbox, wrong: str) -> None:
        assert refusal(lambda: _key.principal(wrong), Code.PARAMETER).hint == "it is given as user@REALM"

    def test_needs_a_realm_where_there_is_no_default(self, configure: Configure) -> None:
        configure(r"default_realm = .*", "")
        assert "default realm" in refusal(lambda: _key.principal("alice"), Code.PARAMETER).reason
        assert _key.principal("alice@R") == "alice@R"

    def test_needs_a_configuration_that_can_be_read(self, configure: Configure) -> None:
        configure(r"default_realm", "}{")
        error = refusal(lambda: _key.principal("alice@R"), Code.AUTHENTICATION)
        assert error.reason.startswith("Kerberos cannot be set up")
        assert not re.search(r"\d{6}", str(error))


class TestMaking:
    @pytest.mark.parametrize(
        "options",
        [
            [],
            ["+requires_preauth"],
            ["-requires_preauth"],
            ["-e", "aes256-cts:normal"],
            ["-e", "aes128-cts:normal"],
            ["-e", "aes256-sha2:normal"],
            ["-e", "arcfour-hmac:normal"],
            ["-e", "aes256-cts:special"],
            ["-e", "aes256-cts:norealm"],
        ],
        ids=" ".join,
    )
    @pytest.mark.parametrize("password", [PASSWORD, "pässwörd ☂"], ids=ascii)
    def test_kinit_takes_the_keytab(self, add: Add, tmp_path: Path, options: list[str], password: str) -> None:
        name = add(*options, password=password)
        kinit(name, _key.make(name, password), tmp_path)

    def test_salt_is_the_one_that_the_kdc_names(self, box: Sandbox, add: Add, tmp_path: Path) -> None:
        before, after = add("-e", "aes256-cts:normal"), f"renamed@{box.realm}"
        box._realm().run_kadminl(["renprinc", "-force", before, after])
        kinit(after, _key.make(after, PASSWORD), tmp_path)

    def test_password_is_not_in_the_keytab(self, add: Add) -> None:
        name = add()
        assert PASSWORD.encode() not in _key.make(name, PASSWORD)

    @pytest.mark.parametrize("option", ["+requires_preauth", "-requires_preauth"])
    def test_a_wrong_password_is_refused(self, add: Add, option: str) -> None:
        name = add(option)
        wrong = secrets.token_hex()
        error = refusal(lambda: _key.make(name, wrong), Code.AUTHENTICATION)
        assert error.hint == "the password, or the key in the keytab, is not the principal's"
        assert error.reason.startswith(f"the login of {name} failed: ")
        assert not re.search(r"\d{6}", str(error).replace(name, ""))
        assert wrong not in "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))

    @pytest.mark.parametrize(
        ("options", "hint"),
        [
            (["-expire", "2000-01-01"], "the account has expired: ask who keeps the realm"),
            (["-pwexpire", "2000-01-01"], "the password has expired: change it with kpasswd"),
            (["+needchange"], "the password has expired: change it with kpasswd"),
            (["-allow_tix"], "the account is locked or disabled: ask who keeps the realm"),
        ],
        ids=str,
    )
    def test_an_account_that_may_not_log_in_is_refused(self, add: Add, options: list[str], hint: str) -> None:
        name = add(*options)
        assert refusal(lambda: _key.make(name, PASSWORD), Code.AUTHENTICATION).hint == hint

    def test_a_principal_that_is_unknown_is_refused(self, box: Sandbox) -> None:
        error = refusal(lambda: _key.make(f"nobody@{box.realm}", PASSWORD), Code.AUTHENTICATION)
        assert error.hint == "the KDC does not know that principal"

    @pytest.mark.parametrize("password", ["", "s3cr3t\0", "s3cr3t\udcff"], ids=ascii)
    def test_what_can_be_no_password_is_refused_without_being_shown(self, box: Sandbox, password: str) -> None:
        error = refusal(lambda: _key.make(box.user, password), Code.PARAMETER)
        assert error.__cause__ is error.__context__ is None
        assert "s3cr3t" not in f"{error!r} {vars(error)!r}"

    def test_a_kdc_that_does_not_say_how_keys_are_made_is_an_error(
        self, box: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As KDCs did that are older than RFC 4120."""
        info: Any = krb5.get_etype_info(krb5.init_context(), krb5.parse_name_flags(krb5.init_context(), b"user"))
        monkeypatch.setattr(krb5, "get_etype_info", lambda *_: info._replace(etype=0, salt=None))
        assert "ktutil" in str(refusal(lambda: _key.make(box.user, PASSWORD), Code.AUTHENTICATION))


class TestWithoutKdc:
    @pytest.mark.parametrize("kdc", ["127.0.0.1:9", "kdc.invalid"])
    def test_making_is_an_error_of_the_connection(self, box: Sandbox, configure: Configure, kdc: str) -> None:
        configure(r"kdc = 127\S+", f"kdc = {kdc}")
        error = refusal(lambda: _key.make(box.user, PASSWORD), Code.CONNECTION)
        assert error.hint == "no KDC answers for the realm: check krb5.conf and the network"
        assert unreachable(error)

    def test_a_realm_that_nobody_knows_is_an_error_of_the_connection(self, box: Sandbox) -> None:
        refusal(lambda: _key.make("alice@NOWHERE.INVALID", PASSWORD), Code.CONNECTION)

    @pytest.mark.parametrize("kdc", ["127.0.0.1:9", "kdc.invalid"])
    def test_a_login_says_so(self, box: Sandbox, configure: Configure, kdc: str) -> None:
        configure(r"kdc = 127\S+", f"kdc = {kdc}")
        with pytest.raises(RemctlAuthenticationError) as caught:
            Credentials.from_keytab(box.keytab, box.principal).acquire()
        assert unreachable(caught.value)
        with pytest.raises(RemctlAuthenticationError) as caught:
            InitiatorContext("localhost", f"host/unasked@{box.realm}", Credentials.default()).step(None)
        assert unreachable(caught.value)

    def test_other_errors_say_that_they_are_others(self, box: Sandbox) -> None:
        for credentials in (
            Credentials.from_ccache("/nowhere/cache"),
            Credentials.from_password(box.user, "wrong"),
            Credentials.from_keytab("/nowhere/keytab", box.user),
        ):
            with pytest.raises(RemctlAuthenticationError) as caught:
                credentials.acquire()
            assert not unreachable(caught.value)
        assert not unreachable(ValueError())


class TestHolding:
    def test_gives_a_keytab_that_gss_api_takes(self, add: Add) -> None:
        name = add()
        with _key.held(_key.make(name, PASSWORD), name, "it") as held:
            assert str(Credentials.from_keytab(held, name).acquire().name) == name

    def test_ends_with_the_block(self, box: Sandbox) -> None:
        context = krb5.init_context()
        with _key.held(keytab(box.user), box.user, "it") as held, _key.held(keytab(box.user), box.user, "it") as again:
            assert held == again
            assert krb5.kt_have_content(context, krb5.kt_resolve(context, held.encode()))
        assert not krb5.kt_have_content(context, krb5.kt_resolve(context, held.encode()))

    def test_has_another_name_for_another_key_and_another_principal(self, box: Sandbox) -> None:
        names = []
        for content, name in ((keytab("a@R"), "a@R"), (keytab("b@R"), "b@R"), (keytab("a@R", b"other"), "a@R")):
            with _key.held(content, name, "it") as held:
                names.append(held)
        assert len(set(names)) == 3

    def test_takes_every_key_of_the_principal_and_no_other(self, box: Sandbox) -> None:
        content = keytab("a@R", kvno=1) + keytab("b@R")[2:] + keytab("a@R", kvno=2)[2:]
        context = krb5.init_context()
        with _key.held(content, "a@R", "it") as held:
            entries = krb5.kt_resolve(context, held.encode())
            assert {(str(entry.principal), entry.kvno) for entry in entries} == {("a@R", 1), ("a@R", 2)}

    def test_refuses_a_keytab_of_somebody_else(self, box: Sandbox) -> None:
        def hold() -> None:
            with _key.held(keytab("bob@R"), "alice@R", "the file"):
                pass

        assert refusal(hold, Code.AUTHENTICATION).reason == "the file has no key of alice@R, but of bob@R"

    @pytest.mark.parametrize("content", [b"x", b"password\n", b"\5\1" + bytes(100), b"\5", b"\5\2\0\0\0\x50abc"])
    def test_refuses_what_is_no_keytab(self, box: Sandbox, content: bytes) -> None:
        def hold() -> None:
            with _key.held(content, box.user, "the file"):
                pass

        assert refusal(hold, Code.PARAMETER).reason.startswith("the file is ")

    def test_refuses_a_keytab_without_keys(self, box: Sandbox) -> None:
        def hold() -> None:
            with _key.held(b"\5\2", box.user, "the file"):
                pass

        assert refusal(hold, Code.PARAMETER).reason == "the file is a keytab without keys"
