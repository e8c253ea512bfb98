"""Lines as they come, what a terminal gets, colour, and failures in words."""

from __future__ import annotations

import errno
import io
import time
import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.showing import ERR, OUT, Showing, made, refused, shown
from remctl.cli._color import wanted
from remctl.cli._display import make_display
from remctl.cli._failures import AT_ONCE, FEW, KINDS, masked
from remctl.cli._shown import Shown
from remctl.cli._text import BROKEN, LONGEST, Lines, lines_of, safe, safe_line
from remctl.exceptions import RemctlAuthenticationError, RemctlCommandError, RemctlError
from remctl.fanout._results import HostState

# Lines


def test_each_line_is_shown_with_its_host_when_it_is_complete() -> None:
    showing = Showing()
    showing.output("n1", b"one\ntw")
    assert showing.out == b"n1: one\n"
    showing.output("n2", b"other\n")
    showing.output("n1", b"o\n")
    assert showing.out == b"n1: one\nn2: other\nn1: two\n"


def test_error_output_goes_to_the_error_stream() -> None:
    showing = Showing()
    showing.output("n1", b"wrong\n", stream=ERR)
    assert (showing.out, showing.err) == (b"", "n1: wrong\n")


def test_a_last_line_without_an_end_gets_one_when_the_host_is_done() -> None:
    showing = Showing()
    showing.output("n1", b"one\ntwo")
    showing.end("n1")
    assert showing.out == b"n1: one\nn1: two\n"


def test_a_last_line_of_a_host_without_a_result_is_shown_at_the_end() -> None:
    showing = Showing()
    showing.output("n1", b"one")
    showing.output("n1", b"wrong", stream=ERR)
    showing.close(interrupted=True)
    assert (showing.out, showing.err) == (b"n1: one\n", "n1: wrong\n")


def test_a_host_named_twice_does_not_end_the_lines_of_the_first() -> None:
    showing = Showing()
    showing.output("n1", b"a")
    showing.end("n1", None, state=HostState.SKIPPED)
    showing.output("n1", b"b\n")
    assert showing.out == b"n1: ab\n"


def test_empty_lines_are_lines() -> None:
    assert shown([("n1", b"\n\na\n", b"", 0)]).out == b"n1: \nn1: \nn1: a\n"


def test_without_labels_lines_stand_alone() -> None:
    assert shown([("n1", b"a\nb", b"", 0)], label=False).out == b"a\nb\n"


def test_what_goes_to_a_file_is_as_the_host_sent_it() -> None:
    raw = bytes(range(11, 256))
    assert shown([("n1", raw, b"", 0)]).out == b"n1: " + raw + b"\n"


def test_a_line_that_does_not_end_is_broken_and_marked() -> None:
    showing = Showing()
    showing.output("n1", b"x" * (LONGEST + 1))
    showing.end("n1")
    assert showing.out == b"n1: " + b"x" * LONGEST + BROKEN + b"\nn1: x\n"


def test_a_line_is_not_broken_within_a_character() -> None:
    first, second = (
        Lines().take("é".encode() * (LONGEST // 2) + b"x\n"),
        Lines().take(b"x" + "é".encode() * (LONGEST // 2) + b"\n"),
    )
    assert [line.removesuffix(BROKEN).decode() for line in first] == ["é" * (LONGEST // 2), "x"]
    assert [line.removesuffix(BROKEN).decode() for line in second] == ["x" + "é" * (LONGEST // 2 - 1), "é"]


def test_ten_megabytes_without_a_line_end_do_not_pile_up() -> None:
    lines = Lines()
    piece = b"x" * 10_000
    tracemalloc.start()
    try:
        count = sum(len(line) for _ in range(1000) for line in lines.take(piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 9_900_000
    assert peak < 1_000_000


def test_single_bytes_are_put_together_quickly() -> None:
    lines = Lines()
    began = time.monotonic()
    found = [line for _ in range(2 * LONGEST) for line in lines.take(b"x")]
    assert [len(line) for line in found] == [LONGEST + len(BROKEN)]
    assert time.monotonic() - began < 10


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([b"\n", b"a\nb", b"x" * LONGEST, b"\xc3\xa9" * 40_000])))
)
def test_lines_are_the_same_wherever_the_pieces_are_split(pieces: list[bytes]) -> None:
    def read(pieces: list[bytes]) -> list[bytes]:
        lines = Lines()
        return [line for piece in pieces for line in lines.take(piece)] + lines.end()

    whole = b"".join(pieces)
    assert read(pieces) == read([whole]) == read([whole[:7], whole[7:]])
    assert b"".join(line.removesuffix(BROKEN) for line in read(pieces)) == whole.replace(b"\n", b"")
    if max(map(len, whole.split(b"\n"))) <= LONGEST:
        assert read(pieces) == lines_of(whole)


# Terminals


def test_a_terminal_gets_control_characters_escaped() -> None:
    showing = shown([("n1", b"\x1b[2J\ta\r\x9b\xc2\x9b\x07\n", b"", 0)], terminal_out=True)
    assert showing.out == b"\x1b[94mn1: \x1b[0m" + rb"\x1b[2J" + b"\ta" + rb"\r\x9b\x9b\x07" + b"\n"


def test_text_in_any_script_stays() -> None:
    text = "größe 日本語　ไทย नमस्ते 👩‍💻 עברית"
    assert safe(text) == text


def test_what_changes_the_direction_of_text_is_escaped() -> None:
    assert safe("a\u202eb\u2066c") == r"a\u202eb\u2066c"


@given(st.one_of(st.text(), st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Co"]))))
def test_escaped_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    escaped = safe(text)
    assert not [char for char in escaped if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char != "\t"]
    assert not [char for char in escaped if unicodedata.bidirectional(char) in _DIRECTIONS]
    assert safe(escaped) == escaped


_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.binary())
def test_escaped_bytes_are_text_without_control_characters(data: bytes) -> None:
    escaped = safe_line(data).decode()
    assert not [char for char in escaped if unicodedata.category(char) in ("Cc", "Cs") and char != "\t"]


def test_host_names_and_texts_of_servers_are_escaped_everywhere() -> None:
    showing = Showing()
    showing.output("n\x1b1", b"a\n")
    error = RemctlCommandError("Unknown\ncommand\x1b[31m")
    showing.end("n\x1b1", None, state=HostState.DENIED, error=error)
    showing.close()
    assert showing.out == rb"n\x1b1: a" + b"\n"
    assert showing.err == "pyremctl: n\\x1b1: denied by the server: Unknown\\ncommand\\x1b[31m\n"


# Colour


@pytest.mark.parametrize(
    ("when", "terminal", "environ", "color"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"CLICOLOR": "0"}, False),
        ("auto", False, {"CLICOLOR": "1"}, False),
        ("auto", False, {"CLICOLOR_FORCE": "1"}, True),
        ("auto", False, {"CLICOLOR_FORCE": "0"}, False),
        ("auto", True, {"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"CLICOLOR_FORCE": "1"}, False),
    ],
)
def test_colour_is_as_the_option_and_the_environment_say(
    when: str, terminal: bool, environ: dict[str, str], color: bool
) -> None:
    assert wanted(when, terminal, environ) is color  # type: ignore[arg-type]


def test_labels_and_error_output_are_in_colour() -> None:
    showing = shown([("n1", b"a\n", b"b\n", 0)], color="always")
    assert showing.out == b"\x1b[94mn1: \x1b[0ma\n"
    assert showing.err == "\x1b[91mn1: \x1b[0m\x1b[91mb\x1b[0m\n"


# Failures in words


def test_exit_codes_are_said_as_clush_says_them() -> None:
    showing = shown([("n1", b"", b"", 1), ("n2", b"", b"", 0)])
    assert showing.err == "pyremctl: n1: exited with exit code 1\n"


def test_hosts_with_the_same_exit_code_are_in_one_line() -> None:
    showing = shown([(f"n{number}", b"", b"", 1) for number in (1, 2, 3)], gather="stdout")
    assert showing.err == "pyremctl: n[1-3] (3): exited with exit code 1\n"


def test_quiet_leaves_the_number_of_hosts_out() -> None:
    showing = shown([(f"n{number}", b"a\n", b"", 1) for number in (1, 2, 3)], gather="stdout", quiet=True)
    assert showing.err == "pyremctl: n[1-3]: exited with exit code 1\n"
    assert b"\nn[1-3]\n" in showing.out


def test_exit_codes_are_not_said_if_nobody_wants_them() -> None:
    assert shown([("n1", b"", b"", 1)], statuses=False).err == ""


def test_a_timeout_is_said_as_clush_says_it_and_that_the_command_may_still_run() -> None:
    showing = Showing(gather="stdout")
    error = RemctlError("the time limit of 1 s passed while waiting for output", sent=True)
    for host in ("n7", "n8"):
        showing.end(host, None, state=HostState.TIMEOUT, error=error, may_be_running=True)
    showing.close()
    assert showing.err == (
        "pyremctl: n[7-8] (2): command timeout\npyremctl: n[7-8] (2): the command may still be running\n"
    )


@pytest.mark.parametrize("state", [state for state in HostState if state not in (HostState.OK, HostState.NONZERO)])
@pytest.mark.parametrize("error", [None, RemctlError("the reason", hint="what to do")])
def test_each_state_has_its_sentence(state: HostState, error: RemctlError | None) -> None:
    showing = Showing()
    showing.end("n1", None, state=state, error=error)
    showing.close()
    (line,) = showing.err.splitlines()
    assert line.startswith("pyremctl: n1: ")
    if error is not None and state not in (HostState.TIMEOUT, HostState.CANCELLED):
        assert line.endswith(": the reason; what to do")


def test_hosts_that_failed_alike_are_in_one_line_without_what_differs() -> None:
    showing = Showing(gather="stdout")
    for number in range(1, 4):
        showing.end(f"n{number}", None, state=HostState.REFUSED, error=refused(f"10.0.0.{number}"))
    showing.end("m", None, state=HostState.AUTH, error=RemctlAuthenticationError("Server host/m@EXAMPLE is unknown"))
    showing.close()
    assert showing.err == (
        "pyremctl: n[1-3] (3): not reached: cannot connect: ADDRESS port 4373: Connection refused; is remctld running\n"
        "pyremctl: m: not run: Server host/m@EXAMPLE is unknown\n"
    )


@pytest.mark.parametrize(
    ("text", "host", "common"),
    [
        ("host/n1@REALM: n1.example.org. n10 xn1", "n1", "host/HOST@REALM: HOST. n10 xn1"),
        ("host/N1 unknown", "n1.", "host/HOST unknown"),
        ("10.0.0.1 port 4373; ::1 port 4373; 1.2.3; 1:2", "n1", "ADDRESS port 4373; ADDRESS port 4373; 1.2.3; 1:2"),
        ("a.b.c.d and 1::2::3", "n1", "a.b.c.d and 1::2::3"),
    ],
)
def test_names_and_addresses_of_one_host_are_masked(text: str, host: str, common: str) -> None:
    assert masked(text, host) == common


def test_the_first_failures_are_said_at_once_and_the_rest_at_the_end() -> None:
    showing = Showing()
    for number in range(FEW + 10):
        showing.end(f"n{number}", None, state=HostState.REFUSED, error=refused(f"10.0.0.{number}"))
    at_once = showing.err.splitlines()
    assert len(at_once) == FEW
    assert "10.0.0.0" in at_once[0]
    showing.close()
    (rest,) = showing.err.splitlines()[FEW:]
    assert rest.startswith(f"pyremctl: n[{FEW}-{FEW + 9}] (10): not reached: cannot connect: ADDRESS")


def test_hosts_that_were_never_begun_are_in_the_summary_alone() -> None:
    showing = Showing()
    showing.end("n1", None, state=HostState.SKIPPED, error=RemctlError("the command was not sent: max_fail"))
    assert showing.err == ""
    showing.close()
    assert showing.err == "pyremctl: n1: skipped: the command was not sent: max_fail\n"


def test_the_host_that_others_were_skipped_for_is_named() -> None:
    showing = Showing()
    for host in ("10.0.0.1", "10.0.0.2"):
        showing.end(host, None, state=HostState.SKIPPED, error=RemctlError("the canary 10.0.0.9 failed: nonzero"))
    showing.close()
    assert showing.err == "pyremctl: 10.0.0.[1-2] (2): skipped: the canary 10.0.0.9 failed: nonzero\n"


def test_a_hundred_thousand_failures_do_not_flood() -> None:
    showing = Showing()
    for number in range(50_000):
        denied = RemctlCommandError(f"number {number}")
        showing.display.result(made(f"a{number}", None, state=HostState.DENIED, error=denied))
        showing.display.result(made(f"b{number}", None, state=HostState.REFUSED, error=refused("10.0.0.1")))
    showing.close()
    lines = showing.err.splitlines()
    assert len(lines) <= AT_ONCE + 2 * (KINDS + 1)
    assert "or the like" in showing.err


def test_an_error_of_our_own_is_said_beside_the_exit_code() -> None:
    showing = Showing()
    showing.end("n1", 3, error=RemctlError("on_output raised ValueError()"))
    showing.close()
    assert showing.err == "pyremctl: n1: exited with exit code 3\npyremctl: n1: on_output raised ValueError()\n"


# Streams that cannot be written


class Broken(io.BytesIO):
    """A pipe that nobody reads."""

    def write(self, data: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_reader_that_has_left_is_a_fault_and_no_error() -> None:
    display = make_display(Shown(), Broken(), io.BytesIO(), {})
    assert display.fault is None
    display.output("n1", ERR, b"a\n")
    assert display.fault is None
    for _ in range(2):
        display.output("n1", OUT, b"a\n")
    display.close(interrupted=False, status=0)
    assert isinstance(display.fault, BrokenPipeError)


def test_nobody_reads_the_error_stream() -> None:
    out = io.BytesIO()
    display = make_display(Shown(), out, Broken(), {})
    display.output("n1", ERR, b"a\n")
    display.output("n1", OUT, b"b\n")
    display.result(made("n1", 1, state=HostState.NONZERO))
    display.close(interrupted=False, status=0)
    assert out.getvalue() == b"n1: b\n"


@pytest.mark.parametrize(
    "options",
    [
        {"diff": True, "ordered": True},
        {"json": True, "gather": "stdout"},
        {"json": True, "ordered": True},
        {"json": True, "diff": True},
    ],
)
def test_ways_of_showing_that_exclude_each_other_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot go with"):
        Shown(**options)  # type: ignore[arg-type]
