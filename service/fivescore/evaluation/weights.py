"""Searches weights of attributes whose reward orders the most preferences right.

Only the direction of the weights matters, because a positive factor changes no order. The search
goes over directions, with attributes scaled to the same spread. The result has a Euclidean norm of
1 in the attributes' own units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fivescore.data.statistics import Array

CANDIDATES = 1024
"""Random directions of the coarse search, uniform on the sphere."""
NEIGHBOURS = 96
ROUNDS = 8
"""Rounds of the local search; each tries ``NEIGHBOURS`` directions at half the last radius."""
FIRST_RADIUS = 0.5
INTERVAL = (2.5, 97.5)
"""The percentiles of a 95% interval."""
SAME = 1e-12
"""Accuracies that differ by less are equal: sums of shares are rounded."""

Groups = NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """``weights`` ``[k]`` of norm 1, and their accuracy on the comparisons of the search."""

    weights: Array
    accuracy: float


@dataclass(frozen=True)
class Comparisons:
    """The comparisons of a search.

    Args:
        differences: ``[n, k]``, attributes of the chosen response minus those of the rejected one;
            zeros where one could not be scored, which no weights order right.
        shares: ``[n]``, the weight of each row; they sum to 1.
        groups: ``[n]``, a number per prompt; rows of one prompt are not independent.
    """

    differences: Array
    shares: Array
    groups: Groups

    def some(self, rows: NDArray[np.bool_]) -> Comparisons:
        """The rows where ``rows`` ``[n]`` is true."""
        shares = self.shares[rows]
        return Comparisons(self.differences[rows], shares / shares.sum(), self.groups[rows])

    def counted(self, counts: Array) -> Comparisons:
        """The same rows, each repeated ``counts`` ``[n]`` times."""
        shares = self.shares * counts
        return Comparisons(self.differences, shares / shares.sum(), self.groups)


def hits(differences: Array, weights: Array) -> NDArray[np.bool_]:
    """``[n, c]``: whether weights ``[c, k]`` put the chosen response strictly first."""
    return differences @ weights.T > 0


def accuracy(data: Comparisons, weights: Array) -> Array:
    """``[c]``: the share of rows that weights ``[c, k]`` order right."""
    accuracies: Array = data.shares @ hits(data.differences, weights)
    return accuracies


def share(data: Comparisons, right: NDArray[np.bool_]) -> float:
    """The accuracy of ``right`` ``[n]``."""
    return min(1.0, float(data.shares @ right))  # rounded shares may sum to more than 1


def search(data: Comparisons, seed: int, starts: Sequence[Array] = ()) -> Fitted:
    """The best weights of a coarse search and a local one around its best.

    Args:
        starts: weights ``[k]`` that the coarse search also tries.
    """
    random = np.random.default_rng(seed)
    scale = _spread(data.differences)
    width = data.differences.shape[1]
    coarse = [random.standard_normal((CANDIDATES, width)), np.eye(width), -np.eye(width)]
    coarse += [np.atleast_2d(start * scale) for start in starts if np.any(start)]
    scaled = Comparisons(data.differences / scale, data.shares, data.groups)
    best = _best(scaled, _unit(np.vstack(coarse)))
    radius = FIRST_RADIUS
    for _ in range(ROUNDS):
        steps = radius * random.standard_normal((NEIGHBOURS, width))
        near = _best(scaled, _unit(np.vstack([best.weights, best.weights + steps])))
        best = near if near.accuracy >= best.accuracy - SAME else best
        radius /= 2
    return Fitted(_unit(best.weights / scale)[0], best.accuracy)


def _spread(differences: Array) -> Array:
    spread: Array = differences.std(axis=0)
    spread[spread == 0] = 1.0
    return spread


def _unit(directions: Array) -> Array:
    rows = np.atleast_2d(directions)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Array = rows / np.where(length == 0, 1.0, length)
    return units


def _best(data: Comparisons, directions: Array) -> Fitted:
    """The best of directions ``[c, k]``; several equal ones are averaged, for robustness."""
    scores = accuracy(data, directions)
    top = float(scores.max())
    ties = directions[scores >= top - SAME]
    middle = _unit(ties.mean(axis=0))
    if len(ties) > 1 and accuracy(data, middle)[0] >= top - SAME:
        return Fitted(middle[0], top)
    return Fitted(ties[0], top)


def cross_validated(data: Comparisons, folds: int, seed: int) -> NDArray[np.bool_]:
    """``[n]``: whether weights that were fitted without a row's fold order that row right.

    All rows of a group are in one fold.
    """
    random = np.random.default_rng(seed)
    names = random.permutation(np.unique(data.groups))
    right = np.zeros(len(data.groups), dtype=bool)
    for fold in range(folds):
        held_out = np.isin(data.groups, names[fold::folds])
        if held_out.any() and not held_out.all():
            fitted = search(data.some(~held_out), seed + fold)
            right[held_out] = hits(data.differences[held_out], fitted.weights[None])[:, 0]
    return right


def resampled(groups: Groups, times: int, seed: int) -> Array:
    """``[times, n]``: how often each row is drawn when groups are drawn with replacement."""
    random = np.random.default_rng(seed)
    names, places = np.unique(groups, return_inverse=True)
    draws = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=times)
    counts: Array = draws[:, places].astype(np.float64)
    return counts


def accuracy_interval(
    right: NDArray[np.bool_], data: Comparisons, times: int, seed: int
) -> tuple[float, float]:
    """The 95% bootstrap interval, resampled by groups, of the accuracy of ``right`` ``[n]``."""
    shares = resampled(data.groups, times, seed) * data.shares
    low, high = np.percentile(shares @ right / shares.sum(axis=1), INTERVAL)
    return float(low), float(high)


def weight_intervals(data: Comparisons, times: int, seed: int) -> Array:
    """``[2, k]``: the 95% bootstrap intervals of the weights, fitted again on each resample."""
    counts = resampled(data.groups, times, seed)
    fitted = [search(data.counted(each), seed + i).weights for i, each in enumerate(counts)]
    bounds: Array = np.percentile(np.stack(fitted), INTERVAL, axis=0)
    return bounds
