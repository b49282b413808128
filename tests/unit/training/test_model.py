"""The backbone with its head: the last token, float32, seeds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma2Config,
)

from fivescore.errors import ConfigurationError
from fivescore.training.batches import Collator
from fivescore.training.model import has_head, is_untrained, load_config, load_model
from fivescore.training.recipe import Recipe, load
from fivescore.training.rows import Example
from tests.checkpoints import llama

SEQUENCES = [[5], [6, 7, 8, 9], [10, 11, 12], [13, 14, 0], [15, 0, 0, 0, 0]]
PAD = 0
"""An id that some of the sequences end with: only the mask can tell their last token."""


def recipe(model: Path, **given: Any) -> Recipe:
    return load({"data": "d", "model": str(model), "output": "o", **given})


def made(model: Path, dtype: str = "float32", **given: Any) -> Any:
    chosen = recipe(model, **given)
    return load_model(chosen, load_config(chosen), chosen.attributes, dtype)


def batch_of(sequences: list[list[int]]) -> dict[str, torch.Tensor]:
    examples = [Example("", (sequence,), [0.0]) for sequence in sequences]
    batch = Collator(PAD)(examples)
    batch.pop("labels")
    return batch


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("reward-model"))


def test_a_batch_gives_what_each_sequence_gives_alone(reward_model: Path) -> None:
    """Transformers' own class, without padding, is what the server's numbers are held to."""
    model = made(reward_model).eval()
    theirs = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    theirs.config.pad_token_id = None  # with one, it would look for the token before the padding
    with torch.no_grad():
        together = model(**batch_of(SEQUENCES)).logits[:, 0]
        alone = [theirs(input_ids=torch.tensor([s])).logits[0] for s in SEQUENCES]
    assert together == pytest.approx(torch.stack(alone), abs=1e-5)


def test_the_head_is_float32_while_the_body_is_not(reward_model: Path) -> None:
    model = made(reward_model)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        hidden = model.base_model(**{k: v[:, 0] for k, v in batch_of(SEQUENCES[:1]).items()})
        logits = model(**batch_of(SEQUENCES[:1])).logits
    last = hidden.last_hidden_state[:, 0]
    assert model.score.weight.dtype == logits.dtype == torch.float32
    assert torch.equal(logits[:, 0], last.float() @ model.score.weight.T)


def test_a_new_head_starts_at_the_offsets(backbone: Path) -> None:
    model = made(backbone).eval()
    with torch.no_grad():
        assert model(**batch_of(SEQUENCES)).logits.abs().max() < 0.5
    assert model.score.weight.abs().max() > 0
    assert model.config.id2label[0] == "helpfulness"


def test_random_weights_are_the_seeds(backbone: Path) -> None:
    one, same, other = (made(backbone, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["score.weight"], other["score.weight"])
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_an_existing_head_is_kept(reward_model: Path) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(reward_model)
    assert torch.equal(made(reward_model).score.weight, theirs.score.weight)


def test_a_language_model_keeps_its_body_and_gets_a_head(
    reward_model: Path, tmp_path: Path
) -> None:
    theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(reward_model))
    theirs.save_pretrained(tmp_path)
    chosen = recipe(tmp_path, attributes="helpfulness,verbosity")
    config = load_config(chosen)
    assert not has_head(chosen, config)
    model = load_model(chosen, config, chosen.attributes, "float32")
    body = theirs.model.state_dict()
    assert all(torch.equal(body[name], value) for name, value in model.model.state_dict().items())
    assert model.score.weight.shape == (2, config.hidden_size)
    assert model.config.label2id == {"helpfulness": 0, "verbosity": 1}


def test_lora_trains_adapters_and_the_whole_head(reward_model: Path) -> None:
    model = made(reward_model, "bfloat16", lora_rank=2)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    kinds = {name.split(".")[-4] for name in trained if "lora_A" in name}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert sum("score" in name for name in trained) == 1
    frozen = {p.dtype for name, p in model.named_parameters() if "score" not in name
              and not p.requires_grad}  # fmt: skip
    assert frozen == {torch.bfloat16}


def test_what_a_folder_holds(backbone: Path, reward_model: Path) -> None:
    assert is_untrained(str(backbone))
    assert not is_untrained(str(reward_model))
    for folder, expected in ((backbone, False), (reward_model, True)):
        chosen = recipe(folder)
        assert has_head(chosen, load_config(chosen)) is expected


@pytest.mark.parametrize("cap", [50.0, None])
def test_attention_with_a_cap_is_trained_with_it(backbone: Path, cap: float | None) -> None:
    chosen = recipe(backbone, attributes="helpfulness")
    config = Gemma2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        head_dim=16, intermediate_size=16, vocab_size=32, attn_logit_softcapping=cap,
    )  # fmt: skip
    model = load_model(chosen, config, chosen.attributes, "float32")
    assert (model.config._attn_implementation == "eager") is (cap is not None)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                        intermediate_size=8, vocab_size=16)  # fmt: skip
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="choose a decoder"):
        made(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lora_rank": 2, "lora_targets": "no_such"}, "--lora-targets: "),
        ({"attention": "no_such"}, "its weights cannot be loaded"),
    ],
)
def test_what_does_not_fit_is_told(reward_model: Path, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(reward_model, **given)
    assert told in caught.value.detail
    assert "\n" not in caught.value.detail
