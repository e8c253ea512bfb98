"""The page in a real browser: Chromium signs in, submits a job, watches and stops it, and shows text as text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jobs.runners import until, working
from jobs.web.browser import PHONE, WIDE, Chromium, chromium
from jobs.web.pages import HOST, Pages, opened
from remctl.jobs.states import JobState
from remctl.testing import Sandbox

SLOW = "echo begun; until [ -e $gate ]; do sleep 0.02; done; echo all done"

SAY = 'printf "%s\\n" "$JOB_PARAM_TEXT" | tee /dev/stderr'

MARKUP = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</textarea></pre></title><script>document.title='taken'</script>",
    "<svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "javascript:alert(1)//' autofocus onfocus='alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt; \u202egnp.exe",
)


@pytest.fixture(scope="module")
def pages(remctl_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Give a server with the page, and a runner."""
    with opened(remctl_sandbox, tmp_path_factory.mktemp("pages") / "site") as made:
        made.site.install(SLOW, name="slow")
        made.site.install(
            'printf "%s\\n" "$JOB_PARAM_TEXT" | tee /dev/stderr', "[parameters.text]", 'type = "text"', name="say"
        )
        made.site.install("echo broken >&2; exit 3", name="broken")
        made.site.store.machines.add("alpha.example.org", "192.0.2.1", True)
        made.site.store.robots.add("R2", pool="night")
        with working(made.site):
            yield made
            made.site.open()


@pytest.fixture(scope="module")
def window(remctl_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Give a browser that knows the realm, with the ticket of nobody."""
    environment = remctl_sandbox.env | {"KRB5CCNAME": "FILE:/nonexistent"}
    with chromium(tmp_path_factory.mktemp("chromium"), environment) as started:
        yield started


@pytest.fixture
def ada(pages: Pages, window: Chromium) -> Chromium:
    """Give the browser of somebody who has signed in by the form."""
    window.wide(WIDE)
    window.go(pages.url)
    window.forget()
    window.go(pages.url)
    window.fill("#name", pages.people.ada.name)
    window.fill("#password", pages.people.ada.password)
    window.press("button.main")
    assert pages.people.ada.name in window.text(".who")
    window.complaints()
    return window


def submitted(window: Chromium) -> int:
    """Press the button of a script's page; return the number of the job whose page is shown then."""
    window.press("main form button")
    return int(window.url.rpartition("/")[2])


def says(window: Chromium, text: str) -> bool:
    """Return whether that is what both streams are shown with."""
    return window.text("#stdout") == window.text("#stderr") == text


def test_the_form_leads_to_where_somebody_wanted_to_go(pages: Pages, window: Chromium) -> None:
    window.go(f"{pages.url}/jobs?state=open")
    window.fill("#name", pages.people.ada.name)
    window.fill("#password", "wrong")
    window.press("button.main")
    assert window.text(".alert") == "Wrong name or password."
    window.fill("#password", pages.people.ada.password)
    window.press("button.main")
    assert window.url == f"{pages.url}/jobs?state=open"


def test_a_ticket_signs_in_without_a_question(pages: Pages, remctl_sandbox: Sandbox, tmp_path: Path) -> None:
    environment = remctl_sandbox.env | {"KRB5CCNAME": remctl_sandbox.kinit(pages.people.olga)}
    with chromium(tmp_path / "profile", environment, f"--auth-server-allowlist={HOST}") as window:
        window.go(f"{pages.url}/jobs")
        assert window.text("h1") == "History"
        assert pages.people.olga.name in window.text(".who")
        assert "operator" in window.text(".who")
        window.press(".who button")
        assert window.text("h1") == "Sign in"


def test_a_job_is_submitted_watched_and_ends_before_the_eyes(pages: Pages, ada: Chromium) -> None:
    pages.site.gate.unlink(missing_ok=True)
    ada.press('a[href="/scripts/slow"]')
    job = submitted(ada)
    until(lambda: "begun" in ada.text("#stdout"))
    until(lambda: "In progress" in ada.text("h1"))
    ada.run("window.stays = true")
    pages.site.open()
    until(lambda: "Success" in ada.text("h1"))
    until(lambda: ada.text("#stdout") == "begun\nall done")
    until(lambda: "The job is over." in ada.text("#live"))
    assert ada.title == f"Job {job}: Success - Jobs"
    assert "exit status 0" in ada.text("#facts")
    assert "Succeeded" in ada.text("#history")
    assert ada.run("return window.stays")
    assert ada.complaints() == []


def test_a_job_is_stopped_by_its_button(pages: Pages, ada: Chromium) -> None:
    pages.site.gate.unlink(missing_ok=True)
    ada.go(f"{pages.url}/scripts/slow")
    job = submitted(ada)
    until(lambda: "begun" in ada.text("#stdout"))
    ada.press('button[value="stop"]')
    until(lambda: "Stopped" in ada.text("h1"))
    assert pages.site.store.jobs.get(job).state is JobState.STOPPED
    assert f"It was stopped by {pages.people.ada.name}" in ada.text("#facts")
    assert ada.complaints() == []


def test_markup_in_parameters_and_output_stays_text(pages: Pages, ada: Chromium) -> None:
    for text in MARKUP:
        ada.go(f"{pages.url}/scripts/say")
        ada.fill("#p\\.text", text)
        job = submitted(ada)
        until(lambda: "Success" in ada.text("h1"))
        shown = text.replace("\u202e", "<U+202E>")
        until(partial(says, ada, shown))
        for _ in range(2):  # as the live part has written it, and as the server has
            assert says(ada, shown)
            assert ada.text(".values code") == shown
            assert ada.title == f"Job {job}: Success - Jobs"
            assert ada.run("return document.querySelectorAll('main img, main svg, main script').length") == 0
            ada.go(f"{pages.url}/jobs/{job}")
    ada.go(f"{pages.url}/jobs?script=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert ada.find("#script").get_property("value") == '"><script>alert(1)</script>'
    assert ada.complaints() == []


def test_pages_fit_on_screens_and_phones_and_break_no_rule(pages: Pages, ada: Chromium, tmp_path: Path) -> None:
    ada.go(f"{pages.url}/scripts/broken")
    failed = submitted(ada)
    until(lambda: "Failed" in ada.text("h1"))
    shown = {
        "home": "/",
        "script": "/scripts/echo",
        "history": "/jobs",
        "job": f"/jobs/{failed}",
        "machines": "/machines",
        "robots": "/robots",
    }
    for width in (WIDE, PHONE):
        ada.wide(width)
        for name, path in shown.items():
            ada.go(pages.url + path)
            ada.picture(tmp_path / f"{name}-{width}.png")
            assert ada.run("return document.documentElement.scrollWidth") <= width, name
            assert ada.run(OUTSIDE) == [], name
            assert ada.run(UNLABELLED) == [], name
    assert ada.complaints() == []
    for name, path in {"nothing": "/nothing", "sign-in": "/sign-in"}.items():
        ada.go(pages.url + path)
        ada.picture(tmp_path / f"{name}-{PHONE}.png")
        assert ada.run("return document.documentElement.scrollWidth") <= PHONE
    assert all("404" in complaint for complaint in ada.complaints())


OUTSIDE = """
return [...document.querySelectorAll("main *")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.right > document.documentElement.clientWidth && !element.closest("pre, thead");
}).map((element) => element.outerHTML);
"""
"""What reaches out of the page."""

UNLABELLED = """
return [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
  .filter((field) => field.labels.length === 0).map((field) => field.outerHTML);
"""
"""Fields without a label."""


def test_colours_are_far_enough_apart_in_light_and_dark(pages: Pages, ada: Chromium) -> None:
    for dark in (False, True):
        ada.dark(dark)
        for path in ("/", "/jobs", "/scripts/echo"):
            ada.go(pages.url + path)
            assert ada.run(PALE) == [], (path, dark)
    ada.dark(False)


PALE = """
const bright = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return colour === "rgba(0, 0, 0, 0)" && element.parentElement ? ground(element.parentElement) : colour;
};
return [...document.querySelectorAll("body *")]
  .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((element) => {
    const [low, high] = [bright(getComputedStyle(element).color), bright(ground(element))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) < 4.5;
  }).map((element) => element.outerHTML);
"""
"""Texts whose contrast is less than WCAG's AA."""


def test_the_main_way_works_without_scripts(pages: Pages, ada: Chromium) -> None:
    pages.site.gate.unlink(missing_ok=True)
    ada.scripts(False)
    try:
        ada.go(f"{pages.url}/scripts/slow")
        job = submitted(ada)
        ada.go(f"{pages.url}/jobs/{job}")
        assert "shows what there was when it was loaded" in ada.text("#live")
        pages.site.open()
        pages.site.over(job)
        ada.press("#live a")
        assert "Success" in ada.text("h1")
        assert ada.text("#stdout") == "begun\nall done"
    finally:
        ada.scripts(True)
