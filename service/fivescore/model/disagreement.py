"""What vLLM computes otherwise than transformers from the same config.json, without a word.

Each entry was found by comparing the two on random weights, with one entry of config.json changed
after the other; ``vllm/model_executor/models`` has the reasons. A proof shows what is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fivescore.model.architecture import Architecture, refusal

SILU, TANH = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
COMPUTED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "cohere": {"hidden_act": SILU},
    "falcon": {"activation": ("gelu",)},
    "gemma": {"hidden_act": (*TANH, "gelu"), "hidden_activation": (*TANH, None)},
    "gpt2": {"scale_attn_weights": (True,)},
    "granitemoe": {"hidden_act": SILU},
    "granitemoeshared": {"hidden_act": SILU},
    "mixtral": {"hidden_act": SILU},
    "olmoe": {"hidden_act": SILU},
    "qwen3_moe": {"hidden_act": SILU},
    "stablelm": {"hidden_act": SILU},
}
"""By model type, entries of config.json that vLLM does not read, with what it computes always."""
SCALED_BEFORE_THE_HEAD = ("minicpm", "minicpm3")
"""Their hidden states are divided by ``hidden_size / dim_model_base``, as for a language model."""
INCLUSIVE_WINDOW = ("cohere2", "cohere2_moe")
"""A layer with a sliding window sees one token more (``commandr.py``)."""


def check(architecture: Architecture) -> None:
    """Check that the two read config.json alike.

    Raises:
        ConfigurationError: vLLM does not read an entry that changes the scores.
    """
    kind = _kind(architecture)
    for name, computed in COMPUTED.get(kind, {}).items():
        value = architecture.value(name)
        if value not in computed:
            raise refusal(
                architecture.model,
                f"vLLM does not read {name} of a {kind} model and would compute"
                f" {computed[0]!r}, where config.json has {value!r}: its scores would be others",
            )
    hidden, base = architecture.hidden, architecture.value("dim_model_base")
    if kind in SCALED_BEFORE_THE_HEAD and base and base != hidden:
        raise refusal(
            architecture.model,
            f"vLLM scales a {kind} model's states by dim_model_base, {base}, before the head:"
            f" --engine.hf-overrides.dim_model_base {hidden} gives the scores of transformers",
        )


def check_rotation(architecture: Architecture, body: Any) -> None:
    """Check that both rotate the same share of a head.

    Args:
        body: transformers' model, whose class may rotate whole heads whatever config.json says.

    Raises:
        ConfigurationError: vLLM would rotate a part of each head, and transformers all of it.
    """
    scaling = architecture.value("rope_parameters")
    share = scaling.get("partial_rotary_factor") if isinstance(scaling, Mapping) else None
    heads = architecture.value("num_attention_heads")
    size = architecture.value("head_dim") or (architecture.hidden or 0) // (heads or 1)
    frequencies = (getattr(module, "inv_freq", None) for module in body.modules())
    widths = {2 * one.shape[-1] for one in frequencies if one is not None}
    if share not in (None, 1) and widths == {size}:
        raise refusal(
            architecture.model,
            f"config.json has partial_rotary_factor {share}, by which vLLM rotates a part of each"
            " head, and transformers does not: set it to 1.0",
        )


def window(architecture: Architecture) -> int | None:
    """Tokens up to which sliding windows give transformers' numbers; None where all do."""
    size = architecture.value("sliding_window")
    kinds = architecture.value("layer_types") or ()
    slides = _kind(architecture) in INCLUSIVE_WINDOW and "sliding_attention" in kinds
    longest = architecture.value("max_position_embeddings")
    is_shorter = isinstance(size, int) and (not isinstance(longest, int) or size < longest)
    return size if slides and is_shorter else None


def _kind(architecture: Architecture) -> str:
    text = architecture.value("text_config")
    inner = text.get("model_type") if isinstance(text, Mapping) else None
    return str(inner or architecture.value("model_type") or "")
