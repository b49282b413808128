"""Distributions expose what prometheus_client's own histograms would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from fivescore.telemetry.distribution import Distributions
from fivescore.telemetry.metrics import REWARDS, SCORES, TOKENS

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(bounds=st.sampled_from([SCORES, REWARDS, TOKENS, (0.5,)]), values=st.lists(FINITE))
def test_it_is_prometheus_clients_histogram(bounds: tuple[float, ...], values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    (mine,) = Distributions("fivescore_x", "X.", bounds, ours).create()
    reference = Histogram("fivescore_x", "X.", buckets=bounds, registry=theirs)
    for value in (*values, *bounds):
        mine.observe(value)
        reference.observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_labels_are_prometheus_clients_too() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    a, b = Distributions("fivescore_x", "X.", (0.5, 1), ours, "kind").create(("a", "b"))
    reference = Histogram("fivescore_x", "X.", ("kind",), buckets=(0.5, 1), registry=theirs)
    for one, name, value in ((a, "a", 0.25), (b, "b", 0.75), (b, "b", 7.0)):
        one.observe(value)
        reference.labels(name).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_what_is_created_again_is_empty_and_replaces_the_others() -> None:
    registry = CollectorRegistry()
    metric = Distributions("fivescore_x", "X.", (1,), registry, "kind")
    metric.create(("a", "b"))[0].observe(0.5)
    metric.create(("c",))
    text = generate_latest(registry).decode()
    assert 'fivescore_x_count{kind="c"} 0.0' in text
    assert '"a"' not in text
    assert '"b"' not in text
