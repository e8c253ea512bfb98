"""`--check`: all well, and every fault by its real cause."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from doubles import HangingUpServer, Relay, ScriptedServer, SilentServer
from fanout.kerberos import SHORT, dead_kdc, kadmin, kdc_at, python_at

from cli.programs import Ended, pyremctl, run
from remctl.cli._steps import within
from remctl.testing import Sandbox
from remctl.testing.server import Server, free_port

Steps = dict[str, dict[str, Any]]

WELL: Final = ["name", "TCP", "ticket", "service", "authentication", "protocol", "round trip"]


@pytest.fixture(scope="module")
def server(box: Sandbox) -> Iterator[Server]:
    started = box.add_server()
    yield started
    started.stop()


def check(*words: str, env: Mapping[str, str] | None = None) -> tuple[Steps, int]:
    """Run a check; return its steps, of several with one name the last, and the exit status."""
    ended = pyremctl("--check", "--json", *words, env=env)
    assert ended.stderr == b""
    answer = json.loads(ended.stdout)
    assert answer["type"] == "check"
    assert answer["ok"] == (ended.status == 0)
    return {step["name"]: step for step in answer["steps"]}, ended.status


def failing(*words: str, env: Mapping[str, str] | None = None) -> Steps:
    """Run a check that fails; return the steps that did."""
    steps, status = check(*words, env=env)
    assert status == 3
    assert all(step["hint"] for step in steps.values() if step["verdict"] == "failed")
    return {name: step for name, step in steps.items() if step["verdict"] == "failed"}


def test_all_is_well(server: Server, box: Sandbox) -> None:
    steps, status = check("-p", str(server.port), "localhost")
    assert status == 0
    assert list(steps) == WELL
    assert {step["verdict"] for step in steps.values()} == {"ok"}
    assert "localhost is 127.0.0.1" in steps["name"]["text"]
    assert f"127.0.0.1 port {server.port}" in steps["TCP"]["text"]
    assert box.user in steps["ticket"]["text"]
    assert box.ccache in steps["ticket"]["text"]
    assert server.principal in steps["service"]["text"]
    assert "aes256-cts" in steps["service"]["text"]
    assert steps["protocol"]["text"] == "3"
    assert steps["round trip"]["text"].endswith(" ms")


def test_it_is_told_in_lines_too_with_options_before_and_after_the_host(server: Server) -> None:
    ended = pyremctl("-b", "127.0.0.1", "--check", "localhost", "-p", str(server.port), "-s", server.principal)
    lines = ended.stdout.decode().splitlines()
    assert [line[:9].rstrip() for line in lines] == ["ok"] * 7
    assert [line[9:25].rstrip() for line in lines] == WELL
    assert (ended.stderr, ended.status) == (b"", 0)


def test_lines_say_what_failed_and_below_what_to_do() -> None:
    ended = pyremctl("--check", "-p", "1", "localhost")
    lines = ended.stdout.decode().splitlines()
    assert lines[1] == "FAILED   TCP             127.0.0.1 port 1: Connection refused"
    assert lines[2].strip() == "nothing listens there: see whether remctld runs, and on which port"
    assert lines[-1].startswith("skipped  authentication")
    assert ended.status == 3


def test_the_users_ticket_cache_stays_as_it_is_until_the_connection(box: Sandbox, server: Server) -> None:
    cache = box.kinit(box.add_principal("of-the-check"))
    with open(cache, "rb") as file:
        before = file.read()
    steps, _ = check("-p", "1", "localhost", env={"KRB5CCNAME": cache})
    assert steps["service"]["verdict"] == "ok"
    with open(cache, "rb") as file:
        assert file.read() == before


@pytest.mark.parametrize("words", [(), ("-p", "x", "localhost"), ("-b", "here", "localhost"), ("localhost", "\x1b[2J")])
def test_a_command_line_that_makes_no_sense_has_status_2(words: tuple[str, ...]) -> None:
    ended = pyremctl("--check", *words)
    assert (ended.stdout, ended.status) == (b"", 2)
    assert ended.stderr.startswith(b"pyremctl: ")
    assert ended.stderr.count(b"\n") == 1
    assert b"\x1b" not in ended.stderr


# Name and TCP


def test_an_unknown_name_and_the_tickets_are_looked_at_all_the_same() -> None:
    steps, status = check("no-such-host.invalid")
    assert status == 3
    assert "unknown host" in steps["name"]["text"]
    assert steps["TCP"]["verdict"] == steps["authentication"]["verdict"] == "skipped"
    assert steps["ticket"]["verdict"] == "ok"
    assert steps["service"]["reason"] == "unknown-server"


def test_a_name_that_is_none() -> None:
    assert "not a valid name" in failing("a..ä")["name"]["text"]


def test_an_address_is_said_to_be_one(server: Server) -> None:
    steps, _ = check("-p", str(server.port), "-s", server.principal, "127.0.0.1")
    assert "is an address" in steps["name"]["text"]
    assert steps["round trip"]["verdict"] == "ok"


def test_a_closed_port() -> None:
    failed = failing("-p", "1", "localhost")
    assert list(failed) == ["TCP"]
    assert "Connection refused" in failed["TCP"]["text"]
    assert "see whether remctld runs" in failed["TCP"]["hint"]


def test_the_default_ports_are_both_tried() -> None:
    ended = pyremctl("--check", "localhost").stdout.decode()
    assert "port 4373: Connection refused" in ended
    assert "port 4444: Connection refused" in ended


def test_an_address_that_does_not_answer_is_a_warning_where_another_does(server: Server) -> None:
    steps = json.loads(in_process(TWO_ADDRESSES, str(server.port), server.principal).stdout)["steps"]
    tcp = [(step["verdict"], step["text"].partition(" ")[0]) for step in steps if step["name"] == "TCP"]
    assert tcp == [("warning", "127.0.0.9"), ("ok", "127.0.0.1")]


TWO_ADDRESSES: Final = """
import socket, sys
from remctl.cli import main
def two(*_):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.1")]
socket.getaddrinfo = two
sys.exit(main(["--check", "--json", "-p", sys.argv[1], "-s", sys.argv[2], "localhost"]))
"""


def test_a_name_service_that_does_not_answer_in_time() -> None:
    ended = in_process(SLOW_NAMES)
    (step,) = (step for step in json.loads(ended.stdout)["steps"] if step["name"] == "name")
    assert (step["verdict"], step["text"]) == ("failed", "no answer within 0.2 s")


SLOW_NAMES: Final = """
import socket, sys, threading
from remctl.cli import main
socket.getaddrinfo = lambda *_: threading.Event().wait()
sys.exit(main(["--check", "--json", "-t", "0.2", "slow.example.org"]))
"""


def in_process(program: str, *words: str) -> Ended:
    return run([sys.executable, "-c", program], *words)


def test_a_source_that_is_not_ours() -> None:
    failed = failing("-b", "192.0.2.1", "-p", "1", "localhost")
    assert "no address of this machine" in failed["TCP"]["hint"]


def test_a_port_that_takes_no_connection(full: int) -> None:
    failed = failing("-t", "0.3", "-p", str(full), "localhost")
    assert "Connection timed out" in failed["TCP"]["text"]
    assert "firewall" in failed["TCP"]["hint"]


# Kerberos


def test_no_ticket(server: Server) -> None:
    steps, status = check("-p", str(server.port), "localhost", env={"KRB5CCNAME": "/nowhere"})
    assert status == 3
    assert (steps["ticket"]["reason"], steps["ticket"]["hint"]) == ("no-ticket", "run kinit")
    assert steps["ticket"]["text"].startswith("No Kerberos credentials available")
    assert steps["service"]["verdict"] == "skipped"
    assert "no ticket: run kinit" in steps["authentication"]["hint"]


def test_a_ticket_that_has_ended(box: Sandbox, server: Server) -> None:
    principal = box.add_principal("ended")
    cache = box.kinit(principal, lifetime=f"{SHORT}s")
    steps = json.loads(python_at("+60s", CHECK, box, cache, str(server.port)))["steps"]
    failed = {step["name"]: step for step in steps if step["verdict"] == "failed"}
    assert (failed["ticket"]["reason"], failed["ticket"]["hint"]) == ("expired", "run kinit")
    assert "expired" in failed["authentication"]["text"]


def test_a_ticket_that_ends_soon_is_a_warning(box: Sandbox, server: Server) -> None:
    cache = box.kinit(box.add_principal("ending"), lifetime="2m")
    steps, status = check("-p", str(server.port), "localhost", env={"KRB5CCNAME": cache})
    assert (steps["ticket"]["verdict"], steps["ticket"]["hint"]) == ("warning", "it ends soon: run kinit")
    assert status == 0


def test_an_unknown_principal(server: Server) -> None:
    failed = failing("-p", str(server.port), "-s", "host/unheard-of", "localhost")
    assert list(failed) == ["service", "authentication"]
    assert failed["service"]["reason"] == "unknown-server"
    assert failed["service"]["text"] == "Server host/unheard-of@SANDBOX.TEST not found in Kerberos database"


def test_a_key_of_a_user_who_has_gone(box: Sandbox, server: Server, tmp_path: Path) -> None:
    principal = box.add_principal("gone")
    kadmin(box, f"delprinc -force {principal.name}")
    env = {"KRB5CCNAME": str(tmp_path / "cache"), "KRB5_CLIENT_KTNAME": principal.keytab}
    failed = failing("-p", str(server.port), "localhost", env=env)
    assert failed["ticket"]["reason"] == "unknown-client"
    assert "the KDC does not know your principal" in failed["ticket"]["hint"]


def test_a_dead_kdc_even_if_a_ticket_for_the_server_is_there(box: Sandbox, server: Server) -> None:
    words = ("-p", str(server.port), "localhost")
    check(*words)
    with dead_kdc(box):
        steps, status = check(*words)
    assert status == 3
    assert steps["service"]["reason"] == "no-kdc"
    assert "krb5.conf" in steps["service"]["hint"]
    assert steps["round trip"]["verdict"] == "ok"


def test_a_kdc_that_says_nothing(box: Sandbox, server: Server) -> None:
    port = free_port("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf, socket.create_server(("127.0.0.1", port)):
        deaf.bind(("127.0.0.1", port))
        with kdc_at(box, port):
            failed = failing("-t", "0.5", "-p", str(server.port), "-s", "host/localhost", "localhost")
    assert failed["service"]["text"] == "no answer within 0.5 s"
    assert failed["service"]["reason"] == "no-kdc"


@pytest.mark.parametrize("clock", ["+1h", "-1h"])
def test_a_wrong_clock(box: Sandbox, server: Server, clock: str) -> None:
    cache = box.kinit(box.add_principal(f"clock{clock}"))
    steps = json.loads(python_at(clock, CHECK, box, cache, str(server.port)))["steps"]
    assert [step["reason"] for step in steps if step["name"] == "service"] == ["clock"]


CHECK: Final = """
import os, sys
os.environ["KRB5CCNAME"] = sys.argv[1]
from remctl.cli import main
main(["--check", "--json", "-p", sys.argv[2], "localhost"])
"""


def test_a_key_that_the_servers_keytab_does_not_have(box: Sandbox) -> None:
    with_key = box.add_server(principal="host/rekeyed-by-the-check")
    words = ("-p", str(with_key.port), "-s", with_key.principal, "localhost")
    assert check(*words)[1] == 0
    kadmin(box, f"cpw -randkey {with_key.principal}")
    cache = box.kinit(box.add_principal("after-the-change"))
    failed = failing(*words, env={"KRB5CCNAME": cache})
    with_key.stop()
    assert list(failed) == ["authentication"]
    assert "key" in failed["authentication"]["hint"]


def test_a_weak_key_is_a_warning(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remctl.cli._check_tickets.WEAK", ("aes256",))  # this realm has no others
    from remctl.cli._check_tickets import examine

    *_, service = examine("localhost", box.principal, 10)
    assert (service.verdict, service.hint) == (
        "warning",
        "such keys can be broken: have the server's principal given an AES key",
    )


def test_a_cache_with_service_tickets_alone_is_a_warning(box: Sandbox, server: Server) -> None:
    cache = box.kinit(box.add_principal("half"))
    env = {"KRB5CCNAME": cache}
    assert check("-p", str(server.port), "-s", server.principal, "localhost", env=env)[1] == 0
    in_process(FORGET, cache)
    steps, status = check("-p", str(server.port), "-s", server.principal, "localhost", env=env)
    assert status == 0
    assert "tickets for services alone" in steps["ticket"]["text"]
    assert steps["service"]["text"] == "there is a ticket for it"


FORGET: Final = """
import sys, krb5
context = krb5.init_context()
cache = krb5.cc_resolve(context, sys.argv[1].encode())
kept = [each for each in cache if not str(each.server).startswith("krbtgt/")]
krb5.cc_initialize(context, cache, krb5.cc_get_principal(context, cache))
for each in kept:
    krb5.cc_store_cred(context, cache, each)
"""


def test_without_pykrb5_it_says_what_it_cannot_see_and_the_rest_is_looked_at(server: Server) -> None:
    ended = in_process(WITHOUT, str(server.port))
    steps = {step["name"]: step for step in json.loads(ended.stdout)["steps"]}
    assert (steps["ticket"]["verdict"], ended.status) == ("unseen", 0)
    assert "krb5" in steps["ticket"]["text"]
    assert "pip install" in steps["ticket"]["hint"]
    assert steps["round trip"]["verdict"] == "ok"
    assert "service" not in steps


WITHOUT: Final = """
import sys
sys.modules["krb5"] = sys.modules["gssapi"] = None
from remctl.cli import main
sys.exit(main(["--check", "--json", "-p", sys.argv[1], "localhost"]))
"""


# The server


def test_a_server_that_says_nothing() -> None:
    with SilentServer() as silent:
        failed = failing("-t", "0.5", "-p", str(silent.port), "localhost")
    assert list(failed) == ["authentication"]
    assert "0.5 s passed" in failed["authentication"]["text"]
    assert "see whether it is remctld" in failed["authentication"]["hint"]


def test_a_server_that_hangs_up() -> None:
    with HangingUpServer() as rude:
        failed = failing("-p", str(rude.port), "localhost")
    assert "closed the connection" in failed["authentication"]["text"]


def test_a_server_of_protocol_2(scripted: Callable[..., ScriptedServer]) -> None:
    def refuse(peer: Any) -> None:
        assert peer.receive()[1] in (1, 7)
        peer.send_error(3, b"unknown message")

    with scripted(refuse) as old:
        steps, status = check("-p", str(old.port), "localhost")
    assert status == 0
    assert steps["protocol"]["text"].startswith("2, ")
    assert steps["round trip"]["text"].endswith("for the command 'help'")


def test_a_server_of_protocol_1_is_a_warning(server: Server) -> None:
    def strip(data: bytes) -> bytes:
        return bytes([data[0] & ~0x40]) + data[1:] if data[0] in (0x51, 0x42) else data

    def up(data: bytes) -> bytes:
        first = strip(data)
        return first[:5] + strip(first[5:]) if first[0] == 0x11 and len(first) > 5 else first

    with Relay(server.port) as relay:
        relay.up, relay.down = up, strip
        steps, status = check("-p", str(relay.port), "-s", "host/localhost", "localhost")
    assert status == 0
    assert (steps["protocol"]["verdict"], steps["protocol"]["text"][:2]) == ("warning", "1,")
    assert steps["round trip"]["text"].endswith("for the command 'help'")


def test_a_server_that_takes_the_ticket_and_then_says_nothing(scripted: Callable[..., ScriptedServer]) -> None:
    with scripted(lambda peer: peer.receive()) as stuck:
        failed = failing("-t", "0.5", "-p", str(stuck.port), "localhost")
    assert list(failed) == ["round trip"]


def test_a_server_that_takes_the_ticket_and_then_hangs_up(scripted: Callable[..., ScriptedServer]) -> None:
    with scripted(lambda peer: peer.reset()) as lost:
        failed = failing("-p", str(lost.port), "localhost")
    assert list(failed) == ["round trip"]


def test_v_says_what_happens(server: Server) -> None:
    ended = pyremctl("--check", "-v", "-p", str(server.port), "localhost")
    assert f"pyremctl: connected to localhost:{server.port}".encode() in ended.stderr


# Waiting


def test_a_call_that_is_waited_for_gives_what_it_returns_or_raises() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
