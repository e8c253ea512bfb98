"""The parameters of a script, and the values that a job gives to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from remctl.jobs.scripts._declaring import Misfit, parse
from remctl.jobs.scripts._errors import ScriptError, quoted
from remctl.jobs.scripts._parameter import Parameter, Value

MAX_VALUES: Final = 512 * 1024
"""Bytes of all values of a job: a quarter of what Linux takes for the whole environment."""


class Parameters(Mapping[str, Parameter]):
    """The parameters of a script by their names, in the order of the header.

    Args:
        tables: for each name what the header says of it, as `tables` gives it.

    Raises:
        ScriptError: no script could have them.
    """

    __slots__ = ("_known",)

    def __init__(self, tables: Mapping[str, object]) -> None:
        try:
            self._known = parse(tables)
        except Misfit as misfit:
            raise misfit.error() from None

    @classmethod
    def of(cls, known: Mapping[str, Parameter]) -> Parameters:
        """Return parameters that are there already."""
        made = cls({})
        made._known = dict(known)
        return made

    def __getitem__(self, name: str) -> Parameter:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __hash__(self) -> int:
        return hash(tuple(self._known.items()))

    def __repr__(self) -> str:
        return f"Parameters({self.tables()!r})"

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return what they are made of, for JSON."""
        return {name: parameter.table() for name, parameter in self._known.items()}

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of those whose values are secret."""
        return tuple(name for name, parameter in self._known.items() if parameter.secret)

    def check(self, values: Mapping[str, str]) -> dict[str, Value]:
        """Return the values of a job, from the text that a user gave for each.

        What was not given has its default; without one it is left out.

        Raises:
            ScriptError: a name is unknown, a value is missing, wrong or too long; the first that is found.
        """
        for name in values:
            if name not in self._known:
                known = ", ".join(self._known) or "none"
                raise ScriptError(f"there is no parameter {quoted(name)}; the script has {known}")
        checked: dict[str, Value] = {}
        for name, parameter in self._known.items():
            if name in values:
                checked[name] = parameter.read(values[name])
            elif parameter.required:
                raise ScriptError("it is missing", parameter=name)
            elif parameter.default is not None:
                checked[name] = parameter.default
        if sum(len(self[name].written(value).encode()) for name, value in checked.items()) > MAX_VALUES:
            raise ScriptError(f"the parameters are together longer than {MAX_VALUES} bytes")
        return checked

    def as_environment(self, values: Mapping[str, Value]) -> dict[str, str]:
        """Return the variables of the script's environment for values that were checked.

        Without the secrets: an environment is inherited by all that the script starts, and shown to who may look.
        """
        return {
            self[name].variable: self[name].written(value) for name, value in values.items() if not self[name].secret
        }

    def as_json(self, values: Mapping[str, Value]) -> str:
        """Return values that were checked as a JSON object in ASCII, secrets too: for what only the script reads."""
        return json.dumps({name: values[name] for name in self if name in values}, allow_nan=False)
