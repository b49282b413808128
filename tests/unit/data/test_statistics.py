"""Correlations on values that are checked by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.data.statistics import correlations, pearson, spearman

FINITE = st.floats(-10, 10)


@given(st.lists(FINITE, min_size=3, max_size=30, unique=True))
def test_perfect_and_inverted_orders(values: list[float]) -> None:
    x = np.array(values)
    ranks = np.argsort(np.argsort(x)).astype(float)
    assert correlations(ranks, 2 * ranks + 1) == pytest.approx(
        {"pearson": 1.0, "spearman": 1.0, "kendall": 1.0}
    )
    assert correlations(ranks, -ranks) == pytest.approx(
        {"pearson": -1.0, "spearman": -1.0, "kendall": -1.0}
    )


def test_hand_checked_correlations() -> None:
    found = correlations(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4]))
    assert found == pytest.approx({"pearson": 0.8, "spearman": 0.8, "kendall": 2 / 3})


def test_equal_values_share_their_rank() -> None:
    x, y = np.array([10.0, 20.0, 10.0, 30.0]), np.array([1.5, 3.0, 1.5, 4.0])
    assert spearman(x, y) == pytest.approx(1)
    assert pearson(x, y) == pytest.approx(35 / math.sqrt(275 * 4.5))


@pytest.mark.parametrize(
    ("x", "y", "note"),
    [([1, 1, 1], [1, 2, 3], "one side is constant"),
     ([1, 2, 3], [0.1, 0.1, 0.1 + 1e-15], "one side is constant"),
     ([1, 2], [1, 2], "fewer than 3 values"), ([], [], "fewer than 3 values")],
)  # fmt: skip
def test_where_there_is_no_correlation_it_is_null_with_a_note(
    x: list[float], y: list[float], note: str
) -> None:
    one, other = np.array(x, float), np.array(y, float)
    found = correlations(one, other)
    assert (pearson(one, other), spearman(one, other)) == (None, None)
    assert found == {"pearson": None, "spearman": None, "kendall": None, "note": note}
    json.dumps(found, allow_nan=False)


@given(st.lists(st.tuples(FINITE, FINITE), max_size=20))
def test_no_correlation_is_ever_nan(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).reshape(-1, 2).T
    for value in correlations(x, y).values():
        assert not isinstance(value, float) or math.isfinite(value)
