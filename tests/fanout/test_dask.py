"""Runs on a Dask cluster: two worker processes on this machine, one of which may die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aio.running import asynchronous
from distributed import Client, LocalCluster
from serving import ServerThread

import remctl
from fanout.memory import all_of
from remctl.aio import Request
from remctl.fanout import Host, HostState
from remctl.testing import Sandbox

Serving = Callable[..., ServerThread]


@pytest.fixture(scope="module")
def cluster(box: Sandbox) -> Iterator[Any]:
    """Give a cluster with two workers, which are in the sandbox's realm."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """Give a client of the cluster, whose workers are both there: one that was killed is started again."""
    with Client(cluster) as client:
        client.wait_for_workers(2)
        yield client


def hosts(number: int) -> list[Host]:
    return [Host(f"127.0.1.{each}", command=["x", str(each)]) for each in range(1, number + 1)]


class Counting:
    """A handler that counts how often it was called for each host."""

    def __init__(self, held: str = "") -> None:
        self.calls: Counter[str] = Counter()
        self._held = held

    async def __call__(self, request: Request) -> int:
        """Answer; the first call for one of the hosts waits for ever."""
        name = request.command[1].decode()
        self.calls[name] += 1
        if name == self._held and self.calls[name] == 1:
            await asyncio.Event().wait()
        return 0


def test_the_workers_visit_the_hosts(client: Any, everywhere: Serving, box: Sandbox) -> None:
    working: set[bytes] = set()
    both = asyncio.Event()

    async def meet(request: Request) -> int:
        working.add(request.command[1])
        if len(working) == 2:
            both.set()
        await both.wait()
        return int(request.command[1]) % 2

    run = remctl.run_many(
        [*hosts(20), "no-such-host.invalid"],
        ["x", "0"],
        port=everywhere(meet).port,
        principal=box.principal,
        executor=client.get_executor(),
        shard=3,
        running=1,
        ordered=True,
        backoff=0.01,
    )
    results = list(run)
    assert [result.status for result in results] == [1, 0] * 10 + [None]
    assert results[20].state == "dns"
    assert [attempt.state for attempt in results[20].attempts] == ["dns"]


def test_the_hosts_of_a_worker_that_dies_are_lost_and_not_visited_again(
    client: Any, everywhere: Serving, box: Sandbox
) -> None:
    handler = Counting(held="7")
    run = remctl.run_many(
        hosts(20),
        port=everywhere(handler).port,
        principal=box.principal,
        executor=client.get_executor(),
        shard=5,
    )
    with run:
        others = [next(run) for _ in range(15)]
        (worker,) = [address for address, tasks in client.processing().items() if tasks]
        os.kill(client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
        lost = list(run)
    assert {result.state for result in others} == {HostState.OK}
    assert {result.host for result in lost} == {f"127.0.1.{each}" for each in range(6, 11)}
    assert {(result.state, result.may_be_running) for result in lost} == {(HostState.LOST, True)}
    assert "its worker has died" in str(lost[0].error)
    assert set(handler.calls.values()) == {1}


@asynchronous
async def test_two_runs_alike_are_two_runs(client: Any, everywhere: Serving, box: Sandbox) -> None:
    handler = Counting()
    port, executor = everywhere(handler).port, client.get_executor()

    def run() -> Any:
        return all_of(remctl.aio.run_many(hosts(10), port=port, principal=box.principal, executor=executor))

    for results in await asyncio.gather(run(), run()):
        assert {result.state for result in results} == {HostState.OK}
    assert set(handler.calls.values()) == {2}


def test_threads_beside_a_client_are_no_workers_of_it(client: Any, everywhere: Serving, box: Sandbox) -> None:
    port = everywhere(Counting()).port
    with ThreadPoolExecutor(1) as executor:
        run = remctl.run_many(hosts(2), port=port, principal=box.principal, executor=executor)
        assert {result.state for result in run} == {HostState.OK}
