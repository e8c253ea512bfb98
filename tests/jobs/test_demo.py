"""The demonstration of jobs, as `make demo-jobs` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def demonstration(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with a folder for what is temporary, of which it leaves nothing."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "remctl.jobs.demo"],
        env={**os.environ, "TMPDIR": str(folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert os.listdir(folder) == []
    return done


def test_it_shows_the_whole_way_to_a_report(tmp_path: Path) -> None:
    done = demonstration(tmp_path / "temporary")
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    for line in ("installed count (python)", "reported success: counted to 3", "b'1\\n2\\n'", "Next: "):
        assert line in done.stdout


def test_what_goes_wrong_ends_it_with_what_the_daemons_said(tmp_path: Path) -> None:
    client = tmp_path / "remctl"
    client.write_text("#!/bin/sh\necho no ticket; exit 1\n")
    client.chmod(0o755)
    done = demonstration(tmp_path / "temporary", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert done.stdout.endswith("This went wrong.\n")
    assert "no ticket\n\nThe daemons said:" in done.stdout


def test_a_client_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    done = demonstration(tmp_path / "temporary", PATH=str(tmp_path))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1,
        "remctl is not installed; on Debian and Ubuntu: apt-get install remctl-client",
    )
