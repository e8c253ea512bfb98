"""How a command's function is run, and what becomes of what it returns or raises.

`execute` and `execute_async` are twins: the one for a program, a test or a thread, the other for an event loop.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from typing import IO

from remctl._arguments import encoded, printable
from remctl.backend._command import Command
from remctl.backend._context import Context
from remctl.backend._errors import CommandError, ExitStatus, OutputLostError
from remctl.types import Stream

logger = logging.getLogger(__name__)


def execute(command: Command, words: Sequence[bytes], context: Context, stdin: IO[bytes] | None = None) -> int:
    """Run a command to its end.

    Args:
        command: the command.
        words: what follows its path.
        context: who calls it, and where output goes.
        stdin: see `Command.bind`.

    Returns:
        The exit status.
    """
    if command.asynchronous:
        import asyncio

        if _loop_runs():
            raise RuntimeError("a coroutine function needs an event loop of its own here: call this with to_thread()")
        return asyncio.run(execute_async(command, words, context, stdin))
    try:
        positional, named = command.bind(words, context, stdin)
        answer = command.function(*positional, **named)
        if isinstance(answer, Awaitable | AsyncIterator):  # of a coroutine function in a wrapper that is none
            import asyncio

            return asyncio.run(_deliver_async(answer, context))
        return _deliver(answer, context)
    except BaseException as error:  # CancelledError too, and groups of what is no Exception
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        return failed(error, command.name, context)


async def execute_async(
    command: Command, words: Sequence[bytes], context: Context, stdin: IO[bytes] | None = None
) -> int:
    """Run a command to its end, in an event loop; see `execute`."""
    import asyncio  # is loaded where there is a loop

    try:
        positional, named = command.bind(words, context, stdin)
        return await _deliver_async(command.function(*positional, **named), context)
    except (Exception, SystemExit) as error:
        return failed(error, command.name, context)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return failed(error, command.name, context)  # something that the function has cancelled itself


def _loop_runs() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def failed(error: BaseException, name: str, context: Context) -> int:
    """Tell the caller, in one line, why a command failed; the rest is for the log.

    Args:
        error: what ended it.
        name: the command, for errors that do not know it.
        context: who called it.

    Returns:
        The exit status.
    """
    text, status = _explained(error, name, context)
    if text:
        # A surrogate that stands for no byte cannot be sent, and printable makes it \\ud800.
        lines = [printable(_sendable(line), limit=None) for line in text.splitlines()]
        with contextlib.suppress(OutputLostError):  # the status says it, where anybody sees it
            context.write("".join(f"{line}\n" for line in lines), Stream.STDERR)
    return status


def _explained(error: BaseException, name: str, context: Context) -> tuple[str, int]:
    if isinstance(error, CommandError):
        who = error.command or name
        return f"{who}: {error.reason or 'failed'}" if who else error.reason, int(error.status)
    if isinstance(error, OutputLostError):
        return f"{name}: {error.reason}", int(ExitStatus.OUTPUT)
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or (isinstance(code, int) and 0 <= code <= 255):
            return "", int(code or 0)
        if isinstance(code, str):
            return code, 1
    logger.error("command '%s' of %s failed", name, context.principal or "somebody", exc_info=error)
    return f"{name}: internal error", int(ExitStatus.INTERNAL)


def _deliver(answer: object, context: Context) -> int:
    """Send what a function returned, and make an exit status of it."""
    if answer is None:
        return 0
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer <= 255:
            raise ValueError(f"an exit status is 0 to 255: {answer}")
        return int(answer)
    if isinstance(answer, str | bytes | bytearray | memoryview):
        context.finish(answer)
        return 0
    if isinstance(answer, Iterable) and not isinstance(answer, dict):
        return _deliver(_stream(iter(answer), context), context)
    raise TypeError(
        f"a command returns an exit status, None, str, bytes or an iterator of those, and not {type(answer).__name__}"
    )


def _stream(pieces: Iterator[str | bytes], context: Context) -> object:
    """Send pieces as they come; return what a generator returns at its end."""
    with _closing(pieces):
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return end.value
            context.write(piece)


@contextlib.contextmanager
def _closing(pieces: object) -> Iterator[None]:
    """Close what can be closed in the end: a generator, a file."""
    try:
        yield
    finally:
        if callable(close := getattr(pieces, "close", None)):
            close()


async def _deliver_async(answer: object, context: Context) -> int:
    if isinstance(answer, Awaitable):
        answer = await answer
    if isinstance(answer, Iterator):
        return _deliver(await _stream_async(answer, context), context)
    if not isinstance(answer, AsyncIterator):
        return _deliver(answer, context)
    try:
        async for piece in answer:
            context.write(piece)
            await context.drain()
    finally:
        if inspect.isasyncgen(answer):
            await answer.aclose()
    return 0


async def _stream_async(pieces: Iterator[str | bytes], context: Context) -> object:
    """Send pieces as they come, and let others run between them; see `_stream`."""
    with _closing(pieces):
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return end.value
            context.write(piece)
            await context.drain()


def _sendable(text: str) -> bytes:
    try:
        return encoded(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")
