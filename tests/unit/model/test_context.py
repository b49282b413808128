"""Where rotary embeddings are scaled by length, the default context is the reference's."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from fivescore.model.checkpoint import Checkpoint
from fivescore.settings import DEMO, Settings
from tests.unit.engines import DEMO_INFO
from tests.unit.model.tiny_weights import configure

FACTORS = {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 512, **FACTORS}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo without weights and manifest; its tokenizer's longest text is 4096 tokens."""
    ignore = shutil.ignore_patterns("*.safetensors", "reward.json")
    return Path(shutil.copytree(DEMO, tmp_path / "model", ignore=ignore))


def loaded(folder: Path, tokens: int | None = None) -> Checkpoint:
    return Checkpoint(Settings(model=str(folder), max_tokens=tokens))


@pytest.mark.parametrize(
    ("entries", "limit"),
    [
        ({"rope_parameters": LONGROPE}, 512),
        ({"rope_scaling": {**FACTORS, "type": "longrope"}, "rope_parameters": None,
          "original_max_position_embeddings": 512}, 512),
        ({"rope_parameters": {"full_attention": LONGROPE, "sliding_attention":
          {"rope_type": "default"}}}, 512),
        ({"rope_parameters": DYNAMIC}, 2048),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}, "rope_parameters": None}, 2048),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, None),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_default_context_is_the_references(
    folder: Path, entries: dict[str, Any], limit: int | None
) -> None:
    configure(folder, max_position_embeddings=2048, **entries)
    found = loaded(folder)
    assert found.max_tokens == limit


def test_the_tokenizer_lowers_it_as_vllm_would(folder: Path) -> None:
    configure(folder, max_position_embeddings=16384, rope_parameters=DYNAMIC)
    assert loaded(folder).max_tokens == 4096
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 1000}))
    assert loaded(folder).max_tokens == 1000


@pytest.mark.parametrize("scaling", [LONGROPE, DYNAMIC])
def test_more_than_the_references_context_is_warned_of_once_with_the_length(
    folder: Path, scaling: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    configure(folder, max_position_embeddings=512, rope_parameters=scaling)
    for tokens, warnings in ((512, 0), (513, 1)):
        caplog.clear()
        found = loaded(folder, tokens)
        assert found.max_tokens == tokens
        found.fit(dataclasses.replace(DEMO_INFO, max_tokens=tokens))
        said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len([line for line in said if "512 tokens" in line and "513" in line]) == warnings
