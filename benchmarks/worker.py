"""One measurement with the `remctl` module that the running interpreter finds: ours, or the stock binding.

    worker.py WORK COUNT HOST PORT PRINCIPAL

Works that take time (they print seconds): session, oneshot, stream, threads.  Works that show growth (they print what
the process has more than before): peak, commands, sessions.  Prints JSON.

Uses `run()` and `stream()` where the module has them, and else `command()` and `output()`.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import remctl

Server = tuple[str, int, str]


def run(session: Any, words: list[str]) -> int:
    """Run a command and return how many bytes of output came; the way that each binding recommends."""
    if hasattr(session, "run"):
        return len(session.run(words).stdout)
    return stream(session, words)


def stream(session: Any, words: list[str]) -> int:
    """Run a command token by token; the way that each binding recommends."""
    if hasattr(session, "stream"):
        tokens = session.stream(words)
    else:
        session.command(words)
        tokens = iter(session.output, None)
    total = 0
    for kind, data, _, _, _ in tokens:
        if kind == "status":
            break
        if kind != "output":
            raise SystemExit(f"unexpected token: {kind} {data!r}")
        total += len(data)
    return total


def measure_session(count: int, server: Server) -> float:
    session = remctl.Remctl(*server)
    begin = time.perf_counter()
    for _ in range(count):
        assert run(session, ["example", "hello"]) == 12
    return time.perf_counter() - begin


def measure_oneshot(count: int, server: Server) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        assert remctl.remctl(*server, command=["example", "hello"]).stdout == b"hello world\n"
    return time.perf_counter() - begin


def measure_stream(count: int, server: Server) -> float:
    session = remctl.Remctl(*server)
    begin = time.perf_counter()
    assert stream(session, ["example", "bytes", str(count)]) == count
    return time.perf_counter() - begin


def measure_threads(count: int, server: Server) -> float:
    statuses = []

    def call() -> None:
        statuses.append(remctl.remctl(*server, command=["example", "sleep", "0.5"]).status)

    threads = [threading.Thread(target=call) for _ in range(count)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    assert statuses == [0] * count
    return seconds


def memory(field: str) -> int:
    """Return a number of KiB from the system: VmRSS is what the process has now, VmHWM the most it ever had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def measure_peak(count: int, server: Server) -> dict[str, int]:
    session = remctl.Remctl(*server)
    run(session, ["example", "hello"])
    before = memory("VmRSS")
    assert stream(session, ["example", "bytes", str(count)]) == count
    return {"kibibytes": memory("VmHWM") - before}


def measure_commands(count: int, server: Server) -> dict[str, int]:
    session = remctl.Remctl(*server)

    def work(count: int) -> None:
        for _ in range(count):
            run(session, ["example", "hello"])

    return growth(work, count)


def measure_sessions(count: int, server: Server) -> dict[str, int]:
    def work(count: int) -> None:
        for _ in range(count):
            run(remctl.Remctl(*server), ["example", "hello"])

    return growth(work, count)


def growth(work: Any, count: int) -> dict[str, int]:
    """Do the work once to warm up, a tenth of it, and then whole."""
    work(max(count // 10, 1))
    files, kibibytes = descriptors(), memory("VmRSS")
    work(count)
    return {"descriptors": descriptors() - files, "kibibytes": memory("VmRSS") - kibibytes}


if __name__ == "__main__":
    work, count, host, port, principal = sys.argv[1:]
    print(json.dumps(globals()[f"measure_{work}"](int(count), (host, int(port), principal))))
