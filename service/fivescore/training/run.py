"""Sets up transformers' Trainer with this project's loss, metrics and order of rows."""

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
"""Default number of validations in a run."""
BEST = {"regression": "eval_mse", "preference": "eval_preference_loss"}
"""The metric per stage that the best checkpoint minimises."""


def make_trainer(
    recipe: Recipe,
    model: Any,
    trained: dict[str, Affine],
    examples: Sequence[Example],
    validation: Sequence[Example],
    pad_id: int,
) -> Trainer:
    """A Trainer for the recipe.

    Args:
        trained: the attributes that the labels hold, in their order, and how each is read.

    Raises:
        ConfigurationError: the batch does not divide over the devices, or the rows do not fill it.
    """
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
    for default in (ProgressCallback, PrinterCallback):  # ``Progress`` replaces them
        trainer.remove_callback(default)
    return trainer


class _OneDevice(TrainingArguments):  # type: ignore[misc]  # transformers is Any to mypy
    """One device per process; a launcher starts a process for each device.

    With several GPUs and no launcher the Trainer would otherwise split batches over threads, and a
    step would read more rows.
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
    """The precision in which the body computes: a name of torch's."""
    return recipe.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")


class _Metrics:
    """Computes validation metrics; the Trainer puts ``eval_`` before their names."""

    def __init__(self, trained: dict[str, Affine], regression: bool) -> None:
        self._trained = trained
        self._regression = regression

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        values = read(prediction.predictions, self._trained)
        labels = np.asarray(prediction.label_ids, dtype=np.float64)
        if not self._regression:
            margins = values[:, 1, 0] - values[:, 0, 0]
            metrics = preference_metrics(margins, labels[:, 0])
            return {f"preference_{name}": value for name, value in metrics.items()}
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
    """Attributes ``[rows, sequences, names]`` of the raw outputs that the Trainer gathered."""
    values = read_attributes(torch.as_tensor(raw, dtype=torch.float64), list(affines.values()))
    return np.asarray(values.numpy(), dtype=np.float64)


class _EvaluateAtTheEnd(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Evaluates and saves the last step too, whatever --evaluate-every is."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


class _StopWhenNotFinite(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Stops when the loss is NaN or infinite, because the weights would not recover."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise ConfigurationError(
                f"step {state.global_step}: the loss is not finite: lower --learning-rate"
            )
