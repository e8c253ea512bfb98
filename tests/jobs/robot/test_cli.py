"""The console command: exit statuses, TLS, what is logged where, and what is refused at once."""

from __future__ import annotations

import signal
import ssl
import subprocess
from pathlib import Path

import pytest

from jobs.robot.doubles import GUID, Orchestrator, ok
from jobs.robot.sites import Site
from jobs.runners import until
from remctl.jobs.robot import main
from remctl.jobs.states import JobState

NOW = ("--patience", "0")


class TestStatuses:
    def test_no_more_jobs(self, here: Site, orchestrator: Orchestrator) -> None:
        here.install("say('ran')")
        orchestrator.add("work")
        assert here.ended(orchestrator.url) == 0
        assert here.lines() == ["ran"]

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            (ok(HeartbeatErrorCode=101, ErrorText=f"no robot {GUID}"), 4),
            ((401, b""), 5),
            ((403, b"<html>"), 5),
            ((500, b""), 3),
            ((200, b"<html>"), 3),
        ],
    )
    def test_of_no_use(self, here: Site, orchestrator: Orchestrator, answer: tuple[int, bytes], status: int) -> None:
        orchestrator.instead = lambda _: answer
        assert here.ended(orchestrator.url, *NOW) == status
        assert GUID not in here.log.read_text()

    def test_a_state_folder_that_cannot_be_written(self, here: Site, orchestrator: Orchestrator) -> None:
        here.state.touch()
        assert here.ended(orchestrator.url) == 1
        assert str(here.state) in here.log.read_text()

    def test_asked_to_end_while_it_waits(self, here: Site, orchestrator: Orchestrator) -> None:
        process = here.process(orchestrator.url, "--forever")
        until(lambda: orchestrator.messages)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 7

    @pytest.mark.parametrize(
        "more",
        [
            ["--interval", "0.5"],
            ["--interval", "nan"],
            ["--grace", "-1"],
            ["--python", "/absent/python"],
            ["--scripts", "/absent"],
            ["--logoff"],
            ["--orchestrator", "ftp://host"],
            ["--ca", "/absent/ca.pem"],
            ["--ca", __file__],
            ["--guid", "a b"],
            ["--guid-file", "/absent"],
            ["--guid", "a", "--guid-file", "/absent"],
            ["--log-file", "/absent/log"],
        ],
    )
    def test_a_wrong_command_line(self, here: Site, more: list[str], capfd: pytest.CaptureFixture[str]) -> None:
        options = ["--orchestrator", "http://localhost:9", "--scripts", str(here.scripts), "--state", str(here.state)]
        status = 0
        try:
            status = main([*options, *([] if "--guid" in more else ["--guid", GUID]), *more])
        except SystemExit as error:
            status = int(str(error.code))
        assert status == 2
        assert GUID not in capfd.readouterr().err

    def test_no_guid(self, here: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        monkeypatch.delenv("REMCTL_ROBOT_GUID", raising=False)
        assert main(["--orchestrator", "http://localhost:9", "--scripts", str(here.scripts)]) == 2
        assert "REMCTL_ROBOT_GUID" in capfd.readouterr().err

    def test_a_guid_from_a_file_and_a_log_in_one(self, here: Site, orchestrator: Orchestrator) -> None:
        guid, log = here.folder / "guid", here.folder / "robot.log"
        guid.write_text(GUID)
        guid.chmod(0o600)
        here.install("say('ran')")
        orchestrator.add("work")
        options = ["--guid-file", str(guid), "--log-file", str(log)]
        assert here.ended(orchestrator.url, *options, REMCTL_ROBOT_GUID="wrong") == 0
        assert here.log.read_text() == ""
        assert "Success" in log.read_text()
        assert GUID not in log.read_text()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a certificate authority, and a certificate of it for localhost."""
    folder = tmp_path_factory.mktemp("certificates")
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    extensions = ["-addext", "keyUsage=critical,keyCertSign"]
    for command in (
        [*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", *extensions],
        [*new, "-subj", "/CN=other", "-keyout", "other.key", "-out", "other.pem"],
        [
            *new,
            "-subj",
            "/CN=x",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            *signed,
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


class TestTls:
    @pytest.mark.parametrize(
        ("options", "status"), [(["--ca", "ca.pem"], 0), (["--ca", "other.pem"], 3), ([], 3), (["--insecure"], 0)]
    )
    def test_only_what_is_trusted_is_asked(
        self, here: Site, certificates: Path, options: list[str], status: int
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        more = [str(certificates / each) if each.endswith("pem") else each for each in options]
        here.install("say('ran')")
        with Orchestrator(context=context) as orchestrator:
            job = orchestrator.add("work")
            assert here.ended(orchestrator.url, *NOW, *more) == status
        assert job.moves == ([] if status else [JobState.IN_PROGRESS, JobState.SUCCESS])
        log = here.log.read_text()
        assert ("INSECURE" in log) == ("--insecure" in options)
        assert ("CERTIFICATE_VERIFY_FAILED" in log) == bool(status)

    def test_without_tls_it_says_so(self, here: Site, orchestrator: Orchestrator) -> None:
        here.ended(orchestrator.url)
        assert "no TLS" in here.log.read_text()
