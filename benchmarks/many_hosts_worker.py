"""One measurement of a command on many hosts, in a process of its own.

    many_hosts_worker.py asyncio|blocking|processes|threads PORT    a command on the hosts that standard input names
    many_hosts_worker.py memory WAY COUNT                           so many hosts, in memory
    many_hosts_worker.py serve PORT KEYTABS                         a server on each host that has a key

Prints JSON: how many hosts have answered, and seconds; or microseconds for each host, and KiB.  `threads` does with
whatever `remctl` module the interpreter finds; the others are about ours.  `serve` finds a keytab for each host in the
folder KEYTABS, under the host's name, prints a line when all listen, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import remctl

COMMAND: Final = ("example", "hello")
ANSWER: Final = b"hello world\n"

THREADS: Final = 64
PROCESSES: Final = 2


def measure_asyncio(hosts: Sequence[str], port: int) -> int:
    from remctl.aio import run_many

    async def main() -> int:
        answered = 0
        async with run_many(hosts, COMMAND, port=port) as run:
            async for result in run:
                answered += result.stdout == ANSWER
        return answered

    return asyncio.run(main())


def measure_blocking(hosts: Sequence[str], port: int) -> int:
    with remctl.run_many(hosts, COMMAND, port=port) as run:
        return sum(result.stdout == ANSWER for result in run)


def measure_processes(hosts: Sequence[str], port: int) -> int:
    with (
        ProcessPoolExecutor(PROCESSES) as executor,
        remctl.run_many(hosts, COMMAND, port=port, executor=executor) as run,
    ):
        return sum(result.stdout == ANSWER for result in run)


def measure_threads(hosts: Sequence[str], port: int) -> int:
    def answers(host: str) -> bool:
        with contextlib.suppress(remctl.RemctlError):
            return bool(remctl.remctl(host, port, None, COMMAND).stdout == ANSWER)
        return False

    with ThreadPoolExecutor(THREADS) as executor:
        return sum(executor.map(answers, hosts))


WAYS: Final[dict[str, dict[str, Any]]] = {
    "completed": {},
    "ordered": {"ordered": True},
    "retried": {"retries": 1},
    "blocking": {},
    "kept": {},
}
"""What is special about a run in memory: its arguments, and what is done with the results."""


def measure_memory(way: str, count: int) -> dict[str, float]:
    """Run a command on hosts that are not there; every one answers, in `retried` the second time."""
    from remctl.exceptions import RemctlConnectionError
    from remctl.fanout import _blocking, aio
    from remctl.fanout._options import check
    from remctl.fanout._visit import Visit

    refused = set[int]()

    async def transport(visit: Visit) -> None:
        await asyncio.sleep(0)
        index = visit.target.index
        if way == "retried" and index not in refused:
            refused.add(index)
            raise RemctlConnectionError("cannot connect: Connection refused", errno=111)
        refused.discard(index)
        await visit.connected(4373)
        visit.sending()
        await asyncio.sleep(0)
        visit.output(remctl.Stream.STDOUT, ANSWER)
        visit.status = 0

    def new_run(count: int) -> aio.Run:
        hosts = (f"host{number}.example.org" for number in range(count))
        return aio.Run(*check(hosts, COMMAND, WAYS[way]), transport)  # type: ignore[arg-type]

    async def all_of(run: AsyncIterator[Any]) -> int:
        if way == "kept":
            return len([result async for result in run])
        answered = 0
        async for result in run:
            answered += result.status == 0
        return answered

    def work(count: int) -> int:
        if way == "blocking":
            with _blocking.Run(new_run(count)) as run:
                return sum(result.status == 0 for result in run)
        return asyncio.run(all_of(new_run(count)))

    assert work(100) == 100  # all is loaded, and warm
    before, begin = memory("VmRSS"), time.process_time()
    assert work(count) == count
    return {"microseconds": (time.process_time() - begin) / count * 1e6, "kibibytes": memory("VmHWM") - before}


def memory(field: str) -> int:
    """Return a number of KiB from the system: VmRSS is what the process has now, VmHWM the most it ever had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


async def serve(port: int, keytabs: Path) -> None:
    from remctl.aio import serve
    from remctl.testing.example import example

    async with contextlib.AsyncExitStack() as servers:
        for keytab in keytabs.iterdir():
            host = keytab.name
            await servers.enter_async_context(serve(example, host, port, principal=f"host/{host}", keytab=keytab))
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run the command line."""
    work, *arguments = sys.argv[1:]
    if work == "serve":
        port, keytabs = arguments
        asyncio.run(serve(int(port), Path(keytabs)))
        return
    if work == "memory":
        way, count = arguments
        print(json.dumps(measure_memory(way, int(count))))
        return
    hosts = sys.stdin.read().split()
    if work != "threads":
        import remctl.aio
        import remctl.fanout  # noqa: F401  # which run_many imports when it is called
    begin = time.perf_counter()
    answered = globals()[f"measure_{work}"](hosts, int(arguments[0]))
    print(json.dumps({"answered": answered, "seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main()
