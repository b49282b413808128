"""How well predictions meet labels, beside a predictor that always says the training mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fivescore.data.statistics import Array, pearson, spearman
from fivescore.training.rows import MASKED


@dataclass(frozen=True, slots=True)
class Fit:
    """One attribute over the ``rows`` that have its label; a correlation of constants is None."""

    rows: int
    mse: float | None
    pearson: float | None
    spearman: float | None
    constant_mse: float | None
    """What the mean label of the training rows would get."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def means(labels: Array) -> list[float]:
    """Mean label per attribute of ``[rows, attributes]``; 0 where there is none."""
    return [float(column[column != MASKED].mean()) if (column != MASKED).any() else 0.0
            for column in labels.T]  # fmt: skip


def fits(
    values: Array, labels: Array, names: Sequence[str], constants: Sequence[float]
) -> dict[str, Fit]:
    """Each attribute's fit; both arrays are ``[rows, attributes]``."""
    return {name: _fit(values[:, i], labels[:, i], constants[i]) for i, name in enumerate(names)}


def masked_mse(values: Array, labels: Array) -> float:
    """Mean squared error over all labels that are there."""
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
    """Loss and accuracy of ``margins`` for the second response, ``[rows]``; a tie is wrong.

    ``constant_loss`` is the loss of equal scores.
    """
    signed = margins * np.sign(strengths)
    losses = np.abs(strengths) * np.logaddexp(0.0, -signed)
    constant = float(np.abs(strengths).mean() * np.log(2.0))
    return {
        "loss": float(losses.mean()),
        "accuracy": float((signed > 0).mean()),
        "constant_loss": constant,
    }
