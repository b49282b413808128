"""NeMo 1's and NeMo 2's configurations say the same, and what cannot be served is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.model.importers import nemo_config
from fivescore.model.importers.archive import open_files
from fivescore.model.importers.nemo_config import NemoConfig

FIRST: dict[str, Any] = {
    "encoder_seq_length": 512,
    "num_layers": 3,
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": None,
    "normalization": "rmsnorm",
    "activation": "fast-swiglu",
    "position_embedding_type": "rope",
    "rotary_percentage": 1.0,
    "bias": False,
    "regression": {"num_attributes": 9},
}
SECOND: dict[str, Any] = {
    "seq_length": 512,
    "num_layers": 3,
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "normalization": "RMSNorm",
    "activation_func": {"_target_": "torch.nn.functional.silu", "_call_": False},
    "gated_linear_unit": True,
    "rotary_percent": 1.0,
    "add_bias_linear": False,
}


def read(folder: Path, entries: Any) -> NemoConfig:
    (folder / "c.yaml").write_text(entries if isinstance(entries, str) else yaml.dump(entries))
    return nemo_config.read(open_files(folder), "c.yaml")


def refusal(folder: Path, entries: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(folder, entries)
    return raised.value.detail


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    first = read(tmp_path, FIRST)
    second = read(tmp_path, {"_target_": "nemo.LlamaModel", "config": SECOND})
    assert first.family == second.family == "llama"
    for name in ("layers", "hidden", "ffn", "heads", "groups", "head_size", "length"):
        assert getattr(first, name) == getattr(second, name), name
    assert (first.head_size, first.epsilon, first.rotary_base) == (16, 1e-5, 10000.0)
    assert (first.outputs, second.outputs) == (9, None)


def test_nemotron_is_squared_relu_with_layernorm1p(tmp_path: Path) -> None:
    first = {**FIRST, "normalization": "layernorm1p", "activation": "squared-relu"}
    assert read(tmp_path, {**first, "rotary_percentage": 0.5}).rotary_share == 0.5
    second = {
        **SECOND,
        "normalization": "LayerNorm",
        "layernorm_zero_centered_gamma": True,
        "activation_func": {"_target_": "megatron.core.activations.squared_relu"},
        "gated_linear_unit": False,
    }
    config = read(tmp_path, {"config": second})
    assert (config.family, config.zero_centred) == ("nemotron", True)


def test_numbers_are_read_as_nemo_reads_them(tmp_path: Path) -> None:
    text = yaml.dump({**FIRST, "encoder_seq_length": "${.data.seq_length}"})
    config = read(tmp_path, text + "data: {seq_length: 77}\nlayernorm_epsilon: 1e-6\n")
    assert (config.length, config.epsilon) == (77, 1e-6)
    absolute = {**FIRST, "max": 99, "encoder_seq_length": "${model.max}"}
    assert read(tmp_path, absolute).length == 99


def test_positions_are_scaled_where_nemo_scales_them(tmp_path: Path) -> None:
    linear = read(tmp_path, {**FIRST, "seq_len_interpolation_factor": 4})
    assert linear.rope_scaling == {"rope_type": "linear", "factor": 4.0}
    factors = {"scale_factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    newer = read(tmp_path, {"config": {**SECOND, **factors, "old_context_len": 8192}})
    assert newer.rope_scaling["rope_type"] == "llama3"
    # NeMo-Aligner's reward models leave it out.
    assert read(tmp_path, {**FIRST, "scale_positional_embedding": True}).rope_scaling == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "gelu"}, "activation 'gelu' is not served: RMSNorm with SwiGLU"),
        ({"normalization": "layernorm"}, "normalization 'layernorm' with activation"),
        ({"activation": "squared-relu"}, "normalization 'rmsnorm' with activation 'squared-relu'"),
        ({"use_avg_pool": True}, "use_avg_pool is True, which fivescore cannot serve"),
        ({"output_sequence": True}, "output_sequence is True"),
        ({"regression": {"merge_attributes": True}}, r"regression\.merge_attributes is true"),
        ({"num_moe_experts": 8}, "num_moe_experts is 8"),
        ({"rotary_interleaved": True}, "rotary_interleaved is True"),
        ({"position_embedding_type": "learned_absolute"}, "position_embedding_type is 'learned"),
        ({"position_embedding_type": None}, "position_embedding_type is 'learned"),
        ({"mcore_gpt": False}, "mcore_gpt is false"),
        ({"num_layers": None}, "lacks num_layers"),
        ({"num_layers": 0}, "num_layers is 0, not a whole number"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not a number"),
        ({"hidden_size": float("nan")}, "hidden_size is nan, not a number"),
        ({"regression": {"num_attributes": "x"}}, "num_attributes is 'x', not a number"),
        ({"seq_len_interpolation_factor": "x"}, "seq_len_interpolation_factor is 'x', not a"),
        ({"num_query_groups": 3}, "4 heads cannot share 3 query groups"),
        ({"rotary_percentage": 0}, r"rotary_percentage is 0\.0, not above 0"),
        ({"rotary_percentage": 0.5}, r"rotary_percentage is 0\.5, and transformers' Llama"),
        (
            {"reward_standardization": {"enable": True, "mean": 1}},
            r"lacks reward_standardization\.std",
        ),
        (
            {"reward_standardization": {"enable": True, "mean": 1, "std": 0}},
            r"reward_standardization\.std is 0\.0, not above 0",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_served_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    detail = refusal(tmp_path, {**FIRST, **change})
    assert re.search(f"c.yaml: .*{words}", detail), detail
    assert len(detail) <= MOST_CHARACTERS


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.system ['true']", "- 1", ""])
def test_a_file_that_is_no_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    assert "c.yaml" in refusal(tmp_path, text)
