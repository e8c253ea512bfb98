"""The documentation is true: every example in it runs against a real server."""

from __future__ import annotations

import doctest
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import remctl
from remctl.testing import Sandbox

ROOT = Path(__file__).resolve().parent.parent

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

PROXY: Final = """
import os, select, socket, sys
server = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for source in select.select([0, server], [], [])[0]:
        if source == 0:
            data = os.read(0, 65536)
            server.sendall(data)
        else:
            data = server.recv(65536)
            os.write(1, data)
        if not data:
            sys.exit()
"""
"""What `ssh -W` does for a tunnel: carries standard input and output to a server."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_gives_what_the_page_shows(box: Sandbox, page: Path) -> None:
    names = {
        "remctl": remctl,
        "host": box.host,
        "port": box.port,
        "principal": box.principal,
        "keytab": box.keytab,
        "proxy": [sys.executable, "-c", PROXY, "127.0.0.1", str(box.port)],
    }
    test = doctest.DocTestParser().get_doctest(page.read_text(), names, page.name, str(page), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.failed == 0


def test_there_are_examples() -> None:
    assert sum(page.read_text().count(">>> ") for page in PAGES) > 130


def test_the_server_of_the_page_serves_until_it_is_told_to_stop(box: Sandbox, tmp_path: Path) -> None:
    program = tmp_path / "disks.py"
    program.write_text(programs("server.md")[0])
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", program, "0"],
        env={**box.env, "KRB5_KTNAME": box.keytab},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            port = int(
                next(found[1] for line in process.stderr if (found := re.search(r"serving on .* port (\d+)", line)))
            )
            with remctl.Remctl(box.host, port, timeout=30) as session:
                assert int(session.run(["disk", "free", "/"], check=True).stdout) > 0
                assert session.run(["disk", "size", "/"]).status == 64
                with pytest.raises(remctl.RemctlCommandError, match="Unknown command") as caught:
                    session.run(["desk", "free", "/"])
                assert caught.value.code is remctl.ErrorCode.UNKNOWN_COMMAND
            process.send_signal(signal.SIGTERM)
            assert "Traceback" not in process.stderr.read()
            assert process.wait() == 0
        finally:
            process.kill()


def test_the_tests_of_the_page_pass(pytester: pytest.Pytester) -> None:
    program, tests = programs("server.md")
    pytester.makepyfile(disks=program, test_disks=tests)
    pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider").assert_outcomes(passed=2)


def programs(page: str) -> list[str]:
    """Return the Python blocks of a page that are files of their own: they begin with a docstring."""
    return re.findall(r'^```python\n(""".*?)^```$', (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
