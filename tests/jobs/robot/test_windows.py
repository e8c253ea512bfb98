"""The whole path of Windows, run where nothing of POSIX can be imported; Windows itself is never here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import remctl.jobs.robot
from jobs.attempts import LIMIT
from jobs.robot.doubles import GUID, Orchestrator
from jobs.robot.sites import Site
from remctl.jobs.states import JobState

PROGRAM = """
import runpy, ssl, sys, types
import argparse, logging.handlers, shutil, subprocess, threading, queue  # before the system changes: theirs is here
import httpx, httpx._transports.default, httpcore, anyio, anyio._backends._asyncio, psutil
from ctypes import util

hidden = ("fcntl", "pwd", "grp", "resource", "termios", "_remctl", "cffi", "_cffi_backend", "sqlalchemy", "msgspec")
for name in hidden:
    sys.modules[name] = None
locked = []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda file, mode, size: locked.append(mode))
ran = []
ssl.enum_certificates = lambda store: []
subprocess.run = lambda argv, **_: ran.append([str(each) for each in argv]) or types.SimpleNamespace(returncode=0)
sys.platform = "win32"
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
finally:
    assert locked == [2], locked
    assert "remctl.jobs.robot._running_posix" not in sys.modules
    assert "remctl.jobs.attempt" not in sys.modules
    assert ran[0][0].endswith("shutdown.exe") and ran[0][1:] == ["/l"], ran
"""


def test_a_job_on_the_path_of_windows(here: Site, orchestrator: Orchestrator) -> None:
    here.install("print('hello'); say(sorted(os.environ))")
    job = orchestrator.add("work", {"name": "Ada"})
    folder = str(Path(remctl.jobs.robot.__file__).parent)
    options = ["--orchestrator", orchestrator.url, "--scripts", str(here.scripts), "--state", str(here.state)]
    environment = {"REMCTL_ROBOT_GUID": GUID, "SYSTEMROOT": r"C:\Windows", "TEMP": "/tmp", "HOME": "/root"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, *options, "--logoff"],
        env=environment,
        timeout=LIMIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert job.moves == [JobState.IN_PROGRESS, JobState.SUCCESS]
    assert (here.state / "runs" / "0000000001" / "stdout").read_text() == "hello\n"
    found = here.lines()[0]
    assert "SYSTEMROOT" in found
    assert "TEMP" in found
    assert "HOME" not in found
    assert "GUID'" in found  # JOB_GUID, and not the robot's
    assert "REMCTL" not in found
