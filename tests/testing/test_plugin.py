"""The pytest fixtures, in the test suite of somebody who uses the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs_under_test import nothing_left

SUITE = """
import pytest
import remctl

HELLO = "#!/bin/sh\\necho hello world\\n"


def run(server, *words, **options):
    return remctl.remctl(server.host, server.port, server.principal, words, timeout=30, **options).stdout


def test_a_server_of_ones_own(remctl_server):
    remctl_server.add_command("test", "hello", HELLO)
    assert run(remctl_server, "test", "hello") == b"hello world\\n"


def test_it_has_no_commands_of_other_tests(remctl_server):
    with pytest.raises(remctl.RemctlCommandError):
        run(remctl_server, "test", "hello")


@pytest.fixture
def alice(remctl_sandbox):
    return remctl_sandbox.kinit(remctl_sandbox.add_principal("alice"))


def test_the_realm_is_there_too(remctl_server, alice):
    remctl_server.add_command("test", "who", "#!/bin/sh\\necho $REMOTE_USER\\n")
    assert run(remctl_server, "test", "who") == b"user@SANDBOX.TEST\\n"
    assert run(remctl_server, "test", "who", ccache=alice) == b"alice@SANDBOX.TEST\\n"


def test_the_servers_are_two(remctl_sandbox, remctl_server):
    assert remctl_sandbox.port != remctl_server.port
    assert remctl_sandbox.server.pid is not None
"""


def test_a_users_suite_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)


def test_the_sandbox_is_one_for_the_session(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_one="def test(remctl_sandbox): print(remctl_sandbox.path)",
        test_two="def test(remctl_sandbox): print(remctl_sandbox.path)",
    )
    result = pytester.runpytest_subprocess("-q", "-s", "-W", "error")
    result.assert_outcomes(passed=2)
    first, second = (line.lstrip(".") for line in result.outlines if "krbtest" in line)
    assert first == second


def test_a_server_ends_with_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        servers = []

        def test_one(remctl_server):
            servers.append(remctl_server)
            assert remctl_server.pid is not None

        def test_two():
            assert servers[0].pid is None
        """
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


def test_the_environment_is_exported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os

        def test(remctl_sandbox):
            assert os.environ["KRB5CCNAME"] == remctl_sandbox.ccache
        """
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


@pytest.mark.parametrize("end", ["pass", "assert False", "raise KeyboardInterrupt", "raise SystemExit"])
def test_nothing_is_left_at_the_end(end: str, pytester: pytest.Pytester) -> None:
    note = pytester.path / "folder"
    pytester.makepyfile(
        f"""
        from pathlib import Path

        def test(remctl_sandbox, remctl_server):
            Path({str(note)!r}).write_text(str(remctl_sandbox.path))
            {end}
        """
    )
    pytester.runpytest_subprocess()
    assert nothing_left(Path(note.read_text()))


def test_it_costs_nothing_until_a_fixture_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test(): assert 'k5test' not in sys.modules")
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_the_fixtures_are_described(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.re_match_lines([r"remctl_sandbox \[session scope\].*", r"    Give the session's sandbox.*"])
    result.stdout.re_match_lines([r"remctl_server -- .*", r"    Give a remctld for this test alone.*"])
