"""GRPO raises the combined reward that a running fivescore serves.

    make serve                                   # the demo checkpoint, in another terminal
    .venv/bin/python docs/examples/grpo_reward_goes_up.py

TRL's GRPOTrainer trains a tiny policy with random weights, once per seed; nothing is downloaded.
The demo checkpoint knows lengths and words and no facts, and is easily fooled: raising its reward
shows that the whole loop works, not that the policy writes anything good.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import string
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from matplotlib.figure import Figure
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    set_seed,
)
from trl import GRPOConfig, GRPOTrainer

from fivescore.client import RewardClient
from fivescore.client.integrations.trl import RewardFunction

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
# The demo's own combination (Nemotron-4-340B-Reward's published weights), not one that suits GRPO.
WEIGHTS = dict(zip(ATTRIBUTES, (0.3, 0.74, 0.46, 0.47, -0.33), strict=True))
QUESTIONS = ("What is a {}?", "Name a famous {}.", "Write a line about a {}.", "Describe a {}.")
TRAINED_TOPICS = ("river", "prime", "poet", "bridge", "planet", "song", "tree", "city")
HELD_OUT_TOPICS = ("mountain", "theorem", "painter", "bird")
COMPLETION_CHARACTERS = 32
COMPLETIONS_PER_PROMPT = 8
PROMPTS_PER_STEP = 8
LEARNING_RATE = 1e-3
SAMPLES = 512  # for each mean outside training
SMOOTHED_STEPS = 9

log = logging.getLogger("grpo")


def prompts_about(topics: Sequence[str]) -> list[str]:
    return [question.format(topic) for topic in topics for question in QUESTIONS]


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character, so that tokens are text and lengths are equal."""
    characters = [*string.ascii_letters, *string.digits, *string.punctuation, " "]
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def random_policy(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama of 351,072 parameters."""
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def unending(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Generation settings that let no completion end early, so that length cannot be learned."""
    return {"suppress_tokens": [tokenizer.eos_token_id, tokenizer.pad_token_id]}


def train(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, url: str, steps: int, seed: int
) -> list[dict[str, float]]:
    """Train the policy in place.

    Returns:
        What TRL logged, one entry per step.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            seed=seed,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            per_device_train_batch_size=PROMPTS_PER_STEP * COMPLETIONS_PER_PROMPT,
            num_generations=COMPLETIONS_PER_PROMPT,
            max_completion_length=COMPLETION_CHARACTERS,
            generation_kwargs=unending(tokenizer),
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
        )
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=RewardFunction(url, weights=WEIGHTS),
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": prompts_about(TRAINED_TOPICS)}),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    policy.eval()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def sampled_pairs(
    policy: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    seed: int,
) -> list[dict[str, str]]:
    """Completions of every prompt, equally many, as pairs of ``POST /score``."""
    set_seed(seed)
    pairs = []
    for prompt in prompts:
        ids = tokenizer([prompt] * (SAMPLES // len(prompts)), return_tensors="pt").input_ids
        with torch.inference_mode():
            written = policy.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=COMPLETION_CHARACTERS,
                **unending(tokenizer),
            )
        responses = tokenizer.batch_decode(written[:, ids.shape[1] :])
        pairs += [{"prompt": prompt, "response": response} for response in responses]
    return pairs


def measure(
    policy: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    url: str,
    prompts: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """What the server says of samples of the policy, and what the samples are like."""
    pairs = sampled_pairs(policy, tokenizer, prompts, seed)
    scores = RewardClient(url).score(pairs, weights=WEIGHTS)
    rewards = [score.reward for score in scores]
    each = len(pairs) // len(prompts)
    text = "".join(pair["response"] for pair in pairs)
    return {
        "reward": mean(rewards),
        "standard_error": round(statistics.stdev(rewards) / math.sqrt(len(rewards)), 4),
        "samples": len(rewards),
        "reward_per_prompt": [
            mean(rewards[start : start + each]) for start in range(0, len(rewards), each)
        ],
        **{name: mean([score.attributes[name] for score in scores]) for name in ATTRIBUTES},
        "characters": len(text) / len(pairs),
        "tokens_of_the_reward_model": mean([score.tokens for score in scores]),
        "most_frequent_characters": {
            character: round(count / len(text), 3)
            for character, count in Counter(text).most_common(8)
        },
        "first_samples": [pair["response"] for pair in pairs[:4]],
    }


def mean(values: Sequence[float]) -> float:
    return round(statistics.mean(values), 4)


def run(url: str, steps: int, seed: int) -> dict[str, Any]:
    """One policy, measured, trained, and measured again with the same sampling seed."""
    tokenizer = character_tokenizer()
    policy = random_policy(tokenizer, seed)
    prompts = {
        "trained_prompts": prompts_about(TRAINED_TOPICS),
        "held_out_prompts": prompts_about(HELD_OUT_TOPICS),
    }

    def measured() -> dict[str, Any]:
        return {
            name: measure(policy, tokenizer, url, group, seed) for name, group in prompts.items()
        }

    untrained = measured()
    history = train(policy, tokenizer, url, steps, seed)
    trained = measured()
    logged = {"reward": "rewards/fivescore/mean", "entropy": "entropy"} | {
        name: f"rm/{name}" for name in ATTRIBUTES
    }
    return {
        "seed": seed,
        "untrained": untrained,
        "trained": trained,
        "steps": {
            name: [round(entry[key], 4) for entry in history] for name, key in logged.items()
        },
    }


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours; fewer at the ends."""
    half = SMOOTHED_STEPS // 2
    return [statistics.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, each in enumerate(runs):
        rewards = each["steps"]["reward"]
        left.plot(rewards, color=f"C{index}", alpha=0.3, linewidth=0.8)
        left.plot(smoothed(rewards), color=f"C{index}", label=f"seed {each['seed']}")
    before = statistics.mean(each["untrained"]["trained_prompts"]["reward"] for each in runs)
    left.axhline(before, color="black", linestyle="--", label="untrained policies")
    left.set(xlabel="step", ylabel="combined reward, mean of a step", title="Reward")
    for name in ATTRIBUTES:
        columns = zip(*(each["steps"][name] for each in runs), strict=True)
        label = f"{name} ({WEIGHTS[name]:+.2f})"
        right.plot(smoothed([statistics.mean(column) for column in columns]), label=label)
    right.set(xlabel="step", ylabel="mean of a step, over the seeds", title="Attributes (weight)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(path, dpi=110)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The numbers as a Markdown table."""
    lines = ["| seed | untrained policy | trained policy | prompts that went up |"]
    lines.append("|---|---|---|---|")
    for each in runs:
        before, after = (each[when]["held_out_prompts"] for when in ("untrained", "trained"))
        both = zip(before["reward_per_prompt"], after["reward_per_prompt"], strict=True)
        ups = sum(last > first for first, last in both)
        lines.append(
            f"| {each['seed']} | {before['reward']:.3f} ± {before['standard_error']:.3f} "
            f"| {after['reward']:.3f} ± {after['standard_error']:.3f} "
            f"| {ups} of {len(after['reward_per_prompt'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parents[1] / "images",
        help="folder for grpo_reward.png and grpo_reward.json",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    args.output.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in args.seeds:
        log.info("seed %d", seed)
        runs.append(run(args.url, args.steps, seed))
    lines = ",\n".join(json.dumps(each) for each in runs)  # a line per seed
    (args.output / "grpo_reward.json").write_text(f"[{lines}]\n")
    plot(runs, args.output / "grpo_reward.png")
    log.info("%s", table(runs))


if __name__ == "__main__":
    main()
