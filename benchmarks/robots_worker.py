"""Robots that do nothing: a process that has very many of them, on one event loop, each with a connection of its own.

    robots_worker.py PORT PACE

Reads the robots' GUIDs as JSON, in one line.  All keep to the robots' interface as the agent does: a heartbeat every
INTERVAL, and if there is a job, it is taken, begun, run for a while or not at all, and ended; then they ask again.
INTERVAL and the other times are PACE times what is said below.  Then commands, one in a
line, each answered by a line of JSON until the input ends:

    begin    forget what was measured
    end      what was measured since
    jobs     how often each job was taken and begun

Connections are kept open for as long as the server does so.  An answer of 503 is one to ask again after, as are
connections that are cut.  Any other answer that is not expected ends all.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

INTERVAL: Final = 10.0
"""Seconds between two heartbeats of a robot that has nothing to do."""

RUN: Final = 1.0
"""Seconds for which every other job runs; the others end at once."""

BREATH: Final = 1.0
"""Seconds between two heartbeats at the least, however short the jobs."""

AGAIN: Final = 5.0
"""Seconds after which to ask again when the server was busy."""

HEARTBEAT: Final = "POST /api/robot/heartbeat"
CONSUME: Final = "POST /api/robot/consumeNextJob"
UPDATE: Final = "PUT /api/job/update"

READY, IN_PROGRESS, SUCCESS = 2, 8, 4
NO_JOB: Final = 102


class Measured:
    """What is seen while one measures."""

    def __init__(self) -> None:
        self.since = time.perf_counter()
        self.cpu = time.process_time()
        self.beats: list[float] = []
        """Milliseconds."""
        self.given = 0
        self.vain = 0
        """How often the job was gone when it was asked for."""
        self.refused = 0
        """How often the server was busy, or cut a connection."""

    def summary(self) -> dict[str, Any]:
        """Return it all."""
        seconds = time.perf_counter() - self.since
        found = {"seconds": seconds, "beats": self.beats, "given": self.given, "vain": self.vain}
        return {**found, "refused": self.refused, "robots": (time.process_time() - self.cpu) / seconds}


class Connection(asyncio.Protocol):
    """HTTP/1.1 to the server, one request at a time."""

    def __init__(self) -> None:
        self.open = True
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer.

        Raises:
            ConnectionError: the connection was cut.
        """
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete or len(body) < int(_LENGTH.findall(head)[0]):
            return
        self._received = b""
        assert self._transport is not None
        if self._answer is None or self._answer.done():
            return  # its robot has been cancelled
        if _CLOSE.search(head):
            self.open = False
            self._transport.close()
        self._answer.set_result((int(head.split(b" ", 2)[1]), body))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server has closed the connection"))


_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Fleet:
    """What all robots share.

    Args:
        port: the server's.
        pace: what the times are multiplied by.
    """

    def __init__(self, port: int, pace: float) -> None:
        self.port = port
        self.pace = pace
        self.choice = random.Random(1)
        self.measured = Measured()
        self.taken: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()

    def answer(self, command: str) -> dict[str, Any]:
        """Do what a command wants."""
        if command == "jobs":
            return {"taken": self.taken, "begun": self.begun}
        if command == "end":
            return self.measured.summary()
        self.measured = Measured()
        return {}


class Robot:
    """A robot.

    Args:
        fleet: which it is of.
        number: its own.
        guid: what it signs in with.
    """

    def __init__(self, fleet: Fleet, number: int, guid: str) -> None:
        self._fleet = fleet
        self._key = base64.b64encode(guid.encode()).decode()
        self._machine = {
            "Machine": f"pc{number}",
            "IP": f"10.0.{number // 256}.{number % 256}",
            "MAC": "02:00:00:00:00",
        }
        self._connection: Connection | None = None

    async def run(self, delay: float) -> None:
        """Work for ever, after a while."""
        await asyncio.sleep(delay)
        ready = {**self._machine, "Status": READY, "JobGUID": "", "JobName": "", "JobType": 1}
        while True:
            begin = time.perf_counter()
            heard = await self._ask(HEARTBEAT, ready)
            self._fleet.measured.beats.append((time.perf_counter() - begin) * 1e3)
            worked = heard["HasNewJob"] == 1 and await self._work()
            pause = (BREATH if worked else INTERVAL) * self._fleet.pace
            await asyncio.sleep(begin + pause - time.perf_counter())

    async def _work(self) -> bool:
        """Take a job and do it; return whether there was one."""
        answer = await self._ask(CONSUME, {})
        if answer["ConsumeJobErrorCode"] == NO_JOB:
            self._fleet.measured.vain += 1
            return False
        job = json.loads(answer["Job"])["GUID"]
        self._fleet.measured.given += 1
        self._fleet.taken[job] += 1
        await self._ask(UPDATE, {"guid": job, "status": IN_PROGRESS})
        self._fleet.begun[job] += 1
        await asyncio.sleep(self._fleet.choice.choice((0.0, RUN * self._fleet.pace)))
        await self._ask(UPDATE, {"guid": job, "status": SUCCESS})
        return True

    async def _ask(self, call: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """Ask until there is an answer."""
        body = urlencode(fields)
        request = (
            f"{call} HTTP/1.1\r\nHost: 127.0.0.1:{self._fleet.port}\r\nAuthorization: Basic {self._key}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        while True:
            try:
                if self._connection is None or not self._connection.open:
                    loop = asyncio.get_running_loop()
                    _, self._connection = await loop.create_connection(Connection, "127.0.0.1", self._fleet.port)
                status, answer = await self._connection.ask(request.encode())
            except ConnectionError:
                status, answer = 503, b""
            if status == 503:
                self._fleet.measured.refused += 1
                await asyncio.sleep(AGAIN * self._fleet.pace)
                continue
            found: dict[str, Any] = json.loads(answer)
            if status != 200 or (found["ErrorText"] and found.get("ConsumeJobErrorCode") != NO_JOB):
                raise RuntimeError(f"{call}: {status} {answer!r}")
            return found


async def work(port: int, pace: float) -> None:
    fleet = Fleet(port, pace)
    commands = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    guids = json.loads(await commands.readline())
    between = INTERVAL * pace / len(guids)
    async with asyncio.TaskGroup() as group:
        robots = [
            group.create_task(Robot(fleet, number, guid).run(number * between)) for number, guid in enumerate(guids)
        ]
        while command := (await commands.readline()).decode().strip():
            print(json.dumps(fleet.answer(command)), flush=True)
        for robot in robots:
            robot.cancel()


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]), float(sys.argv[2])))
