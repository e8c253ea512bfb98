"""Many hosts: from the command line to what is shown, and to the exit status."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import ScriptedServer
from fanout.conftest import everywhere, on_loopback
from serving import ServerThread

from cli.programs import PYREMCTL, pyremctl
from cli.showing import made
from cli.site import Deeds, Site
from remctl.cli import _options
from remctl.cli._tally import Tally
from remctl.cli._words import VALUED_BY_MANY
from remctl.fanout import HostState
from remctl.testing import Sandbox

__all__ = ["everywhere"]

HOSTS = "127.0.1.[1-5]"


@pytest.fixture
def site(box: Sandbox, everywhere: Callable[..., ServerThread]) -> Site:
    """Give a server everywhere, and `pyremctl` for it."""
    deeds = Deeds()
    return Site(box, everywhere(deeds), deeds)


def lines(data: bytes) -> list[bytes]:
    return sorted(data.splitlines())


class TestRun:
    def test_every_host_runs_the_command_once(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "say", "hello")
        assert lines(ended.stdout) == [b"127.0.1.%d: hello" % number for number in range(1, 6)]
        assert (ended.stderr, ended.status) == (b"", 0)
        assert site.deeds.ran == {"say": 5}

    def test_the_command_has_words_that_look_like_options(self, site: Site) -> None:
        ended = site.run("-w", "127.0.0.9", "-N", "say", "-w")
        assert (ended.stdout, ended.status) == (b"-w\n", 0)
        assert site.run("-w", "127.0.0.9", "--", "say", "--help").stdout == b"127.0.0.9: --help\n"

    def test_streams_go_where_they_belong(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "complain", "oh")
        assert ended.stdout == b""
        assert lines(ended.stderr) == [b"127.0.1.%d: oh" % number for number in range(1, 6)]

    def test_hosts_with_the_same_output_come_together(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "-b", "say", "hello")
        assert b"127.0.1.[1-5] (5)" in ended.stdout
        assert ended.stdout.count(b"hello") == 1

    def test_hosts_in_order(self, site: Site) -> None:
        ended = site.run("-w", "127.0.1.[9-12]", "-L", "say", "x")
        assert ended.stdout == b"".join(b"127.0.1.%d: x\n" % number for number in range(9, 13))

    def test_a_port_of_its_own_is_in_the_name(self, site: Site, box: Sandbox) -> None:
        port = site.server.port
        hosts = f"127.0.0.1:{port},127.0.0.1:1"
        ended = pyremctl("-w", hosts, "-s", box.principal, "--json", "say", "x")
        assert ended.status == 3
        found = [json.loads(line) for line in ended.stdout.splitlines()]
        assert {each["host"]: each["state"] for each in found if each["type"] == "host"} == {
            f"127.0.0.1:{port}": "ok",
            "127.0.0.1:1": "refused",
        }
        ended = pyremctl("-w", hosts, "-s", box.principal, "say", "x")
        assert ended.stdout == b"127.0.0.1:%d: x\n" % port

    def test_hosts_from_standard_input(self, site: Site) -> None:
        ended = site.run("--hostfile", "-", "say", "x", stdin=b"127.0.1.1\n127.0.1.[2-3] # and more\n")
        assert len(ended.stdout.splitlines()) == 3

    def test_an_argument_from_standard_input(self, site: Site) -> None:
        assert site.run("-w", "127.0.0.9", "--stdin", "say", stdin=b"typed").stdout == b"127.0.0.9: typed\n"
        ended = site.run("--hostfile", "-", "--stdin", "say", stdin=b"127.0.0.9")
        assert (ended.status, ended.stderr) == (
            2,
            b"pyremctl: standard input cannot be both hosts and an argument\n",
        )

    def test_a_limit_of_what_is_kept(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "-b", "--max-output", "3", "say", "xxxxx")
        assert b"\nxxx\n" in ended.stdout
        assert b"(5): only the first 3 bytes of the output are shown" in ended.stderr
        ended = site.run("-w", HOSTS, "--json", "--max-output=1k", "say", "x" * 3000)
        host = json.loads(ended.stdout.splitlines()[0])
        assert (len(host["stdout"]), host["stdout_size"], host["truncated"]) == (1024, 3001, True)
        ended = site.run("-w", "127.0.1.1", "--max-output", "3", "say", "x" * 3000)
        assert ended.stdout == b"127.0.1.1: " + b"x" * 3000 + b"\n"

    def test_files_of_output(self, site: Site, tmp_path: Path) -> None:
        ended = site.run("-w", HOSTS, "--outdir", str(tmp_path / "out"), "say", "x")
        assert ended.status == 0
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
            f"127.0.1.{number}": b"x\n" for number in range(1, 6)
        }

    def test_a_batch_and_a_canary_and_a_rate(self, site: Site) -> None:
        words = ["--canary", "1", "--batch", "2", "--pause", "0.01", "--starts", "1000", "-f", "2", "--deadline", "20"]
        assert site.run("-w", HOSTS, *words, "say", "x").status == 0

    def test_a_source_address(self, site: Site) -> None:
        assert site.run("-w", HOSTS, "--source", "127.0.0.77", "say", "x").status == 0
        assert site.run("-w", HOSTS, "--source", "192.0.2.1", "say", "x").status == 3


class TestExitStatus:
    @pytest.mark.parametrize(
        ("hosts", "plain", "largest"),
        [
            ([], 0, 0),
            (["ok"], 0, 0),
            (["ok", 3, 7], 1, 7),
            ([255], 1, 255),
            ([200, "dns"], 3, 255),
            (["ok", "refused"], 3, 255),
            (["connect-timeout"], 3, 255),
            (["auth"], 3, 255),
            (["denied"], 3, 255),
            (["protocol"], 3, 255),
            (["late"], 3, 255),
            (["cancelled"], 3, 255),
            (["refused", "lost-after-send"], 4, 255),
            ([9, "timeout"], 4, 255),
            (["cancelled after it was sent"], 4, 255),
            (["timeout", "max-fail"], 5, 255),
            (["ok", "canary"], 5, 255),
        ],
    )
    def test_is_the_highest_that_holds(self, hosts: list[str | int], plain: int, largest: int) -> None:
        tally = Tally()
        for host in hosts:
            tally.result(result_of(host))
        stopped = STOPPED.get(hosts[-1]) if hosts else None
        assert tally.exit_status(largest=False, signal=None, stopped=stopped) == plain
        assert tally.exit_status(largest=True, signal=None, stopped=stopped) == largest
        assert tally.exit_status(largest=False, signal=130, stopped=stopped) == 130
        assert tally.exit_status(largest=True, signal=143, stopped=stopped) == 143

    def test_of_a_rule_that_kept_no_host_from_its_turn_is_that_of_the_hosts(self) -> None:
        tally = Tally()
        tally.result(result_of(1))
        assert tally.exit_status(largest=False, signal=None, stopped="max_fail") == 1

    def test_is_what_the_page_and_the_help_say(self) -> None:
        page = (Path(__file__).parents[2] / "docs/pyremctl.md").read_text().partition("## Many hosts")[2]
        table = page.partition("### Exit status")[2].partition("### Ctrl-C")[0]
        rows = dict(re.findall(r"^\| (\d+)[\d, ]* \| (.*) \|$", table, re.M))
        assert list(rows) == re.findall(r"^  (\d+) ", str(_options.make_parser().epilog), re.M)
        named = {state: int(code) for code, row in rows.items() for state in HostState if f"`{state}`" in row}
        assert named.keys() == set(HostState) - {HostState.OK, HostState.NONZERO}
        for state, code in named.items():
            tally = Tally()
            tally.result(result_of("cancelled after it was sent" if state is HostState.CANCELLED else state))
            assert tally.exit_status(largest=False, signal=None, stopped=None) == code, state

    def test_of_a_run(self, site: Site, scripted: Callable[..., ScriptedServer]) -> None:
        unused = socket.socket()
        unused.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{unused.getsockname()[1]}"
        lost = f"127.0.0.1:{scripted(lambda peer: (peer.receive(), peer.reset())).port}"
        for hosts, command, status in (
            (HOSTS, ["status", "255"], 1),
            (f"{HOSTS},{nowhere}", ["status", "3"], 3),
            (f"{HOSTS},no-such-host.invalid", ["say", "x"], 3),
            (f"{nowhere},{lost}", ["say", "x"], 4),
        ):
            assert site.run("-w", hosts, "--retries", "0", *command).status == status, hosts
            assert site.run("-w", hosts, "--retries", "0", "-S", *command).status == 255, hosts
        assert site.run("-w", HOSTS, "-S", "status", "9").status == 9
        unused.close()

    def test_of_a_command_that_takes_too_long(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "-u", "0.3", "-b", "wait")
        assert ended.status == 4
        assert b"pyremctl: 127.0.1.[1-5] (5): command timeout\n" in ended.stderr
        assert b"pyremctl: 127.0.1.[1-5] (5): the command may still be running\n" in ended.stderr
        assert b"begun" in ended.stdout

    def test_of_a_run_that_takes_too_long(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "-f", "1", "--deadline", "1.5", "wait")
        assert ended.status == 4
        assert ended.stderr.count(b"may still be running") == 1
        assert b"127.0.1.[2-5] (4): skipped" in ended.stderr

    def test_of_a_run_that_a_rule_stopped(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "-f", "1", "--max-fail", "2", "status", "1")
        assert ended.status == 5
        assert site.deeds.ran["status"] == 2
        assert site.run("-w", HOSTS, "--max-fail", "20%", "-f", "1", "status", "1").status == 5
        assert site.run("-w", HOSTS, "--canary", "1", "status", "1").status == 5
        assert site.deeds.ran["status"] == 4
        assert site.run("-w", HOSTS, "--max-fail", "5", "status", "1").status == 1

    def test_without_a_ticket(self, site: Site, tmp_path: Path) -> None:
        ended = site.run("-w", HOSTS, "say", "x", env={"KRB5CCNAME": str(tmp_path / "none")})
        assert (ended.status, ended.stdout) == (3, b"")
        assert ended.stderr.startswith(b"pyremctl: ")
        assert b"kinit" in ended.stderr
        assert not site.deeds.ran

    def test_is_in_the_summary(self, site: Site) -> None:
        ended = site.run("-w", HOSTS, "--json", "status", "7")
        summary = json.loads(ended.stdout.splitlines()[-1])
        assert (summary["exit_status"], ended.status) == (1, 1)


STOPPED: dict[str | int, str] = {"late": "deadline", "max-fail": "max_fail", "canary": "canary"}
"""What stopped the run, for hosts that had no turn."""


def result_of(host: str | int) -> Any:
    """Make a result."""
    if isinstance(host, int):
        return made("h", host, state=HostState.NONZERO)
    if host == "cancelled after it was sent":
        return made("h", None, state=HostState.CANCELLED, may_be_running=True)
    if host in STOPPED:
        return made("h", None, state=HostState.SKIPPED)
    state = HostState(host)
    running = state in (HostState.LOST, HostState.TIMEOUT)
    return made("h", 0 if state is HostState.OK else None, state=state, may_be_running=running)


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["-w", "a"], "a command is needed"),
            (["-w", "a", "--no-such", "x"], "unrecognized arguments: --no-such"),
            (["-w", "a", "-f", "0", "x"], "argument -f: must be 1 or more: 0"),
            (["-w", "a", "-f", "many", "x"], "argument -f: must be a number: many"),
            (["-w", "a", "--max-fail", "most", "x"], "--max-fail must be a number of hosts"),
            (["-w", "a", "--starts", "-1", "x"], "--starts must be more than 0"),
            (["-w", "a", "-u", "-1", "x"], "-u must be 0 or more"),
            (["-w", "a", "-p", "http", "x"], "-p must be a number"),
            (["-w", "a", "--max-output", "1X", "x"], "argument --max-output: must be a number of bytes"),
            (["-w", "a", "--max-output", "", "x"], "argument --max-output: must be a number of bytes"),
            (["-w", "a[1-999999999]", "x"], "has more than 1,000,000 hosts"),
            (["-w", "a", "--json", "-b", "x"], "--json cannot go with -b"),
            (["-w", "a", "--color", "red", "x"], "invalid choice: 'red'"),
            (["-w", "a", "--expand", "x", "@/nowhere"], "/nowhere"),
            (["-w", "a", "--outdir", "/proc/none", "x"], "the folder /proc/none cannot be used"),
            (["-w", "a", "--resume", "/tmp/none", "--duplicates", "x"], "--resume cannot go with --duplicates"),
            (["--resume", "/tmp/no-such-journal", "x"], "there is no host"),
        ],
    )
    def test_that_makes_no_sense_exits_with_2_and_sends_nothing(self, words: list[str], said: str) -> None:
        ended = pyremctl(*words)
        assert (ended.status, ended.stdout) == (2, b"")
        assert said in ended.stderr.decode()
        assert ended.stderr.startswith(b"pyremctl: ")
        assert ended.stderr.count(b"\n") == 1

    def test_help_has_all_groups_and_fits(self) -> None:
        ended = pyremctl("-w", "a", "--help", env={"COLUMNS": "100"})
        assert ended.status == 0
        text = ended.stdout.decode()
        for heading in ("hosts:", "how to run it:", "arguments of the command:", "output:", "others:", "exit status:"):
            assert f"\n{heading}\n" in text
        assert max(map(len, text.splitlines())) <= 120

    def test_the_parser_knows_the_same_options_with_a_value_as_the_splitting_of_words(self) -> None:
        actions = _options.make_parser()._actions
        valued = {name for action in actions if action.nargs != 0 for name in action.option_strings}
        assert valued - VALUED_BY_MANY == set()
        assert VALUED_BY_MANY - valued == {"--completion"}
        flags = {name for action in actions if action.nargs == 0 for name in action.option_strings}
        assert flags & VALUED_BY_MANY == set()
        assert isinstance(actions[0], argparse.Action)


class TestFaults:
    def test_few_descriptors_make_no_host_fail(self, site: Site) -> None:
        command = [*PYREMCTL, *site.reach, "-w", "127.0.[1-2].[1-150]", "-f", "200", "-b", "say", "x"]
        done = subprocess.run(
            command,
            capture_output=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
            timeout=50,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"(300)" in done.stdout
        assert site.deeds.ran == {"say": 300}

    def test_a_full_disk_under_outdir_is_said_and_the_run_goes_on(self, site: Site, small_disk: Path) -> None:
        ended = site.run("-w", "127.0.1.[1-40]", "-b", "--outdir", str(small_disk), "say", "x" * 8000)
        assert ended.status == 1
        assert b"No space left on device" in ended.stderr
        assert b"127.0.1.[1-40] (40)" in ended.stdout
        assert site.deeds.ran == {"say": 40}

    def test_full_standard_output_ends_the_run(self, site: Site) -> None:
        with open("/dev/full", "wb") as full:
            command = [*PYREMCTL, *site.reach, "-w", "127.0.1.[1-200]", "-f", "1", "say", "x"]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=30)
        assert done.returncode == 1
        assert f"pyremctl: the output cannot be written: {os.strerror(errno.ENOSPC)}\n".encode() in done.stderr
        assert b"skipped: the command was not sent: the output cannot be written" in done.stderr
        assert site.deeds.ran["say"] < 200

    def test_a_reader_that_leaves_ends_the_run(self, site: Site) -> None:
        command = [*PYREMCTL, *site.reach, "-w", "127.0.1.[1-200]", "-f", "1", "say", "x"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(30) == -signal.SIGPIPE
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        assert site.deeds.ran["say"] < 200

    def test_closed_standard_streams_do_no_harm(self, site: Site) -> None:
        command = [*PYREMCTL, *site.reach, "-w", HOSTS, "say", "x"]
        done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], timeout=30)
        assert done.returncode == 0
        assert site.deeds.ran == {"say": 5}

    def test_output_of_a_server_is_raw_where_it_is_no_terminal(self, site: Site) -> None:
        assert site.run("-w", "127.0.0.9", "say", "a\x1b[2Jb\r").stdout == b"127.0.0.9: a\x1b[2Jb\r\n"

    def test_and_escaped_where_it_is_one(self, site: Site) -> None:
        with site.started("-w", "127.0.0.9", "say", "a\x1b[2Jb\r", terminal=True, env={"NO_COLOR": "1"}) as started:
            ended = started.wait()
        assert b"127.0.0.9: a\\x1b[2Jb\\r" in ended.stderr
        assert b"\x1b[2J" not in ended.stderr

    def test_a_slow_reader_makes_no_command_late(self, site: Site) -> None:
        """The output of all hosts waits for a reader for longer than a command may take."""
        command = [*PYREMCTL, *site.reach, "-w", "127.0.1.[1-20]", "-u", "1", "-f", "5", "say", "x" * 100_000]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            site.until(lambda: site.deeds.ran["say"] == 20)
            assert process.stdout is not None
            assert process.stderr is not None
            data = process.stdout.read()
            assert process.wait(30) == 0, process.stderr.read()
        assert data.count(b"x") == 20 * 100_000


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


class TestResume:
    def test_after_kill_9_only_the_rest_runs_and_the_unknown_are_listed(self, site: Site, journal: Path) -> None:
        words = ["-w", "127.0.1.[1-12]", "-f", "3", "--resume", str(journal)]
        first = "127.0.1.[1-3]"
        # All of the first ones wait; the others have not been begun with.
        with site.started(*words, "wait") as started:
            site.until(lambda: site.deeds.live == 3)
            started.signal(signal.SIGKILL)
            started.wait()
        site.deeds.open(site.server)
        ended = site.run(*words, "wait")
        assert ended.status == 4
        assert f"pyremctl: {first} (3): begun with in an earlier run".encode() in ended.stderr
        assert lines(ended.stdout) == sorted(b"127.0.1.%d: begun" % number for number in range(4, 13))
        assert site.deeds.ran["wait"] == 12
        again = site.run(*words, "wait")
        assert (again.status, again.stdout) == (4, b"")
        assert b"nothing is left to do" in again.stderr
        assert site.deeds.ran["wait"] == 12

    def test_the_unknown_ones_run_again_if_that_is_asked_for(self, site: Site, journal: Path) -> None:
        words = ["-w", HOSTS, "--resume", str(journal)]
        assert site.run(*words, "-u", "0.5", "wait").status == 4
        site.deeds.open(site.server)
        ended = site.run(*words, "--retry-unknown", "wait")
        assert (ended.status, ended.stdout.count(b"begun")) == (0, 5)
        assert site.run(*words, "wait").status == 0

    def test_hosts_that_were_not_reached_are_tried_again(self, site: Site, journal: Path) -> None:
        words = ["-w", HOSTS, "--resume", str(journal), "--retries", "0"]
        ended = site.run(*words, "--source", "192.0.2.1", "say", "x")
        assert ended.status == 3
        ended = site.run(*words, "say", "x")
        assert (ended.status, len(ended.stdout.splitlines())) == (0, 5)

    def test_the_exit_status_is_that_of_the_whole_run(self, site: Site, journal: Path) -> None:
        words = ["-w", HOSTS, "--resume", str(journal)]
        assert site.run(*words, "status", "9").status == 1
        ended = site.run(*words, "status", "9")
        assert ended.status == 1
        assert b"nothing is left to do" in ended.stderr
        assert site.run(*words, "-S", "status", "9").status == 9
        assert site.deeds.ran == {"status": 5}

    def test_the_hosts_need_not_be_named_again(self, site: Site, journal: Path) -> None:
        site.run("-w", HOSTS, "--resume", str(journal), "--max-fail", "1", "-f", "1", "status", "1")
        ended = site.run("--resume", str(journal), "status", "1")
        assert ended.status == 1
        assert site.deeds.ran == {"status": 5}

    def test_hosts_that_were_picked_stay_the_same(self, site: Site, journal: Path) -> None:
        words = ["-w", "127.0.1.[1-50]", "--pick", "5", "--resume", str(journal)]
        assert site.run(*words, "say", "x").status == 0
        assert b"nothing is left to do" in site.run(*words, "say", "x").stderr
        ended = site.run("-w", "127.0.2.1", *words[2:], "say", "x")
        assert (ended.status, site.deeds.ran["say"]) == (2, 5)

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (["-w", HOSTS, "say", "y"], "another command"),
            (["-w", "127.0.1.[1-6]", "say", "x"], "another set of hosts"),
        ],
    )
    def test_another_run_is_refused(self, site: Site, journal: Path, words: list[str], what: str) -> None:
        site.run("-w", HOSTS, "--resume", str(journal), "say", "x")
        ended = site.run("--resume", str(journal), *words)
        assert (ended.status, ended.stdout) == (2, b"")
        assert what.encode() in ended.stderr
        assert site.deeds.ran["say"] == 5

    def test_a_damaged_journal_is_refused(self, site: Site, journal: Path) -> None:
        site.run("-w", HOSTS, "--resume", str(journal), "say", "x")
        journal.write_bytes(journal.read_bytes().replace(b'"begin"', b'"bogin"', 1))
        ended = site.run("-w", HOSTS, "--resume", str(journal), "say", "x")
        assert ended.status == 2
        assert b"is damaged" in ended.stderr

    def test_a_disk_that_is_full_ends_the_run_before_anything_is_sent(self, site: Site, journal: Path) -> None:
        words = ["-w", "127.0.1.[1-30]", "-f", "2", "--resume", str(journal), "say", "x"]

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

        done = subprocess.run([*PYREMCTL, *site.reach, *words], capture_output=True, preexec_fn=limit, timeout=30)
        assert done.returncode == 3
        assert b"the journal cannot be written" in done.stderr
        ran = site.deeds.ran["say"]
        assert 0 < ran < 30
        assert site.run(*words).status in (0, 4)
        assert site.deeds.ran["say"] <= 30


def test_the_servers_of_these_tests_are_on_loopback_alone() -> None:
    with on_loopback() as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
