"""Decides whether a run starts at its beginning or at its last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.training.progress import is_main
from fivescore.training.recipe import Recipe, flag

CHECKPOINTS = "checkpoints"
"""Name of the folder with checkpoints in ``--output``."""
RECIPE_FILE = "recipe.json"
"""Name of the file in that folder with the recipe of the run."""
STATE_FILE = "trainer_state.json"
"""The last file that the Trainer writes: a checkpoint without it is incomplete."""
FREE_TO_CHANGE = frozenset({"resume", "output", "keep_checkpoints"})
"""Fields of the recipe that a resumed run may change."""


def starting_point(recipe: Recipe) -> str | None:
    """The checkpoint to continue from; None for a new run.

    Raises:
        ConfigurationError: a new run would overwrite files, there is no checkpoint to continue
            from, or the checkpoints were made with another recipe.
    """
    folder = recipe.output / CHECKPOINTS
    complete = {
        int(file.parent.name.rpartition("-")[2]): file.parent
        for file in folder.glob(f"checkpoint-*/{STATE_FILE}")
    }
    if not recipe.resume:
        if is_main() and (complete or _holds_more_than_checkpoints(recipe.output)):
            raise ConfigurationError(
                f"--output {recipe.output}: the folder is not empty: give another one, or --resume"
            )
        return None
    if not complete:
        raise ConfigurationError(f"--resume: there is no checkpoint in {folder}: leave it out")
    before = _read_recipe(folder / RECIPE_FILE)
    now = _as_json(recipe)
    if changed := [name for name in now if now[name] != before.get(name)]:
        flags = ", ".join(map(flag, changed))
        raise ConfigurationError(f"--resume: the run was started with another {flags}")
    return str(complete[max(complete)])


def _read_recipe(file: Path) -> dict[str, Any]:
    """The recipe of the run to resume.

    Missing fields get their defaults, because an older version did not write fields that are newer.

    Raises:
        ConfigurationError: the file cannot be read, or holds a field that this version lacks.
    """
    try:
        written = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"--resume: {file}: the run's recipe cannot be read: {first_line(error)}"
        ) from error
    if unknown := written.keys() - Recipe.model_fields:
        raise ConfigurationError(
            f"--resume: {file}: this version does not know {', '.join(sorted(unknown))}: a newer"
            " fivescore started the run, so resume it with that version"
        )
    defaults = Recipe(data="-", model="-", output=file)
    return {**_as_json(defaults), **written}


def write_recipe(recipe: Recipe) -> None:
    """Write the recipe, with which a later ``--resume`` is compared."""
    folder = recipe.output / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE_FILE).write_text(json.dumps(_as_json(recipe), indent=1) + "\n")


def _holds_more_than_checkpoints(folder: Path) -> bool:
    return folder.is_dir() and any(entry.name != CHECKPOINTS for entry in folder.iterdir())


def _as_json(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude=set(FREE_TO_CHANGE))
