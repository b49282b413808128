"""Which checkpoint a run continues from, and when it may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.training.recipe import Recipe, load
from fivescore.training.resume import CHECKPOINTS, RECIPE_FILE, starting_point, write_recipe


def recipe(folder: Path, **given: Any) -> Recipe:
    return load({"data": "d", "model": "m", "output": folder, **given})


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The output of a run with two complete checkpoints and one that is not."""
    write_recipe(recipe(tmp_path, steps=30))
    for step in (9, 10, 20):
        (tmp_path / CHECKPOINTS / f"checkpoint-{step}").mkdir()
    for step in (9, 10):
        (tmp_path / CHECKPOINTS / f"checkpoint-{step}" / "trainer_state.json").touch()
    return tmp_path


def rewrite(stopped: Path, change: Any) -> None:
    file = stopped / CHECKPOINTS / RECIPE_FILE
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_run_continues_from_the_last_complete_checkpoint(stopped: Path) -> None:
    found = starting_point(recipe(stopped, steps=30, resume=True, keep_checkpoints=5))
    assert found == str(stopped / CHECKPOINTS / "checkpoint-10")


@pytest.mark.parametrize("field", sorted(set(Recipe.model_fields) - {"data", "model", "steps"}))
def test_a_recipe_of_an_older_version_gets_the_default_of_a_new_field(
    stopped: Path, field: str
) -> None:
    rewrite(stopped, lambda content: content.pop(field, None))
    assert starting_point(recipe(stopped, steps=30, resume=True))
    others: dict[str, Any] = {"seed": 2, "suffix": ""}
    if field in others:
        with pytest.raises(ConfigurationError, match=f"started with another --{field}"):
            starting_point(recipe(stopped, steps=30, resume=True, **{field: others[field]}))


def test_a_recipe_of_a_newer_version_names_its_field(stopped: Path) -> None:
    rewrite(stopped, lambda content: content.update(momentum=0.9))
    with pytest.raises(ConfigurationError, match="this version does not know momentum"):
        starting_point(recipe(stopped, steps=30, resume=True))


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "3"])
def test_a_recipe_that_cannot_be_read_is_one_line(stopped: Path, content: str | None) -> None:
    file = stopped / CHECKPOINTS / RECIPE_FILE
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ConfigurationError, match="the run's recipe cannot be read: ") as caught:
        starting_point(recipe(stopped, steps=30, resume=True))
    assert "\n" not in caught.value.detail


def test_a_new_run_does_not_overwrite(stopped: Path) -> None:
    with pytest.raises(ConfigurationError, match="not empty: give another one, or --resume"):
        starting_point(recipe(stopped, steps=30))


def test_a_run_is_not_resumed_with_another_recipe(stopped: Path) -> None:
    with pytest.raises(ConfigurationError, match="was started with another --steps, --seed"):
        starting_point(recipe(stopped, steps=31, seed=9, resume=True))
