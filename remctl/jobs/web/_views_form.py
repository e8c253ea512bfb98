"""The form in which somebody fills in the parameters of a script, and what was filled in."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from remctl.jobs.scripts import Parameter, Parameters, ScriptError, Type
from remctl.jobs.store import Robot

PREFIX: Final = "p."
"""Before the names of parameters in the form, which has fields of its own."""


class Field(NamedTuple):
    """One parameter as the form shows it."""

    parameter: Parameter
    text: str
    """What is filled in: what was typed, or the default; of a secret nothing."""
    error: str | None
    """What is wrong with what was typed."""
    options: tuple[tuple[str, str], ...]
    """What there is to choose from, as value and label; none where something is typed."""

    @property
    def name(self) -> str:
        """Its name in the form."""
        return PREFIX + self.parameter.name

    @property
    def kind(self) -> str:
        """What it is in HTML: select, textarea, or a type of input."""
        if self.options:
            return "select"
        if self.parameter.multiline:
            return "textarea"  # also for a secret, of which other fields would take one line
        return {Type.INTEGER: "number", Type.NUMBER: "number", Type.SECRET: "password"}.get(self.parameter.type, "text")

    @property
    def hints(self) -> list[str]:
        """What has to be known to fill it in."""
        known = self.parameter
        hints = []
        if known.minimum is not None or known.maximum is not None:
            hints.append(_range(known))
        if known.pattern is not None:
            hints.append(f"has to match {known.pattern}")
        if known.default is not None and not self.options:
            hints.append(f"default: {known.written(known.default)}")
        return hints


class Place(NamedTuple):
    """Where a job is to run, as `Desk.submit` takes it; on the server's runners without both."""

    robot: str | None = None
    pool: str | None = None


def fields(parameters: Parameters, typed: Mapping[str, str], errors: Mapping[str, str]) -> list[Field]:
    """Return the fields.

    Args:
        parameters: those of the script.
        typed: what was typed into the form, by parameter; empty for a new one.
        errors: what is wrong, by parameter.
    """
    return [_field(parameter, typed, errors.get(name)) for name, parameter in parameters.items()]


def read(parameters: Parameters, form: Mapping[str, str]) -> dict[str, str]:
    """Return what was typed, by parameter, with line ends as scripts know them."""
    typed = {}
    for name, parameter in parameters.items():
        if (text := form.get(PREFIX + name)) is not None:
            typed[name] = text.replace("\r\n", "\n") if parameter.multiline else text
    return typed


def values(parameters: Parameters, typed: Mapping[str, str]) -> dict[str, str]:
    """Return what is given to the job: what was left empty is not, but for a text whose default was deleted."""
    return {name: text for name, text in typed.items() if text or _deleted(parameters[name])}


def errors(parameters: Parameters, given: Mapping[str, str]) -> dict[str, str]:
    """Return all that is wrong, by parameter; a script's own check stops at the first."""
    found = {}
    for name, parameter in parameters.items():
        try:
            if name in given:
                parameter.read(given[name])
            elif parameter.required:
                found[name] = "it is missing"
        except ScriptError as error:
            found[name] = error.reason
    return found


def places(robots: Sequence[Robot]) -> list[tuple[str, str]]:
    """Return where a job may run, as value and label; none where there are no robots.

    Robots that share a name cannot be told apart by it, and are left to their pools.
    """
    if not robots:
        return []
    pools = sorted({robot.pool for robot in robots if robot.pool is not None})
    names = Counter(robot.name for robot in robots)
    return [
        ("", "this server's runners"),
        *((f"pool:{pool}", f"any robot of the pool {pool}") for pool in pools),
        *((f"robot:{name}", f"the robot {name}") for name, count in names.items() if count == 1),
    ]


def place(value: str) -> Place:
    """Return where a job is to run.

    Args:
        value: one of those of `places`.

    Raises:
        ValueError: it is none.
    """
    kind, _, name = value.partition(":")
    if value and (kind not in ("pool", "robot") or not name):
        raise ValueError(value)
    return Place(**{kind: name}) if value else Place()


def guid(key: str, script: str, given: Mapping[str, str], where: str = "") -> str:
    """Return the GUID of the job: the same form with the same values is the same job, however often it is sent.

    Args:
        key: what was made up for this form.
        script: the script's name.
        given: the values.
        where: where the job is to run; empty is the server's runners.
    """
    try:
        base = uuid.UUID(key)
    except ValueError:
        base = uuid.uuid4()
    return str(
        uuid.uuid5(base, "\0".join([script, where, *(f"{name}\0{text}" for name, text in sorted(given.items()))]))
    )


def _field(parameter: Parameter, typed: Mapping[str, str], error: str | None) -> Field:
    if parameter.secret:
        text = ""
    elif parameter.name in typed:
        text = typed[parameter.name]
    else:
        text = "" if parameter.default is None else parameter.written(parameter.default)
    return Field(parameter, text, error, _options(parameter))


def _options(parameter: Parameter) -> tuple[tuple[str, str], ...]:
    if parameter.type is Type.BOOLEAN:
        found = [("true", "yes"), ("false", "no")]
    elif parameter.choices:
        found = [(choice, choice) for choice in parameter.choices]
    else:
        return ()
    if parameter.default is None:
        found.insert(0, ("", "choose" if parameter.required else "nothing"))
    return tuple(found)


def _deleted(parameter: Parameter) -> bool:
    return parameter.type is Type.TEXT and parameter.default is not None


def _range(parameter: Parameter) -> str:
    low, high = parameter.minimum, parameter.maximum
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"{low} or more" if low is not None else f"{high} or less"
