"""Time per pair that each stage takes in the HTTP process: ``python -m loadtest.stages``.

Every stage is called on the same batch of pairs, in alternating rounds. The result is the fastest
round, because disturbances only make rounds slower. The engine is the fake one, so the time of
vLLM's client is not included (``make bench`` includes it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from fivescore.engine.fake import FakeEngine
from fivescore.http import routes
from fivescore.http.body import json_response, parse_json
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Scorer
from fivescore.settings import DEMO, Settings
from fivescore.telemetry.metrics import Metrics
from fivescore.types import Pair, Score
from loadtest.model import Measured
from loadtest.report import RESULTS, save, surroundings
from loadtest.texts import endless

BATCH = 64
"""Pairs per call of a stage."""
Stage = Callable[[], object] | Callable[[], Awaitable[object]]


def main() -> int:
    arguments = _arguments()
    seconds = asyncio.run(_measure(arguments.rounds, arguments.rmbench))
    result = {
        "microseconds_a_pair": {name: round(1e6 * s / BATCH, 1) for name, s in seconds.items()},
        "batch": BATCH,
        **surroundings("stages"),
    }
    save(result, arguments.output, "microseconds_a_pair")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rmbench", type=Path, nargs="+", help="RM-Bench's files [random words]")
    parser.add_argument("--rounds", type=int, default=50, help="rounds per stage [50]")
    parser.add_argument("--output", type=Path, help=f"JSON, such as {RESULTS}/stages.json")
    return parser.parse_args()


async def _measure(rounds: int, rmbench: list[Path] | None) -> dict[str, float]:
    """Seconds per batch, in the fastest round of each stage."""
    settings = Settings(model=str(DEMO), backend="fake")
    scorer = Scorer(Service(settings, lambda *_: FakeEngine(str(DEMO), {}), Metrics()))
    await scorer.load()
    texts = endless(Measured(str(DEMO)), 512, rmbench)
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name, stage in (await _stages(scorer, texts.take(BATCH))).items():
            began = time.perf_counter()
            result = stage()
            if isinstance(result, Awaitable):
                await result
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - began)
    await scorer.close()
    return seconds


async def _stages(scorer: Scorer, pairs: list[Pair]) -> dict[str, Stage]:
    """The stages in their order; each gets the result of the one before."""
    conversation = scorer.service.model.conversation
    rows = [{"prompt": pair.prompt, "response": pair.response} for pair in pairs]
    body = json.dumps({"pairs": rows}).encode()
    rendered = conversation.render(pairs)
    ids = conversation.tokenise(rendered)
    as_ids = [Pair(token_ids=one) for one in ids if isinstance(one, list)]
    scores = [one for one in await scorer.score(as_ids) if isinstance(one, Score)]
    return {
        "parse": lambda: routes.parse(parse_json(body)),
        "render": lambda: conversation.render(pairs),
        "tokenise": lambda: conversation.tokenise(rendered),
        "submit, gather, reward": lambda: scorer.score(as_ids),
        "encode": lambda: json_response({"scores": [routes.entry(score) for score in scores]}),
    }


if __name__ == "__main__":
    raise SystemExit(main())
