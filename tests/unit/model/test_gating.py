"""The arithmetic of a gated head."""

from __future__ import annotations

import math

import pytest

from fivescore.errors import NoGate
from fivescore.model import gating
from fivescore.model.head import Gate

RAW = [1.0, -2.0, 0.5, 0.0, math.log(2.0), math.log(5.0)]
"""Three outputs, and three of a gate whose softmax is an eighth, a quarter and five eighths."""


def test_the_sum_is_of_the_softmax_times_the_scale() -> None:
    weights = gating.weights(RAW, Gate(scale=4.0))
    assert weights == pytest.approx([0.5, 1.0, 2.5])
    assert gating.combined(RAW, weights) == pytest.approx([1.0, -2.0, 0.5, -0.25])


def test_without_softmax_the_gate_s_outputs_are_the_weights() -> None:
    weights = gating.weights(RAW, Gate(softmax=False, scale=-1.0))
    assert weights == pytest.approx([0.0, -math.log(2.0), -math.log(5.0)])


def test_large_outputs_of_a_gate_do_not_overflow() -> None:
    assert gating.weights([0, 0, 9e9, 9e9 - 1], Gate()) == pytest.approx(
        [0.731059, 0.268941], abs=1e-6
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so_and_raises_nothing(value: float) -> None:
    weights = gating.weights([1.0, 1.0, value, value], Gate())
    assert math.isnan(gating.combined([1.0, 1.0, 0.0, 0.0], weights)[-1])


@pytest.mark.parametrize(
    ("ids", "at", "place"),
    [
        ([7, 1, 2, 7, 1, 2, 3], (1, 2), 4),
        ([1, 2, 3], (1, 2), 0),
        ([3, 1, 2], (1, 2), 1),
        ([1, 1, 1], (1, 1), 1),
        ([5, 6], (), 1),
    ],
)
def test_the_gate_is_at_the_first_token_of_the_last_occurrence(
    ids: list[int], at: tuple[int, ...], place: int
) -> None:
    assert gating.position(ids, at) == place


@pytest.mark.parametrize("ids", [[1], [2, 1], [1, 3, 2], []])
def test_ids_without_the_gate_s_are_refused_by_name(ids: list[int]) -> None:
    with pytest.raises(NoGate, match=r"head\.gate\.at of the manifest") as caught:
        gating.position(ids, (1, 2))
    assert caught.value.facts == {"tokens": len(ids)}
