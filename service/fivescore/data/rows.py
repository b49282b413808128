"""One row of a data set, and counts of the rows that cannot be used."""

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

    Its text is the reason by which rows are counted, so it must not hold a value of the row.
    """


class Row(NamedTuple):
    """One row of a file or of the hub, readable or not."""

    origin: str
    """The file, or the split on the hub."""
    number: int
    """The line in JSON Lines and CSV, else the row; counted from 1."""
    value: dict[str, Any] | None
    fault: str = ""
    """The reason, if ``value`` is None."""
    detail: str = ""
    """The parser's message for that reason."""
    raw: bytes | None = None
    """The line's bytes, in JSON Lines alone."""

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
    """Counts of unusable rows by reason, and the first place of each reason."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, place)

    def lines(self) -> list[str]:
        """One line of text per reason, the most frequent first."""
        return [
            f"{count} not used: {reason} (first: {self.first[reason]})"
            for reason, count in self.counts.most_common()
        ]


def none_usable(what: str, bad: Iterable[BadRows]) -> ConfigurationError:
    """The error for a data set ``what`` without a usable row; lists the reasons with places."""
    reasons = "; ".join(line for each in bad for line in each.lines())
    return ConfigurationError(f"{what}: no row can be used" + (f": {reasons}" if reasons else ""))


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number in the range of a float, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
