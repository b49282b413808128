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
    attributes={
        "second": Affine(output=1, scale=10.0, offset=1.0),
        "third": Affine(output=2),
    },
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


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(5))
def test_an_output_that_is_not_finite_is_an_error_and_no_score(place: int, bad: float) -> None:
    raw = [1.0] * 5
    raw[place] = bad
    with pytest.raises(NonFinite) as caught:
        reward.score(raw, HELPSTEER2, tokens=3)
    assert caught.value.facts == {"tokens": 3}


@pytest.mark.parametrize("bad", BAD)
def test_an_attribute_that_is_not_finite_is_an_error_even_if_it_weighs_nothing(
    bad: float,
) -> None:
    with pytest.raises(NonFinite):
        reward.score([1.0, 1.0, 1.0, 1.0, bad], HELPSTEER2, {"helpfulness": 1.0}, tokens=1)


@pytest.mark.parametrize("bad", BAD)
def test_a_scalar_reward_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(NonFinite):
        reward.score([0.0, bad], SCALAR, tokens=1)


def test_a_reward_that_overflows_is_an_error() -> None:
    with pytest.raises(NonFinite):
        reward.score([1e308] * 5, HELPSTEER2, {"helpfulness": 1e10}, tokens=1)


def test_weights_of_known_attributes_pass() -> None:
    reward.check_weights({"helpfulness": 1.0, "verbosity": -0.2}, HELPSTEER2)


def test_an_unknown_weight_is_named_with_what_there_is() -> None:
    with pytest.raises(InvalidRequest) as caught:
        reward.check_weights({"helpfulness": 1.0, "humor": 1.0}, HELPSTEER2)
    assert "humor" in caught.value.detail
    assert all(name in caught.value.detail for name in ATTRIBUTES)


def test_empty_weights_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        reward.check_weights({}, HELPSTEER2)


def test_weights_for_a_scalar_model_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidRequest, match="scalar reward"):
        reward.check_weights({"helpfulness": 1.0}, SCALAR)


@pytest.mark.parametrize("bad", BAD)
def test_a_weight_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(InvalidRequest, match="verbosity"):
        reward.check_weights({"helpfulness": 1.0, "verbosity": bad}, HELPSTEER2)
