"""Robots: agents on other machines, which an administrator makes known; their GUIDs are what they sign in with."""

from __future__ import annotations

import argparse
import time
from typing import Final

from remctl.jobs.cli._shared import CommandLineError, Commands, declare, group, opened
from remctl.jobs.scripts import one_line
from remctl.jobs.service import Service
from remctl.jobs.store import Robot

CHANGES: Final = (
    ("enable", {"enabled": True}, "turn a robot on"),
    ("disable", {"enabled": False}, "turn a robot off; a job that it has goes on"),
    ("license", {"licensed": True}, "give a robot a licence"),
    ("unlicense", {"licensed": False}, "take a robot's licence; a job that it has goes on"),
)
"""What an administrator changes of a robot: the command, what `Robots.change` is given, and what help says."""


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    robot = group(commands, "robot", "name the robots, which run jobs on other machines")
    add = declare(
        robot,
        "add",
        _add,
        "make a robot known, and print the GUID that it signs in with",
        more="Who knows the GUID can be the robot.  Others on this machine see a command line while it runs.",
    )
    add.add_argument("name", metavar="NAME", help="what people call it")
    add.add_argument("--pool", metavar="NAME", help="the pool that it belongs to")
    add.add_argument("--guid", help="its own (default: one is made up)")
    add.add_argument("--unlicensed", action="store_true", help="it may not work yet")
    declare(robot, "list", _list, "list the robots, with their GUIDs")
    for name, change, text in CHANGES:
        changing = declare(robot, name, _change, text)
        changing.add_argument("robot", metavar="NAME|GUID")
        changing.set_defaults(change=change)
    declare(robot, "remove", _remove, "forget a robot that no job is for").add_argument("robot", metavar="NAME|GUID")


def _add(options: argparse.Namespace) -> int:
    if options.pool == "":
        raise CommandLineError("a pool's name must not be empty")
    with opened(options) as service:
        try:
            made = service.store.robots.add(
                options.name, pool=options.pool, guid=options.guid, licensed=not options.unlicensed
            )
        except ValueError as error:
            raise CommandLineError(str(error)) from error
    print(made.guid)
    return 0


def _list(options: argparse.Namespace) -> int:
    with opened(options) as service:
        for robot in service.store.robots.all():
            print(_line(robot))
    return 0


def _change(options: argparse.Namespace) -> int:
    with opened(options) as service:
        service.store.robots.change(_guid(service, options.robot), **options.change)
    return 0


def _remove(options: argparse.Namespace) -> int:
    with opened(options) as service:
        service.store.robots.remove(_guid(service, options.robot))
    return 0


def _guid(service: Service, wanted: str) -> str:
    """The GUID of the robot that is meant."""
    found = [robot.guid for robot in service.store.robots.all() if wanted == robot.name or wanted.lower() == robot.guid]
    if not found:
        raise CommandLineError(f"there is no robot {wanted!r}")
    if len(found) > 1:
        raise CommandLineError(f"there are {len(found)} robots of the name {wanted!r}", hint="name one by its GUID")
    return found[0]


def _line(robot: Robot) -> str:
    why = "" if robot.enabled else " off"
    seen = "never" if robot.seen_at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(robot.seen_at))
    job = "" if robot.job is None else f" job {robot.job}"
    place = "" if robot.machine is None else f" on {robot.machine}"
    status = robot.status.name.lower()
    return one_line(f"{robot.guid} {robot.name:20} {robot.pool or '-':12} {status}{why}{place}{job} seen {seen}")
