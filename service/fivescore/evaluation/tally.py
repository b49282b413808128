"""Counts comparisons of a chosen and a rejected response by outcome.

A tie counts as wrong, and so does a pair that could not be scored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from fivescore.evaluation.store import Failure, Result

Outcome = Literal["right", "wrong", "tie", "failed"]
NORMAL_QUANTILE = 1.959963984540054
"""The 97.5% quantile of the normal distribution, for 95% intervals."""


def judge(chosen: float | None, rejected: float | None) -> Outcome:
    """The outcome of a comparison of two rewards; None is a response that could not be scored."""
    if chosen is None or rejected is None:
        return "failed"
    if chosen == rejected:
        return "tie"
    return "right" if chosen > rejected else "wrong"


def reward(result: Result) -> float | None:
    """The combined reward of a result; None for a failure."""
    return None if isinstance(result, Failure) else result.reward


@dataclass(frozen=True, slots=True)
class Tally:
    """Comparisons by outcome; ``accuracy`` is the share of right ones, NaN without comparisons."""

    right: int = 0
    wrong: int = 0
    ties: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.right + self.wrong + self.ties + self.failed

    @property
    def accuracy(self) -> float:
        return self.right / self.total if self.total else math.nan

    def summary(self) -> dict[str, Any]:
        return {
            "rows": self.total,
            "right": self.right,
            "wrong": self.wrong,
            "ties": self.ties,
            "failed": self.failed,
            "accuracy": self.accuracy if self.total else None,
            "interval": list(wilson(self.right, self.total)) if self.total else None,
        }


def count(outcomes: Iterable[Outcome]) -> Tally:
    counts = Counter(outcomes)
    return Tally(counts["right"], counts["wrong"], counts["tie"], counts["failed"])


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927), valid near 0 and 1 and for few rows."""
    z, share = NORMAL_QUANTILE, right / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
