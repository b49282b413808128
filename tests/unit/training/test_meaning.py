"""The manifest of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.manifest import ATTRIBUTES, NEWEST, PRESETS, Affine, Combined, Manifest
from fivescore.training.meaning import center, plan, trained
from fivescore.training.model import load_config
from fivescore.training.recipe import load
from tests.checkpoints import MAX_TOKENS, STEERLM_MANIFEST, llama, scalar, steerlm, three_outputs


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(maker: Any) -> Path:
        path = root / maker.__name__
        return path if path.exists() else Path(maker(path))

    return folder


def planned(model: Path, **given: Any) -> Manifest:
    recipe = load({"data": "d", "model": str(model), "output": "o", **given})
    return plan(recipe, load_config(recipe))


def test_a_new_head_has_one_output_an_attribute(backbone: Path) -> None:
    manifest = planned(backbone)
    preset = PRESETS["helpsteer2"]
    assert manifest.attributes == preset.attributes
    assert manifest.reward == preset.reward
    assert (manifest.outputs, manifest.prompt.format) == (5, "chat_template")
    assert manifest.max_tokens == MAX_TOKENS  # the backbone's context, less than the recipe's


def test_a_new_head_may_have_fewer(backbone: Path) -> None:
    manifest = planned(backbone, attributes="helpfulness", prompt_format="raw", suffix="!")
    assert (manifest.outputs, list(manifest.attributes)) == (1, ["helpfulness"])
    assert manifest.reward == Combined(weights={"helpfulness": 1.0})
    assert (manifest.prompt.format, manifest.prompt.suffix) == ("raw", "!")


def test_an_empty_text_replaces_the_models_own(folder_of: Callable[[Any], Path]) -> None:
    own = planned(folder_of(steerlm)).prompt
    assert (own.system, own.suffix) != ("", "")
    prompt = planned(folder_of(steerlm), system="", suffix="").prompt
    assert (prompt.format, prompt.system, prompt.suffix) == ("steerlm", "", "")


def test_offsets_are_the_means(backbone: Path) -> None:
    manifest = center(planned(backbone), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert [affine.offset for affine in manifest.attributes.values()] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_an_existing_head_keeps_its_meaning(folder_of: Callable[[Any], Path]) -> None:
    written = {**STEERLM_MANIFEST, "version": NEWEST}
    assert planned(folder_of(steerlm)) == Manifest.model_validate(written)


def test_the_second_stage_trains_helpfulness(folder_of: Callable[[Any], Path]) -> None:
    manifest = planned(folder_of(steerlm), stage="preference")
    assert trained(manifest, "preference") == {"helpfulness": manifest.attributes["helpfulness"]}
    assert manifest.reward == Combined(weights={"helpfulness": 1.0})
    assert list(manifest.attributes) == list(ATTRIBUTES)


def test_the_second_stage_trains_a_scalar_reward(folder_of: Callable[[Any], Path]) -> None:
    manifest = planned(folder_of(scalar), stage="preference")
    assert trained(manifest, "preference") == {"reward": Affine(output=0)}


@pytest.mark.parametrize(
    ("maker", "given", "told"),
    [
        (None, {"stage": "preference"}, "has no head: give the first stage's output"),
        (None, {"max_tokens": 513}, "--max-tokens 513: the context of"),
        (None, {"weights": "safety=1"}, "--weights: ['safety'] are not among"),
        (llama, {"attributes": "helpfulness"}, "--attributes: "),
        (llama, {"uncentered": True}, "already has a head"),
        (three_outputs, {}, "3 outputs and no reward.json"),
    ],
)
def test_what_does_not_fit_is_told(
    backbone: Path, folder_of: Callable[[Any], Path], maker: Any, given: Any, told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(backbone if maker is None else folder_of(maker), **given)
    assert told in caught.value.detail


def test_a_scalar_reward_has_no_attributes_to_regress_on(
    folder_of: Callable[[Any], Path],
) -> None:
    with pytest.raises(ConfigurationError, match="names no attributes"):
        trained(planned(folder_of(scalar)), "regression")
