"""The table of commands: a tree of groups, whose words lead to a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar, overload

from remctl._arguments import check_text, decoded, printable
from remctl.acl import EVERYONE, Acl
from remctl.backend._command import Command, Function
from remctl.backend._errors import UsageError
from remctl.backend._parameters import Kind, spelled

F = TypeVar("F", bound=Function)
Entries = str | Sequence[str] | Acl

KEYWORDS: Final = ("ALL", "EMPTY")
"""What means something else in remctld's configuration."""

HELP: Final = "help"
"""The word that every group has, unless a command has it."""


class Found(NamedTuple):
    """What words have led to."""

    command: Command
    words: Sequence[bytes]
    """Those that follow the path."""


class Group:
    """Commands whose paths begin with the same words; see `Backend.group`."""

    path: tuple[str, ...]
    """The words that lead here."""
    acl: Acl
    """Who may run its commands, where they do not say."""

    def __init__(self, path: tuple[str, ...], parent: Group | None, acl: Entries | None) -> None:
        self.path = path
        self.entries: dict[str, Command | Group] = {}
        self.own: Command | None = None
        self.acl = _check_acl(acl, path) or (EVERYONE if parent is None else parent.acl)

    # Declaring

    @overload
    def command(self, function: F, /) -> F: ...

    @overload
    def command(
        self,
        name: str | None = None,
        /,
        *,
        summary: str | None = None,
        syntax: str | None = None,
        hidden: bool = False,
        acl: Entries | None = None,
    ) -> Callable[[F], F]: ...

    def command(
        self,
        what: F | str | None = None,
        /,
        *,
        summary: str | None = None,
        syntax: str | None = None,
        hidden: bool = False,
        acl: Entries | None = None,
    ) -> F | Callable[[F], F]:
        """Make a function a command: `@backend.command`, or `@backend.command("name", ...)`.

        Args:
            what: the function; or the command's name, by default the function's, with hyphens for underscores.
            summary: one line about it, for help; None takes the first line of the docstring.
            syntax: what help shows after the name; None makes it from the signature.
            hidden: whether help leaves it out.
            acl: who may run it, in remctld's syntax: see `remctl.acl.Acl`.  None leaves it to the group it stands in,
                and that to the one above; without any, it is everyone who has authenticated.

        Returns:
            The function itself.

        Raises:
            TypeError, ValueError: there is such a command already, or no command can be made of it.
        """

        def declare(function: F) -> F:
            name = what if isinstance(what, str) else _name_of(function)
            path = (*self.path, self._free(name))
            rule = _check_acl(acl, path) or self.acl
            self.entries[name] = Command(path, function, rule, summary=summary, syntax=syntax, hidden=hidden)
            return function

        return declare if what is None or isinstance(what, str) else declare(what)

    def default(self, function: F) -> F:
        """Make a function what runs when no further word follows: `@group.default`; it takes no arguments.

        Raises:
            TypeError, ValueError: there is one already, or it needs an argument.
        """
        if self.own is not None:
            raise ValueError(f"there are two defaults of '{' '.join(self.path)}'")
        if not self.path:
            raise ValueError("there is no command without a word")
        command = Command(self.path, function, self.acl)
        if any(each.kind is not Kind.CONTEXT for each in command.parameters):
            raise TypeError(f"the default of '{command.name}' takes no arguments")
        self.own = command
        return function

    def group(self, name: str, *, acl: Entries | None = None) -> Group:
        """Make a group of commands, one word below this one; groups may stand in groups.

        Args:
            name: the word that leads to it.
            acl: who may run its commands; None leaves it to the group above.

        Raises:
            TypeError, ValueError: there is such a command already, or it cannot be named so.
        """
        path = (*self.path, self._free(name))
        made = Group(path, self, acl)
        self.entries[name] = made
        return made

    # What it is

    def commands(self) -> Iterator[Command]:
        """Give all commands below, each before those that stand under its name, by name."""
        if self.own is not None:
            yield self.own
        for _, entry in sorted(self.entries.items()):
            if isinstance(entry, Command):
                yield entry
            else:
                yield from entry.commands()

    def find(self, words: Sequence[bytes], helper: Callable[[Group], Command]) -> Found:
        """Return the command that words lead to, and what is left of them.

        Args:
            words: a command as it came.
            helper: makes the command `help` of a group.

        Raises:
            UsageError: there is none.
        """
        if not words:
            if self.own is not None:
                return Found(self.own, words)
            what = "further word" if self.path else "command"
            raise UsageError(f"a {what} is missing; try help", command=" ".join(self.path))
        name = decoded(words[0])
        entry = self.entries.get(name)
        if isinstance(entry, Group):
            return entry.find(words[1:], helper)
        if entry is not None:
            return Found(entry, words[1:])
        if name == HELP:
            return Found(helper(self), words[1:])
        raise UsageError("unknown command; try help", command=" ".join([*self.path, printable(words[0])]))

    def _free(self, name: object) -> str:
        """A name that nothing has here, and that can stand in remctld's configuration."""
        word = check_text("name", name)
        if word.split() != [word] or not word.isprintable() or word[0] in "-#" or word in KEYWORDS:
            raise ValueError(f"no command can be named so, it is one word (see also group): {name!r}")
        if word in self.entries:
            raise ValueError(f"there are two commands '{' '.join((*self.path, word))}'")
        return word

    def __repr__(self) -> str:
        return f"<{type(self).__name__} '{' '.join(self.path)}': {len(self.entries)} entries>"


def _name_of(function: object) -> str:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise ValueError(f"the command needs a name, which the function does not have: {function!r}")
    return spelled(name)


def _check_acl(acl: Entries | None, path: tuple[str, ...]) -> Acl | None:
    if acl is None or isinstance(acl, Acl):
        return acl
    try:
        if not isinstance(acl, Sequence):
            raise TypeError(f"acl must be a str, a sequence of those, or an Acl: {acl!r}")
        return Acl(acl) if isinstance(acl, str) else Acl(*acl)
    except (TypeError, ValueError) as error:
        if not path:
            raise
        raise type(error)(f"'{' '.join(path)}': {error}") from None
