"""What a checkpoint lacks is known before its weights load, and no sound one is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.model.checkpoint import Checkpoint
from fivescore.settings import DEMO, Settings
from tests import checkpoints
from tests.unit.engines import DEMO_INFO
from tests.unit.model.tiny_weights import FILE, HIDDEN, change, check, configure, make

H = HIDDEN
PACKED = ("weight_packed", "weight_scale")


def as_bin(folder: Path) -> None:
    """Two shards of PyTorch's format, without an index."""
    found = load_file(folder / FILE)
    (folder / FILE).unlink()
    for number in (1, 2):
        part = {name: found[name] for name in sorted(found)[number % 2 :: 2]}
        torch.save(part, folder / f"pytorch_model-0000{number}-of-00002.bin")


def as_bare(folder: Path) -> None:
    """Names as the body alone has them."""
    change(folder, rename=lambda name: name.removeprefix("model."))


def as_bare_gpt2(folder: Path) -> None:
    """The same for GPT-2, whose names vLLM completes."""
    shutil.rmtree(folder)
    change(make(folder, "gpt2"), rename=lambda name: name.removeprefix("transformer."))


def with_buffers(folder: Path) -> None:
    """What older versions of transformers saved beside parameters."""
    rotary = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": (8,) for n in range(2)}
    change(folder, add={**rotary, "lm_head.weight": (64, H), "score.bias": (5,)})


def joined(folder: Path) -> None:
    """One layer for query, key and value, which vLLM joins itself otherwise."""
    layers = [f"model.layers.{n}.self_attn." for n in range(2)]
    parts = [f"{layer}{part}_proj.weight" for layer in layers for part in "qkv"]
    change(folder, remove=parts, add={f"{layer}qkv_proj.weight": (64, H) for layer in layers})


def quantised(folder: Path) -> None:
    """GPTQ's tensors instead of each layer's weight, but for the head."""
    names = [n for n in load_file(folder / FILE) if n.endswith("_proj.weight")]
    parts = {n.replace("weight", kind): (4, 4) for n in names for kind in ("qweight", "scales")}
    change(folder, remove=names, add=parts, quantization_config={"quant_method": "gptq"})


def quantised_experts(folder: Path) -> None:
    """Experts whose layers compressed-tensors packs."""
    shutil.rmtree(folder)
    names = [n for n in load_file(make(folder, "mixtral") / FILE) if ".experts." in n]
    parts = {n.replace("weight", kind): (4, 4) for n in names for kind in PACKED}
    change(folder, remove=names, add=parts, quantization_config={"quant_method": "x"})


def with_a_leftover(folder: Path) -> None:
    """A file of a value head that the index does not name."""
    index = dict.fromkeys(load_file(folder / FILE), FILE)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    save_file({"v_head.summary.weight": torch.zeros(1, H)}, folder / "value_head.safetensors")


def from_language_model(folder: Path) -> None:
    """The head is made of rows of the language model's, as rerankers have it."""
    change(
        folder, remove=["score.weight"], add={"lm_head.weight": (64, H)},
        classifier_from_token=["no", "yes"], method="no_post_processing",
    )  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "mixtral"])
def test_a_whole_checkpoint_passes_and_each_layer_that_it_lacks_is_named(
    tmp_path: Path, family: str
) -> None:
    folder = make(tmp_path / "model", family)
    assert check(folder)
    whole = load_file(folder / FILE)
    needed = [name for name in whole if re.search(r"(proj|attn|fc|w\d|gate)\.(weight|bias)", name)]
    assert len(needed) >= 14
    for name in needed:
        save_file({n: t for n, t in whole.items() if n != name}, folder / FILE)
        with pytest.raises(ConfigurationError, match=r"lacks .* of its parameters") as caught:
            check(folder)
        assert f"lacks {name} of its" in caught.value.detail


@pytest.mark.parametrize(
    "form",
    [as_bin, as_bare_gpt2, with_buffers, joined, quantised, quantised_experts, with_a_leftover,
     from_language_model],
)  # fmt: skip
def test_other_sound_forms_pass(tmp_path: Path, form: Callable[[Path], None]) -> None:
    folder = make(tmp_path / "model")
    form(folder)
    assert check(folder)


@pytest.mark.parametrize("name", checkpoints.MAKERS)
def test_the_checkpoints_of_the_parity_tests_pass(tmp_path: Path, name: str) -> None:
    assert check(checkpoints.MAKERS[name](tmp_path / name))


@pytest.mark.parametrize("form", [as_bin, as_bare, quantised])
def test_other_forms_that_lack_a_layer_are_refused(
    tmp_path: Path, form: Callable[[Path], None]
) -> None:
    folder = make(tmp_path / "model")
    change(folder, remove=[f"model.layers.{n}.self_attn.o_proj.weight" for n in range(2)])
    form(folder)
    with pytest.raises(
        ConfigurationError, match=r"layers\.0\.self_attn\.o_proj\.weight and 1 more of its"
    ):
        check(folder)


@pytest.mark.parametrize("lost", ["q_proj.scales", "experts.3.w2.weight_scale"])
def test_a_part_of_a_quantised_layer_that_is_missing_is_named(tmp_path: Path, lost: str) -> None:
    folder = make(tmp_path / "model")
    (quantised_experts if "experts" in lost else quantised)(folder)
    name = next(name for name in load_file(folder / FILE) if name.endswith(lost))
    change(folder, remove=[name])
    with pytest.raises(ConfigurationError, match=f"lacks {re.escape(name)} of its parameters"):
        check(folder)


@pytest.mark.parametrize(
    "instead",
    [
        {},
        {"lm_head.weight": (64, H)},
        {"v_head.summary.weight": (1, H), "v_head.summary.bias": (1,)},
        {"regression_layer.weight": (19, H)},
        {"score.0.weight": (H, H), "score.2.weight": (1, H)},
        {"rm_head.weight": (9, H)},
        {"value_head.weight": (1, H), "lm_head.weight": (64, H)},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "LlamaForCausalLM"])
def test_a_checkpoint_without_the_head_names_the_heads_that_it_has(
    tmp_path: Path, instead: dict[str, Any], name: str
) -> None:
    folder = make(tmp_path / "model", outputs=1)
    change(folder, remove=["score.weight"], add=instead, architectures=[name])
    with pytest.raises(ConfigurationError, match=r"lacks score\.weight") as caught:
        Checkpoint(Settings(model=str(folder)))
    told = caught.value.detail
    assert len(told) <= MOST_CHARACTERS
    assert all(name in told for name in instead)
    assert ("no other head" in told) == (not instead)
    assert "manifest" not in told
    assert "reward.json" not in told


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("LlamaForSequenceClassification", {"weights.fc.0.weight": (H, H)}),
        ("OwnForSequenceClassification", {"gating.layers.0.weight": (H, H)}),
        ("INFORMForSequenceClassification", {"v_head.weight": (1, H)}),
    ],
)
def test_a_head_of_more_than_one_layer_is_refused(
    tmp_path: Path, name: str, beside: dict[str, Any]
) -> None:
    folder = change(make(tmp_path / "model"), add=beside, architectures=[name])
    own = rf"{name} has a head of its own \({next(iter(beside))}"
    with pytest.raises(ConfigurationError, match=own):
        check(folder)
    assert check(change(folder, remove=beside))


def test_a_head_in_a_file_that_the_index_does_not_name_is_no_head(tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    change(folder, remove=["score.weight"])
    with_a_leftover(folder)
    with pytest.raises(ConfigurationError, match=r"lacks score\.weight.*v_head\.summary\.weight"):
        check(folder)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"remove": ["score.weight"], "add": {"score.weight": (5, 16)}}, r"\[5, 16\].*\[5, 32\]"),
        ({"remove": ["score.weight"], "add": {"score.weight": (H,)}}, r"\[32\].*\[5, 32\]"),
        ({"add": {"score.bias": (3,)}}, r"score\.bias \[3\]"),
        ({"id2label": {"0": "a"}, "label2id": {"a": 0}}, r"\[5, 32\].*\[1, 32\].*num_labels 5"),
        ({"intermediate_size": 80}, r"mlp\.\w+\.weight has the shape .*48.*80"),
        ({"num_hidden_layers": 3}, r"lacks model\.layers\.2\."),
    ],
)
def test_a_shape_that_config_json_does_not_have_is_refused(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    folder = change(make(tmp_path / "model"), **changed)
    with pytest.raises(ConfigurationError, match=told):
        check(folder)


def test_overrides_of_the_engine_count(tmp_path: Path) -> None:
    folder = change(make(tmp_path / "model"), id2label={"0": "a"}, label2id={"a": 0})
    assert check(folder, **{"hf-overrides.num_labels": 5})
    own = configure(folder, architectures=["RewardModel"])
    name = '["LlamaForSequenceClassification"]'
    assert check(own, hf_overrides=f'{{"num_labels": 5, "architectures": {name}}}')
    with pytest.raises(ConfigurationError, match=r"lacks model\.layers\.2"):
        check(make(tmp_path / "other"), hf_overrides={"num_hidden_layers": 3})


def test_a_body_that_transformers_does_not_know_has_its_head_checked(tmp_path: Path) -> None:
    folder = configure(
        make(tmp_path / "model"), model_type="own", architectures=["OwnForSequenceClassification"]
    )
    assert check(folder)
    change(folder, remove=["score.weight"], add={"v_head.weight": (1, H)})
    with pytest.raises(ConfigurationError, match=r"head of its own \(v_head\.weight\)"):
        check(folder)


@pytest.mark.parametrize("model_type", ["own", "llama"])
def test_a_layer_is_compared_with_the_others_where_transformers_does_not_read_the_names(
    tmp_path: Path, model_type: str
) -> None:
    folder = make(tmp_path / "model", num_hidden_layers=3)
    change(folder, rename=lambda name: name.replace("mlp.", "ffn.").replace("self_attn.", "mix."))
    configure(folder, model_type=model_type)
    assert check(folder)
    change(folder, remove=["model.layers.1.mix.o_proj.weight"])
    with pytest.raises(ConfigurationError, match=r"lacks model\.layers\.1\.mix\.o_proj\.weight of"):
        check(folder)


def test_a_transformers_without_rules_for_names_leaves_the_layers_to_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "model", num_hidden_layers=3)
    monkeypatch.setitem(sys.modules, "transformers.conversion_mapping", None)
    assert check(folder)
    change(folder, ["model.layers.1.mlp.up_proj.weight"])
    with pytest.raises(ConfigurationError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        check(folder)


def test_names_that_transformers_does_not_read_are_left_to_the_engine(tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    change(folder, rename=lambda name: name.replace("model.layers", "model.blocks.inner"))
    assert check(folder)


def test_a_checkpoint_is_checked_before_its_load_or_once_the_engine_has_fetched_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder)
    found = load_file(folder / FILE)
    del found["model.layers.1.mlp.up_proj.weight"]
    (folder / FILE).unlink()
    early = Checkpoint(Settings(model=str(folder)))
    save_file(found, folder / FILE)
    for load in (
        lambda: Checkpoint(Settings(model=str(folder))),
        lambda: early.fit(DEMO_INFO),
    ):
        with pytest.raises(ConfigurationError, match=r"layers\.1\.mlp\.up_proj\.weight"):
            load()


def test_no_manifest_is_proposed_for_what_may_have_no_head(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.safetensors", "reward.json"))
    configure(folder, architectures=["LlamaForCausalLM"], id2label=None, label2id=None)
    found = Checkpoint(Settings(model=str(folder)))
    save_file({"lm_head.weight": torch.zeros(8, 8)}, folder / FILE)
    with pytest.raises(ConfigurationError, match=r"lacks score\.weight"):
        found.fit(dataclasses.replace(DEMO_INFO, outputs=2))
