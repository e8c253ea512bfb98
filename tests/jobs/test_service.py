"""What somebody may do with jobs, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.postgres import Postgres
from jobs.runners import WAIT, MakeSite, Site, until, working
from remctl.jobs.attempt import Piece
from remctl.jobs.runner._ad_hoc import NoModuleError
from remctl.jobs.scripts import AD_HOC, Parameters, ScriptError
from remctl.jobs.service import DeniedError, Desk, Role, Service
from remctl.jobs.settings import load
from remctl.jobs.states import IllegalMoveError, JobState, Move
from remctl.jobs.store import Output, StoreError

ADA = "ada@EXAMPLE.ORG"
BOB = "bob@EXAMPLE.ORG"
OPERATOR = "olga@EXAMPLE.ORG"
ADMINISTRATOR = "root@EXAMPLE.ORG"
STRANGER = "eve@EXAMPLE.COM"


@pytest.fixture
def service(site: Site) -> Service:
    """Give the service of a folder with users, an operator and an administrator."""
    access = {
        "users": [f"princ:{ADA}", f"princ:{BOB}"],
        "operators": [f"princ:{OPERATOR}"],
        "administrators": [f"princ:{ADMINISTRATOR}"],
    }
    lines = ["[access]", *(f"{key} = {json.dumps(value)}" for key, value in access.items())]
    site.file.write_text(site.file.read_text() + "\n".join([*lines, ""]))
    site.settings = load(site.file)
    site.install("true")
    return Service(site.settings, site.store)


@pytest.fixture
def ada(service: Service) -> Desk:
    """Give what is done for a user."""
    return service.desk(ADA)


class TestRole:
    @pytest.mark.parametrize(
        ("principal", "role"),
        [
            (ADA, Role.USER),
            (OPERATOR, Role.OPERATOR),
            (ADMINISTRATOR, Role.ADMINISTRATOR),
            (STRANGER, Role.NOBODY),
            ("", Role.NOBODY),
        ],
    )
    def test_is_what_the_configuration_says(self, service: Service, principal: str, role: Role) -> None:
        assert service.role(principal) is role

    @pytest.mark.parametrize("principal", [STRANGER, ""])
    def test_of_a_stranger_lets_nothing_be_done(self, service: Service, principal: str) -> None:
        with pytest.raises(DeniedError, match="may not use the jobs") as caught:
            service.desk(principal)
        assert caught.value.hint == "an administrator names users in [access]"

    def test_can_be_given_to_whoever_has_the_folder(self, service: Service) -> None:
        assert service.desk("somebody@here", Role.ADMINISTRATOR).role is Role.ADMINISTRATOR


class TestScripts:
    def test_of_a_user_are_those_that_the_user_may_use(self, service: Service, site: Site) -> None:
        site.install("true", f'users = ["princ:{BOB}"]', name="bobs")
        site.install("true", name="off")
        site.store.scripts.enable("off", False)
        names = {who: [script.name for script in service.desk(who).scripts()] for who in (ADA, BOB, ADMINISTRATOR)}
        assert names == {ADA: ["work"], BOB: ["bobs", "work"], ADMINISTRATOR: ["bobs", "work"]}
        assert service.desk(BOB).submit("bobs", {}).owner == BOB

    @pytest.mark.parametrize(
        ("name", "error", "text"),
        [
            ("bobs", DeniedError, "ada@EXAMPLE.ORG may not use the script 'bobs'"),
            ("off", StoreError, "the script 'off' is turned off"),
            ("nothing", StoreError, "there is no script 'nothing'"),
            ("../work", StoreError, "there is no script '../work'"),
        ],
    )
    def test_of_others_are_refused(
        self, service: Service, site: Site, name: str, error: type[Exception], text: str
    ) -> None:
        site.install("true", f'users = ["princ:{BOB}"]', name="bobs")
        site.install("true", name="off")
        site.store.scripts.enable("off", False)
        ada = service.desk(ADA)
        for call in (ada.script, lambda name: ada.submit(name, {})):
            with pytest.raises(error, match=text):
                call(name)
        assert site.store.jobs.listed() == []


class TestSubmit:
    def test_keeps_what_is_secret_apart(self, service: Service, site: Site) -> None:
        site.install("true", "[parameters.path]", 'type = "text"', "[parameters.token]", 'type = "secret"')
        job = service.desk(ADA).submit("work", {"path": "/home", "token": "canary"})
        assert job.parameters == {"path": "/home"}
        assert site.store.jobs.get(job.id).parameters == {"path": "/home"}

    def test_of_wrong_parameters_makes_nothing(self, ada: Desk, site: Site) -> None:
        with pytest.raises(ScriptError, match="there is no parameter 'path'"):
            ada.submit("work", {"path": "/"})
        assert site.store.jobs.listed() == []

    def test_before_others_is_for_operators(self, service: Service, ada: Desk) -> None:
        with pytest.raises(DeniedError, match="priority must be 0 or less for users: 1"):
            ada.submit("work", {}, priority=1)
        assert ada.submit("work", {}, priority=-1).priority == -1
        assert service.desk(ADMINISTRATOR).submit("work", {}, priority=1).priority == 1

    def test_wakes_the_runner(self, ada: Desk, make: MakeSite) -> None:
        site = make("slow", poll=3600)
        site.install("true")
        with working(site):
            until(lambda: (site.settings.folder / "runner.sock").exists())
            job = Service(site.settings, site.store).desk(ADA).submit("work", {})
            assert site.over(job.id).state is JobState.SUCCESS


class TestModule:
    @pytest.fixture(autouse=True)
    def _scripts(self, service: Service, site: Site) -> None:
        site.store.scripts.install(AD_HOC, ADMINISTRATOR)
        site.install("pass", name="tools", suffix=".py")
        site.install("pass", f'users = ["princ:{BOB}"]', name="bobs", suffix=".py")
        site.install("pass", name="off", suffix=".py")
        site.store.scripts.enable("off", False)

    def test_is_one_that_the_principal_may_use(self, service: Service) -> None:
        for who, module in ((ADA, "tools"), (BOB, "bobs"), (ADMINISTRATOR, "bobs")):
            job = service.desk(who).submit("python", {"code": "pass", "module": module})
            assert job.parameters == {"code": "pass", "module": module}

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            ("bobs", "there is no script 'bobs'"),
            ("nothing", "there is no script 'nothing'"),
            ("", "there is no script ''"),
            ("off", "the script 'off' is turned off"),
            ("work", "the script 'work' is written in bash: code runs in the setting of a script in Python"),
            ("python", "the script 'python' stands for code itself: code runs"),
        ],
    )
    def test_is_no_other(self, ada: Desk, site: Site, module: str, text: str) -> None:
        with pytest.raises(NoModuleError, match=f"^parameter module: {text}"):
            ada.submit("python", {"code": "pass", "module": module})
        assert site.store.jobs.listed() == []

    def test_is_asked_for_again_when_the_job_is_to_run_again(self, ada: Desk, site: Site) -> None:
        job = ada.submit("python", {"code": "pass", "module": "tools"})
        ada.ask(job.id, Move.STOP)
        site.store.scripts.enable("tools", False)
        with pytest.raises(NoModuleError, match="the script 'tools' is turned off"):
            ada.retry(job.id)
        site.store.scripts.enable("tools", True)
        assert ada.retry(job.id).state is JobState.PENDING

    @pytest.mark.parametrize("place", [{"robot": "R2"}, {"pool": "night"}])
    def test_is_not_for_robots(self, ada: Desk, site: Site, place: dict[str, Any]) -> None:
        site.store.robots.add("R2", pool="night")
        with pytest.raises(ScriptError, match=r"^parameter module: it cannot be given for a robot"):
            ada.submit("python", {"code": "pass", "module": "tools"}, **place)
        assert ada.submit("python", {"code": "pass"}, **place).parameters == {"code": "pass"}

    def test_is_a_parameter_also_in_a_database_from_before_it_was_there(self, ada: Desk, site: Site) -> None:
        before = Parameters({"code": {"type": "text", "required": True, "multiline": True}})
        site.store.scripts.install(replace(AD_HOC, parameters=before), ADMINISTRATOR)
        for script in (ada.script("python"), next(each for each in ada.scripts() if each.name == "python")):
            assert list(script.parameters) == ["code", "individual_parameters", "module"]
        assert ada.submit("python", {"code": "pass", "module": "tools"}).state is JobState.PENDING

    def test_of_another_script_is_a_parameter_like_any(self, ada: Desk, site: Site) -> None:
        site.install("true", "[parameters.module]", 'type = "text"')
        assert ada.submit("work", {"module": "nothing"}).parameters == {"module": "nothing"}


class TestJobs:
    def test_of_others_are_not_there(self, service: Service, ada: Desk) -> None:
        theirs = service.desk(BOB).submit("work", {})
        calls: list[Callable[[Any], Any]] = [
            ada.job,
            ada.attempts,
            ada.events,
            ada.output,
            ada.retry,
            lambda job: ada.read(job, "stdout"),
            lambda job: ada.ask(job, Move.STOP),
        ]
        for call in calls:
            for job, text in ((theirs.id, str(theirs.id)), (theirs.guid, theirs.guid), (99, "99")):
                with pytest.raises(StoreError, match=f"there is no job {text}"):
                    call(job)
        assert ada.listed() == []
        with pytest.raises(DeniedError, match=r"ada@EXAMPLE.ORG may not see the jobs of bob@EXAMPLE.ORG"):
            ada.listed(owner=BOB)

    def test_of_everybody_are_there_for_operators(self, service: Service) -> None:
        theirs = service.desk(BOB).submit("work", {})
        olga = service.desk(OPERATOR)
        assert olga.listed() == olga.listed(owner=BOB) == [olga.job(theirs.id)]
        assert olga.ask(theirs.id, Move.STOP).asked_by == OPERATOR
        assert olga.retry(theirs.id).owner == BOB

    def test_that_are_over_cannot_be_stopped(self, ada: Desk) -> None:
        job = ada.submit("work", {})
        ada.ask(job.id, Move.ABORT)
        with pytest.raises(IllegalMoveError):
            ada.ask(job.id, Move.STOP)

    def test_of_a_script_that_the_user_may_not_use_any_more_are_not_run_again(
        self, service: Service, ada: Desk, site: Site
    ) -> None:
        job = ada.submit("work", {})
        ada.ask(job.id, Move.STOP)
        site.install("true", f'users = ["princ:{BOB}"]')
        with pytest.raises(DeniedError):
            ada.retry(job.id)

    @pytest.mark.parametrize("limit", [0, 1001])
    def test_are_listed_some_at_a_time(self, ada: Desk, limit: int) -> None:
        with pytest.raises(ValueError, match=f"limit must be 1 to 1000: {limit}"):
            ada.listed(limit=limit)


class TestOutput:
    def test_is_nothing_before_the_job_has_run(self, ada: Desk) -> None:
        job = ada.submit("work", {})
        assert ada.output(job.id) == Output()
        assert ada.read(job.id, "stdout") == Piece(0, b"", 0)

    def test_comes_while_the_job_runs_and_is_all_there_at_the_end(self, ada: Desk, site: Site) -> None:
        site.install(f"printf 'one\\0'; echo oops >&2; {WAIT}; echo two")
        with working(site):
            job = ada.submit("work", {}).id
            until(lambda: ada.output(job)[:2] == (b"one\0", b"oops\n"))
            assert ada.read(job, "stdout") == Piece(0, b"one\0", 4)
            assert ada.read(job, "stdout", 4) == Piece(4, b"", 4)
            site.open()
            site.over(job)
        assert ada.output(job) == Output(b"one\0two\n", b"oops\n", 8, 5)
        assert ada.read(job, "stdout", 4) == Piece(4, b"two\n", 8)

    def test_is_what_the_store_keeps_where_the_folder_is_elsewhere(
        self, ada: Desk, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("remctl.jobs.runner._output.TAIL", 5)
        site.install("printf 0123456789")
        with working(site):
            job = ada.submit("work", {}).id
            site.over(job)
        for folder in site.settings.attempts.iterdir():
            folder.rename(tmp_path / "elsewhere")
        assert ada.output(job) == Output(b"56789", b"", 10, 0)
        assert ada.read(job, "stdout") == Piece(5, b"56789", 10)
        assert ada.read(job, "stdout", 7, limit=2) == Piece(7, b"78", 10)
        assert ada.read(job, "stdout", 10) == Piece(10, b"", 10)
        (tmp_path / "elsewhere").rename(site.settings.attempts / "back")

    def test_comes_from_another_machine_with_the_signs_of_life(self, make: MakeSite, postgres: Postgres) -> None:
        url = postgres.new_database()
        there, here = make("there", url, lease=2), make("here", url)
        script = there.install(f"echo one; {WAIT}; echo two")
        here.share(script)
        with working(there):
            ada = Service(here.settings, here.store).desk(ADA)
            job = ada.submit("work", {}).id
            until(lambda: ada.output(job).stdout == b"one\n")
            there.open()
            there.over(job)
        assert ada.output(job) == Output(b"one\ntwo\n", b"", 8, 0)

    def test_that_is_damaged_is_told_and_what_the_store_keeps_is_given(
        self, ada: Desk, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.install("printf 0123456789")
        with working(site):
            job = ada.submit("work", {}).id
            site.over(job)
        (folder,) = site.settings.attempts.iterdir()
        (folder / "kept" / "stdout").write_bytes(b"")
        assert ada.read(job, "stdout") == Piece(0, b"0123456789", 10)
        assert f"the output of job {job} cannot be read" in caplog.text
