"""The table of commands as its owner sees it: `Backend`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Final, NoReturn

from remctl._arguments import check_command, check_count, check_text, label, printable
from remctl.acl import Acl
from remctl.backend import _help
from remctl.backend._command import Command
from remctl.backend._context import Caller, Context, Sink
from remctl.backend._errors import CommandError, ExitStatus, UsageError
from remctl.backend._group import HELP, Entries, Found, Group
from remctl.backend._running import execute, failed
from remctl.exceptions import RemctlCommandError
from remctl.types import ErrorCode, Result, Stream

ANYBODY: Final = Acl("anyuser:anonymous")
"""Who may ask for help: each sees what it may run."""


class Backend(Group):
    """Commands written in Python, run by remctld, by remctl-shell, or by a server in the program.

        >>> from remctl.backend import Backend
        >>> backend = Backend("greeting")
        >>> @backend.command
        ... def hello(name: str = "world") -> str:
        ...     '''Say hello.'''
        ...     return f"hello, {name}\\n"

    Args:
        command: the command word of remctl, under which all commands stand; None makes the first word of each command
            its command word.
        banner: the first line of help.
        acl: who may run the commands that have no ACL of their own: see `Group.command`.
        threads: how many blocking functions may run at the same time in a server in the program; the others wait.

    Raises:
        TypeError, ValueError: an argument makes no sense.

    Declare everything while the module is loaded; from then on it may be used by any thread.
    """

    threads: int
    banner: str

    def __init__(
        self, command: str | None = None, *, banner: str = "", acl: Entries | None = None, threads: int = 32
    ) -> None:
        self.threads = check_count("threads", threads)
        self.banner = _check_banner(banner)
        super().__init__((), None, acl)
        self.top: Group = self
        if command is not None:
            self.top = Group((), None, None)
            self.path = (self.top._free(command),)
            self.top.entries[command] = self

    # Running

    def main(self, argv: Sequence[str] | None = None) -> NoReturn:
        """Run one command as a program, and end it with the command's exit status.

        Args:
            argv: the words after the program's name; None takes those of the process.

        Under remctld and remctl-shell these are the subcommand and what follows it, and the environment tells who
        calls (REMOTE_USER and so on).  What the functions and this package log goes to the system's log then, unless
        the program has set up `logging` itself: standard error belongs to the caller.

        Run by hand, the program takes `--remctld-config`, which prints the lines for remctld's configuration.

        Raises:
            SystemExit: always.
        """
        from remctl.backend import _program

        _program.main(self, argv)

    def call(
        self,
        words: Sequence[str | bytes],
        *,
        principal: str = "user@EXAMPLE.ORG",
        address: str = "127.0.0.1",
        host: str | None = "localhost",
        expires: float | None = None,
    ) -> Result:
        """Run one command in memory, for tests: what a client gets from a server in the program, without both.

        Args:
            words: the command as the client sends it, from the command word on; an argument for standard input is one
                of them.
            principal: who calls.
            address: the caller's IP address.
            host: the name of the caller's host; None if it has none.
            expires: when the caller's ticket ends, in seconds since the epoch; None if there is none.

        Returns:
            Output, error output and exit status.

        Raises:
            RemctlCommandError: the principal may not run the command; the code is ACCESS.
            TypeError, ValueError: the words are none.

        A coroutine function runs in an event loop of its own: in a test that is a coroutine itself, call this on a
        thread (`await asyncio.to_thread(backend.call, words)`).
        """
        sink = _Memory()
        check_text("principal", principal)
        status = self.perform(check_command(words).words, Caller(principal, address, host or "", expires), sink)
        return Result(bytes(sink.output[Stream.STDOUT]), bytes(sink.output[Stream.STDERR]), status)

    def perform(
        self,
        words: Sequence[bytes],
        caller: Caller,
        sink: Sink,
        *,
        stdin: IO[bytes] | None = None,
        width: int = _help.WIDTH,
    ) -> int:
        """Find a command, see whether the caller may run it, and run it; return its exit status.

        Args:
            words: from the command word on.
            caller: who calls; one without a principal has run the program by hand, and may do all.
            sink: where output goes.
            stdin: where the argument for standard input is read from; None takes it from the words.
            width: columns of the caller's terminal.

        Raises:
            RemctlCommandError: the caller may not run it.
        """
        try:
            command, rest = self.find_command(words, caller.principal or None, width)
        except UsageError as error:
            return failed(error, "", Context((), caller, sink))
        if caller.principal and not command.acl.allows(caller.principal):
            raise RemctlCommandError("Access denied", code=ErrorCode.ACCESS, command=command.name)
        return execute(command, rest, Context(command.path, caller, sink), stdin)

    def find_command(self, words: Sequence[bytes], principal: str | None, width: int = _help.WIDTH) -> Found:
        """Return the command that words lead to, and the words that are left.

        Args:
            words: from the command word on.
            principal: for whom, which decides what help shows; None shows all.
            width: columns of the terminal.

        Raises:
            UsageError: there is none.
        """
        return self.top.find(words, lambda group: self._help_of(group, principal, width))

    def shown(self, words: Sequence[bytes]) -> str:
        """Return a command as logs show it: printable, and without what is secret."""
        try:
            command, rest = self.find_command(words, None)
        except UsageError:
            return label(words)
        return " ".join([*command.path, *command.shown(rest)])

    # Help

    def help(self, words: Sequence[str] = (), *, principal: str | None = None, width: int = _help.WIDTH) -> str:
        """Return the list of commands, or the help of one.

        Args:
            words: what to show, from the command word on; nothing is the list of all commands.
            principal: for whom: what it may not run is left out; None shows all.
            width: columns of the terminal.

        Raises:
            UsageError: there is no such command.
            CommandError: the principal may not run it.
        """
        _check_words(words)
        found: Command | Group = self.top
        for place, word in enumerate(words):
            entry = found.entries.get(word) if isinstance(found, Group) else None
            if entry is None:
                raise UsageError(f"unknown command: {printable(' '.join(words[: place + 1]).encode())}", command=HELP)
            found = entry
        if isinstance(found, Group):
            shown = [each for each in _visible(found) if principal is None or each.acl.allows(principal)]
            if not shown:
                return "There is no command here that you may run.\n"
            return _help.listing(list(_visible(self.top)), shown, banner=self.banner, width=width)
        if principal is not None and not found.acl.allows(principal):
            raise CommandError(f"access denied: {found.name}", status=ExitStatus.DENIED, command=HELP)
        return _help.page(found, width=width)

    def summary(self, words: Sequence[str], *, principal: str | None = None, alone: bool = False) -> str:
        """Return the lines of the list of commands that are about those under some words.

        Args:
            words: the first words of their names.
            principal: for whom: what it may not run is left out; None shows all.
            alone: whether the commands under it are left out.
        """
        _check_words(words)
        every = list(_visible(self.top))
        below = [each for each in every if (each.path if alone else each.path[: len(words)]) == tuple(words)]
        return _help.listing(every, [each for each in below if principal is None or each.acl.allows(principal)])

    def _help_of(self, group: Group, principal: str | None, width: int) -> Command:
        def show(*words: str) -> str:
            """Show the commands, or how one is used."""
            return self.help([*group.path, *words], principal=principal, width=width)

        return Command((*group.path, HELP), show, ANYBODY)


class _Memory:
    """Keeps output."""

    def __init__(self) -> None:
        self.output = {stream: bytearray() for stream in Stream}

    def write(self, data: bytes, stream: Stream, *, last: bool = False) -> None:  # noqa: ARG002
        """Take output."""
        self.output[stream] += data

    async def drain(self) -> None:
        """There is always room."""


def _check_words(words: object) -> None:
    if isinstance(words, str):
        raise TypeError(f"words must be a sequence of str: {words!r}")


def _check_banner(banner: object) -> str:
    if not isinstance(banner, str):
        raise TypeError(f"banner must be a str: {banner!r}")
    return banner.rstrip("\n")


def _visible(group: Group) -> Iterator[Command]:
    return (each for each in group.commands() if not each.hidden)
