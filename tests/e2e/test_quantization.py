"""Of weights that are quantised when they are loaded, the head's are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fivescore.model.manifest import read
from fivescore.settings import DEMO
from tests.e2e.server import running
from tests.headed import Headed

PAIR = {"prompt": "Name a colour.", "response": "Blue, as the sky is."}
QUANTISED = ("--engine.quantization", "fp8_per_channel", "--engine.dtype", "bfloat16")


def test_layers_of_a_head_stay_in_float32_on_a_quantised_body(tmp_path: Path) -> None:
    made = Headed(tmp_path / "model", "llama", {"kind": "mlp", "hidden": [48]}, 5)
    with running(tmp_path / "log", "--model", str(made.folder), *QUANTISED) as server:
        server.until_ready()
        (score,) = server.score([PAIR])
    found = torch.tensor([score[f"o{place}"] for place in range(5)])
    assert not torch.isclose(found, found.bfloat16().float(), rtol=1e-5, atol=0).all()
    assert found.tolist() == pytest.approx(made.reference(made.token_ids(**PAIR)), abs=1.5)


def test_the_head_of_a_quantised_model_is_in_float32(tmp_path: Path) -> None:
    with running(tmp_path / "server.log", *QUANTISED) as server:
        server.until_ready()
        (score,) = server.score([PAIR])
    attributes = read(f"{DEMO}/reward.json").attributes
    outputs = torch.tensor([(score[name] - a.offset) / a.scale for name, a in attributes.items()])
    # A head in fp8 would answer in bfloat16, the body's dtype.
    assert not torch.isclose(outputs, outputs.bfloat16().float(), rtol=1e-5, atol=0).any()
