"""The schema's migrations, on both databases."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from remctl.jobs.store._database import Database
from remctl.jobs.store._schema import metadata
from remctl.jobs.store._upgrade import SchemaError, check, upgrade


def test_the_migrations_make_the_schema_that_the_code_has(url: str) -> None:
    database = Database(url)
    upgrade(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_upgrading_twice_is_harmless(url: str) -> None:
    database = Database(url)
    upgrade(database)
    upgrade(database)
    check(database)
    database.close()


def test_an_empty_database_is_not_up_to_date(url: str) -> None:
    database = Database(url)
    with pytest.raises(SchemaError, match=r"older schema, or none.*run: remctl-jobs upgrade"):
        check(database)
    database.close()


def test_a_later_schema_is_refused_and_left_as_it_is(url: str) -> None:
    database = Database(url)
    upgrade(database)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (check, upgrade):
        with pytest.raises(SchemaError, match=r"schema 9999, which is that of a later version.*upgrade remctl-cffi"):
            use(database)
    database.close()


def test_a_database_that_cannot_be_opened_is_told() -> None:
    with pytest.raises(SchemaError, match="the database cannot be used: unable to open database file"):
        check(Database("sqlite:////nowhere/jobs.db"))


@pytest.mark.parametrize(
    ("url", "text"),
    [("mysql://x/y", "sqlite or postgresql, and is mysql"), ("jobs.db", "no URL"), ("sqlite+nothing:///x", "no URL")],
)
def test_another_kind_of_database_is_refused(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Database(url)


def test_two_who_upgrade_at_once_do_not_harm_each_other(url: str) -> None:
    databases = [Database(url) for _ in range(4)]
    failures: list[BaseException] = []

    def run(database: Database) -> None:
        try:
            upgrade(database)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[each]) for each in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check(databases[0])
    for database in databases:
        database.close()
