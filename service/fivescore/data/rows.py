"""A row as it was found, and the count of the rows that cannot be used."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fivescore.errors import ConfigurationError


class BadRow(Exception):
    """A row that cannot be used.

    The text is the reason that the row is counted under, so it holds no value of the row itself.
    """


class Row(NamedTuple):
    """One row of a file or of the hub, readable or not."""

    origin: str
    """The file, or the hub's split."""
    number: int
    """The line in formats of lines (JSON Lines, CSV), else the row; both count from 1."""
    value: dict[str, Any] | None
    fault: str = ""
    """Why there is no value."""
    detail: str = ""
    """What the parser said of it."""
    raw: bytes | None = None
    """The line, in JSON Lines."""

    @property
    def place(self) -> str:
        return f"{self.origin}:{self.number}"

    def fields(self) -> dict[str, Any]:
        """The row's fields.

        Raises:
            BadRow: the row cannot be read.
        """
        if self.value is None:
            raise BadRow(self.fault)
        return self.value

    def content(self) -> bytes:
        """The bytes that identify the row: its line, or its fields as JSON."""
        if self.raw is not None:
            return self.raw
        return json.dumps(self.value, sort_keys=True, default=str).encode()


@dataclass(slots=True)
class BadRows:
    """How many rows could not be used, by reason, and where each reason was met first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, place)

    def lines(self) -> list[str]:
        """One line for people per reason, the most frequent first."""
        return [
            f"{count} not used: {reason} (first: {self.first[reason]})"
            for reason, count in self.counts.most_common()
        ]


def none_usable(what: str, bad: Iterable[BadRows]) -> ConfigurationError:
    """The error for ``what`` without a single row that can be used; says why, with the places."""
    reasons = "; ".join(line for each in bad for line in each.lines())
    return ConfigurationError(f"{what}: no row can be used" + (f": {reasons}" if reasons else ""))


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number that a float can hold; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
