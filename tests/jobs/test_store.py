"""The job store: every call, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, update

from remctl.jobs.scripts import Language, Limits, Parameters, Retry, Script
from remctl.jobs.states import IllegalMoveError, JobState, Move, Reason
from remctl.jobs.store import Claim, Ended, Job, Output, StaleAttemptError, Store, StoreError, Taker, new_bid
from remctl.jobs.store._schema import attempts, jobs

ADA = "ada@EXAMPLE.ORG"
ROOT = "root@EXAMPLE.ORG"
DONE = Ended(Reason.EXIT, 0)
RUNNER = Taker("runner", "11111111-1111-4111-8111-111111111111")
BOOT = "5f0c7a0e-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def script(store: Store) -> None:
    """Install a script."""
    install(store)


def install(store: Store, name: str = "backup", **limits: Any) -> None:
    script = Script(name, Language.BASH, "Back up.", b"", "0" * 64, Parameters({}), Limits(**limits))
    store.scripts.install(script, ROOT)


def claim(store: Store, *, lease: float = 60) -> Claim | None:
    found = store.attempts.claim(RUNNER, [new_bid()], lease)
    return found[0] if found else None


def taken(store: Store, **options: Any) -> Claim:
    """Submit a job and take it."""
    store.jobs.submit("backup", {}, ADA)
    found = claim(store, **options)
    assert found is not None
    return found


def running(store: Store, **options: Any) -> Claim:
    """Submit a job, take it, and begin."""
    found = taken(store, **options)
    store.attempts.start(found.attempt, BOOT, 4711, 99, 60)
    return found


def overdue(store: Store, attempt: int) -> None:
    """Let the lease of an attempt have run out."""
    with store.database.write() as connection:
        connection.execute(update(attempts).where(attempts.c.id == attempt).values(lease_until=0))


def live(store: Store) -> int:
    with store.database.read() as connection:
        return connection.scalar(select(func.count()).where(attempts.c.ended_at.is_(None))) or 0


class TestSubmit:
    def test_makes_a_job_that_waits(self, store: Store) -> None:
        job = store.jobs.submit("backup", {"path": "/home", "days": 3}, ADA, priority=5)
        assert (job.script, job.owner, job.state, job.priority) == ("backup", ADA, JobState.PENDING, 5)
        assert job.parameters == {"path": "/home", "days": 3}
        assert (job.attempts, job.started_at, job.ended_at, job.reason) == (0, None, None, None)
        assert store.jobs.get(job.id) == store.jobs.get(job.guid) == job

    def test_asked_again_with_the_same_guid_gives_the_same_job(self, store: Store) -> None:
        guid = "7b0c0c5e-1111-4222-8333-444444444444"
        assert store.jobs.submit("backup", {}, ADA, guid=guid) == store.jobs.submit("backup", {}, ADA, guid=guid)
        assert claim(store) is not None
        assert claim(store) is None

    def test_of_an_unknown_script_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no script 'nothing'"):
            store.jobs.submit("nothing", {}, ADA)

    def test_of_a_script_that_is_off_is_refused(self, store: Store) -> None:
        store.scripts.enable("backup", False)
        with pytest.raises(StoreError, match="the script 'backup' is turned off"):
            store.jobs.submit("backup", {}, ADA)

    @pytest.mark.parametrize("priority", [-101, 101])
    def test_with_a_priority_out_of_range_is_refused(self, store: Store, priority: int) -> None:
        with pytest.raises(ValueError, match=f"priority must be -100 to 100: {priority}"):
            store.jobs.submit("backup", {}, ADA, priority=priority)

    def test_of_what_is_not_there_is_told(self, store: Store) -> None:
        for ask in (
            store.jobs.get,
            lambda job: store.jobs.ask(job, Move.STOP, ADA),
            lambda job: store.jobs.retry(job, ADA),
        ):
            with pytest.raises(StoreError, match="there is no job 99"):
                ask(99)
        with pytest.raises(StoreError, match="there is no script 'nothing'"):
            store.scripts.enable("nothing", True)


class TestScripts:
    def test_are_listed_as_they_were_installed(self, store: Store) -> None:
        install(store, "archive")
        names = [(each.name, each.language, each.enabled) for each in store.scripts.all()]
        assert names == [("archive", Language.BASH, True), ("backup", Language.BASH, True)]
        assert store.scripts.get("archive").filename == "archive.sh"

    def test_stay_turned_off_when_a_new_version_is_installed(self, store: Store) -> None:
        store.scripts.enable("backup", False)
        install(store, concurrency=3)
        assert [each.enabled for each in store.scripts.all()] == [False]

    def test_are_removed_unless_jobs_refer_to_them(self, store: Store) -> None:
        install(store, "archive")
        store.scripts.remove("archive")
        with pytest.raises(StoreError, match="there is no script 'archive'"):
            store.scripts.remove("archive")
        store.jobs.submit("backup", {}, ADA)
        with pytest.raises(StoreError, match="there are jobs of the script 'backup': turn it off instead"):
            store.scripts.remove("backup")

    def test_that_are_not_there_are_told(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no script 'nothing'"):
            store.scripts.get("nothing")


class TestClaim:
    def test_takes_the_first_of_the_highest_priority(self, store: Store) -> None:
        order = [store.jobs.submit("backup", {}, ADA, priority=priority).id for priority in (0, 5, 0, 5, -1)]
        found = [claim(store) for _ in order]
        assert [each.job.id for each in found if each] == [order[1], order[3], order[0], order[2], order[4]]
        assert claim(store) is None

    def test_leaves_jobs_that_are_not_due_yet(self, store: Store) -> None:
        store.jobs.submit("backup", {}, ADA, delay=3600)
        assert claim(store) is None

    def test_leaves_jobs_of_robots(self, store: Store) -> None:
        store.jobs.submit("backup", {}, ADA, pool="windows")
        assert claim(store) is None

    def test_leaves_jobs_of_a_script_that_was_turned_off(self, store: Store) -> None:
        store.jobs.submit("backup", {}, ADA)
        store.scripts.enable("backup", False)
        assert claim(store) is None
        store.scripts.enable("backup", True)
        assert claim(store) is not None

    def test_takes_no_more_of_a_script_than_may_run_at_the_same_time(self, store: Store) -> None:
        install(store, concurrency=2)
        for _ in range(3):
            store.jobs.submit("backup", {}, ADA)
        first, second = claim(store), claim(store)
        assert first is not None
        assert second is not None
        assert claim(store) is None
        store.attempts.settle(first.attempt, Ended(Reason.NOT_STARTED))
        assert claim(store) is not None

    @pytest.mark.parametrize("others", [0, 1])
    def test_asked_again_after_a_lost_answer_gives_the_same_job(self, store: Store, others: int) -> None:
        for _ in range(1 + others):
            store.jobs.submit("backup", {}, ADA)
        bid = new_bid()
        (once,), (again,) = (store.attempts.claim(RUNNER, [bid], 60) for _ in range(2))
        assert once == again
        store.attempts.settle(once.attempt, DONE._replace(reason=Reason.NOT_STARTED))
        assert store.attempts.claim(RUNNER, [bid], 60) == []

    def test_keeps_the_job_pending_until_it_begins(self, store: Store) -> None:
        found = taken(store)
        assert (found.job.state, found.job.attempts, found.number) == (JobState.PENDING, 1, 1)
        store.attempts.start(found.attempt, BOOT, 4711, 99, 60)
        job = store.jobs.get(found.job.id)
        assert job.state is JobState.IN_PROGRESS
        assert job.started_at is not None

    def test_gives_each_job_to_one_of_many(self, store: Store) -> None:
        wanted = {store.jobs.submit("backup", {}, ADA).id for _ in range(100)}
        got: list[int] = []

        def work() -> None:
            while (found := claim(store)) is not None:
                got.append(found.job.id)

        in_threads(work, 8)
        assert len(got) == 100
        assert set(got) == wanted

    def test_by_many_at_once_takes_no_more_than_may_run_at_the_same_time(self, store: Store) -> None:
        install(store, concurrency=3)
        for _ in range(20):
            store.jobs.submit("backup", {}, ADA)
        got: list[Claim] = []

        def work() -> None:
            got.extend(found for _ in range(5) if (found := claim(store)) is not None)

        in_threads(work, 8)
        assert len(got) == live(store) == 3

    def test_never_lets_a_job_have_two_live_attempts(self, store: Store) -> None:
        found = taken(store)
        with store.database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == found.job.id).values(attempt_id=None))
        with pytest.raises(Exception, match=r"(?i)unique"):
            claim(store)
        assert live(store) == 1

    def test_is_handed_back_as_long_as_nothing_has_begun(self, store: Store) -> None:
        found = taken(store)
        store.attempts.hand_back(found.attempt)
        again = claim(store)
        assert again is not None
        assert (again.job.id, again.number) == (found.job.id, 2)
        store.attempts.start(again.attempt, BOOT, 4711, 99, 60)
        with pytest.raises(StoreError, match="has begun"):
            store.attempts.hand_back(again.attempt)


class TestEnd:
    @pytest.mark.parametrize(
        ("ended", "state"),
        [
            (Ended(Reason.EXIT, 0), JobState.SUCCESS),
            (Ended(Reason.EXIT, 3), JobState.FAILED),
            (Ended(Reason.SIGNAL, signal=11), JobState.FAILED),
            (Ended(Reason.TIME_LIMIT, detail="10 s"), JobState.FAILED),
            (Ended(Reason.STOPPED), JobState.STOPPED),
            (Ended(Reason.ABORTED), JobState.ABORTED),
        ],
    )
    def test_settles_the_job_with_all_that_is_known(self, store: Store, ended: Ended, state: JobState) -> None:
        found = running(store)
        job = store.attempts.settle(found.attempt, ended)
        assert (job.state, job.reason, job.detail) == (state, ended.reason, ended.detail)
        assert (job.exit_status, job.signal) == (ended.exit_status, ended.signal)
        assert job.ended_at is not None
        assert live(store) == 0

    def test_keeps_the_tail_of_the_output_and_its_true_size(self, store: Store) -> None:
        found = running(store)
        store.attempts.settle(found.attempt, DONE._replace(output=Output(b"\0\xfftail", stdout_size=10**12)))
        with store.database.read() as connection:
            row = connection.execute(select(attempts)).one()
        assert (row.stdout_tail, row.stdout_size, row.stderr_tail) == (b"\0\xfftail", 10**12, b"")

    def test_is_written_once(self, store: Store) -> None:
        found = running(store)
        store.attempts.settle(found.attempt, DONE)
        for write in (
            lambda: store.attempts.settle(found.attempt, Ended(Reason.EXIT, 1)),
            lambda: store.attempts.start(found.attempt, BOOT, 1, 1, 60),
            lambda: store.attempts.hand_back(found.attempt),
        ):
            with pytest.raises(StaleAttemptError, match="has ended"):
                write()
        assert store.jobs.get(found.job.id).state is JobState.SUCCESS

    def test_of_an_old_attempt_changes_nothing_of_the_new_one(self, store: Store) -> None:
        install(store, retry=Retry.RETRY, retries=1)
        old = running(store)
        overdue(store, old.attempt)
        store.attempts.sweep()
        new = claim(store)
        assert new is not None
        store.attempts.start(new.attempt, BOOT, 4712, 100, 60)
        with pytest.raises(StaleAttemptError):
            store.attempts.settle(old.attempt, DONE)
        assert store.attempts.beat([old.attempt, new.attempt], 60) == {
            old.attempt: None,
            new.attempt: JobState.IN_PROGRESS,
        }
        assert store.jobs.get(old.job.id).state is JobState.IN_PROGRESS


class TestReport:
    @pytest.mark.parametrize(("success", "state"), [(True, JobState.SUCCESS), (False, JobState.FAILED)])
    def test_counts_at_the_end(self, store: Store, success: bool, state: JobState) -> None:
        found = running(store)
        assert store.attempts.report(found.job.id, success, "42 files")
        job = store.attempts.settle(found.attempt, DONE)
        assert (job.state, job.reason) == (state, Reason.REPORT)

    def test_of_success_does_not_outweigh_an_exit_status(self, store: Store) -> None:
        found = running(store)
        store.attempts.report(found.job.id, True, "done")
        job = store.attempts.settle(found.attempt, Ended(Reason.EXIT, 1))
        assert (job.state, job.reason, job.exit_status) == (JobState.FAILED, Reason.EXIT, 1)

    def test_is_replaced_by_a_later_one(self, store: Store) -> None:
        found = running(store)
        store.attempts.report(found.job.id, False, "not yet")
        store.attempts.report(found.job.id, True, "done")
        assert store.attempts.settle(found.attempt, DONE).state is JobState.SUCCESS

    def test_that_comes_late_is_counted_and_changes_nothing(self, store: Store) -> None:
        found = running(store)
        store.attempts.settle(found.attempt, DONE)
        assert not store.attempts.report(found.job.id, False, "too late")
        assert store.jobs.get(found.job.id).state is JobState.SUCCESS
        with store.database.read() as connection:
            row = connection.execute(select(attempts)).one()
        assert (row.late_reports, row.report) == (1, None)

    def test_of_nobody_is_told(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no job 99 that has run"):
            store.attempts.report(99, True, "")


class TestAsk:
    @pytest.mark.parametrize(
        ("move", "state", "reason"),
        [(Move.STOP, JobState.STOPPED, Reason.STOPPED), (Move.ABORT, JobState.ABORTED, Reason.ABORTED)],
    )
    def test_ends_what_nobody_has_taken(self, store: Store, move: Move, state: JobState, reason: Reason) -> None:
        job = store.jobs.ask(store.jobs.submit("backup", {}, ADA).id, move, ADA)
        assert (job.state, job.reason, job.asked_by) == (state, reason, ADA)
        assert claim(store) is None

    @pytest.mark.parametrize(("move", "state"), [(Move.STOP, JobState.STOPPING), (Move.ABORT, JobState.ABORTING)])
    @pytest.mark.parametrize("begin", [taken, running])
    def test_tells_whoever_has_it(
        self, store: Store, move: Move, state: JobState, begin: Callable[[Store], Claim]
    ) -> None:
        found = begin(store)
        assert store.jobs.ask(found.job.id, move, ROOT).state is state
        assert store.jobs.ask(found.job.id, move, ADA).asked_by == ROOT
        assert store.attempts.beat([found.attempt], 60) == {found.attempt: state}

    def test_to_abort_outweighs_to_stop(self, store: Store) -> None:
        found = running(store)
        store.jobs.ask(found.job.id, Move.STOP, ADA)
        assert store.jobs.ask(found.job.id, Move.ABORT, ADA).state is JobState.ABORTING
        assert store.jobs.ask(found.job.id, Move.STOP, ADA).state is JobState.ABORTING

    def test_keeps_a_script_from_beginning(self, store: Store) -> None:
        found = taken(store)
        store.jobs.ask(found.job.id, Move.STOP, ADA)
        with pytest.raises(IllegalMoveError, match="STOPPING cannot start"):
            store.attempts.start(found.attempt, BOOT, 1, 1, 60)
        assert store.attempts.settle(found.attempt, Ended(Reason.STOPPED)).state is JobState.STOPPED

    def test_of_what_is_over_is_refused(self, store: Store) -> None:
        found = running(store)
        store.attempts.settle(found.attempt, DONE)
        with pytest.raises(IllegalMoveError, match="SUCCESS cannot stop"):
            store.jobs.ask(found.job.id, Move.STOP, ADA)

    def test_to_run_again_keeps_the_history(self, store: Store) -> None:
        found = running(store)
        store.attempts.settle(found.attempt, Ended(Reason.EXIT, 1))
        job = store.jobs.retry(found.job.id, ADA)
        assert (job.state, job.reason, job.exit_status, job.attempts) == (JobState.PENDING, None, None, 1)
        again = claim(store)
        assert again is not None
        assert again.number == 2
        moves = [event.move for event in store.jobs.events(found.job.id)]
        assert moves == [Move.QUEUE, Move.START, Move.FAIL, Move.RETRY]

    def test_to_run_again_is_for_what_is_over(self, store: Store) -> None:
        found = running(store)
        with pytest.raises(StoreError, match="is not over"):
            store.jobs.retry(found.job.id, ADA)
        store.attempts.settle(found.attempt, DONE)
        with pytest.raises(IllegalMoveError, match="SUCCESS cannot retry"):
            store.jobs.retry(found.job.id, ADA)


class TestSweep:
    def test_leaves_those_that_were_heard_of(self, store: Store) -> None:
        found = running(store, lease=0)
        assert store.attempts.beat([found.attempt], 60) == {found.attempt: JobState.IN_PROGRESS}
        assert store.attempts.sweep() == []
        assert store.jobs.get(found.job.id).state is JobState.IN_PROGRESS

    def test_takes_back_what_never_began(self, store: Store) -> None:
        found = taken(store)
        overdue(store, found.attempt)
        assert store.attempts.sweep() == []
        again = claim(store)
        assert again is not None
        assert again.job.id == found.job.id

    def test_says_lost_of_what_had_begun(self, store: Store) -> None:
        found = running(store)
        overdue(store, found.attempt)
        (job,) = store.attempts.sweep()
        assert (job.id, job.state, job.reason) == (found.job.id, JobState.FAILED, Reason.LOST)
        assert claim(store) is None

    def test_has_it_run_again_where_the_script_says_so_but_not_for_ever(self, store: Store) -> None:
        install(store, retry=Retry.RETRY, retries=2)
        store.jobs.submit("backup", {}, ADA)
        states = []
        while (found := claim(store)) is not None:
            store.attempts.start(found.attempt, BOOT, 4711, 99, 60)
            overdue(store, found.attempt)
            (job,) = store.attempts.sweep()
            states.append((job.state, job.reason, job.attempts))
        assert states == [
            (JobState.PENDING, None, 1),
            (JobState.PENDING, None, 2),
            (JobState.FAILED, Reason.CRASHES, 3),
        ]

    @pytest.mark.parametrize(("move", "state"), [(Move.STOP, JobState.STOPPED), (Move.ABORT, JobState.ABORTED)])
    def test_ends_as_asked_what_never_began(self, store: Store, move: Move, state: JobState) -> None:
        found = taken(store)
        store.jobs.ask(found.job.id, move, ADA)
        overdue(store, found.attempt)
        (job,) = store.attempts.sweep()
        assert job.state is state

    def test_by_many_at_once_settles_each_once(self, store: Store) -> None:
        found = [running(store) for _ in range(20)]
        for each in found:
            overdue(store, each.attempt)
        lost: list[Job] = []
        in_threads(lambda: lost.extend(store.attempts.sweep()), 8)
        assert sorted(job.id for job in lost) == sorted(each.job.id for each in found)
        assert live(store) == 0

    def test_and_an_end_at_the_same_time_are_one_of_the_two(self, store: Store) -> None:
        for _ in range(10):
            found = running(store)
            overdue(store, found.attempt)
            stale: list[int] = []

            def end(attempt: int = found.attempt, stale: list[int] = stale) -> None:
                try:
                    store.attempts.settle(attempt, DONE)
                except StaleAttemptError:
                    stale.append(attempt)

            in_threads(store.attempts.sweep, 20, end)
            assert store.jobs.get(found.job.id).state is (JobState.FAILED if stale else JobState.SUCCESS)
            assert live(store) == 0


def in_threads(work: Callable[[], object], count: int, *others: Callable[[], object]) -> None:
    """Run functions on threads of their own; what one raises is raised here."""
    failures: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[function]) for function in [work] * count + [*others]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
