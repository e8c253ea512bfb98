"""The job store: accounts, machines, and reports."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from jobs.stores import ADA, DONE, RUNNER, claims, install, running
from remctl.jobs.store import Machine, Store, StoreError, account_of, new_bid
from remctl.jobs.store._schema import machines, robots


class TestAccounts:
    def test_allow_their_password_alone(self, store: Store) -> None:
        store.accounts.set_password("externalscript", "correct horse battery")
        assert store.accounts.allows("externalscript", "correct horse battery")
        for name, password in [
            ("externalscript", "correct horse batterz"),
            ("externalscript", ""),
            ("externalscripts", "correct horse battery"),
            ("", ""),
        ]:
            assert not store.accounts.allows(name, password)

    def test_get_another_password(self, store: Store) -> None:
        for password in ("correct horse battery", "staple battery horse"):
            store.accounts.set_password("externalscript", password)
        assert not store.accounts.allows("externalscript", "correct horse battery")
        assert store.accounts.allows("externalscript", "staple battery horse")
        assert list(store.accounts.all()) == ["externalscript"]

    @pytest.mark.parametrize(
        ("password", "complaint"),
        [
            ("externalscript", "password must not be the account's name"),
            ("short", "password must have 12 characters or more, and has 5"),
            ("", "password"),
        ],
    )
    def test_refuse_a_password_that_anybody_would_try(self, store: Store, password: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            store.accounts.set_password("externalscript", password)
        assert store.accounts.all() == {}

    def test_are_not_named_as_those_of_attempts_are(self, store: Store) -> None:
        with pytest.raises(ValueError, match="name must not begin as those of attempts do: 'attempt-1'"):
            store.accounts.set_password("attempt-1", "correct horse battery")

    def test_are_not_stored_with_their_password(self, store: Store) -> None:
        store.accounts.set_password("externalscript", "correct horse battery")
        with store.database.read() as connection:
            row = connection.exec_driver_sql("SELECT * FROM accounts").one()
        assert "correct horse" not in repr(row)

    def test_can_be_removed(self, store: Store) -> None:
        store.accounts.set_password("externalscript", "correct horse battery")
        store.accounts.remove("externalscript")
        assert not store.accounts.allows("externalscript", "correct horse battery")
        with pytest.raises(StoreError, match="there is no account 'externalscript'"):
            store.accounts.remove("externalscript")


class TestMachines:
    def test_are_certified_by_an_administrator_alone(self, store: Store) -> None:
        store.machines.seen("one", "192.0.2.1")
        store.machines.add("two", "192.0.2.2", certified=True)
        one, two = store.machines.all()
        assert one.seen_at is not None
        assert (one.certified, two) == (False, Machine("two", "192.0.2.2", True, None))

    def test_stay_certified_when_a_runner_is_there(self, store: Store) -> None:
        store.machines.add("one", "192.0.2.1", certified=True)
        store.machines.seen("one", "192.0.2.9")
        (one,) = store.machines.all()
        assert (one.address, one.certified) == ("192.0.2.9", True)

    def test_can_be_removed(self, store: Store) -> None:
        store.machines.seen("one", "192.0.2.1")
        store.machines.remove("one")
        assert store.machines.all() == []
        with pytest.raises(StoreError, match="there is no machine 'one'"):
            store.machines.remove("one")

    def test_stay_while_a_robot_is_there(self, store: Store) -> None:
        store.machines.seen("one", "192.0.2.1")
        with store.database.write() as connection:
            machine = connection.scalar(machines.select())
            connection.execute(
                insert(robots).values(guid="g", name="r", machine_id=machine, status=0, licensed=True, enabled=True)
            )
        with pytest.raises(StoreError, match="there are robots on the machine 'one'"):
            store.machines.remove("one")


class TestReport:
    @pytest.fixture(autouse=True)
    def script(self, store: Store) -> None:
        """Install a script."""
        install(store)

    def test_needs_the_password_of_that_attempt(self, store: Store) -> None:
        store.jobs.submit("backup", {}, ADA)
        bid = new_bid()
        (found,) = store.attempts.claim(RUNNER, [bid], 60)
        allowed = store.attempts.allowed
        assert allowed(account_of(found.attempt), bid.password) == found.attempt
        for account, password in [
            (account_of(found.attempt), new_bid().password),
            (account_of(found.attempt + 1), bid.password),
            (account_of(found.attempt), ""),
            ("attempt-", bid.password),
            ("attempt-99999999999999999999", bid.password),
            (f"attempt-0{found.attempt}", bid.password),
        ]:
            assert allowed(account, password) is None

    def test_of_an_attempt_is_for_its_own_job(self, store: Store) -> None:
        one, two = running(store), running(store)
        with pytest.raises(StoreError, match=f"it is not job {two.job.id}'s"):
            store.attempts.report(two.job.id, True, "", attempt=one.attempt)
        assert store.attempts.report(one.job.guid, True, "", attempt=one.attempt)

    def test_without_an_attempt_is_for_the_last_one(self, store: Store) -> None:
        first = running(store)
        store.attempts.settle(first.attempt, DONE._replace(exit_status=1))
        store.jobs.retry(first.job.id, ADA)
        claims(store, 1)
        assert store.attempts.report(first.job.id, True, "done")
        one, two = store.jobs.attempts(first.job.id)
        assert (one.report, two.report) == (None, "done")

    def test_of_an_old_attempt_is_late(self, store: Store) -> None:
        first = running(store)
        store.attempts.settle(first.attempt, DONE._replace(exit_status=1))
        store.jobs.retry(first.job.id, ADA)
        claims(store, 1)
        assert not store.attempts.report(first.job.id, True, "done", attempt=first.attempt)
        one, two = store.jobs.attempts(first.job.id)
        assert (one.late_reports, one.report, two.late_reports, two.report) == (1, None, 0, None)
