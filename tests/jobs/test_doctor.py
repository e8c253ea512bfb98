"""What the doctor finds in a folder that is well, and in each that is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from jobs.cli.calling import Daemon, new_folder
from jobs.postgres import Postgres
from remctl.jobs import cli, doctor
from remctl.jobs.doctor import Finding, Verdict, examine
from remctl.jobs.scripts import _languages
from remctl.jobs.settings import load
from remctl.jobs.store import Store, upgrade
from remctl.testing import Sandbox

ROBOT = """
INSERT INTO robots (guid, name, pool, status, licensed, enabled)
VALUES ('guid of {name}', '{name}', {pool}, 0, {licensed}, true)
"""


class Patient:
    """A working folder that is well; `change` makes it otherwise."""

    def __init__(self, folder: Path, box: Sandbox, keytab: str) -> None:
        self.folder = new_folder(folder)
        self.file = self.folder / "jobs.toml"
        self.values: dict[str, dict[str, Any]] = {
            "": {},
            "runner": {"poll": 0.1},
            "server": {"port": 0, "keytab": keytab},
            "remctl": {"listen": "127.0.0.1", "port": 0, "keytab": box.keytab},
        }
        self.change("log", level="info")

    def change(self, section: str, **values: Any) -> None:
        """Change settings."""
        self.values.setdefault(section, {}).update(values)
        lines = []
        for name, table in self.values.items():
            lines += [
                *([f"[{name}]"] if name else []),
                *(f"{key} = {json.dumps(value)}" for key, value in table.items()),
            ]
        self.file.write_text("\n".join(lines) + "\n")

    def sql(self, statement: str) -> None:
        """Change the database."""
        store = Store(load(self.file).database_url)
        with store.database.write() as connection:
            connection.execute(text(statement))
        store.close()

    def findings(self, *verdicts: Verdict) -> list[Finding]:
        """Return what is found, that is not ok or has one of these verdicts."""
        chosen = verdicts or (Verdict.WARNING, Verdict.WRONG)
        return [finding for finding in examine(self.file) if finding.verdict in chosen]

    def finds(self, verdict: Verdict, what: str) -> Finding:
        """See that there is one finding besides that no runner works; return it."""
        found = [each for each in self.findings() if "no runner" not in each.what]
        assert [each.verdict for each in found] == [verdict], found
        assert what in found[0].what
        assert found[0].advice
        return found[0]


@pytest.fixture(scope="module")
def keytab(box: Sandbox) -> str:
    """Give a keytab with a key for HTTP, and with that alone."""
    return box.add_principal("HTTP/doctor.example.org").keytab


@pytest.fixture
def patient(tmp_path: Path, box: Sandbox, keytab: str, capsys: pytest.CaptureFixture[str]) -> Patient:
    """Give a working folder that is well."""
    made = Patient(tmp_path, box, keytab)
    capsys.readouterr()
    return made


@pytest.fixture
def listening() -> Iterator[Callable[[], int]]:
    """Give a function that has somebody listen on a port."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]


# The command


def test_what_is_well_is_ok_while_all_daemons_work(
    patient: Patient, listening: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with Daemon(patient.folder, "up") as daemon:
        daemon.says("ready")
        patient.change("server", port=listening())
        patient.change("remctl", port=listening())
        assert cli.main(["--config", str(patient.file), "doctor"]) == 0
    printed = capsys.readouterr().out
    assert {line.split()[0] for line in printed.splitlines()} == {"ok"}
    for what in (
        "a runner works",
        "SQLite",
        "externalscript",
        "bash is /",
        "hello is as it was",
        "HTTP/HOST",
        "host/HOST",
    ):
        assert what in printed


def test_something_wrong_is_a_line_with_advice_and_the_exit_status(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    patient.folder.chmod(0o755)
    assert cli.main(["--config", str(patient.file), "doctor"]) == 1
    line = f"wrong    {patient.folder} has the mode 0755: others may read it; chmod go-rwx {patient.folder}"
    assert line in capsys.readouterr().out.splitlines()


def test_a_warning_is_no_reason_to_fail(patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(patient.file), "doctor"]) == 0
    assert "warning  no runner has ever worked in" in capsys.readouterr().out


# The folder


def test_a_configuration_that_cannot_be_read_is_all_that_is_said(patient: Patient) -> None:
    patient.change("runner", poll=0)
    (found,) = examine(patient.file)
    assert found == (
        Verdict.WRONG,
        f"the configuration: {patient.file}:2: runner.poll: expected float >= 0.1",
        "mend it",
    )
    (found,) = examine(Path("/nowhere/jobs.toml"))
    assert "remctl-jobs init" in found.advice


@pytest.mark.parametrize(
    ("name", "mode", "may"),
    [(".", 0o710, "read"), ("jobs.toml", 0o640, "read"), ("scripts", 0o720, "write"), ("attempts", 0o702, "write")],
)
def test_a_mode_that_lets_others_in_is_wrong(patient: Patient, name: str, mode: int, may: str) -> None:
    path = patient.folder / name
    path.chmod(mode)
    wrong = patient.findings(Verdict.WRONG)
    assert f"{path} has the mode {mode:04o}: others may {may} it" in [finding.what for finding in wrong]
    assert f"chmod go-rwx {path}" in [finding.advice for finding in wrong]


def test_a_folder_that_is_missing_is_wrong(patient: Patient) -> None:
    (patient.folder / "attempts").rmdir()
    patient.finds(Verdict.WRONG, f"{patient.folder}/attempts: No such file or directory")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_told(patient: Patient) -> None:
    shutil.chown(patient.folder / "attempts", 54321)
    patient.finds(Verdict.WRONG, f"{patient.folder}/attempts belongs to another user than {patient.folder}")
    shutil.chown(patient.folder / "attempts", 0)
    shutil.chown(patient.folder, 54321)
    patient.finds(Verdict.WARNING, "belongs to the user with number 54321")


@pytest.mark.parametrize(("free", "verdict"), [(1 << 20, Verdict.WRONG), (500 << 20, Verdict.WARNING)])
def test_a_disk_that_is_nearly_full_is_told(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict
) -> None:
    usage = shutil.disk_usage(patient.folder)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    patient.finds(verdict, "GiB are free in")


# The database


def test_a_database_that_is_not_there_is_told_and_not_made(patient: Patient) -> None:
    (patient.folder / "jobs.db").unlink()
    patient.finds(Verdict.WRONG, f"there is no database {patient.folder}/jobs.db")
    assert not (patient.folder / "jobs.db").exists()


def test_a_database_that_is_away_is_told_without_its_password(patient: Patient) -> None:
    patient.change("", database="postgresql://ada:hush@127.0.0.1:1/jobs")
    found = patient.finds(Verdict.WRONG, "the database cannot be used: ")
    assert "hush" not in str(found)


def test_a_database_of_another_kind_is_told(patient: Patient) -> None:
    patient.change("", database="mysql://localhost/jobs")
    patient.finds(Verdict.WRONG, "database must be sqlite or postgresql, and is mysql")


def test_an_older_schema_is_told(patient: Patient) -> None:
    patient.sql("DELETE FROM alembic_version")
    found = patient.finds(Verdict.WRONG, "the database has an older schema, or none")
    assert found.advice == "run: remctl-jobs upgrade"


def test_a_database_that_breaks_while_it_is_asked_is_told(patient: Patient) -> None:
    patient.sql("DROP TABLE machines")
    patient.finds(Verdict.WRONG, "the database cannot be used: no such table: machines")


def test_clocks_that_differ_are_told(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CLOCKS", -1.0)
    patient.finds(Verdict.WARNING, "the database's clock and this machine's differ by 0.0 s")


def test_sqlite_without_a_write_ahead_log_is_wrong(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=DELETE").close()

    monkeypatch.setattr("remctl.jobs.store._database._prepare_sqlite", prepare)
    patient.finds(Verdict.WRONG, "SQLite works with journal_mode=delete")


def test_the_version_of_postgresql_is_told(
    patient: Patient, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.change("", database=postgres.new_database())
    store = Store(load(patient.file).database_url)
    upgrade(store.database)
    store.accounts.set_password("externalscript", "a password of it")
    store.close()
    assert "it is PostgreSQL " in str(patient.findings(Verdict.OK))
    monkeypatch.setattr(doctor, "OLDEST", (99, 0))
    patient.finds(Verdict.WARNING, "it is PostgreSQL ")


# What the database knows


def test_a_script_that_was_changed_is_wrong_and_one_that_is_off_is_nobodys_business(patient: Patient) -> None:
    script = patient.folder / "scripts" / "hello.sh"
    script.chmod(0o700)
    script.write_text("echo changed\n")
    patient.finds(Verdict.WRONG, f"the script hello: {script}: it is not what was installed")
    patient.sql("UPDATE scripts SET enabled = false WHERE name = 'hello'")
    assert patient.findings(Verdict.WRONG) == []


def test_an_interpreter_that_is_missing_is_wrong(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _languages._FACTS[_languages.Language.BASH]
    known = {**_languages._FACTS, _languages.Language.BASH: facts._replace(program="no-such-shell")}
    monkeypatch.setattr(_languages, "_FACTS", known)
    patient.finds(Verdict.WRONG, "bash is not installed: there is no no-such-shell")


def test_ad_hoc_python_that_is_on_is_a_warning(patient: Patient) -> None:
    patient.sql("UPDATE scripts SET enabled = true")
    patient.finds(Verdict.WARNING, "the script python is on")


def test_a_machine_that_is_silent_is_a_warning(patient: Patient) -> None:
    patient.sql("INSERT INTO machines (name, address, certified, seen_at) VALUES ('named', '192.0.2.1', true, NULL)")
    patient.sql("INSERT INTO machines (name, address, certified, seen_at) VALUES ('gone', '192.0.2.2', true, 1000)")
    patient.finds(Verdict.WARNING, "the machine gone was heard of ")


def test_robots_have_a_line_each_without_their_guids(patient: Patient) -> None:
    patient.sql(ROBOT.format(name="R2", pool="NULL", licensed="true"))
    patient.sql(ROBOT.format(name="R3", pool="'night'", licensed="false"))
    found = str(patient.findings(*Verdict))
    assert "the robot R2 is disconnected" in found
    assert "the robot R3 is unlicensed" in found
    assert "jobs wait for it" not in found
    assert "guid of" not in found


@pytest.mark.parametrize(("licensed", "status"), [("true", "disconnected"), ("false", "unlicensed")])
@pytest.mark.parametrize("place", [["--robot", "R2"], ["--pool", "night"]])
def test_a_robot_that_jobs_wait_for_in_vain_is_a_warning(
    patient: Patient, capsys: pytest.CaptureFixture[str], licensed: str, status: str, place: list[str]
) -> None:
    patient.sql(ROBOT.format(name="R2", pool="'night'", licensed=licensed))
    patient.sql(ROBOT.format(name="C3", pool="NULL", licensed=licensed))
    assert cli.main(["--config", str(patient.file), "submit", "nap", *place]) == 0
    patient.finds(Verdict.WARNING, f"the robot R2 is {status}, and jobs wait for it")


def test_a_robot_that_is_ready_for_its_jobs_is_ok(patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    patient.sql(ROBOT.format(name="R2", pool="NULL", licensed="true"))
    assert cli.main(["--config", str(patient.file), "submit", "nap", "--robot", "R2"]) == 0
    patient.sql(f"UPDATE robots SET status = 2, seen_at = {time.time()}")
    assert "the robot R2 is ready" in str(patient.findings(Verdict.OK))


def test_a_job_that_nobody_takes_is_a_warning(patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(patient.file), "submit", "nap"]) == 0
    assert "the oldest job that is due has been waiting for 0 s" in str(patient.findings(Verdict.OK))
    patient.sql("UPDATE jobs SET due_at = due_at - 1000")
    patient.finds(Verdict.WARNING, "a job has been waiting for 1000 s")


def test_an_account_that_is_gone_is_a_warning(patient: Patient) -> None:
    patient.sql("DELETE FROM accounts")
    patient.finds(Verdict.WARNING, "there is no account externalscript")


# The daemons


def test_a_runner_that_has_ended_is_a_warning(patient: Patient) -> None:
    (patient.folder / "runner.lock").touch()
    assert f"no runner works in {patient.folder}" in str(patient.findings(Verdict.WARNING))


def test_a_lock_that_cannot_be_read_is_wrong(patient: Patient) -> None:
    (patient.folder / "runner.lock").mkdir()
    patient.finds(Verdict.WRONG, "runner.lock: Is a directory")


@pytest.mark.parametrize(("section", "service"), [("server", "HTTP"), ("remctl", "host")])
def test_a_keytab_that_is_named_has_to_be_there_with_the_right_key(
    patient: Patient, box: Sandbox, keytab: str, section: str, service: str
) -> None:
    patient.change(section, keytab="nothing.keytab")
    patient.finds(
        Verdict.WRONG, f"[{section}]: no key of {service}/HOST in {patient.folder}/nothing.keytab: No such file"
    )
    patient.change(section, keytab=keytab if service == "host" else box.keytab)
    patient.finds(Verdict.WRONG, f"[{section}]: no key of {service}/HOST in ")


def test_a_system_without_a_keytab_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_KTNAME", "/nowhere/keytab")
    del patient.values["server"]["keytab"]
    patient.change("server")
    patient.finds(Verdict.WARNING, "[server]: no key of HTTP/HOST in the system's keytab: ")


def test_a_certificate_is_tried(patient: Patient) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    for name in ("one", "two"):
        files = ["-keyout", f"{patient.folder}/{name}.key", "-out", f"{patient.folder}/{name}.pem"]
        subprocess.run([*command, *files], check=True, capture_output=True)
    patient.change("server", certificate="one.pem", key="one.key")
    assert f"[server]: {patient.folder}/one.pem and its key fit together" in str(patient.findings(Verdict.OK))
    patient.change("server", key="two.key")
    patient.finds(Verdict.WRONG, f"[server]: {patient.folder}/one.pem with {patient.folder}/two.key: ")
    patient.change("server", key="nothing.key")
    patient.finds(Verdict.WRONG, "No such file or directory")


@pytest.mark.parametrize("section", ["server", "remctl"])
def test_a_port_where_nobody_answers_is_a_warning(patient: Patient, listening: Callable[[], int], section: str) -> None:
    patient.change(section, port=listening())
    assert f"[{section}]: somebody answers at " in str(patient.findings(Verdict.OK))
    patient.change(section, port=1)
    patient.finds(Verdict.WARNING, f"[{section}]: nobody answers at 127.0.0.1 port 1: Connection refused")


def test_a_server_behind_another_one_is_asked_by_its_url(patient: Patient, listening: Callable[[], int]) -> None:
    patient.change("server", url=f"http://localhost:{listening()}")
    assert "[server]: somebody answers at localhost port " in str(patient.findings(Verdict.OK))
