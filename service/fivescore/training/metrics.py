"""Errors and correlations of predictions, beside those of a constant predictor, the mean label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fivescore.data.statistics import Array, pearson, spearman
from fivescore.training.rows import MASKED


@dataclass(frozen=True, slots=True)
class Fit:
    """One attribute over the ``rows`` that have its label.

    A value is None where it is not defined, such as the correlation of a constant.
    """

    rows: int
    mse: float | None
    pearson: float | None
    spearman: float | None
    constant_mse: float | None
    """The error of always predicting the mean label of the training rows."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def means(labels: Array) -> list[float]:
    """Mean label per attribute of ``[rows, attributes]``; 0 for one without labels."""
    return [float(column[column != MASKED].mean()) if (column != MASKED).any() else 0.0
            for column in labels.T]  # fmt: skip


def fits(
    values: Array, labels: Array, names: Sequence[str], constants: Sequence[float]
) -> dict[str, Fit]:
    """The fit per attribute of ``values`` to ``labels``, both ``[rows, attributes]``.

    Args:
        constants: the mean training label per attribute.
    """
    return {name: _fit(values[:, i], labels[:, i], constants[i]) for i, name in enumerate(names)}


def masked_mse(values: Array, labels: Array) -> float:
    """Mean squared error over all labels that are not masked."""
    present = labels != MASKED
    return float(((values - labels)[present] ** 2).mean())


def _fit(values: Array, labels: Array, constant: float) -> Fit:
    present = labels != MASKED
    values, labels = values[present], labels[present]
    if not len(labels):
        return Fit(0, None, None, None, None)
    return Fit(
        rows=len(labels),
        mse=float(((values - labels) ** 2).mean()),
        pearson=pearson(values, labels),
        spearman=spearman(values, labels),
        constant_mse=float(((constant - labels) ** 2).mean()),
    )


def preference_metrics(margins: Array, strengths: Array) -> dict[str, float]:
    """Loss and accuracy of margins ``[rows]``, the second response's score minus the first's.

    A tie counts as wrong; ``constant_loss`` is the loss of equal scores.
    """
    signed = margins * np.sign(strengths)
    losses = np.abs(strengths) * np.logaddexp(0.0, -signed)
    constant = float(np.abs(strengths).mean() * np.log(2.0))
    return {
        "loss": float(losses.mean()),
        "accuracy": float((signed > 0).mean()),
        "constant_loss": constant,
    }
