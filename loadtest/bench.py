"""``make bench``: fivescore, its peers and the engine alone on the same pairs, in one run.

All sides of a checkpoint run at the same time; while one is measured, the others are idle.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from fivescore.settings import DEMO
from loadtest import nano
from loadtest.curves import curves
from loadtest.loads import LOADS, PAIRS
from loadtest.model import Measured
from loadtest.processes import metric
from loadtest.report import RESULT, surroundings, write
from loadtest.rounds import Row, compete
from loadtest.sides import FIVESCORE, ON_CPU, VLLM, Http, Side, Sides, Work
from loadtest.texts import Texts, endless

SAME = 2e-3
"""Largest difference between two sides' float32 outputs of the same pair."""
COMPARED = 64
"""Pairs whose outputs are compared."""
COMPUTED = "vllm:request_success_total"
"""vLLM's counter of the sequences that it computed."""
THREADS = {"nano": 1, "demo": os.cpu_count()}
"""Threads of every side's engine: one with the nano checkpoint, so that the front end has a core of
its own, as beside a GPU; all cores with the demo."""
NANO_TIMES = 3
"""Rounds of nano per round of demo: a nano run takes half a second, so it varies more."""


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped
    rows: list[Row] = []
    others: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for regime in arguments.regimes:
            place = Path(folder) / regime
            place.mkdir()
            model = Measured(DEMO if regime == "demo" else str(nano.make(place / "nano")))
            logs = arguments.logs / regime if arguments.logs else place
            flags = [*ON_CPU, *arguments.peer_flags.split()]
            sides = Sides(model, logs, flags, threads=THREADS[regime])
            rows += asyncio.run(_measure(arguments, regime, model, sides, others))
            if regime == "demo" and arguments.starts:
                others["start to ready, s"] = _starts(sides, arguments.starts)
            # After each checkpoint, so that a later failure does not lose its results.
            write(arguments.output, {"loads": rows, **others, **surroundings("bench")})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--rmbench", type=Path, nargs="+", help="RM-Bench's files [random words]")
    rounds = f"measured rounds with demo; {NANO_TIMES} times as many with nano [5]"
    parser.add_argument("--rounds", type=int, default=5, help=rounds)
    parser.add_argument("--starts", type=int, default=3, help="starts of each server [3]")
    parser.add_argument("--regimes", nargs="+", choices=("nano", "demo"), default=("nano", "demo"))
    parser.add_argument("--only", default="", metavar="TEXT", help="loads with this in their name")
    parser.add_argument("--no-curves", action="store_true", help="leave the plots out")
    parser.add_argument("--peer-flags", default="", metavar="FLAGS", help="flags of vllm serve")
    parser.add_argument("--logs", type=Path, help="keep the servers' logs there")
    parser.add_argument("--output", type=Path, default=RESULT, metavar="FOLDER",
                        help="for bench.json, bench.md and plots [%(default)s]")  # fmt: skip
    return parser.parse_args()


async def _measure(
    arguments: argparse.Namespace,
    regime: str,
    model: Measured,
    sides: Sides,
    others: dict[str, Any],
) -> list[Row]:
    texts = endless(model, 2 * PAIRS, arguments.rmbench)
    loads = [load for load in LOADS if load.regime == regime and arguments.only in load.name]
    names = dict.fromkeys(c.side for load in loads for c in load.contenders.values())
    rounds = arguments.rounds * (NANO_TIMES if regime == "nano" else 1)
    with sides.running(names) as running:
        others[f"outputs differ by, {regime}"] = await _check_same(running, texts)
        rows = [await compete(load, running, texts, rounds) for load in loads]
        if not arguments.no_curves and not arguments.only:
            others[f"curves, {regime}"] = await curves(regime, running, texts)
        if regime == "nano" and isinstance(ours := running.get(FIVESCORE), Http):
            others["computed of 512 pairs that were asked for twice"] = await _twice(ours, texts)
    return rows


async def _check_same(running: Mapping[str, Side], texts: Texts) -> float:
    """The largest difference of a side's outputs from the first side's, over the same pairs.

    Raises:
        RuntimeError: it exceeds ``SAME``: the sides do not score the same model.
    """
    work = Work(texts.take(COMPARED), COMPARED)
    all_outputs = [(await side.run(work)).outputs for side in running.values()]
    differences = [
        abs(a - b)
        for outputs in all_outputs
        for one, other in zip(outputs, all_outputs[0], strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    if max(differences) > SAME:
        raise RuntimeError(f"outputs of {list(running)} differ by {max(differences)}")
    return max(differences)


async def _twice(ours: Http, texts: Texts) -> float:
    """The number of sequences computed for two equal, concurrent requests of ``PAIRS`` pairs."""
    pairs = texts.take(PAIRS)
    async with httpx.AsyncClient(base_url=ours.running.url) as http:
        before = await metric(http, COMPUTED)
        await ours.run(Work([*pairs, *pairs], PAIRS, workers=2))
        return await metric(http, COMPUTED) - before


def _starts(sides: Sides, count: int) -> dict[str, list[float]]:
    """Seconds from a process's start to its readiness, per start."""
    seconds: dict[str, list[float]] = {FIVESCORE: [], VLLM: []}
    for _ in range(count):
        for name, each in seconds.items():
            with sides.start(name) as side:
                assert isinstance(side, Http)
                each.append(round(side.running.seconds, 1))
            time.sleep(1)
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
