"""What `make bench` runs: this package's faces and server, the stock binding, the C client, remctld, side by side.

All work in turns, so that whatever else the machine does meets all alike.  Prints the medians and the goals, and writes
every single measurement to benchmarks/results/latest.json.

    ours     worker.py with this interpreter: the blocking face
    asyncio  aio_worker.py: the asyncio face
    stock    worker.py with /usr/bin/python3 and Debian's python3-pyremctl
    client   the program `remctl`, a process for each call
    limit    limit.c: a C program on the same libremctl that acknowledges at once

against remctld, and for the works about servers

    served   the blocking face, or the program `remctl`, against `remctl.aio.serve`
    remctld  the same against remctld
    backend  the blocking face against a coroutine function of a `Backend` in `remctl.aio.serve`
    thread   the same with a blocking function, which runs on a thread

and the jobs of `remctl.jobs` (unattended.py), robots for them (robots.py), tickets for many hosts (tickets.py), and a
command on many hosts (many_hosts.py).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import many_hosts
import robots
import tickets
import unattended
from goals import Goal

import remctl
from remctl.testing import Sandbox

ROOT: Final = Path(__file__).resolve().parent.parent
WORKER: Final = str(ROOT / "benchmarks" / "worker.py")
AIO_WORKER: Final = str(ROOT / "benchmarks" / "aio_worker.py")
BACKENDS: Final = str(ROOT / "benchmarks" / "backends.py")
LIMIT: Final = str(ROOT / "build" / "limit")
RESULTS: Final = ROOT / "benchmarks" / "results" / "latest.json"
STOCK_PYTHON: Final = "/usr/bin/python3"
MEGABYTE: Final = 1_000_000


class Work(NamedTuple):
    """Something that takes time, done by several implementations."""

    title: str
    rounds: int
    counts: Mapping[str, int]
    """How much of it each implementation does in a round; the first one is what the others are compared with."""
    unit: str
    goals: Mapping[str, float] = MappingProxyType({})
    """How many times as fast as another implementation the first one shall be."""
    scale: int = 1
    """How much of it makes one unit."""


WORKS: Final = {
    "session": Work(
        "commands over one session",
        9,
        {"ours": 300, "stock": 30, "limit": 300},
        "commands/s",
        {"stock": 20, "limit": 0.9},
    ),
    "oneshot": Work(
        "one-shot calls",
        9,
        {"ours": 300, "stock": 30, "client": 30, "limit": 300},
        "calls/s",
        {"stock": 12, "limit": 0.85},
    ),
    "stream": Work(
        "streaming 400 MB of output",
        5,
        {"ours": 400 * MEGABYTE, "stock": 400 * MEGABYTE, "limit": 400 * MEGABYTE},
        "MB/s",
        {"stock": 1, "limit": 0.95},
        MEGABYTE,
    ),
    "threads": Work("8 threads, each a command of 0.5 s", 3, {"ours": 8, "stock": 8}, "commands/s"),
    "aio-session": Work(
        "commands over one asyncio session", 9, {"asyncio": 300, "ours": 300}, "commands/s", {"ours": 0.9}
    ),
    "aio-stream": Work(
        "streaming 200 MB of output with asyncio",
        5,
        {"asyncio": 200 * MEGABYTE, "ours": 200 * MEGABYTE},
        "MB/s",
        {"ours": 0.75},
        MEGABYTE,
    ),
    "serve-session": Work(
        "commands over one session with our server",
        7,
        {"served": 2000, "remctld": 300},
        "commands/s",
        {"remctld": 5},
    ),
    "serve-backend": Work(
        "commands over one session with a backend in our server",
        7,
        {"backend": 2000, "thread": 2000, "served": 2000},
        "commands/s",
        {"served": 0.7},
    ),
    "serve-oneshot": Work(
        "calls of the C client to our server", 5, {"served": 200, "remctld": 30}, "calls/s", {"remctld": 3}
    ),
}
GROWTHS: Final = {
    "peak": ("streaming 1 GB of output", 1000 * MEGABYTE, ("ours", "stock")),
    "commands": ("10,000 commands over one session", 10_000, ("ours",)),
    "sessions": ("1,000 sessions", 1_000, ("ours",)),
}
CROWDS: Final = ("many", "latency", "idle")
OTHERS: Final = (*unattended.NAMES, *robots.NAMES, *tickets.NAMES, *many_hosts.NAMES)
NAMES: Final = (*WORKS, *GROWTHS, "import", "start", *CROWDS, *OTHERS)

STARTS: Final = {
    "empty": "",
    "backend": """
from remctl.backend import Backend
backend = Backend("start")
@backend.command("backend")
def hello(name: str = "world") -> str:
    return f"hello {name}\\n"
backend.main()
""",
    "options": """
from remctl.backend import Backend
backend = Backend("start")
@backend.command("options")
def hello(*, name: str = "world") -> str:
    return f"hello {name}\\n"
backend.main()
""",
    "coroutine": """
from remctl.backend import Backend
backend = Backend("start")
@backend.command("coroutine")
async def hello(name: str = "world") -> str:
    return f"hello {name}\\n"
backend.main()
""",
}
"""Programs that remctld starts for a command."""

MANY: Final = 1000
"""Sessions at once, each with a command of one second."""
SERVERS: Final = 40
"""Servers that they are spread over; each takes as many new connections at once as its short queue holds."""
HANDSHAKES: Final = 500
"""Handshakes at once, during which the event loop's latency is measured."""
IDLE: Final = 5000
"""Idle sessions that our server holds at once."""


class Bench:
    """One run of the benchmarks.

    Args:
        box: the running sandbox.
        quick: whether to do about a tenth of everything, which shows that it works rather than how fast.
        ours: a process of `remctl.testing.example`, and its port.
        backends: the ports of `backends.py`.
    """

    def __init__(self, box: Sandbox, quick: bool, ours: tuple[int, int], backends: tuple[int, int]) -> None:
        self._quick = quick
        self._box = box
        self._server = (box.host, str(box.port), box.principal)
        self._pid, port = ours
        self._ours = (box.host, str(port), box.principal)
        self._servers = {
            "served": self._ours,
            "remctld": self._server,
            "backend": (box.host, str(backends[0]), box.principal),
            "thread": (box.host, str(backends[1]), box.principal),
        }
        # Each interpreter finds its own module only when no variable tells it of others.
        self._environment = {name: value for name, value in box.env.items() if not name.startswith("PYTHON")}
        self.results: dict[str, Any] = {}
        self.goals: list[Goal] = []

    def run(self, name: str) -> None:
        """Measure one of `NAMES`, print it, and add it to the results."""
        if name in WORKS:
            self._time(name, WORKS[name])
        elif name in GROWTHS:
            self._grow(name, *GROWTHS[name])
        elif name == "import":
            self._import()
        elif name == "start":
            self._start()
        elif name == "idle":
            self._hold()
        else:
            self._crowd(name)
        sys.stdout.flush()

    def versions(self) -> dict[str, str]:
        """Return the version of each module; exit when an interpreter does not find its own."""
        found = {}
        for who, python in (("ours", sys.executable), ("stock", STOCK_PYTHON)):
            code = "import remctl; print(remctl.VERSION, remctl.__file__)"
            found[who], path = self._output(python, "-I", "-c", code).split()
            if (ROOT in Path(path).parents) != (who == "ours"):
                sys.exit(f"{python} should not find the module {path}")
        return found

    def _time(self, name: str, work: Work) -> None:
        rounds = 2 if self._quick else work.rounds
        tenth = self._quick and name != "threads"
        counts = {who: count // 10 if tenth else count for who, count in work.counts.items()}
        seconds: dict[str, list[float]] = {who: [] for who in counts}
        for _ in range(rounds):
            for who, count in counts.items():
                seconds[who].append(self._seconds(who, name, count))
        rates = {who: [counts[who] / work.scale / one for one in times] for who, times in seconds.items()}
        print(f"\n{work.title}: median of {rounds} rounds (and range)" + (", a tenth of it" if tenth else ""))
        first = next(iter(rates))
        for who, each in rates.items():
            ratio = median(rates[first]) / median(each)
            factor = "" if who == first else f"  {first} / {who} = {ratio:.2f}"
            print(f"  {who:7} {median(each):9.1f} {work.unit:10} ({min(each):.1f} to {max(each):.1f}){factor}")
            if who in work.goals:
                self.goals.append(Goal(f"{work.title}: {first} / {who}", ratio, work.goals[who], True, "x"))
        if name == "threads":
            self.goals.append(Goal(work.title, median(seconds["ours"]), 1, False, "s"))
        self.results[name] = {
            who: {"count": counts[who], "seconds": seconds[who], "rate": median(rates[who]), "unit": work.unit}
            for who in counts
        }

    def _seconds(self, who: str, name: str, count: int) -> float:
        if who == "limit":
            return float(self._output(LIMIT, name, str(count), *self._server))
        if who == "client" or name == "serve-oneshot":
            return self._calls(count, self._servers["remctld" if who == "client" else who])
        if who == "asyncio":
            return float(self._asyncio(name.removeprefix("aio-"), count))
        if name in ("serve-session", "serve-backend"):
            return float(self._worker("ours", "session", count, self._servers[who]))
        return float(self._worker(who, name.removeprefix("aio-"), count))

    def _calls(self, count: int, server: tuple[str, str, str]) -> float:
        """Run the program `remctl` so many times."""
        host, port, principal = server
        begin = time.perf_counter()
        for _ in range(count):
            self._output("remctl", "-p", port, "-s", principal, host, "example", "hello")
        return time.perf_counter() - begin

    def _grow(self, name: str, title: str, count: int, contenders: tuple[str, ...]) -> None:
        count = count // 10 if self._quick else count
        print(f"\nGrowth of the process, {title}" + (", a tenth of it" if self._quick else ""))
        grown = {who: self._worker(who, name, count) for who in contenders}
        for who, values in grown.items():
            print(f"  {who:6} " + ", ".join(f"{value} {unit}" for unit, value in values.items()))
        if name == "peak":
            self.goals.append(Goal(f"{title}: memory", grown["ours"]["kibibytes"] / 1024, 16, False, "MiB"))
        else:
            self.goals.append(Goal(f"{title}: descriptors", grown["ours"]["descriptors"], 0, False, "more"))
        self.results[name] = {"count": count, **grown}

    def _import(self) -> None:
        """Time `import remctl`: alone, and with the interpreter's start and end."""
        libraries = f"{ROOT}{os.pathsep}{sysconfig.get_path('platlib')}"
        code = "import sys; print('{}.{}'.format(*sys.version_info))"
        same = self._output(STOCK_PYTHON, "-c", code).strip() == sysconfig.get_python_version()
        pythons = {"ours": STOCK_PYTHON if same else sys.executable, "stock": STOCK_PYTHON}
        code = "import time; t = time.perf_counter(); import remctl; print(time.perf_counter() - t)"
        seconds: dict[str, dict[str, list[float]]] = {
            what: {who: [] for who in pythons} for what in ("whole process", "import alone")
        }
        rounds = 5 if self._quick else 15
        for _ in range(rounds):
            for who, python in pythons.items():
                path = {"PYTHONPATH": libraries} if who == "ours" else {}
                begin = time.perf_counter()
                inside = self._output(python, "-P", "-s", "-c", code, **path)
                seconds["whole process"][who].append(time.perf_counter() - begin)
                seconds["import alone"][who].append(float(inside))
        print(f"\nimport remctl: best of {rounds}" + ("" if same else ", under different interpreters"))
        for what, times in seconds.items():
            best = {who: min(each) for who, each in times.items()}
            ratio = best["ours"] / best["stock"]
            print(f"  {what:14} ours {1000 * best['ours']:.1f} ms, stock {1000 * best['stock']:.1f} ms")
            self.goals.append(Goal(f"import remctl, {what}: ours / stock", ratio, 3, False, "x"))
        self.results["import"] = {"pythons": pythons, **seconds}

    def _start(self) -> None:
        """Time commands for which remctld starts a Python program: an empty one, and backends."""
        for name, text in STARTS.items():
            self._box.add_command("start", name, f"#!{sys.executable}\n{text}")
        seconds: dict[str, list[float]] = {name: [] for name in STARTS}
        rounds = 5 if self._quick else 25
        with remctl.Remctl(self._box.host, self._box.port, self._box.principal) as session:
            for _ in range(rounds):
                for name, times in seconds.items():
                    begin = time.perf_counter()
                    session.run(["start", name], check=True)
                    times.append(time.perf_counter() - begin)
        print(f"\nA command for which remctld starts a Python program: median of {rounds}")
        for name, times in seconds.items():
            print(f"  {name:9} {1000 * median(times):.1f} ms ({1000 * min(times):.1f} to {1000 * max(times):.1f})")
        more = 1000 * (median(seconds["backend"]) - median(seconds["empty"]))
        self.goals.append(Goal("a backend's start, more than an empty program's", more, 60, False, "ms"))
        self.results["start"] = seconds

    def _crowd(self, name: str) -> None:
        """Open very many sessions at once, over several servers; measure the whole, or the event loop meanwhile."""
        ports = [self._add_server(number) for number in range(1, SERVERS + 1)]
        count = (MANY if name == "many" else HANDSHAKES) // (10 if self._quick else 1)
        rounds = [self._asyncio(name, count, *map(str, ports)) for _ in range(3)]
        title = f"{count} asyncio sessions at once" if name == "many" else f"the loop's latency in {count} handshakes"
        print(f"\n{title}, over {SERVERS} servers: {rounds}")
        if name == "many":
            seconds = median(each["seconds"] for each in rounds)
            self.goals.append(Goal(f"{title}, each a command of 1 s", seconds, 8, False, "s"))
            peak = max(each["kibibytes"] for each in rounds) / 1024
            self.goals.append(Goal(f"{title}: memory", peak, 150, False, "MiB"))
        else:
            self.goals.append(Goal(title, 1000 * median(rounds), 50, False, "ms"))
        self.results[name] = {"count": count, "rounds": rounds}

    def _add_server(self, number: int) -> int:
        server = self._box.add_server(address=f"127.0.0.{number}")
        server.add_examples()
        return server.port

    def _hold(self) -> None:
        """Open sessions with our server, and see what it needs for each."""
        count = IDLE // 10 if self._quick else IDLE
        before = self._resident()
        command = [sys.executable, "-P", AIO_WORKER, "idle", str(count), *self._ours]
        environment = {**self._environment, "PYTHONPATH": str(ROOT / "benchmarks")}
        with subprocess.Popen(
            command, env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            held = holder.stdout.readline() == "open\n"
            each = (self._resident() - before) / count
            answered = holder.communicate("")[0]
        if not held or json.loads(answered) != count:
            sys.exit(f"our server did not hold {count} sessions")
        print(f"\n{count} idle sessions on our server: {each:.1f} KiB each in the server")
        self.goals.append(Goal("idle sessions held at once by our server", count, count, True, ""))
        self.results["idle"] = {"count": count, "kibibytes": each}

    def _resident(self) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def _worker(self, who: str, work: str, count: int, server: tuple[str, str, str] | None = None) -> Any:
        python = sys.executable if who == "ours" else STOCK_PYTHON
        return json.loads(self._output(python, "-I", WORKER, work, str(count), *(server or self._server)))

    def _asyncio(self, work: str, count: int, *ports: str) -> Any:
        path = {"PYTHONPATH": str(ROOT / "benchmarks")}
        return json.loads(
            self._output(sys.executable, "-P", AIO_WORKER, work, str(count), *self._server, *ports, **path)
        )

    def _output(self, *command: str, **environment: str) -> str:
        everything = {**self._environment, **environment}
        answer = subprocess.run(command, env=everything, cwd="/", stdout=subprocess.PIPE, text=True)
        if answer.returncode != 0:
            sys.exit(f"status {answer.returncode} of {' '.join(command)}")
        return answer.stdout


@contextlib.contextmanager
def backends(box: Sandbox) -> Iterator[tuple[int, int]]:
    """Run `backends.py`; gives its ports."""
    command = [sys.executable, BACKENDS, box.principal, box.keytab]
    with subprocess.Popen(command, env=box.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        coroutine, blocking = map(int, process.stdout.readline().split())
        yield coroutine, blocking
        process.communicate()


@contextlib.contextmanager
def our_server(box: Sandbox) -> Iterator[tuple[int, int]]:
    """Run our server in a process of its own; gives its pid and its port."""
    command = [sys.executable, "-m", "remctl.testing.example"]
    command += ["--principal", box.principal, "--keytab", box.keytab, "--connections", str(2 * IDLE)]
    with subprocess.Popen(command, env=box.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.communicate()


def machine() -> dict[str, Any]:
    """Return what the measurements were made on."""
    libremctl = subprocess.run(["pkg-config", "--modversion", "libremctl"], capture_output=True, text=True, check=True)
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libremctl": libremctl.stdout.strip(),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure this package against the stock binding and plain C.")
    parser.add_argument("--quick", action="store_true", help="do about a tenth, to see whether it works")
    parser.add_argument("--only", metavar="NAME,...", help=f"measure these only: {', '.join(NAMES)}")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else NAMES
    if unknown := set(names).difference(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    with Sandbox() as box:
        box.add_examples()
        with our_server(box) as ours, backends(box) as ports:
            bench = Bench(box, options.quick, ours, ports)
            about = {**machine(), "quick": options.quick, "versions": bench.versions()}
            print(", ".join(f"{name}: {value}" for name, value in about.items()))
            jobs = unattended.Unattended(box, options.quick)
            fleet = robots.Robots(options.quick)
            many = tickets.ManyTickets(options.quick)
            others = dict.fromkeys(unattended.NAMES, jobs.run) | dict.fromkeys(robots.NAMES, fleet.run)
            wide = many_hosts.ManyHosts(options.quick)
            others |= dict.fromkeys(tickets.NAMES, many.run) | dict.fromkeys(many_hosts.NAMES, wide.run)
            for name in names:
                others.get(name, bench.run)(name)
            results = bench.results | jobs.results | fleet.results | many.results | wide.results
            found = bench.goals + jobs.goals + fleet.goals + many.goals + wide.goals
    print()
    for goal in found:
        print(goal)
    RESULTS.parent.mkdir(exist_ok=True)
    goals = [{**goal._asdict(), "reached": goal.reached} for goal in found]
    RESULTS.write_text(json.dumps({"about": about, "results": results, "goals": goals}, indent=2) + "\n")
    print(f"\nAll measurements: {RESULTS}")


if __name__ == "__main__":
    main()
