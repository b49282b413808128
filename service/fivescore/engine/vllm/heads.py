"""The head of a reward model in vLLM: which token is read, with what activation and precision."""

from __future__ import annotations

import dataclasses
from typing import Any

from vllm import PoolingParams
from vllm.config import PoolerConfig
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from fivescore.engine.vllm import internals

RAW_SCORES = PoolingParams(task="classify", use_activation=False)
"""Asks for the head's outputs as they are, without softmax or sigmoid."""
POOLING = PoolerConfig(pooling_type="LAST", use_activation=False)
HEAD = "score"
"""The name that vLLM's adapter gives to the layer of the outputs."""


def with_float32_head(overrides: Any) -> Any:
    """``hf_overrides`` that also keep the head in float32, unless they say otherwise.

    vLLM also takes a function here; that is left as it is.
    """
    if isinstance(overrides, dict):
        return {"head_dtype": "float32", **overrides}
    return overrides


def spare_the_head(found: QuantizationConfig | None) -> QuantizationConfig | None:
    """The same quantisation, except for the head.

    vLLM quantises the head too where it quantises a checkpoint's weights while loading them.
    """
    if found is None or found.get_name() != "online" or not internals.usable(internals.HEAD):
        return found
    if HEAD in found.args.ignore:
        return found
    return type(found)(dataclasses.replace(found.args, ignore=[*found.args.ignore, HEAD]))
