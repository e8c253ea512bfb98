"""The table of the command `job`, and the program with it."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, NoReturn

from remctl._arguments import printable
from remctl.backend import MULTILINE, SECRET, STDIN, Backend, Context, Match, Range, UsageError
from remctl.jobs import _answers, _json
from remctl.jobs._answers import STREAMS, Job, OutputEvent, Said
from remctl.jobs._place import DEFAULT, REMOTE, VARIABLE
from remctl.jobs.command import _wording
from remctl.jobs.command._output import Watch, kept, wait
from remctl.jobs.command._refusal import told
from remctl.jobs.states import Move
from remctl.types import Stream

if TYPE_CHECKING:
    from remctl.jobs.command._desk import Counter
    from remctl.jobs.service import Service

SUBMIT: Final = (
    "[--priority <priority>] [--delay <delay>] [--robot <robot> | --pool <pool>] [--guid <guid>] [--stdin] [--json] "
    "<script> [<name=value> ...]"
)


def _is_guid(text: str) -> None:
    _answers.as_guid(text)


def _is_state(text: str) -> None:
    _answers.state_named(text)


JobId = Annotated[str, Match("[0-9]{1,18}|(?=.*[A-Za-z-])[0-9A-Za-z-]{19,64}"), "the job's number or GUID"]
ScriptName = Annotated[str, "the script's name"]
Json = Annotated[bool, "in JSON"]
Guid = Annotated[str, _is_guid, "your own: asking again with it makes no second job"]
StateName = Annotated[str, _is_state, "pending, in_progress, success, and so on"]
Number = Annotated[int, Range(1, 10**18 - 1)]


def backend(service: Service) -> Backend:
    """Return the command `job` for a server in the program.

    Args:
        service: what does it all; it decides who may do what.
    """
    return _table(lambda: service)


def main(config: str | os.PathLike[str] | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command as a program, under remctld, under remctl-shell or by hand; see `Backend.main`.

    Args:
        config: the configuration file; None takes REMCTL_JOBS_CONFIG, or /etc/remctl/jobs/jobs.toml.  By hand,
            `--config FILE` may come first; under remctld it may not, where the words are the caller's.
        arguments: the words after the program's name; None takes those of the process.

    Raises:
        SystemExit: always.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    by_hand = "REMCTL_COMMAND" not in os.environ and "REMOTE_USER" not in os.environ
    if config is None and by_hand and words[:1] == ["--config"]:
        if not words[1:]:
            sys.exit("--config: a file is missing")
        config, words = words[1], words[2:]
    file = Path(config or os.environ.get(VARIABLE) or DEFAULT)

    @functools.cache
    def service() -> Service:
        from remctl.jobs.command import _desk

        return _desk.opened(file)

    try:
        _table(service).main(words)
    finally:
        if service.cache_info().currsize:
            service().store.close()


def program(config: Path) -> str:
    """Return the text of a program that remctld can be told to run: it gives a program no arguments of its own.

    Args:
        config: the configuration file.
    """
    settings = f"{VARIABLE}={shlex.quote(os.fspath(config.absolute()))} {REMOTE}=1"
    return f"#!/bin/sh\nexport {settings}\n" + (f'exec {shlex.quote(sys.executable)} -P -m remctl.jobs.command "$@"\n')


def _table(service: Callable[[], Service]) -> Backend:
    made = Backend("job", banner="Unattended jobs:", acl="ANYUSER")
    commands = _Commands(service)
    made.command(commands.scripts)
    made.command(commands.script)
    made.command("submit", syntax=SUBMIT)(commands.submit)
    made.command(commands.status)
    made.command(commands.list_)
    made.command(commands.history)
    made.command(commands.wait)
    made.command(commands.output)
    made.command(commands.stop)
    made.command(commands.abort)
    made.command(commands.retry)
    made.command(commands.machines)
    made.command(commands.robots)
    return made


class _Commands:
    """The functions; each one's docstring is its help."""

    def __init__(self, service: Callable[[], Service]) -> None:
        self._service = service

    # Scripts

    def scripts(self, context: Context, *, json: Json = False) -> str | bytes:
        """List the scripts that you may use."""
        with self._counter(context, json) as counter:
            found = counter.scripts()
        return _json.written(found) if json else _wording.scripts(found)

    def script(self, context: Context, name: ScriptName, *, json: Json = False) -> str | bytes:
        """Show a script's parameters."""
        with self._counter(context, json) as counter:
            found = counter.script(name)
        return _json.written(found) if json else _wording.script(found)

    # Jobs

    def submit(
        self,
        context: Context,
        *words: Annotated[str, MULTILINE, SECRET, "the script's name, and its parameters"],
        last: Annotated[BinaryIO, STDIN, SECRET, "the last of these words, or with --stdin a JSON object"],
        priority: Annotated[int, Range(-100, 100), "higher ones are taken first; above 0 for operators"] = 0,
        delay: Annotated[float, Range(0, 999_999_999), "seconds before it may be taken"] = 0,
        robot: Annotated[str | None, "the name of the robot that is to run it"] = None,
        pool: Annotated[str | None, "any robot of this pool"] = None,
        guid: Guid | None = None,
        stdin: Annotated[bool, "the last word is a JSON object of parameters"] = False,
        json: Json = False,
    ) -> str | bytes:
        """Make a job, and print its number.

        Ad-hoc Python is the script "python" with the parameter "code".

        Parameters that are secret are taken with --stdin alone, from the JSON
        object that is the last word; by hand it comes on standard input.
        """
        piped: dict[str, str] = {}
        if stdin:
            piped = _piped(last)
        elif context.principal:
            words = (*words, _text(last))
        if not words:
            raise UsageError("insufficient arguments: the script is missing")
        (script, *pairs), behind = _behind(words)
        whose = [(name, value) for name, value in (("robot", robot), ("pool", pool)) if value is not None] + behind
        if len(whose) > 1:
            raise UsageError("--robot and --pool are given once, and not both")
        worded = dict(_pairs(pairs))
        if twice := sorted(worded.keys() & piped.keys()):
            raise UsageError(f"the parameter {twice[0]} is given twice")
        with self._counter(context, json) as counter:
            identity = None if guid is None else _answers.as_guid(guid)
            options = {"priority": priority, "delay": delay, "guid": identity, "robot": None, "pool": None}
            job = counter.submit(script, worded, piped, **{**options, **dict(whose)})
        return _json.written(job) if json else f"{job.id}\n"

    def status(self, context: Context, job: JobId, *, json: Json = False) -> str | bytes:
        """Show how a job stands."""
        with self._counter(context, json) as counter:
            return _shown(counter.job(_number(job)), json)

    def list_(
        self,
        context: Context,
        *,
        owner: Annotated[str | None, "those of this principal"] = None,
        state: Annotated[list[StateName] | None, "those that stand there"] = None,
        script: Annotated[str | None, "those of this script"] = None,
        before: Annotated[Number | None, "those with lower numbers"] = None,
        limit: Annotated[int, Range(1, 1000), "so many at the most"] = 50,
        json: Json = False,
    ) -> str | bytes:
        """List jobs, the latest first: your own, or everybody's for operators."""
        states = [_answers.state_named(each) for each in state or ()]
        with self._counter(context, json) as counter:
            found = counter.jobs(owner, states, script, before, limit)
        return _json.written(found) if json else "".join(map(_wording.job, found))

    def history(self, context: Context, job: JobId, *, json: Json = False) -> str | bytes:
        """Show the attempts of a job, and what has happened to it."""
        with self._counter(context, json) as counter:
            found = counter.history(_number(job))
        return _json.written(found) if json else _wording.history(found)

    async def wait(
        self,
        context: Context,
        job: JobId,
        *,
        timeout: Annotated[float | None, Range(0, 999_999_999), "seconds"] = None,
        output: Annotated[bool, "with what it writes"] = True,
        json: Json = False,
    ) -> int:
        """Wait until a job is over, and show what becomes of it.

        Its output comes as it is, and its states on standard error. The exit
        status is 0 for Success, 1 for another end, and 75 if the time limit has
        passed before.
        """

        watch = Watch(_number(job), STREAMS if output else ())

        def look() -> list[Said]:
            with self._counter(context, json=False) as counter:
                return watch.look(counter)

        with told(context, json):
            return await wait(context, watch, look, timeout, json=json)

    def output(
        self,
        context: Context,
        job: JobId,
        *,
        stderr: Annotated[bool, "error output instead"] = False,
        json: Json = False,
    ) -> Iterator[bytes]:
        """Print what is kept of a job's output.

        In JSON it is that of both streams.
        """
        streams = STREAMS if json else STREAMS[stderr : stderr + 1]
        with self._counter(context, json) as counter:
            for stream in streams:
                for event in kept(counter, _number(job), stream):
                    if json:
                        yield _json.written_event(event)
                    elif isinstance(event, OutputEvent):
                        yield event.data
                    else:
                        context.write(f"job {job}: {_wording.gap(event)}\n", Stream.STDERR)

    def stop(self, context: Context, job: JobId, *, json: Json = False) -> str | bytes:
        """Have a job end in peace."""
        with self._counter(context, json) as counter:
            return _shown(counter.ask(_number(job), Move.STOP), json)

    def abort(self, context: Context, job: JobId, *, json: Json = False) -> str | bytes:
        """Have a job killed."""
        with self._counter(context, json) as counter:
            return _shown(counter.ask(_number(job), Move.ABORT), json)

    def retry(self, context: Context, job: JobId, *, json: Json = False) -> str | bytes:
        """Have a job run again that is over, and not with success."""
        with self._counter(context, json) as counter:
            return _shown(counter.retry(_number(job)), json)

    # Machines and robots

    def machines(self, context: Context, *, json: Json = False) -> str | bytes:
        """List the machines that are known."""
        with self._counter(context, json) as counter:
            found = counter.machines()
        return _json.written(found) if json else _wording.machines(found)

    def robots(self, context: Context, *, json: Json = False) -> str | bytes:
        """List the robots that are known, and what they do."""
        with self._counter(context, json) as counter:
            found = counter.robots()
        return _json.written(found) if json else _wording.robots(found)

    @contextlib.contextmanager
    def _counter(self, context: Context, json: bool) -> Iterator[Counter]:
        from remctl.jobs.command import _desk

        with told(context, json), _desk.refusals(context):
            yield _desk.Counter(self._service(), context)


def _shown(job: Job, json: bool) -> str | bytes:
    return _json.written(job) if json else _wording.job(job)


def _number(job: str) -> int | str:
    return int(job) if job.isdecimal() else job.lower()


# The words of submit


def _text(last: BinaryIO) -> str:
    try:
        return last.read(_json.MAX_PARAMETERS).decode()
    except UnicodeDecodeError:
        raise UsageError("the last word is not UTF-8") from None


def _piped(last: BinaryIO) -> dict[str, str]:
    try:
        return _json.read_parameters(last.read(_json.MAX_PARAMETERS + 1))
    except _json.Unreadable as error:
        raise UsageError(f"standard input: {error}") from None


def _behind(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Take --robot and --pool out of the words behind the script's name, where people put them, too."""
    rest, given = list(words[:1]), []
    left = iter(words[1:])
    for word in left:
        name, _, value = word.partition("=")
        if name not in ("--robot", "--pool"):
            rest.append(word)
        elif value := value or next(left, ""):
            given.append((name[2:], value))
        else:
            raise UsageError(f"{name} has no value")
    return rest, given


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The parameters among the words; no message shows one, since it may be secret."""
    names = set()
    for place, word in enumerate(words, 2):
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"word {place} is not NAME=VALUE; options stand before the script")
        if name in names:
            raise UsageError(f"the parameter {printable(name.encode())} is given twice")
        names.add(name)
        yield name, value
