"""What a waiting pair holds in memory: ``python -m loadtest.waiting_memory``.

A server gets far more pairs than it can score, at once; its processes' largest resident size less
the one before, over the pairs. It is what ``--max-inflight-pairs`` costs when it is reached.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import psutil

from fivescore import __version__
from fivescore.settings import DEMO
from fivescore.types import Pair
from loadtest.pairs import made
from loadtest.processes import fivescore_server

WARM, PER_REQUEST = 512, 5000
LOOK_SECONDS = 0.05
WORDS = [f"{a}{b}{c}" for a in ("re", "in", "con") for b in ("so", "ta", "li") for c in ("ng", "r")]
RESULT = Path(__file__).parent / "results" / "waiting_memory.json"


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with fivescore_server(arguments.model, log) as url:
            result = asyncio.run(_measure(url, made(WARM + arguments.pairs, WORDS)))
    result |= {
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {"fivescore": __version__, "python": platform.python_version()},
        "command": " ".join(["python -m loadtest.waiting_memory", *sys.argv[1:]]),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEMO), help="a checkpoint [the demo]")
    parser.add_argument("--pairs", type=int, default=20_000, help="that wait [20000]")
    parser.add_argument("--output", type=Path, help=f"write JSON, such as {RESULT}")
    return parser.parse_args()


async def _measure(url: str, pairs: list[Pair]) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        await _score(http, pairs[:WARM])
        before = peak = _resident()
        waiting = pairs[WARM:]
        parts = [waiting[i : i + PER_REQUEST] for i in range(0, len(waiting), PER_REQUEST)]
        working = asyncio.gather(*(_score(http, part) for part in parts))
        while not (await asyncio.wait([working], timeout=LOOK_SECONDS))[0]:
            now = _resident()
            peak = {name: max(peak[name], now[name]) for name in peak}
        tokens = sum(await working)
    count = len(waiting)
    held = {name: round((peak[name] - before[name]) / count) for name in peak}
    return {"pairs": count, "tokens_a_pair": round(tokens / count, 1), "bytes_a_pair": held}


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
