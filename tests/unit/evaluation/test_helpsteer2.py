"""HelpSteer2's metrics on cases that are checked by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import ConfigurationError
from fivescore.evaluation.helpsteer2 import attribute, calibration, examples, markdown, measure
from fivescore.evaluation.store import Failure, Result
from fivescore.model.manifest import ATTRIBUTES
from fivescore.types import Score
from tests.unit.evaluation.sources import source


def row(**values: Any) -> dict[str, Any]:
    return {"prompt": "Q", "response": "A", **dict.fromkeys(ATTRIBUTES, 3), **values}


def scored(value: float, reward: float = 0.0, names: tuple[str, ...] = ATTRIBUTES) -> Score:
    return Score(dict.fromkeys(names, value), reward, 5)


def test_errors_and_correlations_by_hand() -> None:
    found = attribute(np.array([0.0, 2, 4]), np.array([1.0, 2, 2]))
    assert found["mse"] == pytest.approx(5 / 3)
    assert found["mae"] == pytest.approx(1)
    assert found["bias"] == pytest.approx(-1 / 3)
    assert found["mse_of_mean"] == pytest.approx(8 / 3)
    assert found["pearson"] == pytest.approx(np.sqrt(3) / 2)
    assert found["true"]["counts"] == [1, 0, 1, 0, 1]
    assert [one["true"] for one in found["predicted_by_true"]] == [0, 2, 4]


def test_a_model_that_always_answers_the_same_has_no_correlation_but_a_note() -> None:
    found = attribute(np.array([0.0, 2, 4]), np.array([2.0, 2, 2]))
    assert (found["pearson"], found["spearman"]) == (None, None)
    assert found["note"]
    assert found["mse"] == pytest.approx(found["mse_of_mean"])
    assert found["calibration"] == [
        {"rows": 3, "predicted": 2.0, "true": 2.0, "error": pytest.approx(0.9428, abs=1e-4)}
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1, 5)), min_size=1, max_size=200))
def test_bins_hold_every_row_once_in_order(points: list[tuple[int, float]]) -> None:
    truth, predicted = np.array(points, float).T
    bins = calibration(truth, predicted)
    assert sum(one["rows"] for one in bins) == len(points)
    assert 1 <= len(bins) <= 10
    means = [one["predicted"] for one in bins]
    assert means == sorted(means)
    total = sum(one["true"] * one["rows"] for one in bins)
    assert total / len(points) == pytest.approx(truth.mean())


def test_rows_that_failed_are_left_out_and_counted() -> None:
    pairs, truths = examples([source(*(row(helpfulness=i) for i in range(4)))])
    assert len(pairs) == 4
    results: list[Result] = [scored(0.0), scored(1.0, 1), Failure("too_long", "."), scored(3.0, 2)]
    found, points = measure(truths, results)
    assert found["rows"] == {"total": 4, "scored": 3, "failed": 1}
    assert found["attributes"]["helpfulness"]["mse"] == 0.0
    assert points["helpfulness"][0].tolist() == [0, 1, 3]
    assert found["reward_and_helpfulness"]["spearman"] == pytest.approx(1)
    assert "1 of 4 rows could not be scored" in markdown(found)[0]
    json.dumps(found, allow_nan=False)


def test_missing_annotations_are_masked() -> None:
    rows = [row(verbosity=None), row(verbosity=-100), row(verbosity=1)]
    _, truths = examples([source(*rows)])
    found, _ = measure(truths, [scored(2.0)] * 3)
    assert found["attributes"]["verbosity"]["rows"] == 1
    assert found["attributes"]["verbosity"]["mse"] == 1.0


def test_a_scalar_model_is_compared_by_its_reward() -> None:
    _, truths = examples([source(*(row(helpfulness=i) for i in range(4)))])
    results = [scored(0, reward=float(i), names=()) for i in range(4)]
    found, points = measure(truths, results)
    assert not points
    assert found["reward_and_helpfulness"]["pearson"] == pytest.approx(1)
    assert "none of HelpSteer2's attributes" in "\n".join(markdown(found))


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ConfigurationError, match="no row has an annotation"):
        examples([source({"prompt": "Q", "response": "A"})])
    _, truths = examples([source(row())])
    with pytest.raises(ConfigurationError, match="too long"):
        measure(truths, [Failure("too_long", "too long")])
