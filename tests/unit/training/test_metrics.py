"""The validation metrics, checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fivescore.training.metrics import (
    fits,
    masked_mse,
    means,
    preference_metrics,
)
from fivescore.training.rows import MASKED

LABELS = np.array([[0.0, 4.0], [2.0, MASKED], [4.0, 4.0]])
VALUES = np.array([[1.0, 3.0], [2.0, 9.0], [3.0, 5.0]])


def test_means_leave_out_what_is_masked() -> None:
    assert means(LABELS) == [2.0, 4.0]
    assert means(np.array([[MASKED]])) == [0.0]


def test_an_attributes_fit() -> None:
    found = fits(VALUES, LABELS, ("helpfulness", "verbosity"), [1.0, 3.0])
    first, second = found["helpfulness"], found["verbosity"]
    assert first.rows == 3
    assert first.mse == pytest.approx(2 / 3)
    assert first.constant_mse == pytest.approx((1 + 1 + 9) / 3)
    assert first.pearson == pytest.approx(1.0)
    assert first.spearman == pytest.approx(1.0)
    assert (second.rows, second.mse, second.constant_mse) == (2, 1.0, 1.0)
    assert (second.pearson, second.spearman) == (None, None)


def test_an_attribute_without_labels_has_no_fit() -> None:
    (found,) = fits(np.ones((2, 1)), np.full((2, 1), MASKED), ("x",), [0.0]).values()
    assert (found.rows, found.mse, found.constant_mse) == (0, None, None)


def test_the_masked_error_is_over_all_labels() -> None:
    assert masked_mse(VALUES, LABELS) == pytest.approx((1 + 1 + 0 + 1 + 1) / 5)


def test_preferences() -> None:
    found = preference_metrics(np.array([1.0, -1.0, 0.0]), np.array([2.0, 1.0, -3.0]))
    assert found["accuracy"] == pytest.approx(1 / 3)  # a tie is wrong
    by_hand = 2 * math.log1p(math.exp(-1)) + math.log1p(math.exp(1)) + 3 * math.log(2)
    assert found["loss"] == pytest.approx(by_hand / 3)
    assert found["constant_loss"] == pytest.approx(2 * math.log(2))
