"""``make bench``: fivescore, its peers and the engine alone on the same pairs, in one run.

Of each checkpoint all sides run at once, and each is idle while another is measured.
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
"""By how much outputs of the same pair may differ between sides, in float32."""
COMPARED = 64
COMPUTED = "vllm:request_success_total"
THREADS = {"nano": 1, "demo": os.cpu_count()}
"""Of every side: of the nano checkpoint one, so that the front end has a core for itself, as it has
beside a GPU; else all."""
NANO_TIMES = 3
"""Rounds of nano for one of demo: a turn takes half a second, and chance has more part in it."""


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
            logs = given.logs / regime if given.logs else place
            flags = [*ON_CPU, *given.peer_flags.split()]
            sides = Sides(model, logs, flags, threads=THREADS[regime])
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
        rows = [await compete(load, running, texts, rounds) for load in loads]
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
