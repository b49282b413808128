"""Memory that a waiting pair takes: ``python -m loadtest.waiting_memory``.

A server of the nano checkpoint gets far more pairs at once than it can score. The result is the
growth of its processes' memory per pair, when all pairs are admitted and wait, and at its highest
until all are answered. It is the cost of ``--max-inflight-pairs`` when that limit is reached.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx
import psutil

from fivescore.types import Pair
from loadtest import nano
from loadtest.model import Measured
from loadtest.processes import fivescore_server, metric
from loadtest.report import RESULTS, save, surroundings
from loadtest.texts import made

WARM, PER_REQUEST = 512, 5000
"""Pairs of the warm-up, and pairs per request."""
LOOK_SECONDS = 0.05
SETTLE_SECONDS = 2
"""Wait between the last body and the measurement, in which the memory of bodies is freed."""
INFLIGHT = "fivescore_inflight_pairs"


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        model, log = nano.make(Path(folder) / "nano"), Path(folder) / "server.log"
        pairs = made(WARM + arguments.pairs, Measured(str(model)).words())
        with fivescore_server(str(model), log) as url:
            result = asyncio.run(_measure(url, pairs))
    save({**result, **surroundings("waiting_memory")}, arguments.output)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50_000, help="pairs that wait [50000]")
    parser.add_argument("--output", type=Path, help=f"JSON, such as {RESULTS}/waiting_memory.json")
    return parser.parse_args()


async def _measure(url: str, pairs: list[Pair]) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        await _score(http, pairs[:WARM])
        before = peak = _resident()
        waiting = pairs[WARM:]
        parts = [waiting[i : i + PER_REQUEST] for i in range(0, len(waiting), PER_REQUEST)]
        working = asyncio.gather(*(_score(http, part) for part in parts))
        while await metric(http, INFLIGHT) < len(waiting):  # noqa: ASYNC110  # of another process
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        during = _resident()
        while not (await asyncio.wait([working], timeout=LOOK_SECONDS))[0]:
            now = _resident()
            peak = {name: max(peak[name], now[name]) for name in peak}
        tokens = sum(await working)
    count = len(waiting)
    text = sum(len(f"{pair.prompt}{pair.response}".encode()) for pair in waiting)
    held = {name: round((during[name] - before[name]) / count) for name in during}
    most = {name: round((peak[name] - before[name]) / count) for name in peak}
    return {
        "pairs": count,
        "tokens_a_pair": round(tokens / count, 1),
        "text_bytes_a_pair": round(text / count),
        "waiting_bytes_a_pair": held,
        "most_bytes_a_pair": most,
        "service_waiting_bytes_beyond_text": held["service"] - round(text / count),
    }


async def _score(http: httpx.AsyncClient, pairs: list[Pair]) -> int:
    """Score pairs; returns the sum of their tokens."""
    body = {"pairs": [{"prompt": pair.prompt, "response": pair.response} for pair in pairs]}
    answer = await http.post("/score", json=body)
    answer.raise_for_status()
    return sum(result["tokens"] for result in answer.json()["scores"])


def _resident() -> dict[str, int]:
    """Resident bytes of the HTTP process, and of the engine's processes below it."""
    (server,) = psutil.Process().children()
    engine = sum(child.memory_info().rss for child in server.children(recursive=True))
    return {"service": server.memory_info().rss, "engine": engine}


if __name__ == "__main__":
    raise SystemExit(main())
