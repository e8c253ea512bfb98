"""What a command line asks for: the table of modes, and where options end."""

from __future__ import annotations

import argparse

import pytest

from remctl.cli import _one, _options
from remctl.cli._words import VALUED_BY_MANY, VALUED_BY_ONE, Mode, split

ONE = Mode.ONE
MANY = Mode.MANY

TABLE = [
    ("", ONE, "", ""),
    ("host command", ONE, "", "host command"),
    ("-p 4444 host command", ONE, "-p 4444", "host command"),
    ("-p4444 host command -p 5", ONE, "-p4444", "host command -p 5"),
    ("-vp 4444 host command", ONE, "-vp 4444", "host command"),
    ("--port 4444 host command", ONE, "--port 4444", "host command"),
    ("--port=4444 host command", ONE, "--port=4444", "host command"),
    ("-b 127.0.0.1 host command -w n1", ONE, "-b 127.0.0.1", "host command -w n1"),
    ("-b ::1 -s w host command", ONE, "-b ::1 -s w", "host command"),
    ("-- host command", ONE, "", "host command"),
    ("-v -- -w command", ONE, "-v", "-w command"),
    ("host -- command", ONE, "", "host -- command"),
    ("host -w n1", ONE, "", "host -w n1"),
    ("host --check", ONE, "", "host --check"),
    ("- command", ONE, "", "- command"),
    ("-p -w host command", ONE, "-p -w", "host command"),
    ("-sw host command", ONE, "-sw", "host command"),
    ("-p", ONE, "-p", ""),
    ("--unknown host command", ONE, "--unknown", "host command"),
    ("-w n[1-3] command", MANY, "-w n[1-3]", "command"),
    ("-wn1 command -v", MANY, "-wn1", "command -v"),
    ("-b -w n1 command", MANY, "-b -w n1", "command"),
    ("-bLw n1 command", MANY, "-bLw n1", "command"),
    ("-w n1 -b command", MANY, "-w n1 -b", "command"),
    ("-f 10 -t 3 -u 5 -x n2 -X g -g all command", MANY, "-f 10 -t 3 -u 5 -x n2 -X g -g all", "command"),
    ("-a command", MANY, "-a", "command"),
    ("--hostfile hosts command", MANY, "--hostfile hosts", "command"),
    ("--hostfile=hosts command", MANY, "--hostfile=hosts", "command"),
    ("--hostfile - command", MANY, "--hostfile -", "command"),
    ("--resume file -w n1 command", MANY, "--resume file -w n1", "command"),
    ("--max-fail 10% -w n1 -- command", MANY, "--max-fail 10% -w n1", "command"),
    ("-w n1 -- -x", MANY, "-w n1", "-x"),
    ("-w", MANY, "-w", ""),
    ("--check host", Mode.CHECK, "--check host", ""),
    ("--check host -p 4444", Mode.CHECK, "--check host -p 4444", ""),
    ("-b 127.0.0.1 --check host", Mode.CHECK, "-b 127.0.0.1 --check host", ""),
    ("--completion bash", Mode.COMPLETION, "--completion bash", ""),
    ("--completion=bash", Mode.COMPLETION, "--completion=bash", ""),
    ("--completion --check", Mode.COMPLETION, "--completion --check", ""),
]


@pytest.mark.parametrize(("line", "mode", "options", "rest"), TABLE)
def test_a_command_line_is_taken_apart(line: str, mode: Mode, options: str, rest: str) -> None:
    assert split(line.split()) == (mode, options.split(), rest.split())


def valued(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions if action.nargs != 0 for name in action.option_strings}


def test_the_table_of_options_is_that_of_the_parser() -> None:
    assert valued(_one.make_parser()) == VALUED_BY_ONE - {"--completion"}


def test_and_that_of_many_hosts() -> None:
    assert valued(_options.make_parser()) == VALUED_BY_MANY - {"--completion"}
