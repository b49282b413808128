"""What a NeMo checkpoint's configuration says of its model, in one form for NeMo 1 and NeMo 2.

NeMo 1 writes ``model_config.yaml`` (NeMo, ``megatron_base_model.py`` and ``megatron_gpt_model.py``;
NeMo-Aligner, ``megatron_gpt_reward_model.py``), NeMo 2 ``context/model.yaml`` with the fields of
megatron-core's ``TransformerConfig``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import refusal
from fivescore.model.importers.archive import Files

MOST_BYTES = 2**24
Entries = Mapping[str, Any]

ROTARY_BASE = 10000.0
LAYERNORM_EPSILON = 1e-5
"""What NeMo and megatron-core take where the configuration does not say."""
GATED = frozenset({"swiglu", "fast-swiglu"})
"""NeMo's names of SwiGLU; the fast one is the same function."""
SQUARED_RELU = "squared-relu"
SCALED_ROPE = ("scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len")
"""The fields by which NeMo 2 scales rotary positions as Llama 3.1 does."""
NOT_SERVED: Mapping[str, tuple[Any, ...]] = {
    "rotary_interleaved": (False,),
    "num_moe_experts": (0, 1),
    "qk_layernorm": (False,),
    "window_size": ((-1, -1), [-1, -1]),
    "apply_embedding_scaling": (False,),
    "attention_multiplier": (),
    "softmax_scale": (),
    "transformer_block_type": ("pre_ln",),
    "parallel_attention": (False,),
    "multi_latent_attention": (False,),
    "output_sequence": (False,),
    "use_avg_pool": (False,),
    "fp8_params": (False,),
}
"""Entries that change what is computed, with the values, beside null, that change nothing."""


@dataclass(frozen=True, slots=True)
class NemoConfig:
    """A body's and a head's description.

    Args:
        family: ``llama`` is RMSNorm with SwiGLU; ``nemotron`` LayerNorm1P with squared ReLU.
        heads, groups, head_size: query heads, key-value heads, and the size of each.
        zero_centred: whether the weights of RMSNorm lack their 1.
        rotary_share: the share of each head that is rotated.
        rope_scaling: transformers' entries beside ``rope_theta``; empty without scaling.
        linear_bias, qkv_bias: whether all linear layers of the body, or those of query, key and
            value alone, have a bias.
        length: the most tokens that the model was trained on.
        outputs: the head's; None where the configuration leaves it to the weights.
        mean, std: of ``reward_standardization``.
        tokenizer: its entries.
    """

    family: Literal["llama", "nemotron"]
    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    head_size: int
    epsilon: float
    zero_centred: bool
    rotary_share: float
    rotary_base: float
    rope_scaling: Mapping[str, Any]
    linear_bias: bool
    qkv_bias: bool
    length: int
    outputs: int | None
    mean: float
    std: float
    tokenizer: Entries


def read(files: Files, name: str) -> NemoConfig:
    """The configuration in the file ``name``.

    Raises:
        ConfigurationError: it cannot be read, lacks an entry, or describes what is not served.
    """
    return _Reader(files.shown, name, _load(files, name)).config()


def _load(files: Files, name: str) -> Entries:
    try:
        found = yaml.safe_load(files.read(name, MOST_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" at line {place.line + 1}" if place else ""
        raise refusal(files.shown, f"{name} is no plain YAML{line}") from error
    if not isinstance(found, dict):
        raise refusal(files.shown, f"{name} has no entries")
    return found


class _Reader:
    def __init__(self, shown: str, name: str, root: Entries) -> None:
        self._shown, self._name, self._root = shown, name, root
        inner = root.get("config")
        self._newer = isinstance(inner, dict)
        self._model: Entries = inner if isinstance(inner, dict) else root

    def config(self) -> NemoConfig:
        self._check_served()
        hidden, heads = self._count("hidden_size"), self._count("num_attention_heads")
        groups = self._count("num_query_groups", heads)
        if heads % groups:
            raise self._refusal(f"{heads} heads cannot share {groups} query groups")
        family, zero_centred = self._family()
        mean, std = self._standardisation()
        qkv = "add_qkv_bias" if self._newer else "qkv_bias"
        return NemoConfig(
            family=family,
            layers=self._count("num_layers"),
            hidden=hidden,
            ffn=self._count("ffn_hidden_size", 4 * hidden),
            heads=heads,
            groups=groups,
            head_size=self._count("kv_channels", hidden // heads),
            epsilon=self._number("layernorm_epsilon", LAYERNORM_EPSILON),
            zero_centred=zero_centred,
            rotary_share=self._rotary_share(family),
            rotary_base=self._number("rotary_base", ROTARY_BASE),
            rope_scaling=self._rope_scaling(),
            linear_bias=bool(self._get("add_bias_linear" if self._newer else "bias", True)),
            qkv_bias=bool(self._get(qkv, False)),
            length=self._count("seq_length" if self._newer else "encoder_seq_length"),
            outputs=self._outputs(),
            mean=mean,
            std=std,
            tokenizer=self._entries(self._root, "tokenizer"),
        )

    def _check_served(self) -> None:
        for name, harmless in NOT_SERVED.items():
            value = self._get(name)
            if value is not None and value not in harmless:
                raise self._refusal(f"{name} is {value!r:.40}, which fivescore cannot serve")
        regression = self._entries(self._model, "regression")
        if regression.get("merge_attributes"):
            raise self._refusal(
                "regression.merge_attributes is true: the head's outputs are merged into one, which"
                " fivescore does by its manifest; set it to false"
            )
        if self._get("megatron_legacy") or self._get("mcore_gpt") is False:
            raise self._refusal("mcore_gpt is false: convert it to megatron-core with NeMo first")
        default = "rope" if self._newer else "learned_absolute"
        if (kind := self._get("position_embedding_type", default)) != "rope":
            raise self._refusal(f"position_embedding_type is {kind!r:.40}, not rope")

    def _family(self) -> tuple[Literal["llama", "nemotron"], bool]:
        """The family, and whether the norms' weights are stored without their 1."""
        norm = str(self._get("normalization", "LayerNorm")).lower()
        zero_centred = bool(self._get("layernorm_zero_centered_gamma")) or norm == "layernorm1p"
        activation = self._activation()
        if norm == "rmsnorm" and activation in GATED:
            return "llama", zero_centred
        if norm in ("layernorm", "layernorm1p") and zero_centred and activation == SQUARED_RELU:
            return "nemotron", zero_centred
        raise self._refusal(
            f"normalization {norm!r:.20} with activation {activation!r:.30} is not served: RMSNorm"
            " with SwiGLU (Llama) and LayerNorm1P with squared ReLU (Nemotron) are"
        )

    def _activation(self) -> str:
        if not self._newer:
            return str(self._get("activation", "gelu"))
        function = self._get("activation_func", "gelu")
        if isinstance(function, dict):
            function = function.get("_target_", "")
        function = str(function).rpartition(".")[2]
        if self._get("gated_linear_unit", False):
            return "swiglu" if function == "silu" else f"gated {function}"
        return SQUARED_RELU if function == "squared_relu" else function

    def _rotary_share(self, family: str) -> float:
        name = "rotary_percent" if self._newer else "rotary_percentage"
        share = self._number(name, 1.0)
        if not 0 < share <= 1:
            raise self._refusal(f"{name} is {share}, not above 0 and at most 1")
        if family == "llama" and share != 1:
            raise self._refusal(f"{name} is {share}, and transformers' Llama rotates whole heads")
        return share

    def _rope_scaling(self) -> dict[str, Any]:
        """Interpolated positions, and Llama 3.1's.

        NeMo-Aligner's reward models never apply ``scale_positional_embedding``, so it is not read.
        """
        factor = self._number("seq_len_interpolation_factor", 1.0)
        if factor != 1:
            return {"rope_type": "linear", "factor": factor}
        if self._newer and self._get("scale_factor") is not None:
            scale, low, high, old = (self._number(name) for name in SCALED_ROPE)
            return {
                "rope_type": "llama3",
                "factor": scale,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": int(old),
            }
        return {}

    def _outputs(self) -> int | None:
        regression = self._entries(self._model, "regression")
        if self._newer and not regression:
            return None
        return self._whole("num_attributes", regression.get("num_attributes") or 1)

    def _standardisation(self) -> tuple[float, float]:
        entries = self._entries(self._model, "reward_standardization")
        if not entries.get("enable"):
            return 0.0, 1.0
        mean, std = (
            self._finite(f"reward_standardization.{name}", entries.get(name))
            for name in ("mean", "std")
        )
        if std <= 0:
            raise self._refusal(f"reward_standardization.std is {std}, not above 0")
        return mean, std

    def _count(self, name: str, default: int | None = None) -> int:
        return self._whole(name, self._get(name, default))

    def _number(self, name: str, default: float | None = None) -> float:
        return self._finite(name, self._get(name, default))

    def _whole(self, name: str, value: Any) -> int:
        number = self._finite(name, value)
        if number != int(number) or number < 1:
            raise self._refusal(f"{name} is {value!r:.40}, not a whole number from 1")
        return int(number)

    def _finite(self, name: str, value: Any) -> float:
        if value is None:
            raise self._refusal(f"lacks {name}")
        try:
            number = float(value)  # YAML reads 1e-5 as a text
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self._refusal(f"{name} is {value!r:.40}, not a number")
        return number

    def _entries(self, root: Entries, name: str) -> Entries:
        value = root.get(name)
        return value if isinstance(value, dict) else {}

    def _get(self, name: str, default: Any = None) -> Any:
        value = self._model.get(name)
        for _ in range(4):  # a reference may be to a reference
            if not isinstance(value, str) or not value.startswith("${"):
                break
            value = self._referred(value)
        return default if value is None else value

    def _referred(self, value: str) -> Any:
        """What an OmegaConf reference such as ``${.encoder_seq_length}`` stands for."""
        path = value.removeprefix("${").removesuffix("}").lstrip(".").removeprefix("model.")
        found: Any = self._model
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return value if found is None else found

    def _refusal(self, sentence: str) -> ConfigurationError:
        return refusal(self._shown, f"{self._name}: {sentence}")
