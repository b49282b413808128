"""A configuration that vLLM and transformers read differently is refused, or limits the context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model import architecture, context
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.settings import Settings
from tests.unit.model.tiny_weights import check, configure, make

HALF = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("family", "entries", "words"),
    [
        ("mixtral", {"hidden_act": "gelu"}, r"hidden_act .* 'silu', where config.json has 'gelu'"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
        ("llama", {"rope_parameters": HALF}, r"partial_rotary_factor 0\.5"),
        ("qwen2", {"rope_parameters": None, "rope_theta": 1e4, "partial_rotary_factor": 0.5},
         r"partial_rotary_factor 0\.5"),
        ("llama", {"model_type": "minicpm", "dim_model_base": 8}, "dim_model_base 32 gives"),
    ],
)  # fmt: skip
def test_what_the_two_would_compute_differently_is_refused(
    tmp_path: Path, family: str, entries: dict[str, Any], words: str
) -> None:
    folder = make(tmp_path / "model", family)
    assert check(folder)
    configure(folder, **entries)
    with pytest.raises(ConfigurationError, match=words) as caught:
        check(folder)
    assert len(caught.value.detail) <= MOST_CHARACTERS
    if "dim_model_base" in entries:
        assert check(folder, **{"hf-overrides.dim_model_base": 32})


@pytest.mark.parametrize(
    ("family", "entries"),
    [
        ("mixtral", {"hidden_act": "swish"}),
        ("llama", {"rope_parameters": {**HALF, "partial_rotary_factor": 1.0}}),
        ("llama", {"hidden_act": "gelu"}),  # vLLM refuses it itself
    ],
)
def test_what_they_read_alike_is_not(tmp_path: Path, family: str, entries: dict[str, Any]) -> None:
    assert check(configure(make(tmp_path / "model", family), **entries))


@pytest.mark.parametrize(
    ("model_type", "layer", "longest", "limit"),
    [
        ("cohere2", "sliding_attention", 128, 64),
        ("cohere2", "sliding_attention", 64, None),
        ("cohere2", "full_attention", 128, None),
        ("mistral", "sliding_attention", 128, None),
    ],
)
def test_windows_of_another_length_limit_the_context(
    tmp_path: Path, model_type: str, layer: str, longest: int, limit: int | None
) -> None:
    folder = configure(
        tmp_path, model_type=model_type, sliding_window=64, layer_types=[layer] * 2,
        num_hidden_layers=2, max_position_embeddings=longest,
    )  # fmt: skip
    assert context.exact(architecture.read(Settings(model=str(folder)))) == limit
