"""Scripts: installing them, showing them, turning them on and off."""

from __future__ import annotations

import argparse

from remctl.jobs import scripts
from remctl.jobs.cli._shared import CommandLineError, Commands, declare, group, me, opened
from remctl.jobs.store import InstalledScript


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    script = group(commands, "script", "install and manage scripts")
    install = declare(script, "install", _install, "install a well-formed script, or a new version of it")
    install.add_argument("file", metavar="FILE")
    install.add_argument("--name", help="by default the file's, without its suffix")
    install.add_argument("--description", metavar="TEXT", help="one line, instead of the header's")
    install.add_argument("--language", help="python, bash, perl or groovy; by default what the file looks like")
    declare(script, "list", _list, "list the scripts")
    declare(
        script, "show", _show, "show a script: what it takes, and whether its file is what was installed"
    ).add_argument("name", metavar="NAME")
    for name, enabled in (("enable", True), ("disable", False)):
        turn = declare(script, name, _enable, f"turn a script {'on' if enabled else 'off'}")
        turn.add_argument("name", metavar="NAME")
        turn.set_defaults(enabled=enabled)
    declare(script, "remove", _remove, "remove a script that was never run").add_argument("name", metavar="NAME")


def _install(options: argparse.Namespace) -> int:
    with opened(options) as service:
        script = scripts.read_script(
            options.file, name=options.name, language=options.language, description=options.description
        )
        scripts.install(script, service.settings.scripts)
        service.store.scripts.install(script, me())
    print(f"installed {script.name} ({script.language.value}): {script.description}")
    return 0


def _list(options: argparse.Namespace) -> int:
    with opened(options) as service:
        for script in service.store.scripts.all():
            off = "" if script.enabled else "off"
            print(f"{script.name:20} {script.language.value:8} {off:4} {script.description}")
    return 0


def _show(options: argparse.Namespace) -> int:
    with opened(options) as service:
        script = service.store.scripts.get(options.name)
        print(f"{script.name} ({script.language.value}{'' if script.enabled else ', off'}): {script.description}")
        print(f"  run-time     {'none' if script.run_time is None else f'{script.run_time:g} s'}")
        print(f"  users        {'all' if script.users is None else ' '.join(script.users.entries)}")
        print(f"  SHA-256      {script.sha256}")
        for parameter in script.parameters.values():
            needed = "required" if parameter.required else "optional"
            shown = "" if parameter.default is None else f", by default {parameter.written(parameter.default)}"
            about = f": {parameter.description}" if parameter.description else ""
            print(f"  parameter    {parameter.name} ({parameter.type.value}, {needed}{shown}){about}")
        if script.name != scripts.AD_HOC.name:
            scripts.verify(service.settings.scripts / script.filename, script.sha256)
    return 0


def _enable(options: argparse.Namespace) -> int:
    with opened(options) as service:
        service.store.scripts.enable(options.name, options.enabled)
    return 0


def _remove(options: argparse.Namespace) -> int:
    if options.name == scripts.AD_HOC.name:
        raise CommandLineError(f"the script {options.name!r} is always there", hint="turn it off instead")
    with opened(options) as service:
        script: InstalledScript = service.store.scripts.get(options.name)
        service.store.scripts.remove(options.name)
        (service.settings.scripts / script.filename).unlink(missing_ok=True)
    return 0
