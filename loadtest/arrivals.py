"""When requests are due: seconds from the start, drawn beforehand from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

Arrivals = list[float]


def constant(rate: float, seconds: float) -> Arrivals:
    """Evenly, ``rate`` a second."""
    return [number / rate for number in range(int(rate * seconds))]


def poisson(rate: float, seconds: float, seed: int = 7) -> Arrivals:
    """As independent clients send, ``rate`` a second on average."""
    rng = random.Random(seed)
    due: Arrivals = []
    at = rng.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += rng.expovariate(rate)
    return due


def bursts(rate: float, seconds: float, size: int) -> Arrivals:
    """As an RL step: ``size`` at once, again and again, ``rate`` a second on average."""
    return [burst * size / rate for burst in range(int(rate * seconds / size)) for _ in range(size)]


SHAPES: dict[str, Callable[[float, float], Arrivals]] = {
    "constant": constant,
    "poisson": poisson,
    "bursts of 64": lambda rate, seconds: bursts(rate, seconds, 64),
}
