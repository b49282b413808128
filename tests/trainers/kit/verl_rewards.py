"""verl's reward loop, with the reward manager and the function that its configuration names."""

from __future__ import annotations

import functools
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cluster
import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from ray.exceptions import RayTaskError
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop import RewardLoopManager
from verl.experimental.reward_loop.reward_loop import migrate_legacy_reward_impl
from verl.trainer.ppo.reward import extract_reward

from driver import Job, Rewards, main

OURS = "pkg://fivescore.client.integrations.verl"
WORKERS = 2
CONFIGURATION = Path(verl.__file__).parent / "trainer" / "config"


@functools.cache
def _reward_loop(url: str, policy: str, settings: tuple[str, ...]) -> RewardLoopManager:
    with initialize_config_dir(str(CONFIGURATION), version_base=None):
        config = compose(
            "ppo_trainer",
            [
                f"+reward.custom_reward_function.reward_kwargs.urls=[{url}]",
                f"reward.num_workers={WORKERS}",
                f"actor_rollout_ref.model.path={policy}",
                *settings,
            ],
        )
    return RewardLoopManager(migrate_legacy_reward_impl(config))


@functools.cache
def _tokenizer_of(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _rewards(settings: tuple[str, ...], job: Job) -> Rewards:
    try:
        loop = _reward_loop(job.url, job.policy, settings)
        batch = loop.compute_rm_score(_rollouts(job))
    except RayTaskError as error:
        raise _root(error) from error
    scores, _ = extract_reward(batch)
    return scores.sum(dim=-1).tolist()


def _root(error: BaseException) -> BaseException:
    """What was raised in the actor, without Ray's traceback."""
    return _root(error.cause) if isinstance(error, RayTaskError) else error


def _rollouts(job: Job) -> DataProto:
    """The samples as verl's rollout leaves them."""
    tokenizer = _tokenizer_of(job.policy)
    prompts, responses = [], []
    for sample in job.samples:
        prompt = tokenizer.apply_chat_template(sample["messages"], add_generation_prompt=True)
        response = tokenizer.encode(sample["response"], add_special_tokens=False)
        prompts.append(torch.tensor(prompt["input_ids"]))
        responses.append(torch.tensor([*response, tokenizer.eos_token_id]))
    masks = [
        _padded([torch.ones_like(one) for one in prompts], "left", 0),
        _padded([torch.ones_like(one) for one in responses], "right", 0),
    ]
    messages = [sample["messages"] for sample in job.samples]
    return DataProto.from_dict(
        tensors={
            "prompts": _padded(prompts, "left", tokenizer.pad_token_id),
            "responses": _padded(responses, "right", tokenizer.pad_token_id),
            "attention_mask": torch.cat(masks, dim=1),
        },
        non_tensors={
            "raw_prompt": _objects(messages),
            "data_source": _objects(["fivescore"] * len(messages)),
            "reward_model": _objects([{"ground_truth": ""}] * len(messages)),
            "extra_info": _objects([{"prompt": prompt} for prompt in messages]),
        },
    )


def _padded(rows: list[torch.Tensor], side: str, value: int) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)


def _objects(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def run(*settings: str) -> None:
    """Answer jobs until standard input ends.

    Args:
        settings: of verl's command line, beside those of the address and the policy.
    """
    with cluster.running():
        main(version("verl"), functools.partial(_rewards, settings))
