"""Builds PromQL expressions that are filtered by the dashboards' variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

TARGET = 'job=~"$job",instance=~"$instance"'
WINDOW = "$__rate_interval"
"""Grafana's variable: at least four scrapes, so that a rate has its two samples."""
SCORING = 'method="POST",route!~"unknown|/seed_session"'
"""Requests that score: no probes, scrapes, unknown paths or NeMo-Gym's start of a session."""


def select(metric: str, *matchers: str) -> str:
    """The series of a metric that the dashboard's variables select."""
    return f"{metric}{{{','.join((TARGET, *matchers))}}}"


def rate(metric: str, *matchers: str, window: str = WINDOW, offset: str = "") -> str:
    """Events per second of a counter; an ``offset`` such as ``1d`` looks that far back."""
    past = f" offset {offset}" if offset else ""
    return f"rate({select(metric, *matchers)}[{window}]{past})"


def sum_rate(metric: str, *matchers: str, by: str = "", offset: str = "") -> str:
    """Events per second of a counter, summed over the series with the same ``by``."""
    return f"sum{_by(by)}({rate(metric, *matchers, offset=offset)})"


def divide(part: str, whole: str, matching: str = "") -> str:
    """A ratio that is absent, instead of NaN, while the whole is 0."""
    return f"{part} / {matching}({whole} > 0)"


def or_zero(expression: str) -> str:
    """For sums without labels whose absence means 0."""
    return f"{expression} or vector(0)"


def quantile(q: float, metric: str, *matchers: str, by: str = "", offset: str = "") -> str:
    """A histogram's quantile; absent without observations (no comparison holds for NaN)."""
    labels = f"le,{by}" if by else "le"
    buckets = sum_rate(f"{metric}_bucket", *matchers, by=labels, offset=offset)
    return f"histogram_quantile({q}, {buckets}) > -Inf"


def mean(metric: str, *matchers: str, by: str = "") -> str:
    """The mean of a histogram's observations, which must not be negative."""
    total = sum_rate(f"{metric}_sum", *matchers, by=by)
    return divide(total, sum_rate(f"{metric}_count", *matchers, by=by))


def bucket_mean(
    metric: str, bounds: Sequence[float], *matchers: str, by: str = "", offset: str = ""
) -> str:
    """The mean of a histogram's observations, from its buckets: see ``middle_mean``."""
    return middle_mean(
        lambda le: sum_rate(f"{metric}_bucket", *matchers, le, by=by, offset=offset),
        sum_rate(f"{metric}_count", *matchers, by=by, offset=offset),
        bounds,
    )


def middle_mean(below: Callable[[str], str], count: str, bounds: Sequence[float]) -> str:
    """A mean for which every observation is at the middle of its bucket.

    Scores may be negative, so their histograms have no ``_sum``: it could fall, and ``rate`` takes
    every fall for a restart. The mean is then the last middle, less, for each bound, the share of
    observations below it times the step between the middles on its two sides.

    Args:
        below: a matcher of ``le`` to the observations below those bounds.
        count: all observations.
        bounds: the finite upper bounds, rising.
    """
    inner = [(low + high) / 2 for low, high in pairwise(bounds)]
    first = bounds[0] - (bounds[1] - bounds[0]) / 2
    last = bounds[-1] + (bounds[-1] - bounds[-2]) / 2
    groups: dict[float, list[str]] = {}
    for bound, (low, high) in zip(bounds, pairwise([first, *inner, last]), strict=True):
        groups.setdefault(high - low, []).append(str(float(bound)))
    largest = max(groups, key=lambda step: len(groups[step]))
    others = [le for step, les in groups.items() if step != largest for le in les]
    terms = [
        f"{step:g} * {below(_not([*others, '+Inf']) if step == largest else _one_of(les))}"
        for step, les in groups.items()
    ]
    return f"{last:g} - ({' + '.join(terms)}) / ({count} > 0)"


def _one_of(les: Sequence[str]) -> str:
    return f'le=~"{_pattern(les)}"'


def _not(les: Sequence[str]) -> str:
    return f'le!~"{_pattern(les)}"'


def _pattern(les: Sequence[str]) -> str:
    return "|".join(le.replace(".", "[.]").replace("+", "[+]") for le in les)


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
