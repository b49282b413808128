"""Measures the curves of the plots: latency over load, and rate over batch, length and group."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fivescore.types import Pair
from loadtest.arrivals import SHAPES, Arrivals, poisson
from loadtest.driver import Driver, quantile
from loadtest.processes import settled
from loadtest.sides import FIVESCORE, LIMIT, TRANSFORMERS, VLLM, Http, Side, Work
from loadtest.texts import Texts, shuffled

SHARES = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2)
"""Offered load as shares of fivescore's closed-loop rate; it saturates at about 1."""
SECONDS = 5.0
"""Duration of a point of an open loop."""
WARM = 0.2
"""Share of an open loop's first answers that are a warm-up and do not count."""
MOST_INFLIGHT = 1024
"""The most requests of an open loop in flight; further ones are dropped."""
KNEE = 0.85
"""A side that answers a smaller share of the load gets no higher load."""
CLIENTS = 64
BATCHES = (1, 8, 64, 512)
LENGTHS = (64, 128, 256, 512, 1024)
GROUPS = (1, 2, 4, 8, 16)
HTTP = (FIVESCORE, VLLM, TRANSFORMERS)
Point = dict[str, Any]
Curve = dict[str, list[Point]]


async def curves(regime: str, running: Mapping[str, Side], texts: Texts) -> dict[str, Any]:
    """All curves by name, each with a list of points per side."""
    ours = await running[FIVESCORE].run(Work(texts.take(8 * CLIENTS), 1, CLIENTS))
    result = {"offered load": await _ramp(ours.rate, running, texts)}
    if regime == "nano":
        result["shapes of arrivals"] = await _shapes(ours.rate / 2, running, texts)
    else:
        result |= {name: await _scaling(name, running, texts) for name in SCALING}
    return result


def _batches(texts: Texts, batch: int) -> Work:
    return Work(texts.take(min(256, max(64, 4 * batch))), batch)


def _lengths(texts: Texts, tokens: int) -> Work:
    return Work(texts.of_length(max(32, 32768 // tokens), tokens), 64)


def _groups(texts: Texts, responses: int) -> Work:
    pairs: list[Pair] = texts.groups(128 // responses, responses, 300)
    return Work(shuffled(pairs, responses), 128)


SCALING: dict[str, tuple[tuple[int, ...], Callable[[Texts, int], Work]]] = {
    "pairs a POST": (BATCHES, _batches),
    "tokens a pair": (LENGTHS, _lengths),
    "responses a prompt": (GROUPS, _groups),
}


async def _scaling(name: str, running: Mapping[str, Side], texts: Texts) -> Curve:
    values, make = SCALING[name]
    sides = [side for side in (*HTTP, LIMIT) if side in running]
    curve: Curve = {side: [] for side in sides}
    for value in values:
        for side in sides:
            rate = (await running[side].run(make(texts, value))).rate
            curve[side].append({"at": value, "pairs_per_second": rate})
            print(f"  {name}, {value}: {side} {rate:.0f} pairs/s", file=sys.stderr)
    return curve


async def _ramp(capacity: float, running: Mapping[str, Side], texts: Texts) -> Curve:
    """Single pairs at rising rates with Poisson arrivals, until a side no longer keeps up."""
    sides = {name: side for name in HTTP if isinstance(side := running.get(name), Http)}
    curve: Curve = {name: [] for name in sides}
    for share in SHARES:
        for name in list(sides):
            point = await _offer(sides[name], texts, poisson(share * capacity, SECONDS))
            curve[name].append(point)
            print(f"  {name}, offered {share * capacity:.0f}/s: {point}", file=sys.stderr)
            if point["achieved"] < KNEE * point["offered"]:
                del sides[name]
    return curve


async def _shapes(rate: float, running: Mapping[str, Side], texts: Texts) -> Curve:
    """Single pairs at one rate (pairs per second), in every shape of arrivals."""
    curve: Curve = {}
    for name in (FIVESCORE, VLLM):
        if isinstance(side := running.get(name), Http):
            curve[name] = [
                {"shape": shape, **await _offer(side, texts, arrivals(rate, SECONDS))}
                for shape, arrivals in SHAPES.items()
            ]
    return curve


async def _offer(side: Http, texts: Texts, due: Arrivals) -> Point:
    requests = [side.request([pair]) for pair in texts.take(len(due))]
    await settled()
    with _high_priority():
        async with Driver(side.url) as driver:
            run = await driver.open(requests, due, MOST_INFLIGHT)
    latencies = run.latencies[int(WARM * len(run.latencies)) :]
    return {
        "offered": len(due) / SECONDS,
        "achieved": run.pairs / max(run.seconds, SECONDS),
        "ms": {f"p{q}": round(1000 * quantile(latencies, q / 100), 2) for q in (50, 90, 99)},
        "dropped": run.dropped,
        "failed": run.failed,
        "lag_ms_p99": round(1000 * quantile(run.lags, 0.99), 2),
        "void": run.void,
    }


@contextmanager
def _high_priority() -> Iterator[None]:
    """Raise this process's priority above the servers', if allowed, so that it sends on time."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, before - 10)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)
