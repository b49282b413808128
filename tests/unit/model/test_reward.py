"""Raw outputs to attributes to the combined reward."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import InvalidRequest, NonFinite
from fivescore.model import reward
from fivescore.model.manifest import ATTRIBUTES, PRESETS, Affine, Combined, Manifest

HELPSTEER2 = PRESETS["helpsteer2"]
SCALAR = Manifest(outputs=2, reward=Affine(output=1, scale=-2.0, offset=0.5))
SCALED = Manifest(
    outputs=3,
    attributes={"second": Affine(output=1, scale=10.0, offset=1.0), "third": Affine(output=2)},
    reward=Combined(weights={"second": 0.5, "third": -1.0}, bias=100.0),
)
BAD = (math.nan, math.inf, -math.inf)


def test_the_published_weights_combine_the_five() -> None:
    score = reward.score([3.0, 3.5, 4.0, 1.0, 2.0], HELPSTEER2, tokens=7)
    assert score.attributes == dict(zip(ATTRIBUTES, (3.0, 3.5, 4.0, 1.0, 2.0), strict=True))
    expected = 0.3 * 3.0 + 0.74 * 3.5 + 0.46 * 4.0 + 0.47 * 1.0 - 0.33 * 2.0
    assert score.reward == pytest.approx(expected, rel=1e-12)
    assert score.tokens == 7


def test_scale_offset_and_bias_are_applied_and_unread_outputs_ignored() -> None:
    score = reward.score([math.nan, 0.2, 4.0], SCALED, tokens=1)
    assert score.attributes == {"second": 3.0, "third": 4.0}
    assert score.reward == pytest.approx(100.0 + 0.5 * 3.0 - 4.0)


def test_a_scalar_reward_is_its_output_read_by_the_manifest() -> None:
    score = reward.score([9.0, 3.0], SCALAR, tokens=1)
    assert score.attributes == {}
    assert score.reward == -5.5


@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5))
def test_scores_are_never_clipped(raw: list[float]) -> None:
    assert list(reward.score(raw, HELPSTEER2, tokens=1).attributes.values()) == raw


def test_a_requests_weights_replace_the_manifests_and_its_bias() -> None:
    score = reward.score([0.0, 0.2, 4.0], SCALED, {"third": 0.25}, tokens=1)
    assert score.reward == 1.0
    assert score.attributes == {"second": 3.0, "third": 4.0}


def test_what_is_told_of_the_sequence_is_handed_on() -> None:
    score = reward.score([1.0] * 5, HELPSTEER2, tokens=9, cached_tokens=4, truncated=True)
    assert (score.tokens, score.cached_tokens, score.truncated) == (9, 4, True)


@pytest.mark.parametrize(
    ("raw", "model", "weights"),
    [
        *(([1.0] * place + [bad] + [1.0] * (4 - place), HELPSTEER2, None)
          for place in range(5) for bad in BAD),
        *(([1.0] * 4 + [bad], HELPSTEER2, {"helpfulness": 1.0}) for bad in BAD),  # weighs nothing
        *(([0.0, bad], SCALAR, None) for bad in BAD),
        ([1e308] * 5, HELPSTEER2, {"helpfulness": 1e10}),  # the reward overflows
    ],
)  # fmt: skip
def test_what_is_not_finite_is_an_error_and_no_score(
    raw: list[float], model: Manifest, weights: dict[str, float] | None
) -> None:
    with pytest.raises(NonFinite) as caught:
        reward.score(raw, model, weights, tokens=3)
    assert caught.value.facts == {"tokens": 3}


@pytest.mark.parametrize(
    ("weights", "model", "told"),
    [
        ({"helpfulness": 1.0, "humor": 1.0}, HELPSTEER2, ("humor", *ATTRIBUTES)),
        ({}, HELPSTEER2, ("empty",)),
        ({"helpfulness": 1.0}, SCALAR, ("scalar reward",)),
        *(({"helpfulness": 1.0, "verbosity": bad}, HELPSTEER2, ("verbosity",)) for bad in BAD),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_others_pass(
    weights: dict[str, float], model: Manifest, told: tuple[str, ...]
) -> None:
    reward.check_weights({"helpfulness": 1.0, "verbosity": -0.2}, HELPSTEER2)
    with pytest.raises(InvalidRequest) as caught:
        reward.check_weights(weights, model)
    assert all(word in caught.value.detail for word in told)
