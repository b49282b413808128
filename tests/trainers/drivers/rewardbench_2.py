"""RewardBench 2: the script of its best-of-n benchmark, on a file of its format."""

from __future__ import annotations

import json
import os
import sys
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from absent import absent
from driver import Job, Rewards, main

absent("trl", "wandb")

from rewardbench import REWARD_MODEL_CONFIG
from scripts.run_v2 import main as script

from fivescore.client.integrations.rewardbench import CONFIG
from fivescore.settings import DEMO

REWARD_MODEL_CONFIG["fivescore"] = CONFIG


def rewards(job: Job) -> Rewards:
    os.environ["FIVESCORE_URL"] = job.url
    places: dict[str, list[int]] = {}
    for place, one in enumerate(job.samples):
        (turn,) = one["messages"]
        places.setdefault(turn["content"], []).append(place)
    with TemporaryDirectory() as folder, chdir(folder):
        with open("rows.jsonl", "w") as file:
            for prompt, group in places.items():
                print(
                    json.dumps(_row(prompt, [job.samples[n]["response"] for n in group])), file=file
                )
        sys.argv = ["run_v2.py", "--model", "fivescore", "--tokenizer", DEMO]
        sys.argv += ["--dataset", "rows.jsonl", "--do_not_save"]
        script()
        scored = json.loads(Path("results/eval-set-scores/fivescore.json").read_text())
    found = zip(places.values(), scored["scores"], strict=True)
    by_place = {n: score for group, scores in found for n, score in zip(group, scores, strict=True)}
    return [by_place[place] for place in range(len(job.samples))]


def _row(prompt: str, responses: list[str]) -> dict[str, object]:
    """A row of the benchmark, whose first response is the best."""
    counts = {"num_correct": 1, "total_completions": len(responses)}
    chosen = {"chosen": responses[:1], "rejected": responses[1:]}
    return {"id": prompt, "prompt": prompt, "subset": "Focus", **chosen, **counts}


main(version("rewardbench"), rewards)
