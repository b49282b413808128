"""The model card: ``README.md`` beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fivescore.data.markdown import table
from fivescore.model.manifest import Combined, Manifest
from fivescore.training.plot import PLOT_FILE
from fivescore.training.recipe import Recipe
from fivescore.training.record import PREDICTIONS_FILE

CARD = """---
library_name: transformers
pipeline_tag: text-classification
{origin}---
# {name}

A reward model: {what}. Trained by `fivescore train`.

```
fivescore serve --model {name}
```

## Validation

{validation}

Predictions of the exported weights on every validation row: `{predictions}`. Log: `training.json`.

![losses and validation metrics over the steps]({plot})

## Data

{counts}

## Recipe

{recipe}

## Made by

```
{command}
```

{versions}
"""


def write_card(folder: Path, recipe: Recipe, manifest: Manifest, record: dict[str, Any]) -> None:
    """Write the card of a finished run.

    Args:
        record: the content of ``training.json``.
    """
    card = CARD.format(
        origin=_origin(recipe),
        name=folder.resolve().name,
        what=_what(recipe, manifest),
        validation=_validation(recipe, record["validation"]),
        predictions=PREDICTIONS_FILE,
        plot=PLOT_FILE,
        counts=_counts(record["data"]),
        recipe=_recipe(recipe, manifest, record),
        command=record["command"],
        versions=", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    )
    (folder / "README.md").write_text(card)


def _origin(recipe: Recipe) -> str:
    """The hub's links to backbone and data set; paths of this machine are left out."""
    lines = "" if Path(recipe.model).exists() else f"base_model: {recipe.model}\n"
    return lines if Path(recipe.data).exists() else f"{lines}datasets:\n- {recipe.data}\n"


def _what(recipe: Recipe, manifest: Manifest) -> str:
    names = ", ".join(manifest.attributes) or "one scalar"
    if recipe.stage == "preference":
        return (
            f"its reward was trained on preferences after a first stage ({names}); only differences"
            " between responses to one prompt are meaningful"
        )
    return f"it predicts {names}, from 0 to 4"


def _validation(recipe: Recipe, results: dict[str, Any]) -> str:
    if recipe.stage == "preference":
        metrics = results["preference"]
        return table(
            ("metric", "model", "constant predictor"),
            [
                (
                    "scaled Bradley-Terry loss",
                    _number(metrics["loss"]),
                    _number(metrics["constant_loss"]),
                ),
                ("accuracy", _number(metrics["accuracy"]), "0.000 (a tie is wrong)"),
            ],
        )
    return (
        table(
            ("attribute", "rows", "MSE", "MSE of the constant predictor", "Pearson", "Spearman"),
            [
                (
                    name,
                    fit["rows"],
                    *(_number(fit[key]) for key in ("mse", "constant_mse", "pearson", "spearman")),
                )
                for name, fit in results.items()
            ],
        )
        + "\n\nThe constant predictor always predicts the training mean; it has no correlation."
    )


def _counts(data: dict[str, Any]) -> str:
    rows = []
    for name, part in data.items():
        rows.append((name, "read", part["rows"], ""))
        rows.append((name, "used", part["used"], ""))
        rows += [
            (name, f"not used: {reason}", count, part["first"][reason])
            for reason, count in part["unusable"].items()
        ]
    return table(("split", "", "rows", "first"), rows)


def _recipe(recipe: Recipe, manifest: Manifest, record: dict[str, Any]) -> str:
    reward = manifest.reward
    combined = (
        " ".join(f"{weight:+g} {name}" for name, weight in reward.weights.items())
        if isinstance(reward, Combined)
        else f"output {reward.output}"
    )
    tuning = f"LoRA, rank {recipe.lora_rank}, merged" if recipe.lora_rank else "all weights"
    return table(
        ("", ""),
        [
            ("backbone", f"`{recipe.model}`"),
            ("stage", recipe.stage),
            ("trained", f"{tuning}: {record['trained_parameters']:,} parameters"),
            ("reward", combined),
            ("prompt format", manifest.prompt.format),
            ("longest pair", f"{manifest.max_tokens} tokens"),
            ("steps", f"{record['steps']}, best {record['best_step']}"),
            ("batch", f"{recipe.batch_size} rows"),
            (
                "learning rate",
                f"{recipe.peak:g}, {recipe.schedule} after {recipe.warmup_steps} steps",
            ),
            ("seed", recipe.seed),
            ("devices", f"{record['devices']} ({record['device']}), {record['dtype']}"),
            ("time", f"{record['seconds']:.0f} s"),
        ],
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
