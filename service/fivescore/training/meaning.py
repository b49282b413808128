"""Plans a run's manifest: how ``reward.json`` reads the outputs of the trained head."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from fivescore.errors import ConfigurationError
from fivescore.model import manifest as manifests
from fivescore.model.manifest import Affine, Combined, Manifest, PromptFormat
from fivescore.training.model import context_of, has_head
from fivescore.training.recipe import MAX_TOKENS, Recipe, flag

PREFERRED = "helpfulness"
"""The attribute that the second stage trains (arXiv 2410.01257)."""


def plan(recipe: Recipe, config: Any) -> Manifest:
    """The run's manifest: the existing head's, or that of a new head, without its offsets.

    Raises:
        ConfigurationError: the recipe needs a head or a context that the backbone does not have.
    """
    old = _existing(recipe, config) if has_head(recipe, config) else None
    if old is None and recipe.stage == "preference":
        raise ConfigurationError(
            f"--stage preference: --model {recipe.model} has no head: give the first stage's output"
        )
    attributes = old.attributes if old else _one_output_each(recipe.attributes)
    return Manifest(
        outputs=old.outputs if old else len(attributes),
        attributes=attributes,
        reward=_reward(recipe, attributes, old),
        prompt=_prompt(recipe, old.prompt if old else PromptFormat()),
        max_tokens=_max_tokens(recipe, config, old),
    )


def trained(manifest: Manifest, stage: str) -> dict[str, Affine]:
    """The attributes that the stage trains: all of them, or ``PREFERRED``, or the scalar reward.

    Raises:
        ConfigurationError: the manifest does not have them.
    """
    if stage == "regression":
        if not manifest.attributes:
            raise ConfigurationError(
                "the model's reward.json names no attributes: there is nothing to regress on"
            )
        return manifest.attributes
    if PREFERRED in manifest.attributes:
        return {PREFERRED: manifest.attributes[PREFERRED]}
    if isinstance(manifest.reward, Affine):
        return {"reward": manifest.reward}
    raise ConfigurationError(
        f"--stage preference trains {PREFERRED}, which the model's reward.json does not name"
    )


def center(manifest: Manifest, means: Sequence[float]) -> Manifest:
    """The manifest with the mean labels, in the attributes' order, as its offsets."""
    centered = {
        name: affine.model_copy(update={"offset": mean})
        for (name, affine), mean in zip(manifest.attributes.items(), means, strict=True)
    }
    return manifest.model_copy(update={"attributes": centered})


def fix_day(manifest: Manifest, day: datetime.date | None) -> Manifest:
    """The manifest with the day that the template has written into the examples, if it has."""
    if day is None:
        return manifest
    prompt = manifest.prompt.model_copy(update={"date": day})
    return manifest.model_copy(update={"prompt": prompt})


def _existing(recipe: Recipe, config: Any) -> Manifest:
    if new := recipe.model_fields_set & {"attributes", "uncentered"}:
        names = ", ".join(sorted(map(flag, new)))
        raise ConfigurationError(
            f"{names}: --model {recipe.model} already has a head: leave the flag out"
        )
    own = manifests.beside(recipe.model, recipe.revision, f"--model {recipe.model}")
    manifest = own or manifests.for_outputs(config.num_labels)
    manifests.check_outputs(manifest, config.num_labels)
    return manifest


def _one_output_each(names: Sequence[str]) -> dict[str, Affine]:
    return {name: Affine(output=index) for index, name in enumerate(names)}


def _reward(
    recipe: Recipe, attributes: dict[str, Affine], old: Manifest | None
) -> Combined | Affine:
    if recipe.weights is None and old is not None:
        if recipe.stage == "preference" and PREFERRED in attributes:
            return Combined(weights={PREFERRED: 1.0})
        return old.reward
    return Combined(weights=recipe.combined(tuple(attributes)))


def _prompt(recipe: Recipe, old: PromptFormat) -> PromptFormat:
    changes = {
        "format": recipe.prompt_format,
        "system": recipe.system,
        "suffix": recipe.suffix,
    }
    return old.model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )


def _max_tokens(recipe: Recipe, config: Any, old: Manifest | None) -> int:
    context = context_of(config)
    if recipe.max_tokens is None:
        wanted = (old.max_tokens if old else None) or MAX_TOKENS
        return min(wanted, context or wanted)
    if context is not None and recipe.max_tokens > context:
        raise ConfigurationError(
            f"--max-tokens {recipe.max_tokens}: the context of --model {recipe.model} is {context}"
        )
    return recipe.max_tokens
