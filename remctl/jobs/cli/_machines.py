"""Machines: those that an administrator names, and vouches for."""

from __future__ import annotations

import argparse
import ipaddress
import time

from remctl.jobs.cli._shared import CommandLineError, Commands, declare, group, opened


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    machine = group(commands, "machine", "name the machines of runners and robots")
    add = declare(machine, "add", _add, "write down a machine, or change what is known of it")
    add.add_argument("name", metavar="NAME", help="its host name")
    add.add_argument("address", metavar="ADDRESS", help="its IP address")
    add.add_argument("--certified", action="store_true", help="vouch for it")
    declare(machine, "list", _list, "list the machines")
    declare(machine, "remove", _remove, "forget a machine").add_argument("name", metavar="NAME")


def _add(options: argparse.Namespace) -> int:
    try:
        ipaddress.ip_address(options.address)
    except ValueError:
        raise CommandLineError(f"an address has numbers, as 192.0.2.1 or 2001:db8::1: {options.address!r}") from None
    if not options.name:
        raise CommandLineError("a machine's name must not be empty")
    with opened(options) as service:
        service.store.machines.add(options.name, options.address, options.certified)
    return 0


def _list(options: argparse.Namespace) -> int:
    with opened(options) as service:
        for machine in service.store.machines.all():
            seen = "never" if machine.seen_at is None else _time(machine.seen_at)
            print(f"{machine.name:30} {machine.address:20} {'certified' if machine.certified else '':10} seen {seen}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    with opened(options) as service:
        service.store.machines.remove(options.name)
    return 0


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
