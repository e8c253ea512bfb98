"""Both faces behind one interface, so that the same tests drive them.

`Blocking` is the package's own interface; `Aio` runs the asyncio face on an event loop in a thread of its own, and
looks for what it has left behind there when it ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import remctl
import remctl.aio
from remctl import Output, RemctlSimpleResult, Result
from remctl.session import Word

T = TypeVar("T")


class Session(Protocol):
    """What the two classes named `Remctl` have in common, in blocking form."""

    @property
    def opened(self) -> bool: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def protocol(self) -> int: ...
    def error(self) -> str: ...
    def set_timeout(self, timeout: float | None) -> None: ...
    def set_ccache(self, ccache: str | None) -> None: ...
    def set_source_ip(self, source: str | None) -> None: ...
    def open(self, host: str, port: int | str | None = None, principal: str | None = None) -> None: ...
    def close(self) -> None: ...
    def run(self, words: Iterable[Word], *, timeout: float | None = None, check: bool = False) -> Result: ...
    def stream(self, words: Iterable[Word], *, timeout: float | None = None) -> Iterator[Output]: ...
    def command(self, words: Iterable[Word]) -> None: ...
    def output(self) -> Output: ...
    def noop(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Face(Protocol):
    """The one-shot call, and how to make a session."""

    @property
    def name(self) -> str: ...
    @property
    def remctl(self) -> Callable[..., RemctlSimpleResult]: ...
    @property
    def session(self) -> Callable[..., Session]: ...


class Blocking:
    """The blocking face."""

    name = "remctl.Remctl"

    session = remctl.Remctl
    remctl = staticmethod(remctl.remctl)


class Aio:
    """The asyncio face; starts its loop with `with`, and fails at the end if something is left on it."""

    name = "remctl.aio.Remctl"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._complaints: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _, context: self._complaints.append(context))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self.call(self._others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if error is None:
            assert not left
            assert not self._complaints

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def remctl(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        command: Iterable[Word] = (),
        **options: Any,
    ) -> RemctlSimpleResult:
        """Run one command."""
        return self.call(remctl.aio.remctl(host, port, principal, command, **options))

    def session(
        self, host: str | None = None, port: int | str | None = None, principal: str | None = None, **options: Any
    ) -> AioSession:
        """Return a session, open if there is a host."""
        return AioSession(self, remctl.aio.Remctl(host, port, principal, **options))

    async def _others(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}


class AioSession:
    """A session of the asyncio face, in blocking form."""

    def __init__(self, face: Aio, session: remctl.aio.Remctl) -> None:
        self._face = face
        self.awaited = session
        face.call(session.__aenter__())
        self.error = session.error
        self.set_timeout = session.set_timeout
        self.set_ccache = session.set_ccache
        self.set_source_ip = session.set_source_ip

    @property
    def opened(self) -> bool:
        return self.awaited.opened

    @property
    def host(self) -> str | None:
        return self.awaited.host

    @property
    def port(self) -> int | None:
        return self.awaited.port

    @property
    def protocol(self) -> int:
        return self.awaited.protocol

    def open(self, host: str, port: int | str | None = None, principal: str | None = None) -> None:
        self._face.call(self.awaited.open(host, port, principal))

    def close(self) -> None:
        self._face.call(self.awaited.close())

    def run(self, words: Iterable[Word], *, timeout: float | None = None, check: bool = False) -> Result:
        return self._face.call(self.awaited.run(words, timeout=timeout, check=check))

    def stream(self, words: Iterable[Word], *, timeout: float | None = None) -> Iterator[Output]:
        tokens = self.awaited.stream(words, timeout=timeout)

        async def following() -> Output | None:
            return await anext(tokens, None)

        async def end() -> None:
            await tokens.aclose()  # type: ignore[attr-defined]  # an asynchronous generator

        def each() -> Iterator[Output]:
            try:
                while (token := self._face.call(following())) is not None:
                    yield token
            finally:
                self._face.call(end())

        return each()

    def command(self, words: Iterable[Word]) -> None:
        self._face.call(self.awaited.command(words))

    def output(self) -> Output:
        return self._face.call(self.awaited.output())

    def noop(self) -> None:
        self._face.call(self.awaited.noop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._face.call(self.awaited.__aexit__(kind, error, traceback))

    def __repr__(self) -> str:
        return repr(self.awaited)
