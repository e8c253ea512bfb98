"""Scripts for jobs: reading a file that an administrator offers, installing it, and what is run in the end.

A script is well-formed if it is a text in one of four languages that its interpreter can read, with a header that says
what it is for and which parameters it takes.  An installed script is a file that nobody but its owner can have written;
runners run the bytes that `verify` returns, and not what may stand in the file a moment later.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from remctl.acl import Acl
from remctl.jobs.scripts._declaring import Misfit, take_line
from remctl.jobs.scripts._errors import ScriptError, quoted
from remctl.jobs.scripts._header import Limits, read_header
from remctl.jobs.scripts._languages import Language, guess, language_named
from remctl.jobs.scripts._parameters import Parameters

MAX_SIZE: Final = 1024 * 1024
"""Bytes of a script."""

_NAME: Final = re.compile("[a-z][a-z0-9_-]{0,63}")

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""Opens neither what a link points to nor waits for a pipe's writer."""

_FOLDER: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Script:
    """A script that is well-formed."""

    name: str
    language: Language
    description: str
    """One line."""
    body: bytes = field(repr=False)
    """The whole file."""
    sha256: str
    """Of the body, in hexadecimal digits."""
    parameters: Parameters
    limits: Limits
    users: Acl | None = None
    """Who may submit jobs of it; None is everybody who may submit jobs at all."""

    @property
    def filename(self) -> str:
        """The name of its file where it is installed."""
        return f"{self.name}{self.language.suffix}"


def read_script(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    language: Language | str | None = None,
    description: str | None = None,
) -> Script:
    """Return the script in a file, if it is well-formed; blocks while its interpreter reads it.

    Args:
        path: the file.
        name: a letter a-z and up to 63 more of a-z, 0-9, _ and -; the default is the file's name without its suffix.
        language: the default is what suffix and #! line say.
        description: one line, instead of the header's.

    Raises:
        ScriptError: it is not well-formed, or cannot be read.
    """
    file = Path(path)
    chosen = language_named(language) if isinstance(language, str) else language
    checked = check_name(file.stem if name is None else name)
    if checked == AD_HOC.name:
        raise ScriptError(f"name {checked!r} is taken: it stands for Python code that comes with a job")
    with _at(file):
        body = _contents(file)
        script = _parse(checked, chosen or guess(file.name, _first(body)), body, description)
        script.language.check(body)
    return script


def check_name(name: str) -> str:
    """Return the name of a script, which can be part of a path.

    Raises:
        ScriptError: no script is named so.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ScriptError(f"name must be a letter a-z and up to 63 more of a-z, 0-9, _ and -: {quoted(name)}")
    return name


def install(script: Script, folder: Path) -> Path:
    """Write a script into the folder of installed scripts; return its path there.

    An older version is replaced at once: who opens the path gets all of the old or all of the new.

    Raises:
        ScriptError: the folder is not the caller's alone to write in, or the file cannot be written.
    """
    check_name(script.name)
    with _at(folder), _opened(folder, _FOLDER) as directory:
        status = _refuse_writable(directory)
        if status.st_uid != os.geteuid():
            raise ScriptError(f"it belongs to the user with number {status.st_uid}, and not to {os.geteuid()}")
        temporary = f".{script.name}.{secrets.token_hex(8)}"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400, dir_fd=directory)
        try:
            with open(file, "wb") as out:  # noqa: PTH123  # it is open already
                out.write(script.body)
                out.flush()
                os.fchmod(file, 0o500)
                os.fsync(file)
            os.rename(temporary, script.filename, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
    return folder / script.filename


def verify(path: Path, sha256: str) -> bytes:
    """Return the contents of an installed script, if they are those that were installed.

    These bytes are what is to be run: the file may be another when it is read again.

    Args:
        path: what `install` returned.
        sha256: of the script, when it was installed.

    Raises:
        ScriptError: the contents, the file or its folder are not as they have to be; it says what is not.
    """
    with _at(path.parent), _opened(path.parent, _FOLDER) as directory:
        _refuse_foreign(_refuse_writable(directory))
        with _at(path):
            body = _contents(path, directory)
            if (found := hashlib.sha256(body).hexdigest()) != sha256:
                raise ScriptError(f"it is not what was installed: its SHA-256 is {found}, and was {quoted(sha256)}")
    return body


def _contents(file: Path, directory: int | None = None) -> bytes:
    """The bytes of a file; if in a directory, of one that nobody but its owner can have written."""
    with _opened(file if directory is None else Path(file.name), _READ, directory) as opened:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise ScriptError("it is no regular file")
        if directory is not None:
            _refuse_foreign(_refuse_writable(opened))
        with open(opened, "rb", closefd=False) as source:
            body = source.read(MAX_SIZE + 1)
    if len(body) > MAX_SIZE:
        raise ScriptError(f"it is larger than {MAX_SIZE} bytes")
    return body


def _refuse_writable(opened: int) -> os.stat_result:
    status = os.fstat(opened)
    if status.st_mode & _OTHERS:
        raise ScriptError(
            f"its mode is {stat.S_IMODE(status.st_mode):04o}: group or others can write", hint="chmod go-w"
        )
    return status


def _refuse_foreign(status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ScriptError(
            f"it belongs to the user with number {status.st_uid}, and neither to {os.geteuid()} nor to root"
        )


@contextlib.contextmanager
def _opened(path: Path, flags: int, directory: int | None = None) -> Iterator[int]:
    try:
        opened = os.open(path, flags, dir_fd=directory)
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink()
        if linked or error.errno == errno.ELOOP:
            raise ScriptError("it is a symbolic link") from None
        raise
    try:
        yield opened
    finally:
        os.close(opened)


@contextlib.contextmanager
def _at(path: Path) -> Iterator[None]:
    """Give what goes wrong the place where it does."""
    try:
        yield
    except ScriptError as error:
        error.path = error.path or str(path)
        raise
    except OSError as error:
        raise ScriptError(error.strerror or str(error), path=str(path)) from None
    except ValueError as error:  # the path has a NUL in it, or what no file system takes
        raise ScriptError(str(error), path=str(path)) from None


def _first(body: bytes) -> str:
    return body.partition(b"\n")[0].decode("utf-8", "backslashreplace")


def _parse(name: str, language: Language, body: bytes, description: str | None = None) -> Script:
    text = _text(body, language)
    header = read_header(text, language.sign)
    if description is not None:
        try:
            take_line({"description": description}, "description")
        except Misfit as misfit:
            raise misfit.error() from None
    described = description or header.description
    if not described:
        raise ScriptError("the header has no description", key="description", line=1)
    sha256 = hashlib.sha256(body).hexdigest()
    return Script(name, language, described, body, sha256, header.parameters, header.limits, header.users)


def _text(body: bytes, language: Language) -> str:
    if body.startswith(b"\xef\xbb\xbf"):  # Python and Perl would take it; Bash and Groovy for part of a command
        raise ScriptError("it begins with a byte order mark; save it as UTF-8 without one", line=1)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ScriptError("it is not UTF-8", line=body.count(b"\n", 0, error.start) + 1) from None
    if "\0" in text:
        raise ScriptError("there is a NUL in it", line=text.count("\n", 0, text.index("\0")) + 1)
    if language is Language.BASH and "\r\n" in text:  # for Bash the CR is part of the last word
        line = text.count("\n", 0, text.index("\r\n")) + 1
        raise ScriptError("it has lines that end in CR LF; Bash takes LF alone", line=line)
    return text


AD_HOC: Final = _parse(
    "python",
    Language.PYTHON,
    b"""\
# /// job
# description = "Run Python code that comes with the job"
#
# [parameters.code]
# type = "text"
# multiline = true
# description = "what is run"
#
# [parameters.individual_parameters]
# type = "text"
# multiline = true
# required = false
# description = "what the code finds in JOB_PARAM_INDIVIDUAL_PARAMETERS"
#
# [parameters.module]
# type = "text"
# required = false
# description = "the name of an installed script in Python, in whose setting the code runs"
# ///
import importlib.util
import os
import sys
import types

code = compile(os.environ.pop("JOB_PARAM_CODE"), "<code>", "exec")
setting = types.ModuleType("__main__")
if file := os.environ.pop("JOB_MODULE", ""):
    setting.__name__, setting.__file__ = os.environ["JOB_PARAM_MODULE"], file
    if getattr(importlib.util.find_spec(setting.__name__), "origin", None) is None:  # it is no library's name
        sys.modules[setting.__name__] = setting  # where dataclasses look for it
    with open(file, "rb") as source:
        exec(compile(source.read(), file, "exec"), vars(setting))
    setting.__name__ = "__main__"
exec(code, vars(setting))
""",
)
"""The script that is always there: it runs the code that its user gives, in the parameter `code`.  Who may do that
may do all that runners may.

With a module, the code finds what that script defines: it has been run before, under its own name, so that what it does
as a program alone was left out.
"""
