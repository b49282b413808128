"""OpenRLHF: its sample generator, its rollout actor in Ray, and its experience maker."""

from __future__ import annotations

import functools
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cluster
import given_responses

from driver import Job, Rewards, main

given_responses.install()

import ray
import torch
from openrlhf.datasets import PromptDataset
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from openrlhf.trainer.ray.vllm_engine import RolloutRayActor
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

MOST_TOKENS = 100_000
"""Of a prompt and its response; none is cut."""


class Actor:
    """The policy that is trained, whose log probabilities are zeros."""

    def async_run_method_batch(self, method_name: str, action_mask: Any, **others: Any) -> Any:
        return ray.put([[torch.zeros(mask.shape)] for mask in action_mask])


class OpenRlhf:
    """Its parts for one server."""

    def __init__(self, url: str, policy: str, folder: str) -> None:
        self._folder = Path(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(policy)
        self._engine = RolloutRayActor.remote(
            model=folder, num_gpus=0, remote_rm_url=[f"{url}/get_reward"]
        )

    def rewards(self, samples: list[dict[str, Any]]) -> Rewards:
        strategy = SimpleNamespace(args=_arguments(len(samples)), is_rank_0=lambda: True)
        rows = [{"input": one["messages"]} for one in samples]
        prompts = PromptDataset(rows, self._tokenizer, strategy)
        responses = [self._ids(one["response"], end=True) for one in samples]
        self._give([self._ids(prompt) for prompt in prompts.prompts], responses)
        loader = DataLoader(prompts, batch_size=1, collate_fn=prompts.collate_fn)
        generator = SamplesGenerator(strategy, loader, None, self._tokenizer, [self._engine])
        rollouts, *_ = generator.generate_samples(max_len=MOST_TOKENS, max_new_tokens=None)
        maker = RemoteExperienceMaker(Actor(), None, None, None, None, strategy, self._tokenizer)
        experiences = maker.make_experience(maker.split_rollout_samples(rollouts))
        # Experiences stand in the order in which their rollouts ended.
        found = {}
        for rollout, reward in zip(
            rollouts, torch.cat([one.rewards for one in experiences]), strict=True
        ):
            found[tuple(rollout.sequences[0].tolist())] = reward.item()
        return [
            found[(*self._ids(prompt), *response)]
            for prompt, response in zip(prompts.prompts, responses, strict=True)
        ]

    def _give(self, prompts: list[list[int]], responses: list[list[int]]) -> None:
        script: dict[tuple[int, ...], list[list[int]]] = {}
        for prompt, response in zip(prompts, responses, strict=True):
            script.setdefault(tuple(prompt), []).append(response)
        (self._folder / given_responses.FILE).write_text(json.dumps(list(script.items())))

    def _ids(self, text: str, end: bool = False) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return [*ids, self._tokenizer.eos_token_id] if end else ids


def _arguments(samples: int) -> SimpleNamespace:
    """OpenRLHF's command line, as far as these parts read it."""
    return SimpleNamespace(
        data=SimpleNamespace(input_key="input", apply_chat_template=True),
        vllm=SimpleNamespace(enable_sleep=False),
        rollout=SimpleNamespace(batch_size=samples, n_samples_per_prompt=1, micro_batch_size=8),
        algo=SimpleNamespace(
            dynamic_filtering_enable=False,
            advantage=SimpleNamespace(is_correction_level="off", estimator="reinforce"),
            kl=SimpleNamespace(use_loss=False),
        ),
        ds=SimpleNamespace(ring_attn_size=1, tensor_parallel_size=1),
        train=SimpleNamespace(
            dynamic_batch_enable=False, colocate_all=False, colocate_actor_ref=False
        ),
    )


with tempfile.TemporaryDirectory() as folder, cluster.running("given_responses.install"):

    @functools.cache
    def openrlhf(url: str, policy: str) -> OpenRlhf:
        return OpenRlhf(url, policy, folder)

    def rewards(job: Job) -> Rewards:
        return openrlhf(job.url, job.policy).rewards(job.samples)

    main(version("openrlhf"), rewards)
