"""PEFT adapters of reward models, written by PEFT, merged by LoRA's formula."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.published import templates
from tests.published.bodies import HIDDEN, Body, body, weight, write
from tests.published.linear import write_value_head
from tests.published.published import Published, Values
from tests.published.rendering import Rendering
from tests.published.vocabularies import llama3, qwen

RANK, ALPHA = 4, 12
"""The factor of an update is ALPHA / RANK, or ALPHA / sqrt(RANK) with rsLoRA (PEFT's LoRA)."""


def classifier(folder: Path) -> Published:
    """An adapter of ``AutoModelForSequenceClassification`` (TRL, ms-swift): ``score`` saved whole.

    The base is a language model; the head comes from ``modules_to_save``. From PEFT's
    ``tuners/lora/layer.py``: W + B A * alpha / r.
    """
    vocabulary = llama3(templates.LLAMA3, pad="<|finetune_right_pad_id|>")
    base = body("llama3.1", 128256, seed=51, pad_token_id=128004)
    _write_base(folder / "base", base, "LlamaForCausalLM", rows=128256)
    vocabulary.write(folder / "base")
    config = LoraConfig(
        task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj",
        "down_proj"], modules_to_save=["score"]
    )  # fmt: skip
    model = _model(AutoModelForSequenceClassification, folder / "base", num_labels=1)
    made, peft = _trained(base, model, config, folder / "adapter", seed=52)
    vocabulary.write(folder / "adapter")
    head = peft.base_model.model.score.modules_to_save["default"].weight.detach()

    def values(ids: Sequence[int]) -> Values:
        return {"reward": float(made.hidden(ids)[-1] @ head[0])}

    return Published(folder / "adapter", Rendering(vocabulary), values)


def value_head(folder: Path) -> Published:
    """An adapter of a language model with ``value_head.safetensors`` (LLaMA-Factory), rsLoRA.

    The tokenizer stands with the base alone. From LLaMA-Factory's ``fix_valuehead_checkpoint`` and
    PEFT: W + B A * alpha / sqrt(r).
    """
    vocabulary = qwen(templates.CHATML)
    rows = -(-vocabulary.tokenizer.get_vocab_size() // 64) * 64
    base = body("qwen2", rows, seed=53)
    _write_base(folder / "base", base, "Qwen2ForCausalLM", rows)
    vocabulary.write(folder / "base")
    config = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, use_rslora=True,
        target_modules="all-linear",
    )  # fmt: skip
    model = _model(AutoModelForCausalLM, folder / "base")
    made, _ = _trained(base, model, config, folder / "adapter", seed=54, factor=ALPHA / RANK**0.5)
    head = weight(1, HIDDEN, seed=55, dtype=torch.float32)
    bias = weight(1, seed=56, dtype=torch.float32)
    write_value_head(folder / "adapter", head, bias)

    def values(ids: Sequence[int]) -> Values:
        return {"reward": float(made.hidden(ids)[-1] @ head[0] + bias[0])}

    return Published(folder / "adapter", Rendering(vocabulary), values)


def _write_base(folder: Path, base: Body, architecture: str, rows: int) -> None:
    tensors = {**base.tensors, "lm_head.weight": weight(rows, HIDDEN, seed=50)}
    # In float32: the merged weights are compared in float32, and a base in bfloat16 rounds them.
    whole = {name: tensor.float() for name, tensor in tensors.items()}
    config = {"architectures": [architecture], **base.config, "torch_dtype": "float32"}
    write(folder, config, whole)


def _model(kind: Any, folder: Path, **settings: Any) -> Any:
    transformers = logging.getLogger("transformers.modeling_utils")
    level = transformers.level
    transformers.setLevel(logging.ERROR)  # it says that score is new, which it is
    try:
        return kind.from_pretrained(folder, dtype=torch.float32, **settings)
    finally:
        transformers.setLevel(level)


def _trained(
    base: Body, model: Any, config: LoraConfig, folder: Path, seed: int,
    factor: float = ALPHA / RANK,
) -> tuple[Body, Any]:  # fmt: skip
    """Write an adapter with seeded weights; returns the merged body, and PEFT's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model, config)
        with torch.no_grad():
            for place, (name, tensor) in enumerate(peft.named_parameters()):
                if "lora_" in name or "modules_to_save" in name:
                    tensor.copy_(weight(*tensor.shape, seed=seed + place, dtype=torch.float32))
        peft.save_pretrained(folder)
    merged = AutoModel.from_config(
        base.model.config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    merged.load_state_dict(base.model.state_dict())
    updates = dict(peft.named_parameters())
    with torch.no_grad():
        for name, tensor in merged.named_parameters():
            at = f"base_model.model.model.{name.removesuffix('.weight')}"
            a = updates.get(f"{at}.lora_A.default.weight")
            if a is not None:
                tensor.add_(updates[f"{at}.lora_B.default.weight"] @ a * factor)
    return base._replace(model=merged), peft
