"""``make bench``: fivescore, its peers and the engine alone on the same pairs, in one run.

Of each checkpoint all sides run at once, and each is idle while another is measured. Each round of
a load gives every contender pairs that it has not seen, in rotating order. A ratio is the median
over rounds of pairs a second against the other contender's of the same round. The first round warms
up and does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from fivescore.settings import DEMO
from loadtest import nano
from loadtest.curves import curves
from loadtest.driver import quantile
from loadtest.loads import IDLE, LOADS, PAIRS, Bar, Load
from loadtest.model import Measured
from loadtest.processes import metric
from loadtest.report import RESULT, surroundings, write
from loadtest.sides import FIVESCORE, LIMIT, VLLM, Http, Side, Sides, Took, Work
from loadtest.texts import Texts, endless

SAME = 2e-3
"""By how much outputs of the same pair may differ between sides, in float32."""
COMPARED = 64
COMPUTED = "vllm:request_success_total"
THREADS = {"nano": 1, "demo": None}
"""Of every side: of the nano checkpoint one, so that the front end has a core for itself, as it has
beside a GPU; else all."""
NANO_TIMES = 3
"""Rounds of nano for one of demo: a turn takes half a second, and chance has more part in it."""
Row = dict[str, Any]


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and no server stays behind
    rows: list[Row] = []
    others: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for regime in given.regimes:
            place = Path(folder) / regime
            place.mkdir()
            model = Measured(DEMO if regime == "demo" else str(nano.make(place / "nano")))
            logs = given.logs or place
            sides = Sides(model, logs, given.peer_flags.split(), threads=THREADS[regime])
            rows += asyncio.run(_measure(given, regime, model, sides, others))
            if regime == "demo" and given.starts:
                others["start to ready, s"] = _starts(sides, given.starts)
            # After each checkpoint, so that a failure at the second leaves the first.
            write(given.output, {"loads": rows, **others, **surroundings("bench")})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--rmbench", type=Path, nargs="+", help="RM-Bench JSON files [made text]")
    rounds = f"of demo that count; {NANO_TIMES} times as many of nano [5]"
    parser.add_argument("--rounds", type=int, default=5, help=rounds)
    parser.add_argument("--starts", type=int, default=3, help="of fivescore and vllm serve [3]")
    parser.add_argument("--regimes", nargs="+", choices=("nano", "demo"), default=("nano", "demo"))
    parser.add_argument("--only", default="", metavar="TEXT", help="loads with this in their name")
    parser.add_argument("--no-curves", action="store_true", help="leave the plots out")
    parser.add_argument("--peer-flags", default="", metavar="FLAGS", help="of vllm serve")
    parser.add_argument("--logs", type=Path, help="keep the servers' logs there")
    parser.add_argument("--output", type=Path, default=RESULT, metavar="FOLDER",
                        help="for bench.json, bench.md and plots [%(default)s]")  # fmt: skip
    return parser.parse_args()


async def _measure(
    given: argparse.Namespace, regime: str, model: Measured, sides: Sides, others: dict[str, Any]
) -> list[Row]:
    texts = endless(model, 2 * PAIRS, given.rmbench)
    loads = [load for load in LOADS if load.regime == regime and given.only in load.name]
    names = dict.fromkeys(c.side for load in loads for c in load.contenders.values())
    rounds = given.rounds * (NANO_TIMES if regime == "nano" else 1)
    with sides.running(names) as running:
        others[f"outputs differ by, {regime}"] = await _check_same(running, texts)
        rows = [await _run(load, running, texts, rounds) for load in loads]
        if not given.no_curves and not given.only:
            others[f"curves, {regime}"] = await curves(regime, running, texts)
        if regime == "nano" and isinstance(ours := running.get(FIVESCORE), Http):
            others["computed of 512 pairs that were asked for twice"] = await _twice(ours, texts)
    return rows


async def _check_same(running: Mapping[str, Side], texts: Texts) -> float:
    """The largest difference between two sides' outputs of the same pair.

    Raises:
        RuntimeError: they do not score the same model.
    """
    work = Work(texts.take(COMPARED), COMPARED)
    found = [(await side.take(work)).outputs for side in running.values()]
    differences = [
        abs(a - b)
        for outputs in found
        for one, other in zip(outputs, found[0], strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    if max(differences) > SAME:
        raise RuntimeError(f"outputs of {list(running)} differ by {max(differences)}")
    return max(differences)


async def _run(load: Load, running: Mapping[str, Side], texts: Texts, rounds: int) -> Row:
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
        for share in (0.5, 0.99)
    }


async def _twice(ours: Http, texts: Texts) -> float:
    """How many sequences the engine computed of 512 pairs that two requests asked for at once."""
    pairs = texts.take(PAIRS)
    async with httpx.AsyncClient(base_url=ours.running.url) as http:
        before = await metric(http, COMPUTED)
        await ours.take(Work([*pairs, *pairs], PAIRS, workers=2))
        return await metric(http, COMPUTED) - before


def _starts(sides: Sides, count: int) -> dict[str, list[float]]:
    """Seconds from a process's start to its readiness, in turn."""
    took: dict[str, list[float]] = {FIVESCORE: [], VLLM: []}
    for _ in range(count):
        for name, each in took.items():
            with sides.start(name) as side:
                assert isinstance(side, Http)
                each.append(round(side.running.seconds, 1))
            time.sleep(1)
    return took


if __name__ == "__main__":
    raise SystemExit(main())
