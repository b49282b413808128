"""Kinds of models that fivescore cannot serve are refused by name, in one short sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from fivescore.errors import ConfigurationError
from fivescore.model import architecture
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.model.checkpoint import Checkpoint
from fivescore.settings import Settings
from tests.unit.model.tiny_weights import configure

BODY, STEPS, HEAD = "no causal body", "process reward model", "head of its own"


def described(folder: Path, model_type: str, name: str, **entries: Any) -> Settings:
    folder.mkdir(exist_ok=True)
    if entries.pop("known", True):
        AutoConfig.for_model(model_type).save_pretrained(folder)
    configure(folder, model_type=model_type, architectures=[name], **entries)
    return Settings(model=str(folder))


def refused(settings: Settings) -> str:
    """What the load of the checkpoint says, which is short and has no other cause."""
    with pytest.raises(ConfigurationError) as caught:
        Checkpoint(settings)
    assert len(caught.value.detail) <= MOST_CHARACTERS
    return caught.value.detail


@pytest.mark.parametrize(
    ("model_type", "name", "entries", "why"),
    [
        ("bert", "BertForSequenceClassification", {}, BODY),
        ("roberta", "RobertaForSequenceClassification", {}, BODY),
        ("deberta-v2", "DebertaV2ForSequenceClassification", {}, BODY),
        ("modernbert", "ModernBertForSequenceClassification", {}, BODY),
        ("electra", "ElectraForSequenceClassification", {}, BODY),
        ("mpnet", "MPNetForSequenceClassification", {}, BODY),
        ("xlnet", "XLNetForSequenceClassification", {}, BODY),
        ("t5", "T5ForSequenceClassification", {}, BODY),
        ("bart", "BartForSequenceClassification", {}, BODY),
        ("llama", "LlamaForSequenceClassification", {"is_causal": False}, BODY),
        ("llama", "LlamaBidirectionalForSequenceClassification", {}, BODY),
        ("gemma3_text", "Gemma3TextForSequenceClassification",
         {"use_bidirectional_attention": True}, BODY),
        ("mistral", "MistralBiModel", {}, BODY),
        ("own", "NVEmbedModel", {"known": False}, BODY),
        ("own", "NewForSequenceClassification", {"known": False}, BODY),
        ("own", "NewBertForSequenceClassification", {"known": False}, BODY),
        ("own", "OwnModel", {"known": False, "is_encoder_decoder": True}, BODY),
        ("qwen2", "Qwen2ForProcessRewardModel", {}, STEPS),
        ("qwen2", "Qwen2ForPrmModel", {}, STEPS),
        ("llama", "LlamaForTokenClassification", {}, STEPS),
        ("llama", "LlamaForRewardModelWithGating", {}, HEAD),
        ("llama", "CustomAutoModelForSequenceClassification", {}, HEAD),
        ("llama", "RewardModel", {}, HEAD),
        ("qwen2", "Qwen2ForRewardModel", {}, HEAD),
        ("llama", "LlamaForValue", {}, HEAD),
        ("internlm2", "InternLM2ForRewardModel", {"known": False, "auto_map": {}}, HEAD),
    ],
)  # fmt: skip
def test_a_kind_that_cannot_be_served_is_refused_by_name(
    tmp_path: Path, model_type: str, name: str, entries: dict[str, Any], why: str
) -> None:
    detail = refused(described(tmp_path / ("a-long-name" * 20), model_type, name, **entries))
    assert f"{name} " in detail
    assert why in detail
    assert detail.startswith("model ...")


@pytest.mark.parametrize(
    ("model_type", "name", "entries"),
    [
        ("llama", "LlamaForSequenceClassification", {"is_causal": True}),
        ("llama", "LlamaForCausalLM", {}),
        ("gpt2", "GPT2LMHeadModel", {}),
        ("mistral4", "Mistral4ForSequenceClassification", {}),
        ("modernbert-decoder", "ModernBertDecoderForSequenceClassification", {}),
        ("gemma3", "Gemma3ForConditionalGeneration", {}),
        ("gemma3_text", "Gemma3TextForSequenceClassification",
         {"use_bidirectional_attention": False}),
        ("own", "OwnForSequenceClassification", {"known": False}),
        ("internlm2", "InternLM2ForCausalLM", {"known": False}),
        ("llama", "", {}),
    ],
)  # fmt: skip
def test_a_causal_body_with_one_linear_head_is_not(
    tmp_path: Path, model_type: str, name: str, entries: dict[str, Any]
) -> None:
    found = architecture.read(described(tmp_path, model_type, name, **entries))
    assert found is not None
    architecture.check(found)


@pytest.mark.parametrize("files", [["adapter_config.json"], ["config.json", "adapter_config.json"]])
def test_an_adapter_is_to_be_merged(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        (tmp_path / file).write_text('{"model_type": "llama"}')
    lora = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 2)}
    save_file(lora, tmp_path / "adapter_model.safetensors")
    assert "PEFT adapter" in refused(Settings(model=str(tmp_path)))


@pytest.mark.parametrize(
    "path", ["x/model.nemo", "x/model_config.yaml", "x/context/model.yaml", "x.nemo/a"]
)
def test_a_nemo_checkpoint_is_to_be_converted(tmp_path: Path, path: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "x" / "weights").mkdir(parents=True)
    model = file if file.suffix == ".nemo" else tmp_path / path.split("/")[0]
    assert "NeMo checkpoint" in refused(Settings(model=str(model)))


def test_what_the_options_put_elsewhere_is_not_read(tmp_path: Path) -> None:
    settings = described(tmp_path, "bert", "BertForSequenceClassification")
    for option in ("hf-config-path", "config_format"):
        assert architecture.read(settings.model_copy(update={"engine": {option: "x"}})) is None
