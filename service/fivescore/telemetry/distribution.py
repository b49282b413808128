"""Histograms of values that are observed for every pair.

prometheus_client's own histograms search their bounds one by one and take two locks per
observation, of which a pair has seven: ``loadtest/metrics_cost.py`` measures the difference.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Distribution:
    """Counts observations between rising ``bounds``. Not thread-safe: for the event loop only."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one finite value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Distributions(Collector):
    """One histogram metric: a ``Distribution`` per value of ``label``, or a single one without it.

    Args:
        bounds: upper bounds of the buckets, rising and inclusive, without infinity. Where they
            start below 0 there is no ``_sum``, as in prometheus_client: it could fall, which
            Prometheus takes for a restart.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        registry: CollectorRegistry,
        label: str | None = None,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(map(float, bounds))
        self._label = label
        self._by_value: dict[str, Distribution] = {}
        registry.register(self)

    def create(self, values: Iterable[str] = ("",)) -> list[Distribution]:
        """New, empty distributions for ``values``, in order; they replace the former ones."""
        self._by_value = {value: Distribution(self._bounds) for value in values}
        return list(self._by_value.values())

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._documentation, "histogram")
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for value, one in self._by_value.items():
            labels = {} if self._label is None else {self._label: value}
            total = 0
            for bound, count in zip(bounds, one.counts, strict=True):
                total += count
                metric.add_sample(f"{self._name}_bucket", {**labels, "le": bound}, total)
            metric.add_sample(f"{self._name}_count", labels, total)
            if self._bounds[0] >= 0:
                metric.add_sample(f"{self._name}_sum", labels, one.sum)
        yield metric
