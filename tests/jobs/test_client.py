"""The clients of the command `job`, blocking and asyncio, against a real server, a real KDC and a runner."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from doubles import Peer, Relay, ScriptedServer, SilentServer
from serving import PATIENCE, ServerThread

import remctl
from jobs.runners import WAIT, MakeSite, Site, until, working
from remctl import RemctlConnectionError, RemctlNotOpenedError, RemctlTimeoutError
from remctl.aio import Server
from remctl.jobs import aio, client
from remctl.jobs._answers import EndEvent, GapEvent, JobEvent, OutputEvent, StateEvent
from remctl.jobs.client import _asking
from remctl.jobs.command import backend
from remctl.jobs.scripts import AD_HOC
from remctl.jobs.service import Service
from remctl.jobs.settings import AccessSettings
from remctl.jobs.states import JobState, Reason, RobotStatus
from remctl.testing import Sandbox

USER: Final = "user@SANDBOX.TEST"

NAME: Final = ("[parameters.name]", 'type = "text"', 'default = "you"')


class Blocking:
    """The asyncio client in blocking form, on an event loop and a thread of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = aio.Client(*arguments, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._run(getattr(self._client, name)(*arguments, **options))

    def follow(self, *arguments: Any) -> Iterator[JobEvent]:
        events = self._client.follow(*arguments)

        async def following() -> JobEvent | None:
            return await anext(events, None)

        try:
            while (event := self._run(following())) is not None:
                yield event
        finally:
            self._run(events.aclose())  # type: ignore[attr-defined]  # an asynchronous generator

    def __enter__(self) -> Blocking:
        self._run(self._client.__aenter__())
        return self

    def __exit__(self, *failure: Any) -> None:
        self._run(self._client.__aexit__(*failure))

        async def others() -> list[asyncio.Task[Any]]:
            return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

        left = self._run(others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert left == []

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)


MakeClient = Callable[..., Any]

FACES: Final = {"blocking": client.Client, "asyncio": Blocking}


@pytest.fixture(params=FACES)
def make_client(request: pytest.FixtureRequest, box: Sandbox) -> Iterator[MakeClient]:
    """Give a function that makes a client, of each kind in turn."""
    made = []

    def making(port: int, **options: Any) -> Any:
        made.append(FACES[request.param]("localhost", port, box.principal, **options))
        return made[-1].__enter__()

    yield making
    for each in made:
        each.__exit__(None, None, None)


@pytest.fixture
def site(make: MakeSite) -> Site:
    """Give a folder for a runner that asks often whether a job is to be stopped."""
    return make(lease=1)


@pytest.fixture
def service(site: Site) -> Service:
    """Give the service, with op@SANDBOX.TEST as an operator."""
    access = AccessSettings(operators=("princ:op@SANDBOX.TEST",))
    return Service(site.settings._replace(access=access), site.store)


@pytest.fixture
def server(box: Sandbox, service: Service) -> Iterator[ServerThread]:
    """Give a server with the command `job`."""
    with ServerThread(box, backend(service)) as started:
        yield started


@pytest.fixture
def user(make_client: MakeClient, server: ServerThread) -> Any:
    """Give a client."""
    return make_client(server.port)


def cache_of(box: Sandbox, name: str) -> str:
    """Return a cache with the ticket of a principal, which is made at the first time."""
    cache = box.path / f"ccache-of-{name}"
    return str(cache) if cache.exists() else box.kinit(box.add_principal(name), ccache=str(cache))


def written(events: list[JobEvent], stream: str = "stdout") -> bytes:
    return b"".join(event.data for event in events if isinstance(event, OutputEvent) and event.stream == stream)


def runs(server: Server) -> int:
    """Return how many commands run."""
    return sum(each._running for each in server._served)


class TestJobs:
    def test_are_submitted_and_waited_for(self, site: Site, user: Any) -> None:
        site.install('echo "hello $JOB_PARAM_NAME"; echo bad >&2', *NAME)
        with working(site):
            job = user.submit("work", {"name": "Ada"}, priority=-5)
            assert (job.owner, job.script, job.parameters, job.priority) == (USER, "work", {"name": "Ada"}, -5)
            found = user.wait(job.id, timeout=20)
        assert (found.state, found.reason, found.exit_status) == (JobState.SUCCESS, Reason.EXIT, 0)
        assert found == user.job(job.guid) == user.jobs(states=[JobState.SUCCESS], script="work", owner=USER)[0]
        assert user.output(job.id) == (b"hello Ada\n", b"bad\n", 10, 4)
        history = user.history(job.id)
        assert [event.state for event in history.events] == [JobState.PENDING, JobState.IN_PROGRESS, JobState.SUCCESS]
        assert [(attempt.number, attempt.reason, attempt.runner) for attempt in history.attempts] == [
            (1, "exit", "one")
        ]
        assert [machine.certified for machine in user.machines()] == [False]

    def test_are_for_a_robot_or_a_pool(self, site: Site, user: Any) -> None:
        site.install("true")
        robot = site.store.robots.add("R2", pool="night")
        made = [user.submit("work", robot="R2"), user.submit("work", pool="night"), user.submit("work")]
        assert [(job.robot, job.pool) for job in made] == [("R2", None), (None, "night"), (None, None)]
        assert user.jobs() == made[::-1]
        site.store.robots.heard(robot.guid, RobotStatus.READY, 60, machine="pc7")
        assert site.store.robots.claim(robot.guid, 60) is not None
        (found,) = user.robots()
        assert (found.name, found.pool, found.machine, found.job) == ("R2", "night", "pc7", made[0].id)
        assert found.status is RobotStatus.READY
        for unknown in ({"robot": "R9"}, {"pool": "day"}):
            with pytest.raises(client.JobStateError, match="there is no robot"):
                user.submit("work", **unknown)
        with pytest.raises(ValueError, match="robot and pool cannot be given both"):
            user.submit("work", robot="R2", pool="night")

    def test_are_listed_page_by_page(self, site: Site, user: Any) -> None:
        site.install("true")
        numbers = [user.submit("work").id for _ in range(3)]
        assert [job.id for job in user.jobs(limit=2)] == numbers[:0:-1]
        assert [job.id for job in user.jobs(before=numbers[1])] == numbers[:1]

    def test_are_followed_while_they_run(self, site: Site, user: Any) -> None:
        site.install(f"printf 'a\\0b'; printf '\\377' >&2; {WAIT}; printf c")
        job = user.submit("work")
        events: list[JobEvent] = []
        with working(site):
            for event in user.follow(job.id):
                events.append(event)
                if (written(events), written(events, "stderr")) == (b"a\0b", b"\xff"):
                    site.open()  # it would not go on if they came at the end
        assert written(events) == b"a\0bc"
        states = [event.state for event in events if isinstance(event, StateEvent)]
        assert states[-2:] == [JobState.IN_PROGRESS, JobState.SUCCESS]
        assert isinstance(events[-1], EndEvent)
        assert events[-1].job == user.job(job.id)

    def test_have_output_that_is_exact(self, site: Site, user: Any) -> None:
        data = bytes(range(256)) * 2000
        (site.settings.folder / "data").write_bytes(data)
        site.install(f"cat {site.settings.folder}/data")
        with working(site):
            job = user.submit("work")
            assert written(list(user.follow(job.id))) == data
        assert user.output(job.id).stdout == data

    def test_tell_what_of_their_output_is_not_kept(self, make: MakeSite, box: Sandbox, make_client: MakeClient) -> None:
        site = make(output=1024)
        site.install("printf 'x%.0s' {1..5000}")
        with ServerThread(box, backend(Service(site.settings, site.store))) as server:
            user = make_client(server.port)
            job = user.submit("work")
            with working(site):
                site.over(job.id)
            output = user.output(job.id)
            events = list(user.follow(job.id))
        assert (len(output.stdout), output.stdout_size) == (1024, 5000)
        assert [event for event in events if isinstance(event, GapEvent)] == [GapEvent(1, "stdout", 0, 3976)]
        assert written(events) == output.stdout

    def test_are_stopped_while_they_are_followed(self, site: Site, user: Any) -> None:
        site.install(f"echo begun; {WAIT}")
        with working(site):
            job = user.submit("work")
            for event in user.follow(job.id):
                if isinstance(event, OutputEvent):
                    assert user.stop(job.id).state is JobState.STOPPING
            assert (event.job.state, event.job.asked_by) == (JobState.STOPPED, USER)

    def test_are_aborted_and_retried(self, site: Site, user: Any) -> None:
        site.install(f"{WAIT}; echo done")
        with working(site):
            job = user.submit("work")
            site.begun()
            assert user.abort(job.id).state is JobState.ABORTING
            assert user.wait(job.id).reason is Reason.ABORTED
            site.open()
            assert user.retry(job.id).state is JobState.PENDING
            assert user.wait(job.id).attempts == 2
            assert user.output(job.id).stdout == b"done\n"

    def test_of_others_are_invisible_but_for_operators(
        self, site: Site, server: ServerThread, box: Sandbox, user: Any, make_client: MakeClient
    ) -> None:
        site.install("true")
        job = user.submit("work")
        other = make_client(server.port, ccache=cache_of(box, "jobs-ada"))
        assert other.jobs() == []
        for ask in (other.job, other.history, other.output, other.stop, other.abort, other.retry, other.wait):
            with pytest.raises(_asking.NoSuchJobError, match=f"there is no job {job.id}"):
                ask(job.id)
        with pytest.raises(_asking.JobDeniedError, match="may not see the jobs of"):
            other.jobs(owner=USER)
        operator = make_client(server.port, ccache=cache_of(box, "op"))
        assert operator.jobs(owner=USER) == [job]
        assert operator.submit("work", priority=1).priority == 1
        assert operator.stop(job.id).asked_by == "op@SANDBOX.TEST"

    def test_that_are_unknown_or_wrong_are_typed_errors(self, site: Site, user: Any) -> None:
        site.install("true", *NAME)
        with pytest.raises(_asking.NoSuchScriptError, match="there is no script 'play'"):
            user.submit("play")
        with pytest.raises(_asking.NoSuchScriptError):
            user.script("play")
        with pytest.raises(_asking.JobParameterError, match="there is no parameter") as caught:
            user.submit("work", {"size": 1})
        with pytest.raises(_asking.JobParameterError, match="control character") as caught:
            user.submit("work", {"name": "\n"})
        assert caught.value.parameter == "name"
        assert (caught.value.host, caught.value.command) == ("localhost", "job submit")
        with pytest.raises(_asking.JobDeniedError, match="priority"):
            user.submit("work", priority=1)
        job = user.submit("work")
        with pytest.raises(_asking.JobStateError, match="is not over"):
            user.retry(job.id)
        assert len(site.store.jobs.listed()) == 1

    def test_of_modules_that_are_not_there_are_typed_errors(self, site: Site, user: Any) -> None:
        site.store.scripts.install(AD_HOC, "root")
        site.install("true")
        site.install("pass", 'users = ["princ:ada@SANDBOX.TEST"]', name="private", suffix=".py")
        for module, text in (
            ("nothing", "there is no script"),
            ("private", "there is no script"),
            ("work", "is written in bash"),
        ):
            with pytest.raises(_asking.NoSuchScriptError, match=f"^parameter module: .*{text}"):
                user.submit("python", {"code": "pass", "module": module})
        assert site.store.jobs.listed() == []

    def test_of_scripts_that_the_caller_may_use(self, site: Site, user: Any) -> None:
        site.install("true", *NAME)
        site.install("true", 'users = ["princ:ada@SANDBOX.TEST"]', name="private")
        (script,) = user.scripts()
        assert script == user.script("work")
        assert (script.name, script.language, script.run_time) == ("work", "bash", 3600)
        assert script.parameters == {"name": {"type": "text", "required": False, "default": "you"}}
        with pytest.raises(_asking.JobDeniedError):
            user.submit("private")

    def test_take_secrets_that_are_in_no_log(self, site: Site, user: Any, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        site.install('grep -o "sword[a-z]*" $JOB_PARAMETERS', "[parameters.password]", 'type = "secret"')
        with working(site):
            job = user.submit("work", {"password": "swordfish"})
            assert user.wait(job.id).state is JobState.SUCCESS
        assert job.parameters == {}
        assert "swordfish" not in caplog.text


class TestWaiting:
    def test_has_a_time_limit(self, site: Site, user: Any) -> None:
        site.install("true")
        job = user.submit("work")
        with pytest.raises(_asking.JobTimeoutError) as caught:
            user.wait(job.id, timeout=0.2)
        assert caught.value.state is JobState.PENDING
        with pytest.raises(TimeoutError):
            list(user.follow(job.id, 0.2))

    def test_survives_a_server_that_is_started_anew(
        self, site: Site, box: Sandbox, service: Service, make_client: MakeClient
    ) -> None:
        site.install(f"echo one; {WAIT}; echo two")
        events: list[JobEvent] = []
        with working(site), ThreadPoolExecutor() as pool:
            with ServerThread(box, backend(service)) as server:
                user = make_client(server.port)
                job = user.submit("work")
                waiting = pool.submit(user.wait, job.id)
                server.until(lambda running: runs(running) == 1)
                following = user.follow(job.id)
                while written(events) != b"one\n":
                    events.append(next(following))
            site.open()
            site.over(job.id)
            sock = socket.create_server(("127.0.0.1", server.port))
            with ServerThread(box, backend(service), sock=sock):
                assert waiting.result(PATIENCE).state is JobState.SUCCESS
                events += following
        assert written(events) == b"one\ntwo\n"

    def test_needs_a_server_that_is_there_at_first(self, make_client: MakeClient) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        with pytest.raises(RemctlConnectionError):
            make_client(port).wait(1)

    def test_gives_up_a_server_that_stays_away(
        self, site: Site, box: Sandbox, service: Service, make_client: MakeClient
    ) -> None:
        site.install("true")
        with ThreadPoolExecutor() as pool:
            with ServerThread(box, backend(service)) as server:
                user = make_client(server.port, patience=0.2)
                waiting = pool.submit(user.wait, user.submit("work").id)
                server.until(lambda running: runs(running) == 1)
            with pytest.raises(RemctlConnectionError):
                waiting.result(PATIENCE)

    def test_ends_with_its_limit_where_the_server_says_nothing(self, make_client: MakeClient) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
            user = make_client(silent.getsockname()[1])
            with pytest.raises(RemctlTimeoutError):
                pool.submit(user.wait, 1, 0.1).result(PATIENCE)

    def test_goes_on_after_a_silence_that_is_too_long(
        self, site: Site, server: ServerThread, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_asking, "SILENCE", 0.3)
        site.install("true")
        with Relay(server.port) as relay, ThreadPoolExecutor() as pool:
            user = make_client(relay.port)
            job = user.submit("work")
            waiting = pool.submit(user.wait, job.id)
            until(lambda: relay.accepted >= 4)  # each silence is taken for a lost connection
            with working(site):
                assert waiting.result(PATIENCE).state is JobState.SUCCESS


class TestConnection:
    def test_that_is_lost_while_a_job_is_submitted_makes_one_job(
        self, site: Site, server: ServerThread, make_client: MakeClient
    ) -> None:
        site.install("true")
        with Relay(server.port) as relay, ThreadPoolExecutor() as pool:
            user = make_client(relay.port)
            user.scripts()
            relay.hold()
            submitting = pool.submit(user.submit, "work")
            (made,) = until(site.store.jobs.listed)
            relay.cut()
            relay.release()
            assert submitting.result(PATIENCE).guid == made.guid
        assert len(site.store.jobs.listed()) == 1

    def test_that_is_lost_while_a_job_is_retried_is_an_error(
        self, site: Site, server: ServerThread, make_client: MakeClient
    ) -> None:
        site.install("true")
        with Relay(server.port) as relay, ThreadPoolExecutor() as pool:
            user = make_client(relay.port)
            job = user.submit("work")
            user.stop(job.id)
            relay.hold()
            retrying = pool.submit(user.retry, job.id)
            until(lambda: site.store.jobs.get(job.id).state is JobState.PENDING)
            relay.cut()
            relay.release()
            with pytest.raises(RemctlConnectionError):
                retrying.result(PATIENCE)
            assert user.job(job.id).state is JobState.PENDING

    def test_is_made_again_after_a_pause_in_which_the_server_has_ended_it(
        self, box: Sandbox, service: Service, make_client: MakeClient
    ) -> None:
        with ServerThread(box, backend(service), idle_timeout=0.1) as server:
            user = make_client(server.port)
            assert user.scripts() == []
            server.until(lambda running: running.connections == 0)
            assert user.scripts() == []

    def test_can_be_made_before_anything_is_asked(
        self, box: Sandbox, server: ServerThread, make_client: MakeClient
    ) -> None:
        with Relay(server.port) as relay:
            user = make_client(relay.port)
            user.connect()
            user.connect()
            assert user.scripts() == []
            assert relay.accepted == 1

    def test_that_cannot_be_made_is_an_error(self, box: Sandbox, make_client: MakeClient) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        with pytest.raises(RemctlConnectionError):
            make_client(port).connect()
        with pytest.raises(remctl.RemctlAuthenticationError):
            make_client(box.port, ccache="/nonexistent").connect()
        with SilentServer() as server, pytest.raises(RemctlTimeoutError):
            make_client(server.port, timeout=0.2).connect()

    def test_is_refused_once_the_client_is_closed(self, user: Any) -> None:
        user.close()
        user.close()
        for call in (user.scripts, user.connect):
            with pytest.raises(RemctlNotOpenedError, match="the client is closed"):
                call()

    def test_is_for_a_server_that_has_the_command(self, box: Sandbox, make_client: MakeClient) -> None:
        with pytest.raises(remctl.RemctlCommandError, match="Unknown command"):
            make_client(box.port).scripts()

    def test_may_lead_to_another_command_of_that_name(self, box: Sandbox, make_client: MakeClient) -> None:
        def script(peer: Peer) -> None:
            peer.receive()
            peer.send_output(b"hello\n")
            peer.send_status(0)

        with ScriptedServer(script) as server, pytest.raises(_asking.JobAnswerError):
            make_client(server.port).scripts()

    def test_has_a_time_limit(self, make_client: MakeClient) -> None:
        with SilentServer() as server, pytest.raises(remctl.RemctlTimeoutError):
            make_client(server.port, timeout=0.2).scripts()

    @pytest.mark.parametrize("options", [{"patience": -1}, {"timeout": "soon"}, {"min_protocol": 9}])
    def test_checks_its_arguments(self, make_client: MakeClient, options: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            make_client(1, **options)


def test_the_two_have_the_same_methods_with_the_same_arguments() -> None:
    blocking, asynchronous = (
        {
            name: list(inspect.signature(value).parameters)
            for name, value in inspect.getmembers(each, inspect.isfunction)
            if not name.startswith("_")
        }
        for each in (client.Client, aio.Client)
    )
    assert blocking == asynchronous
    assert client.__all__ == aio.__all__
    one, other = (set(inspect.signature(each.Client).parameters) for each in (client, aio))
    assert other == one | {"credentials"}
