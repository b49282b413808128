"""The reference's heads, over bodies of several families, against transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from fivescore.errors import ConfigurationError
from fivescore.model import reference, streaming
from fivescore.model.head import GatedHead, MlpHead, TokenHead
from fivescore.model.reference import Reference
from tests.headed import Headed
from tests.unit.model.tiny_weights import FILE, SHAPES, change, make

pytestmark = pytest.mark.filterwarnings("default")  # transformers warns of its own plans

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SHAPES["llama"],
    "qwen2": {**SHAPES["llama"], "tie_word_embeddings": True},
    "gpt2": SHAPES["gpt2"],
    "gemma2": {**SHAPES["llama"], "head_dim": 16, "final_logit_softcapping": 0.5},
    "cohere": {**SHAPES["llama"], "logit_scale": 0.25},
    "granite": {**SHAPES["llama"], "logits_scaling": 4.0},
    "phi": SHAPES["llama"],
}
"""Untied, tied, tied under another name, with a soft cap, a factor, a divisor, and a bias."""


def causal(folder: Path, family: str) -> Any:
    torch.manual_seed(7)
    config = AutoConfig.for_model(family, **FAMILIES[family], pad_token_id=0, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    if model.lm_head.bias is not None:
        torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_is_the_logit_that_transformers_generates_from(family: str, tmp_path: Path) -> None:
    model = causal(tmp_path, family)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([IDS])).logits[0, -1]
    one = Reference(str(tmp_path), 1, TokenHead(kind="token", token=11))
    two = Reference(str(tmp_path), 1, TokenHead(kind="token", token=11, minus=40))
    assert one.outputs(IDS) == pytest.approx([float(logits[11])], abs=1e-5)
    assert two.outputs(IDS) == pytest.approx([float(logits[11] - logits[40])], abs=1e-5)
    assert abs(float(logits[11] - logits[40])) > 1e-3


@pytest.mark.parametrize("as_bin", [False, True])
def test_one_linear_layer_is_that_of_transformers_and_has_its_bias(
    as_bin: bool, tmp_path: Path
) -> None:
    make(tmp_path)
    found = load_file(tmp_path / FILE)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    found["score.bias"] = torch.arange(5.0)
    save_file(found, tmp_path / FILE, metadata={"format": "pt"})
    if as_bin:
        (tmp_path / FILE).unlink()
        torch.save(found, tmp_path / "pytorch_model.bin")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([IDS])).logits[0] + found["score.bias"]
    assert Reference(str(tmp_path), 5).outputs(IDS) == pytest.approx(logits.tolist(), abs=1e-5)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "selu", "tanh"])
def test_layers_follow_the_formula(activation: str, tmp_path: Path) -> None:
    made = Headed(
        tmp_path, "llama", {"kind": "mlp", "hidden": [48, 32], "activation": activation}, 3
    )
    head = MlpHead.model_validate(made.head)
    found = Reference(str(tmp_path), 3, head).outputs(IDS)
    assert found == pytest.approx(made.reference(IDS), abs=1e-5)


@pytest.mark.parametrize(
    "gate",
    [
        {"hidden": [16], "at": [4, 1], "scale": 2.0},
        {"hidden": [16, 24], "activation": "selu", "softmax": False},
        {},
    ],
)
def test_a_gate_follows_the_formula(gate: dict[str, Any], tmp_path: Path) -> None:
    made = Headed(tmp_path, "llama", {"kind": "gated", "gate": gate}, 5)
    reference = Reference(str(tmp_path), 5, GatedHead.model_validate(made.head))
    assert reference.outputs(IDS) == pytest.approx(made.reference(IDS), abs=1e-5)
    if gate.get("at"):
        with pytest.raises(ConfigurationError, match="does not occur"):
            reference.outputs([4, 5, 1])


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("score.weight", "the checkpoint lacks score.weight of its head"),
        ("model.layers.1.mlp.up_proj.weight", r"finds no layers\.1\.mlp\.up_proj\.weight"),
    ],
)
def test_what_a_checkpoint_lacks_is_never_made_up(removed: str, said: str, tmp_path: Path) -> None:
    change(make(tmp_path), remove=[removed])
    with pytest.raises(ConfigurationError, match=said):
        Reference(str(tmp_path), 5)


def test_a_model_that_is_too_large_is_streamed_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    whole = Reference(str(tmp_path), 5).all_outputs([IDS, IDS[:3]])
    monkeypatch.setattr(streaming, "SHARE", 0.0)
    monkeypatch.setattr(reference, "_body", None)  # it is not loaded
    done: list[float] = []
    found = Reference(str(tmp_path), 5).all_outputs([IDS, IDS[:3]], done.append)
    assert sum(done) == pytest.approx(2)
    assert found == [pytest.approx(one, abs=1e-5) for one in whole]
