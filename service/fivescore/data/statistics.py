"""Correlations, which may be undefined, and other statistics for evaluation and training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
FEWEST = 3
"""The fewest points of a correlation: two always lie on a line."""


def correlations(x: Array, y: Array) -> dict[str, float | str | None]:
    """Pearson's, Spearman's and Kendall's (tau-b) correlation of two arrays ``[n]``.

    All are None if they are undefined; ``note`` then says why.
    """
    note = undefined(x, y)
    if note:
        return {"pearson": None, "spearman": None, "kendall": None, "note": note}
    return {
        "pearson": float(stats.pearsonr(x, y).statistic),
        "spearman": float(stats.spearmanr(x, y).statistic),
        "kendall": float(stats.kendalltau(x, y).statistic),
    }


def pearson(x: Array, y: Array) -> float | None:
    """Pearson's correlation of two arrays ``[n]``; None if undefined."""
    return None if undefined(x, y) else float(stats.pearsonr(x, y).statistic)


def spearman(x: Array, y: Array) -> float | None:
    """Spearman's correlation of two arrays ``[n]``; None if undefined."""
    return None if undefined(x, y) else float(stats.spearmanr(x, y).statistic)


def undefined(x: Array, y: Array) -> str | None:
    """Why the correlation of ``x`` and ``y`` is undefined; None if it is defined."""
    if len(x) < FEWEST:
        return f"fewer than {FEWEST} values"
    for values in (x, y):
        # Values that differ only by rounding count as constant.
        if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
            return "one side is constant"
    return None


def describe(values: Array) -> dict[str, Any]:
    """Mean, population standard deviation and range of an array ``[n]``, n > 0."""
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }
