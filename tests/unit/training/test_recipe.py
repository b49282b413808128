"""The recipe: the paper's defaults, and one line for what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.manifest import PRESETS, Combined
from fivescore.training.recipe import load

LEAST: dict[str, Any] = {"data": "d", "model": "m", "output": "o"}
TRAIN_ROWS = 20_324
"""Rows of HelpSteer2's training split (dataset card)."""


def test_the_defaults_are_the_papers() -> None:
    recipe = load(LEAST)
    assert (recipe.batch_size, recipe.warmup_steps, recipe.schedule) == (128, 10, "constant")
    assert recipe.peak == 2e-6
    assert recipe.step_count(TRAIN_ROWS) == 317
    assert recipe.lora_rank == 0


def test_the_defaults_of_the_second_stage_are_the_papers() -> None:
    recipe = load({**LEAST, "stage": "preference"})
    assert (recipe.peak, recipe.step_count(6_766)) == (1e-6, 105)


def test_the_default_reward_is_the_presets() -> None:
    preset = PRESETS["helpsteer2"]
    assert isinstance(preset.reward, Combined)
    assert load(LEAST).combined(tuple(preset.attributes)) == preset.reward.weights


def test_a_single_attribute_is_the_reward() -> None:
    assert load(LEAST).combined(("helpfulness",)) == {"helpfulness": 1.0}


def test_weights_are_read() -> None:
    recipe = load({**LEAST, "weights": "helpfulness=1, verbosity=-0.5"})
    assert recipe.combined(("helpfulness", "verbosity")) == {"helpfulness": 1, "verbosity": -0.5}
    with pytest.raises(ConfigurationError, match=r"--weights: \['verbosity'\] are not among"):
        recipe.combined(("helpfulness",))


def test_attributes_keep_their_order() -> None:
    recipe = load({**LEAST, "attributes": "verbosity,helpfulness"})
    assert recipe.attributes == ("helpfulness", "verbosity")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"learning_rate": "fast"}, "--learning-rate: "),
        ({"learning_rate": "0"}, "--learning-rate: "),
        ({"batch_size": "0"}, "--batch-size: "),
        ({"stage": "sft"}, "--stage: "),
        ({"weights": "helpfulness"}, "--weights: write attribute=weight"),
        ({"weights": "helpfulness=nan"}, "--weights: "),
        ({"attributes": "kindness"}, "--attributes: ['kindness'] are not among"),
        ({"epochs": "2", "steps": "3"}, "--epochs and --steps exclude each other"),
        ({"lora_alpha": "8"}, "--lora-alpha: only with --lora-rank above 0"),
        ({"stage": "preference", "uncentered": True}, "--uncentered: not with --stage preference"),
        ({"batch_size": "6", "micro_batch_size": "4"}, "not a multiple of --micro-batch-size 4"),
        ({"prompt_format": "alpaca"}, "--prompt-format: "),
    ],
)
def test_what_makes_no_sense_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**LEAST, **given})
    assert told in caught.value.detail
    assert "\n" not in caught.value.detail


def test_too_few_rows_for_a_batch_are_told() -> None:
    with pytest.raises(ConfigurationError, match="do not fill --batch-size 128"):
        load(LEAST).step_count(63)
