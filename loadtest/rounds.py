"""Runs the contenders of a load in turns, and computes their ratios.

In each round every contender gets new pairs; the order of contenders rotates. A ratio is the median
over rounds of two contenders' pairs per second in the same round. The first round is a warm-up and
does not count.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.driver import quantile
from loadtest.loads import IDLE, Bar, Load
from loadtest.sides import FIVESCORE, LIMIT, VLLM, Measurement, Side
from loadtest.texts import Texts

Row = dict[str, Any]


async def compete(load: Load, running: Mapping[str, Side], texts: Texts, rounds: int) -> Row:
    """The results of all contenders of a load, and the ratios of its bars."""
    results: dict[str, list[Measurement]] = {name: [] for name in load.contenders}
    names = list(load.contenders)
    for number in range(rounds + 1):
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            contender = load.contenders[name]
            work = contender.make(texts, number)
            results[name].append(await running[contender.side].run(work))
        rates = ", ".join(f"{name} {each[-1].rate:.0f}" for name, each in results.items())
        print(f"{load.regime}: {load.name}: {number}/{rounds}: {rates} pairs/s", file=sys.stderr)
    counted = {name: each[1:] for name, each in results.items()}
    return {
        "load": load.name,
        "regime": load.regime,
        "contenders": {name: _summary(each) for name, each in counted.items()},
        "ratios": [_ratio(bar, counted) for bar in load.bars],
        **({"overhead, ms": _overhead(counted)} if load.name == IDLE else {}),
    }


def _summary(rounds: Sequence[Measurement]) -> dict[str, Any]:
    latencies = [latency for one in rounds for latency in one.run.latencies]
    failed = [failure for one in rounds for failure in one.run.failed.items()]
    return {
        "pairs_per_second": statistics.median(one.rate for one in rounds),
        "rounds": [round(one.rate, 1) for one in rounds],
        "cpu_seconds_per_1000_pairs": statistics.median(
            1000 * one.cpu_seconds / max(1, one.run.pairs) for one in rounds
        ),
        "latency_ms": {f"p{q}": 1000 * quantile(latencies, q / 100) for q in (50, 90, 99)},
        "failed": failed,
    }


def _ratio(bar: Bar, counted: Mapping[str, Sequence[Measurement]]) -> dict[str, Any]:
    pairs = zip(counted[bar.ours], counted[bar.other], strict=True)
    ratios = [ours.rate / other.rate for ours, other in pairs]
    return {
        "ours": bar.ours,
        "other": bar.other,
        "ratio": statistics.median(ratios),
        "least": bar.least,
        "aim": bar.aim,
    }


def _overhead(counted: Mapping[str, Sequence[Measurement]]) -> dict[str, float]:
    """Milliseconds that HTTP, text and answers add to the engine's latency of a single pair."""

    def at(name: str, share: float) -> float:
        each = [quantile(one.run.latencies, share) for one in counted[name]]
        return 1000 * statistics.median(each)

    return {
        f"{name} p{share * 100:.0f}": at(name, share) - at(LIMIT, share)
        for name in (FIVESCORE, VLLM)
        if name in counted
        for share in (0.5, 0.99)
    }
