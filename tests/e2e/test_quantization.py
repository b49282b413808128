"""Of weights that are quantised when they are loaded, the head's are left alone."""

from __future__ import annotations

from pathlib import Path

import torch

from fivescore.model.manifest import read
from fivescore.settings import DEMO
from tests.e2e.server import running


def test_the_head_of_a_quantised_model_is_in_float32(tmp_path: Path) -> None:
    quantized = ("--engine.quantization", "fp8_per_channel", "--engine.dtype", "bfloat16")
    with running(tmp_path / "server.log", *quantized) as server:
        server.until_ready()
        (score,) = server.score([{"prompt": "Name a colour.", "response": "Blue, as the sky is."}])
    attributes = read(f"{DEMO}/reward.json").attributes
    outputs = torch.tensor([(score[name] - a.offset) / a.scale for name, a in attributes.items()])
    # A head in fp8 would answer in bfloat16, the body's dtype.
    assert not torch.isclose(outputs, outputs.bfloat16().float(), rtol=1e-5, atol=0).any()
