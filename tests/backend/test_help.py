"""Help: the list, line for line as Net::Remctl::Backend lays it out, and the page of one command."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest

from backend.calling import backend_of
from remctl.backend import SECRET, STDIN, Backend, Context, Match, Option, Range
from remctl.backend._group import Group

PERL = Path(__file__).with_name("table.pl")


class Table(TypedDict):
    """What both sides make a backend from."""

    command: str | None
    banner: str
    commands: dict[str, Any]


def run() -> None: ...


def fill(group: Group, commands: dict[str, Any]) -> None:
    for name, entry in commands.items():
        if "nested" in entry:
            inner = group.group(name)
            fill(inner, entry["nested"])
        else:
            text = {"syntax": entry.get("syntax", ""), "summary": entry.get("summary", "")}
            group.command(name, hidden="syntax" not in entry, **text)(run)


def ours(table: Table) -> str:
    backend = Backend(table["command"], banner=table["banner"])
    fill(backend, table["commands"])
    return backend.help()


def theirs(tables: list[Table]) -> list[str]:
    """What Perl makes of the tables, all in one process."""
    done = subprocess.run(["perl", PERL], input=json.dumps(tables), capture_output=True, text=True, check=True)
    assert not done.stderr
    texts: list[str] = json.loads(done.stdout)
    return texts


def commands(*lines: tuple[str, str, str]) -> dict[str, Any]:
    return {name: {"syntax": syntax, "summary": summary} for name, syntax, summary in lines}


LONG = "with a summary that goes on and on, until it does not fit into one line of eighty columns, nor into two"

TABLES: dict[str, Table] = {
    "one": {"command": None, "banner": "", "commands": commands(("one", "", "A command"))},
    "prefix": {"command": "test", "banner": "", "commands": commands(("b", "<x>", "B"), ("a", "", "A"))},
    "banner": {"command": "test", "banner": "Test commands:", "commands": commands(("b", "<x>", "B"), ("a", "", "A"))},
    "banner with newline": {"command": None, "banner": "Test:\n", "commands": commands(("a", "", "A"))},
    "no summaries": {"command": "test", "banner": "", "commands": commands(("b", "<x>", ""), ("a", "", ""))},
    "some summaries": {"command": "test", "banner": "", "commands": commands(("b", "<x>", ""), ("a", "", "A"))},
    "wrapped": {"command": "test", "banner": "Test:", "commands": commands(("a", "<x>", LONG), ("b", "", LONG))},
    "one long": {
        "command": "test",
        "banner": "",
        "commands": commands(("a", "<x>" + " <x>" * 19, LONG), ("b", "<y>", "B"), ("c", "<z>" + " <z>" * 11, "C")),
    },
    "all long": {
        "command": "test",
        "banner": "",
        "commands": commands(("a", "<x>" + " <x>" * 19, LONG), ("b", "y" * 60, "B")),
    },
    "48 columns": {"command": None, "banner": "", "commands": commands(("a", "y" * 46, LONG), ("b", "y" * 47, "B"))},
    "48 columns with all": {
        "command": "test",
        "banner": "T",
        "commands": commands(("a", "y" * 39, "A"), ("b", "y" * 40, LONG)),
    },
    "hidden": {
        "command": "test",
        "banner": "",
        "commands": {"secret": {"summary": "Nobody sees this"}, **commands(("a", "<x>", "A"))},
    },
    "long and hidden": {
        "command": None,
        "banner": "",
        "commands": {"quite-a-long-name-for-it": {"summary": "Hidden"}, **commands(("a", "<x>", "A"))},
    },
    "nested": {
        "command": "test",
        "banner": "Test:",
        "commands": {
            "user": {"nested": {**commands(("add", "<n>", LONG)), "sub": {"nested": commands(("x", "", "X"))}}},
            "user-list": {"syntax": "", "summary": "Behind the group"},
            "a": {"syntax": "", "summary": ""},
        },
    },
    "hyphens and dashes": {
        "command": "test",
        "banner": "",
        "commands": commands(
            ("a", "<x>", "well-known-words-with-hyphens " * 5 + "and"), ("b", "", "this - that -- " * 9 + "z")
        ),
    },
    "at the edge": {
        "command": None,
        "banner": "",
        "commands": {f"a{n}": {"syntax": "", "summary": "x " * 34 + "y" * (n + 1)} for n in range(9)},
    },
}


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return dict(zip(TABLES, theirs(list(TABLES.values())), strict=True))


@pytest.mark.parametrize("name", TABLES)
def test_the_list_is_laid_out_as_in_perl(name: str, expected: dict[str, str]) -> None:
    assert ours(TABLES[name]) == expected[name]


def test_two_blanks_are_kept_but_not_at_the_ends_of_lines() -> None:
    summary = "One sentence.  Another one.  " * 4 + "End"
    table = Table(command=None, banner="", commands=commands(("a", "", summary), ("b", "", f"{'x' * 75}  y z")))
    perl = theirs([table])[0]
    assert ours(table).splitlines() == [line.rstrip() for line in perl.splitlines()]


def generated(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(chance.randint(1, 5)):
        name = chance.choice("abcdefgh") * chance.randint(1, 12) + str(number)
        if depth < 3 and chance.random() < 0.2:
            found[name] = {"nested": generated(chance, depth + 1)}
            continue
        words = [chance.choice("xyz") * chance.randint(1, 12) for _ in range(chance.randint(0, 25))]
        found[name] = {"summary": " ".join(words)}
        if chance.random() < 0.9:
            found[name]["syntax"] = " ".join("<arg>" for _ in range(chance.choice([0, 1, 2, 3, 5, 7, 8, 9, 12])))
    return found


def test_generated_lists_are_laid_out_as_in_perl() -> None:
    chance = random.Random(4373)
    tables: list[Table] = [
        {
            "command": chance.choice([None, "c", "command"]),
            "banner": chance.choice(["", "B:"]),
            "commands": {**generated(chance), **commands(("zzz", "", "Never hidden"))},
        }
        for _ in range(200)
    ]
    for table, text in zip(tables, theirs(tables), strict=True):
        assert ours(table) == text, table


def test_a_list_of_nothing_says_so() -> None:
    backend = Backend("test", banner="Commands:")
    assert backend.help() == "There is no command here that you may run.\n"
    backend.command("cmd", hidden=True)(run)
    assert backend.help() == "There is no command here that you may run.\n"


def test_another_width_is_filled_to_its_last_but_one_column() -> None:
    backend = Backend("test")
    backend.command("a", summary=LONG)(run)
    for width in (40, 60, 100, 200):
        lines = backend.help(width=width).splitlines()
        assert max(map(len, lines)) < width
        assert " ".join(" ".join(lines).split()) == f"test a {LONG}"


def test_a_terminal_of_no_width_gets_some_columns_all_the_same() -> None:
    backend = Backend("test")
    backend.command("a", summary="several words of a summary")(run)
    assert backend.help(width=1).split() == ["test", "a", "several", "words", "of", "a", "summary"]


# Syntax and summary of a function


def every(
    name: str,
    count: int = 1,
    *rest: str,
    owner: str,
    limit: int = 0,
    quick: Annotated[bool, Option("-q")] = False,
    check: bool = True,
    skip: list[str] = (),  # type: ignore[assignment]
    context: Context,
) -> None:
    """Do everything.

    And more.
    """


def test_the_signature_says_how_a_command_is_typed() -> None:
    assert backend_of(every).help() == (
        "test cmd --owner <owner> [--limit <limit>] [--quick] [--no-check] [--skip <skip> ...] <name> [<count>]"
        " [<rest> ...]\n" + " " * 40 + "Do everything\n"
    )


def fixed_stdin(data: Annotated[bytes, STDIN], name: str) -> None: ...
def last_stdin(*names: str, data: Annotated[bytes, STDIN]) -> None: ...
def optional_before(name: str = "", *, data: Annotated[bytes, STDIN]) -> None: ...


def test_standard_input_stands_where_it_is_typed() -> None:
    for function, syntax in (
        (fixed_stdin, "<data> <name>"),
        (last_stdin, "[<names> ...] <data>"),
        (optional_before, "[<name>] <data>"),
    ):
        assert backend_of(function).help() == f"test cmd {syntax}\n"


def test_syntax_and_summary_may_be_given() -> None:
    backend = Backend("test")
    backend.command("a", syntax="USER", summary="Something else.")(every)
    backend.command("b", syntax="", summary="")(every)
    assert backend.help() == "test a USER  Something else.\ntest b\n"


# The page of a command


def is_free(name: str) -> bool:
    return name != "root"


def create(
    name: Annotated[str, "the user's name", Match("[a-z]+"), is_free],
    kind: Annotated[Literal["staff", "guest"], "which kind"] = "guest",
    *roles: Annotated[str, "what it may do"],
    uid: Annotated[int, Range(1000)] = 1000,
    days: int = 0,
    note: str = "",
    notify: Annotated[bool, "write a mail", Option("-n")] = False,
    check: bool = True,
    group: Annotated[list[str], Option("-g")],
    token: Annotated[str, SECRET] = "hunter2",
) -> None:
    """Create a user.

    The name must be
    free.

      kept as
      it is
    """


PAGE = """\
test cmd --group <group> ... [--uid <uid>] [--days <days>] NAME

Create a user.

The name must be free.

  kept as
  it is

Arguments:
  <name>            the user's name; matching [a-z]+
  <kind>            which kind; one of staff, guest; default: guest
  <roles>           what it may do; any number of them

Options, which stand before the arguments:
  --uid <uid>       1000 or more; default: 1000
  --days <days>     default: 0
  --note <note>
  --notify, -n, --no-notify
                    write a mail
  --check, --no-check
                    default: true
  --group <group>, -g <group>
                    may be given several times; has to be given
  --token <token>
"""


def test_the_page_of_a_command_says_all_about_it() -> None:
    backend = Backend("test")
    backend.command("cmd", syntax="--group <group> ... [--uid <uid>] [--days <days>] NAME")(create)
    assert backend.call(["test", "help", "cmd"]).stdout.decode() == PAGE
    assert backend.help(["test", "cmd"]) == PAGE


def test_a_function_that_says_nothing_has_a_short_page() -> None:
    backend = Backend("test")
    backend.command("cmd")(run)
    backend.command("other", summary="Run it")(run)
    assert backend.help(["test", "cmd"]) == "test cmd\n"
    assert backend.help(["test", "other"]) == "test other\n\nRun it\n"
