"""Jobs: submitting them, looking at them, and having them end; by the rights of an administrator."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Final

from remctl.jobs.cli._shared import CommandLineError, Commands, at_the_desk, declare
from remctl.jobs.scripts import one_line
from remctl.jobs.states import JobState, Move
from remctl.jobs.store import Job

LOOK: Final = 0.2
"""Seconds between two looks at a job that is waited for."""


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    submit = declare(
        commands,
        "submit",
        _submit,
        "make a job, and print its number",
        more="Others on this machine see a command line while it runs: secret parameters come with --stdin.",
    )
    submit.add_argument("name", metavar="SCRIPT")
    submit.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    submit.add_argument(
        "--stdin", action="store_true", help="read further parameters from standard input: a JSON object"
    )
    submit.add_argument("--priority", type=int, default=0, help="-100 to 100; higher ones are first")
    submit.add_argument("--delay", type=float, default=0, metavar="SECONDS", help="not before that")
    where = submit.add_mutually_exclusive_group()
    where.add_argument("--robot", metavar="NAME|GUID", help="have this robot run it, and not a runner")
    where.add_argument("--pool", metavar="NAME", help="have any robot of this pool run it")
    declare(commands, "status", _status, "show a job, or the latest ones").add_argument("job", type=_job, nargs="?")
    listed = declare(commands, "list", _list, "list jobs, the latest first")
    listed.add_argument("--state", action="append", default=[], choices=[each.name.lower() for each in JobState])
    listed.add_argument("--script", metavar="NAME", help="those of this script")
    listed.add_argument("--owner", metavar="PRINCIPAL", help="those of this user")
    listed.add_argument("--limit", type=int, default=50, help="so many at the most (default: %(default)s)")
    declare(commands, "output", _output, "print what a job has written").add_argument("job", type=_job)
    declare(
        commands, "wait", _wait, "wait until a job is over", more="The exit status is 1 if it was no success."
    ).add_argument("job", type=_job)
    for name, move, text in (
        ("stop", Move.STOP, "have a job end in peace"),
        ("abort", Move.ABORT, "have a job killed"),
        ("retry", Move.RETRY, "have a job that failed run again"),
    ):
        ask = declare(commands, name, _ask, text)
        ask.add_argument("job", type=_job)
        ask.set_defaults(move=move)


def _submit(options: argparse.Namespace) -> int:
    words = _words(options.parameters)
    piped = _piped() if options.stdin else {}
    if both := sorted(words.keys() & piped.keys()):
        raise CommandLineError(f"the parameter {both[0]} is given twice")
    with at_the_desk(options) as desk:
        for name in desk.script(options.name).parameters.secrets:
            if name in words:
                raise CommandLineError(f"the parameter {name} is secret", hint="change it, and give it with --stdin")
        more = {name: getattr(options, name) for name in ("priority", "delay", "robot", "pool")}
        try:
            job = desk.submit(options.name, {**words, **piped}, **more)
        except ValueError as error:
            raise CommandLineError(str(error)) from error
    print(job.id)
    return 0


def _status(options: argparse.Namespace) -> int:
    with at_the_desk(options) as desk:
        if options.job is None:
            for job in desk.listed():
                print(_line(job))
            return 0
        print(_line(desk.job(options.job)))
        for attempt in desk.attempts(options.job):
            if attempt.report is not None:
                said = "success" if attempt.reported_success else "failure"
                print(f"  attempt {attempt.number} reported {said}: {one_line(attempt.report)}")
    return 0


def _list(options: argparse.Namespace) -> int:
    states = [JobState[name.upper()] for name in options.state]
    with at_the_desk(options) as desk:
        try:
            found = desk.listed(states=states, script=options.script, owner=options.owner, limit=options.limit)
        except ValueError as error:
            raise CommandLineError(str(error)) from error
    for job in found:
        print(_line(job))
    return 0


def _output(options: argparse.Namespace) -> int:
    with at_the_desk(options) as desk:
        output = desk.output(options.job)
    sys.stdout.buffer.write(output.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(output.stderr)
    return 0


def _wait(options: argparse.Namespace) -> int:
    with at_the_desk(options) as desk:
        while not (job := desk.job(options.job)).state.final:
            time.sleep(LOOK)
    print(_line(job))
    return 0 if job.state is JobState.SUCCESS else 1


def _ask(options: argparse.Namespace) -> int:
    with at_the_desk(options) as desk:
        job = desk.retry(options.job) if options.move is Move.RETRY else desk.ask(options.job, options.move)
    print(_line(job))
    return 0


# What they are made of


def _words(words: list[str]) -> dict[str, str]:
    given = {}
    for text in words:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandLineError(f"a parameter is written NAME=VALUE: {text!r}")
        if name in given:
            raise CommandLineError(f"the parameter {name} is given twice")
        given[name] = value
    return given


def _piped() -> dict[str, str]:
    """What comes on standard input, which no message shows."""
    try:
        found = json.loads(sys.stdin.read())
    except ValueError:
        raise CommandLineError("what comes with --stdin is no JSON") from None
    if not isinstance(found, dict) or any(isinstance(value, dict | list | None) for value in found.values()):
        raise CommandLineError('what comes with --stdin must be a JSON object: {"NAME": "VALUE", ...}')
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _job(text: str) -> int | str:
    if not text.isdecimal():
        return text
    if len(text) > 18:  # no database has so many
        raise argparse.ArgumentTypeError(f"there is no job {text}")
    return int(text)


def _line(job: Job) -> str:
    end = "" if job.reason is None else f" ({job.reason}{'' if job.detail is None else f': {job.detail}'})"
    return one_line(f"{job.id} {job.state.name}{end} {job.script} {job.owner}")
