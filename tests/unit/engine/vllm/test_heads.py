"""Heads of ours in vLLM: on which class they are put, and how they get their weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fivescore.errors import ConfigurationError
from fivescore.model.head import Gate, GatedHead, MlpHead, OwnHead, TokenHead
from fivescore.settings import DEMO

heads = pytest.importorskip("fivescore.engine.vllm.heads")
for _name in ("v1.engine.async_llm", "model_executor.models.adapters",
              "model_executor.models.config", "model_executor.models.llama"):  # fmt: skip
    pytest.importorskip(f"vllm.{_name}")  # here, where warnings of libraries are no errors
arguments = importlib.import_module("fivescore.engine.vllm.arguments")
registry = importlib.import_module("vllm").ModelRegistry
HIDDEN, VOCABULARY = 4, 16
STATES = torch.arange(8.0).reshape(2, HIDDEN)
TABLE = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(1))
MLP = OwnHead(MlpHead(kind="mlp", hidden=(8,)), 3)


@pytest.fixture(autouse=True)
def _registered() -> None:
    heads.register()


def built(head: Any, outputs: int = 1, tied: bool = False, **processor: Any) -> Any:
    text = SimpleNamespace(vocab_size=VOCABULARY, tie_word_embeddings=tied)
    described = {"head": head.model_dump(mode="json"), "outputs": outputs}
    config = SimpleNamespace(
        hf_config=SimpleNamespace(fivescore_head=json.dumps(described), tie_word_embeddings=tied),
        hf_text_config=text, head_dtype=torch.float32, get_hidden_size=lambda: HIDDEN,
    )  # fmt: skip
    model = torch.nn.Module()
    model.language_model = torch.nn.Module()  # as in a model of several senses
    model.language_model.logits_processor = SimpleNamespace(**processor)
    return heads._build(model, config)


def stream(module: Any, weights: dict[str, torch.Tensor]) -> list[str]:
    """Let the head take its weights; returns the names of those that the body gets."""
    return [name for name, _ in module.taken_from(iter(weights.items()))]


@pytest.mark.parametrize(
    ("architecture", "composite", "headed"),
    [
        ("LlamaForCausalLM", False, "HeadedLlamaForCausalLM"),
        ("LlamaForSequenceClassification", False, "HeadedLlamaForCausalLM"),
        ("LlamaModel", False, "HeadedLlamaForCausalLM"),
        ("Qwen3ForSequenceClassification", False, "HeadedQwen3ForCausalLM"),
        ("GPT2ForSequenceClassification", False, "HeadedGPT2LMHeadModel"),
        ("Gemma3TextForSequenceClassification", False, "HeadedGemma3ForCausalLM"),
        ("Gemma3ForSequenceClassification", True, "HeadedGemma3ForConditionalGeneration"),
        ("NemotronForSequenceClassification", False, "HeadedNemotronForCausalLM"),
        ("HeliumForSequenceClassification", False, "HeadedTransformersForCausalLM"),
        ("BertForSequenceClassification", False, None),
        ("NobodysForCausalLM", False, None),
    ],
)
def test_a_checkpoint_s_architecture_has_one_class(
    architecture: str, composite: bool, headed: str | None
) -> None:
    assert heads._headed_name(architecture, composite) == headed


def test_a_class_with_a_head_is_the_body_s_own_with_its_adjustments() -> None:
    made = registry.models["HeadedLlamaForCausalLM"].load_model_cls()
    assert made.__name__ == "HeadedLlamaForCausalLM"
    assert issubclass(made, registry.models["LlamaForCausalLM"].load_model_cls())
    assert made is registry.models["HeadedLlamaForCausalLM"].load_model_cls()
    adjustments = importlib.import_module("vllm.model_executor.models.config").MODELS_CONFIG_MAP
    assert adjustments["HeadedGptOssForCausalLM"] is adjustments["GptOssForCausalLM"]
    count = len(registry.get_supported_archs())
    heads.register()
    assert len(registry.get_supported_archs()) == count


def test_the_engine_is_told_of_the_head_beside_the_operator_s_overrides() -> None:
    made = arguments.engine_arguments(DEMO, {"hf-overrides.rope_theta": 7}, {})
    found = heads.with_own_head(made, MLP)
    assert found.pop("rope_theta") == 7
    assert found.pop("architectures") == ["HeadedLlamaForCausalLM"]
    assert json.loads(found.pop("fivescore_head"))["head"]["kind"] == "mlp"
    assert found == {"head_dtype": "float32", "num_labels": 3}


def test_a_plugin_that_was_left_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = arguments.engine_arguments(DEMO, {}, {})
    without = {name: one for name, one in registry.models.items() if "Headed" not in name}
    monkeypatch.setattr(registry, "models", without)
    with pytest.raises(ConfigurationError, match=r"VLLM_PLUGINS") as caught:
        heads.with_own_head(made, MLP)
    assert "\n" not in caught.value.detail


def test_a_body_that_vllm_has_not_is_named() -> None:
    options = {"hf-overrides.architectures+": "NobodysForCausalLM"}
    made = arguments.engine_arguments(DEMO, options, {})
    with pytest.raises(ConfigurationError, match="no body for NobodysForCausalLM"):
        heads.with_own_head(made, MLP)


def test_layers_take_their_weights_and_leave_the_body_s() -> None:
    head = GatedHead(kind="gated", gate=Gate(hidden=(5,), activation="tanh"))
    module = built(head, outputs=6)
    weights = {
        "model.norm.weight": torch.ones(HIDDEN),
        "score.weight": torch.randn(3, HIDDEN).bfloat16(), "score.bias": torch.ones(3),
        "gate.0.weight": torch.randn(5, HIDDEN), "gate.0.bias": torch.ones(5),
        "gate.2.weight": torch.randn(3, 5), "gate.2.bias": torch.ones(3),
    }  # fmt: skip
    assert stream(module, weights) == ["model.norm.weight"]
    module.check_loaded()
    one = STATES @ weights["score.weight"].float().T + 1
    inner = torch.tanh(STATES @ weights["gate.0.weight"].T + 1)
    two = inner @ weights["gate.2.weight"].T + 1
    torch.testing.assert_close(module(STATES), torch.cat([one, two], dim=1))

    del weights["gate.2.bias"]
    stream(module, weights)  # as a reload
    with pytest.raises(ValueError, match=r"lacks the head's gate\.2\.bias"):
        module.check_loaded()
    with pytest.raises(ValueError, match=r"score\.weight has the shape \[1, 4\]"):
        stream(module, {"score.weight": torch.ones(1, HIDDEN)})


EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize(
    ("tied", "names", "row_of"),
    [
        (False, [EMBEDDING, LM_HEAD], LM_HEAD),
        (False, [LM_HEAD, EMBEDDING], LM_HEAD),
        (True, [EMBEDDING], EMBEDDING),
        (True, ["transformer.wte.weight"], "transformer.wte.weight"),
        (True, [LM_HEAD, EMBEDDING], LM_HEAD),
        (True, [EMBEDDING, LM_HEAD], LM_HEAD),
        (False, ["model.tok_embeddings.weight", "output.weight"], "output.weight"),
        (False, ["gpt_neox.embed_in.weight", "embed_out.weight"], "embed_out.weight"),
        (False, [EMBEDDING], None),
        (True, ["model.norm.weight"], None),
    ],
)
def test_rows_are_of_the_language_model_s_head_or_of_the_embedding_tied_to_it(
    tied: bool, names: Sequence[str], row_of: str | None
) -> None:
    module = built(TokenHead(kind="token", token=3), tied=tied)
    tables = {name: TABLE * (place + 1) for place, name in enumerate(names)}
    assert stream(module, tables) == list(names), "the body gets all of them"
    if row_of is None:
        with pytest.raises(ValueError, match=r"lacks lm_head\.weight"):
            module.check_loaded()
        return
    module.check_loaded()
    torch.testing.assert_close(module(STATES), (STATES @ tables[row_of][3]).reshape(2, 1))


def test_logits_are_scaled_and_capped_before_they_are_subtracted() -> None:
    module = built(TokenHead(kind="token", token=3, minus=9), scale=0.5, soft_cap=2.0)
    stream(module, {LM_HEAD: TABLE, "lm_head.bias": torch.arange(float(VOCABULARY))})
    logits = 2 * torch.tanh((STATES @ TABLE.T + torch.arange(float(VOCABULARY))) * 0.5 / 2)
    torch.testing.assert_close(module(STATES), (logits[:, 3] - logits[:, 9]).reshape(2, 1))


def test_quantised_rows_are_refused() -> None:
    module = built(TokenHead(kind="token", token=3))
    with pytest.raises(ValueError, match=r"lm_head\.weight is quantised"):
        stream(module, {LM_HEAD: TABLE.to(torch.float8_e4m3fn)})
