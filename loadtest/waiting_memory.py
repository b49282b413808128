"""What a waiting pair holds in memory: ``python -m loadtest.waiting_memory``.

A server of the nano checkpoint gets far more pairs than it can score, at once. What its processes
hold when all are admitted and wait, and at most until all are answered, each less what they held
before and over the pairs: it is what ``--max-inflight-pairs`` costs when it is reached.
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
LOOK_SECONDS = 0.05
SETTLE_SECONDS = 2
"""From the last body read to the look: what bodies took is given back by then."""
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
    parser.add_argument("--pairs", type=int, default=50_000, help="that wait [50000]")
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
    """The tokens of all of them."""
    body = {"pairs": [{"prompt": pair.prompt, "response": pair.response} for pair in pairs]}
    answer = await http.post("/score", json=body)
    answer.raise_for_status()
    return sum(result["tokens"] for result in answer.json()["scores"])


def _resident() -> dict[str, int]:
    """Bytes of the HTTP process, and of the engine's below it."""
    (server,) = psutil.Process().children()
    engine = sum(child.memory_info().rss for child in server.children(recursive=True))
    return {"service": server.memory_info().rss, "engine": engine}


if __name__ == "__main__":
    raise SystemExit(main())
