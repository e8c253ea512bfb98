"""Making a working folder, bringing its database up to date, and removing what was kept long enough."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import msgspec
import pytest
from sqlalchemy import create_engine, text

from jobs.cli.calling import complaint, run
from jobs.postgres import Postgres
from remctl.jobs.cli import _folder
from remctl.jobs.cli._template import TEMPLATE
from remctl.jobs.settings import _File, load
from remctl.jobs.store import Store
from remctl.jobs.store._accounts import EXTERNAL

PAGE: Final = Path(__file__).parents[3] / "docs" / "jobs-operations.md"


def password_in(printed: str) -> str:
    """Return the password that was shown."""
    found = re.search(r"shown this once: (\S+)$", printed, re.MULTILINE)
    assert found is not None
    return found[1]


def test_a_folder_is_made_once_and_is_private(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in folder.iterdir()} == {"jobs.toml", "jobs.db", "scripts", "attempts"}
    for path in (folder, folder / "jobs.toml", folder / "jobs.db", folder / "scripts", folder / "attempts"):
        assert path.stat().st_mode & 0o077 == 0
    assert complaint(capsys, "init", str(folder)) == f"there is a {folder}/jobs.toml already"


def test_a_folder_that_is_there_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("kept")
    run(capsys, "init", str(tmp_path))
    assert (tmp_path / "notes").read_text() == "kept"
    assert not list(tmp_path.glob(".init-*"))


@pytest.mark.parametrize("name", ["jobs.db", "scripts", "attempts"])
def test_what_is_in_the_folder_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_text("precious")
    assert complaint(capsys, "init", str(tmp_path)) == f"there is a {tmp_path}/{name} already"
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_the_password_of_the_account_is_shown_and_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = password_in(run(capsys, "init", str(tmp_path / "jobs")))
    store = Store(load(tmp_path / "jobs" / "jobs.toml").database_url)
    assert store.accounts.allows(EXTERNAL, password)
    assert not store.accounts.allows(EXTERNAL, EXTERNAL)
    store.close()


def test_nothing_is_left_of_a_folder_that_could_not_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_folder, "upgrade", fail)
        assert complaint(capsys, "init", str(tmp_path / "new")) == f"{tmp_path}/new: No space left on device"
        assert complaint(capsys, "init", str(tmp_path)) == f"{tmp_path}: No space left on device"
    assert os.listdir(tmp_path) == []


def test_of_two_who_make_the_same_folder_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = _folder._make

    def slowly(place: Path) -> str:
        (tmp_path / "jobs.toml").write_text("# somebody else's")
        return make(place)

    monkeypatch.setattr(_folder, "_make", slowly)
    assert complaint(capsys, "init", str(tmp_path)) == f"there is a {tmp_path}/jobs.toml already"
    assert os.listdir(tmp_path) == ["jobs.toml"]
    assert (tmp_path / "jobs.toml").read_text() == "# somebody else's"


def test_a_folder_that_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert complaint(capsys, "init", f"{tmp_path}/file/jobs") == f"{tmp_path}/file/jobs: Not a directory"


# The configuration


def test_the_template_is_all_defaults_also_where_its_lines_are_uncommented(tmp_path: Path) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text("")
    defaults = load(file)
    file.write_text(TEMPLATE)
    assert load(file) == defaults
    file.write_text(re.sub(r"^#(?=\w+ = )", "", TEMPLATE, flags=re.MULTILINE))
    assert len(file.read_text()) < len(TEMPLATE) - 15
    assert load(file) == defaults


def test_the_template_shows_every_setting_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text(re.sub(r"^# ?(?=\w+ = )", "", TEMPLATE, flags=re.MULTILINE))
    load(file)  # which refuses what there is not
    shown: dict[str, list[str]] = {"": []}
    for line in TEMPLATE.splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            shown[header[1]] = []
        elif key := re.match(r"# ?(\w+) = ", line):
            shown[list(shown)[-1]].append(key[1])
    defaults = msgspec.structs.asdict(_File())
    assert defaults.pop("database")
    assert shown.pop("") == ["database"]
    assert shown == {name: list(section.__struct_fields__) for name, section in defaults.items()}


def test_the_page_has_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\[\w+\] \w+|database)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE))
    defaults = {"database": _File().database}
    for section, struct in msgspec.structs.asdict(_File()).items():
        if section != "database":
            defaults.update({f"[{section}] {key}": value for key, value in msgspec.structs.asdict(struct).items()})
    assert rows.keys() == defaults.keys()
    written = {key: json.loads(row.strip("`")) for key, row in rows.items() if row.startswith("`")}
    assert written == {key: json.loads(json.dumps(defaults[key])) for key in written}
    assert {key for key in defaults if defaults[key] is None} == rows.keys() - written.keys() - {"[runner] name"}


# The database


def test_a_new_database_is_furnished_by_upgrade_and_another_one_is_left_alone(
    folder: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "jobs.toml").write_text(f'database = "{postgres.new_database()}"\n')
    assert "run: remctl-jobs upgrade" in complaint(capsys, "status")
    password = password_in(run(capsys, "upgrade"))
    assert run(capsys, "script", "list").split()[:3] == ["python", "python", "off"]
    run(capsys, "script", "enable", "python")
    assert run(capsys, "upgrade") == ""
    assert "off" not in run(capsys, "script", "list")
    store = Store(load(folder / "jobs.toml").database_url)
    assert store.accounts.allows(EXTERNAL, password)
    store.close()


def test_the_database_of_a_later_version_is_refused_by_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = create_engine(load(folder / "jobs.toml").database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for command in ("upgrade", "status", "clean"):
        said = complaint(capsys, command)
        assert said == "the database has the schema 9999, which is that of a later version; upgrade remctl-cffi"


def test_a_database_that_is_away_is_told_without_its_password(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.toml").write_text('database = "postgresql://ada:hush@127.0.0.1:1/jobs"\n')
    said = complaint(capsys, "status")
    assert "the database cannot be used: " in said
    assert "hush" not in said


def test_a_database_of_another_kind_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.toml").write_text('database = "mysql://localhost/jobs"\n')
    assert complaint(capsys, "status") == "database must be sqlite or postgresql, and is mysql"


def test_what_was_kept_long_enough_is_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "submit", "hello", "name=Ada")
    run(capsys, "abort", "1")
    assert run(capsys, "clean") == "removed 0 jobs and 0 folders\n"
    store = Store(load(folder / "jobs.toml").database_url)
    with store.database.write() as connection:
        connection.execute(text("UPDATE jobs SET ended_at = ended_at - 91 * 86400"))
    store.close()
    old = folder / "attempts" / "1.1-old"
    old.mkdir()
    os.utime(old, (0, 0))
    assert run(capsys, "clean") == "removed 1 jobs and 1 folders\n"
    assert run(capsys, "status") == ""
    assert not old.exists()
