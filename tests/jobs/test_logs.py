"""What the daemons write to standard error; each test in a process of its own, since `logging` is the process's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

SETTING: str = """
import logging
from remctl.jobs import logs
from remctl.jobs.settings import LogSettings

logs.configure(LogSettings({level!r}, {format!r}))
logger = logging.getLogger("remctl.jobs.test")
"""


def written(body: str, level: str = "info", form: str = "text", **variables: str) -> list[str]:
    """Return the lines that a program writes."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SETTING.format(level=level, format=form) + body],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    return done.stderr.splitlines()


def test_a_line_of_text_has_time_level_logger_and_message() -> None:
    (line,) = written("logger.info('job %d has begun', 7)")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO remctl\.jobs\.test: job 7 has begun", line)


def test_systemd_adds_the_time_itself(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as opened:
        status = os.fstat(opened.fileno())
        subprocess.run(
            [sys.executable, "-c", SETTING.format(level="info", format="text") + "logger.info('hello')"],
            stderr=opened,
            check=True,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        )
    assert log.read_text() == "INFO remctl.jobs.test: hello\n"


def test_the_time_stays_where_standard_error_is_not_the_journal() -> None:
    (line,) = written("logger.info('hello')", JOURNAL_STREAM="8:15")
    assert line.startswith("20")


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_that_of_the_settings(level: str, seen: list[str]) -> None:
    lines = written("for name in ('debug', 'info', 'warning', 'error'): getattr(logger, name)('it is %s', name)", level)
    assert [line.split()[-1] for line in lines] == seen


def test_libraries_say_what_is_wrong_and_no_details() -> None:
    other = "other = logging.getLogger('sqlalchemy.engine'); other.info('hush'); other.warning('broken')"
    (line,) = written(other, "debug")
    assert line.endswith("WARNING sqlalchemy.engine: broken")


def in_json(body: str) -> dict[str, Any]:
    """Return the one line that a program writes in JSON."""
    (line,) = written(body, form="json")
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_of_json_has_the_same_and_the_time_in_utc() -> None:
    found = in_json("logger.warning('it is %s', 'late')")
    time = datetime.fromisoformat(found.pop("time"))
    assert time.tzinfo is UTC
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60
    assert found == {"level": "warning", "logger": "remctl.jobs.test", "message": "it is late"}


def test_what_a_record_says_of_itself_are_fields_and_nothing_else_is() -> None:
    extra = "{'job': 7, 'attempt': 3, 'script': 'greet', 'owner': 'ada@X', 'color_message': 'red'}"
    found = in_json(f"logger.info('ended', extra={extra})")
    assert {key: found[key] for key in list(found)[4:]} == {"job": 7, "attempt": 3, "script": "greet", "owner": "ada@X"}


def test_an_exception_is_in_the_same_line() -> None:
    found = in_json("try: 1 / 0\nexcept ZeroDivisionError: logger.exception('failed\\nbadly')")
    assert found["message"] == "failed\nbadly"
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ZeroDivisionError: division by zero")


def test_loading_the_module_sets_nothing_up() -> None:
    program = "import logging, remctl.jobs.logs, remctl.jobs.daemons; print(logging.getLogger().handlers)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
