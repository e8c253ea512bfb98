"""From a host name to a TCP connection, without blocking the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import remctl
from aio.running import asynchronous, descriptors, until
from remctl.aio import Remctl
from remctl.aio._offload import Threads

ServerArguments = tuple[str, int, str]

PROMPT = 0.5
"""Seconds by which a call may outlive its time limit."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that sets the addresses of the name "many.invalid"."""

    def set_addresses(*addresses: str) -> None:
        real = socket.getaddrinfo

        def lookup(host: Any, *arguments: Any, **named: Any) -> list[Any]:
            if host != b"many.invalid":
                return real(host, *arguments, **named)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)

    return set_addresses


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch, threads: Threads) -> Iterator[threading.Event]:
    """Have a name service that answers only after this event is set."""
    answer = threading.Event()
    real = socket.getaddrinfo

    def lookup(*arguments: Any, **named: Any) -> Any:
        answer.wait(30)
        return real(*arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield answer
    answer.set()


class TestAddresses:
    @asynchronous
    async def test_are_tried_one_after_the_other(self, names: Callable[..., None], server: ServerArguments) -> None:
        names("127.0.0.8", "127.0.0.1")
        async with Remctl("many.invalid", server[1], server[2], timeout=20) as session:
            assert (await session.run(["example", "hello"])).status == 0

    @asynchronous
    async def test_that_all_fail_are_all_named(self, names: Callable[..., None]) -> None:
        names("127.0.0.8", "127.0.0.9")
        with pytest.raises(remctl.RemctlConnectionError) as caught:
            await remctl.aio.remctl("many.invalid", 1, command=["x"])
        assert caught.value.reason == (
            "cannot connect: 127.0.0.8 port 1: Connection refused; 127.0.0.9 port 1: Connection refused"
        )
        assert caught.value.errno == errno.ECONNREFUSED

    @asynchronous
    async def test_one_that_does_not_answer_leaves_time_for_the_others(
        self, full: int, names: Callable[..., None], server: ServerArguments
    ) -> None:
        names("127.0.0.1", "127.0.0.8")
        begin = asyncio.get_running_loop().time()
        with pytest.raises(
            remctl.RemctlConnectionError, match=r"127.0.0.1 port .* timed out; 127.0.0.8 port .* refused"
        ):
            await remctl.aio.remctl("many.invalid", full, command=["x"], timeout=0.6)
        assert 0.25 <= asyncio.get_running_loop().time() - begin < 0.3 + PROMPT

    @asynchronous
    async def test_a_name_that_is_none(self) -> None:
        for name in ("x" * 300, "a..b\u00e9"):
            with pytest.raises((ValueError, remctl.RemctlConnectionError)):
                await remctl.aio.remctl(name, 1, command=["x"])


class TestWaiting:
    @asynchronous
    async def test_for_a_connection_has_a_time_limit(self, full: int) -> None:
        begin = asyncio.get_running_loop().time()
        with pytest.raises(remctl.RemctlError) as caught:
            await remctl.aio.remctl("127.0.0.1", full, command=["x"], timeout=0.3)
        assert asyncio.get_running_loop().time() - begin < 0.3 + PROMPT
        assert isinstance(caught.value, remctl.RemctlTimeoutError | remctl.RemctlConnectionError)
        assert not caught.value.sent

    @asynchronous
    async def test_for_a_connection_can_be_cancelled_and_leaves_no_descriptor(self, full: int) -> None:
        before = descriptors()
        session = Remctl()
        opening = asyncio.ensure_future(session.open("127.0.0.1", full))
        await until(lambda: descriptors() > before)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        await until(lambda: descriptors() <= before)

    @asynchronous
    async def test_for_the_name_service_has_a_time_limit_and_blocks_nobody(self, slow_names: threading.Event) -> None:
        begin = asyncio.get_running_loop().time()
        opening = asyncio.ensure_future(remctl.aio.remctl("localhost", 1, command=["x"], timeout=0.3))
        turns = 0
        while not opening.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert isinstance(opening.exception(), remctl.RemctlTimeoutError)
        assert asyncio.get_running_loop().time() - begin < 0.3 + PROMPT
        assert turns > 10

    @asynchronous
    async def test_for_the_name_service_can_be_cancelled_and_closed(
        self, slow_names: threading.Event, server: ServerArguments
    ) -> None:
        session = Remctl()
        opening = asyncio.ensure_future(session.open(*server))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        opening = asyncio.ensure_future(session.open(*server))
        while not session._handle.opened()._lock.locked():
            await asyncio.sleep(0)
        await session.close()
        with pytest.raises(remctl.RemctlNotOpenedError, match="it was closed while opening"):
            await opening
        slow_names.set()
        await session.open(*server)
        assert (await session.run(["example", "hello"])).status == 0
        await session.close()


@asynchronous
async def test_asks_no_name_service_for_an_address(server: ServerArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    async with Remctl("127.0.0.1", *server[1:]) as session:
        assert (await session.run(["example", "hello"])).status == 0


@asynchronous
async def test_a_name_service_that_cannot_be_asked_is_an_error_of_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(
        remctl.RemctlConnectionError, match="the name service cannot be asked: Too many open files"
    ) as caught:
        await Remctl().open("localhost", 4373)
    assert caught.value.errno == errno.EMFILE
