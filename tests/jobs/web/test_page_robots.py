"""Robots on the page: what is shown of them, and jobs for them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from jobs.web.pages import Browser, Pages, opened
from remctl.jobs.states import RobotStatus
from remctl.testing import Sandbox


@pytest.fixture(scope="module")
def shared(remctl_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Give a server with the page."""
    with opened(remctl_sandbox, tmp_path_factory.mktemp("robots") / "site") as made:
        made.site.install("exit 0", name="work")
        yield made


@pytest.fixture
def pages(shared: Pages) -> Iterator[Pages]:
    """Give it without robots."""
    yield shared
    with shared.site.store.database.write() as connection:
        for table in ("jobs", "robots"):
            connection.exec_driver_sql(f"DELETE FROM {table}")


@pytest.fixture
def ada(pages: Pages) -> Iterator[Browser]:
    """Give somebody who has signed in."""
    with pages.client(pages.people.ada) as made:
        yield made


def sent(browser: Browser, where: str, form: dict[str, str] | None = None) -> httpx.Response:
    """Submit a job of `work` to somewhere."""
    fields = browser.fields("/scripts/work") if form is None else form
    return browser.post("/scripts/work", data=fields | {"where": where}, headers=browser.origin)


def places(browser: Browser) -> list[tuple[str, str]]:
    """Return where a job of `work` may run, as the form says."""
    return re.findall(r'<option value="([^"]*)"[^>]*>([^<]*)</option>', browser.get("/scripts/work").text)


def test_robots_are_shown_and_their_guids_are_not(pages: Pages, ada: Browser) -> None:
    assert "No robot is known yet" in ada.get("/robots").text
    store = pages.site.store
    one = store.robots.add("R<1>", pool="night")
    store.robots.add("S2", licensed=False)
    store.robots.heard(one.guid, RobotStatus.READY, 60, machine="pc7.example.org", address="192.0.2.7")
    job = int(sent(ada, "robot:R<1>").headers["location"].rpartition("/")[2])
    assert store.robots.claim(one.guid, 60) is not None
    store.robots.heard(one.guid, RobotStatus.WORKING, 60)
    page = ada.get("/robots").text
    shown = rf'R&lt;1&gt;.*Working.*night.*pc7\.example\.org.*UTC.*<a href="/jobs/{job}">.*S2.*Unlicensed.*never'
    assert re.search(shown, page, re.DOTALL)
    for path in ("/robots", "/scripts/work", f"/jobs/{job}", "/machines"):
        assert not any(robot.guid in ada.get(path).text for robot in store.robots.all())


def test_jobs_of_others_are_shown_to_operators_alone(pages: Pages, ada: Browser) -> None:
    robot = pages.site.store.robots.add("R2")
    link = f'<a href="{sent(ada, "robot:R2").headers["location"]}">'
    assert pages.site.store.robots.claim(robot.guid, 60) is not None
    assert link in ada.get("/robots").text
    for person, shown in ((pages.people.bob, False), (pages.people.olga, True)):
        with pages.client(person) as other:
            assert (link in other.get("/robots").text) is shown


def test_a_form_has_no_choice_of_places_where_there_are_no_robots(ada: Browser) -> None:
    assert "Run on" not in ada.get("/scripts/work").text
    assert places(ada) == []


def test_a_form_offers_pools_and_robots_that_have_a_name_of_their_own(pages: Pages, ada: Browser) -> None:
    for name, pool in (("R2", "night"), ("R1", "night"), ("twin", None), ("twin", "day")):
        pages.site.store.robots.add(name, pool=pool)
    assert places(ada) == [
        ("", "this server&#39;s runners"),
        ("pool:day", "any robot of the pool day"),
        ("pool:night", "any robot of the pool night"),
        ("robot:R1", "the robot R1"),
        ("robot:R2", "the robot R2"),
    ]


@pytest.mark.parametrize(
    ("where", "fact", "waits"),
    [
        ("robot:R2", "<dt>Robot</dt><dd>R2</dd>", "the robot R2"),
        ("pool:night", "<dt>Pool</dt><dd>night</dd>", "a robot of the pool night"),
        ("", "<dt>Script</dt>", "a runner"),
    ],
)
def test_a_job_is_for_what_was_chosen_and_its_page_says_so(
    pages: Pages, ada: Browser, where: str, fact: str, waits: str
) -> None:
    pages.site.store.robots.add("R2", pool="night")
    page = ada.get(sent(ada, where).headers["location"]).text
    assert fact in page
    assert f"It waits to be taken by {waits}." in page


def test_the_same_form_sent_to_another_place_is_another_job(pages: Pages, ada: Browser) -> None:
    pages.site.store.robots.add("R2", pool="night")
    form = ada.fields("/scripts/work")
    first, again, other = (sent(ada, where, form).headers["location"] for where in ("", "", "pool:night"))
    assert first == again != other


@pytest.mark.parametrize(("where", "reason"), [("robot:R9", "&#39;R9&#39;"), ("pool:x", "of the pool &#39;x&#39;")])
def test_a_robot_that_is_gone_is_said_in_the_form(pages: Pages, ada: Browser, where: str, reason: str) -> None:
    answer = sent(ada, where)
    assert answer.status_code == 422
    assert f'role="alert">there is no robot {reason}.' in answer.text


def test_what_was_chosen_stays_when_a_value_is_wrong(pages: Pages, ada: Browser) -> None:
    pages.site.store.robots.add("R2", pool="night")
    form = ada.fields("/scripts/echo") | {"p.text": "hello", "p.count": "99", "where": "pool:night"}
    answer = ada.post("/scripts/echo", data=form, headers=ada.origin)
    assert answer.status_code == 422
    assert '<option value="pool:night" selected>' in answer.text


@pytest.mark.parametrize("where", ["moon", "robot:", "moon:R2"])
def test_a_place_that_no_form_offers_is_refused(ada: Browser, where: str) -> None:
    answer = sent(ada, where)
    assert answer.status_code == 400
    assert "There is no such place to run" in answer.text


def test_a_script_that_was_turned_off_meanwhile_is_said(pages: Pages, ada: Browser) -> None:
    form = ada.fields("/scripts/work")
    pages.site.store.scripts.enable("work", False)
    try:
        assert sent(ada, "", form).status_code == 404
    finally:
        pages.site.store.scripts.enable("work", True)


def test_robots_are_for_nobody_who_has_not_signed_in(pages: Pages) -> None:
    pages.site.store.robots.add("R2")
    with pages.client() as stranger:
        answer = stranger.get("/robots")
    assert answer.status_code == 401
    assert "R2" not in answer.text
