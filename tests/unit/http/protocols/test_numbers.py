"""Rewards as the numbers that trainers want: from 0 to 1, and as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fivescore.http.protocols.openai import _plain
from fivescore.http.protocols.openrlhf import reward_range, unit
from fivescore.model.manifest import PRESETS, Affine, Combined

FINITE = st.floats(allow_nan=False, allow_infinity=False)


HELPSTEER2 = PRESETS["helpsteer2"]
BIASED = Combined(weights={"helpfulness": 1.0, "verbosity": -0.5}, bias=10.0)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (HELPSTEER2.reward, (-4 * 0.33, 4 * (0.3 + 0.74 + 0.46 + 0.47))),
        (BIASED, (8.0, 14.0)),
        (PRESETS["scalar"].reward, None),
        (Combined(weights={"coherence": 0}), None),
    ],
    ids=["weights", "a bias", "scalar", "weights of zero"],
)
def test_the_range_is_what_the_weights_make_of_attributes_from_0_to_4(
    reward: Affine | Combined, expected: tuple[float, float] | None
) -> None:
    found = reward_range(HELPSTEER2.model_copy(update={"reward": reward}))
    assert found == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("reward", "expected"), [(-1, 0), (0, 0), (1, 0.25), (2, 0.5), (4, 1), (5, 1)]
)
def test_a_reward_is_placed_between_the_bounds(reward: float, expected: float) -> None:
    assert unit(reward, (0.0, 4.0)) == expected


@given(FINITE, st.none() | st.tuples(FINITE, FINITE).filter(lambda pair: pair[0] < pair[1]))
@example(1e308, None)
@example(-1e308, None)
@example(0.5, (0.0, 5e-324))
@example(1e308, (-1e308, 1.7e308))
@example(-1.7e308, (0.0, 1.7e308))
def test_any_finite_reward_becomes_a_number_from_0_to_1(
    reward: float, bounds: tuple[float, float] | None
) -> None:
    assert 0.0 <= unit(reward, bounds) <= 1.0


@given(FINITE)
@example(0.0)
@example(-40.0)
def test_without_bounds_it_is_the_logistic_function(reward: float) -> None:
    if abs(reward) < 700:
        assert unit(reward, None) == pytest.approx(1 / (1 + math.exp(-reward)), abs=1e-12)


@given(FINITE)
@example(1e-7)
@example(-1e22)
@example(5e-324)
@example(-0.0)
@example(1.6171875)
def test_a_number_in_a_content_has_no_exponent_and_reads_back_the_same(value: float) -> None:
    text = _plain(value)
    assert set(text) <= set("0123456789.-")
    assert float(text) == value
