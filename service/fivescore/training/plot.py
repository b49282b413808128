"""Plots losses and validation metrics over the steps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLOT_FILE = "training.png"
LOSS = {"regression": "mse", "preference": "preference_loss"}
"""The validation loss per stage, in the Trainer's log."""
QUALITY = {"regression": "_pearson", "preference": "preference_accuracy"}
"""Endings of the other validation metrics that are plotted."""


def write_plot(folder: Path, record: dict[str, Any]) -> None:
    """Write ``training.png``: losses on the left, correlations or accuracies on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stage = record["recipe"]["stage"]
    history = record["history"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    _line(losses, history, "loss", "training", linewidth=1, alpha=0.7)
    _line(losses, history, f"eval_{LOSS[stage]}", "validation", marker="o")
    losses.axhline(_constant(record["validation"]), color="grey", linestyle="--",
                   label="validation, constant predictor")  # fmt: skip
    losses.axvline(record["best_step"], color="grey", linestyle=":", label="best, exported")
    losses.set(xlabel="step", title="masked MSE" if stage == "regression" else "scaled BT loss")
    ending = QUALITY[stage]
    for key in sorted({key for entry in history for key in entry if key.endswith(ending)}):
        name = key.removeprefix("eval_").removesuffix("_pearson").replace("_", " ")
        _line(scores, history, key, name, marker="o")
    scores.set(
        xlabel="step",
        title="Pearson, validation" if stage == "regression" else "accuracy, validation",
    )
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.savefig(folder / PLOT_FILE, dpi=120)


def _constant(validation: dict[str, Any]) -> float:
    """The loss of the constant predictor on the validation rows."""
    if "preference" in validation:
        return float(validation["preference"]["constant_loss"])
    fits = [fit for fit in validation.values() if fit["rows"]]
    total = sum(fit["constant_mse"] * fit["rows"] for fit in fits)
    return float(total / sum(fit["rows"] for fit in fits))


def _line(axes: Any, history: list[dict[str, Any]], key: str, label: str, **style: Any) -> None:
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)
