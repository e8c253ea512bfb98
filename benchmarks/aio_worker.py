"""One measurement with the asyncio client of this package.

    aio_worker.py WORK COUNT HOST PORT PRINCIPAL [PORT...]

Works that take time (they print seconds): session, stream.  Works on many servers, those with the given ports on
127.0.0.1, 127.0.0.2...: many (so many sessions at once, each with a command of one second; prints seconds and peak
memory), latency (prints the longest time, in seconds, that the event loop was held up while so many were opened).  And
idle: opens so many sessions, says so, and holds them until its standard input ends.  Prints JSON.
"""

import asyncio
import json
import sys
import time
from typing import Any

from worker import memory

from remctl.aio import Remctl
from remctl.types import OutputType

Server = tuple[str, int, str]

TICK = 0.002
"""Seconds between two looks at the clock."""


async def measure_session(count: int, server: Server, _: list[int]) -> float:
    async with Remctl(*server) as session:
        begin = time.perf_counter()
        for _each in range(count):
            assert (await session.run(["example", "hello"])).stdout == b"hello world\n"
        return time.perf_counter() - begin


async def measure_stream(count: int, server: Server, _: list[int]) -> float:
    async with Remctl(*server) as session:
        begin = time.perf_counter()
        total = 0
        async for token in session.stream(["example", "bytes", count]):
            if token.type is OutputType.OUTPUT:
                total += len(token.output or b"")
        assert total == count
        return time.perf_counter() - begin


async def measure_many(count: int, server: Server, ports: list[int]) -> dict[str, float]:
    async def one(number: int) -> None:
        place = number % len(ports)
        async with Remctl(f"127.0.0.{place + 1}", ports[place], server[2]) as session:
            assert (await session.run(["example", "sleep", 1])).status == 0

    begin = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    return {"seconds": time.perf_counter() - begin, "kibibytes": memory("VmHWM")}


async def measure_latency(count: int, server: Server, ports: list[int]) -> float:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        before = time.perf_counter()
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            longest = max(longest, now - before - TICK)
            before = now

    async def one(number: int) -> None:
        place = number % len(ports)
        async with Remctl(f"127.0.0.{place + 1}", ports[place], server[2]) as session:
            await session.noop()

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(one(number) for number in range(count)))
    watcher.cancel()
    return longest


async def measure_idle(count: int, server: Server, _: list[int]) -> int:
    opening = asyncio.Semaphore(100)
    sessions = [Remctl(*server) for _each in range(count)]

    async def one(session: Remctl) -> None:
        async with opening:
            await session.__aenter__()

    await asyncio.gather(*(one(session) for session in sessions))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(session.noop() for session in sessions))
    await asyncio.gather(*(session.close() for session in sessions))
    return count


def main() -> None:
    work, count, host, port, principal, *ports = sys.argv[1:]
    measure: Any = globals()[f"measure_{work}"]
    print(json.dumps(asyncio.run(measure(int(count), (host, int(port), principal), [int(each) for each in ports]))))


if __name__ == "__main__":
    main()
