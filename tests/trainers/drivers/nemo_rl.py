"""NeMo-RL: a rollout of its environment NeMo-Gym, which is an actor of Ray."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import cluster
import given_completions
import gym_servers
import nemo_rl_absent
import serving

from driver import Job, Rewards, checked_out, main

nemo_rl_absent.install()

import torch
from nemo_rl.distributed.batched_data_dict import BatchedDataDict
from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
from nemo_rl.environments.nemo_gym import spinup_nemo_gym_actor
from nemo_rl.experience.rollouts import run_nemo_gym_rollout_sync
from ray.exceptions import RayTaskError
from transformers import AutoTokenizer

MOST_TOKENS = 1_000_000
"""Of a prompt and its response; none is cut."""
GENERATION = {
    "vllm_cfg": {"max_model_len": MOST_TOKENS},
    "max_new_tokens": MOST_TOKENS,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": None,
    "stop_strings": None,
    "stop_token_ids": None,
}
ACTOR = "nemo_rl.environments.nemo_gym.NemoGym"
ACTOR_ENVIRONMENT_REGISTRY[ACTOR] = sys.executable  # as its container has one, made by uv


class NemoRl:
    """Its parts for one server."""

    def __init__(self, url: str, policy: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(policy)
        self._policy = given_completions.Completions(self._tokenizer)
        serving.start(self._policy)
        self._gym = spinup_nemo_gym_actor(
            {"nemo_gym": gym_servers.settings(url, "vllm_model_for_training")},
            [f"{self._policy.url}/v1"],
            "given",
            tokenizer=self._tokenizer,
            enable_router_replay=False,
            routed_experts_dtype="int16",
            use_fastokens=False,
        )

    def rewards(self, samples: list[dict[str, Any]]) -> Rewards:
        self._policy.give(samples)
        seen: Counter[str] = Counter()
        rows = []
        for one in samples:
            prompt = given_completions.key(one["messages"])
            body = {"extra_body": json.dumps({"seed": seen[prompt]})}
            seen[prompt] += 1
            asked = {"input": one["messages"], "metadata": body}
            rows.append(
                {"responses_create_params": asked, "agent_ref": {"name": gym_servers.AGENT}}
            )
        rollout = run_nemo_gym_rollout_sync(
            policy_generation=SimpleNamespace(cfg=GENERATION),
            input_batch=BatchedDataDict(
                {"extra_env_info": rows, "loss_multiplier": torch.ones(len(rows))}
            ),
            tokenizer=self._tokenizer,
            task_to_env={"nemo_gym": self._gym},
            generation_config=GENERATION,
            log_full_result_tables=False,
        )
        batch = rollout.final_batch
        components = [batch[key] for key in batch if key.startswith("reward/")]
        assert torch.allclose(torch.stack(components).sum(0), batch["total_reward"], atol=1e-5)
        return batch["total_reward"].tolist()


with gym_servers.folder(), cluster.running("nemo_rl_absent.install"), gym_servers.ended():

    @functools.cache
    def nemo_rl(url: str, policy: str) -> NemoRl:
        return NemoRl(url, policy)

    def rewards(job: Job) -> Rewards:
        gym = nemo_rl(job.url, job.policy)
        try:
            return gym.rewards(job.samples)
        except RayTaskError as error:
            raise error.cause from None  # without the place of the actor

    main(checked_out("NVIDIA-NeMo/RL"), rewards)
