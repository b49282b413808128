"""Metrics: every label value exists before it is needed, and each app has its own."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fivescore.errors import Overloaded, ServiceUnavailable
from fivescore.telemetry.metrics import (
    CLOSED,
    LIMITS,
    OUTCOMES,
    PAIRS,
    REJECTIONS,
    REWARDS,
    SCORES,
    SECONDS,
    STAGE_SECONDS,
    STATES,
    TOKENS,
    Metrics,
)
from fivescore.telemetry.trace import STAGES
from fivescore.types import ATTRIBUTES, Score
from tests.unit.engines import DEMO_INFO
from tests.unit.test_errors import LEAVES


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.exposition().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


# What ends a request before its pairs are known, and what ends the process.
NOT_OF_PAIRS = {
    "unauthorized", "foreign_host", "foreign_origin", "body_too_large", "client_gone",
    "model_changed", "not_proved",
}  # fmt: skip


def test_every_error_that_can_end_a_pair_is_an_outcome() -> None:
    codes = {kind.code for kind in LEAVES} - NOT_OF_PAIRS
    assert codes == set(OUTCOMES) - {"ok", "cancelled", "internal_error"}


def test_it_starts_loading_and_one_state_is_set_at_a_time() -> None:
    metrics = Metrics()
    assert value(metrics, "fivescore_engine_state", state="loading") == 1
    for state in STATES:
        metrics.state(state)
        for name in STATES:
            assert value(metrics, "fivescore_engine_state", state=name) == (name == state)


def test_two_apps_do_not_share_counters() -> None:
    one, another = Metrics(), Metrics()
    one.pairs.labels("ok").inc(3)
    assert value(one, "fivescore_pairs_total", outcome="ok") == 3
    assert value(another, "fivescore_pairs_total", outcome="ok") == 0


@pytest.mark.parametrize("revision", ["abc123", None])
def test_what_was_loaded_is_reported(revision: str | None) -> None:
    metrics = Metrics()
    metrics.loaded(DEMO_INFO, ATTRIBUTES, revision, 1.5, proved=True)
    assert value(metrics, "fivescore_model_load_seconds") == 1.5
    (labels,) = [dict(key[1]) for key in samples(metrics) if key[0] == "fivescore_build_info"]
    assert (labels["model"], labels["engine"], labels["dtype"]) == ("demo", "test", "float32")
    assert labels["revision"] == (revision or "")


def test_no_name_of_ours_is_in_the_exposition_twice() -> None:
    text = Metrics().exposition().decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names))


def labelled(metrics: Metrics, name: str) -> set[str]:
    """The values of the one label of a metric."""
    found = (dict(labels) for sample, labels in samples(metrics) if sample == name)
    return {value for labels in found for key, value in labels.items() if key != "le"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fivescore_pairs_total", OUTCOMES),
        ("fivescore_connections_closed_total", CLOSED),
        ("fivescore_stage_duration_seconds_count", STAGES),
        ("fivescore_admission_rejections_total", REJECTIONS),
        ("fivescore_inflight_limit", LIMITS),
        ("fivescore_attribute_score_count", ATTRIBUTES),
        ("fivescore_nonfinite_scores_total", (*ATTRIBUTES, "reward")),
        ("fivescore_engine_state", STATES),
    ],
)
def test_every_series_exists_at_the_start(name: str, expected: tuple[str, ...]) -> None:
    assert labelled(Metrics(), name) == set(expected)


def test_every_reason_to_refuse_a_request_is_counted() -> None:
    """A limit that was met, of requests or of bodies that are received, or the code of what says
    that the service takes no requests now.
    """
    below = {kind.code for kind in LEAVES if issubclass(kind, ServiceUnavailable)}
    assert set(REJECTIONS) == below - {Overloaded.code} | set(LIMITS) | {"bytes"}


@pytest.mark.parametrize("attributes", [(), ("safety", "humour")])
def test_a_loaded_model_brings_its_own_attributes(attributes: tuple[str, ...]) -> None:
    metrics = Metrics()
    metrics.loaded(DEMO_INFO, attributes, None, 1.0, proved=False)
    metrics.scored(Score(dict.fromkeys(attributes, 1.5), 2.5, tokens=7))
    assert labelled(metrics, "fivescore_attribute_score_count") == set(attributes)
    assert labelled(metrics, "fivescore_nonfinite_scores_total") == {*attributes, "reward"}
    for name in attributes:
        assert value(metrics, "fivescore_attribute_score_count", attribute=name) == 1
    assert value(metrics, "fivescore_reward_count") == 1


def test_a_score_is_counted_in_its_buckets() -> None:
    metrics = Metrics()
    scores = dict(zip(ATTRIBUTES, (-1.5, 0.0, 2.1, 4.0, 7.0), strict=True))
    metrics.scored(Score(scores, reward=4.4, tokens=150, cached_tokens=96, truncated=True))
    for name, score in scores.items():
        for bound in SCORES:
            count = value(
                metrics, "fivescore_attribute_score_bucket", attribute=name, le=str(bound)
            )
            assert count == (score <= bound)
        assert value(metrics, "fivescore_attribute_score_count", attribute=name) == 1
    assert value(metrics, "fivescore_reward_bucket", le="4.0") == 0
    assert value(metrics, "fivescore_reward_bucket", le="4.5") == 1
    # Another adds its tokens; none of them was cached, and it was not truncated.
    metrics.scored(Score(scores, reward=1.0, tokens=5))
    assert value(metrics, "fivescore_prompt_tokens_sum") == 155
    assert value(metrics, "fivescore_cached_prompt_tokens_total") == 96
    assert value(metrics, "fivescore_truncated_pairs_total") == 1


@pytest.mark.parametrize("bounds", [SECONDS, STAGE_SECONDS, PAIRS, TOKENS, SCORES, REWARDS])
def test_buckets_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
