"""The options of `remctl-headless`: from the words of a command line, or from a call's arguments, to checked values.

The words are taken apart here, and not by argparse, which takes no value that begins with a dash from the next word,
and shows in its complaints what may be secret.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from remctl import _arguments
from remctl._endpoints import encode_host
from remctl.jobs.headless._codes import Code, HeadlessError

PROGRAM: Final = "remctl-headless"

HELP: Final = f"""\
usage: {PROGRAM} --service HOST[:PORT] [options] --module ID | --py_file FILE | --py_code CODE

Submit a job on a server, and perhaps wait for its end, where no user is there.

  --version                    show the version
  -h, --help                   show this
  -q, --quiet                  say nothing on a terminal either, as elsewhere without -v
  -v, --verbose                say what is done; twice: what is sent and received; three times: protocol tokens too

connection:
  -s, --service HOST[:PORT]    the server; an IPv6 address in brackets
  -t, --timeout SECONDS        how long to wait for the job's end, -1 without limit; left out: do not wait
  --principal PRINCIPAL        the server's principal (default: host/HOST)

login:
  -u, --user PRINCIPAL         whose job it is
  -a, --auth_type TYPE         osuser: with the tickets of the user that is logged in; challenge: with --secret
                               (default: challenge with --secret, else osuser)
  -p, --secret FILE            the file that holds the user's key; made after a question for the password, if missing

job:
  -m, --module ID              the installed script to run, or in whose setting to run code
  -f, --py_file FILE           a file of Python to run
  -c, --py_code CODE           Python to run
  -i, --individual_parameters TEXT
                               what the job is told, unchanged

for schedulers:
  --output                     print the job's output as it comes; needs --timeout
  --lock[=FILE]                start nothing while an earlier run of the same job goes on
  --syslog[=ADDRESS]           log to syslog: a socket's path, or HOST:PORT (default: /dev/log)

exit status:
  0  the job has ended well, or, without --timeout, was accepted
  1  no connection to the server, or to a KDC
  2  an option, the secret file or a parameter of the job is wrong
  3  the job goes on: the time limit has passed, a signal ended the wait, or with --lock an earlier one goes on
  4  the login was refused, or the user may not do that
  5  something unexpected, or the job's output could not be written
  6  the login took longer than 20 seconds
  7  the server went away while the job ran, or the job was stopped or lost
  8  the job has failed, or the server
  9  there is no such module, or no ad-hoc Python
"""

LONGEST: Final = 999_999_999.0
"""Seconds that a server takes for a time limit; who wants longer gets so long."""

MOST: Final = 4 * 1024 * 1024
"""Bytes of a file of Python, more than any server takes."""

SYSLOG: Final = "/dev/log"

_LETTERS: Final = {
    "h": "help",
    "q": "quiet",
    "v": "verbose",
    "s": "service",
    "t": "timeout",
    "u": "user",
    "a": "auth_type",
    "p": "secret",
    "i": "individual_parameters",
    "m": "module",
    "f": "py_file",
    "c": "py_code",
}
_FLAGS: Final = ("help", "version", "quiet", "verbose", "output")
_EITHER: Final = ("lock", "syslog")
"""Those that may have a value, in the same word."""
_VALUES: Final = (*(name for name in _LETTERS.values() if name not in _FLAGS), "principal")

_PATHS: Final = ("secret", "py_file", "lock")
"""Those whose values are what the system calls files; the others are UTF-8, whatever the locale makes of them."""

_LOUD: Final = re.compile(r"-[hqv]*v[hqv]*|--verbose")
_QUIET: Final = re.compile(r"-[hqv]*q[hqv]*|--quiet")

_SECONDS: Final = re.compile(r"-1|[0-9]+(\.[0-9]*)?|\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted."""

    host: str
    port: int
    """0 stands for the default ports."""
    principal: str | None
    """The server's; None stands for host/HOST."""
    timeout: float | None
    """Seconds to wait for the job's end; infinity is without limit, None is not to wait."""
    user: str | None
    auth_type: str
    secret: Path | None
    module: str | None
    py_file: Path | None
    """The file that `code` is from; None if it is from none."""
    code: str | None = field(repr=False)
    individual_parameters: str | None = field(repr=False)
    lock: Path | bool
    """Whether to keep a second run out, or by which file."""
    output: bool = False
    syslog: str | tuple[str, int] | None = None
    """The path of a socket, or host and port; None is not to log there."""
    verbosity: int = 0
    """0 to 3."""
    quiet: bool = False


def parsed(words: Sequence[str]) -> Options | str:
    """Return what the words of a command line want; a text if that is to be printed.

    Raises:
        HeadlessError: an option is unknown, missing or wrong.
    """
    given: dict[str, Any] = {}
    verbosity = 0
    for name, value in _taken_apart(words):
        given[name] = True if value is None else value if name in _PATHS else os.fsencode(value).decode()
        verbosity += name == "verbose"
    if "help" in given:
        return HELP
    if "version" in given:
        from remctl._version import __version__

        return f"{PROGRAM} {__version__}\n"
    given["timeout"] = _seconds(given.get("timeout"))
    if "output" in given and given["timeout"] is None:
        _refuse("output needs a timeout: without one nobody waits for it")
    quiet = "quiet" in given
    return checked(
        **{name: given.get(name) for name in (*_VALUES, "lock")},
        output="output" in given,
        syslog=_address(SYSLOG if given.get("syslog") is True else given.get("syslog")),
        verbosity=0 if quiet else min(verbosity, 3),
        quiet=quiet,
    )


def speaks(words: Sequence[str], *, terminal: bool) -> bool:
    """Return whether a complaint about words that cannot be understood is to be seen on standard error."""
    return not any(map(_QUIET.fullmatch, words)) and (terminal or any(map(_LOUD.fullmatch, words)))


def checked(
    *,
    service: object,
    timeout: object = None,
    principal: object = None,
    user: object = None,
    auth_type: object = None,
    secret: object = None,
    module: object = None,
    py_file: object = None,
    py_code: object = None,
    individual_parameters: object = None,
    lock: object = None,
    **shown: Any,
) -> Options:
    """Return what a call's arguments want, which are named as the options are; the file of Python has been read.

    Raises:
        HeadlessError: an argument is missing or wrong.
    """
    host, port = _server("service", _text("service", service, required=True))
    path = _path("py_file", py_file)
    code = _text("py_code", py_code, shown=False, empty=True)
    if path is not None and code is not None:
        _refuse("py_file and py_code cannot be given both")
    if path is None and code is None and module is None:
        _refuse("there is nothing to run: give module, py_file or py_code")
    who, key = _text("user", user), _path("secret", secret)
    return Options(
        host=host,
        port=port,
        principal=_text("principal", principal),
        timeout=_limit(timeout),
        user=who,
        auth_type=_auth_type(auth_type, who, key),
        secret=key,
        module=_text("module", module),
        py_file=path,
        code=code if path is None else _read(path),
        individual_parameters=_text("individual_parameters", individual_parameters, shown=False, empty=True),
        lock=lock if isinstance(lock, bool) else _path("lock", lock) or False,
        **shown,
    )


# From words to names and values


def _taken_apart(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Give the name of each option, with its value if it has one."""
    for number, word in enumerate(words, 1):
        try:
            os.fsencode(word).decode()
        except UnicodeError:
            _refuse(f"word {number} is no UTF-8")
    rest = iter(words)
    for word in rest:
        if word.startswith("--") and word != "--":
            name, equals, value = word[2:].partition("=")
            if name not in (*_FLAGS, *_EITHER, *_VALUES) or (equals and name in _FLAGS):
                _refuse(f"there is no option --{name:.40}{equals}", hint=f"{PROGRAM} --help lists the options")
            if equals:
                yield name, value
            else:
                yield name, _next(rest, name) if name in _VALUES else None
        elif word.startswith("-") and word not in ("-", "--"):
            yield from _letters(word[1:], rest)
        else:
            _refuse("there is a word that belongs to no option", hint="a value with blanks in it needs quotes")


def _letters(letters: str, rest: Iterator[str]) -> Iterator[tuple[str, str | None]]:
    """Give the options of a word with one dash; the last may have a value, in this word or in the next."""
    for at, letter in enumerate(letters, 1):
        if (name := _LETTERS.get(letter)) is None:
            _refuse(f"there is no option -{letter}", hint=f"{PROGRAM} --help lists the options")
        if name in _VALUES:
            yield name, letters[at:] or _next(rest, name)
            return
        yield name, None


def _next(rest: Iterator[str], name: str) -> str:
    value = next(rest, None)
    if value is None:
        _refuse(f"{name} needs a value")
    return value


# Checks


def _text(name: str, value: object, *, required: bool = False, shown: bool = True, empty: bool = False) -> Any:
    """A text that can be sent, or None if there is none."""
    if value is None and not required:
        return None
    try:
        return "" if empty and value == "" else _arguments.check_text(name, value)
    except (TypeError, ValueError) as error:
        _refuse(f"{name} is missing" if value is None else str(error) if shown else f"{name} is no valid text")


def _path(name: str, value: object) -> Path | None:
    if value is None:
        return None
    try:
        return Path(_arguments.check_path(name, value))
    except (TypeError, ValueError) as error:
        _refuse(str(error))


def _server(name: str, service: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|([^:\[\]\s/]+))(?::([0-9]{1,5}))?", service)
    port = int(found[3] or 0) if found else 0
    if found is None or port > 65535 or (found[3] and not port):
        _refuse(f"{name} must be HOST[:PORT], an IPv6 address in brackets: {service!r:.80}")
    try:
        encode_host(found[1] or found[2])
    except ValueError as error:
        _refuse(f"{name}: {error}")
    return found[1] or found[2], port


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    if not _SECONDS.fullmatch(text):
        _refuse(f"timeout must be seconds, or -1 for no limit: {text!r:.80}")
    return min(float(text), LONGEST)


def _limit(timeout: object) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        _refuse(f"timeout must be a number of seconds: {timeout!r:.80}")
    if timeout == -1:
        return float("inf")
    if not 0 <= timeout < float("inf"):
        _refuse(f"timeout must be seconds, or -1 for no limit: {timeout!r:.80}")
    return float(min(timeout, LONGEST))


def _auth_type(kind: object, user: str | None, secret: Path | None) -> str:
    found = _text("auth_type", kind) or ("osuser" if secret is None else "challenge")
    if found not in ("osuser", "challenge"):
        _refuse(f"auth_type must be osuser or challenge: {found!r:.80}")
    if found == "osuser" and secret is not None:
        _refuse("secret is for auth_type challenge, and that is osuser")
    if found == "challenge" and (user is None or secret is None):
        _refuse(f"auth_type challenge needs a {'user' if user is None else 'secret'}")
    return str(found)


def _address(text: str | None) -> str | tuple[str, int] | None:
    if text is None or text.startswith("/"):
        return text
    host, port = _server("syslog", text) if ":" in text else ("", 0)
    if not port:
        _refuse(f"syslog must be a socket's path or HOST:PORT: {text!r:.80}")
    return host, port


def _read(file: Path) -> str:
    """Return what a file of Python holds."""
    try:
        opened = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # which does not wait for a FIFO's writer
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                _refuse(f"py_file is no file: {str(file)!r:.200}")
            data = os.read(opened, MOST + 1)
        finally:
            os.close(opened)
        if len(data) > MOST:
            _refuse(f"py_file is larger than {MOST} bytes: {str(file)!r:.200}")
        return data.decode("utf-8-sig")  # editors on Windows put a mark first, which Python takes in files alone
    except OSError as error:
        _refuse(f"py_file cannot be read: {str(file)!r:.200}: {error.strerror or error}")
    except UnicodeError:
        _refuse(f"py_file is no UTF-8: {str(file)!r:.200}")


def _refuse(text: str, hint: str | None = None) -> NoReturn:
    raise HeadlessError(text, code=Code.PARAMETER, hint=hint)
