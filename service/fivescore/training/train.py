"""Trains by a recipe, and writes the folder to serve."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from fivescore.data.splits import read_splits
from fivescore.data.statistics import Array
from fivescore.errors import ConfigurationError
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import Manifest
from fivescore.training import meaning, metrics
from fivescore.training.card import write_card
from fivescore.training.export import export, write_proof
from fivescore.training.model import has_head, is_untrained, load_config, load_model, load_tokenizer
from fivescore.training.plot import write_plot
from fivescore.training.progress import is_main, print_line
from fivescore.training.recipe import Recipe
from fivescore.training.record import make_record, write_predictions
from fivescore.training.resume import starting_point, write_recipe
from fivescore.training.rows import (
    MASKED,
    Example,
    Report,
    attribute_rows,
    preference_rows,
    prepare,
)
from fivescore.training.run import body_dtype, make_trainer, read


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a run needs, except the weights."""

    tokenizer: Any
    config: Any
    manifest: Manifest
    examples: list[Example]
    validation: list[Example]
    constants: list[float]
    """The mean training label per attribute."""
    reports: list[Report]


def train(recipe: Recipe) -> None:
    """Train, and write the folder ``recipe.output``.

    Raises:
        ConfigurationError: the recipe, the data and the backbone do not fit together, or the model
            diverges.
    """
    started = time.monotonic()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    checkpoint = starting_point(recipe)
    prepared = _prepare(recipe)
    trained = meaning.trained(prepared.manifest, recipe.stage)
    dtype = body_dtype(recipe)

    def fresh() -> Any:
        return load_model(recipe, prepared.config, list(trained), dtype)

    trainer = make_trainer(
        recipe,
        fresh(),
        trained,
        prepared.examples,
        prepared.validation,
        prepared.tokenizer.pad_token_id or 0,
    )
    if is_main():
        write_recipe(recipe)
    trainer.train(resume_from_checkpoint=checkpoint)
    raw = trainer.predict(trainer.eval_dataset).predictions
    if not np.isfinite(raw).all():
        raise ConfigurationError("the model's outputs are not finite: lower --learning-rate")
    seconds = time.monotonic() - started
    record = make_record(recipe, trainer, prepared.reports, dtype, seconds)  # before LoRA is merged
    export(trainer, fresh, prepared.tokenizer, prepared.manifest, dtype, recipe.output)
    if trainer.is_world_process_zero():
        write_proof(recipe.output)
        _write_report(recipe, prepared, record, read(raw, trained))


def _prepare(recipe: Recipe) -> Prepared:
    tokenizer = load_tokenizer(recipe)
    config = load_config(recipe)
    manifest = meaning.plan(recipe, config)
    if manifest.prompt.format == "chat_template" and not tokenizer.chat_template:
        raise ConfigurationError(
            f"--model {recipe.model}: its tokenizer has no chat template: give one with"
            " --chat-template, or another --prompt-format"
        )
    conversation = Conversation(manifest.prompt, tokenizer, config.get_text_config().pad_token_id)
    manifest = meaning.fix_day(manifest, conversation.day)
    reports = [Report("train"), Report("validation")]
    examples, validation = _read_examples(recipe, manifest, conversation, reports)
    constants = metrics.means(_labels(examples))
    if not has_head(recipe, config):
        _check_every_attribute_has_labels(manifest, _labels(examples))
        if not recipe.uncentered:
            manifest = meaning.center(manifest, constants)
    if is_untrained(recipe.model):
        print_line(f"{recipe.model} has no weights: they start random, with seed {recipe.seed}")
    return Prepared(tokenizer, config, manifest, examples, validation, constants, reports)


def _read_examples(
    recipe: Recipe, manifest: Manifest, conversation: Conversation, reports: Sequence[Report]
) -> list[list[Example]]:
    """The examples of both splits; rows that cannot be used are printed and reported."""
    names = list(meaning.trained(manifest, recipe.stage))
    read_row = (
        attribute_rows(names, manifest.prompt.format)
        if recipe.stage == "regression"
        else preference_rows(manifest.prompt.format)
    )
    splits = read_splits(recipe.data, recipe.validation, recipe.stage)
    both = []
    for rows, report in zip((splits.train, splits.validation), reports, strict=True):
        limit = manifest.max_tokens or sys.maxsize
        examples = prepare(rows, read_row, conversation, limit, report, progress=is_main())
        for line in report.lines():
            print_line(line)
        if not examples:
            raise ConfigurationError(
                f"--data {recipe.data}: no {report.name} row can be used: "
                + ", ".join(report.bad.counts)
            )
        both.append(examples)
    return both


def _check_every_attribute_has_labels(manifest: Manifest, labels: Array) -> None:
    """Refuse attributes without labels: their outputs would be served untrained."""
    has_labels = (labels != MASKED).any(axis=0)
    missing = [name for name, has in zip(manifest.attributes, has_labels, strict=True) if not has]
    if missing:
        raise ConfigurationError(
            f"no training row has a label for {', '.join(missing)}: give the other attributes with"
            " --attributes"
        )


def _labels(examples: Sequence[Example]) -> Array:
    return np.asarray([example.labels for example in examples], dtype=np.float64)


def _write_report(
    recipe: Recipe, prepared: Prepared, record: dict[str, Any], values: Array
) -> None:
    """Write record, predictions, plot and card.

    Args:
        values: the attributes of the validation rows, ``[rows, sequences, names]``.
    """
    names = list(meaning.trained(prepared.manifest, recipe.stage))
    labels = _labels(prepared.validation)
    if recipe.stage == "regression":
        fits = metrics.fits(values[:, 0], labels, names, prepared.constants)
        record["validation"] = {name: fit.as_json() for name, fit in fits.items()}
    else:
        margins = values[:, 1, 0] - values[:, 0, 0]
        record["validation"] = {"preference": metrics.preference_metrics(margins, labels[:, 0])}
    folder = recipe.output
    write_predictions(folder, prepared.validation, values, names)
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    write_plot(folder, record)
    write_card(folder, recipe, prepared.manifest, record)
    print_line(f"{folder}: serve it with  fivescore serve --model {folder}")
