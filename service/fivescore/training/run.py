"""The optimisation itself: transformers' Trainer with this project's loss, metrics and order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from fivescore.data.statistics import Array, pearson
from fivescore.errors import ConfigurationError
from fivescore.model.manifest import Affine
from fivescore.training.batches import Collator, Ordered, training_order
from fivescore.training.loss import MaskedSquaredError, ScaledBradleyTerry, read_attributes
from fivescore.training.metrics import masked_mse, preference_metrics
from fivescore.training.progress import Progress
from fivescore.training.recipe import Recipe
from fivescore.training.resume import CHECKPOINTS
from fivescore.training.rows import MASKED, Example

EVALUATIONS = 10
"""Validations in a run unless --evaluate-every says otherwise."""
BEST = {"regression": "eval_mse", "preference": "eval_preference_loss"}
"""The metric that the best checkpoint has the least of."""


def make_trainer(
    recipe: Recipe,
    model: Any,
    trained: dict[str, Affine],
    examples: Sequence[Example],
    validation: Sequence[Example],
    pad_id: int,
) -> Trainer:
    """A Trainer for the recipe; ``trained`` says how each label's attribute is read."""
    steps = recipe.step_count(len(examples))
    lengths = [example.length for example in examples]
    order = training_order(lengths, recipe.batch_size, steps, recipe.seed)
    affines = list(trained.values())
    regression = recipe.stage == "regression"
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, steps),
        data_collator=Collator(pad_id),
        train_dataset=Ordered(examples, order),
        eval_dataset=Ordered(validation),
        compute_loss_func=MaskedSquaredError(affines)
        if regression
        else ScaledBradleyTerry(affines[0]),
        compute_metrics=_Metrics(trained, regression),
        callbacks=[_EvaluateAtTheEnd(), _StopWhenNotFinite(), Progress()],
    )
    for chatty in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(chatty)
    return trainer


class _OneDevice(TrainingArguments):  # type: ignore[misc]  # transformers is Any to mypy
    """One device per process: a launcher starts the others.

    With several GPUs and no launcher the Trainer would split batches over threads, which changes
    how many rows a step reads.
    """

    @property
    def n_gpu(self) -> int:
        """0 or 1."""
        return min(int(super().n_gpu), 1)


def _arguments(recipe: Recipe, steps: int) -> TrainingArguments:
    every = min(recipe.evaluate_every or max(1, steps // EVALUATIONS), steps)
    arguments = _OneDevice(
        output_dir=str(recipe.output / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=recipe.micro_batch_size,
        per_device_eval_batch_size=recipe.micro_batch_size,
        learning_rate=recipe.peak,
        lr_scheduler_type="constant_with_warmup"
        if recipe.schedule == "constant"
        else recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=body_dtype(recipe) == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=recipe.keep_checkpoints,
        load_best_model_at_end=True,
        metric_for_best_model=BEST[recipe.stage],
        greater_is_better=False,
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,
        report_to=[],
        seed=recipe.seed,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    arguments.gradient_accumulation_steps = _accumulation(recipe, arguments.world_size)
    return arguments


def _accumulation(recipe: Recipe, world_size: int) -> int:
    at_once = recipe.micro_batch_size * world_size
    if recipe.batch_size % at_once:
        raise ConfigurationError(
            f"--batch-size {recipe.batch_size} is not a multiple of --micro-batch-size"
            f" {recipe.micro_batch_size} on {world_size} devices"
        )
    return recipe.batch_size // at_once


def body_dtype(recipe: Recipe) -> str:
    """What the body computes in."""
    return recipe.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")


class _Metrics:
    """Validation metrics; keys get ``eval_`` in front from the Trainer."""

    def __init__(self, trained: dict[str, Affine], regression: bool) -> None:
        self._trained = trained
        self._regression = regression

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        values = read(prediction.predictions, self._trained)
        labels = np.asarray(prediction.label_ids, dtype=np.float64)
        if not self._regression:
            found = preference_metrics(values[:, 1, 0] - values[:, 0, 0], labels[:, 0])
            return {f"preference_{name}": value for name, value in found.items()}
        values = values[:, 0]
        metrics = {"mse": masked_mse(values, labels)}
        for i, name in enumerate(self._trained):
            present = labels[:, i] != MASKED
            if present.any():
                metrics[f"{name}_mse"] = masked_mse(values[:, i], labels[:, i])
                correlation = pearson(values[present, i], labels[present, i])
                if correlation is not None:
                    metrics[f"{name}_pearson"] = correlation
        return metrics


def read(raw: Any, affines: dict[str, Affine]) -> Array:
    """Attributes of the raw outputs that the Trainer gathered, ``[rows, sequences, names]``."""
    values = read_attributes(torch.as_tensor(raw, dtype=torch.float64), list(affines.values()))
    return np.asarray(values.numpy(), dtype=np.float64)


class _EvaluateAtTheEnd(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """The last step is a candidate for the best, whatever --evaluate-every is."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


class _StopWhenNotFinite(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Weights that are NaN stay so: no use to go on."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise ConfigurationError(
                f"step {state.global_step}: the loss is not finite: lower --learning-rate"
            )
