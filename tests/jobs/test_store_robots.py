"""The job store: robots, and what they say."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import event, update

from jobs.stores import ADA, claims, install
from remctl.jobs.states import IllegalMoveError, JobState, Move, Reason, RobotStatus
from remctl.jobs.store import Claim, Robot, Store, StoreError
from remctl.jobs.store._robots import QUIET, Heard, UnknownRobotError
from remctl.jobs.store._schema import attempts, robots

NOBODY = "00000000-0000-4000-8000-000000000000"
LEASE = 60


@pytest.fixture(autouse=True)
def script(store: Store) -> None:
    """Install a script."""
    install(store)


@pytest.fixture
def robot(store: Store) -> Robot:
    """Give a robot of the pool `night`."""
    return store.robots.add("R2", pool="night")


def given(store: Store, robot: Robot) -> Claim:
    """Submit a job for a robot, and have it taken."""
    store.jobs.submit("backup", {}, ADA, robot=robot.id)
    found = store.robots.claim(robot.guid, LEASE)
    assert found is not None
    return found


def ready(store: Store, robot: Robot) -> Heard:
    return store.robots.heard(robot.guid, RobotStatus.READY, LEASE)


def working(store: Store, robot: Robot) -> Heard:
    return store.robots.heard(robot.guid, RobotStatus.WORKING, LEASE)


class TestAdministration:
    def test_makes_a_robot_known(self, store: Store, robot: Robot) -> None:
        assert store.robots.all() == [robot] == [store.robots.get(robot.guid)]
        assert (robot.name, robot.pool, robot.status, robot.seen_at) == ("R2", "night", RobotStatus.DISCONNECTED, None)

    def test_takes_the_guid_that_is_given(self, store: Store) -> None:
        assert store.robots.add("C3", guid=NOBODY.upper()).guid == NOBODY
        with pytest.raises(StoreError, match="there is a robot with that GUID already"):
            store.robots.add("C4", guid=NOBODY)
        with pytest.raises(ValueError, match=r"guid must be like 0.*'robot'"):
            store.robots.add("C4", guid="robot")

    @pytest.mark.parametrize("change", [{"enabled": False}, {"licensed": False}])
    def test_keeps_a_robot_from_working(self, store: Store, robot: Robot, change: dict[str, bool]) -> None:
        store.jobs.submit("backup", {}, ADA, robot=robot.id)
        assert store.robots.change(robot.guid, **change).status is RobotStatus.UNLICENSED
        assert ready(store, robot) == Heard(None, False)
        assert store.robots.claim(robot.guid, LEASE) is None
        assert store.robots.get(robot.guid).status is RobotStatus.UNLICENSED

    def test_forgets_a_robot_without_jobs(self, store: Store, robot: Robot) -> None:
        store.jobs.submit("backup", {}, ADA, robot=robot.id)
        with pytest.raises(StoreError, match="there are jobs for the robot"):
            store.robots.remove(robot.guid)
        other = store.robots.add("C3")
        store.robots.remove(other.guid)
        assert store.robots.all() == [robot]

    def test_of_nobody_is_refused(self, store: Store) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.robots.get(NOBODY),
            lambda: store.robots.change(NOBODY, enabled=False),
            lambda: store.robots.remove(NOBODY),
            lambda: store.robots.heard(NOBODY, RobotStatus.READY, LEASE),
            lambda: store.robots.claim(NOBODY, LEASE),
            lambda: store.robots.update(NOBODY, NOBODY, JobState.SUCCESS, LEASE),
        ]
        for call in calls:
            with pytest.raises(UnknownRobotError, match=f"there is no robot with the GUID {NOBODY}"):
                call()


class TestCalls:
    @pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # PostgreSQL decides by how many rows there are
    def test_do_not_look_at_all_jobs_that_ever_were(self, store: Store, robot: Robot) -> None:
        asked = []
        event.listen(store.database.engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
        store.jobs.submit("backup", {}, ADA, pool=robot.pool)
        ready(store, robot)
        claim = store.robots.claim(robot.guid, LEASE)
        assert claim is not None
        for state in (JobState.IN_PROGRESS, JobState.SUCCESS):
            working(store, robot)
            store.robots.update(robot.guid, claim.job.guid, state, LEASE)
        queries = [(sql, values) for sql, values in asked if sql.startswith(("SELECT", "WITH", "UPDATE"))]
        assert len(queries) > 10
        with store.database.read() as connection:
            for sql, values in queries:
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values):
                    assert step.detail not in ("SCAN jobs", "SCAN attempts"), sql


class TestHeard:
    def test_says_where_the_robot_is_and_what_it_does(self, store: Store, robot: Robot) -> None:
        store.robots.heard(robot.guid, RobotStatus.READY, LEASE, machine="pc7", address="192.0.2.7", mac="00:11")
        found = store.robots.get(robot.guid)
        assert (found.status, found.machine) == (RobotStatus.READY, "pc7")
        (machine,) = store.machines.all()
        assert (machine.name, machine.address, machine.certified) == ("pc7", "192.0.2.7", False)

    def test_no_more_for_a_while_is_disconnected(self, store: Store, robot: Robot) -> None:
        ready(store, robot)
        with store.database.write() as connection:
            connection.execute(update(robots).values(seen_at=store.database.now - QUIET - 1))
        assert store.robots.get(robot.guid).status is RobotStatus.DISCONNECTED

    @pytest.mark.parametrize("pool", [None, "night"])
    def test_tells_of_a_job_for_it_or_its_pool(self, store: Store, robot: Robot, pool: str | None) -> None:
        assert ready(store, robot) == Heard(None, False)
        other = store.robots.add("C3", pool="day")
        options = {"pool": pool} if pool else {"robot": robot.id}
        store.jobs.submit("backup", {}, ADA, **options)
        assert ready(store, robot) == Heard(None, True)
        assert ready(store, other) == Heard(None, False)
        assert claims(store, 1) == []

    def test_is_not_told_of_jobs_of_runners(self, store: Store, robot: Robot) -> None:
        store.jobs.submit("backup", {}, ADA)
        assert ready(store, robot) == Heard(None, False)
        assert store.robots.claim(robot.guid, LEASE) is None

    @pytest.mark.parametrize(("move", "order"), [(Move.STOP, JobState.STOPPING), (Move.ABORT, JobState.ABORTING)])
    def test_while_it_works_is_told_to_end(self, store: Store, robot: Robot, move: Move, order: JobState) -> None:
        job = given(store, robot).job
        store.robots.update(robot.guid, job.guid, JobState.IN_PROGRESS, LEASE)
        assert working(store, robot) == Heard(JobState.IN_PROGRESS, False)
        store.jobs.ask(job.id, move, ADA)
        assert working(store, robot) == Heard(order, False)

    def test_keeps_its_job_while_it_works_and_loses_it_else(self, store: Store, robot: Robot) -> None:
        job = given(store, robot).job
        store.robots.update(robot.guid, job.guid, JobState.IN_PROGRESS, LEASE)
        for says, state in ((working, JobState.IN_PROGRESS), (ready, JobState.FAILED)):
            with store.database.write() as connection:
                connection.execute(update(attempts).values(lease_until=0))
            says(store, robot)
            store.attempts.sweep()
            assert store.jobs.get(job.id).state is state
        assert store.jobs.get(job.id).reason is Reason.LOST
        assert ready(store, robot) == Heard(None, False)


class TestClaim:
    def test_again_after_a_lost_answer_gives_the_same_job(self, store: Store, robot: Robot) -> None:
        first = given(store, robot)
        store.jobs.submit("backup", {}, ADA, robot=robot.id)
        assert ready(store, robot) == Heard(JobState.PENDING, True)
        assert store.robots.claim(robot.guid, LEASE) == first
        store.robots.update(robot.guid, first.job.guid, JobState.IN_PROGRESS, LEASE)
        assert store.robots.claim(robot.guid, LEASE) is None

    def test_by_many_at_once_gives_each_job_once(self, store: Store) -> None:
        made = [store.robots.add(f"R{number}", pool="night") for number in range(8)]
        wanted = {store.jobs.submit("backup", {}, ADA, pool="night").guid for _ in range(24)}
        got: list[str] = []

        def work(robot: Robot) -> None:
            while (claim := store.robots.claim(robot.guid, LEASE)) is not None:
                store.robots.update(robot.guid, claim.job.guid, JobState.IN_PROGRESS, LEASE)
                store.robots.update(robot.guid, claim.job.guid, JobState.SUCCESS, LEASE)
                got.append(claim.job.guid)

        threads = [threading.Thread(target=work, args=(robot,)) for robot in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == sorted(wanted)

    def test_keeps_the_limit_of_the_script(self, store: Store, robot: Robot) -> None:
        install(store, "narrow", concurrency=1)
        other = store.robots.add("C3", pool="night")
        for _ in range(2):
            store.jobs.submit("narrow", {}, ADA, pool="night")
        assert store.robots.claim(robot.guid, LEASE) is not None
        assert store.robots.claim(other.guid, LEASE) is None


class TestUpdate:
    @pytest.mark.parametrize(
        ("state", "reason"),
        [
            (JobState.SUCCESS, Reason.EXIT),
            (JobState.FAILED, Reason.REPORT),
            (JobState.STOPPED, Reason.STOPPED),
            (JobState.ABORTED, Reason.ABORTED),
        ],
    )
    @pytest.mark.parametrize("begins", [True, False])
    def test_ends_the_job_and_may_be_repeated(
        self, store: Store, robot: Robot, state: JobState, reason: Reason, begins: bool
    ) -> None:
        job = given(store, robot).job
        for _ in range(2 * begins):
            assert store.robots.update(robot.guid, job.guid, JobState.IN_PROGRESS, LEASE).state is JobState.IN_PROGRESS
        for _ in range(2):
            found = store.robots.update(robot.guid, job.guid, state, LEASE)
            assert (found.state, found.reason) == (state, reason)
        others = {JobState.SUCCESS, JobState.FAILED, JobState.IN_PROGRESS} - {state}
        for other in others:
            with pytest.raises(IllegalMoveError):
                store.robots.update(robot.guid, job.guid, other, LEASE)
        assert store.jobs.get(job.id).state is state

    @pytest.mark.parametrize("state", [JobState.CREATED, JobState.PENDING, JobState.STOPPING, JobState.ABORTING])
    def test_to_what_no_robot_can_say_is_refused(self, store: Store, robot: Robot, state: JobState) -> None:
        job = given(store, robot).job
        with pytest.raises(IllegalMoveError):
            store.robots.update(robot.guid, job.guid, state, LEASE)
        assert store.jobs.get(job.id).state is JobState.PENDING

    def test_of_a_job_that_is_not_the_robots_is_refused(self, store: Store, robot: Robot) -> None:
        job = given(store, store.robots.add("C3")).job
        for guid in (job.guid, NOBODY):
            with pytest.raises(StoreError, match=f"the robot has no job {guid}"):
                store.robots.update(robot.guid, guid, JobState.SUCCESS, LEASE)

    def test_of_a_job_that_somebody_wants_to_end_does_not_begin_it(self, store: Store, robot: Robot) -> None:
        job = given(store, robot).job
        store.jobs.ask(job.id, Move.STOP, ADA)
        with pytest.raises(IllegalMoveError, match="STOPPING"):
            store.robots.update(robot.guid, job.guid, JobState.IN_PROGRESS, LEASE)
        assert store.robots.update(robot.guid, job.guid, JobState.STOPPED, LEASE).state is JobState.STOPPED

    def test_of_a_job_that_was_lost_changes_nothing(self, store: Store, robot: Robot) -> None:
        job = given(store, robot).job
        store.robots.update(robot.guid, job.guid, JobState.IN_PROGRESS, LEASE)
        with store.database.write() as connection:
            connection.execute(update(attempts).values(lease_until=0))
        store.attempts.sweep()
        with pytest.raises(IllegalMoveError):
            store.robots.update(robot.guid, job.guid, JobState.SUCCESS, LEASE)
        assert store.jobs.get(job.id).reason is Reason.LOST
