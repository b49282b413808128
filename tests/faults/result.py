"""What a scenario found, counted so that every pair that was sent is in one column.

right   its score came, and every number is within ``known.TOLERANCE`` of the one known beforehand
errors  an explicit error, by its code: a problem document, with Retry-After where it is 429 or 503,
        or the pair's own error in its place
lost    neither: no answer, half an answer, one without a code, fewer scores than pairs
wrong   a score that differs, or is no finite number
left    the client of the scenario went away before the answer: nobody is there to be answered

Where the retrying client is used, requests are its tries, and a pair is counted by how the whole
call ended for it: what one try lost and the next one brought is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


class NotRun(Exception):
    """This machine, or this user, cannot do what the scenario needs; says what."""


@dataclass
class Tally:
    requests: int = 0
    pairs: int = 0
    right: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    wrong: int = 0
    left: int = 0

    def add(self, other: Tally) -> None:
        """Count another one's in."""
        self.requests += other.requests
        self.pairs += other.pairs
        self.right += other.right
        self.errors += other.errors
        self.lost += other.lost
        self.wrong += other.wrong
        self.left += other.left


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole


@dataclass(frozen=True)
class Bound:
    """A number and what it is held to."""

    what: str
    value: float
    sign: str
    limit: float

    @property
    def met(self) -> bool:
        # Comparisons with NaN are False: a number that could not be taken misses its bound.
        return self.value <= self.limit if self.sign == "<=" else self.value >= self.limit

    def __str__(self) -> str:
        return f"{self.what} {self.value:.4g} {self.sign} {self.limit:.4g}"


def at_most(what: str, value: float, limit: float) -> Bound:
    return Bound(what, value, "<=", limit)


def at_least(what: str, value: float, limit: float) -> Bound:
    return Bound(what, value, ">=", limit)


def only(tally: Tally, *codes: str) -> Bound:
    """No explicit error but those with these codes."""
    others = sum(count for code, count in tally.errors.items() if code not in codes)
    return at_most(f"errors other than {', '.join(codes)}" if codes else "errors", others, 0)


@dataclass
class Result:
    """One line of the table. ``recovery`` is in seconds; None where nothing had to recover."""

    done: str
    tally: Tally = field(default_factory=Tally)
    bounds: list[Bound] = field(default_factory=list)
    recovery: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What went otherwise than it must, in words; none may be left."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Numbers over the time, for the JSON alone."""
    not_run: str = ""
    """What this machine cannot do, so that the scenario was not run: it has not passed."""

    @property
    def faults(self) -> list[str]:
        """Why the scenario failed; empty when it did not."""
        counts = {"lost": self.tally.lost, "wrong": self.tally.wrong}
        counted = [f"{count} {name}" for name, count in counts.items() if count]
        counted += [f"NOT RUN: {self.not_run}"] if self.not_run else []
        return counted + self.notes + [str(bound) for bound in self.bounds if not bound.met]
