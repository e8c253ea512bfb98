"""Each exit code, by its real cause: the program as a scheduler starts it, against real servers and a real KDC."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from doubles import HangingUpServer, Relay, SilentServer
from serving import ServerThread

from jobs.headless.place import LIMIT, Place, RelayTo, lowered, secret_of, silent
from jobs.runners import process, until, working
from remctl.jobs import command
from remctl.jobs.headless import Code
from remctl.jobs.service import Service
from remctl.jobs.settings import AccessSettings
from remctl.jobs.states import JobState, Move
from remctl.jobs.store import Job, Order, StoreError
from remctl.testing import Server
from remctl.testing.server import free_port

WAITING = ("-t", "-1")


@contextmanager
def never_returning(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> Iterator[None]:
    """Have a server get stuck in a function, for a `with`."""
    over = threading.Event()

    def stuck(*_: object) -> None:
        over.wait(LIMIT)
        raise StoreError("it is over")

    monkeypatch.setattr(where, name, stuck)
    yield
    over.set()


class TestOk:
    def test_a_job_that_ends_well_under_remctld(self, place: Place, remctld: Server) -> None:
        assert place.code(*place.at(remctld.port), "-m", "good", *WAITING) == Code.OK

    def test_a_job_that_is_accepted(self, place: Place) -> None:
        assert place.code(*place.service, "-m", "slow") == Code.OK
        assert place.site.store.jobs.listed()[0].state in (JobState.PENDING, JobState.IN_PROGRESS)
        place.site.open()

    def test_a_job_with_a_key(self, place: Place, tmp_path: Path) -> None:
        user = place.box.add_principal("keyed")
        words = ("-u", "keyed", "-p", str(secret_of(user.keytab, tmp_path)), "-m", "good", *WAITING)
        assert place.code(*place.service, *words, environment={"KRB5CCNAME": None}) == Code.OK
        assert place.site.store.jobs.listed()[0].owner == user.name

    def test_a_job_of_the_user_who_is_named(self, place: Place) -> None:
        assert place.code(*place.service, "-m", "good", "-u", "user", "-a", "osuser") == Code.OK

    def test_texts_are_utf8_in_every_locale(self, place: Place) -> None:
        ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        assert place.code(*place.service, "-m", "told", *WAITING, "-i", "é", environment=ascii_only) == Code.OK
        assert place.site.ran.read_text() == "é"
        place.site.ran.unlink()

    def test_parameters_that_look_like_options_arrive_unchanged(self, place: Place) -> None:
        for text in ("--x=1\n\ttwo lines", "{a:'b'}", "-", "-v é"):
            assert place.code(*place.service, "-m", "told", *WAITING, "-i", text) == Code.OK
            assert place.site.ran.read_bytes() == text.encode()
        place.site.ran.unlink()

    def test_code_alone_and_in_the_setting_of_a_module(self, place: Place, tmp_path: Path) -> None:
        file = tmp_path / "code.py"
        file.write_text("import os; print(os.environ['JOB_PARAM_INDIVIDUAL_PARAMETERS'])")
        ended = place.run(*place.service, *WAITING, "--output", "-i", "told", "-f", str(file))
        assert (ended.returncode, ended.stdout, ended.stderr) == (Code.OK, b"told\n", b"")
        ended = place.run(*place.service, *WAITING, "--output", "-c", "-1; print(__file__)", "-m", "setting")
        assert ended.returncode == Code.OK
        assert b"setting.py" in ended.stdout


class TestConnection:
    def test_nothing_listens(self, place: Place) -> None:
        assert place.code(*place.at(free_port("127.0.0.1")), "-m", "good") == Code.CONNECTION

    def test_no_such_host(self, place: Place) -> None:
        assert place.code("-s", "no-such-host.invalid", "-m", "good") == Code.CONNECTION

    def test_the_kdc_is_stopped(self, place: Place, elsewhere: tuple[dict[str, str], int], tmp_path: Path) -> None:
        environment, port = elsewhere
        assert place.code(*place.service, "-m", "good", environment=environment) == Code.CONNECTION
        key = secret_of(str(place.box.path / f"x{port}.keytab"), tmp_path)
        words = ("-u", f"x{port}", "-p", str(key), "-m", "good")
        assert place.code(*place.service, *words, environment=environment) == Code.CONNECTION

    def test_the_server_is_gone_before_the_login(self, place: Place) -> None:
        with HangingUpServer() as server:
            assert place.code(*place.at(server.port), "-m", "good") == Code.CONNECTION

    def test_the_server_is_gone_before_the_submission(
        self, still: Place, monkeypatch: pytest.MonkeyPatch, relay_to: RelayTo
    ) -> None:
        relay = relay_to(still)

        def die(_: str) -> None:
            relay.stop()
            raise StoreError("the server is gone")

        monkeypatch.setattr(still.site.store.scripts, "get", die)
        assert still.code(*still.at(relay.port), "-m", "good") == Code.CONNECTION
        assert still.site.store.jobs.listed() == []

    def test_a_question_before_the_submission_has_no_answer(
        self, still: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with never_returning(monkeypatch, still.site.store.scripts, "get"):
            code = still.code(*still.service, "-m", "good", prelude=lowered("QUESTION", 0.5))
        assert code == Code.CONNECTION

    def test_what_listens_is_no_remctl_server(self, place: Place) -> None:
        with Relay(place.server.port) as relay:
            relay.down = lambda data: b"220 welcome\r\n" * 9
            assert place.code(*place.at(relay.port), "-m", "good") == Code.CONNECTION


class TestParameter:
    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("-x",),
            ("--serv", "a", "-m", "b"),
            ("-s",),
            ("-s", "a:b", "-m", "c"),
            ("-s", "a", "-m", "b", "-t", "-2"),
            ("-s", "a", "-m", "b", b"-i\xff"),
            ("-s", "a", "-m", "b", "--output"),
            ("-s", "a", "-f", "/no/such/file"),
            ("-s", "a", "-m", "b", "-a", "challenge", "-u", "me"),
        ],
    )
    def test_bad_options(self, place: Place, words: tuple[str | bytes, ...]) -> None:
        assert place.code(*words) == Code.PARAMETER

    def test_a_parameter_that_the_script_does_not_have(self, place: Place) -> None:
        ended = place.run(*place.service, "-v", "-m", "good", "-i", "swordfish")
        assert ended.returncode == Code.PARAMETER
        assert b"individual_parameters" in ended.stderr
        assert b"swordfish" not in ended.stderr

    def test_a_value_that_the_server_refuses_and_shows(self, place: Place) -> None:
        ended = place.run(*place.service, "-vvv", "-m", "told", "-i", "swordfish\x1b" * 6000)
        assert ended.returncode == Code.PARAMETER
        assert b"swordfish" not in ended.stderr

    def test_more_than_a_command_holds(self, place: Place) -> None:
        prelude = "from remctl import _arguments; _arguments.MAX_COMMAND_SIZE = 100"
        assert place.code(*place.service, "-m", "told", "-i", "x" * 200, prelude=prelude) == Code.PARAMETER

    def test_a_secret_file_that_is_missing_where_nobody_can_be_asked(self, place: Place, tmp_path: Path) -> None:
        words = ("-u", "user", "-p", str(tmp_path / "secret"), "-m", "good")
        assert place.code(*place.service, *words) == Code.PARAMETER


class TestTimeout:
    def test_the_limit_passes_while_the_job_goes_on(self, place: Place) -> None:
        place.site.gate.unlink(missing_ok=True)
        for limit in ("0", "0.5"):
            assert place.code(*place.service, "-m", "slow", "-t", limit) == Code.TIMEOUT
        place.site.open()

    def test_no_runner_works(self, still: Place) -> None:
        assert still.code(*still.service, "-m", "good", "-t", "1") == Code.TIMEOUT


class TestAuthentication:
    def test_no_ticket(self, place: Place, tmp_path: Path) -> None:
        environment = {"KRB5CCNAME": str(tmp_path / "none")}
        assert place.code(*place.service, "-m", "good", environment=environment) == Code.AUTHENTICATION
        assert place.code(*place.service, "-m", "good", "-u", "user", environment=environment) == Code.AUTHENTICATION

    def test_tickets_of_somebody_else(self, place: Place) -> None:
        assert place.code(*place.service, "-m", "good", "-u", "other") == Code.AUTHENTICATION

    def test_a_wrong_key(self, place: Place, tmp_path: Path) -> None:
        key = secret_of(place.box.add_principal("changed").keytab, tmp_path)
        place.box._realm().run_kadminl(["cpw", "-pw", "another", "changed"])
        assert place.code(*place.service, "-m", "good", "-u", "changed", "-p", str(key)) == Code.AUTHENTICATION

    def test_an_account_that_has_expired(self, place: Place, tmp_path: Path) -> None:
        key = secret_of(place.box.add_principal("expired").keytab, tmp_path)
        place.box._realm().run_kadminl(["modprinc", "-expire", "2001-01-01", "expired"])
        assert place.code(*place.service, "-m", "good", "-u", "expired", "-p", str(key)) == Code.AUTHENTICATION

    def test_a_user_whom_the_server_does_not_let_in(self, place: Place) -> None:
        settings = place.site.settings._replace(access=AccessSettings(users=("princ:nobody@SANDBOX.TEST",)))
        with ServerThread(place.box, command.backend(Service(settings, place.site.store))) as server:
            assert place.code(*place.at(server.port), "-m", "good") == Code.AUTHENTICATION
        other = place.box.add_server()
        other.add_command("job", "ALL", "/bin/true", acl="princ:nobody@SANDBOX.TEST")
        assert place.code(*place.at(other.port), "-m", "good") == Code.AUTHENTICATION
        other.stop()


class TestLoginTimeout:
    def test_neither_server_nor_kdc_says_anything_for_20_seconds(
        self, place: Place, elsewhere: tuple[dict[str, str], int]
    ) -> None:
        environment, port = elsewhere
        with silent(port), SilentServer() as server:
            started = [
                place.start(*place.at(server.port), "-m", "good"),
                place.start(*place.service, "-m", "good", environment=environment),
            ]
            assert [each.wait(40) for each in started] == [Code.LOGIN_TIMEOUT] * 2
            assert [each.communicate() for each in started] == [(b"", b"")] * 2

    def test_a_kdc_that_is_too_slow_for_a_key(
        self, place: Place, elsewhere: tuple[dict[str, str], int], tmp_path: Path
    ) -> None:
        environment, port = elsewhere
        key = secret_of(str(place.box.path / f"x{port}.keytab"), tmp_path)
        words = (*place.service, "-u", f"x{port}", "-p", str(key), "-m", "good")
        with silent(port):
            code = place.code(*words, environment=environment, prelude=lowered("LOGIN", 1))
        assert code == Code.LOGIN_TIMEOUT


class TestEnded:
    def test_the_server_is_gone_with_the_answer_to_the_submission(
        self, still: Place, monkeypatch: pytest.MonkeyPatch, relay_to: RelayTo
    ) -> None:
        relay = relay_to(still)
        submit = still.site.store.jobs.submit_all

        def submit_and_die(orders: Sequence[Order]) -> list[Job]:
            jobs = submit(orders)
            relay.stop()
            return jobs

        monkeypatch.setattr(still.site.store.jobs, "submit_all", submit_and_die)
        prelude = lowered("PATIENCE", 1)
        assert still.code(*still.at(relay.port), "-m", "good", prelude=prelude) == Code.ENDED
        assert len(still.site.store.jobs.listed()) == 1

    def test_the_submission_has_no_answer(self, still: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        with never_returning(monkeypatch, still.site.store.jobs, "submit_all"):
            code = still.code(*still.service, "-m", "good", prelude=lowered("QUESTION", 0.5))
        assert code == Code.ENDED

    def test_the_server_is_gone_while_the_job_runs(self, still: Place, relay_to: RelayTo) -> None:
        relay = relay_to(still)
        with working(still.site):
            client = still.start(*still.at(relay.port), "-m", "slow", *WAITING, prelude=lowered("PATIENCE", 1))
            still.site.begun()
            relay.stop()
            assert client.wait(20) == Code.ENDED
            assert client.communicate() == (b"", b"")
            still.site.open()

    def test_a_server_that_comes_back_is_no_loss(self, still: Place, relay_to: RelayTo) -> None:
        relay = relay_to(still)
        client = still.start(*still.at(relay.port), "-m", "good", *WAITING)
        until(lambda: still.site.store.jobs.listed())
        relay.cut()
        with working(still.site):
            assert client.wait(30) == Code.OK
        assert client.communicate() == (b"", b"")

    @pytest.mark.parametrize("move", [Move.STOP, Move.ABORT])
    def test_somebody_ends_the_job(self, still: Place, move: Move) -> None:
        client = still.start(*still.service, "-m", "slow", *WAITING)
        (job,) = until(lambda: still.site.store.jobs.listed())
        still.site.store.jobs.ask(job.id, move, "somebody")
        assert client.wait(20) == Code.ENDED
        assert client.communicate() == (b"", b"")

    def test_the_runner_is_lost(self, still: Place) -> None:
        client = still.start(*still.service, "-m", "slow", *WAITING)
        with process(still.site) as runner:
            still.site.begun()
            runner.kill()
        with working(still.site):
            assert client.wait(30) == Code.ENDED
        assert client.communicate() == (b"", b"")


class TestServer:
    def test_a_job_that_fails(self, place: Place) -> None:
        assert place.code(*place.service, "-m", "bad", *WAITING) == Code.SERVER
        assert place.code(*place.service, "-c", "1/0", *WAITING) == Code.SERVER

    def test_a_command_that_fails(self, place: Place) -> None:
        server = place.box.add_server()
        server.add_command("job", "ALL", "/bin/false")
        assert place.code(*place.at(server.port), "-m", "good") == Code.SERVER
        server.stop()


class TestNoModule:
    def test_a_module_that_is_not_there(self, place: Place, remctld: Server) -> None:
        assert place.code(*place.at(remctld.port), "-m", "none") == Code.NO_MODULE

    def test_ad_hoc_python_that_is_off(self, still: Place) -> None:
        assert still.code(*still.service, "-c", "1") == Code.NO_MODULE

    def test_a_module_that_is_no_setting(self, place: Place) -> None:
        for module in ("good", "none"):
            assert place.code(*place.service, "-c", "1", "-m", module) == Code.NO_MODULE

    def test_a_server_without_jobs(self, place: Place) -> None:
        assert place.code(*place.at(place.box.port), "-m", "good") == Code.NO_MODULE
