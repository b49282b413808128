"""Faults that give a plausible number: the number as it was, and what the service gives now.

``wrong`` is what a plain reading gives: the ids that were sent, or the engine that was started,
before the manifest and the checkpoint decided. The reference is transformers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForSequenceClassification,
)

from fivescore.engine.vllm import entrance
from fivescore.model.checkpoint import Checkpoint
from fivescore.serve import make_engine
from fivescore.settings import Settings
from fivescore.types import Pair
from tests import checkpoints
from tests.e2e.test_lifecycle import Failure, fail_to_start
from tests.unit.model.tiny_weights import configure

pytestmark = pytest.mark.filterwarnings("default")  # vLLM's and torch's own
EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}  # fmt: skip
PAIR = Pair(prompt="Name a prime.", response="yes\n")
TURNS = [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "yes\n"}]
TOLERANCE = 1e-4
APART = 0.05
"""A wrong output is at least this far from the right one."""


class Read(NamedTuple):
    """The ids of the wrong reading, and those of the right one."""

    wrong: list[int]
    right: list[int]


def rendered(folder: Path) -> str:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return str(tokenizer.apply_chat_template(TURNS, tokenize=False))


def ids(folder: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def decided(folder: Path, **prompt: str) -> None:
    manifest = {"version": 2, "outputs": 5, "reward": {"output": 0}, "prompt": prompt}
    checkpoints.write_manifest(folder, manifest)


def pad_is_the_last_token(folder: Path) -> Read:
    """The second: transformers itself passes over what is its pad token."""
    whole = ids(folder, rendered(folder))
    configure(folder, pad_token_id=whole[-1])
    decided(folder, end="last_not_pad")
    return Read(whole, whole[:-1])


def bos_is_forced(folder: Path) -> Read:
    """The third: a model that was trained without BOS, and a template that writes one."""
    decided(folder, bos="never")
    whole = ids(folder, rendered(folder))
    return Read(whole, whole[1:])


def newline_is_read(folder: Path) -> Read:
    """The fourth: ChatML writes a newline after the token at which the model was trained."""
    text = "{{ bos_token }}" + checkpoints.CHATML_TEMPLATE.replace("<|im_end|>", "<|eot_id|>")
    (folder / "chat_template.jinja").write_text(text)
    decided(folder, end="eos")
    return Read(ids(folder, rendered(folder)), ids(folder, rendered(folder).rstrip()))


def class_rebuilds_the_tokenizer(folder: Path) -> Read:
    """The fifth: LlamaTokenizerFast over a byte-level tokenizer.json."""
    configure_tokenizer = folder / "tokenizer_config.json"
    content = json.loads(configure_tokenizer.read_text())
    configure_tokenizer.write_text(json.dumps({**content, "tokenizer_class": "LlamaTokenizerFast"}))
    wrong = AutoTokenizer.from_pretrained(folder).encode(rendered(folder), add_special_tokens=False)
    return Read(list(wrong), ids(folder, rendered(folder)))


def template_trims(folder: Path) -> Read:
    """The sixth: a placeholder in the response's place is not trimmed."""
    text = rendered(folder)
    return Read(ids(folder, text.replace("yes<", "yes\n<")), ids(folder, text))


FAULTS: tuple[Callable[[Path], Read], ...] = (
    pad_is_the_last_token,
    bos_is_forced,
    newline_is_read,
    class_rebuilds_the_tokenizer,
    template_trims,
)


async def scored(settings: Settings, tokens: int | None, all_ids: Sequence[list[int]]) -> Any:
    entrance.prepare(settings)
    engine = await asyncio.to_thread(make_engine, settings, tokens)
    try:
        await engine.load()
        return [(await engine.encode(one, f"x{i}")).values for i, one in enumerate(all_ids)]
    finally:
        await engine.close()


def reference(folder: Path, token_ids: list[int]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return list(map(float, model(input_ids=torch.tensor([token_ids])).logits[0]))


def off(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_the_number_is_that_of_the_training(tmp_path: Path) -> None:
    """All checkpoints have the same weights, so one engine scores the ids of all."""
    reads = {fault: fault(checkpoints.llama(tmp_path / fault.__name__)) for fault in FAULTS}
    for fault, read in reads.items():
        settings = Settings(model=str(tmp_path / fault.__name__), engine={"dtype": "float32"})
        (served,) = Checkpoint(settings).conversation().encode([PAIR])
        assert served == read.right, fault.__name__
    both = [one for read in reads.values() for one in read]
    outputs = asyncio.run(scored(settings, None, both))
    for (fault, read), wrong, right in zip(reads.items(), outputs[::2], outputs[1::2], strict=True):
        # Of the whole rendering transformers reads the same, as it knows the pad token.
        whole = read.wrong if fault is pad_is_the_last_token else read.right
        assert off(right, reference(tmp_path / fault.__name__, whole)) < TOLERANCE, fault.__name__
        assert off(wrong, right) > APART, fault.__name__


def test_longrope_is_that_of_the_length_unless_more_is_asked_for(tmp_path: Path) -> None:
    """The eighth: above the original context vLLM has long factors for short pairs."""
    folder = checkpoints.llama(tmp_path / "model")
    factors = {"short_factor": [1.0] * 16, "long_factor": [4.0 + i for i in range(16)]}
    configure(folder, rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, **factors,
        "original_max_position_embeddings": 128,
    })  # fmt: skip
    settings = Settings(model=str(folder), engine={"dtype": "float32"})
    found = Checkpoint(settings)
    (served,) = found.conversation().encode([PAIR])
    assert isinstance(served, list)
    (right,) = asyncio.run(scored(settings, found.max_tokens, [served]))
    (wrong,) = asyncio.run(scored(settings, checkpoints.MAX_TOKENS, [served]))
    expected = reference(folder, served)
    assert off(right, expected) < TOLERANCE
    assert off(wrong, expected) > APART


def test_a_bias_that_only_vllms_class_has_stops_the_start(tmp_path: Path) -> None:
    """The first: transformers' class needs no such tensor, and vLLM leaves it as memory was."""
    folder = checkpoints.llama(tmp_path / "model")
    size = len(PreTrainedTokenizerFast.from_pretrained(folder))
    config = Qwen2MoeConfig(
        **checkpoints.SHAPE, **EXPERTS, vocab_size=size, num_labels=5, qkv_bias=False
    )
    Qwen2MoeForSequenceClassification(config).save_pretrained(folder)
    fail_to_start(Failure("", ("--model", str(folder)), ("qkv_proj.bias", "checkpoint")))
