"""`pyremctl --completion SHELL`: a completion script, made from the options of the parsers.

An option's metavar says what its value is: FILE, DIR, HOST and NODES are completed, and so are choices.  After the
first word that is no option nothing of `pyremctl` is offered, since what comes there belongs to the command.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from remctl.cli._parser import Parser
from remctl.cli._streams import OUT, Outlet
from remctl.cli._words import TARGETS

PROGRAM: Final = "pyremctl"

SHELLS: Final = ("bash", "zsh", "fish")


class Option(NamedTuple):
    """An option of one of the parsers."""

    names: tuple[str, ...]
    help: str
    value: str | None = None
    """What its value is called; None if it has none."""
    choices: tuple[str, ...] = ()


def run(words: Sequence[str]) -> int:
    """Write the script that a command line asks for."""
    parser = Parser(prog=PROGRAM, usage="%(prog)s --completion SHELL", helped="pyremctl --completion --help")
    parser.add_argument("--completion", choices=SHELLS, metavar="SHELL", required=True)
    shell = parser.parse_args(words).completion
    from remctl.cli import _check, _one, _options

    one, many = options_of(_one.make_parser(), _check.make_parser()), options_of(_options.make_parser())
    Outlet(OUT).write(script(shell, one + _OWN, many).encode())
    return 0


_OWN: Final = [
    Option(("--check",), "look for what is wrong between here and a host"),
    Option(("--completion",), "print a completion script", "SHELL", SHELLS),
]


def options_of(*parsers: argparse.ArgumentParser) -> list[Option]:
    """Return the options of parsers, those that have names in common once."""
    found: dict[str, Option] = {}
    for parser in parsers:
        for action in parser._actions:
            if not action.option_strings or action.help == argparse.SUPPRESS or action.option_strings[-1] in found:
                continue
            text = parser._get_formatter()._expand_help(action) if action.help else ""
            value = None if action.nargs == 0 else str(action.metavar or action.dest.upper())
            choices = tuple(map(str, action.choices or ()))
            found[action.option_strings[-1]] = Option(
                tuple(action.option_strings), text.partition(";")[0], value, choices
            )
    return list(found.values())


def script(shell: str, one: Sequence[Option], many: Sequence[Option]) -> str:
    """Return a completion script.

    Args:
        shell: one of `SHELLS`.
        one: the options for a command on one host.
        many: those for many hosts, which hold as soon as one of them names hosts.
    """
    first = [*one, *(option for option in many if TARGETS.intersection(option.names))]
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](first, many)


_FILES: Final = "FILE"
_FOLDERS: Final = "DIR"
_HOSTS: Final = ("HOST", "NODES")


def _filled(template: str, **parts: str) -> str:
    """Return a template with something in the place of its words in capitals."""
    return re.sub(r"\b[A-Z]{3,}\b", lambda found: parts.get(found[0], found[0]), template)


def _short(options: Iterable[Option]) -> str:
    """Return the letters of the options that have a value."""
    return "".join(name[1] for option in options if option.value for name in option.names if len(name) == 2)


def _long(options: Iterable[Option]) -> list[str]:
    """Return the long names of the options that have a value."""
    return [name for option in options if option.value for name in option.names if name.startswith("--")]


def _targets() -> list[str]:
    """Return the patterns of words that name many hosts."""
    return sorted(f"{name}*" if len(name) == 2 else name for name in TARGETS)


# bash

_BASH: Final = """\
# Completion of pyremctl for bash: source this, or put it into /usr/share/bash-completion/completions/pyremctl
_pyremctl() {
    local word=${COMP_WORDS[COMP_CWORD]} mode=one place=1 option
    COMPREPLY=()
    while ((place < COMP_CWORD)); do
        option=${COMP_WORDS[place]}
        case $option in TARGETS) mode=many ;; esac
        case $mode:$option in
            *:--) return ;;
            VALUED) ((place += 1)); [[ ${COMP_WORDS[place]} == = ]] && ((place += 1)) ;;
            *:-?*) ;;
            *) return ;;
        esac
        ((place += 1))
    done
    if ((place > COMP_CWORD)); then
        [[ $word == = ]] && word=
        case $mode:$option in
VALUES
            *) compopt +o default 2>/dev/null ;;
        esac
    else
        case $mode:$word in
            one:-*) COMPREPLY=($(compgen -W 'ONE' -- "$word")) ;;
            many:-*) COMPREPLY=($(compgen -W 'MANY' -- "$word")) ;;
            one:*) COMPREPLY=($(compgen -A hostname -- "$word")) ;;
        esac
    fi
}
complete -o default -F _pyremctl pyremctl
"""


def _bash(one: Sequence[Option], many: Sequence[Option]) -> str:
    valued, values = [], []
    for mode, options in (("one", one), ("many", many)):
        letters = _short(options)
        valued += [f"{mode}:-[{letters}]", f"{mode}:-[!-]*[{letters}]", *(f"{mode}:{name}" for name in _long(options))]
        values += [
            f"{' ' * 12}{'|'.join(f'{mode}:{name}' for name in option.names)}) {action} ;;"
            for option in options
            if option.value and (action := _bash_values(option))
        ]
    return _filled(
        _BASH,
        TARGETS="|".join(_targets()),
        VALUED="|".join(valued),
        VALUES="\n".join(values),
        ONE=" ".join(name for option in one for name in option.names),
        MANY=" ".join(name for option in many for name in option.names),
    )


def _bash_values(option: Option) -> str:
    if option.choices:
        return f"""COMPREPLY=($(compgen -W {shlex.quote(" ".join(option.choices))} -- "$word"))"""
    if option.value in _HOSTS:
        return 'COMPREPLY=($(compgen -A hostname -- "$word"))'
    if option.value == _FOLDERS:
        return 'COMPREPLY=($(compgen -d -- "$word"))'
    return ":" if option.value == _FILES else ""


# zsh

_ZSH: Final = """\
#compdef pyremctl
# Completion of pyremctl for zsh: put this as _pyremctl into a folder of $fpath
_pyremctl() {
    if ((${words[(I)(TARGETS)]})); then
        _arguments -s -S -A '-*' \\
MANY
            '*:command: _default'
    else
        _arguments -s -S -A '-*' \\
ONE
            '1:host:_hosts' '*:command: _default'
    fi
}
if [[ $funcstack[1] == _pyremctl ]]; then _pyremctl "$@"; else compdef _pyremctl pyremctl; fi
"""


def _zsh(one: Sequence[Option], many: Sequence[Option]) -> str:
    return _filled(_ZSH, TARGETS="|".join(_targets()), ONE=_zsh_options(one), MANY=_zsh_options(many))


def _zsh_options(options: Iterable[Option]) -> str:
    lines = []
    for option in options:
        text = re.sub(r"([\[\]\\])", r"\\\1", option.help)
        others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
        for name in option.names:
            ending = "" if option.value is None else "+" if len(name) == 2 else "="
            value = "" if option.value is None else f":{option.value}:{_zsh_values(option)}"
            lines.append(f"{' ' * 12}{shlex.quote(f'{others}{name}{ending}[{text}]{value}')} \\")
    return "\n".join(lines)


def _zsh_values(option: Option) -> str:
    if option.choices:
        return f"({' '.join(option.choices)})"
    if option.value in _HOSTS:
        return "_hosts"
    return {_FILES: "_files", _FOLDERS: "_files -/"}.get(option.value or "", " ")


# fish

_FISH: Final = """\
# Completion of pyremctl for fish: put this into ~/.config/fish/completions/pyremctl.fish
function __pyremctl_in --argument-names wanted
    set -l words (commandline -opc)[2..-1]
    set -l mode one
    while set -q words[1]
        switch $words[1]
            case TARGETS
                set mode many
        end
        switch $mode:$words[1]
            case '*:--'
                return 1
            case VALUED
                set words $words[2..-1]
            case '*:-?*'
            case '*'
                return 1
        end
        set words $words[2..-1]
    end
    test $mode = $wanted
end
complete -c pyremctl -n '__pyremctl_in one' -f -a '(__fish_print_hostnames)'
complete -c pyremctl -n '__pyremctl_in many' -f
OPTIONS
"""


def _fish(one: Sequence[Option], many: Sequence[Option]) -> str:
    valued, lines = [], []
    for mode, options in (("one", one), ("many", many)):
        names = [name for option in options if option.value for name in option.names]
        valued += [f"'{mode}:{name}'" for name in names]
        lines += [f"complete -c pyremctl -n '__pyremctl_in {mode}'{_fish_option(option)}" for option in options]
    targets = " ".join(map(_fish_quoted, _targets()))
    return _filled(_FISH, TARGETS=targets, VALUED=" ".join(valued), OPTIONS="\n".join(lines))


def _fish_option(option: Option) -> str:
    names = "".join(f" -s {name[1]}" if len(name) == 2 else f" -l {name[2:]}" for name in option.names)
    return f"{names}{_fish_values(option)} -d {_fish_quoted(option.help)}"


def _fish_values(option: Option) -> str:
    if option.value is None:
        return ""
    if option.choices:
        return f" -x -a {_fish_quoted(' '.join(option.choices))}"
    if option.value in _HOSTS:
        return " -x -a '(__fish_print_hostnames)'"
    return {_FILES: " -r -F", _FOLDERS: " -x -a '(__fish_complete_directories)'"}.get(option.value, " -x")


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
