"""ms-swift: the command ``swift sample``, whose sampler is given its responses."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from swift.infer_engine.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
    UsageInfo,
)
from swift.pipelines.sampling import vanilla_sampler
from swift.pipelines.sampling.sampling import sampling_main
from swift.rewards import orms
from transformers import LlamaConfig

from driver import Job, Rewards, main
from fivescore.client.integrations.ms_swift import Fivescore

REFERENCE = {"role": "assistant", "content": "Yes."}
"""What the data set has in the place of the response; it is scored beside it."""
FUNCTION = "fivescore_recorded"
responses: list[str] = []
scored: list[float] = []


class Recorded(Fivescore):
    """Ours; ``swift sample`` itself writes no rewards, only what it chose by them."""

    def __call__(self, *arguments: Any, **options: Any) -> list[float]:
        response, reference = super().__call__(*arguments, **options)
        scored.append(response)
        return [response, reference]


class GivenEngine:
    """In the place of the engine that samples."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def infer(self, requests: list[Any], *others: Any, **options: Any) -> list[Any]:
        assert len(requests) == len(responses)
        return [_answer(response) for response in responses]


def _answer(response: str) -> ChatCompletionResponse:
    message = ChatMessage(role="assistant", content=response)
    choice = ChatCompletionResponseChoice(0, message, "stop")
    usage = UsageInfo(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    return ChatCompletionResponse("given", [choice], usage)


vanilla_sampler.TransformersEngine = GivenEngine
orms[FUNCTION] = Recorded


def rewards(job: Job) -> Rewards:
    os.environ["FIVESCORE_URL"] = job.url
    responses[:] = [one["response"] for one in job.samples]
    scored.clear()
    with TemporaryDirectory() as folder:
        shutil.copytree(job.policy, folder, dirs_exist_ok=True)
        LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(folder)
        rows = Path(folder, "rows.jsonl")
        with rows.open("w") as file:
            for one in job.samples:
                print(json.dumps({"messages": [*one["messages"], REFERENCE]}), file=file)
        sampling_main([
            *("--model", folder, "--model_type", "llama", "--template", "chatml"),
            *("--dataset", str(rows), "--dataset_shuffle", "false"),
            *("--load_from_cache_file", "false"),
            *("--num_return_sequences", "1", "--num_sampling_batch_size", str(len(job.samples))),
            *("--orm_model", FUNCTION, "--output_dir", folder, "--output_file", "chosen.jsonl"),
        ])  # fmt: skip
    return scored


main(version("ms_swift"), rewards)
