"""What `make bench` runs: this package, the stock binding, the C client and the C limit side by side.

All work against one server and in turns, so that whatever else the machine does meets all alike.  Prints the medians
and the goals, and writes every single measurement to benchmarks/results/latest.json.

    ours     worker.py with this interpreter
    stock    worker.py with /usr/bin/python3 and Debian's python3-pyremctl
    client   the program `remctl`, a process for each call
    limit    limit.c: a C program on the same libremctl that acknowledges at once
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from remctl.testing import Sandbox

ROOT: Final = Path(__file__).resolve().parent.parent
WORKER: Final = str(ROOT / "benchmarks" / "worker.py")
LIMIT: Final = str(ROOT / "build" / "limit")
RESULTS: Final = ROOT / "benchmarks" / "results" / "latest.json"
STOCK_PYTHON: Final = "/usr/bin/python3"
MEGABYTE: Final = 1_000_000


class Work(NamedTuple):
    """Something that takes time, done by several implementations."""

    title: str
    rounds: int
    counts: Mapping[str, int]
    """How much of it each implementation does in a round."""
    unit: str
    goals: Mapping[str, float] = MappingProxyType({})
    """How many times as fast as another implementation ours shall be."""
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
}
GROWTHS: Final = {
    "peak": ("streaming 1 GB of output", 1000 * MEGABYTE, ("ours", "stock")),
    "commands": ("10,000 commands over one session", 10_000, ("ours",)),
    "sessions": ("1,000 sessions", 1_000, ("ours",)),
}
NAMES: Final = (*WORKS, *GROWTHS, "import")


class Goal(NamedTuple):
    """A goal, and what was measured."""

    title: str
    value: float
    bound: float
    at_least: bool
    unit: str

    @property
    def reached(self) -> bool:
        """Whether it was reached; nothing is rounded."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        toward_worse = math.floor if self.at_least else math.ceil
        return "{:52} {:>9g} {:5} {} {:<6g} {}".format(
            self.title,
            toward_worse(self.value * 100) / 100,
            self.unit,
            ">=" if self.at_least else "<=",
            self.bound,
            "reached" if self.reached else "MISSED",
        )


class Bench:
    """One run of the benchmarks.

    Args:
        box: the running sandbox.
        quick: whether to do about a tenth of everything, which shows that it works rather than how fast.
    """

    def __init__(self, box: Sandbox, quick: bool) -> None:
        self._quick = quick
        self._server = (box.host, str(box.port), box.principal)
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
        else:
            self._import()
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
        for who, each in rates.items():
            ratio = median(rates["ours"]) / median(each)
            factor = "" if who == "ours" else f"  ours / {who} = {ratio:.2f}"
            print(f"  {who:6} {median(each):9.1f} {work.unit:10} ({min(each):.1f} to {max(each):.1f}){factor}")
            if who in work.goals:
                self.goals.append(Goal(f"{work.title}: ours / {who}", ratio, work.goals[who], True, "x"))
        if name == "threads":
            self.goals.append(Goal(work.title, median(seconds["ours"]), 1, False, "s"))
        self.results[name] = {
            who: {"count": counts[who], "seconds": seconds[who], "rate": median(rates[who]), "unit": work.unit}
            for who in counts
        }

    def _seconds(self, who: str, name: str, count: int) -> float:
        if who == "limit":
            return float(self._output(LIMIT, name, str(count), *self._server))
        if who == "client":
            host, port, principal = self._server
            begin = time.perf_counter()
            for _ in range(count):
                self._output("remctl", "-p", port, "-s", principal, host, "example", "hello")
            return time.perf_counter() - begin
        return float(self._worker(who, name, count))

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

    def _worker(self, who: str, work: str, count: int) -> Any:
        python = sys.executable if who == "ours" else STOCK_PYTHON
        return json.loads(self._output(python, "-I", WORKER, work, str(count), *self._server))

    def _output(self, *command: str, **environment: str) -> str:
        everything = {**self._environment, **environment}
        answer = subprocess.run(command, env=everything, cwd="/", stdout=subprocess.PIPE, text=True)
        if answer.returncode != 0:
            sys.exit(f"status {answer.returncode} of {' '.join(command)}")
        return answer.stdout


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
        bench = Bench(box, options.quick)
        about = {**machine(), "quick": options.quick, "versions": bench.versions()}
        print(", ".join(f"{name}: {value}" for name, value in about.items()))
        for name in names:
            bench.run(name)
    print()
    for goal in bench.goals:
        print(goal)
    RESULTS.parent.mkdir(exist_ok=True)
    goals = [{**goal._asdict(), "reached": goal.reached} for goal in bench.goals]
    RESULTS.write_text(json.dumps({"about": about, "results": bench.results, "goals": goals}, indent=2) + "\n")
    print(f"\nAll measurements: {RESULTS}")


if __name__ == "__main__":
    main()
