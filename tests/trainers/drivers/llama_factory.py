"""LLaMA-Factory: its PPO trainer's own ``get_rewards``, with ``reward_model_type: api``."""

from __future__ import annotations

import os
from importlib.metadata import version
from types import SimpleNamespace

from absent import absent
from driver import Job, Rewards, main

absent("trl", "torchaudio", "torchdata", "omegaconf", "peft", "av", "gradio")
os.environ["DISABLE_VERSION_CHECK"] = "1"  # of transformers; its rewards need none of it

import torch
from llamafactory.train.ppo.trainer import CustomPPOTrainer
from transformers import AutoTokenizer


def rewards(job: Job) -> Rewards:
    tokenizer = AutoTokenizer.from_pretrained(job.policy)
    queries, responses = [], []
    for sample in job.samples:
        query = tokenizer.apply_chat_template(sample["messages"], add_generation_prompt=True)
        queries.append(torch.tensor(query["input_ids"]))
        response = tokenizer.encode(sample["response"], add_special_tokens=False)
        responses.append(torch.tensor([*response, tokenizer.eos_token_id]))
    trainer = SimpleNamespace(
        finetuning_args=SimpleNamespace(reward_model_type="api"),
        tokenizer=tokenizer,
        reward_model=f"{job.url}/v1/score/evaluation",
    )
    return CustomPPOTrainer.get_rewards(trainer, queries, responses).tolist()


main(version("llamafactory"), rewards)
