"""The same as a call, and what the errors become that are made at the bottom."""

from __future__ import annotations

import asyncio
import pickle
import threading
from pathlib import Path

import pytest

import remctl.jobs.headless
from jobs.headless.place import Place, secret_of
from jobs.runners import until, working
from remctl.exceptions import (
    RemctlAuthenticationError,
    RemctlCommandError,
    RemctlConnectionError,
    RemctlProtocolError,
    RemctlTimeoutError,
)
from remctl.jobs.client import JobError, JobParameterError, JobTimeoutError
from remctl.jobs.headless import Code, HeadlessError, run
from remctl.jobs.headless._failures import checked, ending, failure
from remctl.jobs.states import JobState, Reason
from remctl.types import ErrorCode


class TestACall:
    def test_returns_the_job(self, place: Place) -> None:
        service, principal = f"localhost:{place.server.port}", place.box.principal
        job = run(service, principal=principal, module="good", timeout=-1)
        assert (job.state, job.script, job.owner) == (JobState.SUCCESS, "good", place.box.user)
        assert run(service, principal=principal, py_code="1").script == "python"

    def test_takes_what_the_program_takes(self, place: Place, tmp_path: Path) -> None:
        user = place.box.add_principal("called")
        (tmp_path / "code.py").write_text("import os; assert os.environ['JOB_PARAM_INDIVIDUAL_PARAMETERS'] == 'x'")
        job = run(
            f"localhost:{place.server.port}",
            principal=place.box.principal,
            py_file=tmp_path / "code.py",
            module="setting",
            individual_parameters="x",
            timeout=30,
            user="called",
            auth_type="challenge",
            secret=secret_of(user.keytab, tmp_path),
            lock=tmp_path / "lock",
        )
        assert (job.state, job.owner) == (JobState.SUCCESS, user.name)
        assert (tmp_path / "lock").read_text() == f"{job.guid}\n"

    def test_raises_what_the_program_ends_with(self, place: Place) -> None:
        with pytest.raises(HeadlessError, match=r"is Failed \(exit 3\)") as caught:
            run(f"localhost:{place.server.port}", principal=place.box.principal, module="bad", timeout=-1)
        assert caught.value.code is Code.SERVER
        assert caught.value.job is not None
        assert caught.value.job.exit_status == 3
        assert pickle.loads(pickle.dumps(caught.value)).job == caught.value.job

    def test_knows_where_a_job_stood_that_goes_on(self, still: Place) -> None:
        with working(still.site), pytest.raises(HeadlessError, match="was not over within 1 s, and is In") as caught:
            run(f"localhost:{still.server.port}", principal=still.box.principal, module="slow", timeout=1)
        assert caught.value.code is Code.TIMEOUT
        assert caught.value.job is not None
        assert caught.value.job.state is JobState.IN_PROGRESS

    def test_never_asks(self, tmp_path: Path) -> None:
        with pytest.raises(HeadlessError, match="No such file") as caught:
            run("localhost:1", module="x", user="me", secret=tmp_path / "secret")
        assert caught.value.code is Code.PARAMETER

    def test_checks_its_arguments(self) -> None:
        with pytest.raises(HeadlessError, match="service must be a str") as caught:
            run(5, module="x")  # type: ignore[arg-type]
        assert caught.value.code is Code.PARAMETER

    def test_works_on_any_thread(self, place: Place) -> None:
        async def main() -> list[JobState]:
            calls = [
                asyncio.to_thread(
                    run, f"localhost:{place.server.port}", principal=place.box.principal, module="good", timeout=-1
                )
                for _ in range(3)
            ]
            return [job.state for job in await asyncio.gather(*calls)]

        assert asyncio.run(main()) == [JobState.SUCCESS] * 3

    def test_does_not_hold_up_an_event_loop(self) -> None:
        async def main() -> None:
            with pytest.raises(RuntimeError, match="to_thread"):
                run("localhost:1", module="x")

        asyncio.run(main())

    def test_keeps_a_second_one_out(self, still: Place, tmp_path: Path) -> None:
        def call() -> None:
            run(
                f"localhost:{still.server.port}",
                principal=still.box.principal,
                module="slow",
                timeout=-1,
                lock=tmp_path / "lock",
            )

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: still.site.store.jobs.listed())
        with pytest.raises(HeadlessError, match="has the lock") as caught:
            call()
        assert caught.value.code is Code.TIMEOUT
        still.site.open()
        with working(still.site):
            thread.join()


def test_there_is_nothing_else() -> None:
    assert "run" in remctl.jobs.headless.__all__
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = remctl.jobs.headless.walk


class Numbered(Exception):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.min_code = number


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class TestAnError:
    @pytest.mark.parametrize(
        ("error", "before", "after"),
        [
            (RemctlConnectionError("x"), Code.CONNECTION, Code.ENDED),
            (RemctlTimeoutError("x"), Code.CONNECTION, Code.ENDED),
            (caused(RemctlAuthenticationError("x"), Numbered(-1765328228)), Code.CONNECTION, Code.ENDED),
            (caused(RemctlAuthenticationError("x"), Numbered(2**32 - 1765328230)), Code.CONNECTION, Code.ENDED),
            (caused(RemctlAuthenticationError("x"), Numbered(1)), Code.AUTHENTICATION, Code.AUTHENTICATION),
            (RemctlProtocolError("x"), Code.CONNECTION, Code.SERVER),
            (RemctlCommandError("x", code=ErrorCode.ACCESS), Code.AUTHENTICATION, Code.AUTHENTICATION),
            (RemctlCommandError("x", code=ErrorCode.UNKNOWN_COMMAND), Code.NO_MODULE, Code.NO_MODULE),
            (RemctlCommandError("x", code=ErrorCode.INTERNAL), Code.SERVER, Code.SERVER),
            (JobError("x"), Code.SERVER, Code.SERVER),
            (JobTimeoutError("x"), Code.TIMEOUT, Code.TIMEOUT),
            (ValueError("x"), Code.UNEXPECTED, Code.UNEXPECTED),
        ],
    )
    def test_has_a_code(self, error: Exception, before: Code, after: Code) -> None:
        assert failure(error, submitted=False).code is before
        assert failure(error, submitted=True).code is after

    def test_keeps_what_it_says(self) -> None:
        found = failure(RemctlConnectionError("gone", host="h", port=1, hint="look"), submitted=False)
        assert str(found) == "gone (h:1); look"
        assert str(failure(ValueError("no"), submitted=False)) == "ValueError: no"
        assert str(failure(MemoryError(), submitted=False)) == "MemoryError"

    def test_does_not_show_what_may_be_secret(self) -> None:
        for value in ("swordfish", "sword\nfish", "swordfish" * 100, "is", "s", "'"):
            shown = value[:100].replace("\n", "\\n")
            error = JobParameterError(f"parameter x: it is wrong: '{shown}'")
            assert str(failure(error, submitted=True, hidden=[value])) == "parameter x: it is wrong: '...'"
        error = JobParameterError("the swordfish is wrong")
        assert str(failure(error, submitted=True, hidden=["swordfish"])) == "the ... is wrong"

    def test_leaves_its_own_words_alone(self) -> None:
        error = RemctlConnectionError("cannot connect: 127.0.0.1 port 1")
        assert str(failure(error, submitted=False, hidden=["1", "o", "port"])) == "cannot connect: 127.0.0.1 port 1"

    @pytest.mark.parametrize(
        ("state", "reason", "code", "text"),
        [
            (JobState.FAILED, Reason.EXIT, Code.SERVER, "Failed (exit 3)"),
            (JobState.FAILED, Reason.SIGNAL, Code.SERVER, "Failed (signal 9)"),
            (JobState.FAILED, Reason.TIME_LIMIT, Code.SERVER, "Failed (time-limit)"),
            (JobState.FAILED, Reason.LOST, Code.ENDED, "Failed (lost)"),
            (JobState.FAILED, Reason.CRASHES, Code.ENDED, "Failed (crashes)"),
            (JobState.STOPPED, Reason.STOPPED, Code.ENDED, "Stopped (stopped)"),
            (JobState.ABORTED, None, Code.ENDED, "Aborted"),
        ],
    )
    def test_may_be_the_end_of_a_job(
        self, place: Place, state: JobState, reason: Reason | None, code: Code, text: str
    ) -> None:
        job = run(f"localhost:{place.server.port}", principal=place.box.principal, module="good")
        ended = job._replace(state=state, reason=reason, exit_status=3, signal=9)
        assert ending(ended) == text
        with pytest.raises(HeadlessError) as caught:
            checked(ended)
        assert (caught.value.code, caught.value.job) == (code, ended)
