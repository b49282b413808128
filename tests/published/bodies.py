"""Tiny bodies of published models: weights, entries of config.json, hidden states by transformers.

The weights are seeded, and wide enough that each token moves a hidden state far more than rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel

HIDDEN = 64
CONTEXT = 4096
WIDTH = 0.2
"""The standard deviation of a body's weights."""
_SHAPE: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_size": HIDDEN,
    "initializer_range": WIDTH,
    "intermediate_size": 2 * HIDDEN,
    "max_position_embeddings": CONTEXT,
    "num_attention_heads": 2,  # of 32, the smallest that vLLM's attention on CPUs takes
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "use_cache": True,
}
_LLAMA3: dict[str, Any] = {
    **_SHAPE,
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": 128009,
    "hidden_act": "silu",
    "mlp_bias": False,
    "pretraining_tp": 1,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
_QWEN2: dict[str, Any] = {
    **_SHAPE,
    "model_type": "qwen2",
    "hidden_act": "silu",
    "max_window_layers": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama3": _LLAMA3,
    "llama3.1": {
        **_LLAMA3,
        "rope_scaling": {  # the original context is cut down as the context is
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 256,
            "rope_type": "llama3",
        },
    },
    "qwen2": _QWEN2,
    "qwen3": {
        **{k: v for k, v in _QWEN2.items() if k != "max_window_layers"},
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 32,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        **_SHAPE,
        "model_type": "gemma2",
        "attention_bias": False,
        "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "head_dim": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "pad_token_id": 0,
        "query_pre_attn_scalar": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "sliding_window": 96,
    },
}
"""Entries of config.json as transformers 4 wrote them, and as the published files have them."""

Tensors = dict[str, torch.Tensor]


class Body(NamedTuple):
    """A body, its entries of config.json, and its tensors under their published names."""

    model: Any
    config: dict[str, Any]
    tensors: Tensors

    def hidden(self, ids: Sequence[int]) -> torch.Tensor:
        """The states after the final norm, float32 ``[tokens, H]``."""
        with torch.inference_mode():
            states: torch.Tensor = self.model(torch.tensor([list(ids)])).last_hidden_state[0]
        return states


def body(
    kind: str, vocabulary: int, seed: int, stored: torch.dtype = torch.bfloat16, **changes: Any
) -> Body:
    """A body of ``CONFIGS``, rounded to ``stored``; what is computed is float32.

    Args:
        vocabulary: rows of the embedding.
        changes: other entries of config.json.
    """
    config = {**CONFIGS[kind], "vocab_size": vocabulary, **changes}
    torch.manual_seed(seed)
    made = AutoConfig.for_model(**config)
    model = AutoModel.from_config(made, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.add_(torch.randn_like(weight) * 0.1)
            elif name.endswith(".bias") or name.startswith("embed_tokens"):
                weight.normal_(0.0, WIDTH)  # the pad token's row too, which is made as zeros
            weight.copy_(weight.to(stored))
    tensors = {f"model.{name}": t.to(stored) for name, t in model.state_dict().items()}
    config["torch_dtype"] = str(stored).removeprefix("torch.")
    return Body(model, config, tensors)


def weight(*shape: int, seed: int, width: float = 0.3, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A seeded tensor of a head."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * width).to(dtype)


def write(
    folder: Path, config: Mapping[str, Any], tensors: Tensors, *, form: str = "single"
) -> Path:
    """Write config.json and weights to ``folder``.

    Args:
        form: ``single`` or ``sharded`` (safetensors), or ``bin`` (``torch.save``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2))
    whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    if form == "bin":
        torch.save(whole, folder / "pytorch_model.bin")
        return folder
    if form == "single":
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = sorted(whole)
    shards = [names[: len(names) // 2], names[len(names) // 2 :]]
    where: dict[str, str] = {}
    for number, part in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({n: whole[n] for n in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    size = sum(t.numel() * t.element_size() for t in whole.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def labels(count: int) -> dict[str, Any]:
    """``num_labels`` as transformers 4 writes it to config.json."""
    return {
        "id2label": {str(i): f"LABEL_{i}" for i in range(count)},
        "label2id": {f"LABEL_{i}": i for i in range(count)},
    }
