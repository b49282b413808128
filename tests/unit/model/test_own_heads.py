"""A checkpoint's head is the one that its manifest describes, or the start stops with one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.head import Gate, GatedHead, MlpHead, OwnHead, TokenHead
from fivescore.settings import Settings
from tests.headed import Headed
from tests.unit.engines import DEMO_INFO
from tests.unit.model.tiny_weights import HIDDEN, change, check_own, make

H = HIDDEN
MLP = OwnHead(MlpHead(kind="mlp", hidden=(16,)), 2)
GATED = OwnHead(GatedHead(kind="gated", gate=Gate(hidden=(8,))), 4)
TOKEN = OwnHead(TokenHead(kind="token", token=63, minus=5), 1)
LAYERS = {
    "score.0.weight": (16, H), "score.0.bias": (16,),
    "score.2.weight": (2, 16), "score.2.bias": (2,),
}  # fmt: skip
GATES = {
    "score.weight": (3, H), "score.bias": (3,), "gate.0.weight": (8, H), "gate.0.bias": (8,),
    "gate.2.weight": (3, 8), "gate.2.bias": (3,),
}  # fmt: skip
ROWS = {"lm_head.weight": (64, H)}

Shapes = Mapping[str, tuple[int, ...]]


def headed(folder: Path, tensors: Shapes, **config: Any) -> Path:
    """A checkpoint with these tensors in the place of one linear layer."""
    return change(make(folder, **config), remove=["score.weight"], add=tensors)


def test_a_head_says_which_tensors_it_needs() -> None:
    assert MLP.tensors(H) == LAYERS
    assert GATED.tensors(H) == GATES
    assert TOKEN.tensors(H) == {}
    assert (MLP.raw_outputs, GATED.raw_outputs, TOKEN.raw_outputs) == (2, 6, 1)
    bare = OwnHead(GatedHead(kind="gated"), 2)
    assert bare.tensors(H).keys() == {"score.weight", "score.bias", "gate.0.weight", "gate.0.bias"}


@pytest.mark.parametrize(("own", "tensors"), [(MLP, LAYERS), (GATED, GATES), (TOKEN, ROWS)])
def test_the_head_of_the_manifest_passes(own: OwnHead, tensors: Shapes, tmp_path: Path) -> None:
    # Language models keep their own head beside the reward's.
    assert check_own(headed(tmp_path, {**tensors, **ROWS}), own)


def test_a_tied_embedding_has_the_rows(tmp_path: Path) -> None:
    assert check_own(headed(tmp_path, {}, tie_word_embeddings=True), TOKEN)


@pytest.mark.parametrize(
    ("own", "tensors", "said"),
    [
        (MLP, {**LAYERS, "score.2.weight": (2, 15)},
         r"score\.2\.weight has the shape \[2, 15\], and the head of the manifest needs \[2, 16\]"),
        (MLP, {**LAYERS, "score.0.weight": (16, H + 1)}, r"needs \[16, 32\]"),
        (MLP, {k: v for k, v in LAYERS.items() if k != "score.2.bias"},
         r"lacks score\.2\.bias, which head\.kind mlp of the manifest needs"),
        (MLP, {**LAYERS, "score.4.weight": (2, 2)}, r"its head has score\.4\.weight"),
        (MLP, {"v_head.weight": (1, H)}, r"lacks score\.0\.weight.*has v_head\.weight instead"),
        (MLP, {"score.weight": (2, H)}, r"lacks score\.0\.weight.*has score\.weight instead"),
        (GATED, LAYERS, r"lacks score\.weight, which head\.kind gated"),
        (GATED, {**GATES, "gate.0.bias": (9,)}, r"gate\.0\.bias has the shape \[9\]"),
        (TOKEN, {}, r"lacks lm_head\.weight \[64, 32\], of which head\.kind token"),
        (TOKEN, {"score.weight": (1, H), **ROWS}, r"its head has score\.weight, and head\.kind"),
    ],
)  # fmt: skip
def test_another_head_than_the_manifest_s_is_named(
    own: OwnHead, tensors: Shapes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        check_own(headed(tmp_path, tensors), own)
    assert len(caught.value.detail) <= MOST_CHARACTERS


@pytest.mark.parametrize(("name", "head"), [("token", {"token": 64}), ("minus", {"minus": 99})])
def test_a_token_beyond_the_vocabulary_is_refused(
    name: str, head: dict[str, int], tmp_path: Path
) -> None:
    own = OwnHead(TokenHead.model_validate({"kind": "token", "token": 1, **head}), 1)
    with pytest.raises(ConfigurationError, match=rf"head\.{name} of the manifest .* \(0 to 63\)"):
        check_own(headed(tmp_path, ROWS), own)


def test_the_outputs_of_config_json_are_not_asked_for(tmp_path: Path) -> None:
    made = Headed(tmp_path, "llama", {"kind": "mlp", "hidden": [16]}, 3)
    found = Checkpoint(Settings(model=str(made.folder)))
    assert found.own_head == OwnHead(MlpHead(kind="mlp", hidden=(16,)), 3)
    assert found.fit(replace(DEMO_INFO, outputs=3)).manifest.outputs == 3


def test_a_gate_at_tokens_that_no_rendered_pair_has_stops_the_start(tmp_path: Path) -> None:
    gate = {"at": "prompt"}
    made = Headed(tmp_path, "llama", {"kind": "gated", "gate": gate}, 4)
    assert Checkpoint(Settings(model=str(made.folder))).own_head
    file = made.folder / "reward.json"
    written = json.loads(file.read_text())
    written["head"]["gate"]["at"] = [3, 2, 1]
    file.write_text(json.dumps(written))
    with pytest.raises(ConfigurationError, match=r"head\.gate\.at of the manifest, 3, 2, 1, "):
        Checkpoint(Settings(model=str(made.folder)))


PRESET = "llama-3.1-nemotron-70b-reward"


def test_a_language_model_is_served_by_a_preset_and_not_without(tmp_path: Path) -> None:
    made = Headed(tmp_path, "llama", {"kind": "token", "token": 0}, 1)
    (made.folder / "reward.json").unlink()
    found = Checkpoint(Settings(model=str(made.folder), manifest=PRESET))
    assert found.own_head == OwnHead(TokenHead(kind="token", token=0), 1)
    with pytest.raises(ConfigurationError, match=r"lm_head\.weight instead; fivescore inspect"):
        Checkpoint(Settings(model=str(made.folder)))


def test_what_the_operator_makes_of_the_language_model_s_head_stays_the_engine_s(
    tmp_path: Path,
) -> None:
    made = Headed(tmp_path, "llama", {"kind": "token", "token": 0}, 1)
    chosen = {"hf-overrides.classifier_from_token": '["a"]',
              "hf-overrides.method": "no_post_processing"}  # fmt: skip
    assert Checkpoint(Settings(model=str(made.folder), engine=chosen)).own_head is None
    file = made.folder / "reward.json"
    mlp = {"kind": "mlp", "hidden": [16]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"head": mlp}))
    with pytest.raises(ConfigurationError, match="are two heads: leave one out"):
        Checkpoint(Settings(model=str(made.folder), engine=chosen))
