"""What is measured against: a goal, and whether it was reached."""

from __future__ import annotations

import math
from typing import NamedTuple


class Goal(NamedTuple):
    """A goal, and what was measured."""

    title: str
    value: float
    bound: float
    at_least: bool
    unit: str

    @property
    def reached(self) -> bool:
        """Whether it was reached; nothing is rounded."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        toward_worse = math.floor if self.at_least else math.ceil
        return "{:52} {:>9g} {:5} {} {:<6g} {}".format(
            self.title,
            toward_worse(self.value * 100) / 100,
            self.unit,
            ">=" if self.at_least else "<=",
            self.bound,
            "reached" if self.reached else "MISSED",
        )
