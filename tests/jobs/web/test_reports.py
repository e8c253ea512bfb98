"""Reports over HTTP: who may say what of which job, what is kept of it, and what anybody else is told."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import socket
import xmlrpc.client
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from jobs.attempts import LIMIT
from jobs.postgres import Postgres
from jobs.runners import Site, until, working
from jobs.web.conftest import Clients
from jobs.web.served import ACCOUNT, ADA, PASSWORD, Client, Reported, Served, ServedSite, account
from jobs.web.test_xmlrpc import TEXT, VALUES, call_of
from remctl.jobs.states import JobState, Reason
from remctl.jobs.store import Claim
from remctl.jobs.store._schema import machines
from remctl.jobs.web import _limits, _reports
from remctl.jobs.web._limits import FAILURES, WINDOW, Failures
from remctl.jobs.web._reports import BODY, INFORMATION, kept
from remctl.jobs.web._xmlrpc import FaultCode

NOTHING = (None, None, 0)
"""What is kept of an attempt that has said nothing."""


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the server complains of; asyncio may complain of a slow machine."""
    records = [each for each in caplog.records if each.name.startswith(("remctl", "uvicorn"))]
    return [each.getMessage() for each in records if each.levelno >= logging.WARNING]


@pytest.fixture
def claim(reported: Reported) -> Claim:
    """Give an attempt that runs."""
    return reported.begin()[0]


@pytest.mark.usefixtures("url")
class TestPost:
    def test_is_kept_for_the_job_by_number_text_or_guid(self, client: Client, reported: Reported, claim: Claim) -> None:
        for number, job in enumerate((claim.job.id, str(claim.job.id), claim.job.guid)):
            assert client.call("postInformation", job, True, f"report {number}") is True
            assert reported.kept(claim) == (True, f"report {number}", 0)

    def test_says_whether_it_was_a_success_in_any_way_that_scripts_do(
        self, client: Client, reported: Reported, claim: Claim
    ) -> None:
        for success, ways in ((True, (True, 1, "success", "Success")), (False, (False, 0, "error", "ERROR"))):
            for way in ways:
                client.call("postInformation", claim.job.id, way)
                assert reported.kept(claim) == (success, "", 0)

    def test_may_be_repeated_and_the_last_one_wins(self, client: Client, reported: Reported, claim: Claim) -> None:
        assert client.call("postInformation", claim.job.id, False, "one")
        assert client.call("postInformation", claim.job.id, True, "two")
        assert reported.kept(claim) == (True, "two", 0)

    def test_that_comes_too_late_is_counted_and_changes_nothing(
        self, client: Client, reported: Reported, claim: Claim
    ) -> None:
        client.call("postInformation", claim.job.id, True, "in time")
        reported.end(claim)
        before = reported.store.jobs.get(claim.job.id)
        for count in (1, 2):
            assert client.call("postInformation", claim.job.id, False, "too late") is False
            assert reported.kept(claim) == (True, "in time", count)
        assert reported.store.jobs.get(claim.job.id) == before
        assert before.state is JobState.SUCCESS

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(information=VALUES | TEXT | st.binary())
    def test_keeps_all_that_a_script_can_send(
        self, client: Client, reported: Reported, claim: Claim, information: Any
    ) -> None:
        client.call("postInformation", claim.job.id, True, information)
        assert reported.kept(claim) == (True, kept(information), 0)

    def test_of_no_job_is_refused(self, client: Client, claim: Claim) -> None:
        for job in (99, -1, 2**31 - 1, "0", "99", "9" * 19, "9" * 500, "no GUID", "\N{SUPERSCRIPT TWO}"):
            with pytest.raises(xmlrpc.client.Fault, match="there is no job") as caught:
                client.call("postInformation", job, True)
            assert caught.value.faultCode == FaultCode.NO_SUCH_JOB

    def test_of_a_number_that_no_database_has_is_refused(self, client: Client, claim: Claim) -> None:
        for number in (2**63 - 1, -(2**63)):
            job, success = f"<value><i8>{number}</i8></value>", "<value><boolean>1</boolean></value>"
            assert client.fault(call_of(job, success, method="postInformation")) == FaultCode.NO_SUCH_JOB

    def test_with_more_information_than_is_kept_is_refused(
        self, client: Client, reported: Reported, claim: Claim
    ) -> None:
        half = "ä" * (INFORMATION // 2)
        assert client.call("postInformation", claim.job.id, True, half)
        with pytest.raises(xmlrpc.client.Fault, match=f"has {INFORMATION + 1} bytes, and {INFORMATION} are") as caught:
            client.call("postInformation", claim.job.id, False, f"{half}.")
        assert caught.value.faultCode == FaultCode.TOO_LONG
        assert reported.kept(claim) == (True, half, 0)


class TestArguments:
    def test_that_are_wrong_are_refused(self, client: Client, reported: Reported, claim: Claim) -> None:
        for job, success, complaint in (
            (True, True, "job_id must be a job's number or GUID, and is True"),
            (1.0, True, "job_id must be a job's number or GUID, and is 1.0"),
            ([], True, r"job_id must be a job's number or GUID, and is \[\]"),
            ("", True, "job_id must be a job's number or GUID, and is ''"),
            (1, "maybe", "success must be a boolean, 0, 1, 'success' or 'error', and is 'maybe'"),
            (1, 2, "success must be .*, and is 2"),
            (1, 1.0, "success must be .*, and is 1.0"),
            (1, None, "success must be .*, and is None"),
            (1, "x" * 1000, r"success must be .*, and is 'x{76}\.\.\."),
        ):
            with pytest.raises(xmlrpc.client.Fault, match=complaint) as caught:
                client.call("postInformation", job, success)
            assert caught.value.faultCode == FaultCode.INVALID_ARGUMENTS
        assert reported.kept(claim) == NOTHING

    def test_that_are_too_few_or_too_many_are_refused(self, client: Client) -> None:
        for arguments in ((), (1,), (1, True, "", "")):
            with pytest.raises(xmlrpc.client.Fault, match="postInformation: ") as caught:
                client.call("postInformation", *arguments)
            assert caught.value.faultCode == FaultCode.INVALID_ARGUMENTS


class TestKept:
    @given(TEXT)
    def test_text_stays_as_it_is(self, text: str) -> None:
        assert kept(text) == kept(text.encode()) == text

    @given(st.binary())
    def test_bytes_become_text_of_which_they_can_be_made_again(self, data: bytes) -> None:
        try:
            assert kept(data) == data.decode().replace("\0", "\\x00")
        except UnicodeDecodeError:
            assert base64.b64decode(kept(data).removeprefix("base64:")) == data

    @given(VALUES.filter(lambda value: not isinstance(value, str | bytes)))
    def test_all_else_becomes_json(self, value: Any) -> None:
        def plain(value: Any) -> Any:
            if isinstance(value, list):
                return [plain(each) for each in value]
            if isinstance(value, dict):
                return {name: plain(each) for name, each in value.items()}
            try:
                return value.decode() if isinstance(value, bytes) else value
            except UnicodeDecodeError:
                return f"base64:{base64.b64encode(value).decode()}"

        assert repr(json.loads(kept(value))) == repr(plain(value))

    def test_what_is_kept_of_a_few_things(self) -> None:
        assert kept(b"a\0b\x01") == "a\\x00b\x01"
        assert kept(b"\xff\0") == "base64:/wA="
        assert kept(b"\xed\xa0\x80") == "base64:7aCA"
        assert kept({"ä": [1, 1.5, None, True, b"\0"]}) == r'{"ä":[1,1.5,null,true,"\u0000"]}'
        assert (kept(None), kept(5), kept(False)) == ("null", "5", "false")


class TestMethods:
    def test_the_machines_are_those_that_an_administrator_has_certified(
        self, client: Client, reported: Reported
    ) -> None:
        reported.store.machines.add("b.example", "192.0.2.2", True)
        reported.store.machines.add("a.example", "2001:db8::1", True)
        reported.store.machines.add("no.example", "192.0.2.3", False)
        reported.store.machines.seen("new.example", "192.0.2.4")
        reported.store.machines.seen("b.example", "192.0.2.2")
        first, second = client.call("getAllMachines")
        assert first == {"name": "a.example", "address": "2001:db8::1", "certified": True, "seen": 0.0}
        with reported.store.database.write() as connection:
            connection.execute(update(machines).values(seen_at=1.5))
        assert second["seen"] > 1e9
        assert client.call("getAllMachines")[1] == {
            "name": "b.example",
            "address": "192.0.2.2",
            "certified": True,
            "seen": 1.5,
        }

    def test_are_listed_and_explained(self, client: Client) -> None:
        names = client.call("system.listMethods")
        assert names == ["getAllMachines", "postInformation", "system.listMethods", "system.methodHelp"]
        for name in names:
            assert client.call("system.methodHelp", name).startswith(f"{name}(")
        with pytest.raises(xmlrpc.client.Fault, match="name must be a string, and is 1"):
            client.call("system.methodHelp", 1)

    def test_others_are_refused(self, client: Client) -> None:
        for name in ("nothing", "call", "_method", "__init__", "system.multicall", "x" * 10_000):
            with pytest.raises(xmlrpc.client.Fault, match="there is no method") as caught:
                client.call(name, [])
            assert caught.value.faultCode == FaultCode.NO_SUCH_METHOD


@pytest.mark.usefixtures("url")
class TestAttempt:
    def test_reports_of_its_own_job(self, client_of: Clients, reported: Reported) -> None:
        claim, password = reported.begin()
        assert client_of(account(claim), password).call("postInformation", claim.job.id, True, "mine") is True
        assert reported.kept(claim) == (True, "mine", 0)

    def test_is_told_that_it_is_over(self, client_of: Clients, reported: Reported) -> None:
        claim, password = reported.begin()
        reported.end(claim)
        assert client_of(account(claim), password).call("postInformation", claim.job.id, True, "late") is False
        assert reported.kept(claim) == (None, None, 1)

    def test_reads_the_machines(self, client_of: Clients, reported: Reported) -> None:
        claim, password = reported.begin()
        reported.store.machines.add("a.example", "192.0.2.1", True)
        assert [each["name"] for each in client_of(account(claim), password).call("getAllMachines")] == ["a.example"]

    def test_does_not_report_of_others(
        self, client_of: Clients, reported: Reported, caplog: pytest.LogCaptureFixture
    ) -> None:
        mine, password = reported.begin()
        other, _ = reported.begin()
        forger = client_of(account(mine), password)
        for job in (other.job.id, other.job.guid, 99):
            with pytest.raises(xmlrpc.client.Fault, match=f"there is no job '?{job}'? of {account(mine)}") as caught:
                forger.call("postInformation", job, True, "forged")
            assert caught.value.faultCode == FaultCode.NO_SUCH_JOB
        assert reported.kept(mine) == reported.kept(other) == NOTHING
        assert sum(f"{account(mine)} from 127.0.0.1: fault 1: " in each for each in complaints(caplog)) == 3

    def test_does_not_report_of_a_later_attempt(self, client_of: Clients, reported: Reported) -> None:
        old, password = reported.begin()
        reported.end(old, 1)
        reported.store.jobs.retry(old.job.id, ADA)
        new, _ = reported.go_on()
        assert new.job.id == old.job.id
        assert client_of(account(old), password).call("postInformation", old.job.id, True, "forged") is False
        assert (reported.kept(old), reported.kept(new)) == ((None, None, 1), NOTHING)
        assert reported.store.jobs.get(old.job.id).state is JobState.IN_PROGRESS


class TestPassword:
    def test_that_is_wrong_is_refused(
        self, client_of: Clients, reported: Reported, caplog: pytest.LogCaptureFixture
    ) -> None:
        mine, password = reported.begin()
        other, others = reported.begin()
        body = xmlrpc.client.dumps((mine.job.id, True, "forged"), "postInformation")
        for name, wrong in (
            ("externalscript", "canary of somebody"),
            ("externalscript", ""),
            ("nobody", PASSWORD),
            (account(mine), others),
            (account(mine), PASSWORD),
            (f"attempt-0{mine.attempt}", password),
            ("attempt-999999999999999999999", password),
            ("attempt-\N{SUPERSCRIPT TWO}", password),
            ("\x1b[1m", password),
        ):
            caplog.clear()
            response = client_of(name, wrong).send(body)
            assert (response.status_code, response.text) == (401, "wrong account or password")
            assert response.headers["www-authenticate"] == 'Basic realm="remctl-jobs", charset="UTF-8"'
            (line,) = complaints(caplog)
            assert line.isprintable()
            assert line.endswith(" from 127.0.0.1")
            assert name in line or not name.isprintable()
        assert reported.kept(mine) == reported.kept(other) == NOTHING

    def test_that_is_missing_is_asked_for(self, served: Served) -> None:
        nul, latin = b"extern\0al:x", "größe:x".encode("latin-1")
        tokens = [base64.b64encode(each).decode() for each in (b"no colon", b":no account", nul, latin)]
        for header in (None, "", "Basic", "Basic !", "Bearer abc", *(f"Basic {token}" for token in tokens)):
            headers = {} if header is None else {"Authorization": header}
            response = httpx.post(f"{served.url}/api/xmlrpc", content=b"<not read", headers=headers)
            assert (response.status_code, response.text) == (401, "an account and its password are needed")
            assert "www-authenticate" in response.headers

    def test_is_in_no_log(self, client_of: Clients, reported: Reported, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        claim, password = reported.begin()
        client_of(account(claim), password).call("postInformation", claim.job.id, True, "canary of the report")
        client_of(account(claim), f"wrong {password}").send(b"")
        client_of().call("postInformation", claim.job.id, True, "canary of the report")
        client_of("externalscript", "canary that is wrong").send(b"")
        text = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith(("remctl", "uvicorn")))
        assert "attempt-1 reports success" in text.replace(" from 127.0.0.1", "")
        assert "canary" not in text
        assert password not in text

    def test_that_is_wrong_too_often_is_not_checked_any_more(self, client_of: Clients, reported: Reported) -> None:
        claim, password = reported.begin()
        for _ in range(FAILURES):
            assert client_of("nobody", "wrong").send(b"").status_code == 401
        for guess in ("wrong", PASSWORD):
            response = client_of("externalscript", guess).send(b"")
            assert response.status_code == 429
            assert 0 < int(response.headers["retry-after"]) <= WINDOW
        assert client_of(account(claim), "wrong").send(b"").status_code == 429
        assert client_of(account(claim), password).call("postInformation", claim.job.id, True) is True

    def test_counts_for_a_while(self) -> None:
        now = 100.0
        failures = Failures(lambda: now)
        for _ in range(FAILURES):
            assert failures.wait("here") == 0
            failures.add("here")
            now += 1
        assert failures.wait("here") == WINDOW - FAILURES
        assert failures.wait("elsewhere") == 0
        now += WINDOW - FAILURES
        assert failures.wait("here") == 0

    def test_is_counted_for_so_many_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_limits, "ADDRESSES", 2)
        failures = Failures()
        for address in ("one", "two", "three"):
            for _ in range(FAILURES):
                failures.add(address)
        assert [failures.wait(each) > 0 for each in ("one", "two", "three")] == [False, True, True]


class TestBody:
    def test_of_another_type_is_refused(self, client: Client) -> None:
        for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            response = client.send(b"", Content_Type=content_type)
            assert (response.status_code, response.text) == (415, "the content type must be text/xml")

    def test_of_xml_is_read(self, client: Client) -> None:
        body = xmlrpc.client.dumps((), "system.listMethods")
        for content_type in ("application/xml", "TEXT/XML ; charset=UTF-8"):
            assert client.send(body, Content_Type=content_type).status_code == 200

    def test_that_is_compressed_is_refused(self, client: Client, reported: Reported, claim: Claim) -> None:
        call = xmlrpc.client.dumps((claim.job.id, True, "x"), "postInformation").encode()
        for body in (gzip.compress(call), gzip.compress(bytes(20 << 20))):
            response = client.send(body, Content_Encoding="gzip")
            assert (response.status_code, response.text) == (415, "the body must not be compressed")
            assert client.fault(body) == FaultCode.NOT_XML
        assert reported.kept(claim) == NOTHING

    def test_that_is_too_large_is_refused(self, client: Client, reported: Reported, claim: Claim) -> None:
        call = xmlrpc.client.dumps((claim.job.id, True, "x"), "postInformation").encode()

        def pieces(size: int) -> Iterator[bytes]:
            yield call
            for begin in range(len(call), size, 65536):
                yield b" " * min(65536, size - begin)

        for size in (BODY + 1, 20_000_000):
            for body in (b"".join(pieces(size)), pieces(size)):  # whose length is announced, and is not
                response = client.send(body)
                assert response.status_code == 413
                assert "bytes" in response.text
        assert reported.kept(claim) == NOTHING
        assert client.send(b"".join(pieces(BODY))).status_code == 200
        assert reported.kept(claim) == (True, "x", 0)

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(body=st.binary() | st.text("<>&'/methodCall ", max_size=100).map(str.encode))
    def test_of_rubbish_is_refused(self, client: Client, body: bytes) -> None:
        assert client.fault(body) in (FaultCode.NOT_XML, FaultCode.NOT_XMLRPC)

    def test_with_entities_is_refused(self, client: Client, reported: Reported, claim: Claim) -> None:
        call = xmlrpc.client.dumps((claim.job.id, True, "&c;"), "postInformation").replace("&amp;", "&")
        bomb = "<!ENTITY a 'aaaaaaaaaa'>" + "".join(
            f"<!ENTITY {chr(i + 1)} '{f'&{chr(i)};' * 10}'>" for i in range(ord("a"), ord("k"))
        )
        for entity in (bomb, "<!ENTITY c SYSTEM 'file:///etc/passwd'>"):
            body = call.replace("<methodCall>", f"<!DOCTYPE methodCall [{entity}]><methodCall>")
            assert client.fault(body.encode()) == FaultCode.NOT_XML
        assert reported.kept(claim) == NOTHING

    def test_may_be_posted_alone(self, served: Served) -> None:
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
            response = httpx.request(method, f"{served.url}/api/xmlrpc")
            assert (response.status_code, response.headers["allow"]) == (405, "POST")


class TestFailure:
    def test_of_the_client_is_nobodys_business(self, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "remctl.jobs.web._serving")
        token = base64.b64encode(f"{ACCOUNT}:{PASSWORD}".encode()).decode()
        head = f"POST /api/xmlrpc HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\nContent-Type: text/xml\r\n"
        with socket.create_connection(("127.0.0.1", served.port), LIMIT) as sock:
            sock.sendall(f"{head}Content-Length: 10\r\n\r\n<".encode())
        until(lambda: "POST /api/xmlrpc: 400 in" in caplog.text)
        assert complaints(caplog) == []

    def test_of_the_database_is_temporary(self, own: Postgres, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
        site = Reported(tmp_path / "site", own.new_database())
        claim, password = site.begin()
        with Served(site.service) as served:
            client = Client(served.url)
            attempt = Client(served.url, account(claim), password)
            own.stop()
            try:
                for each in (client, attempt):
                    response = each.send(xmlrpc.client.dumps((), "getAllMachines"))
                    assert (response.status_code, response.text) == (503, "the database is away")
                    assert int(response.headers["retry-after"]) > 0
            finally:
                own.start()
            assert "POST /api/xmlrpc: the database: " in caplog.text
            assert PASSWORD not in caplog.text
            until(lambda: attempt.send(xmlrpc.client.dumps((), "getAllMachines")).status_code == 200)
            assert attempt.call("postInformation", claim.job.id, True, "again") is True
            client.close()
            attempt.close()
        site.close()

    def test_that_nobody_expects_is_logged_and_not_explained(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("canary")

        monkeypatch.setattr(_reports, "read_call", broken)
        response = client.send(b"")
        assert (response.status_code, response.text) == (500, "an error in the server, which has logged it")
        assert response.headers["x-content-type-options"] == "nosniff"
        until(lambda: any(record.exc_info for record in caplog.records))
        assert "RuntimeError: canary" in caplog.text


class TestOutcome:
    """Both what a script says and what it does count, and the worse wins."""

    @pytest.fixture
    def site(self, tmp_path: Any) -> Iterator[ServedSite]:
        """Give a folder with a server and a runner that work."""
        made = ServedSite(tmp_path / "one", f"sqlite:///{tmp_path}/jobs.db")
        made.serve_as(port=0)
        with Served(made.service) as served:
            made.serve_as(port=0, url=served.url)
            with working(made):
                yield made
        made.close()

    def test_is_the_worse_of_report_and_exit_status(self, site: Site) -> None:
        jobs = []
        for number, (body, *_) in enumerate(OUTCOMES):
            site.install(f"{REPORT}\n{body}", name=f"work{number}")
            jobs.append(site.submit(f"work{number}"))
        for job, (body, *expected, said) in zip(jobs, OUTCOMES, strict=True):
            found, attempt = site.over(job), site.attempt(job)
            assert [found.state, found.reason, found.exit_status] == expected, (body, attempt.stderr_tail)
            assert (attempt.reported_success, attempt.late_reports) == (said, 0)


OUTCOMES = [
    ("", JobState.SUCCESS, Reason.EXIT, 0, None),
    ("exit 1", JobState.FAILED, Reason.EXIT, 1, None),
    ("report 1", JobState.SUCCESS, Reason.REPORT, 0, True),
    ("report 0", JobState.FAILED, Reason.REPORT, 0, False),
    ("report 1; exit 1", JobState.FAILED, Reason.EXIT, 1, True),
    ("report 0; exit 1", JobState.FAILED, Reason.EXIT, 1, False),
    ("report 1; report 0", JobState.FAILED, Reason.REPORT, 0, False),
    ("report 0; report 1", JobState.SUCCESS, Reason.REPORT, 0, True),
    ("report 1; kill -9 $$", JobState.FAILED, Reason.SIGNAL, None, True),
]

REPORT = """\
report() {
    curl -sSf -o answer -H 'Content-Type: text/xml' -K <(printf 'user = "%s:%s"' "$JOB_ACCOUNT" "$JOB_PASSWORD") \\
        -d "<methodCall><methodName>postInformation</methodName><params><param><value>$JOB_ID</value></param>
            <param><value><int>$1</int></value></param></params></methodCall>" "$JOB_REPORT_URL"
    grep -q '<boolean>1</boolean>' answer || kill -9 $$
}"""
