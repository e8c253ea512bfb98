"""Hosts that say the same, together; beside clush itself where it has the same."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from ClusterShell.NodeSet import NodeSet
from hypothesis import given
from hypothesis import strategies as st

from cli.showing import ERR, OUT, Showing, made, shown
from remctl.cli import _contents, _gather
from remctl.cli._contents import Contents
from remctl.cli._fold import fold
from remctl.cli._gather import GatheredLines
from remctl.cli._screen import Screen
from remctl.cli._shown import Shown
from remctl.exceptions import RemctlError
from remctl.fanout._results import HostState

# Groups


def test_hosts_with_the_same_output_are_shown_once() -> None:
    showing = shown([("n1", b"a\n", b"", 0), ("n3", b"b\n", b"", 0), ("n2", b"a\n", b"", 0)], gather="stdout")
    assert showing.out == (
        b"---------------\nn[1-2] (2)\n---------------\na\n---------------\nn3\n---------------\nb\n"
    )


def test_bytes_decide_what_is_the_same() -> None:
    outputs = (b"a", b"a\n", b"a\r\n", b"\xe9")
    showing = shown([(f"n{number}", output, b"", 0) for number, output in enumerate(outputs)], gather="stdout")
    assert showing.out.count(b"---------------\nn") == 4


def test_the_exit_status_decides_too_and_comes_first() -> None:
    results = [("n1", b"a\n", b"", 1), ("n2", b"a\n", b"", 1), ("n3", b"a\n", b"", 0)]
    assert re.findall(rb"^n.*$", shown(results, gather="stdout").out, re.M) == [b"n3", b"n[1-2] (2)"]


def test_error_output_is_shown_as_it_comes_and_does_not_part_hosts() -> None:
    showing = Showing(gather="stdout")
    showing.output("n1", b"wrong\n", stream=ERR)
    assert showing.err == "n1: wrong\n"
    showing.end("n1", stdout=b"a\n", stderr=b"wrong\n")
    showing.ran("n2", b"a\n")
    showing.close()
    assert b"n[1-2] (2)" in showing.out


def test_error_output_is_gathered_on_demand() -> None:
    showing = shown([("n1", b"a\n", b"x\n", 0), ("n2", b"a\n", b"x\n", 0), ("n3", b"a\n", b"", 0)], gather="both")
    assert showing.out == (
        b"---------------\nn[1-2] (2)\n---------------\na\nx\n---------------\nn3\n---------------\na\n"
    )
    assert showing.err == ""


def test_lines_are_shown_as_they_come_and_gathered_besides() -> None:
    showing = Showing(gather="stdout", verbose=True)
    showing.output("n1", b"a\nb")
    assert showing.out == b"n1: a\n"
    showing.end("n1", stdout=b"a\nb")
    showing.close()
    assert showing.out == b"n1: a\nn1: b\n---------------\nn1\n---------------\na\nb\n"


def test_hosts_that_said_nothing_are_in_no_group() -> None:
    assert shown([("n1", b"", b"", 0)], gather="stdout").out == b""
    assert shown([("n1", b"", b"", 0)], gather="both").out == b""


def test_error_output_that_is_shown_whole_is_not_said_to_be_cut() -> None:
    showing = Showing(gather="stdout")
    showing.output("n1", b"wrong\n", stream=ERR)
    showing.end("n1", stderr=b"wr", stderr_size=6)
    showing.close()
    assert showing.err == "n1: wrong\n"


def test_what_came_of_a_host_before_it_failed_is_shown() -> None:
    showing = Showing(gather="stdout")
    showing.end("n1", None, state=HostState.LOST, stdout=b"half", error=RemctlError("lost"), may_be_running=True)
    showing.close(interrupted=True)
    assert showing.out == b"---------------\nn1\n---------------\nhalf\n"


def test_output_that_was_cut_is_said_to_be() -> None:
    showing = Showing(gather="both")
    for host, size in (("n1", 9), ("n2", 8)):
        showing.end(host, stdout=b"abc", stdout_size=size, stderr=b"d", stderr_size=2)
    showing.close()
    assert showing.err == (
        "pyremctl: n[1-2] (2): only the first 3 bytes of the output are shown\n"
        "pyremctl: n[1-2] (2): only the first 1 bytes of the error output are shown\n"
    )
    assert showing.out.count(b"abc") == 2  # nobody knows whether the rest is the same


def test_a_terminal_gets_groups_escaped_and_coloured() -> None:
    showing = shown([("n1", b"a\x1b[2J\n", b"b\x07", 0)], gather="both", terminal_out=True)
    line = b"-" * 15
    assert showing.out == (
        b"\x1b[94m" + line + b"\nn1\n" + line + b"\x1b[0m\na" + rb"\x1b[2J" + b"\n\x1b[91mb" + rb"\x07" + b"\x1b[0m\n"
    )


def test_without_labels_groups_have_no_header() -> None:
    assert shown([("n1", b"a\n", b"", 0), ("n2", b"b\n", b"", 0)], gather="stdout", label=False).out == b"a\nb\n"


_TEXTS = st.sampled_from([b"", b"a", b"a\n", b"b\n", b"\xff", b"a\nb\n"])


@given(st.lists(st.tuples(_TEXTS, _TEXTS, st.integers(0, 2))), st.booleans())
def test_groups_are_those_that_a_plain_dictionary_finds(results: list[tuple[bytes, bytes, int]], both: bool) -> None:
    expected: dict[tuple[int, bytes, bytes | None], list[int]] = defaultdict(list)
    for number, (stdout, stderr, status) in enumerate(results):
        if stdout or (both and stderr):
            expected[(status, stdout, stderr if both else None)].append(number)
    order = sorted(expected.items(), key=lambda each: (each[0][0], -len(each[1]), each[1][0]))
    text = b""
    for (_, out, err), numbers in order:
        count = f" ({len(numbers)})" if len(numbers) > 1 else ""
        text += f"{'-' * 15}\n{NodeSet.fromlist([f'n{number}' for number in numbers])}{count}\n{'-' * 15}\n".encode()
        for part in (out, err or b""):
            text += part + (b"" if part.endswith(b"\n") or not part else b"\n")
    hosts = [(f"n{number}", *each) for number, each in enumerate(results)]
    assert shown(hosts, gather="both" if both else "stdout").out == text


# Differences


def test_groups_are_compared_with_the_biggest_one() -> None:
    results = [("n1", b"x\nb\n", b"", 0), ("n2", b"a\nb\n", b"", 0), ("n3", b"a\nb\n", b"", 0)]
    assert shown(results, diff=True).out == b"--- n[2-3] (2)\n+++ n1\n@@ -1,2 +1,2 @@\n-a\n+x\n b\n"


def test_a_difference_in_the_last_line_end_is_one() -> None:
    results = [("n1", b"a\n", b"", 0), ("n2", b"a\n", b"", 0), ("n3", b"a", b"", 0)]
    assert shown(results, diff=True).out == (b"--- n[1-2] (2)\n+++ n3\n@@ -1 +1 @@\n-a\n+a\n\\ No newline at the end\n")


def test_hosts_that_said_nothing_are_compared_too() -> None:
    results = [("n1", b"a\n", b"", 0), ("n2", b"a\n", b"", 0), ("n3", b"", b"", 0)]
    assert shown(results, diff=True).out == b"--- n[1-2] (2)\n+++ n3\n@@ -1 +0,0 @@\n-a\n"


def test_hosts_that_never_ran_it_are_not_compared() -> None:
    showing = Showing(diff=True)
    showing.ran("n1", b"a\n")
    showing.end("n2", None, state=HostState.SKIPPED)
    showing.close()
    assert showing.out == b""


def test_error_output_is_compared_on_demand() -> None:
    results = [("n1", b"a\n", b"x\n", 0), ("n2", b"a\n", b"y\n", 0)]
    assert shown(results, diff=True, gather="both").out.endswith(b" a\n-x\n+y\n")


def test_where_all_say_the_same_there_is_no_difference() -> None:
    assert shown([("n1", b"a\n", b"", 0), ("n2", b"a\n", b"", 1)], diff=True).out == b""
    assert shown([], diff=True).out == b""


def test_differences_are_in_colour_and_escaped() -> None:
    showing = shown([("n1", b"a\n", b"", 0), ("n2", b"\x1b\n", b"", 0)], diff=True, terminal_out=True)
    assert showing.out == (
        b"\x1b[1m--- n1\x1b[0m\n\x1b[1m+++ n2\x1b[0m\n\x1b[96m@@ -1 +1 @@\x1b[0m\n"
        b"\x1b[31m-a\x1b[0m\n\x1b[92m+" + rb"\x1b" + b"\x1b[0m\n"
    )


def test_what_is_too_long_to_be_compared_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gather, "COMPARED", 2)
    showing = shown([("n1", b"1\n2\n3\n", b"", 0), ("n2", b"1\n2\n4\n", b"", 0)], diff=True)
    assert showing.out == b"---------------\nn2\n---------------\n1\n2\n4\n"
    assert showing.err == "pyremctl: n2: more than 2 lines are not compared: the output is shown whole\n"


# Host after host


def test_hosts_are_shown_in_their_order_as_soon_as_it_is_their_turn() -> None:
    showing = Showing(ordered=True)
    showing.display.result(made("n2", index=1, stdout=b"b\n", stderr=b"y\n"))
    assert showing.out == b""
    showing.display.result(made("n1", index=0, stdout=b"a", stderr=b"x"))
    assert (showing.out, showing.err) == (b"n1: a\nn2: b\n", "n1: x\nn2: y\n")


def test_hosts_behind_one_without_a_result_are_shown_at_the_end() -> None:
    showing = Showing(ordered=True)
    showing.output("n1", b"never mind\n")
    for index in (3, 1):
        showing.display.result(made(f"n{index}", index=index, stdout=b"a\n", stdout_size=9))
    showing.close(interrupted=True)
    assert showing.out == b"n1: a\nn3: a\n"
    assert showing.err == "pyremctl: n[1,3] (2): only the first 2 bytes of the output are shown\n"


# Line by line


class ByLine:
    """Lines that wait for each other, and a clock that stands."""

    def __init__(self, *, both: bool = False) -> None:
        self.now = 0.0
        self._out, self.err = io.BytesIO(), io.BytesIO()
        screen = Screen(Shown(), self._out, self.err, {})
        self.lines = GatheredLines(screen, both=both, clock=lambda: self.now)

    @property
    def out(self) -> bytes:
        return self._out.getvalue()


def test_equal_lines_at_the_same_place_are_shown_together() -> None:
    shows = ByLine()
    for host, text in (("n1", b"a\nb\n"), ("n2", b"a\nc\n"), ("n3", b"a\nb")):
        shows.lines.output(host, OUT, text)
    shows.lines.result(made("n3"))
    shows.lines.close(interrupted=False, status=0)
    assert shows.out == b"n[1-3]: a\nn[1,3]: b\nn2: c\n"


def test_no_line_waits_longer_than_a_second() -> None:
    shows = ByLine()
    shows.lines.output("n1", OUT, b"a\n")
    shows.lines.output("n2", OUT, b"a\n")
    shows.lines.tick()
    assert shows.out == b""
    shows.now = _gather.WAIT
    shows.lines.tick()
    assert shows.out == b"n[1-2]: a\n"
    shows.lines.output("n3", OUT, b"a\n")
    shows.lines.close(interrupted=True, status=None)
    assert shows.out == b"n[1-2]: a\nn3: a\n"


def test_lines_do_not_pile_up_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gather, "WAITING", 10)
    shows = ByLine()
    shows.lines.output("n1", OUT, b"a\n" * 4)
    assert shows.out == b""
    shows.lines.output("n2", OUT, b"a\n")
    assert shows.out == b"n[1-2]: a\n" + b"n1: a\n" * 3


def test_lines_of_error_output_are_shown_at_once_or_together() -> None:
    alone, together = ByLine(), ByLine(both=True)
    for shows in (alone, together):
        shows.lines.output("n1", ERR, b"x\ny")
        shows.lines.output("n2", ERR, b"x\n")
        shows.lines.close(interrupted=False, status=0)
    assert (alone.out, alone.err.getvalue()) == (b"", b"n1: x\nn2: x\nn1: y\n")
    assert (together.out, together.err.getvalue()) == (b"n[1-2]: x\nn1: y\n", b"")


def test_a_host_named_twice_does_not_end_the_lines_of_the_first() -> None:
    shows = ByLine()
    shows.lines.output("n1", OUT, b"a")
    shows.lines.result(made("n1", None, state=HostState.SKIPPED))
    shows.lines.output("n1", OUT, b"b\n")
    shows.lines.close(interrupted=False, status=0)
    assert shows.out == b"n1: ab\n"


def test_the_display_shows_line_by_line() -> None:
    showing = Showing(gather="stdout", ordered=True)
    showing.ran("n1", b"a")
    showing.ran("n2", b"a")
    showing.display.tick()
    showing.close()
    assert showing.out == b"n[1-2]: a\n"


# Node sets


@pytest.mark.parametrize(
    ("hosts", "folded"),
    [
        (["n1"], "n1"),
        (["n1", "n3", "n2", "n1"], "n[1-3]"),
        (["n01", "n1", "n2"], "n[1-2,01]"),
        (["b", "a", "n1.example.org", "n2.example.org"], "a,b,n[1-2].example.org"),
        (["r1-n1", "r1-n2", "r2-n1", "r2-n2"], "r[1-2]-n[1-2]"),
        (["10.0.0.1", "10.0.0.2", "::1"], "10.0.0.[1-2],::1"),
        (["n1", "a b", "@x", "é", "", "n[3-4]"], "n1,a b,@x,é,,n[3-4]"),
        (["a\x1b", "@"], "a\\x1b,@"),
    ],
)
def test_hosts_are_folded_as_clush_folds_them(hosts: list[str], folded: str) -> None:
    assert fold(hosts) == folded


_NAMES = st.from_regex(r"[a-z]{1,2}[0-9]{0,2}(-[0-9]{1,2})?(\.[a-z])?", fullmatch=True)


@given(st.lists(_NAMES, min_size=1, max_size=120))
def test_folding_loses_no_host_and_invents_none(hosts: list[str]) -> None:
    assert NodeSet(fold(hosts)) == NodeSet.fromlist(hosts)


@pytest.mark.parametrize("form", ["n{0}", "n{0:06}.example.org", "{1:08x}", "10.{2}.{3}.{4}", "{5}"])
def test_a_hundred_thousand_names_are_folded_quickly(form: str) -> None:
    rng = random.Random(1)
    hosts = [
        form.format(
            number,
            rng.getrandbits(32),
            *(rng.randrange(256) for _ in range(3)),
            "".join(rng.choices("abcdefghij-", k=12)),
        )
        for number in range(100_000)
    ]
    began = time.process_time()
    fold(hosts)
    assert time.process_time() - began < 5  # about one; NodeSet alone may need hours


# What is kept


def test_what_does_not_fit_into_memory_goes_into_a_file() -> None:
    contents = Contents(memory=10)
    texts = [bytes([letter]) * 6 for letter in b"abcd"]
    kept = [contents.add(text, len(text)) for text in texts]
    assert contents.add(texts[2], 6) == kept[2]
    assert contents.add(b"", 0) == _contents.NOTHING
    assert contents.add(texts[0], 99) != kept[0]
    assert [contents.get(each) for each in kept] == texts
    contents.close()


def test_a_full_disk_costs_memory_and_no_output(caplog: pytest.LogCaptureFixture) -> None:
    contents = Contents(memory=0)
    kept = contents.add(b"one", 3)
    assert contents._file is not None
    os.dup2(os.open("/dev/full", os.O_RDWR), contents._file.fileno())
    text = b"x" * 100_000
    again = contents.add(text, len(text))
    assert contents.get(again) == text
    assert "No space left on device" in caplog.text
    assert kept != again
    contents.close()


def test_a_hundred_thousand_hosts_with_three_texts_are_kept_three_times() -> None:
    contents = Contents()
    for number in range(100_000):
        text = b"%d" % (number % 3) * 1000
        contents.add(text, len(text))
    assert len(contents._kept) == 3 + 1


# Beside clush

CLUSH = Path(sys.executable).with_name("clush")

SCRIPTS = [
    "printf a",
    'echo out; echo "%rank"',
    "echo a; [ %rank -lt 2 ] || exit 3",
    "[ %rank = 2 ] || echo b; [ %rank != 1 ] || exit 1",
    "true",
    "printf 'a\\n\\nb\\n'; [ %rank = 0 ] && echo more; true",
]


FLAGS: dict[str, dict[str, Any]] = {
    "-b": {"gather": "stdout"},
    "-bq": {"gather": "stdout", "quiet": True},
    "-bL": {"gather": "stdout", "ordered": True},
    "--diff": {"diff": True},
}


def beside(script: str, flags: str, options: dict[str, Any]) -> tuple[Showing, bytes, str]:
    """Show a script on five hosts, and return that and what clush shows of it."""
    command = [str(CLUSH), "-R", "exec", "-w", "n[1-5]", flags, script]
    clush = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    scripts = [script.replace("%rank", str(rank)) for rank in range(5)]
    ran = [subprocess.run(["/bin/sh", "-c", each], capture_output=True) for each in scripts]
    results = [(f"n{rank + 1}", each.stdout, each.stderr, each.returncode) for rank, each in enumerate(ran)]
    return shown(results, **options), clush.stdout, clush.stderr.decode().replace("clush: ", "pyremctl: ")


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_groups_and_headers_are_those_of_clush(script: str, flags: str) -> None:
    ours, out, err = beside(script, flags, FLAGS[flags])
    assert ours.out == out
    assert sorted(ours.err.splitlines()) == sorted(err.splitlines())


@pytest.mark.parametrize("script", SCRIPTS)
def test_lines_of_host_after_host_are_those_of_clush(script: str) -> None:
    ours, out, err = beside(script, "-L", {"ordered": True})
    assert ours.out.splitlines() == sorted(ours.out.splitlines(), key=lambda line: line[:2])
    assert sorted(ours.out.splitlines()) == sorted(out.splitlines())
    assert sorted(ours.err.splitlines()) == sorted(err.splitlines())
