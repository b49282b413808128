"""PEFT adapters: the merged tensors are those of PEFT's own merge_and_unload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from fivescore.errors import ConfigurationError
from fivescore.model.importers.options import Options
from fivescore.model.importers.recognition import plan
from tests.unit.model.importers import made

ALL = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


def scalar(folder: Path) -> Path:
    """A classifier with one output, to adapt."""
    tensors = made.base(folder) | {"score.weight": made.drawn(1, made.HIDDEN)}
    return made.save(folder, tensors, num_labels=1, id2label={"0": "r"}, label2id={"r": 0})


def adapted(
    base: Path, folder: Path, kind: Any = AutoModelForSequenceClassification, **config: Any
) -> dict[str, torch.Tensor]:
    """Write a random adapter of ``base``; returns what PEFT merges it to."""
    model = get_peft_model(kind.from_pretrained(base), LoraConfig(**config))
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or "modules_to_save" in name:
                parameter.normal_(0.3 if "magnitude" in name else 0.0, 0.2)
    model.save_pretrained(folder)
    return {name: tensor.clone() for name, tensor in model.merge_and_unload().state_dict().items()}


def merged(folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    return {one.name: one.read() for one in plan(str(folder), Options(**options)).tensors}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "lora_alpha": 12},
        {"r": 4, "use_rslora": True},
        {"r": 8, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.1\.mlp\.up_proj": 40}},
        {"r": 4, "use_dora": True},
        {"r": 4, "target_modules": [*ALL, "embed_tokens"]},
        {"r": 4, "modules_to_save": ["score", "embed_tokens"], "target_modules": ["q_proj"]},
    ],
)
def test_tensors_are_those_of_merge_and_unload(config: dict[str, Any], tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    wanted = adapted(base, folder, task_type="SEQ_CLS", **{"target_modules": ALL, **config})
    plain = load_file(base / "model.safetensors")
    found = merged(folder)
    assert any(not torch.equal(found[name], plain[name]) for name in plain)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("modules", [["c_attn"], ["attn.c_proj", "mlp.c_fc"]])
def test_layers_that_hold_their_weight_transposed(modules: list[str], tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=32, num_labels=1)
    config.pad_token_id = 0
    GPT2ForSequenceClassification(config).save_pretrained(base)
    wanted = adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=modules,
                     fan_in_fan_out=True)  # fmt: skip
    found = merged(folder)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6)


def test_the_base_s_dtype_and_its_files_are_kept(tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    wanted = adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    half = {k: v.bfloat16() for k, v in load_file(base / "model.safetensors").items()}
    save_file(half, base / "model.safetensors", metadata={"format": "pt"})
    found = plan(str(folder), Options())
    name = "model.layers.0.self_attn.q_proj.weight"
    changed = next(one for one in found.tensors if one.name == name)
    assert changed.read().dtype == torch.bfloat16
    torch.testing.assert_close(changed.read().float(), wanted[name], rtol=1e-2, atol=1e-2)
    assert {one.dtype for one in found.tensors if "score" not in one.name} == {"BF16"}
    assert "tokenizer.json" in found.files


def test_a_value_head_may_lie_beside_the_adapter_of_a_language_model(tmp_path: Path) -> None:
    base, folder = made.language_model(tmp_path / "base"), tmp_path / "adapter"
    wanted = adapted(base, folder, AutoModelForCausalLM, task_type="CAUSAL_LM", r=4,
                     target_modules=["q_proj"])  # fmt: skip
    head = {"v_head.summary.weight": made.drawn(1, made.HIDDEN)}
    save_file(head, folder / "value_head.safetensors")
    found = merged(folder)
    assert torch.equal(found["score.weight"], head["v_head.summary.weight"])
    name = "model.layers.1.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def changed(folder: Path, **entries: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"peft_type": "IA3"}, "an adapter of IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights pissa_niter_4"),
        ({"target_parameters": ["experts.up"]}, "target_parameters, which is not imported"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights lora_ga"),
        ({"lora_alpha": "x"}, "it is a number"),
        ({"alpha_pattern": {"(": 3}}, "is no pattern: missing"),
        ({"base_model_name_or_path": None}, "give --base FOLDER"),
        ({"base_model_name_or_path": "/none/at/all"}, "there is no such file or folder"),
    ],
)
def test_other_adapters_are_refused_by_name(
    entries: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    changed(folder, **entries)
    with pytest.raises(ConfigurationError, match=said):
        merged(folder)


def test_an_adapter_without_weights_is_not_its_base(tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="has no weights: fetch adapter_model"):
        merged(folder)


def test_an_adapter_of_an_adapter_is_refused(tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    with pytest.raises(ConfigurationError, match="its base model is a PEFT adapter too"):
        merged(folder, base=str(folder))


def test_a_module_that_was_trained_as_a_whole_has_one_of_three_names(tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    wanted = adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    file = folder / "adapter_model.safetensors"
    plain = load_file(file)
    head = plain.pop("base_model.model.score.weight")
    for part in ("score", "score.modules_to_save", "score.modules_to_save.default"):
        old = {"base_model.model.score.original_module.weight": torch.zeros_like(head)}
        save_file({**plain, **old, f"base_model.model.{part}.weight": head}, file)
        assert torch.equal(merged(folder)["score.weight"], wanted["score.weight"])


def test_an_embedding_with_tokens_of_the_adapter_s_own(tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"],
            modules_to_save=["score", "embed_tokens"])  # fmt: skip
    file, name = folder / "adapter_model.safetensors", "base_model.model.model.embed_tokens.weight"
    tensors = load_file(file)
    tensors[name] = torch.cat([tensors[name], made.drawn(3, made.HIDDEN)])
    save_file(tensors, file)
    found = plan(str(folder), Options())
    assert found.config["vocab_size"] == len(tensors[name])
    assert torch.equal(merged(folder)["model.embed_tokens.weight"], tensors[name])


def test_another_base_may_be_given_and_must_have_what_is_adapted(tmp_path: Path) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    changed(folder, base_model_name_or_path="nobody/nothing")
    with pytest.raises(ConfigurationError, match="nobody/nothing"):
        merged(folder)
    assert merged(folder, base=str(base)).keys() == load_file(base / "model.safetensors").keys()
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    made.save(base, tensors)
    with pytest.raises(ConfigurationError, match="which its base model lacks"):
        merged(folder, base=str(base))
