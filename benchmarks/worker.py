"""One measurement with the `remctl` module that the running interpreter finds: ours, or the stock binding.

    worker.py session|oneshot|stream|threads COUNT HOST PORT PRINCIPAL

Prints the seconds it took.  Uses the stock binding's interface alone where both are measured with the same code, and
`run()` where ours has something that the stock one has not.
"""

import sys
import threading
import time

import remctl


def run(session, words):
    """Run a command and return how many bytes of output came; the way that each binding recommends."""
    if hasattr(session, "run"):
        result = session.run(words)
        return len(result.stdout)
    return stream(session, words)


def stream(session, words):
    """Run a command token by token, as both bindings do it."""
    session.command(words)
    total = 0
    while True:
        kind, data, _, _, _ = session.output()
        if kind == "output":
            total += len(data)
        elif kind == "status":
            return total
        else:
            raise SystemExit(f"unexpected token: {kind} {data!r}")


def measure_session(count, server):
    session = remctl.Remctl(*server)
    begin = time.perf_counter()
    for _ in range(count):
        assert run(session, ["example", "hello"]) == 12
    return time.perf_counter() - begin


def measure_oneshot(count, server):
    begin = time.perf_counter()
    for _ in range(count):
        assert remctl.remctl(*server, ["example", "hello"]).stdout == b"hello world\n"
    return time.perf_counter() - begin


def measure_stream(count, server):
    session = remctl.Remctl(*server)
    begin = time.perf_counter()
    assert stream(session, ["example", "bytes", str(count)]) == count
    return time.perf_counter() - begin


def measure_threads(count, server):
    threads = [
        threading.Thread(target=lambda: remctl.remctl(*server, ["example", "sleep", "0.5"])) for _ in range(count)
    ]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


if __name__ == "__main__":
    work, count, host, port, principal = sys.argv[1:]
    print(globals()[f"measure_{work}"](int(count), (host, int(port), principal)))
