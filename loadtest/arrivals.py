"""Arrival times of requests, in seconds from the start, drawn beforehand from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

Arrivals = list[float]


def constant(rate: float, seconds: float) -> Arrivals:
    """Evenly spaced arrivals, ``rate`` per second."""
    return [number / rate for number in range(int(rate * seconds))]


def poisson(rate: float, seconds: float, seed: int = 7) -> Arrivals:
    """Arrivals of independent clients, ``rate`` per second on average."""
    rng = random.Random(seed)
    due: Arrivals = []
    at = rng.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += rng.expovariate(rate)
    return due


def bursts(rate: float, seconds: float, size: int) -> Arrivals:
    """Arrivals of RL steps: bursts of ``size``, ``rate`` per second on average."""
    return [burst * size / rate for burst in range(int(rate * seconds / size)) for _ in range(size)]


SHAPES: dict[str, Callable[[float, float], Arrivals]] = {
    "constant": constant,
    "poisson": poisson,
    "bursts of 64": lambda rate, seconds: bursts(rate, seconds, 64),
}
