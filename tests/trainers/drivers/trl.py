"""TRL: its GRPOTrainer prepares a step of training, whose responses a rollout function gives."""

from __future__ import annotations

from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

from driver import Job, Rewards, main
from fivescore.client.integrations.trl import RewardFunction

PER_PROMPT = 8


def rewards(job: Job) -> Rewards:
    tokenizer = AutoTokenizer.from_pretrained(job.policy)
    responses = [
        [*tokenizer.encode(one["response"], add_special_tokens=False), tokenizer.eos_token_id]
        for one in job.samples
    ]

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        ids = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
        logprobs = [[0.0] * len(one) for one in responses]
        return {"prompt_ids": ids, "completion_ids": responses, "logprobs": logprobs}

    prompts = [{"prompt": one["messages"]} for one in job.samples]
    with TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=_policy(tokenizer),
            reward_funcs=RewardFunction(job.url),
            args=_settings(folder, len(prompts)),
            train_dataset=Dataset.from_list(prompts),
            processing_class=tokenizer,
            rollout_func=rollout,
        )
        trainer.model.train()
        trainer._prepare_inputs(prompts)
    return list(trainer._logs["rewards"]["fivescore"])


def _policy(tokenizer: Any) -> LlamaForCausalLM:
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size, **heads))


def _settings(folder: str, samples: int) -> GRPOConfig:
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=samples,
        num_generations=PER_PROMPT,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )


main(version("trl"), rewards)
