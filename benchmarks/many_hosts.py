"""A command on very many hosts: from a real network of them, and from one in memory.

`fanout-hosts` has 2,000 addresses on loopback, with a server and a key each, and runs a trivial command on all of them:

    asyncio    `remctl.aio.run_many`
    blocking   `remctl.run_many`
    processes  `remctl.run_many` with two processes as its executor
    threads    64 threads that call the stock binding
    clush      the program `clush -f 64`, which runs the C client for each host

Each begins with a ticket cache that holds the ticket-granting ticket alone.  The servers and the KDC run beside them on
the same machine, and are the same for all.

`fanout-memory` shows what does not come from the network: memory, and time for each host, with few and with many.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from goals import Goal
from many_hosts_worker import COMMAND, THREADS, WAYS

from remctl.testing import Sandbox

NAMES: Final = ("fanout-hosts", "fanout-memory")

ROOT: Final = Path(__file__).resolve().parent.parent
WORKER: Final = str(ROOT / "benchmarks" / "many_hosts_worker.py")
STOCK_PYTHON: Final = "/usr/bin/python3"

HOSTS: Final = 2_000
CONTENDERS: Final = ("asyncio", "blocking", "processes", "threads", "clush")
ROUNDS: Final = 3
RATIOS: Final = {"threads": 10.0, "clush": 3.0}
"""How many times as many hosts a second as these the asyncio face shall do."""

COUNTS: Final = (10_000, 50_000, 100_000)
"""Hosts in memory."""
MEMORY: Final = 200.0
"""MiB that a process may grow by."""
RISE: Final = 1.3
"""How many times as much time a host may cost with many of them as with few."""


class ManyHosts:
    """One run of these benchmarks.

    Args:
        quick: whether to do them with a tenth of the hosts.
    """

    def __init__(self, quick: bool) -> None:
        self._part = 10 if quick else 1
        self.results: dict[str, Any] = {}
        self.goals: list[Goal] = []

    def run(self, name: str) -> None:
        """Measure one of `NAMES`, print it, and add it to the results."""
        self.results[name] = self._hosts() if name == "fanout-hosts" else self._memory()

    def _hosts(self) -> dict[str, Any]:
        hosts = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(HOSTS // self._part)]
        print(f"\nA command on {len(hosts):,} hosts: median of {ROUNDS} rounds (and range)")
        found: dict[str, list[dict[str, float]]] = {who: [] for who in CONTENDERS}
        with Sandbox() as box, _servers(box, hosts) as port:
            for _ in range(ROUNDS):
                for who, rounds in found.items():
                    rounds.append(_visit(box, who, hosts, port))
        rates = {who: [len(hosts) / each["seconds"] for each in rounds] for who, rounds in found.items()}
        first = median(rates["asyncio"])
        for who, each in rates.items():
            cpu = median(one["cpu"] for one in found[who])
            ratio = first / median(each)
            factor = "" if who == "asyncio" else f"  asyncio / {who} = {ratio:.2f}"
            print(f"  {who:9} {median(each):7.1f} hosts/s ({min(each):.1f} to {max(each):.1f})", end="")
            print(f"  {cpu:6.2f} s of CPU time{factor}")
            if who in RATIOS:
                self.goals.append(Goal(f"{len(hosts):,} hosts: asyncio / {who}", ratio, RATIOS[who], True, "x"))
        return {"hosts": len(hosts), **found}

    def _memory(self) -> dict[str, Any]:
        counts = [count // self._part for count in COUNTS]
        print("\nHosts in memory: us of CPU time for each, the best of 3; MiB that the process grows by")
        found: dict[str, dict[int, dict[str, float]]] = {}
        for way in WAYS:
            runs = [{count: _in_memory(way, count) for count in counts} for _ in range(ROUNDS)]
            found[way] = {
                count: {
                    "microseconds": min(run[count]["microseconds"] for run in runs),
                    "mebibytes": max(run[count]["kibibytes"] for run in runs) / 1024,
                }
                for count in counts
            }
            each = (
                f"{n:7,} hosts: {one['microseconds']:4.1f} us {one['mebibytes']:5.1f} MiB"
                for n, one in found[way].items()
            )
            print(f"  {way:9}", *each, flush=True)
            few, many = found[way][counts[0]], found[way][counts[-1]]
            rise = many["microseconds"] / few["microseconds"]
            title = f"a host in memory, {way}: of {counts[-1]:,} / of {counts[0]:,}"
            self.goals.append(Goal(title, rise, RISE, False, "x"))
            title = f"{counts[-1]:,} hosts in memory, {way}: growth"
            self.goals.append(Goal(title, many["mebibytes"], MEMORY, False, "MiB"))
        return found


def _in_memory(way: str, count: int) -> dict[str, float]:
    command = [sys.executable, "-I", WORKER, "memory", way, str(count)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


# Hosts, and who visits them


@contextlib.contextmanager
def _servers(box: Sandbox, hosts: Sequence[str]) -> Iterator[int]:
    """Have a server on each of these addresses, each with a principal of its own; gives the port of all of them."""
    keytabs = Path(tempfile.mkdtemp(dir=box.path))
    commands = [f"addprinc -randkey host/{host}\nktadd -norandkey -k {keytabs / host} host/{host}\n" for host in hosts]
    subprocess.run(["kadmin.local"], input="".join(commands), text=True, env=box.env, check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind((hosts[0], 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-I", WORKER, "serve", str(port), str(keytabs)]
    with subprocess.Popen(command, env=box.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            sys.exit("the servers did not start")
        yield port
        process.communicate()


def _visit(box: Sandbox, who: str, hosts: Sequence[str], port: int) -> dict[str, float]:
    """Run the command on the hosts once; return seconds, and the CPU time, in seconds, of the whole process."""
    with tempfile.TemporaryDirectory(dir=box.path) as folder:
        ccache = shutil.copy(box.ccache, folder)  # which nobody has used since kinit
        environment = {name: value for name, value in box.env.items() if not name.startswith("PYTHON")}
        environment["KRB5CCNAME"] = f"FILE:{ccache}"
        names = Path(folder, "hosts")
        names.write_text("".join(f"{host}\n" for host in hosts))
        before, begin = _cpu(), time.perf_counter()
        if who == "clush":
            command = _clush(names, port)
        else:
            command = [STOCK_PYTHON if who == "threads" else sys.executable, "-I", WORKER, who, str(port)]
        with names.open() as stdin:
            done = subprocess.run(command, env=environment, cwd="/", stdin=stdin, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - begin
        cpu = _cpu() - before
    if who == "clush":
        found = {"answered": done.stdout.count("hello world\n"), "seconds": seconds}
    else:
        found = json.loads(done.stdout)
    if found["answered"] != len(hosts):
        sys.exit(f"{who}: {found['answered']} of {len(hosts)} hosts have answered")
    return {"seconds": found["seconds"], "cpu": cpu}


def _clush(names: Path, port: int) -> list[str]:
    program = str(Path(sys.executable).with_name("clush"))
    return [program, *f"-n -f {THREADS} --hostfile {names} -R exec remctl -p {port} %h".split(), *COMMAND]


def _cpu() -> float:
    """Return the CPU time, in seconds, of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system
