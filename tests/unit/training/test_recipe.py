"""The recipe has the papers' defaults and refuses in one line what makes no sense."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.manifest import PRESETS, Combined
from fivescore.training.recipe import Recipe, flag, load

MAY_BE_ZERO = {"warmup_steps", "weight_decay", "max_grad_norm", "seed", "lora_rank", "lora_dropout"}
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


NUMBERS = {
    name: field
    for name, field in Recipe.model_json_schema()["properties"].items()
    if {"integer", "number"} & {kind.get("type") for kind in field.get("anyOf", [field])}
}


def test_the_numeric_flags_are_known() -> None:
    assert len(NUMBERS) == 16


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-1", "1e400", "9" * 5000, "many", ""])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_its_range_is_one_line_with_the_flag_and_the_range(
    name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**LEAST, "lora_rank": "1", name: value})
    detail = caught.value.detail
    assert detail.startswith(f"{flag(name)}: ")
    assert (
        re.search(r"number (at least|above) [\d.]+ and (at most|below) [\d.e+]+", detail)
        or not value
    )
    assert len(detail) < 200
    assert "\n" not in detail


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - MAY_BE_ZERO))
def test_zero_is_refused_where_it_means_nothing(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{flag(name)}: give a (whole )?number"):
        load({**LEAST, "lora_rank": "1", name: "0"})


@pytest.mark.parametrize(
    "name", sorted(set(Recipe.model_fields) - {"resume", "uncentered", "steps"})
)
def test_an_empty_value_is_a_value_or_refused(name: str) -> None:
    if name in ("system", "suffix"):
        assert getattr(load({**LEAST, name: ""}), name) == ""
        return
    with pytest.raises(ConfigurationError, match=f"^{flag(name)}: "):
        load({**LEAST, "lora_rank": "1", name: ""})


@pytest.mark.parametrize("given", [{"epochs": "1e6"}, {"steps": 10**9}])
def test_a_run_too_long_to_hold_in_memory_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"^--{next(iter(given))}: .* rows, the most"):
        load({**LEAST, **given}).step_count(TRAIN_ROWS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stage": "sft"}, "--stage: "),
        ({"weights": "helpfulness"}, "--weights: write attribute=weight"),
        ({"weights": "helpfulness=nan"}, "--weights: give a number at least -1e+06 and at most 1"),
        ({"weights": "helpfulness=-inf"}, "--weights: give a number at least -1e+06 and at most 1"),
        ({"weights": "helpfulness=1e7"}, "--weights: give a number at least -1e+06 and at most 1"),
        ({"lora_rank": 1, "lora_targets": "q_proj,,"}, "--lora-targets: "),
        ({"attributes": "kindness"}, "--attributes: ['kindness'] are not among"),
        ({"epochs": "2", "steps": "3"}, "--epochs and --steps exclude each other"),
        ({"lora_alpha": "8"}, "--lora-alpha: only with --lora-rank above 0"),
        ({"stage": "preference", "uncentered": True}, "--uncentered: not with --stage preference"),
        ({"batch_size": "6", "micro_batch_size": "4"}, "not a multiple of --micro-batch-size 4"),
        ({"prompt_format": "alpaca"}, "--prompt-format: "),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**LEAST, **given})
    assert said in caught.value.detail
    assert "\n" not in caught.value.detail


def test_too_few_rows_for_a_batch_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="do not fill --batch-size 128"):
        load(LEAST).step_count(63)
