"""AReaL: its vLLM client runs our workflow, as a worker of its controller has it do."""

from __future__ import annotations

import functools
from collections import defaultdict
from importlib.metadata import version
from typing import Any

import serving

from absent import absent
from driver import Job, Rewards, main

absent("hydra", "omegaconf", "ray", "torchdata", "flask", "werkzeug")

from areal.api.cli_args import GenerationHyperparameters, InferenceEngineConfig
from areal.engine.vllm_remote import RemotevLLMEngine
from transformers import AutoTokenizer

WORKFLOW = "fivescore.client.integrations.areal.RewardWorkflow"
AT_ONCE = 512
MOST_TOKENS = 100_000
"""Of a prompt and its response; none is cut."""


class Policy(serving.Answers):
    """A vLLM server as far as AReaL asks it, whose responses are given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)

    def answer(self, path: str, asked: dict[str, Any]) -> Any:
        if path == "/health":
            return {}
        tokens = self.given[tuple(asked["prompt"])].pop()
        logprobs = {
            "tokens": [f"token_id:{token}" for token in tokens],
            "token_logprobs": [0.0] * len(tokens),
        }
        return {"choices": [{"finish_reason": "stop", "logprobs": logprobs}]}


policy = Policy()
serving.start(policy)
engine = RemotevLLMEngine(
    InferenceEngineConfig(
        backend="vllm:d1",
        consumer_batch_size=AT_ONCE,
        max_head_offpolicyness=AT_ONCE,
        check_trajectory_format=True,
    )
)
engine.initialize(addr=f"127.0.0.1:{policy.server_port}", train_data_parallel_size=1)


@functools.cache
def tokenizer_of(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def rewards(job: Job) -> Rewards:
    tokenizer = tokenizer_of(job.policy)
    sequences = []
    for sample in job.samples:
        prompt = tokenizer.apply_chat_template(sample["messages"], add_generation_prompt=True)
        response = tokenizer.encode(sample["response"], add_special_tokens=False)
        response.append(tokenizer.eos_token_id)
        policy.given[tuple(prompt["input_ids"])].append(response)
        sequences.append((*prompt["input_ids"], *response))
    limits = GenerationHyperparameters(max_new_tokens=MOST_TOKENS, max_tokens=MOST_TOKENS)
    arguments = {"gconfig": limits, "tokenizer": tokenizer, "urls": job.url}
    tasks = [
        engine.submit({"messages": sample["messages"]}, WORKFLOW, arguments)
        for sample in job.samples
    ]
    # What failed has no trajectory. Which task gets which response of a prompt is chance.
    trajectories = filter(None, map(engine.wait_for_task, tasks))
    found = {tuple(one["input_ids"][0].tolist()): one["rewards"].item() for one in trajectories}
    return [found.get(sequence) for sequence in sequences]


main(version("areal"), rewards)
