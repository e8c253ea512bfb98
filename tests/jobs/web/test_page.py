"""What the page shows and does, over real HTTP; see test_page_browser for a real browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobs.runners import WAIT, until, working
from jobs.web.pages import Browser, Pages, opened
from jobs.web.served import RUNNER
from remctl.jobs.service import Service
from remctl.jobs.states import JobState, Move, Reason
from remctl.jobs.store import Ended, Output, new_bid
from remctl.jobs.web import _live, _views
from remctl.testing import Sandbox


@pytest.fixture(scope="module")
def pages(remctl_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Give a server with the page."""
    with opened(remctl_sandbox, tmp_path_factory.mktemp("pages") / "site") as made:
        made.site.install("exit 0", name="work")
        made.site.install(WAIT, name="wait")
        yield made


@pytest.fixture
def ada(pages: Pages) -> Iterator[Browser]:
    """Give somebody who has signed in, without jobs."""
    with pages.client(pages.people.ada) as made:
        yield made
    for job in pages.site.store.jobs.listed(states=[state for state in JobState if not state.final]):
        pages.site.store.jobs.ask(job.id, Move.ABORT, "test")


@pytest.fixture
def bob(pages: Pages) -> Iterator[Browser]:
    """Give another one."""
    with pages.client(pages.people.bob) as made:
        yield made


@pytest.fixture
def olga(pages: Pages) -> Iterator[Browser]:
    """Give an operator."""
    with pages.client(pages.people.olga) as made:
        yield made


# Every answer


def test_every_answer_keeps_browsers_from_what_no_page_needs(ada: Browser) -> None:
    for path in ("/", "/jobs", "/nothing", "/static/page.js", "/sign-in"):
        headers = ada.get(path).headers
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers.get_list("cache-control") == ["no-cache" if "static" in path else "no-store"]


def test_files_are_kept_by_browsers_until_they_change(ada: Browser) -> None:
    paths = re.findall(r'"(/static/[^"]+)"', ada.get("/").text)
    assert len(paths) == 3
    for path in paths:
        answer = ada.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert ada.get("/static/page.html").status_code == 404


def test_pages_have_no_script_and_no_style_in_them() -> None:
    for template in (Path(_views.__file__).parent / "templates").iterdir():
        text = template.read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)|\|\s*safe|javascript:", text), template


def test_what_is_not_there_is_said_kindly(ada: Browser) -> None:
    for path in ("/nothing", "/jobs/0", "/jobs/99999999999999999999", "/jobs/x", "/jobs/1%00", "/scripts/nothing"):
        answer = ada.get(path)
        assert answer.status_code == 404, path
        assert "<h1>Not found</h1>" in answer.text
    for path in ("/scripts/a%00b", "/jobs?script=a%00b", "/jobs?before=x", "/jobs/1/output/stdin"):
        assert ada.get(path).status_code == 404
    assert ada.post("/machines").status_code == 405


def test_what_is_no_form_is_refused(ada: Browser) -> None:
    for body in (b"\xff", b"a=%ff", b"&".join(b"a=1" for _ in range(2000))):
        assert ada.post("/jobs/1", content=body).status_code == 400
    assert ada.post("/jobs/1", content=b"a" * (3 << 20)).status_code == 413


def test_a_database_that_is_away_is_said_and_its_values_are_not_logged(
    pages: Pages, ada: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    form = ada.fields("/scripts/echo")
    engine = pages.site.store.database.engine

    def away(*_: object, **__: object) -> None:
        raise OperationalError("INSERT", {"secret": "canary"}, OSError("no connection"))

    with monkeypatch.context() as patched:
        patched.setattr(engine, "connect", away)
        for answer in (ada.get("/jobs"), ada.post("/scripts/echo", data=form, headers=ada.origin)):
            assert answer.status_code == 503
            assert "The database cannot be reached" in answer.text
            assert answer.headers["retry-after"]
    assert "no connection" in caplog.text
    assert "canary" not in caplog.text
    assert ada.get("/jobs").status_code == 200


def test_what_nobody_expects_is_said_without_details(
    ada: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("remctl.jobs.service.Desk.machines", broken)
    answer = ada.get("/machines")
    assert answer.status_code == 500
    assert "<h1>Something is broken</h1>" in answer.text
    assert "canary" not in answer.text
    until(lambda: "canary" in caplog.text)  # the server writes it when it has answered


# Scripts and their forms


def test_the_first_page_has_the_scripts_that_somebody_may_use(pages: Pages, ada: Browser) -> None:
    text = ada.get("/").text
    assert 'href="/scripts/echo"' in text
    pages.site.store.scripts.enable("work", False)
    assert 'href="/scripts/work"' not in ada.get("/").text
    assert ada.get("/scripts/work").status_code == 404
    pages.site.store.scripts.enable("work", True)


def test_the_form_has_a_labelled_field_for_each_parameter(ada: Browser) -> None:
    text = ada.get("/scripts/echo").text
    for name in ("text", "count", "lines", "loud", "colour", "word", "key"):
        assert f'<label for="p.{name}">{name}' in text
    fields = {found[1]: found[0] for found in re.findall(r'<((?:input|select|textarea) id="p\.(\w+)".*?)>', text)}
    assert 'type="number"' in fields["count"]
    assert 'min="1" max="10" step="1"' in " ".join(text.split()).replace(" >", ">")
    assert fields["lines"].startswith("textarea")
    assert fields["loud"].startswith("select")
    assert fields["colour"].startswith("select")
    assert '<option value="green &lt;&amp;&gt;">' in text
    assert 'type="password" value=""' in fields["key"]
    assert " required" in fields["text"]
    assert " required" not in fields["key"]
    assert "Has to match [a-z]+; default: hello" in text


def test_the_form_submits_what_was_typed(pages: Pages, ada: Browser) -> None:
    typed = {"text": "héllo", "count": "3", "lines": "a\r\nb", "loud": "true", "colour": "green <&>", "word": "abc"}
    job = ada.submit("echo", **typed, key="canary")
    found = pages.site.store.jobs.get(job)
    assert found.owner == pages.people.ada.name
    assert found.parameters == {
        "text": "héllo",
        "count": 3,
        "lines": "a\nb",
        "loud": True,
        "colour": "green <&>",
        "word": "abc",
    }
    assert "canary" not in ada.get(f"/jobs/{job}").text


def test_what_is_left_empty_has_its_default(pages: Pages, ada: Browser) -> None:
    job = ada.submit("echo", text="x", count="", lines="", key="")
    assert pages.site.store.jobs.get(job).parameters == {
        "text": "x",
        "count": 2,
        "loud": False,
        "colour": "red",
        "word": "hello",
    }


def test_all_that_is_wrong_is_said_at_its_field_and_nothing_typed_is_lost_but_secrets(
    pages: Pages, ada: Browser
) -> None:
    before = pages.site.store.jobs.listed(limit=1)
    form = ada.fields("/scripts/echo")
    typed = {"p.text": "", "p.count": "11", "p.word": "A<b>", "p.lines": "\nkept", "p.key": "a secret\n"}
    answer = ada.post("/scripts/echo", data=form | typed, headers=ada.origin)
    assert answer.status_code == 422
    text = html.unescape(answer.text)
    complaints = {"text": "It is missing", "count": "It must be ", "word": "It ", "key": "It has a control"}
    for name, complaint in complaints.items():
        assert re.search(rf'<p class="error" id="p\.{name}\.error">{complaint}', text), name
    assert 'value="11"' in text
    assert 'value="A&lt;b&gt;"' in answer.text
    assert ">\n\nkept</textarea>" in answer.text.replace("\r", "")
    assert "a secret" not in text
    assert form["key"] in text
    assert pages.site.store.jobs.listed(limit=1) == before


def test_values_that_are_too_long_together_are_refused(ada: Browser) -> None:
    form = ada.fields("/scripts/echo") | {"p.text": "a" * 70_000}
    answer = ada.post("/scripts/echo", data=form, headers=ada.origin)
    assert answer.status_code == 422
    assert "longer than 65536 bytes" in answer.text


def test_a_form_that_is_sent_twice_is_one_job_and_with_other_values_another(ada: Browser) -> None:
    form = ada.fields("/scripts/echo")
    places = [
        ada.post("/scripts/echo", data=form | {"p.text": text}, headers=ada.origin).headers["location"]
        for text in ("one", "one", "two")
    ]
    assert places[0] == places[1] != places[2]
    lost = form | {"key": "x", "p.text": "three"}
    assert ada.post("/scripts/echo", data=lost, headers=ada.origin).status_code == 303


# Jobs


def test_jobs_of_others_are_for_operators(pages: Pages, ada: Browser, bob: Browser, olga: Browser) -> None:
    job = ada.submit("work")
    for path in (f"/jobs/{job}", f"/jobs/{job}/live", f"/jobs/{job}/output/stdout"):
        assert bob.get(path).status_code == 404
        assert f"There is no job {job}." in bob.get(path).text
    assert f'href="/jobs/{job}"' not in bob.get("/jobs").text
    assert bob.get("/jobs", params={"owner": pages.people.ada.name}).status_code == 403
    form = bob.fields("/machines") | {"move": "stop"}
    assert bob.post(f"/jobs/{job}", data=form, headers=bob.origin).status_code == 404
    assert pages.people.ada.name in olga.get(f"/jobs/{job}").text
    assert f'href="/jobs/{job}"' in olga.get("/jobs", params={"owner": pages.people.ada.name}).text
    assert olga.act(job, "stop").status_code == 303
    assert f"by {pages.people.olga.name}" in ada.get(f"/jobs/{job}").text


def test_buttons_are_there_for_what_is_possible(pages: Pages, ada: Browser) -> None:
    def buttons(job: int) -> list[str]:
        return re.findall(r'name="move" value="(\w+)"', ada.get(f"/jobs/{job}").text)

    job = ada.submit("work")
    assert buttons(job) == ["stop", "abort"]
    claim, *_ = pages.site.store.attempts.claim(RUNNER, [new_bid()], 3600)
    pages.site.store.attempts.start(claim.attempt, "boot", 1, 1, 60)
    assert buttons(job) == ["stop", "abort"]
    assert ada.act(job, "stop").headers["location"] == f"/jobs/{job}"
    assert buttons(job) == ["abort"]
    assert ada.act(job, "abort").status_code == 303
    assert buttons(job) == []
    pages.site.store.attempts.settle(claim.attempt, Ended(Reason.ABORTED, signal=9))
    assert buttons(job) == ["retry"]
    form = ada.fields(f"/jobs/{job}")
    assert ada.act(job, "retry").status_code == 303
    assert pages.site.store.jobs.get(job).state is JobState.PENDING
    answer = ada.post(f"/jobs/{job}", data=form | {"move": "retry"}, headers=ada.origin)
    assert answer.status_code == 409
    assert f"Job {job} is not over" in answer.text
    for move in ("fail", "nonsense"):
        assert ada.post(f"/jobs/{job}", data=form | {"move": move}, headers=ada.origin).status_code == 400


def test_a_job_whose_secrets_are_forgotten_is_not_retried(ada: Browser) -> None:
    job = ada.submit("echo", text="x", key="canary")
    ada.act(job, "stop")
    answer = ada.act(job, "retry")
    assert answer.status_code == 409
    assert "submit it again" in answer.text


def test_how_a_job_went_is_said_in_words(pages: Pages, ada: Browser) -> None:
    job = ada.submit("work")
    claim, *_ = pages.site.store.attempts.claim(RUNNER, [new_bid()], 3600)
    pages.site.store.attempts.start(claim.attempt, "boot", 1, 1, 60)
    pages.site.store.attempts.report(job, False, "no <space>\x1b[1m left")
    pages.site.store.attempts.settle(claim.attempt, Ended(Reason.EXIT, 0))
    text = ada.get(f"/jobs/{job}").text
    assert "The script said so." in text
    assert "Failure: no &lt;space&gt;\u241b[1m left" in text
    assert "<strong>Failed</strong> by runner, attempt 1" in text
    assert re.search(r'<time datetime="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ">[^<]+ UTC</time>', text)


def test_output_is_shown_as_text_and_given_whole(pages: Pages, ada: Browser) -> None:
    long = 200_000
    end = "printf '\\xff\\033[31m<b>&\\xe2\\x82\\xac'"
    pages.site.install(f"head -c {long} /dev/zero | tr '\\0' x; {end}", name="long")
    job = ada.submit("long")
    with working(pages.site):
        pages.site.over(job)
    text = ada.get(f"/jobs/{job}").text
    assert text.count("x" * 1000) == 65
    assert "\ufffd\u241b[31m&lt;b&gt;&amp;\u20ac</pre>" in text
    assert "195.3 KiB</span>, of which these are the last" in text
    answer = ada.get(f"/jobs/{job}/output/stdout")
    assert answer.content == b"x" * long + b"\xff\x1b[31m<b>&\xe2\x82\xac"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="job-{job}-stdout.txt"'
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_history_has_pages_and_filters(pages: Pages, bob: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_views, "PAGE", 3)
    made = [bob.submit("work") for _ in range(5)]
    bob.act(made[0], "stop")

    def shown(path: str) -> list[int]:
        return [int(number) for number in re.findall(r'href="/jobs/(\d+)"', bob.get(path).text)]

    assert shown("/jobs") == made[:1:-1]
    older = re.search(r'href="(/jobs\?[^"]*)" rel="next"', bob.get("/jobs").text)
    assert older is not None
    assert shown(older[1]) == made[1::-1]
    assert "Older" not in bob.get(older[1]).text
    assert shown("/jobs?state=stopped") == made[:1]
    assert shown("/jobs?state=open&before=" + str(made[2])) == [made[1]]
    assert shown("/jobs?script=work&state=nonsense") == made[:1:-1]
    assert shown("/jobs?script=echo") == []


def test_machines_are_shown(pages: Pages, ada: Browser) -> None:
    assert "No machine is known yet" in ada.get("/machines").text or "alpha" not in ada.get("/machines").text
    pages.site.store.machines.add("alpha.example.org", "192.0.2.1", True)
    pages.site.store.machines.seen("beta.example.org", "192.0.2.2")
    text = ada.get("/machines").text
    assert re.search(r"alpha\.example\.org.*192\.0\.2\.1.*yes.*never.*beta\.example\.org.*no.*UTC", text, re.DOTALL)


# The live part


class Events:
    """What a stream says."""

    def __init__(self, browser: Browser, path: str, **headers: str) -> None:
        self.stack = ExitStack()
        self.response = self.stack.enter_context(browser.stream("GET", path, headers=headers))
        assert self.response.status_code == 200
        assert self.response.headers["content-type"].startswith("text/event-stream")
        self._lines = self.response.iter_lines()

    def __enter__(self) -> Iterator[dict[str, str]]:
        return self._events()

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _events(self) -> Iterator[dict[str, str]]:
        event: dict[str, str] = {}
        for line in self._lines:
            name, _, text = line.partition(": ")
            if line:
                event[name] = text
            else:
                yield event
                event = {}


def written(events: Iterator[dict[str, str]], wanted: str) -> tuple[str, str]:
    """Read until standard output is there; return all of it, and the last ID."""
    text = ""
    for event in events:
        if event.get("event") == "output":
            news: dict[str, Any] = json.loads(event["data"])
            text = news["texts"]["stdout"] if news["again"] else text + news["texts"]["stdout"]
            if wanted in text:
                return text, event["id"]
    raise AssertionError(f"{wanted!r} did not come, but {text!r}")


def test_a_stream_follows_a_job_and_ends_with_it(pages: Pages, ada: Browser) -> None:
    first, second = "echo one; printf '\\xe2\\x82'", "printf '\\xac two\\n'"  # a character that comes in two parts
    pages.site.install(f"{first}; until [ -e $gate ]; do sleep 0.02; done; {second}", name="two")
    job = ada.submit("two")
    with working(pages.site), Events(ada, f"/jobs/{job}/live") as events:
        event = next(events)
        assert event["event"] == "job"
        assert set(json.loads(event["data"])) == {"title", "facts", "history"}
        text, place = written(events, "one\n")
        assert text == "one\n"
        assert place == "1.4.0"
        pages.site.open()
        rest = list(events)
        news = [(event["event"], json.loads(event["data"] or "{}")) for event in rest if "event" in event]
        assert [data["title"] for kind, data in news if kind == "job"][-1] == f"Job {job}: Success"
        assert "".join(data["texts"]["stdout"] for kind, data in news if kind == "output") == "\u20ac two\n"
        assert rest[-1]["event"] == "end"
    pages.site.gate.unlink()


def test_a_stream_goes_on_after_a_lost_connection_without_loss_or_doubling(pages: Pages, ada: Browser) -> None:
    count = 300
    pages.site.install(f"for i in $(seq {count}); do echo $i; sleep 0.005; done", name="count")
    job = ada.submit("count")
    text, place = "", ""
    with working(pages.site):
        for wanted in ("\n20\n", "\n120\n", f"\n{count}\n"):
            with Events(ada, f"/jobs/{job}/live?from=0.0.0", **({"last-event-id": place} if place else {})) as events:
                more, place = written(events, wanted)
                text += more
    assert text.split() == [str(number) for number in range(1, count + 1)]


def test_a_new_attempt_begins_with_new_output(pages: Pages, ada: Browser) -> None:
    pages.site.install("echo out; exit 1", name="fails")
    job = ada.submit("fails")
    with working(pages.site):
        pages.site.over(job)
        with Events(ada, f"/jobs/{job}/live") as events:
            _, place = written(events, "out\n")
        assert place == "1.4.0"
        ada.act(job, "retry")
        until(lambda: len(pages.site.attempts(job)) == 2)
        with Events(ada, f"/jobs/{job}/live", **{"last-event-id": place}) as events:
            assert written(events, "out\n") == ("out\n", "2.4.0")


def test_output_that_is_no_longer_kept_is_said_to_be_missing(pages: Pages, ada: Browser) -> None:
    job = ada.submit("work")
    claim, *_ = pages.site.store.attempts.claim(RUNNER, [new_bid()], 3600)
    output = Output(b"\xac the end", b"", 5000, 0)
    pages.site.store.attempts.start(claim.attempt, "boot", 1, 1, 60)
    pages.site.store.attempts.settle(claim.attempt, Ended(Reason.EXIT, 0, output=output))
    with Events(ada, f"/jobs/{job}/live") as events:
        assert written(events, "end")[0] == "[4.9 KiB not kept]\n the end"
    assert "of which these are the last" in ada.get(f"/jobs/{job}").text


def test_streams_end_when_the_client_leaves_and_are_limited(
    pages: Pages, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "EACH_AT_ONCE", 1)
    monkeypatch.setattr(_live, "HEARTBEAT", 0.0)
    job = ada.submit("wait")
    with Events(ada, f"/jobs/{job}/live") as events:
        assert next(events)["event"] == "job"
        assert next(event for event in events if ":" in event) == {":": ""}
        with pages.client(pages.people.ada) as again, Events(again, f"/jobs/{job}/live") as refused:
            assert next(refused) == {"retry": "5000", "event": "busy", "data": ""}

    def is_free() -> bool:
        with pages.client(pages.people.ada) as again, Events(again, f"/jobs/{job}/live") as events:
            return next(events)["event"] == "job"

    until(is_free)


def test_a_stream_ends_after_a_while_and_when_the_database_is_away(
    ada: Browser, pages: Pages, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = ada.submit("wait")
    with monkeypatch.context() as patched:
        patched.setattr(_live, "LONGEST", 0.1)
        with Events(ada, f"/jobs/{job}/live") as events:
            assert [event["event"] for event in events] == ["job"]

    def away(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, OSError("no connection"))

    with monkeypatch.context() as patched, Events(ada, f"/jobs/{job}/live") as events:
        assert next(events)["event"] == "job"
        patched.setattr(pages.site.store.database.engine, "connect", away)
        assert list(events) == []
    assert f"the page of job {job} is no longer live: no connection" in caplog.text


def test_what_changes_while_it_is_read_is_read_again(pages: Pages, ada: Browser) -> None:
    """The output of a new attempt would else be taken for that of the one before."""
    job = ada.submit("work")
    desk = Service(pages.site.settings, pages.site.store).desk(pages.people.ada.name)

    class Racing:
        def job(self, number: int) -> Any:
            return desk.job(number)

        def read(self, *arguments: Any) -> Any:
            pages.site.store.attempts.claim(RUNNER, [new_bid()], 3600)
            return desk.read(*arguments)

    racing: Any = Racing()
    nothing: Any = None
    assert _live.look(nothing, nothing, racing, job, _live.Place(0, 0, 0), desk.job(job)) is None


def test_places_are_read_from_what_browsers_send() -> None:
    assert _live.Place.parse("1.22.333") == (1, 22, 333)
    for text in ("", "1.2", "a.b.c", "1.2.3.4", "-1.0.0", "1.2.99999999999999999999"):
        assert _live.Place.parse(text) == (0, 0, 0)
