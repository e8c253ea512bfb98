"""The job store: many jobs at once, limits, and what is kept for how long."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select

from jobs.runners import until
from jobs.stores import ADA, BOB, DONE, RUNNER, claims, install, over, running
from remctl.jobs.states import JobState, Reason
from remctl.jobs.store import Ended, Order, Store, StoreError, Taker, _moving, new_bid
from remctl.jobs.store._schema import attempts, events


@pytest.fixture(autouse=True)
def script(store: Store) -> None:
    """Install a script."""
    install(store)


class TestSubmitAll:
    def test_makes_all_jobs_in_their_order(self, store: Store) -> None:
        made = store.jobs.submit_all([Order("backup", {"n": n}, ADA, priority=-n, delay=n) for n in range(5)])
        assert [job.parameters for job in made] == [{"n": n} for n in range(5)]
        assert [store.jobs.get(job.id) for job in made] == made

    def test_makes_none_where_one_cannot_be(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no script 'nothing'"):
            store.jobs.submit_all([Order("backup", {}, ADA), Order("nothing", {}, ADA)])
        assert store.jobs.listed() == []

    def test_of_nothing_makes_nothing(self, store: Store) -> None:
        assert store.jobs.submit_all([]) == []

    def test_of_too_many_is_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="orders must be 500 at the most, and are 501"):
            store.jobs.submit_all([Order("backup", {}, ADA)] * 501)

    def test_knows_those_that_were_submitted_before(self, store: Store) -> None:
        old = store.jobs.submit("backup", {}, ADA, guid="a")
        first, second = store.jobs.submit_all([Order("backup", {}, ADA, guid="a"), Order("backup", {}, ADA, guid="b")])
        assert first == old
        assert second.guid == "b"
        assert len(store.jobs.listed()) == 2

    @pytest.mark.parametrize("order", [Order("backup", {}, BOB, guid="a"), Order("other", {}, ADA, guid="a")])
    def test_does_not_give_away_the_job_of_another(self, store: Store, order: Order) -> None:
        install(store, "other")
        store.jobs.submit("backup", {}, ADA, guid="a")
        with pytest.raises(StoreError, match="the GUID a is that of another job"):
            store.jobs.submit_all([order])

    @pytest.mark.parametrize("delay", [-1, float("nan"), 1e10])
    def test_with_a_delay_that_makes_no_sense_is_refused(self, store: Store, delay: float) -> None:
        with pytest.raises(ValueError, match="delay must be 0 or more seconds"):
            store.jobs.submit("backup", {}, ADA, delay=delay)


class TestClaimMany:
    def test_takes_as_many_as_are_wanted_by_priority(self, store: Store) -> None:
        for priority in (0, 5, -5, 5):
            store.jobs.submit("backup", {}, ADA, priority=priority)
        found = claims(store, 3)
        assert [(claim.job.id, claim.job.priority) for claim in found] == [(2, 5), (4, 5), (1, 0)]
        assert len({claim.key for claim in found}) == len({claim.folder for claim in found}) == 3
        assert [claim.job.id for claim in claims(store, 3)] == [3]

    def test_asked_again_after_a_lost_answer_gives_the_same_jobs(self, store: Store) -> None:
        store.jobs.submit_all([Order("backup", {}, ADA)] * 5)
        bids = [new_bid() for _ in range(3)]
        first, again = (store.attempts.claim(RUNNER, bids, 60) for _ in range(2))
        assert first == again
        assert len(first) == 3

    def test_never_goes_beyond_the_limit_of_a_script(self, store: Store) -> None:
        install(store, "narrow", concurrency=2)
        store.jobs.submit_all([Order("narrow", {}, ADA)] * 5)
        assert len(claims(store, 4)) == 2
        assert claims(store, 4) == []

    def test_takes_others_where_a_script_has_as_many_as_it_may(self, store: Store) -> None:
        install(store, "narrow", concurrency=1)
        store.jobs.submit_all([Order("narrow", {}, ADA, priority=100)] * 200)
        wide = store.jobs.submit("backup", {}, ADA)
        assert [claim.job.script for claim in claims(store, 1)] == ["narrow"]
        assert [claim.job.id for claim in claims(store, 1)] == [wide.id]

    def test_takes_one_with_a_limit_among_others_without(self, store: Store) -> None:
        install(store, "narrow", concurrency=1)
        store.jobs.submit_all([Order("narrow", {}, ADA, priority=50)] + [Order("backup", {}, ADA)] * 4)
        bids = [new_bid() for _ in range(2)]
        first = store.attempts.claim(RUNNER, bids, 60)
        assert sorted(claim.job.script for claim in first) == ["backup", "narrow"]
        again = store.attempts.claim(RUNNER, bids, 60)
        assert {claim.job.id for claim in again} == {claim.job.id for claim in first}

    def test_never_goes_beyond_the_limit_of_an_owner(self, store: Store) -> None:
        store.jobs.submit_all([Order("backup", {}, ADA)] * 4 + [Order("backup", {}, BOB)])
        first = claims(store, 3, per_owner=2)
        assert [claim.job.owner for claim in first] == [ADA, ADA]
        assert [claim.job.owner for claim in claims(store, 3, per_owner=2)] == [BOB]
        store.attempts.settle(first[0].attempt, Ended(Reason.NOT_STARTED))
        assert [claim.job.owner for claim in claims(store, 3, per_owner=2)] == [ADA]

    @pytest.mark.parametrize(("concurrency", "per_owner"), [(3, None), (None, 3)])
    def test_by_many_at_once_keeps_the_limits(
        self, store: Store, concurrency: int | None, per_owner: int | None
    ) -> None:
        install(store, concurrency=concurrency)
        store.jobs.submit_all([Order("backup", {}, ADA)] * 60)
        most: list[int] = []

        def work(number: int) -> None:
            taker = Taker(str(number), str(number))
            while len(store.jobs.listed(states=[JobState.PENDING], limit=1)):
                for claim in store.attempts.claim(taker, [new_bid(), new_bid()], 60, per_owner=per_owner):
                    store.attempts.start(claim.attempt, "", 1, 1, 60)
                    with store.database.read() as connection:
                        most.append(connection.scalar(select(func.count()).where(attempts.c.ended_at.is_(None))) or 0)
                    store.attempts.settle(claim.attempt, DONE)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(most) == 60
        assert max(most) <= 3


class TestSecrets:
    def test_are_for_whoever_runs_the_job_alone(self, store: Store) -> None:
        job = store.jobs.submit("backup", {"path": "/"}, ADA, secrets={"password": "canary"})
        (claim,) = claims(store, 1)
        assert claim.secrets == {"password": "canary"}
        for seen in (job, store.jobs.get(job.id), claim.job):
            assert "canary" not in repr(seen)

    def test_are_forgotten_when_the_job_is_over(self, store: Store) -> None:
        found = running(store, secrets={"password": "canary"})
        store.attempts.settle(found.attempt, Ended(Reason.EXIT, 1))
        with store.database.read() as connection:
            assert connection.exec_driver_sql("SELECT secrets FROM jobs").scalar() in ("{}", {})
        with pytest.raises(StoreError, match="the secret parameters of job 1 are forgotten"):
            store.jobs.retry(1, ADA)

    def test_are_kept_for_another_attempt_that_the_script_permits(self, store: Store) -> None:
        install(store, retry="retry", retries=1)
        found = running(store, secrets={"password": "canary"})
        store.attempts.settle(found.attempt, Ended(Reason.LOST))
        (again,) = claims(store, 1)
        assert again.secrets == {"password": "canary"}


class TestLooking:
    def test_lists_what_is_asked_for(self, store: Store) -> None:
        install(store, "other")
        done, failed = over(store).id, over(store, "other", Ended(Reason.EXIT, 1)).id
        waiting = store.jobs.submit("other", {}, BOB).id
        listed = store.jobs.listed
        assert [job.id for job in listed()] == [waiting, failed, done]
        assert [job.id for job in listed(owner=BOB)] == [waiting]
        assert [job.id for job in listed(script="other")] == [waiting, failed]
        assert [job.id for job in listed(script="nothing")] == []
        assert [job.id for job in listed(states=[JobState.PENDING, JobState.IN_PROGRESS])] == [waiting]
        assert [job.id for job in listed(states=[JobState.SUCCESS, JobState.PENDING])] == [waiting, done]
        assert [job.id for job in listed(before=waiting, limit=1)] == [failed]

    def test_tells_the_attempts_of_a_job(self, store: Store) -> None:
        job = over(store, ended=Ended(Reason.EXIT, 3, detail="why"))
        store.jobs.retry(job.id, ADA)
        (again,) = claims(store, 1)
        first, second = store.jobs.attempts(job.id)
        assert (first.number, first.runner, first.reason, first.exit_status) == (1, "runner", Reason.EXIT, 3)
        assert (second.number, second.folder, second.ended_at) == (2, again.folder, None)

    def test_counts_what_is_open_and_how_long_it_waits(self, store: Store) -> None:
        assert store.jobs.waiting() == 0
        over(store)
        running(store)
        store.jobs.submit("backup", {}, ADA)
        store.jobs.submit("backup", {}, ADA, delay=1000)
        counts = store.jobs.open()
        assert (counts[JobState.PENDING], counts[JobState.IN_PROGRESS], counts[JobState.STOPPING]) == (2, 1, 0)
        assert not any(state.final for state in counts)
        assert 0 < store.jobs.waiting() < 100

    def test_sums_up_how_jobs_have_ended(self, store: Store) -> None:
        for ago in (50, 60, 500):
            over(store, ago=ago)
        over(store, ended=Ended(Reason.EXIT, 1), ago=70)
        now = store.database.clock()
        found = sorted(store.jobs.ended(now - 100, now))
        assert [row[:4] for row in found] == [
            ("backup", JobState.SUCCESS, Reason.EXIT, 2),
            ("backup", JobState.FAILED, Reason.EXIT, 1),
        ]
        assert found[0][4] == pytest.approx(4, abs=0.1)
        assert store.jobs.ended(now - 400, now - 100) == []


class TestPurge:
    def test_deletes_what_ended_long_ago_with_its_history(self, store: Store) -> None:
        old = over(store, ago=1000)
        young, live = over(store, ago=10), running(store)
        assert store.jobs.purge(100) == 1
        assert [job.id for job in store.jobs.listed()] == [live.job.id, young.id]
        with store.database.read() as connection:
            for table in (attempts, events):
                assert not connection.scalar(select(func.count()).where(table.c.job_id == old.id))

    def test_leaves_a_job_that_is_made_to_run_again_meanwhile(self, store: Store) -> None:
        job = over(store, ended=Ended(Reason.EXIT, 1), ago=1000)
        deleted: list[int] = []
        thread = threading.Thread(target=lambda: deleted.append(store.jobs.purge(100)))
        with store.database.write() as connection:
            row = _moving.locked(connection, job.id)
            thread.start()
            if not store.database.sqlite:
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                until(lambda: _count(store, waits))
            _moving.again(store.database, connection, row, ADA, losses=0)
        thread.join()
        assert deleted == [0]
        assert store.jobs.get(job.id).state is JobState.PENDING

    def test_works_through_more_than_it_deletes_at_once(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("remctl.jobs.store._jobs.BATCH", 2)
        for _ in range(5):
            over(store, ago=1000)
        assert [store.jobs.purge(100) for _ in range(4)] == [2, 2, 1, 0]


def _count(store: Store, query: str) -> int:
    with store.database.read() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())
