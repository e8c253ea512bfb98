"""A line of JSON for each host, and one at the end."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cli.showing import ERR, Showing, made
from remctl.cli._json import line_of
from remctl.exceptions import RemctlCommandError, RemctlConnectionError
from remctl.fanout._results import Attempt, HostState, Timings
from remctl.types import ErrorCode


def lines(showing: Showing) -> list[dict[str, Any]]:
    return [json.loads(line) for line in showing.out.splitlines()]


def test_a_host_has_its_line_as_soon_as_it_ends() -> None:
    showing = Showing(json=True)
    showing.output("n1", b"a\n")
    showing.output("n1", b"b\n", stream=ERR)
    assert showing.out == b""
    showing.end("n1", 3, stdout=b"a\n", stderr=b"b\n", port=4373, timings=Timings(0.25, 1.5))
    assert lines(showing) == [
        {
            "type": "host",
            "host": "n1",
            "port": 4373,
            "index": 0,
            "state": "nonzero",
            "status": 3,
            "stdout": "a\n",
            "stderr": "b\n",
            "stdout_size": 2,
            "stderr_size": 2,
            "truncated": False,
            "error": None,
            "may_be_running": False,
            "attempts": [],
            "timings": {"connecting": 0.25, "running": 1.5},
        }
    ]
    assert showing.err == ""


def test_a_host_without_an_exit_status_says_why() -> None:
    showing = Showing(json=True)
    earlier = Attempt(HostState.REFUSED, RemctlConnectionError("cannot connect", hint="try"), 0.5)
    denied = RemctlCommandError("Unknown command", code=ErrorCode.UNKNOWN_COMMAND)
    showing.end("n1", None, state=HostState.DENIED, error=denied, attempts=(earlier, Attempt(HostState.DNS, None, 1.0)))
    (found,) = lines(showing)
    assert (found["state"], found["status"]) == ("denied", None)
    assert found["error"] == {"class": "RemctlCommandError", "text": "Unknown command", "hint": None, "code": 5}
    assert found["attempts"] == [
        {
            "state": "refused",
            "error": {"class": "RemctlConnectionError", "text": "cannot connect", "hint": "try", "code": None},
            "duration": 0.5,
        },
        {"state": "dns", "error": None, "duration": 1.0},
    ]
    assert showing.err == ""


def test_bytes_that_are_no_text_are_in_base64() -> None:
    found = json.loads(line_of(made("n1", stdout=b"\xff\x00", stderr="é".encode())))
    assert (found["stdout"], found["stderr"]) == ({"base64": "/wA="}, "é")


def test_output_that_was_cut_is_marked() -> None:
    found = json.loads(line_of(made("n1", stdout=b"abc", stdout_size=9)))
    assert (found["truncated"], found["stdout_size"]) == (True, 9)


def test_the_last_line_counts_the_states() -> None:
    showing = Showing(json=True)
    showing.end("n1")
    showing.end("n2", None, state=HostState.LOST, may_be_running=True)
    showing.close(interrupted=True, status=130)
    summary = lines(showing)[-1]
    assert summary.pop("states") == {str(state): int(state in (HostState.OK, HostState.LOST)) for state in HostState}
    assert summary == {"type": "summary", "hosts": 2, "may_be_running": 1, "interrupted": True, "exit_status": 130}


def test_there_is_no_colour_in_json() -> None:
    showing = Showing(json=True, color="always", terminal_out=True)
    showing.end("n1")
    assert b"\x1b" not in showing.out


@given(st.text(min_size=1), st.binary(), st.text())
def test_a_line_is_ascii_without_control_characters(host: str, stdout: bytes, reason: str) -> None:
    line = line_of(made(host, stdout=stdout, error=RemctlConnectionError(reason)))
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert line.endswith(b"\n")
    assert json.loads(line)["host"] == host
