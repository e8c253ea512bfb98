"""Completion: with a real bash, and with the other shells where they are."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from cli.programs import pyremctl
from remctl.cli import _check, _one
from remctl.cli._completion import SHELLS, options_of, script

MARK = "localhost"  # which every machine knows


def many() -> argparse.ArgumentParser:
    """A parser as that of many hosts, small enough to know by heart."""
    parser = argparse.ArgumentParser(prog="pyremctl")
    parser.add_argument("-w", "--nodes", action="append", metavar="NODES", help="these [hosts]: one's own")
    parser.add_argument("-b", action="store_true", help="gather")
    parser.add_argument("-f", type=int, metavar="N", default=64, help="so many at once (%(default)s); no more")
    parser.add_argument("--hostfile", metavar="FILE", help="the hosts in `FILE` and $HOME")
    parser.add_argument("--outdir", metavar="DIR", help="a folder")
    parser.add_argument("--color", choices=("auto", "always", "never"), help="when")
    parser.add_argument("--secret", action="store_true", help=argparse.SUPPRESS)
    return parser


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(shell: str) -> str:
    return script(shell, options_of(_one.make_parser(), _check.make_parser()), options_of(many()))


def bash(line: str, tmp_path: Path) -> list[str]:
    """Return what bash offers at the end of a line; its words are cut at = as bash does it."""
    (tmp_path / "script").write_text(made("bash"))
    words = [part for word in line.split(" ") for part in split(word)]
    program = f"""
        . {shlex.quote(str(tmp_path / "script"))}
        COMP_WORDS=({" ".join(map(shlex.quote, words))})
        COMP_CWORD={len(words) - 1}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        _pyremctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    command = ["bash", "--norc", "--noprofile", "-uc", program]
    environment = {**os.environ, "HOSTFILE": str(tmp_path / "hosts")}
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=20)
    assert (done.stderr, done.returncode) == ("", 0)
    return sorted(filter(None, done.stdout.splitlines()))


def split(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    return [name, "=", value] if equals and value else [name, "="] if equals else [word]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pyremctl --po", ["--port"]),
        ("pyremctl --s", ["--service", "--source", "--stdin"]),
        ("pyremctl --j", ["--json"]),
        ("pyremctl --col", []),
        ("pyremctl --host", ["--hostfile"]),
        ("pyremctl -p 4373 --ex", ["--expand"]),
        ("pyremctl -p4373 --ex", ["--expand"]),
        ("pyremctl --port=4373 --ex", ["--expand"]),
        ("pyremctl -vp 4373 --ex", ["--expand"]),
        ("pyremctl --quiet --ex", ["--expand"]),
        ("pyremctl local", ["localhost"]),
        ("pyremctl -p 4373 local", ["localhost"]),
        ("pyremctl -p local", []),
        ("pyremctl -b 127.0.0.1 local", ["localhost"]),
        ("pyremctl host --po", []),
        ("pyremctl host command local", []),
        ("pyremctl -- --po", []),
        ("pyremctl -w local", ["localhost"]),
        ("pyremctl -w n1 --co", ["--color"]),
        ("pyremctl -w n1 --po", []),
        ("pyremctl -wn1 --co", ["--color"]),
        ("pyremctl --hostfile=f --co", ["--color"]),
        ("pyremctl -w n1 -b --co", ["--color"]),
        ("pyremctl -w n1 --color ", ["always", "auto", "never"]),
        ("pyremctl -w n1 --color=", ["always", "auto", "never"]),
        ("pyremctl -w n1 --color=al", ["always"]),
        ("pyremctl -w n1 --color=always --ou", ["--outdir"]),
        ("pyremctl -w n1 --outdir fol", ["folder"]),
        ("pyremctl -w n1 --hostfile fol", []),
        ("pyremctl -w n1 local", []),
        ("pyremctl -w n1 uptime --co", []),
        ("pyremctl -w n1 --sec", []),
    ],
)
def test_bash_offers_what_can_stand_there(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "foliage").touch()
    assert bash(line, tmp_path) == offered


def test_every_shell_knows_every_option_and_its_syntax_is_good(shell: str, tmp_path: Path) -> None:
    text = made(shell)
    for option in options_of(_one.make_parser(), _check.make_parser(), many()):
        for name in option.names:
            bare = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1]}"
            assert (bare if shell == "fish" else name) in text
    assert "--secret" not in text
    (tmp_path / "script").write_text(text)
    done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, timeout=20)
    assert (done.stderr, done.returncode) == ("", 0)


def test_fish_offers_what_can_stand_there(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(made("fish"))

    def offered(line: str) -> list[str]:
        program = f"source {tmp_path}/script; complete -C {shlex.quote(line)}"
        environment = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(["fish", "-c", program], capture_output=True, text=True, env=environment, timeout=20)
        return sorted(each.partition("\t")[0] for each in done.stdout.splitlines())

    assert offered("pyremctl --po") == ["--port"]
    assert offered("pyremctl -w n1 --co") == ["--color"]
    assert offered("pyremctl -w n1 --color ") == ["always", "auto", "never"]
    assert offered("pyremctl host --po") == []


def test_descriptions_are_the_parsers_own_up_to_a_semicolon() -> None:
    found = {option.names[0]: option for option in options_of(many())}
    assert found["-f"].help == "so many at once (64)"
    assert found["-f"].value == "N"
    assert found["-b"].value is None
    assert found["--color"].choices == ("auto", "always", "never")


def test_a_shell_that_is_not_known_is_an_error() -> None:
    ended = pyremctl("--completion", "csh")
    assert (ended.stdout, ended.status) == (b"", 2)
    assert b"invalid choice: 'csh'" in ended.stderr


def test_the_command_prints_the_script(shell: str) -> None:
    ended = pyremctl("--completion", shell)
    assert (ended.stderr, ended.status) == (b"", 0)
    assert b"--hostfile" in ended.stdout or b"-l hostfile" in ended.stdout
    assert b"completion" in ended.stdout
