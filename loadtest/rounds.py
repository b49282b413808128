"""One load by turns: what each contender did, and the ratios between them.

Each round gives every contender pairs that it has not seen, in rotating order. A ratio is the
median over rounds of pairs a second against the other contender's of the same round. The first
round warms up and does not count.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.driver import quantile
from loadtest.loads import IDLE, Bar, Load
from loadtest.sides import FIVESCORE, LIMIT, VLLM, Side, Took
from loadtest.texts import Texts

Row = dict[str, Any]


async def compete(load: Load, running: Mapping[str, Side], texts: Texts, rounds: int) -> Row:
    """All contenders of one load, and the ratios of its bars."""
    took: dict[str, list[Took]] = {name: [] for name in load.contenders}
    names = list(load.contenders)
    for number in range(rounds + 1):
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            contender = load.contenders[name]
            work = contender.make(texts, number)
            took[name].append(await running[contender.side].take(work))
        told = ", ".join(f"{name} {each[-1].rate:.0f}" for name, each in took.items())
        print(f"{load.regime}: {load.name}: {number}/{rounds}: {told} pairs/s", file=sys.stderr)
    counted = {name: each[1:] for name, each in took.items()}
    return {
        "load": load.name,
        "regime": load.regime,
        "contenders": {name: _summary(each) for name, each in counted.items()},
        "ratios": [_ratio(bar, counted) for bar in load.bars],
        **({"overhead, ms": _overhead(counted)} if load.name == IDLE else {}),
    }


def _summary(rounds: Sequence[Took]) -> dict[str, Any]:
    latencies = [latency for took in rounds for latency in took.run.latencies]
    failed = [failure for took in rounds for failure in took.run.failed.items()]
    return {
        "pairs_per_second": statistics.median(took.rate for took in rounds),
        "rounds": [round(took.rate, 1) for took in rounds],
        "cpu_seconds_per_1000_pairs": statistics.median(
            1000 * took.cpu_seconds / max(1, took.run.pairs) for took in rounds
        ),
        "latency_ms": {f"p{q}": 1000 * quantile(latencies, q / 100) for q in (50, 90, 99)},
        "failed": failed,
    }


def _ratio(bar: Bar, counted: Mapping[str, Sequence[Took]]) -> dict[str, Any]:
    pairs = zip(counted[bar.ours], counted[bar.other], strict=True)
    ratios = [ours.rate / other.rate for ours, other in pairs]
    return {
        "ours": bar.ours,
        "other": bar.other,
        "ratio": statistics.median(ratios),
        "least": bar.least,
        "aim": bar.aim,
    }


def _overhead(counted: Mapping[str, Sequence[Took]]) -> dict[str, float]:
    """What HTTP, text and answers add to the engine's own latency of a single pair."""

    def at(name: str, share: float) -> float:
        each = [quantile(took.run.latencies, share) for took in counted[name]]
        return 1000 * statistics.median(each)

    return {
        f"{name} p{share * 100:.0f}": at(name, share) - at(LIMIT, share)
        for name in (FIVESCORE, VLLM)
        if name in counted
        for share in (0.5, 0.99)
    }
