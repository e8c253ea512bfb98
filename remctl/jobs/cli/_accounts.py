"""Accounts: names with which scripts report that run elsewhere than under a runner."""

from __future__ import annotations

import argparse
import sys
import time

from remctl.jobs.cli._folder import new_password
from remctl.jobs.cli._shared import CommandLineError, Commands, declare, group, opened


def declare_all(commands: Commands) -> None:
    """Put the commands into the command line."""
    account = group(commands, "account", "manage the accounts that scripts report with")
    declare(account, "list", _list, "list the accounts, and when the password of each was set")
    password = declare(
        account, "password", _password, "make an account, or change its password, which is made up and printed once"
    )
    password.add_argument("name", metavar="NAME")
    password.add_argument("--stdin", action="store_true", help="read the password from standard input, print none")
    declare(account, "remove", _remove, "remove an account").add_argument("name", metavar="NAME")


def _list(options: argparse.Namespace) -> int:
    with opened(options) as service:
        for name, changed in service.store.accounts.all().items():
            print(f"{name:30} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(changed))}")
    return 0


def _password(options: argparse.Namespace) -> int:
    password = _read() if options.stdin else new_password()
    with opened(options) as service:
        try:
            service.store.accounts.set_password(options.name, password)
        except ValueError as error:
            raise CommandLineError(str(error)) from error
    if not options.stdin:
        print(password)
    return 0


def _read() -> str:
    try:
        return sys.stdin.readline().rstrip("\n")
    except UnicodeDecodeError:
        raise CommandLineError("the password is no text in UTF-8") from None


def _remove(options: argparse.Namespace) -> int:
    with opened(options) as service:
        service.store.accounts.remove(options.name)
    return 0
