"""What vLLM would serve without a word, and wrong, is refused before the first request."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForSequenceClassification,
)

from tests import checkpoints
from tests.e2e.test_lifecycle import Failure, fail_to_start

EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}  # fmt: skip


def test_a_bias_that_only_vllms_class_has_stops_the_start(tmp_path: Path) -> None:
    """The first fault of the list: transformers' class needs no such tensor, and has none."""
    folder = checkpoints.llama(tmp_path / "model")
    size = len(PreTrainedTokenizerFast.from_pretrained(folder))
    config = Qwen2MoeConfig(
        **checkpoints.SHAPE, **EXPERTS, vocab_size=size, num_labels=5, qkv_bias=False
    )
    Qwen2MoeForSequenceClassification(config).save_pretrained(folder)
    last = fail_to_start(Failure("", ("--model", str(folder)), ("qkv_proj.bias", "checkpoint")))
    assert "layers.0" in last or "layers.1" in last
