"""The runner: what it does with jobs, with those who want them to end, and when it is to end itself."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.attempts import lives
from jobs.runners import ADA, DEAF, ROOT, WAIT, MakeSite, Site, halted, killed, process, working
from remctl.jobs.runner import Runner, RunnerError
from remctl.jobs.runner._output import TAIL
from remctl.jobs.scripts import AD_HOC, Parameters, _languages, read_script
from remctl.jobs.states import JobState, Move, Reason
from remctl.jobs.store import account_of
from remctl.jobs.store._claiming import hashed

ASKED = [(Move.STOP, JobState.STOPPED), (Move.ABORT, JobState.ABORTED)]

TEXT = ("[parameters.path]", 'type = "text"')


class TestRun:
    def test_to_the_end(self, site: Site) -> None:
        site.install("echo $JOB_ID >> $ran; echo out; echo err >&2")
        job = site.submit()
        with working(site):
            found = site.over(job)
        assert (found.state, found.reason, found.exit_status, found.signal) == (JobState.SUCCESS, Reason.EXIT, 0, None)
        assert found.started_at is not None
        assert found.ended_at is not None
        assert found.created_at <= found.started_at <= found.ended_at
        attempt = site.attempt(job)
        assert (attempt.stdout_tail, attempt.stderr_tail) == (b"out\n", b"err\n")
        assert attempt.runner == "one"
        assert site.lines() == [str(job)]

    @pytest.mark.parametrize(
        ("body", "reason", "status", "number"),
        [("exit 3", Reason.EXIT, 3, None), ("kill -9 $$", Reason.SIGNAL, None, signal.SIGKILL)],
    )
    def test_to_a_bad_end(self, site: Site, body: str, reason: Reason, status: int | None, number: int | None) -> None:
        site.install(body)
        job = site.submit()
        with working(site):
            found = site.over(job)
        assert (found.state, found.reason, found.exit_status, found.signal) == (JobState.FAILED, reason, status, number)

    def test_with_an_environment_that_nobody_leaves_anything_in(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CANARY", "it is inherited")
        given = "'given': json.load(open(os.environ['JOB_PARAMETERS']))"
        show = f"import json, os\nprint(json.dumps({{'cwd': os.getcwd(), {given}, **os.environ}}))"
        site.install(show, *TEXT, "[parameters.days]", 'type = "integer"', suffix=".py")
        job = site.submit(path="/home", days="3")
        with working(site):
            found = site.over(job)
        attempt = site.attempt(job)
        (folder,) = site.settings.attempts.iterdir()
        work = str(folder / "work")
        values = json.loads(attempt.stdout_tail)
        assert hashed(values.pop("JOB_PASSWORD")) == attempt.password
        assert values.pop("given") == {"path": "/home", "days": 3}
        assert not Path(values.pop("JOB_PARAMETERS")).exists()
        assert values == {
            "cwd": work,
            "HOME": work,
            "TMPDIR": work,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "JOB_ID": str(job),
            "JOB_GUID": found.guid,
            "JOB_ATTEMPT": "1",
            "JOB_REPORT_URL": "http://127.0.0.1:8437/api/xmlrpc",
            "JOB_ACCOUNT": account_of(attempt.id),
            "JOB_SCRIPT": "work",
            "JOB_OWNER": ADA,
            "JOB_PARAM_PATH": "/home",
            "JOB_PARAM_DAYS": "3",
        }

    def test_with_secrets_in_no_variable(self, site: Site) -> None:
        site.install("/usr/bin/env", *TEXT, "[parameters.key]", 'type = "secret"')
        job = site.submit(key="canary", path="/home")
        with working(site):
            assert site.over(job).state is JobState.SUCCESS
        shown = site.attempt(job).stdout_tail
        assert b"JOB_PARAM_PATH=/home" in shown
        assert b"canary" not in shown

    def test_with_parameters_as_long_as_they_may_be(self, site: Site) -> None:
        header = [line for name in "abc" for line in (f"[parameters.{name}]", 'type = "text"')]
        site.install("echo ${#JOB_PARAM_A} ${#JOB_PARAM_B} ${#JOB_PARAM_C}", *header)
        job = site.submit(a="x" * 60_000, b="x" * 60_000, c="x" * 60_000)
        with working(site):
            found = site.over(job)
        assert (found.state, found.detail) == (JobState.SUCCESS, None)
        assert site.attempt(job).stdout_tail == b"60000 60000 60000\n"

    def test_with_a_flood_of_output(self, site: Site) -> None:
        site.install("head -c 50000000 /dev/zero >&2; head -c 50000000 /dev/zero; printf the-end")
        job = site.submit()
        with working(site):
            assert site.over(job).state is JobState.SUCCESS
        attempt = site.attempt(job)
        assert (attempt.stdout_size, attempt.stderr_size) == (50_000_007, 50_000_000)
        assert attempt.stdout_tail == b"\0" * (TAIL - 7) + b"the-end"
        assert attempt.stderr_tail == b"\0" * TAIL

    def test_no_longer_than_the_script_may(self, site: Site) -> None:
        site.install(DEAF, "run-time = 1")
        job = site.submit()
        with working(site):
            found = site.over(job)
        assert (found.state, found.reason) == (JobState.FAILED, Reason.TIME_LIMIT)
        assert not lives(int(site.lines()[0]))

    def test_no_more_at_the_same_time_than_there_may_be(self, make: MakeSite) -> None:
        site = make(concurrency=2)
        site.install(f"{WAIT}; echo end >> $ran")
        jobs = [site.submit() for _ in range(6)]
        with working(site):
            site.begun(2)
            site.open()
            for job in jobs:
                assert site.over(job).state is JobState.SUCCESS
        running = most = 0
        for line in site.lines():
            running += -1 if line == "end" else 1
            most = max(most, running)
        assert most == 2

    def test_each_job_once_with_many_runners(self, make: MakeSite, url: str) -> None:
        one, two = make("one", url), make("two", url)
        two.share(one.install("echo $JOB_ID >> $ran"))
        jobs = [one.submit() for _ in range(30)]
        with working(one, two):
            for job in jobs:
                assert one.over(job).state is JobState.SUCCESS
        assert Counter(one.lines()) == Counter(map(str, jobs))
        assert {one.attempt(job).runner for job in jobs} == {"one", "two"}


class TestCannotStart:
    def test_a_script_that_was_changed(self, site: Site) -> None:
        path = site.install("echo >> $ran")
        path.chmod(0o700)
        path.write_text(path.read_text() + "echo more\n")
        self.refused(site, "it is not what was installed")

    def test_a_script_that_was_deleted(self, site: Site) -> None:
        site.install("echo >> $ran").unlink()
        self.refused(site, "No such file or directory")

    def test_a_script_without_an_interpreter(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.install("echo >> $ran")
        monkeypatch.setitem(_languages._ENVIRONMENT, "PATH", str(site.settings.folder))
        self.refused(site, "bash is not installed")

    def test_a_script_whose_parameters_were_changed(self, site: Site) -> None:
        source = site.settings.folder / "work.sh"
        site.install("echo >> $ran", *TEXT)
        job = site.submit(path="/home")
        source.write_text(source.read_text().replace("parameters.path", "parameters.file"))
        site.store.scripts.install(read_script(source), ROOT)  # the moment before its file is replaced
        site.install("true", name="other")
        other = site.submit("other")
        with working(site):
            assert site.over(other).state is JobState.SUCCESS
            assert site.over(job).state.final

    def refused(self, site: Site, detail: str) -> None:
        job = site.submit()
        with working(site):
            found = site.over(job)
        assert (found.state, found.reason) == (JobState.FAILED, Reason.NOT_STARTED)
        assert detail in (found.detail or "")
        assert site.lines() == []


MODULE = """\
from __future__ import annotations

import os
from dataclasses import dataclass

GREETING = "hello"

@dataclass
class Greeting:
    whom: str

    def __str__(self) -> str:
        return f"{GREETING}, {self.whom}"

print("set up as", __name__)
if __name__ == "__main__":
    print("the main part runs")
"""


class TestAdHoc:
    @pytest.fixture
    def site(self, site: Site) -> Site:
        """Give a folder in which ad-hoc Python is on, and a script that it may use."""
        site.store.scripts.install(AD_HOC, ROOT)
        site.install(MODULE, "run-time = 7200", suffix=".py")
        return site

    def test_finds_individual_parameters_as_they_were_given(self, site: Site) -> None:
        given = " --depth=3\r\n\t'ä' $HOME\n"
        code = "import os\nprint(ascii(os.environ.get('JOB_PARAM_INDIVIDUAL_PARAMETERS')))"
        jobs = [site.submit("python", code=code, **more) for more in ({"individual_parameters": given}, {})]
        with working(site):
            assert [site.over(job).state for job in jobs] == [JobState.SUCCESS] * 2
        assert [site.attempt(job).stdout_tail.decode() for job in jobs] == [f"{given!a}\n", "None\n"]

    def test_runs_in_the_setting_of_a_module_without_its_main_part(self, site: Site) -> None:
        code = "print(Greeting('Ada'), __name__, 'JOB_MODULE' in os.environ)"
        job = site.submit("python", code=code, module="work")
        with working(site):
            assert site.over(job).state is JobState.SUCCESS
        assert site.attempt(job).stdout_tail == b"set up as work\nhello, Ada __main__ False\n"

    def test_shows_where_a_module_fails(self, site: Site) -> None:
        site.install("def fail():\n    raise OSError('no')", name="failing", suffix=".py")
        job = site.submit("python", code="fail()", module="failing")
        with working(site):
            assert site.over(job).exit_status == 1
        said = site.attempt(job).stderr_tail.decode()
        assert "/module-failing.py\", line 5, in fail\n    raise OSError('no')\n" in said

    def test_with_a_module_that_has_the_name_of_a_library_leaves_the_library_alone(self, site: Site) -> None:
        site.install("import calendar", name="calendar", suffix=".py")
        job = site.submit("python", code="print(calendar.isleap(2000))", module="calendar")
        with working(site):
            assert site.over(job).state is JobState.SUCCESS
        assert site.attempt(job).stdout_tail == b"True\n"

    def test_may_run_as_long_as_its_module(self, site: Site) -> None:
        site.install("import time", "run-time = 1", name="short", suffix=".py")
        job = site.submit("python", code="time.sleep(60)", module="short")
        with working(site):
            assert site.over(job).reason is Reason.TIME_LIMIT

    @pytest.mark.parametrize(
        ("change", "detail"),
        [
            ("grown", "it is not what was installed"),
            ("gone", "No such file or directory"),
            ("off", "parameter module: the script 'work' is turned off"),
            ("removed", "parameter module: there is no script 'work'"),
        ],
    )
    def test_does_not_begin_when_its_module_has_changed(self, site: Site, change: str, detail: str) -> None:
        job = site.submit("python", code="open(__file__)", module="work")
        file = site.settings.scripts / "work.py"
        match change:
            case "grown":
                file.chmod(0o700)
                file.write_text(f"{file.read_text()}pass\n")
            case "gone":
                file.unlink()
            case "off":
                site.store.scripts.enable("work", False)
            case "removed":
                site.store.scripts.remove("work")
        with working(site):
            found = site.over(job)
        assert (found.state, found.reason) == (JobState.FAILED, Reason.NOT_STARTED)
        assert detail in (found.detail or "")

    def test_takes_all_its_parameters_in_a_database_from_before_they_were_there(self, site: Site) -> None:
        before = Parameters({"code": {"type": "text", "required": True, "multiline": True}})
        job = site.submit("python", code="print(GREETING)", module="work")
        site.store.scripts.install(replace(AD_HOC, parameters=before), ROOT)
        with working(site):
            assert site.over(job).state is JobState.SUCCESS


class TestAsked:
    @pytest.mark.parametrize(("move", "state"), ASKED)
    def test_while_it_runs(self, make: MakeSite, move: Move, state: JobState) -> None:
        site = make(lease=2)
        site.install(DEAF)
        job = site.submit()
        with working(site):
            (pid,) = site.begun()
            site.store.jobs.ask(job, move, ROOT)
            found = site.over(job)
        assert (found.state, found.asked_by) == (state, ROOT)
        assert not lives(int(pid))

    @pytest.mark.parametrize(("move", "state"), ASKED)
    @pytest.mark.parametrize("moment", ["after_claim", "after_spawn", "after_start"])
    def test_while_it_begins(self, make: MakeSite, moment: str, move: Move, state: JobState) -> None:
        site = make(lease=2)
        site.install(DEAF)
        job = site.submit()
        with process(site, f"{moment}:stop") as runner:
            halted(runner)
            site.store.jobs.ask(job, move, ROOT)
            runner.send_signal(signal.SIGCONT)
            assert site.over(job).state is state
        assert moment == "after_start" or site.lines() == []

    @pytest.mark.parametrize(("move", "state"), ASKED)
    def test_while_its_runner_is_dead(self, site: Site, move: Move, state: JobState) -> None:
        site.install("echo >> $ran")
        job = site.submit()
        killed(site, "after_spawn")
        site.store.jobs.ask(job, move, ROOT)
        with working(site):
            assert site.over(job, 5).state is state
        assert site.lines() == []


class TestEnd:
    def test_of_waiting_when_it_is_woken(self, make: MakeSite) -> None:
        site = make(poll=3600)
        site.install("true")
        with working(site) as runner:
            for _ in range(2):
                job = site.submit()
                runner.wake()
                assert site.over(job).state is JobState.SUCCESS

    def test_with_what_runs_when_it_drains(self, site: Site) -> None:
        site.install(WAIT)
        job = site.submit()
        with working(site) as runner:
            site.begun()
            runner.drain()
            late = site.submit()
            site.open()
            assert site.over(job).state is JobState.SUCCESS
        assert site.store.jobs.get(late).state is JobState.PENDING

    def test_at_once_when_it_is_stopped(self, site: Site) -> None:
        site.install(DEAF)
        job = site.submit()
        with working(site) as runner:
            (pid,) = site.begun()
            runner.stop()
        assert site.store.jobs.get(job).state is JobState.STOPPED
        assert not lives(int(pid))

    def test_before_the_beginning_where_another_one_works(self, site: Site) -> None:
        site.install(WAIT)
        job = site.submit()
        with working(site):
            site.begun()
            with pytest.raises(RunnerError, match=f"another runner works in {site.settings.folder}"):
                Runner(site.settings, site.store).run()
            site.open()
            assert site.over(job).state is JobState.SUCCESS
