"""What is printed for other programs: units for systemd, and the configuration of remctld."""

from __future__ import annotations

import argparse
import pwd
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from remctl.jobs.cli._daemons import DAEMONS, seconds
from remctl.jobs.cli._shared import CommandLineError, Commands, declare, open_store
from remctl.jobs.service import Service
from remctl.jobs.settings import Settings, load

DRAIN: Final = 300.0
"""Seconds that jobs have to end when a unit is stopped, unless somebody wants it otherwise."""

SLACK: Final = 60
"""Seconds more that systemd waits: for commands of remctl, and for what has to be written down."""

UNIT: Final = """\
[Unit]
Description=remctl's jobs: {title}
After=network-online.target nss-user-lookup.target time-sync.target postgresql.service
Wants=network-online.target

[Service]
Type=notify
User={user}
ExecStart={command}
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec={stop}
UMask=0077
LimitNOFILE=8192
NoNewPrivileges=yes
LockPersonality=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
ReadWritePaths={folder}
{hardening}

[Install]
WantedBy=multi-user.target
"""

FOR_SCRIPTS: Final = """\
# Scripts can write where their user can, but for the system's own folders, and cannot become somebody else.
ProtectSystem=full"""

WITHOUT_SCRIPTS: Final = """\
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
PrivateDevices=yes
PrivateTmp=yes
ProtectHome=read-only
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
SystemCallFilter=@system-service"""

COMMAND: Final = "remctl-job"
"""The program that remctld runs, in the folder of the jobs."""


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    unit = declare(commands, "print-unit", _unit, "print a unit for systemd")
    unit.add_argument("daemon", choices=list(DAEMONS))
    unit.add_argument("--user", help="who it runs as (default: the owner of the folder)")
    unit.add_argument(
        "--drain",
        type=seconds,
        default=DRAIN,
        metavar="SECONDS",
        help="how long jobs have to end when it is stopped (default: %(default)g)",
    )
    declare(
        commands,
        "print-remctld-config",
        _remctld,
        "print the lines for remctld's configuration with which it has the command `job`",
        more="It makes the program that they name, in the folder of the jobs.",
    )


def _unit(options: argparse.Namespace) -> int:
    settings = load(options.config)
    daemon = DAEMONS[options.daemon]
    words = [sys.executable, "-P", "-m", "remctl.jobs.cli", "--config", str(Path(options.config).absolute())]
    words.append(options.daemon)
    if "RUNNER" in daemon.parts:
        words += ["--drain", f"{options.drain:.12g}"]
        stop, hardening = options.drain + settings.runner.grace + SLACK, FOR_SCRIPTS
    else:
        stop, hardening = SLACK, WITHOUT_SCRIPTS
    print(
        UNIT.format(
            title=daemon.title,
            user=options.user or _owner(settings),
            command=" ".join(map(_command_word, words)),
            stop=round(stop),
            folder=_word(str(settings.folder)),
            hardening=hardening,
        ),
        end="",
    )
    return 0


def _owner(settings: Settings) -> str:
    number = settings.folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _command_word(text: str) -> str:
    return _word(text).replace("$", "$$")


def _word(text: str) -> str:
    """A word as units have it: quoted where it has to be, and without what systemd would put something else for."""
    if "\n" in text:
        raise CommandLineError(f"no unit can name a path with a line end in it: {text!r}")
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w/.,:@+=%-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _remctld(options: argparse.Namespace) -> int:
    from remctl.backend._remctld import config  # here, since other commands need no table of commands
    from remctl.jobs.command import backend, program

    settings = load(options.config)
    path = settings.folder / COMMAND
    if str(path).split() != [str(path)]:
        raise CommandLineError(f"remctld cannot run a program with blanks in its path: {path}")
    with closing(open_store(settings)) as store:
        lines = list(config(backend(Service(settings, store)), str(path)))
    _make(path, program(Path(options.config)))
    identity = "" if settings.folder.stat().st_uid == 0 else f" user={_owner(settings)}"
    for line in lines:
        print(line.replace(f" {path}", f" {path}{identity}", 1))
    return 0


def _make(path: Path, text: str) -> None:
    """Put a program in its place, at once: remctld may be about to run it."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.replace(path)
