"""The console command `remctl-jobs`: the administrator's, and the runner."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from remctl.exceptions import RemctlError
from remctl.jobs import scripts
from remctl.jobs.runner import Runner, wake
from remctl.jobs.settings import FILE, Settings, load
from remctl.jobs.states import Move
from remctl.jobs.store import Job, Store, check, upgrade

VARIABLE: Final = "REMCTL_JOBS_CONFIG"

DEFAULT: Final = f"/etc/remctl/jobs/{FILE}"

TEMPLATE: Final = """\
# Settings of remctl's jobs.  Each has the default that is shown.

#database = "sqlite:///jobs.db"     # or postgresql://USER:PASSWORD@HOST/NAME

[runner]
#poll = 5               # seconds between two looks for jobs
#concurrency = 4        # jobs at the same time
#lease = 60             # seconds without a sign of life after which jobs are taken for lost
#grace = 10             # seconds that a script has to end when it is stopped
#output = 1048576       # bytes of each stream that are kept
"""


class CommandLineError(RemctlError):
    """An argument of the command line makes no sense."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 1 if something cannot be done, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except RemctlError as error:
        sys.stderr.write(f"remctl-jobs: {error}\n")
        return 1
    return status


# Each command


def _init(options: argparse.Namespace) -> int:
    folder = Path(options.folder)
    file = folder / FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(TEMPLATE)
        file.chmod(0o600)  # it may come to hold the password of a database
    except FileExistsError as error:
        raise CommandLineError(f"there is a {file} already") from error
    except OSError as error:
        raise CommandLineError(f"{folder}: {error.strerror}") from error
    settings = load(file)
    for place in (settings.scripts, settings.attempts):
        place.mkdir(mode=0o700, exist_ok=True)
    store = Store(settings.database_url)
    upgrade(store.database)
    store.scripts.install(scripts.AD_HOC, _me())
    store.scripts.enable(scripts.AD_HOC.name, False)
    store.close()
    print(f"made {file}; next: remctl-jobs --config {file} script install FILE")
    return 0


def _upgrade(options: argparse.Namespace) -> int:
    store = Store(load(options.config).database_url)
    upgrade(store.database)
    store.close()
    return 0


def _install(options: argparse.Namespace) -> int:
    settings, store = _opened(options)
    script = scripts.read_script(
        options.file, name=options.name, language=options.language, description=options.description
    )
    scripts.install(script, settings.scripts)
    store.scripts.install(script, _me())
    print(f"installed {script.name} ({script.language.value}): {script.description}")
    return 0


def _scripts(options: argparse.Namespace) -> int:
    _, store = _opened(options)
    for script in store.scripts.all():
        print(f"{script.name:20} {script.language.value:8} {'' if script.enabled else 'off':4} {script.description}")
    return 0


def _enable(options: argparse.Namespace) -> int:
    _, store = _opened(options)
    store.scripts.enable(options.name, options.enabled)
    return 0


def _remove(options: argparse.Namespace) -> int:
    settings, store = _opened(options)
    script = store.scripts.get(options.name)
    store.scripts.remove(options.name)
    (settings.scripts / script.filename).unlink(missing_ok=True)
    return 0


def _submit(options: argparse.Namespace) -> int:
    settings, store = _opened(options)
    given = {}
    for text in options.parameters:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandLineError(f"a parameter is written NAME=VALUE: {text!r}")
        if name in given:
            raise CommandLineError(f"the parameter {name} is given twice")
        given[name] = value
    script = store.scripts.get(options.name)
    values = script.parameters.check(given)
    try:
        job = store.jobs.submit(options.name, values, _me(), priority=options.priority, delay=options.delay)
    except ValueError as error:
        raise CommandLineError(str(error)) from error
    wake(settings.folder)
    print(job.id)
    return 0


def _show(options: argparse.Namespace) -> int:
    _, store = _opened(options)
    if options.job is None:
        for job in store.jobs.listed():
            print(_line(job))
    else:
        print(_line(store.jobs.get(options.job)))
    return 0


def _output(options: argparse.Namespace) -> int:
    _, store = _opened(options)
    output = store.jobs.output(options.job)
    sys.stdout.buffer.write(output.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(output.stderr)
    return 0


def _ask(options: argparse.Namespace) -> int:
    _, store = _opened(options)
    if options.move is Move.RETRY:
        print(_line(store.jobs.retry(options.job, _me())))
    else:
        print(_line(store.jobs.ask(options.job, options.move, _me())))
    return 0


def _runner(options: argparse.Namespace) -> int:
    settings, store = _opened(options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    runner = Runner(settings, store)

    def end(number: int, frame: object) -> None:  # noqa: ARG001
        runner.drain()
        signal.signal(number, lambda *_: runner.stop())

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        runner.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


# What they share


def _opened(options: argparse.Namespace) -> tuple[Settings, Store]:
    settings = load(options.config)
    try:
        store = Store(settings.database_url)
    except ValueError as error:
        raise CommandLineError(str(error)) from error
    check(store.database)
    return settings, store


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _line(job: Job) -> str:
    end = "" if job.reason is None else f" ({job.reason}{'' if job.detail is None else f': {job.detail}'})"
    return f"{job.id} {job.state.name}{end} {job.script} {job.owner}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="remctl-jobs", description="Unattended jobs: scripts, and what runs them.")
    parser.add_argument(
        "--config",
        default=os.environ.get(VARIABLE, DEFAULT),
        metavar="FILE",
        help=f"the configuration file (default: ${VARIABLE}, or {DEFAULT})",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        to: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Callable[..., int], text: str
    ) -> argparse.ArgumentParser:
        made = to.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    add(commands, "init", _init, "make a working folder").add_argument("folder", metavar="DIR")
    add(commands, "upgrade", _upgrade, "bring the database's schema up to date")
    add(commands, "runner", _runner, "run jobs, until SIGTERM; a second one stops the scripts")
    script = commands.add_parser("script", help="install and manage scripts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    install = add(script, "install", _install, "install a well-formed script, or a new version of it")
    install.add_argument("file", metavar="FILE")
    install.add_argument("--name", help="by default the file's, without its suffix")
    install.add_argument("--description", metavar="TEXT", help="one line, instead of the header's")
    install.add_argument("--language", help="python, bash, perl or groovy; by default what the file looks like")
    add(script, "list", _scripts, "list the scripts")
    for name, enabled in (("enable", True), ("disable", False)):
        turn = add(script, name, _enable, f"turn a script {'on' if enabled else 'off'}")
        turn.add_argument("name", metavar="NAME")
        turn.set_defaults(enabled=enabled)
    add(script, "remove", _remove, "remove a script that was never run").add_argument("name", metavar="NAME")
    submit = add(commands, "submit", _submit, "make a job, and print its number")
    submit.add_argument("name", metavar="SCRIPT")
    submit.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    submit.add_argument("--priority", type=int, default=0, help="-100 to 100; higher ones are first")
    submit.add_argument("--delay", type=float, default=0, metavar="SECONDS", help="not before that")
    add(commands, "status", _show, "show a job, or the latest ones").add_argument("job", type=_job, nargs="?")
    add(commands, "output", _output, "print what a job has written").add_argument("job", type=_job)
    for name, move, text in (
        ("stop", Move.STOP, "have a job end in peace"),
        ("abort", Move.ABORT, "have a job killed"),
        ("retry", Move.RETRY, "have a job that failed run again"),
    ):
        ask = add(commands, name, _ask, text)
        ask.add_argument("job", type=_job)
        ask.set_defaults(move=move)
    return parser


def _job(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


if __name__ == "__main__":
    sys.exit(main())
