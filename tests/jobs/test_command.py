"""The command `job`, in memory and as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from jobs.postgres import Postgres
from jobs.runners import MakeSite, Site, until, working
from remctl import Result, Stream
from remctl.backend import Context, ExitStatus
from remctl.backend._context import Caller
from remctl.jobs import command
from remctl.jobs._place import VARIABLE
from remctl.jobs.command import _output
from remctl.jobs.command._desk import Counter
from remctl.jobs.command._output import Watch
from remctl.jobs.command._refusal import Refusal
from remctl.jobs.scripts import AD_HOC
from remctl.jobs.service import Service
from remctl.jobs.settings import AccessSettings
from remctl.jobs.states import JobState, RobotStatus

ADA: Final = "ada@EXAMPLE.ORG"
OPERATOR: Final = "op@EXAMPLE.ORG"

HEADER: Final = (
    "[parameters.name]",
    'type = "text"',
    'pattern = "[A-Z][a-z]+"',
    'description = "whom"',
    "[parameters.size]",
    'type = "integer"',
    "default = 5",
    "minimum = 1",
    "[parameters.password]",
    'type = "secret"',
    "required = false",
)

Call = Callable[..., Result]


def service_of(site: Site) -> Service:
    """Return a service for which op@EXAMPLE.ORG is an operator, and nobody@EXAMPLE.ORG nobody."""
    access = AccessSettings(users=("deny:princ:nobody@EXAMPLE.ORG", "ANYUSER"), operators=(f"princ:{OPERATOR}",))
    return Service(site.settings._replace(access=access), site.store)


@pytest.fixture
def call(site: Site) -> Call:
    """Give a function that runs a command, as ada@EXAMPLE.ORG by default."""
    site.install("echo out; echo err >&2", *HEADER)
    backend = command.backend(service_of(site))
    return lambda *words, principal=ADA: backend.call(["job", *words], principal=principal)


def said(result: Result) -> Any:
    assert (result.stderr, result.status) == (b"", 0)
    return json.loads(result.stdout)


def refused(result: Result, status: int, complaint: str) -> None:
    assert result.status == status
    assert complaint in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1
    assert b"internal error" not in result.stderr


class TestScripts:
    def test_are_listed(self, call: Call) -> None:
        assert call("scripts") == Result(b"work                 bash     Work\n", b"", 0)
        assert [each["name"] for each in said(call("scripts", "--json"))] == ["work"]

    def test_are_explained(self, call: Call) -> None:
        assert call("script", "work").stdout.decode().splitlines() == [
            "work (bash; 3600 s at the most): Work",
            "  name      whom; text; matching [A-Z][a-z]+",
            "  size      integer, may be left out; default 5; 1 or more",
            "  password  secret, may be left out",
        ]
        assert said(call("script", "--json", "work"))["parameters"]["size"]["minimum"] == 1

    def test_that_are_not_there_are_refused(self, call: Call) -> None:
        refused(call("script", "play"), 1, "job script: there is no script 'play'")
        refused(call("submit", "play"), 1, "job submit: there is no script 'play'")

    def test_are_for_those_who_may_use_them(self, call: Call, site: Site) -> None:
        site.install("true", f'users = ["princ:{OPERATOR}"]', name="private")
        assert b"private" not in call("scripts").stdout
        assert b"private" in call("scripts", principal=OPERATOR).stdout
        refused(call("script", "private"), 77, "may not use the script 'private'")


class TestRobots:
    def test_are_listed_without_their_guids(self, call: Call, site: Site) -> None:
        robot = site.store.robots.add("R2", pool="night")
        site.store.robots.add("new\x1b")
        site.store.robots.heard(robot.guid, RobotStatus.READY, 60, machine="pc7")
        call("submit", "work", "--robot", robot.guid.upper(), "name=Ada")
        assert site.store.robots.claim(robot.guid, 60) is not None
        text = call("robots").stdout.decode()
        first, second = (line.split() for line in text.splitlines())
        assert [*first[:4], *first[5:]] == ["R2", "night", "Ready", "pc7", "job", "1"]
        assert second == ["new\\x1b", "-", "Disconnected", "-", "-", "-"]
        found = said(call("robots", "--json"))
        assert found[0] == {
            "name": "R2",
            "pool": "night",
            "status": "Ready",
            "seen_at": site.store.robots.get(robot.guid).seen_at,
            "machine": "pc7",
            "job": 1,
        }
        assert said(call("robots", "--json", principal=OPERATOR)) == found
        assert said(call("robots", "--json", principal="bob@EXAMPLE.ORG"))[0]["job"] is None
        assert not any(each.guid in text + str(found) for each in site.store.robots.all())


class TestSubmit:
    def test_prints_the_number(self, call: Call, site: Site) -> None:
        assert call("submit", "work", "name=Ada") == Result(b"1\n", b"", 0)
        job = site.store.jobs.get(1)
        assert (job.owner, job.parameters, job.priority) == (ADA, {"name": "Ada", "size": 5}, 0)

    def test_takes_parameters_as_json(self, call: Call) -> None:
        data = '{"name": "Ada", "size": 7, "password": "swordfish"}'
        job = said(call("submit", "--json", "--stdin", "--priority=-3", "work", data))
        assert (job["parameters"], job["priority"]) == ({"name": "Ada", "size": 7}, -3)
        assert said(call("submit", "--json", "--stdin", "work", "size=8", '{"name": "Ada"}'))["parameters"]["size"] == 8

    def test_takes_code_of_several_lines(self, call: Call, site: Site) -> None:
        site.store.scripts.install(AD_HOC, ADA)
        assert call("submit", "python", "code=if True:\n    print(1)\n").status == 0
        assert site.store.jobs.get(1).parameters == {"code": "if True:\n    print(1)\n"}

    def test_makes_one_job_of_one_guid(self, call: Call, site: Site) -> None:
        guid = "6f1c1e0a-0000-4000-8000-00000000000A"
        for _ in range(2):
            assert call("submit", "--guid", guid, "work", "name=Ada").stdout == b"1\n"
        assert call("status", guid).stdout == call("status", "1").stdout
        refused(call("submit", "--guid", guid, "work", "name=Ada", principal=OPERATOR), 1, "that of another job")

    @pytest.mark.parametrize(
        ("words", "status", "complaint"),
        [
            (["work"], 64, "parameter name: it is missing"),
            (["work", "name=ada"], 64, "parameter name: it does not match"),
            (["work", "colour=red"], 64, "there is no parameter 'colour'"),
            (["work", "name=Ada", "name=Bob"], 64, "the parameter name is given twice"),
            (["work", "Ada"], 64, "word 2 is not NAME=VALUE"),
            (["work", "name=Ada", "password=swordfish"], 64, "parameter password: it is secret"),
            (["work", b"name=\xff"], 64, "the last word is not UTF-8"),
            (["--stdin", "work", "swordfish"], 64, "standard input: it is no JSON"),
            (["--stdin", "work", '["swordfish"]'], 64, "standard input: dict expected"),
            (["--stdin", "work", "name=Ada", '{"name": "Bob"}'], 64, "the parameter name is given twice"),
            (["--stdin", "{}"], 64, "the script is missing"),
            ([], 64, "is missing"),
            (["--priority", "1", "work", "name=Ada"], 77, "priority must be 0 or less for users"),
            (["--priority", "101", "work", "name=Ada"], 64, "must be -100 to 100"),
            (["--delay", "-1", "work", "name=Ada"], 64, "must be 0 to"),
            (["--guid", "mine", "work", "name=Ada"], 64, "it is no GUID"),
        ],
        ids=str,
    )
    def test_refuses_what_makes_no_sense(
        self, call: Call, site: Site, words: list[str], status: int, complaint: str
    ) -> None:
        result = call("submit", *words)
        refused(result, status, complaint)
        assert b"swordfish" not in result.stderr
        assert site.store.jobs.listed() == []

    def test_shows_its_words_in_no_log(self, site: Site) -> None:
        backend = command.backend(service_of(site))
        assert b"swordfish" not in backend.shown([b"job", b"submit", b"work", b"password=swordfish", b"x=1"]).encode()


class TestJobs:
    def test_are_shown(self, call: Call) -> None:
        call("submit", "work", "name=Ada")
        line = call("status", "1").stdout.decode()
        assert line.startswith("1 Pending work ada@EXAMPLE.ORG 20")
        assert call("list").stdout.decode() == line
        assert [job["id"] for job in said(call("list", "--json", "--state", "pending", "--state", "FAILED"))] == [1]
        assert said(call("list", "--json", "--state", "failed")) == []
        assert said(call("status", "--json", "1"))["state"] == "Pending"

    def test_have_a_history(self, call: Call, site: Site) -> None:
        call("submit", "work", "name=Ada")
        with working(site):
            site.over(1)
        first, *rest = call("history", "1").stdout.decode().splitlines()
        assert first.startswith("attempt 1 on one: began 20")
        assert first.endswith("(exit 0)")
        assert [line.split(" ", 1)[1] for line in rest] == [
            f"Pending by {ADA}",
            "In_Progress by one",
            "Success by one",
        ]
        assert [event["state"] for event in said(call("history", "--json", "1"))["events"]][-1] == "Success"
        assert call("machines").stdout.split()[2:3] == [b"-"]
        assert said(call("machines", "--json"))[0]["certified"] is False

    def test_are_for_a_robot_or_a_pool(self, call: Call, site: Site) -> None:
        site.store.robots.add("R2", pool="night")
        for options, place in ((["--robot=R2"], ("R2", None)), (["--pool=night"], (None, "night")), ([], (None, None))):
            job = said(call("submit", "--json", *options, "work", "name=Ada"))
            assert (job["robot"], job["pool"]) == place
            assert job == said(call("status", "--json", str(job["id"])))
        refused(call("submit", "--robot=R9", "work", "name=Ada"), 1, "there is no robot 'R9'")
        refused(call("submit", "--pool=day", "work", "name=Ada"), 1, "there is no robot of the pool 'day'")
        both = call("submit", "--robot=R2", "work", "name=Ada", "--pool=night")
        assert b"--robot and --pool are given once, and not both" in both.stderr
        assert both.status == ExitStatus.USAGE
        assert b"--pool has no value" in call("submit", "work", "name=Ada", "--pool").stderr

    def test_are_stopped_aborted_and_retried(self, call: Call) -> None:
        for verb, state in (("stop", "Stopped (stopped)"), ("abort", "Aborted (aborted)")):
            number = call("submit", "work", "name=Ada").stdout.decode().strip()
            assert call(verb, number).stdout.decode().startswith(f"{number} {state} work")
            refused(call(verb, number), 1, "cannot")
            assert said(call("retry", "--json", number))["state"] == "Pending"
            refused(call("retry", number), 1, "is not over")

    @pytest.mark.parametrize("verb", ["status", "history", "wait", "output", "stop", "abort", "retry"])
    def test_of_others_are_told_from_none_at_all_by_nobody(self, call: Call, verb: str) -> None:
        call("submit", "work", "name=Ada", principal=OPERATOR)
        other, none = call(verb, "1"), call(verb, "2")
        refused(other, 1, f"job {verb}: there is no job 1")
        assert other.stderr.replace(b"1", b"2") == none.stderr
        assert json.loads(call(verb, "--json", "1").stdout)["error"]["kind"] == "no-such-job"

    def test_are_refused_to_those_who_may_not_use_them(self, call: Call) -> None:
        refused(call("list", principal="nobody@EXAMPLE.ORG"), 77, "nobody@EXAMPLE.ORG may not use the jobs")
        refused(call("list", "--owner", OPERATOR), 77, "may not see the jobs of")

    @pytest.mark.parametrize(
        "words",
        [
            ["status", "1x"],
            ["status", "9" * 19 + "!"],
            ["list", "--state", "sleeping"],
            ["list", "--limit", "0"],
            ["wait", "--timeout", "-1", "1"],
            ["wait"],
            ["bogus"],
        ],
        ids=str,
    )
    def test_are_asked_for_in_words_that_make_sense(self, call: Call, words: list[str]) -> None:
        refused(call(*words), 64, "job ")


class TestOutput:
    def test_is_exact(self, call: Call, site: Site) -> None:
        site.install("printf 'a\\0\\377'; printf '\\1' >&2", name="bytes")
        call("submit", "bytes")
        with working(site):
            site.over(1)
        assert call("output", "1") == Result(b"a\0\xff", b"", 0)
        assert call("output", "--stderr", "1") == Result(b"\1", b"", 0)
        assert len(call("output", "--json", "1").stdout.splitlines()) == 2

    def test_is_there_without_the_folder(self, call: Call, site: Site) -> None:
        call("submit", "work", "name=Ada")
        with working(site):
            site.over(1)
        for kept in site.settings.attempts.glob("*/kept"):
            kept.rename(kept.with_name("gone"))
        assert call("output", "1").stdout == b"out\n"
        assert call("wait", "1") == Result(b"out\n", b"job 1: Success (exit 0)\nerr\n", 0)

    def test_says_what_is_not_kept(self, make: MakeSite) -> None:
        site = make(output=1024)
        site.install("printf 'x%.0s' {1..2000}")
        site.submit()
        with working(site):
            site.over(1)
        call = command.backend(service_of(site)).call
        expected = Result(b"x" * 1024, b"job 1: 976 bytes of stdout are not kept, from byte 0 on\n", 0)
        assert call(["job", "output", "1"], principal=ADA) == expected

    def test_of_a_job_that_begins_again_meanwhile_is_not_mixed(self, site: Site) -> None:
        site.install("printf 'x%.0s' {1..200000}; [ -e $gate ]")
        site.submit()
        service = service_of(site)
        counter = Counter(service, Context(("job", "output"), Caller(ADA, "", "", None), Listening()))
        with working(site):
            assert site.over(1).state is JobState.FAILED
            pieces = _output.kept(counter, 1, "stdout")
            next(pieces)
            site.store.jobs.retry(1, ADA)
            until(lambda: site.store.jobs.get(1).attempts == 2)
            with pytest.raises(Refusal, match="job 1 has begun again meanwhile"):
                list(pieces)


class Listening:
    """Where a command's output goes while it runs."""

    def __init__(self) -> None:
        self.output = dict.fromkeys(Stream, b"")

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:
        self.output[stream] += data

    async def drain(self) -> None:
        pass

    @property
    def errors(self) -> str:
        return self.output[Stream.STDERR].decode()


class TestWait:
    def test_ends_with_the_job(self, call: Call, site: Site) -> None:
        site.install("exit 3", name="fail")
        call("submit", "work", "name=Ada")
        call("submit", "fail")
        with working(site):
            good, bad = call("wait", "1"), call("wait", "--no-output", "2")
        assert (good.stdout, good.status) == (b"out\n", 0)
        assert b"job 1: Success (exit 0)\n" in good.stderr
        assert (bad.stdout, bad.status) == (b"", 1)
        assert b"job 2: Failed (exit 3)\n" in bad.stderr

    def test_has_a_time_limit(self, call: Call) -> None:
        call("submit", "work", "name=Ada")
        assert call("wait", "--timeout", "0", "1") == Result(
            b"", b"job 1: Pending\njob 1: the time limit has passed\n", 75
        )
        events = [json.loads(line) for line in call("wait", "--json", "--timeout=0.2", "1").stdout.splitlines()]
        assert [event["event"] for event in events] == ["state", "timeout"]

    def test_tells_of_a_job_that_is_over_to_its_end_whatever_the_limit(self, call: Call, site: Site) -> None:
        call("submit", "work", "name=Ada")
        with working(site):
            site.over(1)
        assert call("wait", "--timeout", "0", "1").status == 0

    def test_says_that_it_is_alive(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_output, "ALIVE", 0.1)
        call("submit", "work", "name=Ada")
        events = call("wait", "--json", "--timeout", "1", "1").stdout
        assert b'{"event":"alive"}\n' in events

    def test_begins_the_output_anew_with_each_attempt(self, make: MakeSite) -> None:
        site = make(lease=1)
        site.install('echo "$JOB_ID"; echo >> $ran; [ -e $gate ] || exit 1')
        site.submit()
        service = service_of(site)
        backend = command.backend(service)
        with working(site):
            assert site.over(1).state is JobState.FAILED
            site.open()
            watch = Watch(1)
            counter = Counter(service, Context(("job", "wait"), Caller(ADA, "", "", None), Listening()))
            before = [*watch.look(counter), *watch.look(counter)]
            backend.call(["job", "retry", "1"], principal=ADA)
            site.over(1)
            until(lambda: site.store.jobs.get(1).attempts == 2)
            site.over(1)
            after = [event for _ in range(3) for event in watch.look(counter)]
        told = [(type(event).__name__, getattr(event, "attempt", None)) for event in [*before, *after]]
        assert told == [
            ("StateEvent", 1),
            ("OutputEvent", 1),
            ("StateEvent", 2),
            ("OutputEvent", 2),
            ("EndEvent", None),
        ]

    def test_goes_on_when_the_database_is_back(self, make: MakeSite, own: Postgres) -> None:
        site = make(url=own.new_database())
        site.install("echo out")
        site.submit()
        sink, backend = Listening(), command.backend(service_of(site))
        words = [b"job", b"wait", b"1"]
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(backend.perform, words, Caller(ADA, "", "", None), sink)
            until(lambda: "job 1: Pending\n" in sink.errors)
            own.stop()
            try:
                until(lambda: "job wait: the database cannot be reached" in sink.errors)
                refused(backend.call(["job", "status", "1"], principal=ADA), 75, "the database cannot be reached")
                late = backend.call(["job", "wait", "--timeout=0.1", "1"], principal=ADA)
                assert (late.status, late.stderr.count(b"cannot be reached")) == (75, 2)
            finally:
                own.start()
            with working(site):
                assert waiting.result(30) == 0
        assert sink.errors.count("cannot be reached") == 1
        assert sink.output[Stream.STDOUT] == b"out\n"


class TestProgram:
    """As remctld and people run it."""

    @staticmethod
    def run(*words: str, data: bytes = b"", remote: str | None = ADA, config: Path | None = None) -> Result:
        env = {"PATH": os.defpath}
        if config is not None:
            env[VARIABLE] = str(config)
        if remote is not None:
            env |= {"REMOTE_USER": remote, "REMCTL_COMMAND": "job"}
        line = [sys.executable, "-X", "dev", "-W", "error", "-m", "remctl.jobs.command", *words]
        done = subprocess.run(line, env=env, input=data, capture_output=True, timeout=30)
        return Result(done.stdout, done.stderr, done.returncode)

    def test_runs_for_the_caller_whom_remctld_tells(self, site: Site) -> None:
        site.install("true", *HEADER)
        assert self.run("submit", "work", data=b"name=Ada", config=site.file) == Result(b"1\n", b"", 0)
        assert site.store.jobs.get(1).owner == ADA
        refused(self.run("status", "1", remote="eve@EXAMPLE.ORG", config=site.file), 1, "there is no job 1")
        assert self.run("submit", "--stdin", "work", data=b'{"name":"Bob"}', config=site.file).stdout == b"2\n"

    def test_runs_for_whoever_can_read_its_configuration(self, site: Site) -> None:
        site.install("true", 'users = ["princ:nobody@EXAMPLE.ORG"]', *HEADER)
        by_hand = ["--config", str(site.file)]
        assert self.run(*by_hand, "submit", "work", "name=Ada", remote=None) == Result(b"1\n", b"", 0)
        data = b'{"name":"Ada","password":"swordfish"}'
        assert self.run(*by_hand, "submit", "--stdin", "work", data=data, remote=None).stdout == b"2\n"
        assert site.store.jobs.get(1).owner not in (ADA, "")

    def test_takes_no_configuration_from_a_caller(self, site: Site) -> None:
        result = self.run("--config", str(site.file), "list")
        refused(result, 64, "unknown command")

    def test_says_nothing_of_a_wrong_configuration_to_a_caller(self, tmp_path: Path) -> None:
        missing = tmp_path / "jobs.toml"
        result = self.run("list", config=missing)
        assert result.status == 70
        assert result.stderr.startswith(b"job list: the jobs are not set up here; the server's log says more\n")
        by_hand = self.run("list", remote=None, config=missing)
        refused(by_hand, 70, "remctl-jobs init")
        missing.write_text('database = "mysql://localhost/jobs"')
        refused(self.run("list", remote=None, config=missing), 70, "must be sqlite or postgresql")
        assert self.run("--config", remote=None).status == 1

    def test_says_that_the_database_is_away_or_out_of_date(self, tmp_path: Path) -> None:
        file = tmp_path / "jobs.toml"
        file.write_text(f'database = "postgresql://nobody@/jobs?host={tmp_path}"')
        away = self.run("status", "--json", "1", config=file)
        assert away.status == 75
        assert json.loads(away.stdout)["error"]["kind"] == "unavailable"
        assert away.stderr.startswith(b"job status: the database cannot be reached; try again later\n")
        file.write_text("")
        refused(self.run("list", remote=None, config=file), 70, "run: remctl-jobs upgrade")

    def test_needs_no_configuration_for_help(self) -> None:
        assert b"job wait" in self.run("help").stdout

    def test_loads_no_more_than_it_needs(self) -> None:
        code = """if True:
            import sys
            for name in ("alembic", "asyncio", "msgspec", "sqlalchemy", "starlette"):
                sys.modules[name] = None
            from remctl.jobs import command
            command.main("nowhere", ["help"])
        """
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30, capture_output=True)

    def test_does_not_load_the_web_server(self, site: Site) -> None:
        code = f"""if True:
            import sys
            sys.modules["starlette"] = None
            from remctl.jobs import command
            command.main({str(site.file)!r})
        """
        done = subprocess.run([sys.executable, "-c", code, "list"], timeout=30, capture_output=True)
        assert (done.stderr, done.returncode) == (b"", 0)

    def test_prints_lines_for_remctld(self, tmp_path: Path) -> None:
        program = tmp_path / "job"
        program.write_text(command.program(tmp_path / "jobs.toml"))
        program.chmod(0o755)
        done = subprocess.run([program, "--remctld-config", "--program", program], capture_output=True, timeout=30)
        lines = done.stdout.decode().splitlines()
        assert (done.stderr, len(lines)) == (b"", 15)
        (line,) = [line for line in lines if line.startswith("job submit ")]
        assert f" {program} stdin=last logmask=2,3," in line
