"""Ctrl-C, SIGTERM and SIGUSR1 in the middle of a run."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest
from fanout.conftest import everywhere, silent_kdc, threads
from serving import ServerThread

from cli.programs import PYREMCTL
from cli.site import Deeds, Site
from remctl.testing import Sandbox

__all__ = ["everywhere", "silent_kdc", "threads"]

HOSTS = "127.0.1.[1-9]"

RUNNING = b"pyremctl: 127.0.1.[1-3] (3): the command may still be running"


@pytest.fixture
def site(box: Sandbox, everywhere: Callable[..., ServerThread]) -> Site:
    deeds = Deeds()
    return Site(box, everywhere(deeds), deeds)


class TestOnce:
    def test_what_is_under_way_may_end_and_nothing_else_begins(self, site: Site) -> None:
        with site.started("-w", HOSTS, "-f", "3", "-b", "wait") as started:
            site.until(lambda: site.deeds.live == 3)
            started.signal(signal.SIGINT)
            started.expect(b"no further host is begun with; 3 in work have 3 s")
            site.deeds.open(site.server)
            ended = started.wait()
        assert ended.status == 130
        assert b"127.0.1.[1-3] (3)\n" in ended.stdout
        assert b"begun" in ended.stdout
        assert b"127.0.1.[4-9] (6): skipped: the command was not sent: interrupted by SIGINT\n" in ended.stderr
        assert b"may still be running" not in ended.stderr
        assert site.deeds.ran["wait"] == 3

    def test_what_does_not_end_is_listed_as_maybe_running(self, site: Site) -> None:
        with site.started("-w", HOSTS, "-f", "3", "-b", "wait") as started:
            site.until(lambda: site.deeds.live == 3)
            started.signal(signal.SIGINT)
            ended = started.wait()
        assert ended.status == 130
        assert RUNNING in ended.stderr
        assert b"begun" in ended.stdout  # what there is

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_other_signals_have_their_own_status(self, site: Site, number: signal.Signals, status: int) -> None:
        with site.started("-w", HOSTS, "-f", "3", "--json", "wait") as started:
            site.until(lambda: site.deeds.live == 3)
            started.signal(number)
            started.expect(b"no further host is begun with")
            site.deeds.open(site.server)
            ended = started.wait()
        assert ended.status == status
        summary = json.loads(ended.stdout.splitlines()[-1])
        assert summary["interrupted"]
        assert summary["exit_status"] == status
        assert (summary["states"]["ok"], summary["states"]["skipped"]) == (3, 6)

    def test_a_signal_that_was_ignored_stays_ignored(self, site: Site) -> None:
        command = [*PYREMCTL, *site.reach, "-w", "127.0.0.9", "wait"]
        script = 'trap "" HUP INT; exec "$@"'
        with subprocess.Popen(["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE) as process:
            site.until(lambda: site.deeds.live == 1)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
            site.deeds.open(site.server)
            assert process.wait(20) == 0


class TestTwice:
    def test_it_ends_at_once(self, site: Site) -> None:
        with site.started("-w", HOSTS, "-f", "3", "wait") as started:
            site.until(lambda: site.deeds.live == 3)
            started.signal(signal.SIGINT)
            started.expect(b"no further host is begun with")
            started.signal(signal.SIGINT)
            ended = started.wait()
        assert ended.status == 130
        assert RUNNING in ended.stderr
        assert b"cancelled" in ended.stderr

    def test_on_a_terminal_ctrl_c_does_it(self, site: Site) -> None:
        with site.started("-w", HOSTS, "-f", "3", "wait", terminal=True, env={"NO_COLOR": "1"}) as started:
            started.expect(b"127.0.1.3: begun")
            started.expect(b"0/9 done")
            site.until(lambda: site.deeds.live == 3)
            started.type(b"\x03")
            started.expect(b"no further host is begun with; 3 in work")
            started.type(b"\x03")
            ended = started.wait()
        assert ended.status == 130
        assert RUNNING in ended.stderr

    def test_while_nobody_reads_a_third_one_ends_the_process(self, site: Site) -> None:
        with site.started("-w", HOSTS, "say", "x" * 100_000) as started:
            site.until(lambda: site.deeds.ran["say"] == 9)
            for _ in range(3):
                started.signal(signal.SIGTERM)
                signal.sigtimedwait([], 0.3)
            assert started.process.wait(20) == -signal.SIGTERM


class TestQuestion:
    def test_who_is_missing_is_answered(self, site: Site) -> None:
        with site.started("-w", HOSTS, "-f", "3", "wait") as started:
            site.until(lambda: site.deeds.live == 3)
            started.signal(signal.SIGUSR1)
            said = started.expect(b"wait for their turn")
            assert b"pyremctl: 127.0.1.[1-3] (3): running\n" in said
            assert b"0 of 9 done" in said
            assert b"; 6 wait for their turn" in said
            site.deeds.open(site.server)
            assert started.wait().status == 0

    def test_hosts_that_are_being_connected_to_are_told_apart(self, site: Site, full: int) -> None:
        with site.started("-w", f"127.0.0.9,127.0.0.1:{full}", "-v", "wait") as started:
            site.until(lambda: site.deeds.live == 1)
            started.signal(signal.SIGUSR1)
            said = started.expect(b"wait for their turn")
            assert b"pyremctl: 127.0.0.9: running\n" in said
            assert f"pyremctl: 127.0.0.1:{full}: connecting\n".encode() in said


def test_while_a_silent_kdc_is_asked_for_tickets_it_ends_too(site: Site, silent_kdc: socket.socket) -> None:
    alice = site.box.add_principal("alice-of-interrupts")
    keytab = {"KRB5_CLIENT_KTNAME": str(alice.keytab), "KRB5CCNAME": "MEMORY:none"}
    silent_kdc.settimeout(20)
    with site.started("-w", HOSTS, "--json", "say", "x", env=keytab) as started:
        silent_kdc.recv(65536)
        started.signal(signal.SIGINT)
        started.expect(b"no further host is begun with; 0 in work")
        started.signal(signal.SIGINT)
        ended = started.wait()
    assert ended.status == 130
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert summary["states"]["skipped"] == summary["hosts"] == 9
