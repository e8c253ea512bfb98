"""The languages of scripts: how a file's language is told, how it is run, and how its syntax is checked."""

from __future__ import annotations

import enum
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from remctl.jobs.scripts._errors import ScriptError, quoted

FOLDERS: Final = ("/usr/local/bin", "/usr/bin", "/bin")
"""Where interpreters are looked for; the PATH of the caller does not matter."""

TIME_LIMIT: Final = 30.0
"""Seconds for a check; a Java machine needs one of them to start."""

_SAID: Final = 64 * 1024
"""Bytes of what an interpreter says that are read for its message."""

_NOBODY: Final = 65534
"""The user and the group without rights."""

_ENVIRONMENT: Final = {"PATH": ":".join(FOLDERS), "LANG": "C.UTF-8", "HOME": "/nonexistent"}

# Groovy's transformations may run code and load libraries from the network, the first in the phase after this one, the
# latter (@Grab) in it unless Grape is off.
_JAVA: Final = "-XX:-UsePerfData -XX:TieredStopAtLevel=1 -Dgroovy.grape.enable=false"

# What the script is limited to while it is checked: no core file, and no byte into any file.
_LIMITED: Final = 'ulimit -c 0; ulimit -f 0; exec "$@"'

_PYTHON: Final = """if True:
    import sys
    try:
        compile(sys.stdin.buffer.read(), "script", "exec", dont_inherit=True)
    except Exception as error:
        line = getattr(error, "lineno", None)
        sys.exit((f"line {line}: " if line else "") + (getattr(error, "msg", "") or repr(error)))
"""

_GROOVY: Final = """
    import org.codehaus.groovy.control.*
    def unit = new CompilationUnit(new CompilerConfiguration(sourceEncoding: "UTF-8"))
    unit.addSource("script", System.in)
    try {
        unit.compile(Phases.CONVERSION)
    } catch (MultipleCompilationErrorsException error) {
        def cause = error.errorCollector.errors.find { it.hasProperty("cause") }?.cause
        System.err.println(cause?.hasProperty("line") ? "line ${cause.line}: ${cause.originalMessage}" : error.message)
        System.exit(1)
    }
"""

_PLACE: Final = re.compile(r"^/dev/stdin: line \d+: |^line \d+: | at - line \d+")
"""Where interpreters put the line into their messages."""


class _Facts(NamedTuple):
    suffixes: tuple[str, ...]
    program: str
    shebangs: str
    """The programs that a #! line names, as a pattern."""
    run: tuple[str, ...]
    """The arguments of the interpreter before the file."""
    check: tuple[str, ...]
    """Those with which it reads a script from its standard input and does not run it."""
    sign: str = "#"


class Language(enum.Enum):
    """What a script is written in."""

    PYTHON = "python"
    BASH = "bash"
    PERL = "perl"
    GROOVY = "groovy"

    @property
    def suffix(self) -> str:
        """What the names of its files end in."""
        return _FACTS[self].suffixes[0]

    @property
    def sign(self) -> str:
        """What a comment begins with."""
        return _FACTS[self].sign

    @property
    def interpreter(self) -> str:
        """The path of the program that runs it.

        Raises:
            ScriptError: it is not installed.
        """
        program = _FACTS[self].program
        if found := shutil.which(program, path=_ENVIRONMENT["PATH"]):
            return found
        raise ScriptError(f"{self.value} is not installed: there is no {program} in {', '.join(FOLDERS)}")

    def command(self, path: Path) -> list[str]:
        """Return the command line that runs a file; the path is absolute.

        Raises:
            ScriptError: the interpreter is not installed.
        """
        return [self.interpreter, *_FACTS[self].run, os.fspath(path)]

    def check(self, body: bytes) -> None:
        """Check the syntax of a script without running it.

        Nothing of a script in Python, Bash or Groovy is run.  Perl cannot be read without running parts of it: BEGIN
        blocks, and the modules that it uses.  All are therefore checked by a process with an environment of its own,
        in a group of its own that is killed in the end, for 30 seconds at the most, which can write no byte into any
        file, and which is nobody where the caller is root.  Such code can still read what that user can read, make or
        empty files, use the network, start a process in a group of its own, and end Perl before it has found an error:
        who installs a script trusts it no less than who runs it.

        Raises:
            ScriptError: it is wrong, with the line where the interpreter says so, or the interpreter is not installed.
        """
        status, said = _run([self.interpreter, *_FACTS[self].check], body)
        if status == 0:
            return
        if status < 0:
            name = signal.Signals(-status).name
            why = "what runs while it is read (BEGIN, use) must not write files" if name == "SIGXFSZ" else "a crash"
            raise ScriptError(f"{self.value} was ended by {name} while it read the script: {why}")
        message = next((line for line in said.splitlines() if line.strip()), f"it ended with status {status}")
        place = re.search(r"\bline (\d+)", message)
        message = _PLACE.sub("", message, count=1).rstrip(".")
        raise ScriptError(f"{self.value} cannot read it: {message}", line=int(place[1]) if place else None)


_FACTS: Final[Mapping[Language, _Facts]] = {
    # -s: nothing from the home directory; -u: output comes as it is written, also from a script that is killed.
    Language.PYTHON: _Facts(
        (".py",),
        "python3",
        r"python(3(\.\d+)?)?",
        ("-s", "-u"),
        ("-I", "-S", "-W", "ignore", "-X", "utf8", "-c", _PYTHON),
    ),
    Language.BASH: _Facts((".sh", ".bash"), "bash", "bash|sh", (), ("-n", "/dev/stdin")),
    Language.PERL: _Facts((".pl",), "perl", r"perl(5[.\d]*)?", (), ("-X", "-c", "-")),  # -X: without warnings
    Language.GROOVY: _Facts((".groovy",), "groovy", "groovy", (), ("-e", _GROOVY), "//"),
}


def language_named(name: str) -> Language:
    """Return the language of that name.

    Raises:
        ScriptError: there is none.
    """
    if name not in {each.value for each in Language}:
        raise ScriptError(f"language must be one of {', '.join(each.value for each in Language)}: {quoted(name)}")
    return Language(name)


def guess(name: str, first: str) -> Language:
    """Return the language of a file, from the end of its name and its #! line.

    Raises:
        ScriptError: neither tells, or they contradict one another.
    """
    suffix = PurePath(name).suffix
    named = next((each for each in Language if suffix in _FACTS[each].suffixes), None)
    if not first.startswith("#!"):
        if named is None:
            raise ScriptError("neither a suffix nor a #! line tells its language", hint="give --language")
        return named
    program = _program(first)
    written = next((each for each in Language if re.fullmatch(_FACTS[each].shebangs, program)), None)
    if written is None:
        known = ", ".join(each.value for each in Language)
        raise ScriptError(f"its #! line names {quoted(program)}, and no {known}", line=1, hint=_GIVE)
    if named not in (None, written):
        raise ScriptError(f"its #! line is for {written.value}, and its suffix is {suffix}", line=1, hint=_GIVE)
    return written


_GIVE: Final = "mend it, or give --language"


def _program(first: str) -> str:
    """The name of the program in a #! line."""
    words = first[2:].split()
    if words and PurePath(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return PurePath(words[0]).name if words else ""


def _run(command: list[str], body: bytes) -> tuple[int, str]:
    """Have a program read a script; return its status, negative for a signal, and the beginning of what it said."""
    identity = {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()} if os.geteuid() == 0 else {}
    with open(os.memfd_create("script"), "w+b") as source:  # noqa: PTH123  # it has no path, and nobody can swap it
        source.write(body)
        source.seek(0)
        try:
            process = subprocess.Popen(  # type: ignore[call-overload]  # a dict of arguments is too much for it
                ["/bin/sh", "-c", _LIMITED, "sh", *command],
                stdin=source,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_ENVIRONMENT | {"JAVA_OPTS": _JAVA},
                start_new_session=True,
                **identity,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ScriptError(f"it cannot be checked: {command[0]} cannot be run: {error}") from None
    with process:
        try:
            said = _listen(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its own number until somebody waits for it
    if said is None:
        raise ScriptError(f"it cannot be checked: {command[0]} has not read it within {TIME_LIMIT:.0f} s")
    return process.returncode, said.decode("utf-8", "backslashreplace")


def _listen(process: subprocess.Popen[bytes]) -> bytes | None:
    """What a process says until it ends, cut off; None if it does not end in time."""
    assert process.stderr is not None
    errors, said = process.stderr.fileno(), b""
    deadline = time.monotonic() + TIME_LIMIT
    ended = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(errors, select.POLLIN)
        poll.register(ended, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poll.poll(left * 1000))
            if errors in ready:
                data = os.read(errors, 65536)
                said = (said + data)[:_SAID]
                if not data:
                    poll.unregister(errors)
            elif ended in ready:
                return said
        return None
    finally:
        os.close(ended)
