"""``docs/training.md`` lists every flag of ``fivescore train``, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from fivescore.model.manifest import ATTRIBUTES
from fivescore.training.recipe import Recipe, flag

TRAINING = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_every_flag_is_documented_and_no_other() -> None:
    listed = {
        name
        for row in re.findall(r"^\| (`--[^|]+) \|", TRAINING, re.MULTILINE)
        for name in re.findall(r"`(--[a-z-]+)`", row)
    }
    assert listed == {flag(name) for name in Recipe.model_fields}


def test_the_commands_use_flags_that_exist() -> None:
    for block in re.findall(r"```\n(.*?)```", TRAINING, re.DOTALL):
        ours = block.rpartition("fivescore train")[2]
        given = set(re.findall(r"--[a-z-]+", ours))
        assert given <= {flag(name) for name in Recipe.model_fields}


def test_every_column_is_documented() -> None:
    for name in ("prompt", "response", "preference_strength", *ATTRIBUTES):
        assert f"`{name}`" in TRAINING
