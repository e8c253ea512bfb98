"""Signing in with a ticket and with a password, against a real KDC; sessions; and what guards them."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from itsdangerous import URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from jobs.web.pages import Browser, Pages, hidden, opened
from jobs.web.served import Served
from remctl.jobs.service import Service
from remctl.jobs.settings import Settings
from remctl.jobs.web import _application
from remctl.jobs.web._negotiate import Gate, UnavailableError, host_of
from remctl.jobs.web._sessions import KEY, SessionKeyError, Sessions
from remctl.jobs.web._signin import local
from remctl.jobs.web._signin_limiter import ADDRESS_TRIES, KEYS, TRIES, WINDOW, Limiter
from remctl.testing import Sandbox
from remctl.testing.server import free_port


@pytest.fixture(scope="module")
def pages(remctl_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Give a server with the page."""
    with opened(remctl_sandbox, tmp_path_factory.mktemp("pages") / "site") as made:
        yield made


@pytest.fixture
def browser(pages: Pages) -> Iterator[Browser]:
    """Give a client that has not signed in."""
    with pages.client() as made:
        yield made


def test_a_stranger_is_asked_for_a_ticket_and_shown_the_form(browser: Browser) -> None:
    answer = browser.get("/jobs?state=open")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Negotiate"
    assert hidden(answer.text) == {"next": "/jobs?state=open"}


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/1", "/jobs/1/live", "/jobs/1/output/stdout", "/machines", "/x"])
def test_nothing_is_shown_to_strangers(browser: Browser, path: str) -> None:
    assert browser.get(path).status_code == 401
    assert browser.post("/jobs/1", data={"move": "stop"}).status_code == 401


def test_a_ticket_lets_in_and_the_session_goes_on_without(
    pages: Pages, browser: Browser, remctl_sandbox: Sandbox
) -> None:
    ticket = pages.ticket(remctl_sandbox.kinit(pages.people.ada))
    answer = browser.get("/jobs", headers=ticket)
    assert answer.status_code == 200
    assert pages.people.ada.name in answer.text
    assert answer.headers["www-authenticate"].startswith("Negotiate ")
    assert browser.get("/jobs").status_code == 200


def test_a_ticket_is_taken_once(pages: Pages, browser: Browser, remctl_sandbox: Sandbox) -> None:
    ticket = pages.ticket(remctl_sandbox.kinit(pages.people.ada))
    assert browser.get("/", headers=ticket).status_code == 200
    browser.cookies.clear()
    answer = browser.get("/", headers=ticket)
    assert answer.status_code == 401
    assert "ticket was not accepted" in answer.text


def test_a_session_ends_with_its_ticket(pages: Pages, browser: Browser, remctl_sandbox: Sandbox) -> None:
    ticket = pages.ticket(remctl_sandbox.kinit(pages.people.ada, lifetime="10m"))
    answer = browser.get("/", headers=ticket)
    age = re.search(r"Max-Age=(\d+)", answer.headers["set-cookie"])
    assert age is not None
    assert int(age[1]) <= 15 * 60  # krb5 adds the clock skew that it allows


@pytest.mark.parametrize("token", ["!", "bm90aGluZw==", "TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAGAbEdAAAADw=="])
def test_what_is_no_ticket_gets_the_form(browser: Browser, token: str) -> None:
    answer = browser.get("/", headers={"authorization": f"Negotiate {token}"})
    assert answer.status_code == 401
    assert "<form" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_ticket_for_another_service_is_refused(pages: Pages, browser: Browser, remctl_sandbox: Sandbox) -> None:
    remctl_sandbox.add_principal("HTTP/elsewhere.example.org")
    ticket = pages.ticket(remctl_sandbox.kinit(pages.people.ada), "elsewhere.example.org")
    assert browser.get("/", headers=ticket).status_code == 401


def test_a_password_lets_in_and_leads_on(pages: Pages, browser: Browser) -> None:
    ada = pages.people.ada
    answer = browser.sign_in(ada.name, ada.password, "/jobs?state=open")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=open")
    assert browser.get("/jobs").status_code == 200


def test_a_name_without_realm_is_of_the_default_one(pages: Pages, browser: Browser) -> None:
    ada = pages.people.ada
    assert browser.sign_in(f" {ada.name.partition('@')[0]} ", ada.password).status_code == 303
    assert ada.name in browser.get("/").text


def test_no_ticket_cache_is_touched(pages: Pages, browser: Browser, remctl_sandbox: Sandbox) -> None:
    before = Path(remctl_sandbox.ccache).read_bytes()
    browser.sign_in(pages.people.ada.name, pages.people.ada.password)
    assert Path(remctl_sandbox.ccache).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("page-bob", "wrong"),
        ("page-bob", ""),
        ("nobody", "wrong"),
        ("", "x"),
        ("a@b@c", "x"),
        ("a\0b", "x"),
    ],
)
def test_what_is_wrong_is_not_said(
    browser: Browser, name: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = browser.sign_in(name, password)
    assert answer.status_code == 403
    assert "Wrong name or password." in answer.text
    assert "set-cookie" not in answer.headers
    assert "wrong" not in caplog.text


def test_a_wrong_password_is_logged_with_the_reason(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    browser.sign_in("page-olga", "a secret of hers")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "page-olga" in record.getMessage()
    assert "Decrypt integrity check failed" in record.getMessage()
    assert "a secret of hers" not in caplog.text


def test_an_expired_account_is_told(pages: Pages, browser: Browser) -> None:
    answer = browser.sign_in(pages.people.eve.name, pages.people.eve.password)
    assert answer.status_code == 403
    assert "This account has expired." in answer.text


def test_a_realm_that_nobody_knows_is_told(browser: Browser) -> None:
    answer = browser.sign_in("ada@NOWHERE.TEST", "x")
    assert answer.status_code == 403
    assert "There is no such realm" in answer.text


def test_a_kdc_that_cannot_be_reached_is_told_and_does_not_count(
    pages: Pages, browser: Browser, remctl_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = Path(remctl_sandbox.env["KRB5_CONFIG"]).read_text()
    (tmp_path / "krb5.conf").write_text(re.sub(r"(kdc = \S+:)\d+", rf"\g<1>{free_port('127.0.0.1')}", known))
    ada = pages.people.ada
    with monkeypatch.context() as away:
        away.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
        for _ in range(TRIES + 1):
            answer = browser.sign_in(ada.name, ada.password)
            assert answer.status_code == 503
            assert "No Kerberos server can be reached" in answer.text
    assert browser.sign_in(ada.name, ada.password).status_code == 303


def test_a_kdc_that_does_not_know_our_key_lets_nobody_in(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    """As one does not that somebody else has set up, and that says yes to every password."""
    with Sandbox(export=False) as other:
        settings = serving_with(pages.site.settings, keytab=other.add_principal("HTTP/localhost").keytab)
        with pytest.raises(UnavailableError, match="not the right one"):
            Gate(settings).by_password(pages.people.ada.name, pages.people.ada.password)
    assert "does not fit the key here" in caplog.text


def test_a_server_whose_principal_the_kdc_does_not_know_says_so(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    settings = serving_with(pages.site.settings, url="https://other.example.org")
    with pytest.raises(UnavailableError, match="the log of this server says why"):
        Gate(settings).by_password(pages.people.ada.name, pages.people.ada.password)
    assert "HTTP@other.example.org failed" in caplog.text


@pytest.mark.parametrize("keytab", ["missing.keytab", "jobs.toml"])
def test_a_server_without_a_key_says_that_it_is_not_set_up(
    pages: Pages, keytab: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(serving_with(pages.site.settings, keytab=keytab), pages.site.store)
    with Served(service) as served, Browser(served.url) as browser:
        for answer in (
            browser.get("/jobs"),
            browser.get("/sign-in"),
            browser.get("/", headers={"authorization": "Negotiate x"}),
        ):
            assert answer.status_code == 503
            assert "Kerberos is not set up here" in answer.text
        assert browser.sign_in("ada", "x").status_code == 503
    assert f"there is no key for HTTP in {service.settings.folder / keytab}" in caplog.text


def test_the_principal_is_that_of_the_url(pages: Pages) -> None:
    assert host_of(serving_with(pages.site.settings, url="https://jobs.example.org:8443/")) == "jobs.example.org"
    assert host_of(serving_with(pages.site.settings, url=None, listen="jobs.example.org")) == "jobs.example.org"
    assert host_of(serving_with(pages.site.settings, url=None, listen="127.0.0.1")) == socket.getfqdn()


# Guessing


def test_guessing_ends(browser: Browser) -> None:
    for _ in range(TRIES):
        assert browser.sign_in("guessed", "x").status_code == 403
    answer = browser.sign_in("GUESSED@SANDBOX.TEST", "x")
    assert answer.status_code == 429
    assert "Too many tries" in answer.text
    assert browser.sign_in("another", "x").status_code == 403


def test_tries_are_counted_by_name_and_by_address_and_forgiven() -> None:
    limiter = Limiter()
    assert all(limiter.begin("192.0.2.1", "ada") for _ in range(TRIES))
    assert not any(limiter.begin("192.0.2.1", name) for name in ("ada", " Ada@SANDBOX.TEST", "a\\da", "\\a\\d\\a@x"))
    assert limiter.begin("192.0.2.2", "ada")
    limiter.forgive("192.0.2.1", "ada")
    assert limiter.begin("192.0.2.1", "ada")
    assert not limiter.begin("192.0.2.1", "ada")  # what was wrong before still counts
    assert all(limiter.begin("192.0.2.1", f"name{number}") for number in range(ADDRESS_TRIES - TRIES))
    assert not limiter.begin("192.0.2.1", "another")


def test_tries_of_a_machine_with_many_people_are_counted_by_name_alone() -> None:
    limiter = Limiter()
    assert all(limiter.begin("127.0.0.1", f"name{number}") for number in range(ADDRESS_TRIES + 1))


def test_a_try_that_could_not_be_made_does_not_hide_those_before(browser: Browser) -> None:
    for _ in range(TRIES - 1):
        assert browser.sign_in("hidden", "x").status_code == 403
    assert browser.sign_in("hidden@", "x").status_code == 503  # no KDC can be found for such a realm
    assert browser.sign_in("hidden", "x").status_code == 403
    assert browser.sign_in("hidden", "x").status_code == 429


def test_tries_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = Limiter()
    while limiter.begin("192.0.2.1", "ada"):
        pass
    later = time.monotonic() + WINDOW
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert limiter.begin("192.0.2.1", "ada")


def test_tries_take_no_more_memory_than_some() -> None:
    limiter = Limiter()
    for number in range(KEYS + 10):
        limiter.begin(f"address {number}", "ada")
    assert len(limiter._tries) == KEYS


# The form


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"origin": "http://["},
        {"x": ""},
    ],
)
def test_a_form_that_another_page_sends_signs_nobody_in(
    pages: Pages, browser: Browser, headers: dict[str, str]
) -> None:
    answer = browser.sign_in(pages.people.ada.name, pages.people.ada.password, **headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "evil",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(pages: Pages, browser: Browser, path: str) -> None:
    answer = browser.sign_in(pages.people.ada.name, pages.people.ada.password, path)
    assert answer.headers["location"] == "/"
    assert hidden(browser.get("/sign-in", params={"next": path}).text)["next"] == "/"


def test_paths_of_ours_are_kept() -> None:
    assert local("/jobs?state=open&script=a") == "/jobs?state=open&script=a"


def test_passwords_are_taken_over_loopback_or_tls_alone(pages: Pages) -> None:
    application = _application.application(Service(pages.site.settings, pages.site.store))

    async def ask(client: str, scheme: str) -> tuple[str, int]:
        transport = httpx.ASGITransport(application, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://localhost") as browser:
            form = {"name": "nobody", "password": "x"}
            sent = await browser.post("/sign-in", data=form, headers={"origin": f"{scheme}://localhost"})
            return (await browser.get("/sign-in")).text, sent.status_code

    for client, scheme in (
        ("127.0.0.1", "http"),
        ("::1", "http"),
        ("::ffff:127.0.0.1", "http"),
        ("192.0.2.9", "https"),
    ):
        text, _ = asyncio.run(ask(client, scheme))
        assert 'type="password"' in text
    for client in ("192.0.2.9", "testclient"):
        text, status = asyncio.run(ask(client, "http"))
        assert 'type="password"' not in text
        assert "the connection is not encrypted" in text
        assert status == 403


# Sessions


def test_cookies_are_for_this_site_alone(pages: Pages, browser: Browser) -> None:
    cookie = browser.sign_in(pages.people.ada.name, pages.people.ada.password).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert cookie.startswith("remctl-jobs=")
    assert "Secure" not in cookie


def test_cookies_of_an_encrypted_site_are_for_it_alone(pages: Pages) -> None:
    sessions = Sessions(serving_with(pages.site.settings, url="https://localhost"))
    response = Response()
    sessions.give(Request({"type": "http", "headers": []}), response, sessions.make("ada@SANDBOX.TEST", 100))
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-remctl-jobs=")
    assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_cookie_that_was_changed_or_has_ended_is_none(pages: Pages, browser: Browser) -> None:
    sessions = Sessions(pages.site.settings)
    browser.sign_in(pages.people.bob.name, pages.people.bob.password)
    cookie = browser.cookies["remctl-jobs"]
    stranger = URLSafeSerializer(b"another key", salt="session").dumps(["olga", "1", time.time() + 100])
    ended = sessions._serializer.dumps(["olga", "1", time.time() - 1])
    for value in (f"{cookie[:-2]}AA", cookie[1:], "x", stranger, ended):
        browser.cookies.clear()
        assert browser.get("/", headers={"cookie": f"remctl-jobs={value}"}).status_code == 401
    assert browser.get("/", headers={"cookie": f"remctl-jobs={cookie}"}).status_code == 200


def test_signing_out_ends_the_session_also_for_copies(pages: Pages) -> None:
    with pages.client(pages.people.ada) as browser:
        copy = browser.cookies["remctl-jobs"]
        form = browser.fields("/machines")
        assert browser.post("/sign-out", data=form | {"token": "x"}).status_code == 403
        answer = browser.post("/sign-out", data=form, headers=browser.origin)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
        assert browser.get("/").status_code == 401
        assert browser.get("/", headers={"cookie": f"remctl-jobs={copy}"}).status_code == 401
        assert browser.post("/sign-out").status_code == 303


def test_forms_are_taken_from_the_pages_of_a_session_alone(pages: Pages) -> None:
    with pages.client(pages.people.ada) as ada, pages.client(pages.people.bob) as bob:
        form = ada.fields("/scripts/echo") | {"p.text": "x"}
        foreign = bob.fields("/scripts/echo")["token"]
        for sent, headers in (
            (form | {"token": foreign}, ada.origin),
            ({name: value for name, value in form.items() if name != "token"}, ada.origin),
            (form | {"token": "\u00e4"}, ada.origin),
            (form, {"origin": "https://evil.example"}),
            (form, ada.origin | {"sec-fetch-site": "cross-site"}),
            (form, {"sec-fetch-site": "same-site"}),
        ):
            assert ada.post("/scripts/echo", data=sent, headers=headers).status_code == 403
        assert pages.site.store.jobs.listed(owner=pages.people.ada.name) == []
        assert ada.post("/scripts/echo", data=form, headers=ada.origin).status_code == 303


def test_somebody_who_may_not_use_the_jobs_is_told(pages: Pages, browser: Browser, remctl_sandbox: Sandbox) -> None:
    zoe = remctl_sandbox.add_principal("page-zoe")
    assert browser.sign_in(zoe.name, zoe.password).status_code == 303
    answer = browser.get("/")
    assert answer.status_code == 403
    assert "may not use the jobs" in answer.text
    assert "Sign out" in answer.text


def test_the_key_of_sessions_is_made_once_for_the_owner_alone(pages: Pages) -> None:
    key = pages.site.settings.folder / KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert len(before) == 32
    Sessions(pages.site.settings)
    assert key.read_bytes() == before


def test_a_key_that_others_know_or_that_is_short_is_refused(pages: Pages, tmp_path: Path) -> None:
    settings = pages.site.settings._replace(folder=tmp_path)
    (tmp_path / KEY).write_bytes(b"short")
    (tmp_path / KEY).chmod(0o600)
    with pytest.raises(SessionKeyError, match="shorter than 32 bytes"):
        Sessions(settings)
    (tmp_path / KEY).chmod(0o644)
    with pytest.raises(SessionKeyError, match="others may read or change it; delete it"):
        Sessions(settings)
    with pytest.raises(SessionKeyError, match="No such file or directory"):
        Sessions(settings._replace(folder=tmp_path / "missing"))


def serving_with(settings: Settings, **server: object) -> Settings:
    """Return settings with others for the server."""
    return settings._replace(server=msgspec.structs.replace(settings.server, **server))
