"""RewardBench: its command, which scores a file of conversations."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from absent import absent
from driver import Job, Rewards, main

absent("trl", "wandb")

from rewardbench import REWARD_MODEL_CONFIG
from rewardbench.rewardbench import main as command

from fivescore.client.integrations.rewardbench import CONFIG
from fivescore.settings import DEMO

REWARD_MODEL_CONFIG["fivescore"] = CONFIG


def rewards(job: Job) -> Rewards:
    os.environ["FIVESCORE_URL"] = job.url
    with TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        with rows.open("w") as file:
            for one in job.samples:
                response = {"role": "assistant", "content": one["response"]}
                print(json.dumps({"messages": [*one["messages"], response]}), file=file)
        sys.argv = ["rewardbench", "--model", "fivescore", "--tokenizer", DEMO]
        sys.argv += ["--dataset", str(rows), "--load_json", "--prioritize_scoring"]
        sys.argv += ["--output_dir", folder]
        command()
        scored = Path(folder, "fivescore_outputs.jsonl").read_text().splitlines()
    return [json.loads(line)["results"] for line in scored]


main(version("rewardbench"), rewards)
